"""One infer request: the task that it stands for, and the response that is made of what was answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.doors.answers import read_task_answer
from haat.gateway.doors.inference.message import InferRequest, read_request, write_response
from haat.gateway.doors.inference.tasks import Face, outputs_of, task_of
from haat.gateway.doors.visit import reply
from haat.gateway.languages import languages_of
from haat.infra.inference.tensors import SIZE_HEADER, Unfit
from haat.kernel.errors import InvalidRequest, MalformedJson, ProviderFailed

if TYPE_CHECKING:
    from haat.gateway.http.answers import Whole

_NO_OPTIONS: dict[str, Any] = {}
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Inference:
    """What the tensors of a request ask of a service that is called ``name`` here.

    ``task`` is the body of the native call and ``languages`` those that it names; the ``items`` came in ``shape``.
    """

    __slots__ = ("_asked", "_face", "_items", "_name", "_shape", "_version", "languages", "task")

    def __init__(
        self,
        asked: InferRequest,
        face: Face,
        shape: list[int],
        items: int,
        name: str,
        version: str,
        task: bytes,
        languages: str,
    ) -> None:
        self._asked, self._face, self._shape, self._items = asked, face, shape, items
        self._name, self._version = name, version
        self.task, self.languages = task, languages

    def give(self, answer: Whole) -> None:
        """Make a task's answer the response to what was asked; raise ProviderFailed."""
        outputs, _ = read_task_answer(answer)
        if len(outputs) != self._items:
            raise ProviderFailed(
                f"The provider gave {len(outputs)} outputs for {self._items} inputs; the call is not billed."
            )
        tensors = outputs_of(self._face, outputs, self._shape)
        body, json_size = write_response(self._asked, self._name, self._version, tensors)
        if json_size < 0:
            reply(answer, body)
            return
        reply(answer, body, b"application/octet-stream")
        answer.lines.append(f"{SIZE_HEADER}: {json_size}\r\n".encode("ascii"))

    def part(self, outputs: list[dict[str, Any]]) -> bytes:
        """Return the response that one part of an answer is, all of it JSON; raise ProviderFailed."""
        asked = InferRequest(self._asked.id, [], {}, dict.fromkeys(self._asked.wanted, False), binary=False)
        return write_response(asked, self._name, self._version, outputs_of(self._face, outputs, self._shape))[0]


def read_inference(
    body: bytes, json_size: bytes | None, face: Face, wanted: frozenset[str], name: str, version: str
) -> Inference:
    """Read a request; raise InvalidRequest for one that isn't one, MalformedJson for no JSON."""
    try:
        asked = read_request(body, json_size)
        task, shape = task_of(asked, face, wanted)
    except Unfit as unfit:
        raise InvalidRequest(f"{unfit}.", field=unfit.field) from unfit
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedJson from error
    languages = languages_of(task.get("config", _NO_OPTIONS))
    return Inference(asked, face, shape, len(task["input"]), name, version, _encode(task), languages)
