"""Models behind the Open Inference Protocol: asked in their own tensors, answering in the task schema.

The last step before the provider, so that the cache, plugins and a version's changes see tasks only. What a call
used is counted here from the task, unless the endpoint reports it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from haat.gateway.extras import extras_of
from haat.gateway.http.answers import Whole
from haat.gateway.http.headers import without
from haat.gateway.http.streams import Rewriter
from haat.gateway.metering import read_usage
from haat.infra.inference.asking import Asked, ask, error_in, read_answer
from haat.infra.inference.mapping import TensorMap
from haat.infra.inference.tensors import SIZE_HEADER, Unfit
from haat.kernel.errors import HaatError, InvalidRequest, MethodNotAllowed, NotFound, ProviderFailed, problem_type
from haat.plugins.text import Unreadable, unfold

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.routes import Route, Step

_encode = msgspec.json.Encoder(decimal_format="number").encode
_SIZE = SIZE_HEADER.lower().encode("ascii")
_STALE = (b"content-type", b"content-encoding", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"etag")
_JSON = b"Content-Type: application/json\r\n"
_BINARY = b"Content-Type: application/octet-stream\r\n"
_INVOKE = b"/invoke"
_MICRO = Decimal("0.000001")


def inference_step(gateway: Gateway, route: Route) -> Step | None:
    """Return what turns a route's tasks into infer requests, or None for a version that is asked otherwise."""
    if route.executing.dialect != "inference":
        return None
    tensors = route.executing.policy.tensors
    if tensors is None:
        return _refusing(
            InvalidRequest(f"Version {route.executing.version} does not say in which tensors it is asked.")
        )
    known: TensorMap = tensors

    def step(gateway: Gateway, call: Call) -> bool:
        assert call.grant is not None
        if call.grant.tail.partition(b"?")[0] != _INVOKE:
            raise NotFound("This service is called at /invoke, in the task schema.")
        if call.method != b"POST":
            raise MethodNotAllowed
        asked = ask(known, _plain(b"".join(call.body), call.lines))
        call.body = [asked.body]
        call.lines = without(call.lines, (*_STALE, _SIZE, b"accept-encoding"))
        if asked.json_size < 0:
            call.lines.append(_JSON)
        else:
            call.lines += [_BINARY, f"{SIZE_HEADER}: {asked.json_size}\r\n".encode("ascii")]
        call.on_answer = [*call.on_answer, _Answered(known, asked)]
        return True

    return step


def _refusing(error: HaatError) -> Step:
    def step(gateway: Gateway, call: Call) -> bool:
        raise error

    return step


def _plain(body: bytes, lines: list[bytes]) -> bytes:
    try:
        return unfold(body, _value(lines, b"content-encoding").decode("latin-1").lower())
    except Unreadable as error:
        raise InvalidRequest(f"The body can't be read: {error}.") from error


def _value(lines: list[bytes], name: bytes) -> bytes:
    """Return a header's value, empty when it isn't there."""
    for line in lines:
        found, _, value = line.partition(b":")
        if found.lower() == name:
            return value.strip()
    return b""


class _Answered:
    """Makes a model's answer the task's: `haat.gateway.http.answers.AnswerStep`."""

    __slots__ = ("_asked", "_tensors")

    def __init__(self, tensors: TensorMap, asked: Asked) -> None:
        self._tensors, self._asked = tensors, asked

    def answered(self, call: Call, answer: Whole) -> None:
        size = _value(answer.lines, _SIZE) or None
        coding = _value(answer.lines, b"content-encoding").decode("latin-1").lower()
        answer.lines = without(answer.lines, (*_STALE, _SIZE))
        if answer.status >= 400:
            answer.lines.append(b"Content-Type: application/problem+json\r\n")
            answer.body = _refusal(answer.status, error_in(answer.body), call.id)
            return
        try:
            outputs = read_answer(self._tensors, unfold(answer.body, coding), size, self._asked.items)
        except (Unfit, Unreadable) as error:
            raise ProviderFailed(f"The model's answer can't be used; the call is not billed. {error}.") from error
        units = {unit: quantity.quantize(_MICRO).normalize() for unit, quantity in self._asked.units.items()}
        if not call.raw_usage and call.route is not None:
            read_usage(
                call, call.route, "; ".join(f"{unit}={count:f}" for unit, count in units.items()).encode("ascii")
            )
            extras_of(call).counted = True
        usage = {unit: int(count) if count == int(count) else count for unit, count in units.items()}
        answer.lines.append(_JSON)
        answer.body = _encode({"output": outputs, "usage": usage})

    def missed(self, call: Call) -> None:
        """An answer that comes as a stream, or is too large to be looked at, is not passed on in tensors."""
        if call.headed and not call.answered:
            extras_of(call).rewriter = _Unusable(())


class _Unusable(Rewriter):
    """Ends an answer before its first byte has left."""

    def feed(self, data: bytes, ended: bool) -> bytes:
        raise ProviderFailed("The model's answer is a stream, or too large; the call is not billed.")


def _refusal(status: int, sentence: str, request_id: str) -> bytes:
    """Return a model's refusal as a problem (RFC 9457)."""
    code = "PROVIDER_REFUSED" if status < 500 else "PROVIDER_FAILED"
    return _encode(
        {
            "type": problem_type(code),
            "title": "The provider refused the call" if status < 500 else "The provider gave no usable answer",
            "status": status,
            "detail": sentence or "The provider gave no reason.",
            "code": code,
            "request_id": request_id,
        }
    )
