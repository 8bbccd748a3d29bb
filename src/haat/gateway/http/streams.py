"""Events of a streamed answer, looked at one by one; nothing is held back but an event that isn't complete."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from haat.kernel.errors import HaatError, PluginFailed, ProviderFailed
from haat.plugins.api import Event

if TYPE_CHECKING:
    from haat.gateway.call import Call

MAX_EVENT = 1024 * 1024
"""An event longer than this is no event that anybody waits for."""

_END_OF_EVENT = re.compile(rb"\r\n\r\n|\n\n|\r\r(?!\n)|\n\r\n|\r\n\n|\r\n\r(?!\n)")
_LINE = re.compile(r"\r\n|\n|\r")

Look = Callable[[Event], bool | None]
"""Sees an event and may change it; False keeps it from going on."""
Over = Callable[[bool], None]
"""Is told that a stream is over, and whether it came to its end."""


class Watcher:
    """An answer step that looks at streams of events as well: a plugin, or who reads a provider's usage in them."""

    __slots__ = ()

    @property
    def sees_streams(self) -> bool:
        return True

    @property
    def guards(self) -> bool:
        """Whether nothing may pass that it can't see."""
        return False

    def look(self, event: Event) -> bool | None:
        """See one event; return False to keep it from the caller."""
        return None

    def over(self, whole: bool) -> None:
        """The stream is over, and the call about to be recorded; ``whole`` tells whether it came to its end."""


def begin(call: Call, is_events: bool) -> bool:
    """Let the steps of a call look at an answer that isn't collected; tell whether they may change its length.

    Raise PluginFailed when a guard would have to let pass what it can't see.
    """
    steps = [step for step in call.on_answer if isinstance(step, Watcher)]
    if any(step.guards and not (is_events and step.sees_streams) for step in steps):
        raise PluginFailed("The answer is of a kind that a guard of this service can't look into.")
    watching = [step for step in reversed(steps) if step.sees_streams]
    if not watching or not is_events:
        return False
    assert call.extras is not None
    call.extras.rewriter = Rewriter(
        tuple(step.look for step in watching), tuple(step.over for step in watching), call.extras.rewriter
    )
    return True


class Rewriter:
    """Takes a stream's bytes as they come, and gives back those of whole events.

    Events that nobody changes pass as they came, comments and other fields included (HTML, 9.2.6). ``over`` are told
    once when the stream is over. ``before`` is what the bytes go through first.
    """

    def __init__(self, looks: tuple[Look, ...], over: tuple[Over, ...] = (), before: Rewriter | None = None) -> None:
        self._looks, self._over, self._before = looks, over, before
        self._pending = b""
        self.failed: HaatError | None = None
        """What went wrong behind the events that were given last: they go on, and then the stream ends with it."""

    def feed(self, data: bytes, ended: bool) -> bytes:
        """Return what can go on; raise what a look raises, or ProviderFailed for an endless event.

        When there are events that can go on before the one that can't, the error is in ``failed`` instead.
        """
        if self._before is not None:
            data = self._before.feed(data, ended)
            self.failed = self._before.failed
        given = self._whole_events(data, ended and self.failed is None)
        if ended and self.failed is None:
            self._end(True)
        return given

    def cut_off(self) -> None:
        """Learn that nothing more comes, or that nobody takes it: what was not given yet is dropped."""
        if self._before is not None:
            self._before.cut_off()
        self._end(False)

    def _end(self, whole: bool) -> None:
        over, self._over = self._over, ()
        for tell in over:
            tell(whole)

    def _whole_events(self, data: bytes, ended: bool) -> bytes:
        pending = self._pending + data
        given: list[bytes] = []
        at = 0
        # A carriage return at the very end may be half a line end: what follows tells.
        known = len(pending) - (not ended and pending.endswith(b"\r"))
        for match in _END_OF_EVENT.finditer(pending, 0, known):
            try:
                given.append(self._look(pending[at : match.end()]))
            except HaatError as error:
                if not any(given):
                    raise
                self.failed, self._pending = error, b""
                return b"".join(given)
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
            if look(event) is False:
                return b""
        if event.data == before:
            return raw
        line_end = match.group() if (match := _LINE.search(text)) else "\n"
        fresh = [f"data: {line}" for line in _LINE.split(event.data)]
        first = lines.index(data[0])
        kept = lines[:first] + fresh
        kept += [line for line in lines[first:] if not (line == "data" or line.startswith("data:"))]
        return line_end.join(kept).encode(kind, "replace")
