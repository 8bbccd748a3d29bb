"""What a header means to the gateway, on the way in and on the way back; all others are forwarded.

Hop-by-hop headers end here in both directions (RFC 9110, 7.6.1).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import Final, NamedTuple

# What a header means. Numbers that never change, so that the compiled form knows them.
FORWARD: Final = 0
DROP: Final = 1
HOST: Final = 2
LENGTH: Final = 3
AUTHORIZATION: Final = 4
API_KEY: Final = 5
CODING: Final = 6
CONNECTION: Final = 7
ACCEPT: Final = 8
EXPECT: Final = 9
REQUEST_ID: Final = 10
USER: Final = 11
TAGS: Final = 12
USAGE: Final = 13
KEEP_ALIVE: Final = 14
UPGRADE: Final = 15
DATE: Final = 16
IDEMPOTENCY_KEY: Final = 17
API_VERSION: Final = 18
ORIGIN: Final = 19
PREFLIGHT: Final = 20
TRACE_PARENT: Final = 21
TRACE_STATE: Final = 22
SET_COOKIE: Final = 23

KEY_PREFIX = b"haat_"
"""Begins every key of ours: by this one is known where its scheme is left out."""
_HOP_BY_HOP = (b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"upgrade")
_PLAIN = (b"content-type", b"user-agent", b"accept-encoding")


def _table(meanings: Mapping[bytes, int], dropped: Iterable[bytes]) -> dict[bytes, int]:
    """Return meanings by name, in small letters and as most programs write them: one look-up instead of two."""
    table = {**dict.fromkeys(_PLAIN, FORWARD), **dict.fromkeys((*_HOP_BY_HOP, *dropped), DROP), **meanings}
    return {**table, **{name.title(): meaning for name, meaning in table.items()}}


REQUEST_HEADERS = _table(
    {
        b"host": HOST,
        b"content-length": LENGTH,
        b"authorization": AUTHORIZATION,
        b"x-api-key": API_KEY,
        b"ulcaapikey": API_KEY,
        b"transfer-encoding": CODING,
        b"connection": CONNECTION,
        b"accept": ACCEPT,
        b"expect": EXPECT,
        b"x-request-id": REQUEST_ID,
        b"x-haat-user": USER,
        b"x-haat-tags": TAGS,
        b"upgrade": UPGRADE,
        b"idempotency-key": IDEMPOTENCY_KEY,
        b"api-version": API_VERSION,
        b"origin": ORIGIN,
        b"access-control-request-method": PREFLIGHT,
        b"traceparent": TRACE_PARENT,
        b"tracestate": TRACE_STATE,
    },
    # Browsers send cookies by host, whatever the port: the portal's are none of a provider's business.
    dropped=(b"keep-alive", b"cookie"),
)
ANSWER_HEADERS = _table(
    {
        b"content-length": LENGTH,
        b"transfer-encoding": CODING,
        b"connection": CONNECTION,
        b"keep-alive": KEEP_ALIVE,
        b"x-haat-usage": USAGE,
        b"set-cookie": SET_COOKIE,
        b"date": DATE,
    },
    # The gateway says these itself: a provider's own would be taken for ours.
    dropped=(
        b"x-request-id",
        b"x-haat-units",
        b"x-haat-charge",
        b"idempotency-replayed",
        b"x-haat-served-by",
        b"x-haat-variant",
        b"ratelimit",
        b"ratelimit-policy",
        b"x-ratelimit-limit",
        b"x-ratelimit-remaining",
        b"x-ratelimit-reset",
        b"api-version",
        b"deprecation",
        b"sunset",
        b"x-content-type-options",
        # What a page may do here is for the application to say, and what browsers keep for this host for nobody.
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
        b"access-control-allow-headers",
        b"access-control-allow-methods",
        b"access-control-expose-headers",
        b"access-control-max-age",
        b"alt-svc",
        b"clear-site-data",
        b"strict-transport-security",
        # What runs behind us is nobody's to know.
        b"server",
        b"x-powered-by",
        b"x-aspnet-version",
    ),
)

METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
"""What is forwarded. The parser knows more, among them TRACE, which would echo credentials (RFC 9110, 9.3.8)."""

_REMEMBERED = 1024
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2}){1,255})(?::[0-9]{0,5})?")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_hosts: set[bytes] = set()
"""Hosts found valid lately: most callers name the same few."""


def is_host(value: bytes) -> bool:
    """Tell whether this is a host and at most a port: no user, no path, no list (RFC 9110, 4.2.1 and 7.2)."""
    if value in _hosts:
        return True
    if _HOST.fullmatch(value.strip(b" \t")) is None:
        return False
    if len(_hosts) >= _REMEMBERED:
        _hosts.clear()
    _hosts.add(value)
    return True


class Wishes(NamedTuple):
    """What a Connection header says."""

    close: bool
    keep_alive: bool
    named: frozenset[bytes]
    """The headers that it names: they end here (RFC 9110, 7.6.1)."""


_wishes: dict[bytes, Wishes] = {}


def read_connection(value: bytes) -> Wishes:
    """Read the value of a Connection header, or of several joined by commas."""
    known = _wishes.get(value)
    if known is None:
        tokens = frozenset(token.strip().lower() for token in value.split(b","))
        known = Wishes(b"close" in tokens, b"keep-alive" in tokens, tokens - {b"", b"close", b"keep-alive"})
        if len(_wishes) >= _REMEMBERED:
            _wishes.clear()
        _wishes[value] = known
    return known


def ends_chunked(value: bytes) -> bool:
    """Tell whether this lists transfer codings of which the last, and only the last, is chunked (RFC 9112, 6.3)."""
    codings = [coding.strip(b" \t").lower() for coding in value.split(b",")]
    return all(map(_TOKEN.fullmatch, codings)) and codings[-1] == b"chunked" and codings.count(b"chunked") == 1


def value_of(lines: list[bytes], name: bytes) -> bytes:
    """Return the value of the first of these header lines with a name in small letters, empty when there is none."""
    end = len(name)
    for line in lines:
        if line[end : end + 1] == b":" and line[:end].lower() == name:
            return line[end + 1 :].strip()
    return b""


def coding_of(lines: list[bytes]) -> str:
    """Return the content coding that these header lines name, empty for none."""
    return value_of(lines, b"content-encoding").decode("latin-1").lower()


def is_form(lines: list[bytes]) -> bool:
    """Tell whether these header lines announce a form with files in it (RFC 7578)."""
    for line in lines:
        if line[:13].lower() == b"content-type:":
            return line[13:].strip().lower().startswith(b"multipart/form-data")
    return False


def without(lines: list[bytes], names: Container[bytes]) -> list[bytes]:
    """Return the header lines but those of the names given in small letters."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]
