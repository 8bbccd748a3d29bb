"""The gateway's own time and ids: never backwards, and cheap enough to ask several times a call."""

from __future__ import annotations

import os
import time
from time import monotonic_ns
from typing import Final

SECOND: Final = 1_000_000
"""Microseconds: what times and durations are in, wherever nothing else is said."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while the machine sleeps


class GatewayClock:
    """Wall time that was read once and is carried on by the machine's steady clock.

    A step of the wall clock would empty every rate window or freeze it; this clock knows no steps.
    """

    def __init__(self) -> None:
        self._wall = time.time_ns() - time.clock_gettime_ns(_CLOCK)
        self._anchor = 0
        self._carry_on()
        self.lately = self.now_us()
        """The time as of the last tick, for what may be some milliseconds off: idleness, patience."""

    @property
    def wall(self) -> int:
        """What this clock adds to the machine's steady one, in nanoseconds."""
        return self._wall

    def adopt(self, wall: int) -> None:
        """Tell the time of the other processes from now on, to the microsecond. Only before the first call."""
        self._wall, self._anchor = wall, 0
        self.tick()

    def now_us(self) -> int:
        """Return microseconds since the epoch."""
        return (self._anchor + monotonic_ns()) // 1000

    def tick(self) -> int:
        """Bring ``lately`` up to date and return it."""
        self._carry_on()
        self.lately = self.now_us()
        return self.lately

    def _carry_on(self) -> None:
        """Ask the clock that is cheap to read, corrected by how long the machine slept."""
        self._anchor = max(self._anchor, self._wall + time.clock_gettime_ns(_CLOCK) - monotonic_ns())


class CallIds:
    """UUIDv7 (RFC 9562, 5.7) from a counter: increasing, unique, a tenth of the cost of a random one.

    48 bits of milliseconds, 12 bits counted up within one, and 62 bits drawn once per process. A
    millisecond with more than 4,096 calls borrows from the next.
    """

    def __init__(self) -> None:
        self._last = 0
        tail = (int.from_bytes(os.urandom(8), "big") & (1 << 62) - 1) | 0b10 << 62
        self._tail = tail.to_bytes(8, "big")
        text = self._tail.hex()
        self._endings = [f"7{count:03x}-{text[:4]}-{text[4:]}\r\n".encode("ascii") for count in range(4096)]
        self._millisecond = -1
        self._beginning = b""

    def next(self, now_us: int) -> int:
        """Return the next id as a number, for `line` and `octets`."""
        number = now_us // 1000 << 12
        self._last = number = number if number > self._last else self._last + 1
        return number

    def line(self, number: int) -> bytes:
        """Return the id as an ``X-Request-ID`` line."""
        millisecond = number >> 12
        if millisecond != self._millisecond:
            digits = f"{millisecond:012x}"
            self._beginning = f"X-Request-ID: {digits[:8]}-{digits[8:]}-".encode("ascii")
            self._millisecond = millisecond
        return self._beginning + self._endings[number & 0xFFF]

    def text(self, number: int) -> str:
        return self.line(number)[14:50].decode("ascii")

    def octets(self, number: int) -> bytes:
        """Return the sixteen bytes of the id."""
        return ((number >> 12) << 16 | 0x7000 | number & 0xFFF).to_bytes(8, "big") + self._tail
