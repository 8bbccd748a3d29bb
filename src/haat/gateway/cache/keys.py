"""What makes two requests the same question, and what headers say about keeping the answer. Pure.

The key covers everything of the request that reaches the provider: method, path, query, the headers
that select the answer, and the body in its canonical form. The provider is sent exactly this and no
other header, because an answer that depends on something outside the key could be planted by one
caller for all others. For the same reason a JSON body goes out in the form that was hashed: a text that
two parsers read differently (a name twice, for instance) exists here only as it was read here.
"""

from __future__ import annotations

import unicodedata
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import msgspec

SELECTING = frozenset({b"accept", b"accept-language", b"content-type"})
_PASSED_ON = frozenset({b"traceparent", b"tracestate"})
_PRECONDITIONS = frozenset({b"range", b"if-range", b"if-match", b"if-unmodified-since", b"content-encoding"})
_SAID_BY_US = frozenset({b"age", b"cache-control", b"etag", b"expires", b"pragma", b"x-cache"})
_PLAIN_JSON = frozenset({b"application/json", b"application/json;charset=utf-8"})
_NO_CODING = b"Accept-Encoding: identity\r\n"
_KEY_BYTES = 32
_LONGEST_COMPOSED = 64 * 1024
# Numbers go out as they came: a price or a measure has more digits than a binary fraction.
_encode = msgspec.json.Encoder(order="sorted", decimal_format="number").encode
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Asking:
    """What a request's headers say: to the provider (``lines``), to the key, and to the cache."""

    __slots__ = ("json", "lines", "max_age", "refresh", "selecting", "tags", "untouched")

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.selecting: list[bytes] = []
        self.json = False
        """The body is JSON in UTF-8."""
        self.refresh = False
        """The caller wants a fresh answer; it may be kept."""
        self.untouched = False
        """The caller wants nothing kept, or asks for what the cache doesn't do: the call goes by it."""
        self.max_age = -1
        """The oldest answer that the caller takes, in seconds; -1 for any."""
        self.tags = b""
        """``If-None-Match``."""


def read_asking(lines: list[bytes], further: frozenset[bytes]) -> Asking:
    """Read a request's header lines; ``further`` are names that select the answer beside the usual ones."""
    asking = Asking()
    for line in lines:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip()
        if name in SELECTING or name in further:
            if name == b"content-type":
                value = _content_type(asking, value)
            elif value == b"*/*" and name == b"accept":
                continue  # the same as nothing (RFC 9110, 12.5.1)
            asking.selecting.append(name + b":" + value)
            asking.lines.append(line)
        elif name in _PASSED_ON:
            asking.lines.append(line)
        elif name == b"cache-control" or name == b"pragma":
            _read_wishes(asking, value)
        elif name == b"if-none-match":
            asking.tags = asking.tags + b"," + value if asking.tags else value
        elif name in _PRECONDITIONS:
            asking.untouched = True
    asking.selecting.sort()
    asking.lines.append(_NO_CODING)
    return asking


def _content_type(asking: Asking, value: bytes) -> bytes:
    """Return what of it is in the key: the two ways to say JSON in UTF-8 are one."""
    small = value.lower().replace(b" ", b"").replace(b'"', b"")
    media, _, parameters = small.partition(b";")
    if media == b"application/json" or (media.startswith(b"application/") and media.endswith(b"+json")):
        asking.json = b"charset=" not in parameters or b"charset=utf-8" in parameters
    return b"application/json" if small in _PLAIN_JSON else value


def _read_wishes(asking: Asking, value: bytes) -> None:
    for name, argument in _directives(value):
        if name == b"no-store":
            asking.untouched = True
        elif name == b"no-cache":
            asking.refresh = True
        elif name == b"max-age" and argument.isdigit():
            asking.max_age = int(argument[:9])


def _directives(value: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    for part in value.lower().split(b","):
        name, _, argument = part.strip().partition(b"=")
        found.append((name, argument.strip(b'" ')))
    return found


def canonical(body: bytes) -> tuple[Any, bytes] | None:
    """Return a JSON body as data whose texts are NFC, with its one spelling.

    None for what can't be read without a doubt, and for a long body that is not in NFC: going through
    all its texts would keep everybody else waiting.
    """
    try:
        data = _decode(body)
        spelling = _encode(data)
        # A part of a text in NFC is in NFC as well, so that one look at the whole mostly is enough.
        if spelling.isascii() or unicodedata.is_normalized("NFC", spelling.decode()):
            return data, spelling
        if len(spelling) > _LONGEST_COMPOSED:
            return None
        data = _composed(data)
        return data, _encode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


def _composed(data: Any) -> Any:
    if isinstance(data, str):
        return data if data.isascii() else unicodedata.normalize("NFC", data)
    if isinstance(data, list):
        return [_composed(item) for item in data]
    if isinstance(data, dict):
        members = {_composed(name): _composed(value) for name, value in data.items()}
        if len(members) != len(data):
            raise ValueError("two names become one")
        return members
    return data


def spell(data: Any) -> bytes:
    """Return the one spelling of JSON data: names sorted, no white space."""
    return _encode(data)


def digest(*parts: bytes, size: int = _KEY_BYTES) -> bytes:
    """Return a collision-resistant digest of parts, each of which counts with its length."""
    state = blake2b(digest_size=size)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def answer_key(space: bytes, method: bytes, tail: bytes, selecting: list[bytes], body: bytes) -> bytes:
    """Return the key of a whole answer; HEAD asks for what GET has."""
    return digest(space, b"GET" if method == b"HEAD" else method, tail, b"\n".join(selecting), body)


def item_key(space: bytes, selecting: list[bytes], rest: bytes, item: bytes) -> bytes:
    """Return the key of one input of a batch; ``rest`` is everything in the body but the inputs."""
    return digest(space, b"item", b"\n".join(selecting), rest, item)


# --- the answer ---------------------------------------------------------------------------------


def lifetime(lines: list[bytes], ttl_seconds: int, selecting: frozenset[bytes]) -> int:
    """Return for how many seconds an answer with these header lines may be given again, 0 for never.

    A provider's own ``max-age`` can only shorten what its listing says (RFC 9111, 4.2.1).
    """
    shared = own = -1
    age = 0
    for line in lines:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip()
        if name == b"set-cookie":
            return 0
        if name == b"content-encoding" and value.lower() != b"identity":
            return 0
        if name == b"vary":
            for part in value.lower().split(b","):
                part = part.strip()
                if part and part not in SELECTING and part not in selecting and part != b"accept-encoding":
                    return 0
        elif name == b"age" and value.isdigit():
            age = int(value[:9])
        elif name == b"cache-control":
            for directive, argument in _directives(value):
                if directive in (b"no-store", b"private", b"no-cache"):
                    return 0
                if directive == b"s-maxage" and argument.isdigit():
                    shared = int(argument[:9])
                elif directive == b"max-age" and argument.isdigit():
                    own = int(argument[:9])
    said = shared if shared >= 0 else own
    return max(0, min(ttl_seconds, said - age)) if said >= 0 else ttl_seconds


def kept_lines(lines: list[bytes]) -> list[bytes]:
    """Return an answer's header lines without those that the cache says itself."""
    return [line for line in lines if line.partition(b":")[0].lower() not in _SAID_BY_US]


def entity_tag(space: bytes, lines: list[bytes], body: bytes) -> bytes:
    """Return a strong validator: the same for the same bytes of the same type under the same rules."""
    kind = b"".join(line for line in lines if line[:13].lower() == b"content-type:")
    return b'"%b"' % digest(space, kind, body, size=16).hex().encode("ascii")


def matches(tags: bytes, tag: bytes) -> bool:
    """Tell whether ``If-None-Match`` names a tag, by weak comparison (RFC 9110, 13.1.2)."""
    return any(part.strip().removeprefix(b"W/") in (tag, b"*") for part in tags.split(b","))
