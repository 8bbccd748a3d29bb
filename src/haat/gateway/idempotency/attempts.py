"""What idempotency keys remember, on this machine's disk: one row a key, shared by all gateway workers.

SQLite, because it has what is needed and is there: a claim is one INSERT that only one worker can win, it
survives a kill, and several processes may write. It is called straight from the event loop, and only for
calls that carry a key: an INSERT and an UPDATE a call. Writes go to the write-ahead log in the kernel's
cache; a thread brings them to the disk every second (with ``durable``, each waits for the disk), so that
only a power cut can take a claim, and only the youngest.

What is kept of answers holds customers' texts: it is encrypted under the platform's master key.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sqlite3
import threading
import time
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from haat.kernel.errors import IdempotencyUnavailable

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
"""Raised only by a change that an older gateway beside a newer one would get wrong; columns are added freely."""
KEEP_SECONDS = 24 * 3600
BUSY_MS = 50
REOPEN_SECONDS = 1.0
SYNC_SECONDS = 1.0
PURGE_SECONDS = 60.0
PURGE_ROWS = 20
PAGE_BYTES = 1024
"""A call changes three pages, each in a place of its own: small ones keep the log short."""
MAX_LOG_BYTES = 64 * 1024 * 1024
_NONCE = 12

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS boots (slot TEXT PRIMARY KEY, boot BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS attempts (
        scope BLOB PRIMARY KEY,
        fingerprint BLOB NOT NULL,
        call BLOB NOT NULL,
        slot TEXT NOT NULL,
        boot BLOB NOT NULL,
        began INTEGER NOT NULL,
        until INTEGER NOT NULL,
        state INTEGER NOT NULL,
        sold INTEGER NOT NULL DEFAULT 0,
        answer BLOB
    );
"""
_BOOT = "INSERT INTO boots (slot, boot) VALUES (?, ?) ON CONFLICT (slot) DO UPDATE SET boot = excluded.boot"
_CLAIM = """
    INSERT INTO attempts (scope, fingerprint, call, slot, boot, began, until, state)
    VALUES (?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (scope) DO NOTHING
"""
_READ = """
    SELECT fingerprint, call, began, until, attempts.boot = boots.boot, state, answer
    FROM attempts JOIN boots USING (slot) WHERE scope = ?
"""
_TAKE_OVER = """
    UPDATE attempts SET call = ?, slot = ?, boot = ?, began = ?, until = ?, state = 0, sold = 0, answer = NULL
    WHERE scope = ? AND call = ?
"""
_NOTE = "UPDATE attempts SET answer = ? WHERE scope = ? AND call = ?"
_FINISH = "UPDATE attempts SET state = ?, sold = ?, answer = ? WHERE scope = ? AND call = ?"
_SETTLE = "UPDATE attempts SET state = ? WHERE scope = ? AND call = ?"
_RELEASE = "DELETE FROM attempts WHERE scope = ? AND call = ?"
_SELL = "UPDATE attempts SET sold = 1 WHERE scope = ? AND sold = 0"
_TAKE_BACK = "UPDATE attempts SET sold = 0 WHERE scope = ?"
_PURGE = "DELETE FROM attempts WHERE rowid IN (SELECT rowid FROM attempts ORDER BY rowid LIMIT ?) AND began < ?"


class State(IntEnum):
    RUNNING = 0
    ANSWERED = 1
    UNKNOWN = 2
    """Begun, and nobody can say what became of it: its worker died, or the provider fell silent. One of several
    calls is in this state too once it has stopped: each of its calls knows by a key of its own what became of it."""
    NOT_KEPT = 3
    """Executed; the answer was a stream, or too large to keep."""


class Kept(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An answer as it is kept, with what it was metered at. Members may be added at the end."""

    status: int
    reason: bytes
    lines: tuple[bytes, ...]
    body: bytes
    units: dict[str, str] = {}
    raw_usage: str = ""


class Attempt(NamedTuple):
    """The first call with a key. ``call`` is its id; ``answer`` is there when it is ANSWERED, or what was noted."""

    fingerprint: bytes
    call: bytes
    state: State
    answer: Kept | None


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Kept)


class Attempts:
    """One worker's view of the keys. All but the housekeeping runs on the event loop.

    ``slot`` names the worker; what an earlier process in this slot left running is UNKNOWN from the first
    use on. Every method raises IdempotencyUnavailable when the file can't be used: a call is
    not executed unprotected.
    """

    def __init__(
        self, path: Path, slot: str, secret: bytes, *, durable: bool = False, keep_seconds: int = KEEP_SECONDS
    ) -> None:
        self._path, self._slot, self._durable, self._keep = path, slot, durable, keep_seconds
        self.replayed = 0
        """Answers this worker has given again."""
        self._cipher = AESGCM(secret)
        self._boot = os.urandom(8)
        self._connection: sqlite3.Connection | None = None
        self._failed_at = -math.inf
        self._complained = False
        self._writes = 0
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None

    def recover(self) -> None:
        """Declare what a dead predecessor left, if anybody has used a key yet; failing is for the first use to say."""
        if self._path.exists():
            with contextlib.suppress(IdempotencyUnavailable):
                self._use(_READ, (b"",))

    def claim(self, scope: bytes, fingerprint: bytes, call: bytes, now: int, until: int) -> Attempt | None:
        """Claim a key, or return the attempt that has it. ``now`` and ``until`` are seconds since the epoch.

        After ``until`` the call can't be running any more, whatever became of its worker.
        """
        values = (scope, fingerprint, call, self._slot, self._boot, now, until)
        while self._use(_CLAIM, values).rowcount != 1:
            row = self._use(_READ, (scope,)).fetchone()
            if row is None:
                continue  # it was released in between
            its_fingerprint, its_call, began, its_until, its_worker_lives, state, answer = row
            if began <= now - self._keep:
                self._use(_RELEASE, (scope, its_call))
                continue
            if state == State.RUNNING and (its_until < now or not its_worker_lives):
                state = State.UNKNOWN
            return Attempt(its_fingerprint, its_call, State(state), self._open(scope, answer))
        return None

    def take_over(self, scope: bytes, before: bytes, call: bytes, now: int, until: int) -> bool:
        """Claim a key whose attempt is UNKNOWN, for a call that may be executed twice; False when another was first."""
        values = (call, self._slot, self._boot, now, until, scope, before)
        return self._use(_TAKE_OVER, values).rowcount == 1

    def finish(self, scope: bytes, call: bytes, answer: Kept, sold: bool) -> None:
        """Keep an attempt's answer; ``sold`` tells whether its call is billed."""
        self._use(_FINISH, (State.ANSWERED.value, sold, self._seal(scope, answer), scope, call))

    def note(self, scope: bytes, call: bytes, plan: Kept) -> None:
        """Keep what an attempt that stops is to be carried on with; `finish` puts its answer in the place of that."""
        self._use(_NOTE, (self._seal(scope, plan), scope, call))

    def settle(self, scope: bytes, call: bytes, state: State) -> None:
        """Say of an attempt that it is over without an answer that could be given again."""
        self._use(_SETTLE, (state.value, scope, call))

    def release(self, scope: bytes, call: bytes) -> None:
        """Free a key whose call was not executed."""
        self._use(_RELEASE, (scope, call))

    def sell(self, scope: bytes) -> bool:
        """Bill an answer to the call that gets it now; False when an earlier call was billed for it."""
        return self._use(_SELL, (scope,)).rowcount == 1

    def take_back(self, scope: bytes) -> None:
        """The call that was to be billed never got the answer: the next one that does will be."""
        self._use(_TAKE_BACK, (scope,))

    def close(self) -> None:
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()
        self._drop()

    def _seal(self, scope: bytes, kept: Kept) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, _encode(kept), scope)

    def _open(self, scope: bytes, sealed: bytes | None) -> Kept | None:
        if sealed is None:
            return None
        try:
            return _decoder.decode(self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], scope))
        except (InvalidTag, msgspec.MsgspecError) as error:
            raise IdempotencyUnavailable(
                "The kept answer can't be read, and the call is not executed again."
            ) from error

    # --- the file -------------------------------------------------------------------------------

    def _use(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            connection = self._connection or self._connect()
            cursor = connection.execute(statement, values)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            raise IdempotencyUnavailable from error
        self._writes += 1
        if self._complained:
            self._complained = False
            log.warning("calls with an Idempotency-Key are taken again")
        return cursor

    def _connect(self) -> sqlite3.Connection:
        if time.monotonic() - self._failed_at < REOPEN_SECONDS:
            raise sqlite3.OperationalError("it could not be opened a moment ago")
        connection = self._connected()
        try:
            connection.executescript(_SCHEMA)
            [version] = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"it is of version {version}, and this program knows {SCHEMA_VERSION}")
            if version < SCHEMA_VERSION:
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute(_BOOT, (self._slot, self._boot))
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep_house, name="idempotency", daemon=True)
            self._keeper.start()
        return connection

    def _connected(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
            connection.execute(
                "PRAGMA wal_autocheckpoint = 0"
            )  # a checkpoint waits for the disk: not on the event loop
            connection.execute(f"PRAGMA journal_size_limit = {MAX_LOG_BYTES}")
            self._path.chmod(0o600)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _failed(self, error: sqlite3.Error | OSError) -> None:
        if not self._complained:
            self._complained = True
            log.error("calls with an Idempotency-Key are refused, because %s can't be used: %s", self._path, error)
        if _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL):  # after those the connection is still good
            if self._connection is not None or time.monotonic() - self._failed_at >= REOPEN_SECONDS:
                self._failed_at = time.monotonic()
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    # --- the background -------------------------------------------------------------------------

    def _keep_house(self) -> None:
        connection: sqlite3.Connection | None = None
        synced, purged = -1, 0.0
        while not self._closing.wait(SYNC_SECONDS):
            try:
                if connection is None:
                    connection = self._connected()
                if self._writes != synced:
                    synced = self._writes
                    self._bring_to_disk(connection)
                if time.monotonic() - purged >= PURGE_SECONDS and not self._purge(connection):
                    purged = time.monotonic()
            except (sqlite3.Error, OSError) as error:
                if _code(error) != sqlite3.SQLITE_BUSY:
                    log.error("the idempotency keys in %s can't be kept in order: %s", self._path, error)
        if connection is not None:
            connection.close()

    def _bring_to_disk(self, connection: sqlite3.Connection) -> None:
        """Move the log into the database. That keeps nobody waiting, unless the log has grown so long that it
        must be ended: then calls wait while what came during two further passes is moved."""
        for _ in range(3):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            if self._log_bytes() <= MAX_LOG_BYTES:
                return
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _log_bytes(self) -> int:
        try:
            return self._path.with_name(f"{self._path.name}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def _purge(self, connection: sqlite3.Connection) -> bool:
        """Forget some of the oldest keys; tell whether there may be more. Few at a time: calls wait meanwhile."""
        oldest = int(time.time()) - self._keep
        return connection.execute(_PURGE, (PURGE_ROWS, oldest)).rowcount == PURGE_ROWS


def _code(error: Exception) -> int:
    """Return SQLite's primary result code; 0 for an error that isn't SQLite's."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
