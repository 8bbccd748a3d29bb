"""The stages of admission: those of `RESOLVE` find a grant, those of `ADMIT` ask for each call.

No I/O, in the order in which they are listed: each refuses or goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import structs

from haat.gateway.call import Call
from haat.gateway.http.headers import is_host
from haat.gateway.limits.plan import MICRO
from haat.gateway.limits.reservations import bound, refused
from haat.gateway.market.data_policy import check_data_policy
from haat.gateway.market.grants import Divided, Grant
from haat.gateway.market.maintenance import check_maintenance
from haat.gateway.market.scopes import check_scope
from haat.gateway.market.versions import PREFIX, check_sunset
from haat.gateway.simulator.routes import simulated
from haat.identity.model import TEST_PREFIX, parse_key
from haat.kernel.errors import (
    BodyTooLarge,
    ExpiredCredential,
    InvalidCredential,
    InvalidRequest,
    NotFound,
    NotSubscribed,
    Overloaded,
    RevokedCredential,
    TargetTooLong,
    Unauthenticated,
)

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway

_DOT_SEGMENT = re.compile(rb"(?:^|/)(?:\.|%2e){1,2}(?=[/;]|$)", re.IGNORECASE)
_HALF_ENCODED = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_ENCODED_SLASH = re.compile(rb"%(?:2f|5c|00)", re.IGNORECASE)


def check_form(call: Call) -> None:
    """Refuse what the parser lets pass and RFC 9112 does not."""
    if call.fault is not None:
        raise call.fault
    if call.hosts != 1 and (call.hosts > 1 or call.minor_version == 1):
        raise InvalidRequest("Send exactly one Host header, with a host and at most a port (RFC 9112, 3.2).")
    if call.chunked and call.minor_version == 0:
        call.keep_alive = False
        raise InvalidRequest("HTTP/1.0 has no Transfer-Encoding.")
    if call.bearer and call.api_key and call.bearer != call.api_key:
        raise InvalidRequest("Two different API keys were sent: send one.")


def split_target(gateway: Gateway, call: Call) -> None:
    """Find the service's name and the path tail in the request target; raise NotFound elsewhere.

    The tail goes to the provider byte by byte, so nothing in it may climb out of the provider's own
    path: dot segments are refused, encoded ones and encoded slashes beside them too.
    """
    target, longest = call.target, gateway.settings.max_target_bytes
    if len(target) > longest:
        raise TargetTooLong(limit_bytes=longest)
    if not target.startswith(b"/"):  # absolute-form (RFC 9112, 3.2.2)
        absolute = _ABSOLUTE.match(target)
        if absolute is None or not is_host(absolute[1]):
            raise InvalidRequest("The request target must be a path.")
        target = target[absolute.end() :]
    if not target.startswith(PREFIX):
        raise NotFound("Services are called at /v1/services/{provider}/{service}/…")
    if b"\\" in target or b"#" in target or not target.isascii():  # the parser refuses the rest
        raise InvalidRequest("The request target has characters that a URI can't have: percent-encode them.")
    path, question, query = target.partition(b"?")
    provider, _, rest = path[len(PREFIX) :].partition(b"/")
    service, slash, tail = rest.partition(b"/")
    if (b"." in tail or b"%" in tail) and _DOT_SEGMENT.search(_ENCODED_SLASH.sub(b"/", tail)):
        raise InvalidRequest("The path may not contain `.` or `..` segments.")
    if b"%" in tail and _HALF_ENCODED.search(tail):
        raise InvalidRequest("The path has a percent sign without two hexadecimal digits: encode it as %25.")
    call.service_path, call.tail = provider + b"/" + service, slash + tail + question + query


def authenticate(gateway: Gateway, call: Call) -> None:
    """Find the credential behind the key; nothing before this makes a usage event."""
    if not gateway.directory.loaded:
        raise Overloaded("The gateway has only just started and does not know its market yet.")
    key = call.bearer or call.api_key
    if not key:
        raise Unauthenticated
    key_hash = gateway.key_hashes.get(key)
    if key_hash is None:
        text = key.decode("ascii", "replace")
        parse_key(text)
        key_hash = gateway.keyring.hash_key(text)
    credential = gateway.directory.credentials.get(key_hash)
    if credential is None:
        raise InvalidCredential
    if 0 < credential.revoked_at <= call.started:
        raise RevokedCredential
    if 0 < credential.expires_at <= call.started:
        raise ExpiredCredential
    gateway.remember_key(key, key_hash)
    if not credential.test and key.startswith(TEST_PREFIX):
        credential = structs.replace(credential, test=True)  # a snapshot of an older release does not say so
    call.credential = credential


def check_meter(gateway: Gateway, call: Call) -> None:
    """Serve nothing that can't be metered."""
    if gateway.meter.failing:
        raise gateway.meter.trouble()


def find_service(gateway: Gateway, call: Call) -> None:
    route = gateway.routes.find(call.service_path)
    test = call.credential is not None and call.credential.test
    if test:
        route = simulated(gateway, route)
    call.route = route
    if route.service.maintenance and not test:
        check_maintenance(route.service, call.started)
    if route.sunset_at and route.division is None:
        check_sunset(route, call.started)


def check_subscription(gateway: Gateway, call: Call) -> None:
    credential, route = call.credential, call.route
    assert credential is not None and route is not None
    call.subscription = gateway.directory.subscriptions.get((credential.application, route.service.id))
    if call.subscription is None:
        path = route.service.path
        raise NotSubscribed(f"The application is not subscribed to {path}: subscribe it in the catalog.")


def check_body(gateway: Gateway, call: Call) -> None:
    """Refuse a body that is declared too large before reading it."""
    assert call.grant is not None
    call.body_limit = limit = call.grant.body_limit
    if call.content_length > limit or call.body_size > limit:
        raise BodyTooLarge(limit_bytes=limit)


def admit(gateway: Gateway, call: Call) -> None:
    """Pass all limits or none, and reserve the call's share of the quota; raise Lacking when nobody pays for it yet."""
    assert call.grant is not None
    call.allowance = allowance = call.grant.allowance
    call.reserved = MICRO if allowance.in_requests else bound(call, allowance.unit)
    cover = call.grant.cover
    if cover is not None:
        cover.hold(call)
    refusal = allowance.admit(call.started, call.reserved)
    if refusal is not None:
        if cover is not None:
            cover.release(call)
        raise refused(refusal)
    call.admitted = True
    call.period = allowance.period


Stage = Callable[["Gateway", Call], None]
RESOLVE: tuple[Stage, ...] = (
    split_target,
    authenticate,
    find_service,
    check_scope,
    check_subscription,
    check_data_policy,
)
ADMIT: tuple[Stage, ...] = (check_meter, check_body, admit)


def resolve(gateway: Gateway, call: Call) -> Grant:
    """Find what the call's key and target grant; raise what speaks against it."""
    for stage in RESOLVE:
        stage(gateway, call)
    assert call.route is not None
    if call.route.division is not None:
        divided = Divided(gateway, call)
        gateway.grants.keep(call, divided)
        return divided.grant(gateway, call)
    grant = Grant(gateway, call)
    gateway.grants.keep(call, grant)
    return grant
