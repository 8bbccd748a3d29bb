"""Which inputs go into the next batch. Pure: no I/O, and the time is always given.

Inputs wait in groups, of which only one makes a batch. In a group they stand by the time they came, where a
level of priority is worth half a second: priority 10 goes before priority 1 that came up to 4.5 seconds earlier, and
nobody waits for ever.

A batch waits at most ``max_wait_ms`` while a worker is free, and leaves at once when waiting can't bring company.
What to expect is learnt: a call that comes raises the number of calls at work together to what it finds, a wait in
vain lowers it to what was there. So a caller who is alone never waits, and of thirty-two who come back together
none is left behind.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from haat.models.manifest import Batching

PRIORITY_SECONDS = 0.5
QUEUE_BATCHES = 10
QUEUE_BYTES = 64 * 1024 * 1024

_key = attrgetter("key")


@dataclass(slots=True, eq=False)
class Entry:
    """One input that waits. ``call`` is whose it is; ``cost`` as the batching counts; ``since`` when it came.

    One that is ``alone`` has a batch of its own.
    """

    call: Any
    index: int
    given: Any
    since: float
    priority: int = 5
    cost: float = 1.0
    group: Hashable = ()
    size: int = 0
    alone: bool = False
    key: tuple[float, int] = (0.0, 0)
    waits: bool = False


@dataclass(slots=True)
class _Group:
    entries: list[Entry] = field(default_factory=list)
    cost: float = 0.0
    offered: float = math.inf
    """When a free worker first asked for it: from then on it waits for company."""


def _first(group: _Group) -> tuple[float, int]:
    return group.entries[0].key


class Batcher:
    """The queue of one model. Every entry that is added is taken or dropped exactly once."""

    def __init__(self, batching: Batching) -> None:
        self._batching = batching
        self._wait = batching.max_wait_ms / 1000
        self._groups: dict[Hashable, _Group] = {}
        self._count = 0
        self._bytes = 0
        self._sequence = 0
        self._expected = 1
        self._waiting_calls: dict[Any, int] = {}

    def __len__(self) -> int:
        return self._count

    def is_full(self, workers: int, ready: int = 0) -> bool:
        """Tell whether another call is to be refused: ten batches a worker wait already, or 64 MiB.

        ``ready`` inputs wait at workers.
        """
        return (
            self._count + ready >= QUEUE_BATCHES * self._batching.max_items * max(1, workers)
            or self._bytes >= QUEUE_BYTES
        )

    @property
    def has_whole_batch(self) -> bool:
        """Tell whether a batch of texts waits to which nothing could be added, and besides it nothing that is due."""
        if len(self._groups) != 1:
            return False
        (group,) = self._groups.values()
        first = group.entries[: self._batching.max_items]
        return len(first) == self._batching.max_items and not any(entry.alone or entry.given.content for entry in first)

    def add(self, entries: Iterable[Entry], running_calls: int) -> None:
        """Let the inputs of a call wait; ``running_calls`` is how many others are in batches that run."""
        for entry in entries:
            self._sequence += 1
            entry.key = (entry.since - entry.priority * PRIORITY_SECONDS, self._sequence)
            # An entry that is alone is a group by itself.
            group = self._groups.setdefault(entry if entry.alone else entry.group, _Group())
            insort(group.entries, entry, key=_key)
            entry.waits = True
            group.cost += entry.cost
            self._count += 1
            self._bytes += entry.size
            self._waiting_calls[entry.call] = self._waiting_calls.get(entry.call, 0) + 1
        self._expected = max(self._expected, len(self._waiting_calls) + running_calls)

    def take(self, now: float, workers: int, running_calls: int) -> list[Entry]:
        """Return the next batch for a worker that is free, of several groups the one longest due; empty if none is.

        ``workers`` is how many there are, ``running_calls`` how many calls are in batches that run.
        """
        due: _Group | None = None
        for group in self._groups.values():
            group.offered = min(group.offered, now)
            if self._is_due(group, now, workers, running_calls) and (due is None or _first(group) < _first(due)):
                due = group
        return [] if due is None else self._cut(due)

    def due_at(self) -> float:
        """Return when something that a free worker has found is due even if nobody comes any more, or infinity."""
        return min((group.offered for group in self._groups.values()), default=math.inf) + self._wait

    def drop(self, call: Any) -> list[Entry]:
        """Take out everything of a call that waits, and return it."""
        if call not in self._waiting_calls:
            return []
        dropped: list[Entry] = []
        for name, group in list(self._groups.items()):
            mine = [entry for entry in group.entries if entry.call is call]
            if mine:
                dropped += mine
                group.entries = [entry for entry in group.entries if entry.call is not call]
                self._left(name, group, mine)
        return dropped

    def place(self, entry: Entry) -> int:
        """Return how many inputs stand before one, plus one."""
        return 1 + sum(bisect_left(group.entries, entry.key, key=_key) for group in self._groups.values())

    def waiting(self) -> Iterable[Entry]:
        """Yield all that wait."""
        for group in self._groups.values():
            yield from group.entries

    def _is_due(self, group: _Group, now: float, workers: int, running_calls: int) -> bool:
        batching, entries = self._batching, group.entries
        if entries[0].alone or len(entries) >= batching.max_items:
            return True
        if batching.max_cost and group.cost >= batching.max_cost:
            return True
        if len(self._waiting_calls) + running_calls >= self._expected:
            return True  # everybody is here
        if len(entries) >= math.ceil(self._expected / max(1, workers)):
            return True  # that is this worker's share of them
        if now >= group.offered + self._wait:
            self._expected = max(1, len(self._waiting_calls) + running_calls)
            return True
        return False

    def _cut(self, group: _Group) -> list[Entry]:
        batching, entries = self._batching, group.entries
        count, total = 0, 0.0
        while count < min(len(entries), batching.max_items):
            total += entries[count].cost
            if batching.max_cost and total > batching.max_cost and count:
                break  # one that is dearer than a whole batch goes by itself
            count += 1
        batch = entries[:count]
        del entries[:count]
        group.offered = math.inf
        self._left(batch[0] if batch[0].alone else batch[0].group, group, batch)
        return batch

    def _left(self, name: Hashable, group: _Group, left: list[Entry]) -> None:
        self._count -= len(left)
        for entry in left:
            entry.waits = False
            group.cost -= entry.cost
            self._bytes -= entry.size
            remaining = self._waiting_calls[entry.call] - 1
            if remaining:
                self._waiting_calls[entry.call] = remaining
            else:
                del self._waiting_calls[entry.call]
        if not group.entries:
            del self._groups[name]
