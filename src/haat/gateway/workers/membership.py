"""One gateway process among those of its machine that share their limits: how it joins and leaves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import psycopg

from haat.gateway.gateway import Gateway
from haat.gateway.limits import recovery
from haat.gateway.limits.counts import Counts
from haat.gateway.limits.registry import Limits
from haat.gateway.limits.shared import Attachment, SharedCounts, UnusableCounts
from haat.gateway.workers.place import Place
from haat.settings import Settings
from haat.usage.journal import JournalWriter

log = logging.getLogger(__name__)

KEEP_SECONDS = 5.0
_LOOK_SECONDS = 0.05
_AT_ONCE = 200


class Membership:
    """Gives the gateway its limits, with everything in them that was used before it started."""

    def __init__(self, settings: Settings, place: Place, gateway: Gateway, journal: JournalWriter) -> None:
        self._settings, self._place, self._gateway, self._journal = settings, place, gateway, journal
        home = settings.data_dir / "gateway"
        self._kept_path = home / "limits.bin"
        self._attachment = Attachment(home, place.slot, place.workers)
        self._counts: SharedCounts | None = None

    async def join(self, dsn: str, store_is_there: bool, stop: asyncio.Event) -> bool:
        """Recover the limits, one process at a time; return False when told to stop before.

        Raise UnusableCounts when this process can't count together with those that run.
        """
        gateway, clock = self._gateway, self._gateway.clock
        ends = time.monotonic() + self._settings.shutdown_seconds + 5
        try:
            while (opened := self._open(ends)) is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _LOOK_SECONDS)
                if stop.is_set():
                    return False
            counts, known, dead = opened
        except OSError as error:
            if self._place.workers > 1:
                raise UnusableCounts(f"the limits of several processes need a file: {error}") from error
            log.error("limits are counted in memory only, because their file can't be made: %s", error)
            await self._rebuild(Counts(), dsn, store_is_there)
            return True
        clock.adopt(counts.clock)
        if known:
            gateway.limits = Limits(counts)
            for slot in dead:
                ended = recovery.take_over(counts, slot, self._settings.data_dir / "journal")
                if ended:
                    log.info("gateway-%d had %d calls in flight when it died", slot, ended)
        else:
            await self._rebuild(counts, dsn, store_is_there)
        counts.begin_life(self._journal.position.segment)
        counts.note(self._journal.position)
        self._attachment.ready(counts)
        self._counts = counts
        return True

    def _open(self, ends: float) -> tuple[SharedCounts, bool, list[int]] | None:
        """Open the counts, or return None while another one starts or a predecessor of another kind still drains."""
        if not self._attachment.begin():
            return None
        clock = self._gateway.clock
        try:
            return self._attachment.open(clock.wall, clock.now_us())
        except UnusableCounts:
            if time.monotonic() > ends:
                raise
            self._attachment.step_back()
            return None

    async def _rebuild(self, counts: Counts, dsn: str, store_is_there: bool) -> None:
        gateway, zone, journal_dir = self._gateway, self._settings.zone, self._settings.data_dir / "journal"
        now = gateway.clock.now_us()
        gateway.limits = Limits(counts)
        if store_is_there:
            try:
                await recovery.from_store(dsn, journal_dir, gateway.directory, gateway.limits, now, zone)
                return
            except (psycopg.Error, OSError) as error:
                log.warning("the usage store can't be asked: %s", str(error).strip())
        recovery.from_disk(self._kept_path, journal_dir, gateway.directory, gateway.limits, now, zone)

    async def keep(self) -> None:
        """Bring the counters to disk while they change, against a restart of the machine without PostgreSQL."""
        known = -1
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            if self._gateway.meter.recorded != known or self._place.workers > 1:
                known = self._gateway.meter.recorded
                await self._keep()

    async def _keep(self) -> None:
        counts, limits = self._counts, self._gateway.limits
        if counts is None:
            return
        counts.note(self._journal.position)
        if self._place.slot != 0:
            return
        positions = {f"gateway-{slot}": place for slot, place in counts.noted().items()}
        now, found = self._gateway.clock.now_us(), []
        counts.acquire()
        counts.look()
        counts.release()
        for number, key in enumerate(counts.keys()):  # not a dictionary
            one = recovery.kept(limits, key, now)
            if one is not None:
                found.append(one)
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
        try:
            await asyncio.to_thread(recovery.keep, self._kept_path, found, positions, now)
        except OSError as error:
            log.error("the counters can't be kept on disk: %s", error)

    async def leave(self) -> None:
        """Say for the last time what was used; to be called once no call is in flight."""
        await self._keep()
        self._attachment.close()
