"""Joins a journal's frames to records that are final: of the hot path of metering, so it can be compiled.

A record leaves when its confirmation is read, or when the seal of a worker that ended or died says that
none will come: then as ``unconfirmed``, or ``interrupted`` for a stream that never closed. Most records leave
without having been decoded: their ids, which confirmations name, are read at a glance.
"""

from __future__ import annotations

from typing import Final

from haat.usage.event import Outcome, decode, decode_checkpoint
from haat.usage.frames import START, Kind, Position, SealReason, confirmed_ids
from haat.usage.glance import identifier
from haat.usage.parts import id_bytes
from haat.usage.reader import JournalReader
from haat.usage.record import Record
from haat.usage.scan import Frame

_USAGE: Final = int(Kind.USAGE)  # an enum's member costs more to use than a number
_CONFIRM: Final = int(Kind.CONFIRM)
_OPEN: Final = int(Kind.OPEN)
_CHECKPOINT: Final = int(Kind.CHECKPOINT)
_SEAL: Final = int(Kind.SEAL)


class Tail:
    """One worker's journal as far as it was read."""

    __slots__ = ("position", "reader", "stored", "waiting")

    def __init__(self, reader: JournalReader, position: Position, stored: Position) -> None:
        self.reader, self.position, self.stored = reader, position, stored
        self.waiting: dict[bytes, Record] = {}
        """Records that are not final yet, each at the place of its first frame."""

    @property
    def resume(self) -> Position:
        """Where a successor must begin: the oldest record still waiting (they are kept in that order)."""
        oldest = next(iter(self.waiting.values()), None)
        return Position(oldest.segment, oldest.offset) if oldest else self.position

    def feed(self, frames: list[Frame]) -> list[Record]:
        """Join frames with what waits; return the records that are final now."""
        ready: list[Record] = []
        segment, offset = self.position
        for frame in frames:
            kind = frame.kind
            if segment == START.segment:  # the oldest segment there is; its number shows in the frame's end
                segment = frame.segment - (1 if kind == _SEAL else 0)
            try:
                self._feed_one(frame, kind, segment, offset, ready)
            except ValueError as error:  # also UnreadableEvent: the checksum is right and the content is not
                reason = f"a frame of kind {kind}: {error}"
                ready.append(Record(None, self.reader.worker, segment, offset, frame.payload, reason))
            segment, offset = frame.segment, frame.offset
        self.position = Position(segment, offset)
        return ready

    def _feed_one(self, frame: Frame, kind: int, segment: int, offset: int, ready: list[Record]) -> None:
        payload, waiting = frame.payload, self.waiting
        if kind == _USAGE:
            key, record = self._record(payload, segment, offset)
            known = waiting.get(key)
            if known is not None:
                record.segment, record.offset = known.segment, known.offset
            waiting[key] = record
        elif kind == _CONFIRM:
            for one in confirmed_ids(payload):
                found = waiting.pop(one, None)
                if found is not None:  # otherwise it was shipped before a restart
                    ready.append(found)
        elif kind == _OPEN:
            key, record = self._record(payload, segment, offset)
            record.opened = True
            waiting.setdefault(key, record)
        elif kind == _CHECKPOINT:
            checkpoint = decode_checkpoint(payload)
            stream = waiting.get(id_bytes(checkpoint.id))
            if stream is not None and stream.opened and stream.event is not None:
                stream.event.units, stream.event.bytes_out = checkpoint.units, checkpoint.bytes_out
        elif kind == _SEAL and payload[0] != SealReason.ROTATED:
            for left in waiting.values():
                if left.event is not None:
                    left.event.outcome = Outcome.INTERRUPTED if left.opened else Outcome.UNCONFIRMED
                ready.append(left)
            waiting.clear()

    def _record(self, payload: bytes, segment: int, offset: int) -> tuple[bytes, Record]:
        """Return a record with its id; raise UnreadableEvent, or ValueError for an id that is none."""
        key = identifier(payload)
        if key is not None:
            return key, Record(None, self.reader.worker, segment, offset, payload, id=key)
        event = decode(payload)
        return id_bytes(event.id), Record(event, self.reader.worker, segment, offset)
