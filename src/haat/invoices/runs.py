"""The run that closes a month: organisations in batches, each in a transaction of its own, worked off by anybody.

A batch is claimed by the lock on its row and done by the transaction that issues its invoices: whoever dies on the way
leaves nothing, and the next one takes it up. Workers do it as durable jobs; `haat billing run --wait` lends a hand.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from haat.infra import events
from haat.infra.jobs import Jobs, NewJob
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.invoices import run_store
from haat.invoices.run_store import Row
from haat.invoices.service import BATCH, Invoices, reasons
from haat.invoices.terms import GRACE
from haat.kernel.clock import Clock
from haat.kernel.errors import Conflict, NotFound
from haat.kernel.permissions import PLATFORM, Actor, Permission
from haat.language.messages import _
from haat.usage import intake
from haat.usage.model import month_named

log = logging.getLogger(__name__)

WORK = "billing.work"
"""The durable task that works off batches of a month until none waits."""

HANDS = 4
"""Jobs that work on a run at the same time; more would only wait for one another's serials."""


@dataclass(frozen=True, slots=True)
class Run:
    """How far the closing of a month is. ``state``: ``billing``, then ``settling``, then ``done``."""

    period: str
    state: str
    passes: int
    until: int
    organisations: int
    batches: int
    done: int
    issued: int
    unchanged: int
    failed: Sequence[Mapping[str, str]]
    started_at: datetime
    started_by: str
    ended_at: datetime | None

    @property
    def progress(self) -> float:
        """The part of the batches that is done, 0 to 1."""
        return self.done / self.batches if self.batches else 1.0


class BillingRuns:
    """Closes months: bills everybody, then has providers settled."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        jobs: Jobs,
        invoices: Invoices,
        *,
        zone: str,
        settle: Callable[[Actor, str], Awaitable[Any]] | None = None,
        batch: int = BATCH,
    ) -> None:
        self._db, self._clock, self._jobs, self._invoices = db, clock, jobs, invoices
        self._zone, self._settle, self._batch = zone, settle, batch

    async def start(self, actor: Actor, period: str, *, again: bool = False) -> Run:
        """Begin to close a month and return how far it is; one that is on, or done, is returned as it stands.

        ``again`` passes once more over a month that is done, for those who could not be billed: nobody is billed
        twice. Raise Conflict for a month that still runs.
        """
        actor.require(Permission.INVOICES_RUN)
        self._invoices.terms.require_billing()
        month, now = month_named(period, self._zone), self._clock.now()
        if now < month.end + GRACE:
            raise Conflict(
                _("%(period)s is not over (an hour of grace included): it can be closed then.", period=period)
            )
        orgs = await self._invoices.organisations_to_bill(period)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            present = await run_store.run(connection, period)
            if present is None or (again and present["state"] == "done"):
                until = await intake.watermark(connection)
                number = await run_store.begin_run(connection, period, until, len(orgs), actor.label, now)
                if number is not None:
                    await self._begin(connection, actor, period, number, orgs, now)
            row = await run_store.run(connection, period)
        assert row is not None
        return _run(row)

    async def status(self, actor: Actor, period: str) -> Run:
        """Return how far the closing of a month is; raise NotFound when it was never begun."""
        actor.require(Permission.INVOICES_RUN)
        month_named(period, "UTC")
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = await run_store.run(connection, period)
        if row is None:
            raise NotFound(_("Nobody has begun to close %(period)s.", period=period))
        return _run(row)

    async def recent(self, actor: Actor, limit: int = 24) -> list[Run]:
        """Return the newest months that were closed, or are being."""
        actor.require(Permission.INVOICES_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return [_run(row) for row in await run_store.runs(connection, limit)]

    async def work(self, period: str) -> None:
        """Work off batches that nobody works on, and finish the run if they were the last."""
        while await self._one(period):
            pass
        await self.finish(period)

    async def finish(self, period: str) -> None:
        """Settle providers when every batch is done, and end the run; whoever else does so too changes nothing."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await run_store.end_billing(connection, period)
            row = await run_store.run(connection, period)
        if row is None or row["state"] != "settling":
            return
        if self._settle is not None:
            await self._settle(PLATFORM, period)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            if await run_store.end_run(connection, period, self._clock.now()):
                row = await run_store.run(connection, period)
                assert row is not None
                await self._tell(connection, row, "billing_run.completed", PLATFORM.label)

    async def _one(self, period: str) -> bool:
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            batch = await run_store.claim_batch(connection, period)
            if batch is None:
                return False
            now = self._clock.now()
            done = await self._invoices.issuer().issue(
                connection, PLATFORM, period, batch["organisations"], now, until=batch["until"], closing=True
            )
            failed = Jsonb([{"org_id": str(org), "reason": reason} for org, reason in reasons(period, done)])
            unchanged = len(done.standing) + len(done.registering)
            await run_store.end_batch(connection, period, batch, len(done.issued), unchanged, failed, now)
        return True

    async def _begin(
        self, connection: Connection, actor: Actor, period: str, number: int, orgs: Sequence[UUID], now: datetime
    ) -> None:
        batches = [orgs[at : at + self._batch] for at in range(0, len(orgs), self._batch)]
        await run_store.add_batches(connection, period, number, batches)
        hands = max(1, min(HANDS, len(batches)))
        await self._jobs.defer_many(
            connection,
            [
                NewJob(WORK, {"period": period}, key=f"{WORK}:{period}:{number}:{hand}", priority=10)
                for hand in range(hands)
            ],
        )
        row = await run_store.run(connection, period)
        assert row is not None
        await self._tell(connection, row, "billing_run.started", actor.label)

    async def _tell(self, connection: Connection, row: Row, type_: str, actor: str) -> None:
        counts = {name: int(row[name]) for name in ("pass", "until", "organisations", "issued", "unchanged")}
        await events.append(
            connection,
            stream=f"billing-run/{row['period']}",
            type=type_,
            data={"period": row["period"], **counts, "failed": len(row["failed"])},
            actor=actor,
            org=None,
            at=self._clock.now(),
        )


def _run(row: Row) -> Run:
    return Run(
        row["period"],
        row["state"],
        row["pass"],
        row["until"],
        row["organisations"],
        int(row["batches"]),
        int(row["done"]),
        int(row["issued"]),
        int(row["unchanged"]),
        row["failed"],
        row["started_at"],
        row["started_by"],
        row["ended_at"],
    )
