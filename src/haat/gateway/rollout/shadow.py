"""Copies of calls: what a service was asked is asked of another version as well, and its answer is dropped.

A copy is made of a call that is here whole and may be executed twice, and only after the call's own answer is on its
way: it can't keep that waiting. `haat.gateway.rollout.copies` sends it over connections of its own. There are at most
`MOST` copies in flight; what comes meanwhile isn't copied, and counted as dropped. A copy has one usage event, in the
mode ``shadow``, which belongs to the provider: nobody is billed for it, no limit or quota counts it, no breaker learns
from it.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import TYPE_CHECKING

from haat.gateway.cache.keys import canonical
from haat.gateway.upstreams.retries import SAFE_METHODS
from haat.kernel.bucketing import BUCKETS
from haat.usage.event import SHADOW, UsageEvent

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.answers import Whole
    from haat.gateway.market.policy import DivisionPolicy
    from haat.gateway.market.routes import Route, Step
    from haat.gateway.market.snapshot import Service
    from haat.gateway.rollout.copies import Shadows

MOST = 16
"""Copies in flight in one process, and connections to one of their endpoints."""
LARGEST = 64 * 1024
"""Answers are compared up to this size, and requests copied."""


def shadow_step(gateway: Gateway, route: Route) -> Step | None:
    """Return what notes a route's calls for copying, None for a route whose calls aren't copied."""
    division = route.service.division
    return note if division is not None and division.shadow is not None else None


def note(gateway: Gateway, call: Call) -> bool:
    """Keep what a call asks, if it is to be copied. Its body must be here, and asking twice must do no harm."""
    route = call.route
    assert route is not None
    division = route.service.division
    if (
        division is None
        or division.shadow is None
        or route.arm is None
        or not call.body_complete
        or call.body_streamed
        or call.body_size > LARGEST
        or not (call.method in SAFE_METHODS or route.service.policy.repeatable)
        or (call.extras is not None and (call.extras.websocket or call.extras.shadow is not None))
        or random.randrange(BUCKETS) >= division.shadow.buckets  # noqa: S311  # a sample, not a secret
    ):
        return True
    shadows = gateway.shadows
    if len(shadows.flying) >= MOST:
        shadows.dropped += 1
        return True
    assert call.grant is not None
    asked = Asked(shadows, route.service, division, call, call.grant.tail)
    call.on_answer = [*call.on_answer, asked]
    return True


class Asked:
    """What a call has asked, kept until its own answer is there. As an answer step it changes nothing."""

    def __init__(self, shadows: Shadows, service: Service, division: DivisionPolicy, call: Call, tail: bytes) -> None:
        self.service, self.division, self.tail = service, division, tail
        self.method, self.lines, self.body = call.method, list(call.lines), list(call.body)
        self.id, self.started = call.id, call.started
        self.language_pair = call.language_pair
        self.answer: bytes | None = None
        self._shadows = shadows

    def answered(self, call: Call, answer: Whole) -> None:
        """Have the copy sent once this turn's answers have left. An answer that nobody was asked for has no copy."""
        if call.cache in ("hit", "replay"):
            return
        if answer.status < 400 and len(answer.body) <= LARGEST:
            self.answer = answer.body
        asyncio.get_running_loop().call_soon(self._shadows.send, self)

    def missed(self, call: Call) -> None:
        """A stream has begun, or the provider has failed: that is copied, too. A refused call is not."""
        if call.fault is None or call.fault.status >= 500:
            asyncio.get_running_loop().call_soon(self._shadows.send, self)


class Copy:
    """One copy under way. As an answer step it compares."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._agreed: bool | None = None

    def answered(self, call: Call, answer: Whole) -> None:
        """Compare the answers as callers get them; JSON by what it says, not by how it is written."""
        first = self._asked.answer
        if first is not None:
            self._agreed = answer.status < 400 and _digest(first) == _digest(answer.body)

    def missed(self, call: Call) -> None:
        """There is nothing to compare."""

    def mark(self, event: UsageEvent) -> None:
        """Say in the usage event what it is: nobody earns by it, and no reader of any release can put it on a bill."""
        event.mode = SHADOW
        event.rollout, event.arm = self._asked.division.id, SHADOW
        event.agreed = self._agreed
        event.provider_org = event.subscription = event.application = event.credential = ""
        event.trace = self._asked.id.replace("-", "")


def _digest(body: bytes) -> bytes:
    read = canonical(body)
    return hashlib.blake2b(body if read is None else read[1], digest_size=16).digest()
