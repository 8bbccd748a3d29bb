"""Heads that come again: a connection mostly sends the one it has sent before, to the byte.

What a head means depends on its bytes alone, so one that is equal to the last is not parsed again: its
meaning is known. Only the value of Content-Length may differ. Each end of a call remembers one head a connection,
and only of messages that arrived whole and alone in one piece, with nothing about them that the parser
must see; all others go through the parser as ever, which is left between two messages and notices
nothing.
"""

from __future__ import annotations

from haat.gateway.call import BUFFERED_BODY, Call

MAX_HEAD = 4096
"""Bytes of a head that are remembered a connection, at most."""
MAX_MISSES = 16
"""After so many messages in a row with other heads a connection's are not remembered any more."""
_MAX_DIGITS = 5
_LENGTH = b"\r\ncontent-length:"
_LAST_CHUNK = b"0\r\n\r\n"


class Head:
    """The bytes of a head around the value of its Content-Length; without one ``after`` is empty."""

    def __init__(self, whole: bytes, length: int, before: bytes, after: bytes) -> None:
        self._whole, self._length = whole, length
        self._before, self._after = before, after

    def body_of(self, data: bytes) -> bytes | None:
        """Return the body of a message that is here whole and alone under this head, None for any other."""
        if data.startswith(self._whole) and len(data) == len(self._whole) + self._length:
            return data[len(self._whole) :]
        after = self._after
        if not after or not data.startswith(self._before):
            return None
        begin = len(self._before)
        end = data.find(b"\r", begin, begin + _MAX_DIGITS + 1)
        if end <= begin or not data.startswith(after, end):
            return None
        digits = data[begin:end]
        body = data[end + len(after) :]
        if not digits.isdigit() or int(digits) != len(body) or len(body) > BUFFERED_BODY:
            return None
        self._whole, self._length = data[: end + len(after)], len(body)
        return body


def head_of(data: bytes, length: int) -> Head | None:
    """Return the head of the message in ``data`` if that is its head and ``length`` bytes, -1 for none, and no more."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD) + 4
    if end < 4 or length > BUFFERED_BODY or len(data) - end != max(length, 0):
        return None
    whole = data[:end]
    if length < 0:
        return Head(whole, 0, whole, b"")
    small = whole.lower()
    begin = small.find(_LENGTH) + len(_LENGTH)
    if begin < len(_LENGTH) or small.count(_LENGTH) != 1:
        return None
    while whole[begin : begin + 1] in (b" ", b"\t"):
        begin += 1
    stop = whole.find(b"\r", begin)
    if not whole[begin:stop].isdigit():
        return None
    return Head(whole, length, whole[:begin], whole[stop:])


def stream_head_of(data: bytes) -> bytes:
    """Return the head that ``data`` begins with; empty when it is too long to be remembered."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
    return data[: end + 4] if end >= 0 else b""


def chunk_size(data: bytes) -> int:
    """Return the size of the chunk that ``data`` is, whole and alone, without extensions; 0 for anything else.

    That is size, CRLF, content, CRLF (RFC 9112, 7.1), looked at byte by byte because that is what costs least
    when compiled. Chunks of 16 MB and more are the parser's.
    """
    length, size, at = len(data), 0, 0
    if length < 6 or data[0] == 48:
        return 0
    while at <= _MAX_DIGITS:
        digit = data[at]
        if 48 <= digit <= 57:
            size = size * 16 + digit - 48
        elif 97 <= digit <= 102:
            size = size * 16 + digit - 87
        elif 65 <= digit <= 70:
            size = size * 16 + digit - 55
        else:
            break
        at += 1
    if length != at + size + 4:
        return 0
    framed = data[at] == 13 and data[at + 1] == 10 and data[length - 2] == 13 and data[length - 1] == 10
    return size if framed else 0


def last_chunk_size(data: bytes) -> int:
    """Return the size of the chunk in ``data`` that ends a body: 0 for the last-chunk alone, -1 for anything else."""
    if not data.endswith(_LAST_CHUNK):
        return -1
    if len(data) == len(_LAST_CHUNK):
        return 0
    return chunk_size(data[: -len(_LAST_CHUNK)]) or -1


def ends_with_a_chunk(data: bytes, parts: list[bytes]) -> bool:
    """Tell whether a head and at most one chunk are all of ``data``, given what the parser found of the body."""
    rest = data[data.find(b"\r\n\r\n") + 4 :]
    if not rest:
        return not parts
    size = chunk_size(rest)
    return size > 0 and parts == [rest[-2 - size : -2]]


class RequestMeaning:
    """What a request's head means, for calls of which nothing but the ordinary is known."""

    def __init__(self, call: Call) -> None:
        self.content_length = call.content_length
        """Of the call that it was first said of; -1 when the head has none."""
        self._method, self._target = call.method, call.target
        self._bearer, self._api_key = call.bearer, call.api_key
        self._lines = call.lines.copy()
        self._accepts_stream = call.accepts_stream
        self._labelled, self._user, self._tags = call.labelled, call.user, call.tags
        self._caller_request_id = call.caller_request_id

    @staticmethod
    def suits(call: Call) -> bool:
        """Tell whether all that its head says about this call can be remembered here."""
        return (
            call.extras is None
            and call.once is None
            and call.fault is None
            and call.hosts == 1
            and call.minor_version == 1
            and call.keep_alive
            and not (call.chunked or call.expects_continue)
        )

    def give(self, call: Call, body: bytes) -> None:
        """Make a fresh call what the head says, with its body."""
        call.method, call.target = self._method, self._target
        call.hosts = 1
        call.bearer, call.api_key = self._bearer, self._api_key
        call.lines = self._lines.copy()
        call.accepts_stream = self._accepts_stream
        if self._labelled:
            call.labelled = True
            call.user, call.tags, call.caller_request_id = self._user, self._tags, self._caller_request_id
        call.body_complete = True
        if self.content_length >= 0:
            call.content_length = call.body_size = len(body)
            if body:
                call.body.append(body)


class AnswerMeaning:
    """What the head of a provider's answer means. ``dated``: it has a Date of the provider's own."""

    def __init__(self, status: int, reason: bytes, lines: list[bytes], usage: bytes, dated: bool, keep: bool) -> None:
        self.status, self.reason, self.lines, self.usage = status, reason, lines, usage
        self.dated, self.keep = dated, keep
