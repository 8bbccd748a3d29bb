"""What the journal's tests do to its files: read them, end a writer as a kill does, break the disk under it."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from haat.usage.journal import START, Frame, JournalReader, JournalWriter, Kind


def die(writer: JournalWriter) -> None:
    """Let go of the files as a killed process does: nothing sealed."""
    writer._closing.set()
    writer._syncer.join()
    writer._let_go()


def read_all(directory: Path, max_bytes: int = 1 << 20) -> list[Frame]:
    reader, position, frames = JournalReader(directory, "gateway-0"), START, []
    while batch := reader.read(position, max_bytes):
        frames += batch
        position = batch[-1].end
    return frames


def records(frames: list[Frame]) -> list[tuple[int, bytes]]:
    return [(frame.kind, frame.payload) for frame in frames if frame.kind != Kind.SEAL]


def replace_file(writer: JournalWriter, path: str) -> int:
    """Put another file in the place of the segment being written; return the descriptor to put back."""
    kept, other = os.dup(writer._descriptor), os.open(path, os.O_RDWR)
    os.dup2(other, writer._descriptor)
    os.close(other)
    return kept


def put_back(writer: JournalWriter, kept: int) -> None:
    os.dup2(kept, writer._descriptor)
    os.close(kept)


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``size`` bytes: a write that crosses it is cut short.

    With 0 that is a full disk for which nobody's disk need be filled.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
