"""A purse: what this machine's gateways have of a wallet or a budget, in memory that they share.

It is a record among those of the limits (`haat.gateway.limits.counts`), in cells that windows and quotas leave free
here. Amounts are billionths of a rupee, counted up for life: ``limit`` is what was authorised so far, ``drawn`` what
calls have taken of it, what those in flight hold included. Each slot says what its calls hold, where a record of limits
says what is reserved of a month: so the successor of a killed process gives it back as it does with quotas.

The order of stores matters where a process can be killed between two: at each moment as much is drawn as is true, or
more.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from haat.gateway.limits.counts import MONTH, SLOT_CELLS, SLOT_RESERVED_MONTH, SLOTS, Counts

DRAWN: Final = MONTH  # where `haat.gateway.limits.recovery` gives back what a dead slot has reserved
LIMIT, ENDS, WANT, MOST, DENIED, LEFT, LOW = range(MONTH + 1, MONTH + 8)
INSTANCE, KNOCKS, BEAT = range(3)
"""Among the signals of the counts: who this machine's gateways are, how often purses have asked for more, and when
the control plane was last asked: 0 before the first time, 1 when it is out of reach."""
OUT_OF_REACH: Final = 1
DENIAL_US: Final = 500_000
"""How long it holds that the control plane has said that there is no more, in microseconds."""
PREFIX: Final = "\n\n"
"""Of a purse's key; that of a provider's pace has one line end."""
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady() -> int:
    """Return microseconds by a clock that all processes of a machine share and that nobody sets."""
    return time.clock_gettime_ns(_CLOCK) // 1000


class Standing(NamedTuple):
    """A purse as it is; ``used`` is drawn by calls that are not in flight any more."""

    limit: int
    drawn: int
    used: int
    ends: int
    want: int
    most: int


class Purse:
    """One fund of one organisation; made by `haat.gateway.wallets.purses.Purses`."""

    __slots__ = ("_cells", "_counts", "_reserved", "fund", "key", "org")

    def __init__(self, counts: Counts, key: str) -> None:
        """Open it, or make it. Needs the lock; raise OSError when there is no room."""
        self.key = key
        self.fund, self.org = key[len(PREFIX) :].split("\n")
        self._counts = counts
        self._cells = counts.fitting(key, [], 0)
        self._reserved = SLOTS + SLOT_CELLS * counts.slot + SLOT_RESERVED_MONTH

    # --- calls ---------------------------------------------------------------------------------

    def hold(self, amount: int) -> bool:
        """Take the most that a call can cost; False when that isn't there, or the time is over."""
        counts, cells = self._counts, self._cells
        counts.acquire()
        try:
            drawn = cells[DRAWN] + amount
            room = cells[LIMIT] - drawn
            if amount > cells[MOST]:
                cells[MOST] = amount
            if room < 0 or steady() >= cells[ENDS]:
                if amount > cells[WANT]:
                    cells[WANT] = amount
                counts.signals[KNOCKS] += 1
                return False
            cells[DRAWN] = drawn  # first: what a slot holds is given back, should it die
            cells[self._reserved] += amount
            if room < cells[LOW]:
                counts.signals[KNOCKS] += 1
            return True
        finally:
            counts.release()

    def settle(self, held: int, used: int) -> None:
        """End a call: what it held becomes what it has used, 0 to give all of it back."""
        counts, cells = self._counts, self._cells
        counts.acquire()
        try:
            cells[self._reserved] -= held
            cells[DRAWN] -= held - used
        finally:
            counts.release()

    def denial(self) -> tuple[int, int]:
        """Return when it was last said that there is no more, and how much there was."""
        return self._cells[DENIED], self._cells[LEFT]

    # --- the keeper ----------------------------------------------------------------------------

    def standing(self) -> Standing:
        counts, cells = self._counts, self._cells
        counts.acquire()
        try:
            reserved = 0
            for slot in range(counts.slots):
                reserved += cells[SLOTS + SLOT_CELLS * slot + SLOT_RESERVED_MONTH]
            drawn = cells[DRAWN]
            return Standing(cells[LIMIT], drawn, drawn - reserved, cells[ENDS], cells[WANT], cells[MOST])
        finally:
            counts.release()

    def give_up(self, room: int) -> int:
        """Keep at most so much beyond what is drawn; return the limit."""
        counts, cells = self._counts, self._cells
        counts.acquire()
        try:
            cells[LIMIT] = min(cells[LIMIT], cells[DRAWN] + room)
            cells[MOST] //= 2
            return cells[LIMIT]
        finally:
            counts.release()

    def fill(self, limit: int, ends: int, low: int, denied: bool, left: int) -> None:
        """Go by another limit until ``ends``, by the steady clock; knock when less than ``low`` is left.

        ``left`` is what nobody has; ``denied`` says that it, and what is here, is less than a call would need.
        """
        counts, cells = self._counts, self._cells
        counts.acquire()
        try:
            cells[LIMIT] = max(limit, cells[DRAWN])
            cells[ENDS], cells[LOW], cells[WANT] = ends, low, 0
            if denied:
                cells[DENIED], cells[LEFT] = steady(), max(0, left) + cells[LIMIT] - cells[DRAWN]
        finally:
            counts.release()


def key_of(fund: str, org: str) -> str:
    return f"{PREFIX}{fund}\n{org}"
