"""One infer request: the task that it stands for, and the response that is made of what was answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.doors.inference.message import LONGEST_ID, InferRequest, read_request, write_response
from haat.gateway.doors.inference.plain import read_plain
from haat.gateway.doors.inference.tasks import face_of, outputs_of, plain_task_of, task_of
from haat.gateway.http.headers import value_of
from haat.gateway.languages import languages_of
from haat.infra.inference.tensors import SIZE_HEADER, Unfit
from haat.kernel.errors import InvalidRequest, MalformedJson, ProviderFailed

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.market.routes import Route

_SIZE = SIZE_HEADER.lower().encode("ascii")
_NO_OPTIONS: dict[str, Any] = {}
_encode = msgspec.json.Encoder(decimal_format="number").encode


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

    def answered(self, outputs: list[dict[str, Any]]) -> tuple[bytes, int]:
        """Return the response, and how many bytes of it are JSON, -1 when all are; raise ProviderFailed."""
        items = 1
        for size in self._shape:
            items *= size
        if len(outputs) != items:
            raise ProviderFailed(
                f"The provider gave {len(outputs)} outputs for {items} inputs; the call is not billed."
            )
        return write_response(self._asked, self._name, self._version, outputs_of(self._face, outputs, self._shape))

    def part(self, outputs: list[dict[str, Any]]) -> bytes:
        """Return the response that one part of an answer is, all of it JSON; raise ProviderFailed."""
        asked = InferRequest(self._asked.id, [], {}, dict.fromkeys(self._asked.wanted, False), binary=False)
        return write_response(asked, self._name, self._version, outputs_of(self._face, outputs, self._shape))[0]
