"""``POST /v1/feedback``: what a caller says of answers. Kept by the control plane, which knows who made which call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from haat.gateway.doors.bodies import read_body
from haat.gateway.doors.handing import hand_on
from haat.gateway.doors.native import NativeOperation
from haat.gateway.doors.visit import Visit

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway

MOST_BYTES = 1024 * 1024
ANSWER_SECONDS = 10.0


class _Opinion(msgspec.Struct, forbid_unknown_fields=True):
    request_id: str
    thumbs: Literal["up", "down"] | None = None
    rating: int | None = None
    corrected: str | None = None
    answered: str | None = None
    comment: str | None = None


class _FeedbackBody(msgspec.Struct, forbid_unknown_fields=True):
    request_id: str | None = None
    thumbs: Literal["up", "down"] | None = None
    rating: int | None = None
    corrected: str | None = None
    answered: str | None = None
    comment: str | None = None
    items: list[_Opinion] | None = None


class Feedback(NativeOperation):
    """Looks at the shape of what came, and hands it on."""

    name = "haat feedback"
    body_limit = MOST_BYTES
    _decoder: ClassVar[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_FeedbackBody)

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        read_body(self._decoder, call)
        hand_on(gateway, call, visit, answer_seconds=ANSWER_SECONDS)
        return False


OPERATIONS = {(b"POST", b"/v1/feedback"): Feedback()}
