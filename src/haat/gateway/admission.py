"""A call from its request head to its dispatch: the stages are run here, and what isn't a call is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haat.gateway import health, relay, status
from haat.gateway.call import BUFFERED_BODY, Call
from haat.gateway.doors.operation import Operation
from haat.gateway.doors.visit import Visit
from haat.gateway.http import answers, cors
from haat.gateway.http.headers import METHODS, is_form, without
from haat.gateway.languages import read_languages
from haat.gateway.market import versions
from haat.gateway.market.grants import Divided, Entrance, Grant
from haat.gateway.market.versions import PREFIX
from haat.gateway.plugins import hooks
from haat.gateway.stages import ADMIT, authenticate, check_form, check_meter, resolve
from haat.gateway.upstreams import dispatch
from haat.gateway.wallets.cover import Lacking
from haat.kernel.errors import BodyTooLarge, HaatError
from haat.usage.event import Outcome
from haat.usage.journal import JournalError

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway


def begin(gateway: Gateway, call: Call) -> None:
    """Admit a call whose head is here and whose turn has come, or refuse it."""
    call.started = started = gateway.clock.now_us()
    call.number = number = gateway.ids.next(started)
    call.id_line = gateway.ids.line(number)
    try:
        if call.hosts != 1 or call.fault is not None or (call.bearer and call.api_key) or call.minor_version == 0:
            check_form(call)
        if call.extras is not None and call.extras.asked_version:
            versions.apply(call)
        if gateway.authenticators:
            hooks.authenticate(gateway, call)
        known = gateway.grants.find(gateway, call)
        if isinstance(known, Grant):
            grant = known
        elif isinstance(known, Entrance) and known.method == call.method:
            call.credential = known.credential
            call.visit = Visit(known.operation, call.target)
            _come_in(gateway, call, known.operation)
            return
        elif isinstance(known, Divided):
            grant = known.grant(gateway, call)
        else:
            if cors.is_preflight(call):
                _answer_preflight(gateway, call)
                return
            if not call.target.startswith(PREFIX):
                operation = gateway.doors.find(call.method, call.target, call.lines)
                if operation is not None:
                    _open(gateway, call, operation)
                    return
                if _is_about_us(gateway, call):
                    return
            grant = resolve(gateway, call)
        _admit(gateway, call, grant)
    except HaatError as error:
        relay.refuse(call, error, Outcome.REFUSED)
        return
    except Lacking as lack:
        gateway.purses.park(call, lack)
        return
    call.admission = gateway.clock.now_us() - started
    gateway.calls.add(call)
    if call.body_complete:
        send_on(gateway, call)
        return
    _await_body(call)
    if call.content_length > BUFFERED_BODY and not is_wanted_whole(call):
        send_on(gateway, call)


def _admit(gateway: Gateway, call: Call, grant: Grant) -> None:
    call.grant = grant
    call.credential = grant.credential
    call.route = grant.route
    call.subscription = grant.subscription
    for stage in ADMIT:
        stage(gateway, call)


def _await_body(call: Call) -> None:
    if call.expects_continue and call.body_size == 0 and call.minor_version == 1 and call.has_body:
        call.client.write(answers.CONTINUE)


def _open(gateway: Gateway, call: Call, operation: Operation) -> None:
    """Begin a visit at a front door: who isn't known mostly does not come further, and need not send a body."""
    call.visit = Visit(operation, call.target)
    if not operation.open_to_all:
        authenticate(gateway, call)
        if not gateway.doors.depends_on_headers(operation):
            gateway.grants.keep(call, Entrance(gateway, call, operation))
    _come_in(gateway, call, operation)


def _come_in(gateway: Gateway, call: Call, operation: Operation) -> None:
    if not operation.open_to_all:
        check_meter(gateway, call)
    call.body_limit = limit = operation.body_limit or gateway.settings.max_body_bytes
    if call.content_length > limit:
        raise BodyTooLarge(limit_bytes=limit)
    if call.body_complete:
        _enter(gateway, call)
    else:
        _await_body(call)


def _enter(gateway: Gateway, call: Call) -> None:
    """Make the call at a door the native one that it stands for, and admit that."""
    assert call.visit is not None
    visit = call.visit
    try:
        if call.body_complete and call.body and visit.operation.unfolds:
            visit.unfold(call)
        if not visit.operation.enter(gateway, call, visit):
            return
        known = gateway.grants.find(gateway, call)
        if isinstance(known, Grant):
            grant = known
        else:
            grant = known.grant(gateway, call) if isinstance(known, Divided) else resolve(gateway, call)
        _admit(gateway, call, grant)
    except HaatError as error:
        relay.refuse(call, error, Outcome.REFUSED)
        return
    except Lacking as lack:
        gateway.purses.park(call, lack)
        return
    call.admission = gateway.clock.now_us() - call.started
    gateway.calls.add(call)
    if call.body_complete or visit.spool is not None or not is_wanted_whole(call):
        send_on(gateway, call)


def resume(gateway: Gateway, call: Call) -> None:
    """Admit a call that has waited for its purse; raise Lacking when it must wait on, or what refuses it."""
    assert call.grant is not None
    _admit(gateway, call, call.grant)
    call.admission = gateway.clock.now_us() - call.started
    gateway.calls.add(call)
    if call.body_complete or (call.visit is not None and call.visit.spool is not None):
        send_on(gateway, call)
    elif call.visit is not None:
        if not is_wanted_whole(call):
            send_on(gateway, call)
    else:
        _await_body(call)
        if max(call.content_length, call.body_size) > BUFFERED_BODY and not is_wanted_whole(call):
            send_on(gateway, call)


def look_ahead(gateway: Gateway, call: Call) -> None:
    """Show a front door what has come of a large body: it may admit the call, or refuse it, before the rest comes."""
    assert call.visit is not None
    visit = call.visit
    if visit.operation.needs_whole:
        return
    try:
        enough = visit.operation.look(gateway, call, visit)
    except HaatError as error:
        relay.refuse(call, error, Outcome.REFUSED)
        return
    if enough:
        _enter(gateway, call)


def go_on(gateway: Gateway, call: Call) -> None:
    """Carry on a call whose body has just come to its end."""
    if call.grant is None:
        _enter(gateway, call)
    else:
        send_on(gateway, call)


def send_on(gateway: Gateway, call: Call) -> None:
    """Dispatch an admitted call, whose body is here whole unless it is to be streamed."""
    grant = call.grant
    assert grant is not None
    route = grant.route
    call.deadline = call.started + call.admission + route.timeout_us
    call.dispatched = True
    if call.accepts_stream:
        try:
            gateway.meter.open(call)
        except JournalError:
            relay.fail(call, gateway.meter.trouble())
            return
    if route.credential_name:
        call.lines = without(call.lines, (route.credential_name,))
    if route.reads_languages and call.body_complete:
        if call.visit is not None and call.visit.languages is not None:
            call.language_pair = call.visit.languages
        else:
            read_languages(call)
    if (
        route.steps
        or route.endpoints
        or route.breaker.failures
        or call.once is not None
        or (call.extras is not None and call.extras.websocket)
    ):
        dispatch.resume(gateway, call)
    else:
        route.pool.acquire(call)


def is_wanted_whole(call: Call) -> bool:
    """Tell whether something must see the request whole before it goes to the provider."""
    route = call.route
    if call.once is not None or (
        route is not None
        and route.steps
        and not route.passes_parts
        and not (route.passes_forms and is_form(call.lines))
    ):
        return True
    return call.visit is not None and call.grant is None


def _is_about_us(gateway: Gateway, call: Call) -> bool:
    """Answer what is asked about the gateway itself: nobody's call, and not metered."""
    code, headers = 200, b"Cache-Control: no-store\r\n"
    if health.is_asked(call.target):
        content_type = b"application/json"
        code, body = health.report(gateway, call.target)
    elif call.target == b"*" and call.method == b"OPTIONS":  # RFC 9110, 9.3.7
        content_type, body = b"text/plain", b""
        headers = b"Allow: %b\r\n" % b", ".join(sorted(METHODS))
    elif status.is_asked(gateway, call, call.client.peer()):
        content_type, body = status.report(gateway, call.target)
    else:
        return False
    call.answered = True
    if not call.client.drains(call) or gateway.draining:
        call.keep_alive = False
    call.client.write(answers.plain(call, code, content_type, body, headers))
    call.client.finished(call)
    return True


def _answer_preflight(gateway: Gateway, call: Call) -> None:
    """Tell a browser what its page may do here: nobody's call either."""
    allowed = cors.preflight(gateway, call)
    call.answered = True
    if not call.body_complete and call.has_body:
        call.keep_alive = False
    call.client.write(answers.empty(call, allowed))
    call.client.finished(call)
