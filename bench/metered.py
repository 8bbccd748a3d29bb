"""What the journal says about calls: the other side of what a load generator saw."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from haat.usage import event as usage
from haat.usage import journal
from haat.usage.journal import START, JournalReader, Kind, Position


@dataclass(slots=True)
class Metered:
    """Records by request id. ``confirmed`` are those whose answer the kernel took."""

    outcomes: dict[UUID, str] = field(default_factory=dict)
    confirmed: Counter[UUID] = field(default_factory=Counter)

    def missing(self, answered: list[bytes]) -> int:
        """Return how many of these answered calls are not there as completed and confirmed exactly once."""
        return sum(
            self.outcomes.get(identifier) != "completed" or self.confirmed[identifier] != 1
            for identifier in (UUID(text.decode("ascii")) for text in answered)
        )


class Follower:
    """Reads the journals of all workers on from where it was, also while they are written."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._positions: dict[str, Position] = {}

    def read(self) -> Metered:
        """Return what has come since the last time; raise CorruptJournal."""
        found = Metered()
        for worker in journal.workers(self._directory):
            reader = JournalReader(self._directory, worker)
            position = self._positions.get(worker, START)
            while frames := reader.read(position):
                for frame in frames:
                    if frame.kind == Kind.USAGE:
                        event = usage.decode(frame.payload)
                        found.outcomes[UUID(event.id)] = event.outcome
                    elif frame.kind == Kind.CONFIRM:
                        found.confirmed.update(UUID(bytes=raw) for raw in journal.confirmed_ids(frame.payload))
                position = frames[-1].end
            self._positions[worker] = position
        return found

    def delete_read(self) -> None:
        """Delete the segments that have been read whole, as the shipper does once their records are stored."""
        for worker, position in self._positions.items():
            for path in JournalReader(self._directory, worker).shipped(position):
                path.unlink()
