"""What a header means to the gateway, on the way in and on the way back; all others are forwarded.

Hop-by-hop headers end here in both directions (RFC 9110, 7.6.1).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

FORWARD, DROP, HOST, LENGTH, AUTHORIZATION, API_KEY, CODING, CONNECTION = range(8)
ACCEPT, EXPECT, REQUEST_ID, USER, TAGS, USAGE, KEEP_ALIVE = range(8, 15)

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
        b"transfer-encoding": CODING,
        b"connection": CONNECTION,
        b"accept": ACCEPT,
        b"expect": EXPECT,
        b"x-request-id": REQUEST_ID,
        b"x-haat-user": USER,
        b"x-haat-tags": TAGS,
    },
    dropped=(b"keep-alive",),
)
ANSWER_HEADERS = _table(
    {
        b"content-length": LENGTH,
        b"transfer-encoding": CODING,
        b"connection": CONNECTION,
        b"keep-alive": KEEP_ALIVE,
        b"x-haat-usage": USAGE,
    },
    # The gateway says these itself: a provider's own would be taken for ours.
    dropped=(
        b"x-request-id",
        b"x-haat-units",
        b"x-haat-served-by",
        b"ratelimit",
        b"ratelimit-policy",
        b"x-ratelimit-limit",
        b"x-ratelimit-remaining",
        b"x-ratelimit-reset",
    ),
)

_TOKENS_KEPT = frozenset({b"", b"close", b"keep-alive"})


def named_headers(connection: bytes) -> set[bytes]:
    """Return the headers that a Connection header names: they end here (RFC 9110, 7.6.1)."""
    return {token.strip().lower() for token in connection.split(b",")} - _TOKENS_KEPT


def without(lines: list[bytes], names: Container[bytes]) -> list[bytes]:
    """Return the header lines but those of the names given in small letters."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]
