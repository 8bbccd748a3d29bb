"""Joins a journal's frames to records that are final: of the hot path of metering, so it can be compiled.

A record leaves when its confirmation is read, or when the seal of a worker that ended or died says that
none will come: then as ``unconfirmed``, or ``interrupted`` for a stream that never closed.
"""

from __future__ import annotations

from haat.usage.event import Outcome, UsageEvent, decode, decode_checkpoint
from haat.usage.frames import START, Frame, Kind, Position, SealReason, confirmed_ids
from haat.usage.reader import JournalReader
from haat.usage.record import Record
from haat.usage.rows import id_bytes


class _Waiting:
    """A record that is not final yet, and where its first frame stood."""

    __slots__ = ("event", "opened", "start")

    def __init__(self, event: UsageEvent, start: Position, opened: bool) -> None:
        self.event, self.start, self.opened = event, start, opened


class Tail:
    """One worker's journal as far as it was read."""

    __slots__ = ("position", "reader", "stored", "waiting")

    def __init__(self, reader: JournalReader, position: Position, stored: Position) -> None:
        self.reader, self.position, self.stored = reader, position, stored
        self.waiting: dict[bytes, _Waiting] = {}

    @property
    def resume(self) -> Position:
        """Where a successor must begin: the oldest record still waiting (they are kept in that order)."""
        oldest = next(iter(self.waiting.values()), None)
        return oldest.start if oldest else self.position

    def feed(self, frames: list[Frame]) -> list[Record]:
        """Join frames with what waits; return the records that are final now."""
        ready: list[Record] = []
        for frame in frames:
            start, self.position = self.position, frame.end
            if start == START:  # the oldest segment there is; its number shows in the frame's end
                start = Position(frame.end.segment - (1 if frame.kind == Kind.SEAL else 0), 0)
            try:
                self._feed_one(frame, start, ready)
            except ValueError as error:  # also UnreadableEvent: the checksum is right and the content is not
                ready.append(self._record(None, start, frame.payload, f"a frame of kind {frame.kind}: {error}"))
        return ready

    def _feed_one(self, frame: Frame, start: Position, ready: list[Record]) -> None:
        if frame.kind == Kind.USAGE:
            event = decode(frame.payload)
            key = id_bytes(event.id)
            known = self.waiting.get(key)
            self.waiting[key] = _Waiting(event, known.start if known else start, False)
        elif frame.kind == Kind.CONFIRM:
            for identifier in confirmed_ids(frame.payload):
                found = self.waiting.pop(identifier, None)
                if found is not None:  # otherwise it was shipped before a restart
                    ready.append(self._record(found.event, found.start))
        elif frame.kind == Kind.OPEN:
            event = decode(frame.payload)
            self.waiting.setdefault(id_bytes(event.id), _Waiting(event, start, True))
        elif frame.kind == Kind.CHECKPOINT:
            checkpoint = decode_checkpoint(frame.payload)
            stream = self.waiting.get(id_bytes(checkpoint.id))
            if stream is not None and stream.opened:
                stream.event.units, stream.event.bytes_out = checkpoint.units, checkpoint.bytes_out
        elif frame.kind == Kind.SEAL and frame.payload[0] != SealReason.ROTATED:
            for left in self.waiting.values():
                left.event.outcome = Outcome.INTERRUPTED if left.opened else Outcome.UNCONFIRMED
                ready.append(self._record(left.event, left.start))
            self.waiting.clear()

    def _record(self, event: UsageEvent | None, at: Position, payload: bytes = b"", unreadable: str = "") -> Record:
        return Record(event, self.reader.worker, at.segment, at.offset, payload, unreadable)
