"""The close of a month: each promise is judged once, and a broken one pays by itself.

A run may end anywhere and is simply run again: a month is judged in one transaction with its evidence, each invoice is
credited in one transaction with its credit note, and then the provider is settled, which debits it its part of that.
Nothing is posted to the books from here. What is on no invoice yet is credited by a later run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal, Protocol
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.invoices import credits
from haat.invoices.credits import CreditItem
from haat.kernel.clock import Clock, Period
from haat.kernel.errors import Conflict, HaatError
from haat.kernel.money import total
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _
from haat.settings import Settings
from haat.settlement.model import reversed_share
from haat.sla import counts, store
from haat.sla.access import Leveled
from haat.sla.evidence import Predicate
from haat.sla.faults import AGAINST
from haat.sla.maintenance import within
from haat.sla.model import Objective, credited, judge, of_month, percent_of, slow_from
from haat.sla.watching import Watch
from haat.usage.model import month_named

log = logging.getLogger(__name__)

GRACE = timedelta(hours=1)
"""How long after its end a month waits for usage that is still on its way, as invoices do."""
PAID_FOR = timedelta(days=100)
"""How long after its judgement a breach looks for invoices that charge its month."""
Fault = Literal["provider", "platform"]


class Note(Protocol):
    """A credit note, as far as a breach needs to know it."""

    @property
    def id(self) -> UUID: ...


class Credit(Protocol):
    """Posts a credit note within the caller's transaction: `haat.invoices.credits.credit`.

    The same ``key`` gives the same note. Raise HaatError for more than a line's remaining value.
    """

    async def __call__(
        self,
        connection: Connection,
        actor: Actor,
        items: Sequence[CreditItem],
        *,
        key: str,
        reason: str,
        reference: str,
        at: datetime,
    ) -> Note: ...


class Settle(Protocol):
    """Closes a provider's month, so that its part of what was credited is debited: `Settlements.close`."""

    async def __call__(self, actor: Actor, period: str, provider_org: UUID) -> object: ...


@dataclass(frozen=True, slots=True)
class Paid:
    """What a breach credited on one invoice, in rupees before tax, and what of it the provider bears."""

    month_id: UUID
    service_id: UUID
    org_id: UUID
    invoice_id: UUID
    credit_note_id: UUID
    taxable: Decimal
    debited: Decimal


@dataclass(frozen=True, slots=True)
class Closed:
    """What a run came to. ``judged`` are the months that it judged now.

    ``failed`` names listings that could not be judged, invoices that could not be credited and providers that could not
    be settled, and why; all others are done.
    """

    period: str
    judged: Sequence[store.Row]
    known: int
    paid: Sequence[Paid]
    failed: Sequence[tuple[UUID, str]]


class Closing(Leveled):
    """Judges months. ``credit`` posts credit notes; without it a breach that owes something is refused.

    ``settle`` debits providers in the same run; without it their next settlement does.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        settings: Settings,
        *,
        watch: Watch,
        credit: Credit | None,
        settle: Settle | None = None,
    ) -> None:
        super().__init__(db, clock, settings)
        self._watch, self._credit, self._settle = watch, credit, settle

    async def close(self, actor: Actor, period: str) -> Closed:
        """Judge a month for every listing that promised something, and credit its affected customers.

        Doing it again judges nothing anew and credits what was invoiced since. Raise Conflict for a month that runs.
        """
        actor.require(Permission.SETTLEMENTS_RUN)
        month = month_named(period, self._zone)
        if self._clock.now() < month.end + GRACE:
            raise Conflict(_("%(period)s is not over yet (an hour of grace included).", period=period))
        await self._watch.gather()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            promised: dict[UUID, list[Objective]] = {}
            for objective in await store.objectives(connection):
                promised.setdefault(objective.service_id, []).append(objective)
        judged, known = [], 0
        rows: list[store.Row] = []
        unjudged: list[tuple[UUID, str]] = []
        for service_id, objectives in promised.items():
            found = of_month(objectives, month)
            if found is None:
                continue
            try:
                row, fresh = await self._judge(actor, *found)
            except HaatError as error:
                log.error("%s of service %s was not judged: %s", period, service_id, error.detail)
                unjudged.append((service_id, error.detail))
                continue
            rows.append(row)
            if fresh:
                judged.append(row)
            else:
                known += 1
        paid, failed = await self._pay_all(actor, [row for row in rows if row["credit"] > 0])
        return Closed(period, judged, known, paid, [*unjudged, *failed])

    async def pay(self, actor: Actor) -> tuple[list[Paid], list[tuple[UUID, str]]]:
        """Credit what earlier breaches owe on invoices issued since."""
        actor.require(Permission.SETTLEMENTS_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await store.breaches_to_pay(connection, self._clock.now() - PAID_FOR)
        return await self._pay_all(actor, rows)

    # --- judging --------------------------------------------------------------------------------

    async def _judge(self, actor: Actor, objective: Objective, span: Period) -> tuple[store.Row, bool]:
        """Judge one listing's month, once; return it, and whether this was the time."""
        now, service_id = self._clock.now(), objective.service_id
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock(connection, service_id)
            present = await store.month(connection, service_id, span.label)
            if present is not None:
                return present, False
            batch = await counts.gathered(connection)
            found = await counts.counts_of(connection, service_id, span.start, span.end)
            latency = await counts.latency_of(connection, service_id, span.start, span.end)
            judgement = judge(objective, found, latency)
            standing = await store.windows(connection, service_id, span.start, span.end)
            excluded = within([one.span for one in standing if one.cancelled_at is None], span)
            slow = [slow_from(limit) for signal, limit in objective.latencies.items() if signal in judgement.missed]
            predicate = Predicate(
                service_id,
                span.start,
                span.end,
                batch,
                excluded,
                "availability" in judgement.missed or not judgement.missed,
                min(slow, default=None),
            )
            causes = await counts.causes(connection, predicate) if judgement.missed else []
            evidence = {
                "objective": objective.version,
                "start": span.start.isoformat(),
                "end": span.end.isoformat(),
                "counts": {
                    "answered": found.answered,
                    "failed": found.failed,
                    "down": found.down,
                    "probes_good": found.probes_good,
                    "probes_bad": found.probes_bad,
                },
                "broken": sum(row["calls"] for row in causes if row["verdict"] in {one.value for one in AGAINST}),
                "causes": [dict(row) for row in causes],
                "latency_ms": {name: None if ms is None else f"{ms:.1f}" for name, ms in judgement.latency_ms.items()},
                "predicate": predicate.data(),
            }
            listing = await store.listing(connection, service_id)
            fault: Fault = "platform" if await self._hosted(connection, listing) else "provider"
            row = await store.add_month(connection, objective, span.label, judgement, fault, now, evidence)
            affected = await store.add_affected(connection, row["id"], predicate) if judgement.missed else 0
            data = {
                "month": str(row["id"]),
                "period": span.label,
                "verdict": judgement.verdict,
                "availability": None if judgement.availability is None else str(percent_of(judgement.availability)),
                "missed": list(judgement.missed),
                "credit": str(judgement.credit),
                "fault": fault,
                "affected": affected,
            }
            if judgement.missed:
                await self._record(connection, listing, "sla.breached", {**data, "evidence": evidence}, actor)
            else:
                await self._record(connection, listing, "sla.judged", data, actor)
        return row, True

    # --- paying ---------------------------------------------------------------------------------

    async def _pay_all(self, actor: Actor, months: Sequence[store.Row]) -> tuple[list[Paid], list[tuple[UUID, str]]]:
        paid: list[Paid] = []
        failed: list[tuple[UUID, str]] = []
        for month in months:
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                owed = await store.uncredited(connection, month)
            for invoice, org in owed:
                try:
                    one = await self._pay(actor, month, invoice, org)
                except HaatError as error:
                    log.error("the breach %s was not credited on invoice %s: %s", month["id"], invoice, error.detail)
                    failed.append((invoice, error.detail))
                    continue
                if one is not None:
                    paid.append(one)
        return paid, failed + await self._debit(actor, months)

    async def _debit(self, actor: Actor, months: Sequence[store.Row]) -> list[tuple[UUID, str]]:
        """Settle the providers of months that owe something, credited now or before a run that ended too soon."""
        failed: list[tuple[UUID, str]] = []
        if self._settle is None:
            return failed
        for period, provider in sorted({(month["period"], month["org_id"]) for month in months}):
            try:
                await self._settle(actor, period, provider)
            except HaatError as error:
                log.error("provider %s was not settled for %s: %s", provider, period, error.detail)
                failed.append((provider, error.detail))
        return failed

    async def _pay(self, actor: Actor, month: store.Row, invoice: UUID, org: UUID) -> Paid | None:
        """Credit one invoice for a breach, with the note and its record in one transaction."""
        if self._credit is None:
            raise Conflict(_("This platform issues no credit notes: what the breach owes stays owed."))
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock(connection, month["service_id"])
            if await store.is_credited(connection, month["id"], invoice):
                return None
            await credits.lock(connection, org)
            items, debits = [], []
            for line in await store.charged_lines(connection, month, invoice):
                left = total((line["taxable"], -line["credited"]))
                amount = min(credited(line["taxable"], month["credit"]), left)
                if amount:
                    items.append(CreditItem(line["id"], amount, month["fault"]))
                    debits.append(reversed_share(line["taxable"], line["provider_share"], line["borne"], amount)[0])
            if not items:
                return None
            debited = total(debits) if month["fault"] == "provider" else Decimal(0)
            taxable = total(item.taxable for item in items)
            listing = await store.listing(connection, month["service_id"])
            reference = f"sla/{month['id']}"
            note = await self._credit(
                connection, actor, items, key=f"{reference}/{invoice}", reason="sla", reference=reference, at=now
            )
            await store.add_credit(connection, month["id"], org, invoice, note.id, taxable, debited, now)
            await self._record(
                connection,
                listing,
                "sla.credited",
                {
                    "month": str(month["id"]),
                    "invoice": str(invoice),
                    "credit_note": str(note.id),
                    "taxable": str(taxable),
                    "debited": str(debited),
                },
                actor,
            )
        return Paid(month["id"], month["service_id"], org, invoice, note.id, taxable, debited)
