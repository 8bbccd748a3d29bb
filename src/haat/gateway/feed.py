"""Keeps the directory fresh from PostgreSQL: loaded once, then entity by entity as events say so.

NOTIFY wakes the feed, a poll each second covers a lost one. An event says only that an entity has
changed; its present state is read, so that applying an event twice, or late, changes nothing. When
PostgreSQL is gone the gateway serves on from what it has, and the feed goes on from its position
when PostgreSQL is back.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, IsolationLevel
from psycopg.rows import DictRow, dict_row

from haat.gateway import snapshot as snapshots
from haat.gateway import store
from haat.gateway.endpoints import Notice
from haat.gateway.snapshot import Directory, Position
from haat.infra import events
from haat.infra.events import CHANNEL
from haat.infra.keyring import Keyring
from haat.infra.postgres import Connection
from haat.kernel.errors import ConcurrentChange

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
UNSETTLED_SECONDS = 0.05
SAVE_SECONDS = 0.5
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0


class Feed:
    """Run as one task for the life of the gateway."""

    def __init__(
        self,
        dsn: str,
        directory: Directory,
        keyring: Keyring,
        path: Path,
        connected: Callable[[bool], None],
        notices: deque[Notice] | None = None,
        worker: str = "gateway",
    ) -> None:
        self.synced = asyncio.Event()
        """Set once the directory has been loaded from PostgreSQL."""
        self.tried = asyncio.Event()
        """Set once that has succeeded or failed."""
        self._dsn, self._directory, self._keyring, self._path = dsn, directory, keyring, path
        self._connected = connected
        self._notices = notices if notices is not None else deque()
        self._worker = worker
        self._seen: set[int] = set()
        """Events applied beyond the position, because older transactions were still running."""
        self._dirty = False
        self._saved_at = 0.0

    async def run(self) -> None:
        """Follow PostgreSQL until cancelled; reconnect with growing delays."""
        delay, complained = _FIRST_DELAY, False
        while True:
            try:
                async with await AsyncConnection.connect(
                    self._dsn,
                    autocommit=True,
                    row_factory=dict_row,
                    application_name="haat-gateway-feed",
                    connect_timeout=5,
                ) as connection:
                    await self._begin(connection)
                    delay, complained = _FIRST_DELAY, False
                    self._connected(True)
                    await self._follow(connection)
            except (psycopg.Error, OSError) as error:
                self._connected(False)
                self.tried.set()
                if not complained:
                    log.warning("PostgreSQL is out of reach, serving from the last snapshot: %s", str(error).strip())
                    complained = True
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311  # jitter, not a secret
            delay = min(_LONGEST_DELAY, delay * 2)

    async def _begin(self, connection: AsyncConnection[DictRow]) -> None:
        await connection.execute(f"LISTEN {CHANNEL}")
        if self.synced.is_set():
            return
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        began = time.perf_counter()
        async with connection.transaction():
            loaded = await store.load_all(connection)
        await connection.set_isolation_level(None)
        self._directory.replace(loaded)
        self._dirty = True
        log.info(
            "snapshot loaded: %d credentials, %d subscriptions, %d services in %.2f s",
            len(loaded.credentials),
            len(loaded.subscriptions),
            len(loaded.services),
            time.perf_counter() - began,
        )
        self.synced.set()
        self.tried.set()

    async def _follow(self, connection: AsyncConnection[DictRow]) -> None:
        while True:
            await self._catch_up(connection)
            await self._report(connection)
            await self._save()
            # While older transactions run, the position can't move and nobody notifies when it could.
            patience = UNSETTLED_SECONDS if self._seen else POLL_SECONDS
            async for _ in connection.notifies(timeout=patience, stop_after=1):
                pass

    async def _catch_up(self, connection: Connection) -> None:
        changes = await store.changes_after(connection, self._directory.position)
        for stream in dict.fromkeys(change.stream for change in changes if change.seq not in self._seen):
            await self._refresh(connection, stream)
            self._dirty = True
        for change in changes:
            if change.settled:
                self._directory.position = Position(change.xid, change.seq)
                self._seen.discard(change.seq)
            else:
                self._seen.add(change.seq)

    async def _refresh(self, connection: Connection, stream: str) -> None:
        """Read one entity anew, and what depends on it."""
        directory = self._directory
        kind, _, identifier = stream.partition("/")
        if kind not in _KINDS:
            return
        entity = UUID(identifier)
        match kind:
            case "credential":
                directory.put_credential(identifier, await store.credential(connection, entity))
            case "subscription":
                directory.put_subscription(identifier, await store.subscription(connection, entity))
            case "service":
                directory.put_service(identifier, await store.service(connection, entity))
            case "application":
                directory.put_application(identifier, await store.application(connection, entity))
            case "partner":
                for service in await store.services_of(connection, entity):
                    directory.put_service(service.id, service)
            case "organisation" | "plan":
                by = {"org": entity, "plan": None} if kind == "organisation" else {"org": None, "plan": entity}
                for subscription in await store.subscriptions_of(connection, **by):
                    directory.put_subscription(subscription.id, subscription)

    async def _report(self, connection: Connection) -> None:
        """Write into the event log what has happened to endpoints.

        Their stream is not the service's own: a breaker changes nothing that a gateway would read anew.
        """
        while self._notices:
            notice = self._notices.popleft()
            try:
                async with connection.transaction():
                    await events.append(
                        connection,
                        stream=f"endpoint/{notice.service}",
                        type=f"endpoint.{notice.type}",
                        data={"version": notice.version, "endpoint": notice.endpoint},
                        actor=self._worker,
                        org=UUID(notice.provider_org),
                        at=datetime.fromtimestamp(notice.at_us / 1_000_000, UTC),
                    )
            except (ConcurrentChange, psycopg.OperationalError) as error:
                self._notices.appendleft(notice)
                if isinstance(error, ConcurrentChange):
                    return  # another gateway wrote of the same service at the same moment
                raise

    async def _save(self) -> None:
        """Keep the directory on disk, at most every `SAVE_SECONDS`."""
        if not self._dirty or time.monotonic() - self._saved_at < SAVE_SECONDS:
            return
        content = snapshots.encode(self._directory.snapshot(), self._keyring)
        self._dirty, self._saved_at = False, time.monotonic()
        try:
            await asyncio.to_thread(snapshots.save, self._path, content)
        except OSError as error:
            self._dirty = True
            log.error("the snapshot can't be kept on disk: %s", error)


_KINDS = frozenset({"credential", "subscription", "service", "application", "partner", "organisation", "plan"})
