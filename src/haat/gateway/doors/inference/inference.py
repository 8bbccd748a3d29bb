"""One infer request: the task that it stands for, and the response that is made of what was answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.doors.answers import read_task_answer
from haat.gateway.doors.inference.message import LONGEST_ID, InferRequest, read_request, write_response
from haat.gateway.doors.inference.plain import Plain, decode_plain
from haat.gateway.doors.inference.tasks import face_of, outputs_of, plain_task_of, task_of
from haat.gateway.doors.visit import reply
from haat.gateway.http.headers import value_of
from haat.gateway.languages import languages_of
from haat.infra.inference.tensors import SIZE_HEADER, Unfit
from haat.kernel.errors import InvalidRequest, MalformedJson, ProviderFailed

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.http.answers import Whole
    from haat.gateway.market.routes import Route

_SIZE = SIZE_HEADER.lower().encode("ascii")
_NO_OPTIONS: dict[str, Any] = {}
_encode = msgspec.json.Encoder(decimal_format="number").encode


def read_plain(body: bytes) -> Plain | None:
    """Return the plain request in a body; None for another one, or none."""
    try:
        return decode_plain(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class Inference:
    """What the tensors of a call's body ask of a route that is called ``name`` here.

    ``task`` is the body of the native call and ``languages`` those that it names. Raise InvalidRequest for a request
    that isn't one, MalformedJson for no JSON.
    """

    __slots__ = ("_asked", "_face", "_name", "_shape", "_version", "languages", "task")

    def __init__(self, call: Call, route: Route, name: str) -> None:
        face = face_of(route.service.category)
        wanted = face.required(route.executing)
        parts = call.body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        size = value_of(call.lines, _SIZE)
        found: tuple[dict[str, Any], list[int]] | None = None
        plain = None if size else read_plain(body)
        if plain is not None and len(plain.id) <= LONGEST_ID:
            found = plain_task_of(plain, face, wanted)
        try:
            if plain is not None and found is not None:
                asked = InferRequest(plain.id, [], {}, {}, binary=False)
            else:
                asked = read_request(body, size or None)
                found = task_of(asked, face, wanted)
        except Unfit as unfit:
            raise InvalidRequest(f"{unfit}.", field=unfit.field) from unfit
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedJson from error
        task, shape = found
        self._asked, self._face, self._shape = asked, face, shape
        self._name, self._version = name, route.version.version
        self.task: bytes = _encode(task)
        self.languages: str = languages_of(task.get("config", _NO_OPTIONS))

    def give(self, answer: Whole) -> None:
        """Make a task's answer the response to what was asked; raise ProviderFailed."""
        outputs, _ = read_task_answer(answer)
        items = 1
        for size in self._shape:
            items *= size
        if len(outputs) != items:
            raise ProviderFailed(
                f"The provider gave {len(outputs)} outputs for {items} inputs; the call is not billed."
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
