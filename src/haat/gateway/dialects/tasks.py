"""What those dialects share whose endpoints are asked a task in words of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.extras import extras_of
from haat.gateway.http.answers import Whole
from haat.gateway.http.headers import coding_of
from haat.gateway.http.streams import Rewriter
from haat.gateway.metering import read_usage
from haat.kernel.errors import HaatError, InvalidRequest, MethodNotAllowed, NotFound, ProviderFailed, problem_type
from haat.plugins.text import Unreadable, unfold

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.routes import Step

JSON = b"Content-Type: application/json\r\n"
STALE = (b"content-type", b"content-encoding", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"etag")
"""What a header said of a body that is replaced."""
_INVOKE = b"/invoke"
_MICRO = Decimal("0.000001")
_encode = msgspec.json.Encoder(decimal_format="number").encode


def refusing(error: HaatError) -> Step:
    """Return the step of a version that can't be called."""

    def step(gateway: Gateway, call: Call) -> bool:
        raise error

    return step


def task_in(call: Call) -> bytes:
    """Return the task that a call asks for, unfolded; raise what speaks against it."""
    assert call.grant is not None
    if call.grant.tail.partition(b"?")[0] != _INVOKE:
        raise NotFound("This service is called at /invoke, in the task schema.")
    if call.method != b"POST":
        raise MethodNotAllowed
    try:
        return unfold(b"".join(call.body), coding_of(call.lines))
    except Unreadable as error:
        raise InvalidRequest(f"The body can't be read: {error}.") from error


def give(call: Call, answer: Whole, outputs: Sequence[Any], counted: Mapping[str, Decimal]) -> None:
    """Make an answer the task's. What the call used is what was counted, unless the endpoint has reported it."""
    units = {unit: quantity.quantize(_MICRO).normalize() for unit, quantity in counted.items()}
    if not call.raw_usage and call.route is not None:
        said = "; ".join(f"{unit}={quantity:f}" for unit, quantity in units.items())
        read_usage(call, call.route, said.encode("ascii"))
        extras_of(call).counted = True
    usage = {unit: int(quantity) if quantity == int(quantity) else quantity for unit, quantity in units.items()}
    answer.lines.append(JSON)
    answer.body = _encode({"output": outputs, "usage": usage})


def give_refusal(call: Call, answer: Whole, sentence: str) -> None:
    """Make an endpoint's refusal a problem (RFC 9457)."""
    ours = answer.status < 500
    code = "PROVIDER_REFUSED" if ours else "PROVIDER_FAILED"
    answer.lines.append(b"Content-Type: application/problem+json\r\n")
    answer.body = _encode(
        {
            "type": problem_type(code),
            "title": "The provider refused the call" if ours else "The provider gave no usable answer",
            "status": answer.status,
            "detail": sentence or "The provider gave no reason.",
            "code": code,
            "request_id": call.id,
        }
    )


def refuse_streams(call: Call) -> None:
    """See to it that an answer which is a stream, or too large to be looked at, does not go on as it is."""
    if call.headed and not call.answered:
        extras_of(call).rewriter = _Unusable(())


class _Unusable(Rewriter):
    """Ends an answer before its first byte has left."""

    def feed(self, data: bytes, ended: bool) -> bytes:
        raise ProviderFailed("The provider's answer is a stream, or too large; the call is not billed.")
