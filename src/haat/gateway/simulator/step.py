"""The step in the provider's place: reads what failure is wished for, else answers.

``X-Haat-Simulate`` names a failure: `WISHES`. Whoever asks for none is answered at once, and the same each time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import structs

from haat.gateway import relay
from haat.gateway.call import Call
from haat.gateway.limits.allowance import Allowance
from haat.gateway.limits.counts import Counts
from haat.gateway.limits.plan import Refusal
from haat.gateway.limits.reservations import refused
from haat.gateway.simulator.answer import answer_to
from haat.gateway.simulator.wire import Line
from haat.gateway.units import settle
from haat.kernel.clock import month_of
from haat.kernel.errors import HaatError, InvalidRequest, MalformedJson, NotSupported, Overloaded, ProviderTimeout
from haat.usage.event import Outcome

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway

HEADER = b"x-haat-simulate"
WISHES = ("quota", "slow", "midstream", "overload", "timeout")
SLOW_SECONDS = 3.0
RETRY_SECONDS = 2
QUOTA = 1000
"""Of the simulated refusal, when the plan has none."""


def simulate(gateway: Gateway, call: Call) -> bool:
    """Answer a call, or fail it as its caller wishes: `haat.gateway.market.routes.Step`."""
    if call.extras is not None and call.extras.websocket:
        raise NotSupported("WebSocket sessions have no test mode: use a live key for them.")
    wish = wish_of(call.lines)
    if wish == "quota":
        raise _exhausted(call)
    if wish == "overload":
        raise Overloaded("Simulated: all places are taken and the queue is full.", reset_seconds=RETRY_SECONDS)
    if wish == "timeout":
        relay.fail(call, ProviderTimeout("Simulated: the provider did not answer in time; the call is not billed."))
        return False
    try:
        answer = answer_to(call)
    except RecursionError as error:
        raise MalformedJson("The body is nested too deeply.") from error
    line = Line(call, answer, breaks_off=wish == "midstream")
    line.begin(SLOW_SECONDS if wish == "slow" else 0.0)
    return False


def wish_of(lines: list[bytes]) -> str:
    """Return what the caller wants simulated, empty for an answer; raise InvalidRequest for what there isn't."""
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == HEADER:
            wish = value.strip().decode("ascii", "replace").lower()
            if wish not in WISHES:
                raise InvalidRequest(f"X-Haat-Simulate is one of {', '.join(WISHES)}.", field="X-Haat-Simulate")
            return wish
    return ""


def _exhausted(call: Call) -> HaatError:
    """Return the refusal of a plan whose quota is used up, with the headers that the plan's own would have."""
    subscription = call.subscription
    assert subscription is not None
    limits, now = subscription.limits, call.started
    if limits.quota_per_month is None:
        limits = structs.replace(limits, quota_per_month=QUOTA)
    assert limits.quota_per_month is not None
    settle(call, Outcome.REFUSED)  # its place goes back before it is shown another allowance than its own
    call.allowance = Allowance(Counts(), "simulated", limits, subscription.zone, now)
    ends = month_of(datetime.fromtimestamp(now / 1_000_000, UTC), subscription.zone).end
    seconds = max(1, int(ends.timestamp() - now / 1_000_000))
    return refused(Refusal("month", limits.quota_per_month, 0, seconds, limits.quota_unit))
