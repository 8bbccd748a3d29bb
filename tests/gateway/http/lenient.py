"""A provider's end that reads as carelessly as anybody might: what it finds is the worst that could be smuggled.

It takes LF and CR for line ends, the last of several lengths, `chunked` wherever it stands in a value, names
with blanks in or around them or with underscores, and any number of requests that follow.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_BLANKS = re.compile(rb"[\x00-\x20\x7f-\xff]")
_REQUEST_LINE = re.compile(rb"\s*([A-Za-z]+)[ \t]+(\S+)")


class Found(NamedTuple):
    method: bytes
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes


def read_with_length(raw: bytes) -> list[Found]:
    """Read requests, believing lengths before chunks."""
    return _read(raw, chunks_first=False)


def read_with_chunks(raw: bytes) -> list[Found]:
    """Read requests, believing chunks before lengths."""
    return _read(raw, chunks_first=True)


def _read(raw: bytes, chunks_first: bool) -> list[Found]:
    found = []
    while line := _REQUEST_LINE.match(raw):
        end = re.compile(rb"\r?\n\r?\n").search(raw)
        if end is None:
            break
        head, raw = raw[line.end() : end.start()], raw[end.end() :]
        fields = []
        for text in re.split(rb"\r\n|\n|\r", head)[1:]:
            name, _, value = text.partition(b":")
            fields.append((_BLANKS.sub(b"", name).lower().replace(b"_", b"-"), value.strip()))
        lengths = [
            int(digits[0])
            for name, value in fields
            if name == b"content-length" and (digits := re.findall(rb"\d+", value))
        ]
        chunked = any(name == b"transfer-encoding" and b"chunked" in value.lower() for name, value in fields)
        if chunked and (chunks_first or not lengths):
            body, raw = _unchunk(raw)
        else:
            size = lengths[-1] if lengths else 0
            body, raw = raw[:size], raw[size:]
        found.append(Found(line[1], line[2], tuple(fields), body))
    return found


def _unchunk(raw: bytes) -> tuple[bytes, bytes]:
    body = b""
    while size := re.match(rb"\s*([0-9A-Fa-f]+)[^\n]*\n", raw):
        raw = raw[size.end() :]
        length = int(size[1], 16)
        if length == 0:
            return body, raw.removeprefix(b"\r\n")
        body, raw = body + raw[:length], raw[length:]
    return body, raw
