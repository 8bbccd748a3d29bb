"""Events of a streamed answer, looked at one by one; nothing is held back but an event that isn't complete."""

from __future__ import annotations

import re
from collections.abc import Callable

from haat.kernel.errors import ProviderFailed
from haat.plugins.api import Event

MAX_EVENT = 1024 * 1024
"""An event longer than this is no event that anybody waits for."""

_END_OF_EVENT = re.compile(rb"\r\n\r\n|\n\n|\r\r(?!\n)|\n\r\n|\r\n\n|\r\n\r(?!\n)")
_LINE = re.compile(r"\r\n|\n|\r")

Look = Callable[[Event], None]


class Rewriter:
    """Takes a stream's bytes as they come, and gives back those of whole events.

    Events that nobody changes pass as they came, comments and other fields included (HTML, 9.2.6).
    """

    def __init__(self, looks: tuple[Look, ...]) -> None:
        self._looks = looks
        self._pending = b""

    def feed(self, data: bytes, ended: bool) -> bytes:
        """Return what can go on; raise what a look raises, or ProviderFailed for an endless event."""
        pending = self._pending + data
        given: list[bytes] = []
        at = 0
        # A carriage return at the very end may be half a line end: what follows tells.
        known = len(pending) - (not ended and pending.endswith(b"\r"))
        for match in _END_OF_EVENT.finditer(pending, 0, known):
            given.append(self._look(pending[at : match.end()]))
            at = match.end()
        self._pending = pending[at:]
        if ended and self._pending:
            given.append(self._look(self._pending))
            self._pending = b""
        if len(self._pending) > MAX_EVENT:
            raise ProviderFailed("The provider's stream holds an event that never ends.")
        return b"".join(given)

    def _look(self, raw: bytes) -> bytes:
        try:
            text = raw.decode("utf-8")
            kind = "utf-8"
        except UnicodeDecodeError:  # an event stream is UTF-8 (HTML, 9.2.5); what isn't keeps its bytes
            text = raw.decode("latin-1")
            kind = "latin-1"
        lines = _LINE.split(text)
        data = [line for line in lines if line == "data" or line.startswith("data:")]
        if not data:
            return raw
        before = "\n".join(line[5:].removeprefix(" ") for line in data)
        event = Event(before)
        for look in self._looks:
            look(event)
        if event.data == before:
            return raw
        line_end = match.group() if (match := _LINE.search(text)) else "\n"
        fresh = [f"data: {line}" for line in _LINE.split(event.data)]
        first = lines.index(data[0])
        kept = lines[:first] + fresh
        kept += [line for line in lines[first:] if not (line == "data" or line.startswith("data:"))]
        return line_end.join(kept).encode(kind, "replace")
