"""The market on disk, so that a gateway that starts while PostgreSQL is down still serves.

    magic · frame (Head) · as many frames (Part) as the head says: the whole market
          · further frames (Part): what has changed since, appended as it happens

    frame: u32 length of the payload · 16 bytes MAC · payload (MessagePack)        (little-endian)

Each MAC is made under the master key of its payload and the MAC before it: it tells a damaged or foreign
file, and no frame can be left out, moved or repeated. A bad frame in the whole makes the file unusable. A
bad one after it ends the file there: it was being written when its writer died.

The file holds nothing that PostgreSQL doesn't hold in the same form: API keys as keyed hashes, provider
credentials encrypted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.snapshot import (
    Credential,
    Directory,
    Part,
    Position,
    Service,
    Snapshot,
    Subscription,
    save,
    sharing,
)
from haat.infra.keyring import Keyring

log = logging.getLogger(__name__)

MAGIC = b"HAATSNAP\x03"
WIDE = b"HAATSNAP\x02"
"""A release wrote the same frames and knew no keys for some services alone: it must not read those. Read still."""
BEFORE = b"HAATSNAP\x01"
"""A release wrote one frame of another kind: a MAC of 32 bytes and a map. Read still, written never."""
ENTRIES = 1_000
"""In a frame of the whole: encoding one takes well under a millisecond."""
LEAST_APPENDED = 4 * 1024 * 1024
"""Bytes of changes up to which the file is never written anew."""
BREATH_SECONDS = 0.002
"""Pause between two frames while calls are served beside."""
_FRAME = struct.Struct("<I16s")
_MOST = 256 * 1024 * 1024
Entry = TypeVar("Entry")


class Head(msgspec.Struct, array_like=True):
    """The first frame: how many of the next ones make the whole, and how the tables looked that it came from."""

    parts: int
    shape: str = ""


class UnusableSnapshot(Exception):
    """The file is damaged, of another version or of another platform."""


class End(NamedTuple):
    """Where the next frame goes: after so many bytes, whose last MAC this is."""

    offset: int
    mac: bytes
    whole: int
    """How many bytes the market took without the changes after it."""


_head_decoder = msgspec.msgpack.Decoder(Head)
_decoder = msgspec.msgpack.Decoder(Part)
_encoder = msgspec.msgpack.Encoder()


def frames(snapshot: Snapshot, keyring: Keyring) -> Iterator[bytes]:
    """Yield the file piece by piece."""
    key, mac = keyring.derive("gateway-snapshot"), b""
    size = ENTRIES
    parts = 2 + sum(-(-len(entries) // size) for entries in (snapshot.credentials, snapshot.subscriptions))
    yield MAGIC
    for payload in _payloads(snapshot, parts, size):
        frame, mac = _frame(payload, key, mac)
        yield frame


def _payloads(snapshot: Snapshot, parts: int, size: int) -> Iterator[bytes]:
    yield _encoder.encode(Head(parts, snapshot.shape))
    yield _encoder.encode(Part(services=snapshot.services))
    for credentials in _slices(snapshot.credentials, size):
        yield _encoder.encode(Part(credentials=credentials))
    for subscriptions in _slices(snapshot.subscriptions, size):
        yield _encoder.encode(Part(subscriptions=subscriptions))
    yield _encoder.encode(Part(position=snapshot.position, applications=snapshot.applications))


def _slices(entries: list[Entry], size: int) -> Iterator[list[Entry]]:
    rest = iter(entries)
    while part := list(islice(rest, size)):
        yield part


def _frame(payload: bytes, key: bytes, mac: bytes) -> tuple[bytes, bytes]:
    mac = _mac(payload, key, mac)
    return _FRAME.pack(len(payload), mac) + payload, mac


def _mac(payload: bytes, key: bytes, mac: bytes) -> bytes:
    return hmac.digest(key, mac + payload, "sha256")[:16]


def encode(snapshot: Snapshot, keyring: Keyring) -> bytes:
    """Return the whole file for a snapshot."""
    return b"".join(frames(snapshot, keyring))


def write(path: Path, snapshot: Snapshot, keyring: Keyring) -> None:
    """Leave a snapshot on disk for a gateway that is to start from it; raise OSError."""
    save(path, encode(snapshot, keyring))


def load(path: Path, keyring: Keyring) -> Snapshot:
    """Read a kept snapshot; raise FileNotFoundError or UnusableSnapshot."""
    directory = Directory()
    read_into(directory, path, keyring)
    return directory.snapshot()


def read_into(directory: Directory, path: Path, keyring: Keyring) -> End | None:
    """Fill an empty directory; return where the file's good part ends, None when nothing can be appended to it.

    Raise FileNotFoundError or UnusableSnapshot, after which the directory is of no use.
    """
    with path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise UnusableSnapshot(f"{path} is empty") from error
        with content:
            return _read(directory, content, path, keyring)


def _read(directory: Directory, content: mmap.mmap, path: Path, keyring: Keyring) -> End | None:
    if content[: len(MAGIC)] == BEFORE:
        _read_before(directory, content, path, keyring)
        return None
    magic = content[: len(MAGIC)]
    if magic not in (MAGIC, WIDE):
        raise UnusableSnapshot(f"{path} is not a snapshot of this version")
    key, mac = keyring.derive("gateway-snapshot"), b""
    offset, whole, parts, read = len(MAGIC), 0, 0, -1
    shared: dict[Any, Any] = {}
    while offset < len(content):
        try:
            length, expected = _FRAME.unpack_from(content, offset)
            payload = content[offset + _FRAME.size : offset + _FRAME.size + length]
        except struct.error:
            break
        if len(payload) != length or not hmac.compare_digest(_mac(payload, key, mac), expected):
            break
        try:
            if read < 0:
                head = _head_decoder.decode(payload)
                parts, directory.shape = head.parts, head.shape
            else:
                directory.apply(sharing(_decoder.decode(payload), shared))
        except msgspec.MsgspecError as error:
            raise UnusableSnapshot(f"{path} can't be read: {error}") from error
        offset, mac = offset + _FRAME.size + length, expected
        read += 1
        if read == parts:
            whole = offset
    if not whole:
        raise UnusableSnapshot(f"{path} is damaged, or was made under another master key")
    if offset < len(content):
        log.warning("%s: its last %d bytes are no whole change and are left out", path, len(content) - offset)
    directory.loaded = True
    return End(offset, mac, whole) if magic == MAGIC else None


def _read_before(directory: Directory, content: mmap.mmap, path: Path, keyring: Keyring) -> None:
    mac, body = content[len(BEFORE) : len(BEFORE) + 32], content[len(BEFORE) + 32 :]
    if not hmac.compare_digest(hmac.digest(keyring.derive("gateway-snapshot"), body, "sha256"), mac):
        raise UnusableSnapshot(f"{path} is damaged, or was made under another master key")
    try:
        found = msgspec.msgpack.decode(body)
        directory.replace(
            Snapshot(
                Position(**found["position"]),
                [Credential(**entry) for entry in found["credentials"]],
                [Subscription(**{**one, "limits": PlanLimits(**one["limits"])}) for one in found["subscriptions"]],
                msgspec.convert(found["services"], list[Service]),
            )
        )
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise UnusableSnapshot(f"{path} can't be read: {error}") from error


class SnapshotFile:
    """Keeps a directory on disk. One process writes it; others may read it at any moment."""

    def __init__(self, path: Path, keyring: Keyring) -> None:
        self._path, self._keyring = path, keyring
        self._key = keyring.derive("gateway-snapshot")
        self._end: End | None = None
        self._descriptor = -1
        self._since: list[Part] | None = None
        """Changes since the whole that is being written was looked at."""
        self._unsynced = False

    def load(self, directory: Directory) -> None:
        """Fill an empty directory, and go on from there; raise FileNotFoundError or UnusableSnapshot."""
        self._end = read_into(directory, self._path, self._keyring)

    @property
    def outgrown(self) -> bool:
        """There is no good file yet, or more has been appended than is worth reading at a start."""
        end = self._end
        return end is None or end.offset - end.whole > max(LEAST_APPENDED, end.whole // 2)

    def forget(self) -> None:
        """What is on disk is not what the directory went on from: it has to be written anew."""
        self._end = None

    def append(self, part: Part) -> None:
        """Add a change; raise OSError, after which the file has to be written anew."""
        if self._since is not None:
            self._since.append(part)
        if self._end is None:
            return
        end, self._end = self._end, None
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            os.ftruncate(self._descriptor, end.offset)
        self._end = self._write(self._descriptor, part, end)
        self._unsynced = True

    def _write(self, descriptor: int, part: Part, end: End) -> End:
        frame, mac = _frame(_encoder.encode(part), self._key, end.mac)
        if os.pwrite(descriptor, frame, end.offset) != len(frame):
            raise OSError("the disk took only a part of a change")
        return End(end.offset + len(frame), mac, end.whole)

    async def sync(self) -> None:
        """Have the disk keep what was appended; raise OSError."""
        if self._unsynced and self._descriptor >= 0:
            self._unsynced = False
            await asyncio.to_thread(os.fsync, self._descriptor)

    async def rewrite(self, directory: Directory) -> None:
        """Write the whole anew beside the running calls; raise OSError, and the old file stays.

        Entries never change, so a list of them is the market as it is now. What changes while they are
        written is appended before the new file takes the old one's place.
        """
        self._since, abandoned = [], threading.Event()
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        descriptor = -1
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            end = await asyncio.to_thread(self._write_whole, descriptor, directory.snapshot(), abandoned)
            end = self._catch_up(descriptor, end)
            await asyncio.to_thread(fresh.replace, self._path)  # giving a large file's space back takes a while
            end = self._catch_up(descriptor, end)
        except BaseException:
            abandoned.set()
            with contextlib.suppress(OSError):
                fresh.unlink()
            if descriptor >= 0 and not isinstance(sys.exception(), asyncio.CancelledError):
                os.close(descriptor)  # else the thread still has it for a moment
            raise
        finally:
            self._since = None
        old, self._descriptor, self._end, self._unsynced = self._descriptor, descriptor, end, True
        if old >= 0:
            await asyncio.to_thread(os.close, old)
        await self.sync()

    def _catch_up(self, descriptor: int, end: End) -> End:
        """Add to a new file what has changed while it was written."""
        since, self._since = self._since or [], []
        for part in since:
            end = self._write(descriptor, part, end)
        return end

    def _write_whole(self, descriptor: int, snapshot: Snapshot, abandoned: threading.Event) -> End:
        offset, mac = 0, b""
        for piece in frames(snapshot, self._keyring):
            if abandoned.is_set():
                break
            if os.pwrite(descriptor, piece, offset) != len(piece):
                raise OSError("the disk took only a part of the snapshot")
            offset, mac = offset + len(piece), piece[_FRAME.size - 16 : _FRAME.size]
            time.sleep(BREATH_SECONDS)
        os.fsync(descriptor)
        return End(offset, mac, offset)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
