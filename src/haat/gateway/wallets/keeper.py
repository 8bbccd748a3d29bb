"""The keeper fills the purses: it is the one process of a machine that asks the control plane for leases.

Whoever holds the lock file ``wallets.keeper`` is it; when it dies the kernel gives the lock to the next. Purses that
calls have emptied are filled at once, others once a second or as their time requires, and what nobody draws from is
given back. The order is what makes it safe: a purse is cut before the control plane hears of it, and filled after the
control plane has committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from haat.gateway.limits.counts import Counts
from haat.gateway.wallets.purse import BEAT, DENIAL_US, INSTANCE, KNOCKS, OUT_OF_REACH, Purse, Standing, steady
from haat.infra.postgres import Connection
from haat.usage import journal
from haat.wallet import leases
from haat.wallet.leases import Answer, Ask

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.02
ROUND_US: Final = 1_000_000
IDLE_ROUNDS: Final = 5
"""After so many rounds without a call a purse is given back."""
MARGIN_US: Final = 1_000_000
"""So much earlier a lease ends here than in the control plane's books."""
CALLS_AHEAD: Final = 4
"""A purse holds at least so many of its largest calls."""
AT_ONCE: Final = 100
"""Purses asked for in one transaction."""
_RETRY_SECONDS: Final = 0.5


class Keeper:
    """Runs as one task in each gateway process. ``home`` is the gateway's directory, which all of them share."""

    def __init__(self, dsn: str, gateway: Gateway, home: Path) -> None:
        self._dsn, self._gateway, self._home = dsn, gateway, home
        self._journals = gateway.settings.data_dir / "journal"
        self._lock = -1
        self._knocks = 0
        self._round = 0
        self._known: dict[str, _Known] = {}

    async def run(self) -> None:
        """Keep the purses filled until cancelled; without PostgreSQL what is in them is all there is."""
        complained = False
        while True:
            try:
                if not self._is_keeper():
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                async with await self._connect() as connection:
                    await self._begin(connection)
                    complained = False
                    while True:
                        await self._look(connection)
                        await asyncio.sleep(LOOK_SECONDS)
            except (psycopg.Error, OSError) as error:
                self._gateway.limits.counts.signals[BEAT] = OUT_OF_REACH
                if not complained:
                    log.warning("wallets can't be asked, calls go on with what is leased: %s", str(error).strip())
                    complained = True
            await asyncio.sleep(_RETRY_SECONDS)

    async def leave(self) -> None:
        """Give back what no call has drawn; to be called once none is in flight. The last process does it for all."""
        try:
            if self._is_keeper() and self._gateway.purses.all():
                async with asyncio.timeout(5), await self._connect() as connection:
                    await self.give_back(connection)
        except (psycopg.Error, OSError, TimeoutError) as error:
            log.warning("leases come back only when they are over: %s", str(error).strip())
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    async def give_back(self, connection: Connection) -> None:
        """Keep nothing beyond what is drawn."""
        asks = []
        for purse in self._gateway.purses.all():
            purse.give_up(0)
            asks.append(_ask(purse, purse.standing()))
        await self._sync(connection, asks)

    async def _connect(self) -> AsyncConnection[dict[str, object]]:
        return await AsyncConnection.connect(
            self._dsn, autocommit=True, row_factory=dict_row, application_name="haat-gateway-wallets", connect_timeout=5
        )

    def _is_keeper(self) -> bool:
        if self._lock < 0:
            descriptor = os.open(self._home / "wallets.keeper", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._lock = descriptor
            self._gateway.limits.counts.signals[BEAT] = 0
        return True

    # --- who this is ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What the control plane calls the gateways of this machine: as long as they remember what they have drawn."""
        return f"{self._instance():015x}"

    def _instance(self) -> int:
        counts = self._gateway.limits.counts
        counts.acquire()
        try:
            if not counts.signals[INSTANCE]:
                counts.signals[INSTANCE] = secrets.randbits(59) | 1
            return counts.signals[INSTANCE]
        finally:
            counts.release()

    async def _begin(self, connection: Connection) -> None:
        """Say that gateways are gone whose memory did not survive: what they had comes back once it is counted."""
        path, name = self._home / "wallets.gateway", self.name
        with contextlib.suppress(FileNotFoundError):
            before = path.read_text().strip()
            if before and before != name:
                ended = await leases.end(connection, before, self.positions())
                log.info("%d leases of %s, which was here before, are being counted", ended, before)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.write_text(f"{name}\n")
        fresh.replace(path)

    def positions(self) -> dict[str, tuple[int, int]]:
        """Return how far the journals of this machine go: of each worker, the newest segment and its size."""
        found = {}
        for worker in journal.workers(self._journals):
            numbers = journal.segments(self._journals, worker)
            if numbers:
                size = journal.segment_path(self._journals, worker, numbers[-1]).stat().st_size
                found[worker] = (numbers[-1], size)
        return found

    # --- rounds --------------------------------------------------------------------------------

    async def _look(self, connection: Connection) -> None:
        counts, now = self._gateway.limits.counts, steady()
        knocks = counts.signals[KNOCKS]
        due = now - self._round >= ROUND_US
        if knocks == self._knocks and not due:
            return
        self._knocks = knocks
        await self.serve(connection, due)

    async def serve(self, connection: Connection, due: bool = True) -> None:
        """Look at all purses once: fill those that lack; when a round is ``due``, renew and give back, too."""
        now = steady()
        asks = []
        for purse in self._gateway.purses.all():
            ask = self._consider(purse, now, due)
            if ask is not None:
                asks.append(ask)
        if due:
            self._round = now
            if not asks:
                await connection.execute("SELECT")  # it is there
        for at in range(0, len(asks), AT_ONCE):
            await self._sync(connection, asks[at : at + AT_ONCE])
        _beat(self._gateway.limits.counts)
        if self._gateway.purses.waiting:
            self._gateway.purses.look()

    def _consider(self, purse: Purse, now: int, due: bool) -> Ask | None:
        """Return what to ask for a purse, None for nothing."""
        standing = purse.standing()
        known = self._known.get(purse.key)
        if known is None:
            known = self._known[purse.key] = _Known(standing)
        if due:
            known.note(standing)
        target = max(CALLS_AHEAD * standing.most, 2 * known.pace) if known.idle < IDLE_ROUNDS else 0
        room = standing.limit - standing.drawn
        lacks = standing.want and now - purse.denial()[0] > DENIAL_US
        if lacks or (room < target // 2 and (due or now >= known.again)):
            known.target, known.again = target, now + ROUND_US // 4
            want = max(target, standing.want) - room
            return _ask(purse, standing, need=max(0, standing.want - room) if lacks else 0, want=want)
        if not due:
            return None
        if room > 2 * target:
            purse.give_up(target)
            known.target = target
            return _ask(purse, purse.standing())
        lease = int(self._gateway.settings.wallet_lease_seconds * 1_000_000)
        if (room and standing.ends - now < lease * 2 // 3) or standing.used != known.told:
            return _ask(purse, standing)
        return None

    async def _sync(self, connection: Connection, asks: list[Ask]) -> None:
        if not asks:
            return
        gateway, began = self._gateway, steady()
        seconds = gateway.settings.wallet_lease_seconds
        positions = self.positions()  # after the numbers were read: whatever they count is before these places
        async with connection.transaction():
            answers = await leases.sync(
                connection, self.name, asks, positions, seconds=seconds, tax=gateway.settings.gst_rate
            )
        ends = began + int(seconds * 1_000_000) - MARGIN_US
        for ask, answer in zip(asks, answers, strict=True):
            self._fill(ask, answer, ends)

    def _fill(self, ask: Ask, answer: Answer, ends: int) -> None:
        purse = self._gateway.purses.of(ask.fund, str(ask.org))
        known = self._known.setdefault(purse.key, _Known(purse.standing()))
        known.told = ask.used
        purse.fill(answer.limit, ends, known.target // 2, answer.denied, answer.left)


class _Known:
    """What the keeper remembers of a purse."""

    def __init__(self, standing: Standing) -> None:
        self.told = -1
        """How much was used when the control plane last heard of it."""
        self.target = 0
        self.again = 0
        """Until then it is not filled up before it lacks."""
        self.pace = 0
        """Drawn in the last round."""
        self.idle = 0
        """Rounds since anything was drawn."""
        self._drawn = standing.drawn

    def note(self, standing: Standing) -> None:
        self.pace = max(standing.drawn - self._drawn, self.pace // 2)
        busy = standing.drawn != self._drawn or standing.drawn != standing.used or standing.want
        self.idle = 0 if busy else self.idle + 1
        self._drawn = standing.drawn


def _ask(purse: Purse, standing: Standing, *, need: int = 0, want: int = 0) -> Ask:
    org = UUID(purse.org)
    return Ask(org, purse.fund, standing.limit, standing.drawn, standing.used, need, max(0, want))


def _beat(counts: Counts) -> None:
    counts.signals[BEAT] = steady()
