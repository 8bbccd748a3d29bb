"""From an admitted call to a provider: the route's steps first, then a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haat.gateway.call import Call
from haat.kernel.errors import HaatError
from haat.usage.event import Outcome

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway


def resume(gateway: Gateway, call: Call) -> None:
    """Take a call, whose request is here whole, through the steps still before it and on to the provider."""
    route = call.route
    assert route is not None
    steps = route.steps
    while call.step < len(steps):
        step = steps[call.step]
        call.step += 1
        try:
            if not step(gateway, call):
                return
        except HaatError as error:
            call.client.refuse(call, error, Outcome.REFUSED)
            return
        if call.answered:
            return
    route.pool.acquire(call)
