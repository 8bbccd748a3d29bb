"""The flags as a process holds them: read once, and again when the event log says that something has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import psycopg
from psycopg import AsyncConnection

from haat.flags.model import Flag
from haat.flags.service import Flags
from haat.infra.events import CHANNEL
from haat.infra.postgres import Database
from haat.kernel.errors import HaatError

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How long a change may take whose notification is lost."""
REST_SECONDS = 0.1
"""Between two readings, however much happens on the platform."""
_LONGEST_DELAY = 5.0


class FollowedFlags:
    """All flags, as they are now.

    While `follow` runs, asking costs nothing; without it each asking reads the table. When PostgreSQL is out of
    reach the last state holds.
    """

    def __init__(self, db: Database, flags: Flags) -> None:
        self._db, self._flags = db, flags
        self._held: Mapping[str, Flag] | None = None
        self.on_change: Callable[[list[str]], None] = lambda _: None
        """Is told the keys that have changed."""

    @property
    def held(self) -> Mapping[str, Flag] | None:
        """What is known without asking; None when nothing follows."""
        return self._held

    async def present(self) -> Mapping[str, Flag]:
        return self._held if self._held is not None else await self._flags.present()

    async def follow(self) -> None:
        """Follow the event log until cancelled."""
        delay = REST_SECONDS
        try:
            while True:
                try:
                    async with await AsyncConnection.connect(
                        self._db.dsn, autocommit=True, application_name="haat-flags", connect_timeout=5
                    ) as connection:
                        await connection.execute(f"LISTEN {CHANNEL}")
                        while True:
                            await self._read()
                            delay = REST_SECONDS
                            await asyncio.sleep(REST_SECONDS)
                            async for _ in connection.notifies(timeout=POLL_SECONDS, stop_after=1):
                                pass
                except (psycopg.Error, OSError, HaatError) as error:
                    log.warning("flags stay as they are: %s", str(error).strip())
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LONGEST_DELAY)
        finally:
            self._held = None

    async def _read(self) -> None:
        before, now = self._held, await self._flags.present()
        self._held = now
        if before is None or before == now:
            return
        changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        self.on_change(changed)
