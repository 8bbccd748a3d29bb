"""Bodies that are ``multipart/form-data`` (RFC 7578), read as they come: where their parts are, not what is in them."""

from __future__ import annotations

import re
from typing import NamedTuple

from haat.kernel.errors import HaatError, InvalidRequest

MOST_PARTS = 100
MAX_PART_HEAD = 16 * 1024
_BOUNDARY = re.compile(rb"^multipart/form-data\s*;.*?\bboundary=(?:\"([^\"]{1,70})\"|([^\s;\"]{1,70}))", re.I | re.S)
_DISPOSITION = re.compile(rb"^content-disposition:\s*form-data\b(.*)$", re.I | re.M)
_NAME = re.compile(rb";\s*name=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;\"]+))", re.I)
_FILENAME = re.compile(rb";\s*filename\*?=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;\"]+))", re.I)
_PADDING = 64
"""White space that may follow a boundary in its line, at most."""


class Part(NamedTuple):
    """One part: its name, its file's name (None for a field that is none), and where its content is in the body."""

    name: str
    filename: str | None
    start: int
    end: int


def boundary_of(lines: list[bytes]) -> bytes:
    """Return the boundary that a request's headers name, empty when its body is of another kind."""
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-type":
            match = _BOUNDARY.match(value.strip())
            return (match[1] or match[2]) if match else b""
    return b""


class Multipart:
    """Follows a body from its beginning. ``parts`` have come to their end, ``open`` is the one that hasn't."""

    def __init__(self, boundary: bytes) -> None:
        self.parts: list[Part] = []
        self.open: Part | None = None
        self.ended = False
        self._delimiter = b"\r\n--" + boundary
        self._rest = b"\r\n"  # so that the first boundary is one like the others
        self._at = -2
        """Where ``_rest`` begins in the body."""
        self._in_head = False

    def part(self, name: str) -> Part | None:
        """Return the whole part of this name, if it has come."""
        return next((part for part in self.parts if part.name == name), None)

    def feed(self, data: bytes) -> None:
        """Take what comes next; raise InvalidRequest for a body that is not of this kind."""
        self._rest += data
        while not self.ended and (self._read_head() if self._in_head else self._find_boundary()):
            pass
        if self.ended:
            self._rest = b""

    def _find_boundary(self) -> bool:
        found = self._rest.find(self._delimiter)
        if found < 0:
            self._skip(len(self._rest) - len(self._delimiter) + 1)
            return False
        behind = found + len(self._delimiter)
        line = self._rest[behind : behind + _PADDING]
        end = line.find(b"\r\n")
        if line.startswith(b"--"):
            self.ended = True
        elif end < 0:
            if len(line) == _PADDING:
                raise _malformed("a boundary is followed by something else than a line end")
            return False
        elif line[:end].strip(b" \t"):
            raise _malformed("a boundary is followed by something else than a line end")
        if self.open is not None:
            self.parts.append(self.open._replace(end=max(self.open.start, self._at + found)))
            self.open = None
        self._skip(behind + max(0, end))
        self._in_head = True
        return True

    def _read_head(self) -> bool:
        end = self._rest.find(b"\r\n\r\n")
        if end < 0:
            if len(self._rest) > MAX_PART_HEAD:
                raise _malformed("the head of a part is too large")
            return False
        if len(self.parts) >= MOST_PARTS:
            raise _malformed(f"it has more than {MOST_PARTS} parts")
        disposition = _DISPOSITION.search(self._rest[:end].replace(b"\r\n", b"\n"))
        name = _NAME.search(disposition[1]) if disposition else None
        if disposition is None or name is None:
            raise _malformed("a part has no name")
        filename = _FILENAME.search(disposition[1])
        start = self._at + end + 4
        self.open = Part(_text(name), _text(filename) if filename else None, start, start)
        self._skip(end + 2)  # the line end before the content may be the one of an empty part's boundary
        self._in_head = False
        return True

    def _skip(self, count: int) -> None:
        if count > 0:
            self._rest = self._rest[count:]
            self._at += count


def _text(match: re.Match[bytes]) -> str:
    return (match[1] if match[1] is not None else match[2]).decode("utf-8", "replace")


def _malformed(why: str) -> HaatError:
    return InvalidRequest(f"The body is no multipart/form-data: {why}.")
