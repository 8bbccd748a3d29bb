"""Answers in several parts: each part that a model gives is an event, `{"output": […]}` as in the task schema.

What a call uses is counted from its task, so it is known when the first part comes: the head of the answer says it,
and the record that opens the stream. A model that fails on the way ends the stream, and the call is not billed.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from haat.gateway.dialects.tasks import count
from haat.gateway.extras import extras_of
from haat.gateway.http.streams import Rewriter
from haat.gateway.upstreams.dispatch import UNAVAILABLE
from haat.infra.inference.asking import Asked, read_answer
from haat.infra.inference.mapping import TensorMap
from haat.infra.inference.tensors import Unfit
from haat.kernel.errors import InvalidRequest, ProviderFailed

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.plugins.api import Event

_encode = msgspec.json.Encoder(decimal_format="number").encode


class _Failure(msgspec.Struct):
    """What the last event of a broken stream says (`haat.bridge.app`)."""

    error: str = ""
    status: int = 0


_decode_failure = msgspec.json.Decoder(_Failure).decode


def begin(call: Call, tensors: TensorMap, asked: Asked) -> None:
    """Prepare a call to be answered in parts; raise InvalidRequest where nobody could take them."""
    takes = call.client.takes_parts and (call.visit is None or call.visit.operation.takes_parts)
    if not takes:
        raise InvalidRequest(
            "This model answers in several parts: call it at /invoke, or at the door of the Open Inference Protocol."
        )
    extras_of(call).rewriter = Rewriter((Parts(call, tensors, asked.items).look,))


def begun(call: Call, units: dict[str, Decimal]) -> None:
    """Count what a call has used whose first part is here, unless its endpoint has reported that."""
    if call.upstream is None or not call.upstream.usage:
        count(call, units)


class Parts:
    """Makes each part of one call's answer an event of the task schema."""

    __slots__ = ("_call", "_items", "_tensors")

    def __init__(self, call: Call, tensors: TensorMap, items: int) -> None:
        self._call, self._tensors, self._items = call, tensors, items

    def look(self, event: Event) -> bool | None:
        """Rewrite one event; raise ProviderFailed for one that says that the model has failed, or can't be used."""
        body = event.data.encode("utf-8")
        try:
            failure = _decode_failure(body)
        except msgspec.MsgspecError as error:
            raise ProviderFailed("The model's answer is not JSON; the call is not billed.") from error
        if failure.error:
            self._failed(failure)
        try:
            outputs = read_answer(self._tensors, body, None, self._items)
        except Unfit as error:
            raise ProviderFailed(f"The model's answer can't be used; the call is not billed. {error}.") from error
        event.data = _encode({"output": outputs}).decode("utf-8")
        return None

    def _failed(self, failure: _Failure) -> None:
        call = self._call
        if failure.status in UNAVAILABLE and call.route is not None:
            endpoint = call.route.endpoint if call.endpoint is None else call.endpoint
            endpoint.failed(call.client.gateway.clock.now_us(), call)
        raise ProviderFailed(f"The model broke off its answer; the call is not billed. {failure.error}")
