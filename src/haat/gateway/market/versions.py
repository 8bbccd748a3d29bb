"""Which version of a service a call asks for, what its answers say of that version, and when it is over.

A version can be named in three places: the path (``service@2``), the header ``API-Version: 2``, and the
media type ``Accept: application/vnd.haat.v2+json``. Whichever are used must agree: a call that asks
for two versions is refused. Inside the gateway there is only the path.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING

from haat.gateway.clock import SECOND
from haat.gateway.extras import extras_of
from haat.kernel.errors import InvalidRequest, VersionRetired

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.market.routes import Route
    from haat.gateway.market.snapshot import Service, Version

PREFIX = b"/v1/services/"
_VERSION = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_MEDIA = re.compile(rb"application/vnd\.haat\.v([A-Za-z0-9][A-Za-z0-9._-]{0,31}?)(\+json)?(?=[\s;,]|$)", re.IGNORECASE)


def ask(call: Call, version: bytes) -> None:
    """Note the version that a header asks for; raise nothing yet: a fault is answered in its turn."""
    extras = extras_of(call)
    if not _VERSION.fullmatch(version):
        call.fault = InvalidRequest("API-Version names a version of the service, as `2`.")
    elif extras.asked_version and extras.asked_version != version:
        call.fault = _conflict(extras.asked_version, version)
    else:
        extras.asked_version = version


def ask_by_media_type(call: Call, accept: bytes) -> bytes:
    """Note the versions that an Accept header asks for; return it with the types that the provider knows."""
    for match in _MEDIA.finditer(accept):
        ask(call, match[1])
    return _MEDIA.sub(b"application/json", accept)


def apply(call: Call) -> None:
    """Put the version that a header asks for into the target; raise InvalidRequest when the path has another."""
    assert call.extras is not None
    version = call.extras.asked_version
    at = call.target.find(PREFIX)
    if at < 0:
        return
    path, question, query = call.target[at + len(PREFIX) :].partition(b"?")
    provider, slash, rest = path.partition(b"/")
    service, tail_slash, tail = rest.partition(b"/")
    name, sign, named = service.partition(b"@")
    if sign and named != version:
        raise _conflict(named, version)
    call.target = b"".join(
        (call.target[:at], PREFIX, provider, slash, name, b"@", version, tail_slash, tail, question, query)
    )


def _conflict(one: bytes, other: bytes) -> InvalidRequest:
    names = " and ".join(name.decode("ascii", "replace")[:40] for name in (one, other))
    return InvalidRequest(f"Two versions are asked for, {names}: name one, in the path, API-Version or Accept.")


def end_of(service: Service, version: Version) -> int:
    """Return when a version stops being served, in microseconds since the epoch; 0 for never."""
    ends = [at for at in (service.sunset_at, version.policy.sunset_at) if at]
    return min(ends, default=0)


def check_sunset(route: Route, now: int) -> None:
    """Raise VersionRetired after a version's sunset."""
    if not 0 < route.sunset_at <= now:
        return
    successor = route.version.policy.successor
    at = datetime.fromtimestamp(route.sunset_at / SECOND, UTC)
    members = {"successor": f"{route.service.path}@{successor}"} if successor else {}
    raise VersionRetired(
        f"Version {route.version.version} of {route.service.path} ended on {at:%Y-%m-%d at %H:%M UTC}"
        + (f": move to version {successor}." if successor else "; the catalog names others."),
        **members,
    )


def lines(service: Service, version: Version, portal: str, gateway: str) -> bytes:
    """Return the header lines of every answer of a version: which it is, and whether its end is announced."""
    policy = version.policy
    text = f"API-Version: {version.version}\r\n"
    sunset = end_of(service, version)
    since = policy.deprecated_at or service.deprecated_at
    if since:
        if sunset:
            since = min(since, sunset)  # RFC 8594, 2: a sunset is never before the deprecation
        text += f"Deprecation: @{since // SECOND}\r\n"  # RFC 9745, 2.1: a structured date
        text += f'Link: <{portal}/services/{service.path}>; rel="deprecation"; type="text/html"\r\n'
    if sunset:
        text += f"Sunset: {format_datetime(datetime.fromtimestamp(sunset // SECOND, UTC), usegmt=True)}\r\n"
    if policy.successor:
        text += f'Link: <{gateway}/v1/services/{service.path}@{policy.successor}>; rel="successor-version"\r\n'
    return text.encode("ascii")
