"""Cross-origin calls of web pages (Fetch, 3.2): what a browser is told about which page may call what.

A preflight carries no key, so it is answered for everybody: yes, if any application lets that origin
call. Whether the call itself may be read is said with the call, by the application whose key it
carries. The gateway enforces nothing here: the browser does, and a key works without one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from haat.kernel.errors import RateLimited

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.snapshot import Credential, Directory

METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
HEADERS = (
    b"Authorization, X-API-Key, Content-Type, Accept, Accept-Language, API-Version, Idempotency-Key, If-None-Match, "
    b"X-Request-ID, X-Haat-User, X-Haat-Tags, X-Haat-Simulate, traceparent, tracestate, ulcaApiKey, userID"
)
"""Of these every page is told, whatever it asks for."""
MOST_ASKED = 4096
"""Bytes of further names that are allowed when a page asks for them."""
EXPOSED = (
    b"X-Request-ID, Request-Id, "
    b"RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, "
    b"Retry-After, X-Should-Retry, X-Haat-Units, X-Haat-Charge, X-Haat-Served-By, X-Haat-Mode, X-Haat-Variant, "
    b"X-Cache, ETag, "
    b"API-Version, Deprecation, Sunset, Link, Idempotency-Replayed"
)
MOST_PREFLIGHTS = 1000
"""Answered a second. They cost next to nothing, are not metered, and nobody needs more: browsers remember them."""

_EXPOSE = b"Access-Control-Expose-Headers: " + EXPOSED + b"\r\n"
_VARY = b"Vary: Origin\r\n"
_ASKED = b"access-control-request-headers:"
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Origins:
    """All origins that some application allows, found anew when applications change."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._generation = -1
        self._max_ages: dict[bytes, int] = {}
        self._with_credentials: set[bytes] = set()
        self._second = 0
        self._answered = 0

    def _renew(self) -> None:
        if self._generation == self._directory.generation:
            return
        self._generation = self._directory.generation
        self._max_ages, self._with_credentials = {}, set()
        for application in self._directory.applications.values():
            cors = application.policy.cors
            for origin in cors.origins if cors is not None else ():
                assert cors is not None
                name = origin.encode("ascii", "replace")
                self._max_ages[name] = min(cors.max_age, self._max_ages.get(name, cors.max_age))
                if cors.credentials:
                    self._with_credentials.add(name)

    def max_age(self, origin: bytes) -> int | None:
        """Return how many seconds an origin's preflight may be remembered; None when nobody allows the origin."""
        self._renew()
        age = self._max_ages.get(origin)
        return age if age is not None else self._max_ages.get(b"*")

    def allowed(self, origin: bytes) -> bytes:
        """Return the line that lets a page of an origin read what is no application's yet; empty for none."""
        self._renew()
        if origin in self._max_ages:
            return b"Access-Control-Allow-Origin: %b\r\n" % origin
        return b"Access-Control-Allow-Origin: *\r\n" if b"*" in self._max_ages else b""

    def with_credentials(self, origin: bytes) -> bool:
        """Tell whether some application lets pages of an origin call with credentials."""
        self._renew()
        return origin in self._with_credentials

    def admit(self, now_us: int) -> bool:
        """Count a preflight; False when there were too many in this second."""
        second = now_us // 1_000_000
        if second != self._second:
            self._second, self._answered = second, 0
        self._answered += 1
        return self._answered <= MOST_PREFLIGHTS


def is_preflight(call: Call) -> bool:
    """Tell whether a browser only asks what its page may do: without a key, as browsers do (Fetch, 4.8)."""
    extras = call.extras
    if extras is None or not (extras.preflight and extras.origin) or call.method != b"OPTIONS":
        return False
    return not (call.bearer or call.api_key)


def preflight(gateway: Gateway, call: Call) -> bytes:
    """Return the header lines that answer a preflight: nothing of permission for an origin that nobody allows.

    Raise RateLimited when there are too many.
    """
    assert call.extras is not None
    origin = call.extras.origin
    if not gateway.origins.admit(call.started):
        raise RateLimited("Too many preflights at once: wait a second.", reset_seconds=1)
    age = gateway.origins.max_age(origin)
    vary = b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
    if age is None:
        return vary
    lines = gateway.origins.allowed(origin)
    lines += b"Access-Control-Allow-Methods: %b\r\n" % METHODS
    lines += b"Access-Control-Allow-Headers: %b\r\nAccess-Control-Max-Age: %d\r\n" % (_allowed_headers(call), age)
    if gateway.origins.with_credentials(origin):
        lines += b"Access-Control-Allow-Credentials: true\r\n"
    return lines + vary


def _allowed_headers(call: Call) -> bytes:
    """Return the names of the headers that a page may send: ours, and what else it asks for.

    Programs in browsers send headers of their own (``x-stainless-…``, ``anthropic-version``), and a service with an
    API of its own may need any. They are forwarded as they are from every other client.
    """
    asked = b",".join(line[len(_ASKED) :] for line in call.lines if line[: len(_ASKED)].lower() == _ASKED)
    names = [name.strip() for name in asked[:MOST_ASKED].split(b",")]
    known = {name.lower() for name in HEADERS.split(b", ")}
    further = [name for name in names if _NAME.fullmatch(name) and name.lower() not in known]
    return b", ".join((HEADERS, *dict.fromkeys(further)))


def lines(gateway: Gateway, call: Call) -> bytes:
    """Return what a call's answer says to the browser of the page it came from; refusals say it as well."""
    credential = call.credential
    origin = b"" if call.extras is None else call.extras.origin
    if credential is None:
        # Nobody knows yet whose call this is: a page that may call at all may read why it can't.
        allowed = gateway.origins.allowed(origin) if origin else b""
        return allowed + _EXPOSE + _VARY if allowed else _VARY
    application = gateway.directory.applications.get(credential.application)
    cors = application.policy.cors if application is not None else None
    if cors is None:
        return b""
    if "*" in cors.origins:  # the control plane refuses credentials together with *
        return b"Access-Control-Allow-Origin: *\r\n" + _EXPOSE
    if origin.decode("latin-1") not in cors.origins:
        return _VARY
    allowed = b"Access-Control-Allow-Credentials: true\r\n" if cors.credentials else b""
    return b"Access-Control-Allow-Origin: %b\r\n%b%b%b" % (origin, allowed, _EXPOSE, _VARY)


def varies(gateway: Gateway, credential: Credential) -> bytes:
    """Return the line that tells caches that an application's answers differ by origin, also to calls without one."""
    application = gateway.directory.applications.get(credential.application)
    if application is None or application.policy.cors is None or "*" in application.policy.cors.origins:
        return b""
    return _VARY
