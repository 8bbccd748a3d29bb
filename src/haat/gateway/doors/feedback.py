"""``POST /v1/feedback``: what a caller says of answers. Kept by the control plane, which knows who made which call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from haat.gateway import relay
from haat.gateway.doors.answers import Refused
from haat.gateway.doors.bodies import read_body
from haat.gateway.doors.native import NativeOperation
from haat.gateway.doors.visit import Visit
from haat.kernel.errors import HaatError, Overloaded
from haat.usage.event import Outcome

if TYPE_CHECKING:
    import httpx

    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway

MOST_BYTES = 1024 * 1024
_NO_MEMBERS = frozenset({"type", "title", "status", "detail", "code", "request_id", "instance"})


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
    """Looks at the shape of what came, asks the control plane, and answers as that does."""

    name = "haat feedback"
    body_limit = MOST_BYTES
    _decoder: ClassVar[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_FeedbackBody)

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        read_body(self._decoder, call)
        if gateway.control.is_busy:
            raise Overloaded("Much feedback comes in at the moment: try again shortly.")
        key = (call.bearer or call.api_key or b"").decode("latin-1")
        body = b"".join(call.body)
        gateway.control.keep(asyncio.get_running_loop().create_task(_hand_on(gateway, call, visit, body, key)))
        return False


async def _hand_on(gateway: Gateway, call: Call, visit: Visit, body: bytes, key: str) -> None:
    try:
        answer = await gateway.control.post("/feedback", body, key)
        if answer.status_code >= 400:
            raise _refusal(answer)
    except HaatError as error:
        if not call.answered:
            relay.refuse(call, error, Outcome.REFUSED)
        return
    if not call.answered:  # else who gave it has left
        visit.answer(call, answer.content, status=answer.status_code)


def _refusal(answer: httpx.Response) -> HaatError:
    """Return the control plane's refusal as one of ours, under the id of the caller's request."""
    try:
        said = answer.json()
        members = {name: value for name, value in said.items() if name not in _NO_MEMBERS}
        return Refused(answer.status_code, said["code"], said["title"], said["detail"], **members)
    except (ValueError, KeyError, AttributeError, TypeError):
        return Overloaded("The control plane does not answer as it should: try again shortly.")


OPERATIONS = {(b"POST", b"/v1/feedback"): Feedback()}
