"""Reading a worker's journal, while it is being written or after; see `haat.usage.frames` for what lies in it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from haat.usage.frames import (
    FORMAT,
    FRAME_BYTES,
    MAX_FRAME_BYTES,
    MUST_UNDERSTAND,
    START,
    CorruptJournal,
    Kind,
    Position,
    TooNew,
    format_of,
    is_sealed,
    segment_path,
    segments,
    workers,
)
from haat.usage.scan import Bad, Frame, scan

_KNOWN_KINDS = frozenset(Kind)
_HEADER: Final = int(Kind.HEADER)
_SEAL: Final = int(Kind.SEAL)


class JournalReader:
    """Reads one worker's journal, while it is being written or after."""

    def __init__(self, directory: Path, worker: str) -> None:
        self.directory, self.worker = directory, worker

    def read(self, position: Position = START, max_bytes: int = 1 << 20) -> list[Frame]:
        """Return the frames after ``position``, about ``max_bytes`` of them; none when none are there yet.

        Frames of one call lie in one segment; after a SEAL frame the next call reads the next one. A
        kind that isn't known here and may be passed over is returned too: who doesn't know it takes no
        notice. Raise CorruptJournal for a bad frame in a sealed segment and for a segment that is
        missing, TooNew for what only a newer reader understands. A bad or torn tail of the live segment
        is simply not there yet.
        """
        present = segments(self.directory, self.worker)
        if position == START:
            if not present:
                return []
            position = Position(present[0], 0)
        path = segment_path(self.directory, self.worker, position.segment)
        if position.segment not in present:
            last = present[-1] if present else 0
            if position.segment == last + 1:
                return []  # the segment before was sealed, this one is not begun yet
            raise CorruptJournal(path, position.offset, "the segment is missing")
        sealed = position.segment < present[-1] or is_sealed(path)
        while True:
            with path.open("rb") as file:
                file.seek(position.offset)
                data = file.read(max_bytes + FRAME_BYTES)
                whole = not file.read(1)
            frames, bad = _frames(path, position, data)
            if isinstance(bad, CorruptJournal):
                if frames:
                    return frames  # what lies before it is good; it is met again
                raise bad
            if bad is not None and sealed and (whole or not bad.torn):
                raise CorruptJournal(path, bad.offset, bad.reason)
            if sealed and whole and not (frames and frames[-1].kind == Kind.SEAL):
                raise CorruptJournal(path, position.offset + len(data), "it ends without a seal")
            if frames or whole or max_bytes > MAX_FRAME_BYTES:
                return frames
            max_bytes = MAX_FRAME_BYTES + FRAME_BYTES  # one frame is larger than what was asked for

    def behind(self, position: Position) -> int:
        """Return how many bytes lie after ``position``: what is not shipped yet, or waits for its confirmation."""
        paths = {n: segment_path(self.directory, self.worker, n) for n in segments(self.directory, self.worker)}
        size = 0
        for number, path in paths.items():
            if number >= position.segment:
                with contextlib.suppress(FileNotFoundError):  # the shipper deletes what it has shipped
                    size += path.stat().st_size - (position.offset if number == position.segment else 0)
        return size

    def shipped(self, position: Position) -> list[Path]:
        """Return the segments that lie wholly before ``position`` and may be deleted."""
        present = segments(self.directory, self.worker)
        return [segment_path(self.directory, self.worker, n) for n in present[:-1] if n < position.segment]


def backlogs(directory: Path, shipped: Mapping[str, Position]) -> dict[str, int]:
    """Return for each worker with a journal below ``directory`` the bytes that lie after what is shipped of it."""
    return {
        worker: JournalReader(directory, worker).behind(shipped.get(worker, START)) for worker in workers(directory)
    }


def _frames(path: Path, position: Position, data: bytes) -> tuple[list[Frame], Bad | CorruptJournal | None]:
    """Return the good frames at the beginning of ``data``, up to a seal, and what ended them otherwise."""
    found, bad = scan(data, position)
    frames: list[Frame] = []
    at = position.offset
    for frame in found:
        kind = frame.kind
        if kind == _HEADER:
            try:
                wanted = format_of(frame.payload)
            except ValueError as error:
                return frames, CorruptJournal(path, at, str(error))
            if wanted > FORMAT:
                return frames, TooNew(path, at, f"it has format {wanted}, and this program knows {FORMAT}")
        elif kind >= MUST_UNDERSTAND and kind not in _KNOWN_KINDS:
            return frames, TooNew(path, at, f"a frame of kind {kind} must be understood")
        else:
            frames.append(frame)
            if kind == _SEAL:
                return frames, None
        at = frame.offset
    return frames, bad
