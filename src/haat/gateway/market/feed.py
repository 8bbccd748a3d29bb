"""Keeps the directory fresh from PostgreSQL: loaded once, then entity by entity as events say so.

NOTIFY wakes the feed, a poll each second covers a lost one. An event says only that an entity has
changed; its present state is read, so that applying an event twice, or late, changes nothing. When
PostgreSQL is gone the gateway serves on from what it has, and the feed goes on from its position
when PostgreSQL is back. So does a gateway that starts from a snapshot on disk: with a million keys,
reading what has changed is a matter of moments and reading everything is not.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, IsolationLevel
from psycopg.rows import DictRow, dict_row

from haat.gateway.market import store
from haat.gateway.market.snapshot import Directory, Part, Position
from haat.gateway.market.snapshot_file import SnapshotFile
from haat.gateway.market.store import Change
from haat.gateway.rollout.division import Tripped
from haat.gateway.upstreams.endpoints import Notice
from haat.infra import events
from haat.infra.events import CHANNEL
from haat.infra.postgres import Connection
from haat.kernel.errors import ConcurrentChange

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
UNSETTLED_SECONDS = 0.05
SYNC_SECONDS = 0.5
READ_AT_ONCE = 1000
MOST_BEHIND = 20_000
"""Events that are caught up with one by one; after more, everything is read anew."""
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0


class Feed:
    """Run as one task for the life of the gateway. ``file`` is where the directory is kept, if it is this worker's."""

    def __init__(
        self,
        dsn: str,
        directory: Directory,
        file: SnapshotFile | None,
        connected: Callable[[bool], None],
        notices: deque[Notice | Tripped] | None = None,
        worker: str = "gateway",
    ) -> None:
        self.synced = asyncio.Event()
        """Set once the directory is as PostgreSQL is."""
        self.tried = asyncio.Event()
        """Set once that has succeeded or failed."""
        self._dsn, self._directory, self._file = dsn, directory, file
        self._connected = connected
        self._notices = notices if notices is not None else deque()
        self._worker = worker
        self._seen: dict[int, Change] = {}
        """Events applied beyond the position, because older transactions were still running."""
        self._synced_at = 0.0

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
                    self.synced.set()
                    self.tried.set()
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
        directory = self._directory
        if (
            directory.loaded
            and directory.shape == await store.shape(connection)
            and await store.continues(connection, directory.position, MOST_BEHIND)
        ):
            await self._catch_up(connection)
            return
        began = time.perf_counter()
        fresh = Directory()
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        async with connection.transaction():
            await store.load(connection, fresh)
        await connection.set_isolation_level(None)
        self._seen.clear()
        directory.take_over(fresh)
        log.info(
            "market loaded: %d credentials, %d subscriptions, %d services in %.2f s",
            len(directory.credentials),
            len(directory.subscriptions),
            len(directory.services),
            time.perf_counter() - began,
        )
        if self._file is not None:
            self._file.forget()

    async def _follow(self, connection: AsyncConnection[DictRow]) -> None:
        while True:
            await self._catch_up(connection)
            await self._report(connection)
            await self._keep()
            # While older transactions run, the position can't move and nobody notifies when it could.
            patience = UNSETTLED_SECONDS if self._seen else POLL_SECONDS
            async for _ in connection.notifies(timeout=patience, stop_after=1):
                pass

    async def _catch_up(self, connection: Connection) -> None:
        """Apply what has happened, as far as it has committed."""
        more = True
        while more:
            settled, changes = await store.changes_after(connection, self._directory.position, self._seen, READ_AT_ONCE)
            for stream in dict.fromkeys(change.stream for change in changes):
                await self._refresh(connection, stream)
            self._seen.update((change.seq, change) for change in changes)
            more = len(changes) == READ_AT_ONCE
            last = _place(changes[-1]) if more else None
            self._move(settled, last)

    def _move(self, settled: int, last: tuple[int, int] | None) -> None:
        """Move the position over what is settled; not beyond ``last``, where unread events may follow."""
        behind = [
            change
            for change in self._seen.values()
            if change.xid < settled and (last is None or _place(change) <= last)
        ]
        if not behind:
            return
        for change in behind:
            del self._seen[change.seq]
        newest = max(behind, key=_place)
        self._change(Part(position=Position(newest.xid, newest.seq, newest.event)))

    async def _refresh(self, connection: Connection, stream: str) -> None:
        """Read one entity anew, and what depends on it."""
        kind, _, identifier = stream.partition("/")
        if kind not in _KINDS:
            return
        entity, gone = UUID(identifier), Part(gone=[(kind, identifier)])
        match kind:
            case "credential":
                credential = await store.credential(connection, entity)
                self._change(Part(credentials=[credential]) if credential else gone)
            case "subscription":
                subscription = await store.subscription(connection, entity)
                self._change(Part(subscriptions=[subscription]) if subscription else gone)
            case "service":
                service = await store.service(connection, entity)
                self._change(Part(services=[service]) if service else gone)
            case "application":
                application = await store.application(connection, entity)
                self._change(Part(applications=[application]) if application else gone)
            case "partner":
                self._change(Part(services=await store.services_of(connection, entity)))
            case _:
                by = {"org": None, "plan": entity} if kind == "plan" else {"org": entity, "plan": None}
                async with aclosing(store.subscriptions_of(connection, **by)) as parts:
                    async for subscriptions in parts:
                        self._change(Part(subscriptions=subscriptions))

    def _change(self, part: Part) -> None:
        self._directory.apply(part)
        if self._file is not None:
            try:
                self._file.append(part)
            except OSError as error:
                log.error("a change can't be kept on disk, the snapshot will be written anew: %s", error)

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
                        stream=notice.stream,
                        type=notice.kind,
                        data=notice.data,
                        actor=self._worker,
                        org=UUID(notice.provider_org),
                        at=datetime.fromtimestamp(notice.at_us / 1_000_000, UTC),
                    )
            except (ConcurrentChange, psycopg.OperationalError) as error:
                self._notices.appendleft(notice)
                if isinstance(error, ConcurrentChange):
                    return  # another gateway wrote of the same service at the same moment
                raise

    async def _keep(self) -> None:
        """Bring what has changed to the disk, at most every `SYNC_SECONDS`."""
        if self._file is None or time.monotonic() - self._synced_at < SYNC_SECONDS:
            return
        self._synced_at = time.monotonic()
        try:
            if self._file.outgrown:
                await self._file.rewrite(self._directory)
            else:
                await self._file.sync()
        except OSError as error:
            log.error("the snapshot can't be kept on disk: %s", error)


def _place(change: Change) -> tuple[int, int]:
    return change.xid, change.seq


_KINDS = frozenset(
    {"credential", "subscription", "service", "application", "partner", "organisation", "plan", "wallet"}
)
