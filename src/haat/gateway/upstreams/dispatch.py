"""Where a call goes, and whether it goes again: the one place that decides it.

A service with one healthy endpoint comes here only for its route's steps; all others come through
`go`. What the way to the provider reports, `failed` and `answered`, is taken in here as well, because it
decides the next step: the same service again, another endpoint, another provider, or the caller.
A call keeps its id, its reservation and its one record wherever it goes.
"""

from __future__ import annotations

import asyncio
import random
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from haat.gateway import relay
from haat.gateway.call import Call
from haat.gateway.clock import SECOND
from haat.gateway.http.headers import value_of, without
from haat.gateway.upstreams.endpoints import Endpoint, choose
from haat.gateway.upstreams.fallback import stand_in
from haat.gateway.upstreams.retries import MAX_ATTEMPTS, SAFE_METHODS, wait
from haat.gateway.websocket import tunnel
from haat.kernel.errors import HaatError, Overloaded, ProviderTimeout, ProviderUnavailable, RequestTimeout
from haat.usage.event import Outcome

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway
    from haat.gateway.upstreams.reader import AnswerReader

UNAVAILABLE = frozenset({502, 503, 504})
"""Answers that speak for the endpoint and not for the request; a 500 may be this caller's input alone."""


def resume(gateway: Gateway, call: Call) -> None:
    """Take a call, whose request is here whole, through the steps still before it and on to the provider."""
    route = call.route
    assert route is not None
    steps = route.steps
    if call.once is not None and not call.once.begun:
        try:
            if not call.once.begin(gateway, call):
                return
        except HaatError as error:
            relay.refuse(call, error, Outcome.REFUSED)
            return
    while call.step < len(steps):
        step = steps[call.step]
        call.step += 1
        try:
            if not step(gateway, call):
                return
        except HaatError as error:
            relay.refuse(call, error, Outcome.REFUSED)
            return
        if call.answered:
            return
    if call.extras is not None and call.extras.websocket:
        try:
            tunnel.begin(gateway, call)
        except HaatError as error:
            relay.refuse(call, error, Outcome.REFUSED)
    elif route.endpoints or route.breaker.failures:
        go(gateway, call)
    else:
        route.pool.acquire(call)


def go(gateway: Gateway, call: Call) -> None:
    """Send a call to the endpoint that suits best, or to a stand-in when none may be called."""
    route = call.route
    assert route is not None
    if call.answered:
        return  # its client left, or its time ran out, while it waited to go again
    now = gateway.clock.now_us()
    extras = call.extras
    if extras is not None and extras.chosen is not None and call.endpoint is None and extras.chosen.breaker.ready(now):
        endpoint: Endpoint | None = extras.chosen
    else:
        endpoint = choose(route.in_turn(), now, call.endpoint)
    if endpoint is not None:
        _send(call, endpoint, now)
        return
    other = stand_in(gateway, call, now)
    if other is not None:
        call.attempts += 1
        _send(call, other, now)
        return
    seconds = min(one.breaker.retry_after(now) for one in route.endpoints or (route.endpoint,))
    detail = f"The provider has failed repeatedly and is left alone for {seconds} seconds; the call is not billed."
    relay.fail(call, ProviderUnavailable(detail, reset_seconds=seconds))


def repeatable(call: Call) -> bool:
    """Tell whether executing the call twice is harmless, by its method or by its listing's word."""
    route = call.route
    return call.method in SAFE_METHODS or (route is not None and route.service.policy.repeatable)


def failed(call: Call, error: HaatError, sent: bool) -> None:
    """Take in that the way to the provider failed; ``sent`` tells whether anything of the request may have left."""
    gateway = call.client.gateway
    now = gateway.clock.now_us()
    if sent and call.once is not None:
        call.once.sent = True
    busy = isinstance(error, Overloaded)
    if busy:
        _endpoint(call).breaker.released(call)
    else:
        _endpoint(call).failed(now, call)
    if call.answered:
        return
    if call.headed or not _again(gateway, call, now, sent, not sent, busy, 0):
        relay.fail(call, error)


def answered(call: Call, upstream: AnswerReader) -> bool:
    """Take in the head of an answer; return True when the call goes elsewhere instead of passing it on."""
    gateway = call.client.gateway
    now = gateway.clock.now_us()
    status = upstream.status
    if status not in UNAVAILABLE:
        _endpoint(call).succeeded(now, call)
        return False
    pause = _retry_after(upstream.lines, now) if status == 503 else 0
    if pause:
        _endpoint(call).breaker.released(call)  # it is there, guards itself, and says until when
    else:
        _endpoint(call).failed(now, call)
    return _again(gateway, call, now, True, status == 503, False, pause)


def timed_out(call: Call) -> None:
    """End a call whose time is over.

    That is the provider's failure when it had the whole request, or when nobody answers at its address.
    """
    endpoint = _endpoint(call)
    if endpoint.pool.stalled if call.upstream is None else call.body_complete:
        endpoint.failed(call.client.gateway.clock.now_us(), call)
    if call.upstream is not None and call.once is not None:
        call.once.sent = True
    # What the provider was waiting for was the caller's to send: that is recorded as the caller's own failure.
    late = call.upstream is not None and not call.body_complete and not call.headed
    relay.fail(call, RequestTimeout() if late else ProviderTimeout())


def _again(
    gateway: Gateway, call: Call, now: int, sent: bool, unexecuted: bool, busy: bool, retry_after_us: int
) -> bool:
    """Let a call go again, now or a little later, if that is harmless and there is room for it.

    ``unexecuted``: nothing was sent, or the provider says that it did nothing. ``busy``: there was no
    connection to be had, which says nothing against trying elsewhere and everything against trying here.
    """
    route = call.route
    assert route is not None
    present = _endpoint(call)
    if call.body_streamed or present.service.id != route.service.id:
        return False  # a part of the request is gone, or a stand-in has failed as well
    harmless = not sent or repeatable(call)
    if harmless and call.attempts + 1 < MAX_ATTEMPTS:
        other = choose(route.in_turn(), now, present)
        if other is not None and other is not present and not sent:
            if not busy or other.pool.load < present.pool.load:
                _move(call, other, now)
                return True
        elif other is not None and not busy:
            pause = wait(call.attempts + 1, call.deadline - now, retry_after_us, random.random())  # noqa: S311
            if pause is not None and route.traffic.budget.spend(now, route.traffic.calls):
                _detach(call)
                call.attempts += 1
                call.endpoint = present
                asyncio.get_running_loop().call_later(pause / SECOND, go, gateway, call)
                return True
    if harmless or unexecuted:
        other = stand_in(gateway, call, now)
        if other is not None:
            _move(call, other, now)
            return True
    return False


def _move(call: Call, endpoint: Endpoint, now: int) -> None:
    _detach(call)
    call.attempts += 1
    _send(call, endpoint, now)


def _detach(call: Call) -> None:
    """Drop the connection on which the call has failed."""
    if call.upstream is not None:
        call.upstream.abort()


def _send(call: Call, endpoint: Endpoint, now: int) -> None:
    route = call.route
    assert route is not None
    call.endpoint = endpoint
    if endpoint.service.id != route.service.id:
        route.traffic.stood_in += 1
        if endpoint.credential_name:
            call.lines = without(call.lines, (endpoint.credential_name,))
    endpoint.breaker.admit(now, call)
    endpoint.pool.acquire(call)


def _endpoint(call: Call) -> Endpoint:
    """Return where the call was sent: the route's only endpoint, unless somebody has chosen."""
    route = call.route
    assert route is not None
    return route.endpoint if call.endpoint is None else call.endpoint


def _retry_after(lines: list[bytes], now: int) -> int:
    """Return the microseconds that a provider asks to be left alone for, 0 when it doesn't."""
    text = value_of(lines, b"retry-after")
    if not text:
        return 0
    if text.isdigit():
        return int(text[:9]) * SECOND
    try:
        return max(0, int(parsedate_to_datetime(text.decode("ascii", "replace")).timestamp() * SECOND) - now)
    except ValueError:
        return 0
