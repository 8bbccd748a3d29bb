"""Server-sent events (HTML, 9.2), read piece by piece."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LINE_END = re.compile(rb"\r\n|\n|\r")
MAX_EVENT = 16 * 1024 * 1024
DONE = "[DONE]"
"""What streams of language models end with."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``name`` is ``message`` when the stream says none."""

    name: str
    data: str
    id: str = ""

    def json(self) -> Any:
        """Return the data read as JSON; raise ValueError when it is none."""
        return json.loads(self.data)


class EventReader:
    """Takes bytes as they come and gives the events that they complete."""

    def __init__(self) -> None:
        self._pending = b""
        self._name, self._id = "", ""
        self._data: list[str] = []
        self._begun = False

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the events that end in these bytes. Raise ValueError for a line that never ends."""
        pending = self._pending + data
        if not self._begun and pending:
            if len(pending) < 3 and b"\xef\xbb\xbf".startswith(pending):
                self._pending = pending
                return
            self._begun = True
            pending = pending.removeprefix(b"\xef\xbb\xbf")
        known = len(pending) - pending.endswith(b"\r")  # half a line end, perhaps
        at = 0
        for match in _LINE_END.finditer(pending, 0, known):
            event = self._take(pending[at : match.start()])
            at = match.end()
            if event is not None:
                yield event
        self._pending = pending[at:]
        if len(self._pending) > MAX_EVENT:
            raise ValueError("an event of the stream never ends")

    def close(self) -> Iterator[Event]:
        """Yield the event that the stream's last line end completes. What is not complete is no event."""
        if self._pending.endswith(b"\r"):
            event = self._take(self._pending[:-1])
            self._pending = b""
            if event is not None:
                yield event

    def _take(self, line: bytes) -> Event | None:
        if not line:
            data, name = self._data, self._name or "message"
            self._data, self._name = [], ""
            return Event(name, "\n".join(data), self._id) if data else None
        field, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self._id = value
        return None
