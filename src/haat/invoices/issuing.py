"""Issuing: for many organisations in one transaction, with statements over all of them.

What they owe is worked out first; numbers, documents, events, rows and postings are then written for all together, late
and briefly, because others wait for the serials and the books meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.events import NewEvent
from haat.infra.postgres import Connection
from haat.invoices import drafting, receivables, store
from haat.invoices.drafting import Made, Wanted
from haat.invoices.model import Draft, Line, canonical, charge_key, content_hash, document, serial_text
from haat.invoices.ports import NoWallets, Wallets
from haat.invoices.projection import record_all
from haat.invoices.states import Standing, State, begun
from haat.invoices.terms import GRACE, INDIA, Terms
from haat.kernel.clock import financial_year
from haat.kernel.errors import Conflict, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor
from haat.ledger import service as ledger
from haat.ledger.model import Operation, account, joined, moved
from haat.usage import intake
from haat.usage.model import id_bound, month_named

__all__ = ["GRACE", "INDIA", "Issuer", "Outcome", "Terms", "posted_for"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """What became of each organisation: invoices that were issued, those that stand, and why others have none."""

    issued: dict[UUID, UUID] = field(default_factory=dict)
    standing: dict[UUID, UUID | None] = field(default_factory=dict)
    registering: dict[UUID, str] = field(default_factory=dict)
    failed: dict[UUID, Exception] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Issuer:
    """Issues within the caller's transaction."""

    terms: Terms
    registers: bool = False
    wallets: Wallets = field(default_factory=NoWallets)

    async def issue(
        self,
        connection: Connection,
        actor: Actor,
        period: str,
        orgs: Sequence[UUID],
        now: datetime,
        *,
        until: int | None = None,
        closing: bool = False,
    ) -> Outcome:
        """Issue a month's invoices; doing it again changes nothing.

        ``until`` names the newest batch to bill, of a month that still runs a part; with ``closing`` a month that is
        over is closed with it even if there is newer usage.
        """
        self.terms.require_billing()
        newest = await intake.watermark(connection)
        if until is not None and until > newest:
            raise ValidationFailed(
                "Only usage that is stored can be billed.",
                errors=[{"field": "until", "message": f"the newest batch is {newest}"}],
            )
        upto = newest if until is None else until
        await store.lock(connection, *orgs)
        buyers = await store.buyers(connection, orgs)
        present: dict[UUID, list[store.Row]] = {org: [] for org in orgs}
        for row in await store.invoices_of(connection, orgs):
            present[row["org_id"]].append(row)
        waiting = await store.registering(connection, orgs)
        outcome = Outcome()
        wanted: list[Wanted] = []
        for org in orgs:
            if org not in buyers:
                outcome.failed[org] = NotFound("There is no such organisation.")
                continue
            month = month_named(period, buyers[org]["zone"])
            over = now >= month.end + GRACE
            closes = over and (closing or upto == newest)
            same = [row for row in present[org] if row["period"] == period and row["state"] != State.VOID]
            if org in waiting:
                outcome.registering[org] = waiting[org]
            elif not over and (until is None or closing):
                outcome.failed[org] = Conflict(
                    f"{period} is not over (an hour of grace included): give `until` to bill a part of it."
                )
            elif same and (any(row["closes"] for row in same) or (same[-1]["batch_to"] >= upto and not closes)):
                outcome.standing[org] = same[-1]["id"]
            else:
                wanted.append((buyers[org], month, closes))
                outcome.standing[org] = same[-1]["id"] if same else None
        made = await self.drafts(connection, wanted, upto, present, outcome.failed)
        for one in made:
            for usage in one.unpriced:
                org = one.buyer["id"]
                log.warning("%s has %d calls of %s without a price: not billed", org, usage.calls, usage.service)
        for org in outcome.failed:
            outcome.standing.pop(org, None)
        await self._write(connection, actor, [one for one in made if one.draft.lines], period, upto, now, outcome)
        return outcome

    async def drafts(
        self,
        connection: Connection,
        wanted: Sequence[Wanted],
        until: int,
        present: Mapping[UUID, Sequence[store.Row]],
        failed: dict[UUID, Exception],
    ) -> list[Made]:
        """Work out what is owed, as `haat.invoices.drafting.drafts` does."""
        return await drafting.drafts(connection, self.terms, wanted, until, present, failed)

    async def _write(
        self,
        connection: Connection,
        actor: Actor,
        made: Sequence[Made],
        period: str,
        until: int,
        now: datetime,
        outcome: Outcome,
    ) -> None:
        if not made:
            return
        kind = "statement" if self.terms.shows_only else "invoice"
        state = State.SHOWN if self.terms.shows_only else State.REGISTERING if self.registers else State.ISSUED
        today = now.astimezone(INDIA).date()
        due_on = None if self.terms.shows_only else today + timedelta(days=self.terms.payment_days)
        prefix, year = self.terms.supplier.serial_prefix + ("S" if self.terms.shows_only else ""), financial_year(now)
        numbers = await store.next_serials(connection, prefix, year, len(made))
        documents: list[tuple[bytes, UUID, str]] = []
        new: list[NewEvent] = []
        standings: list[Standing] = []
        operations: list[Operation] = []
        for one, number in zip(made, numbers, strict=True):
            identifier, serial, org = new_id(), serial_text(prefix, year, number), one.buyer["id"]
            text = canonical(
                document(
                    one.draft,
                    id=identifier,
                    kind=kind,
                    serial=serial,
                    period=period,
                    part=one.part,
                    issued_at=now,
                    local_date=today.isoformat(),
                    due_on=due_on,
                    supply=self.terms.supply,
                    supplier=self.terms.supplier,
                    buyer=one.buyer,
                )
            )
            digest = content_hash(text)
            documents.append((digest, org, text))
            standing = begun(identifier, org, kind, period, serial, one.draft.total, due_on, now, state)
            row = _head(one, identifier, kind, period, serial, now, until, digest, due_on)
            new.append(
                NewEvent(
                    f"invoice/{identifier}",
                    "invoice.registering" if state is State.REGISTERING else "invoice.issued",
                    {**row, "lines": _line_rows(identifier, org, one.draft.lines), "state": standing.data()},
                    org,
                )
            )
            standings.append(standing)
            if state is State.ISSUED:
                operations += posted_for(standing, one.draft.net, _taxes_of(one.draft), self.terms.supply, now)
            if state is State.REGISTERING:
                outcome.registering[org] = serial
                outcome.standing.pop(org, None)
            else:
                outcome.issued[org] = identifier
                outcome.standing.pop(org, None)
        await store.keep_documents(connection, documents)
        await record_all(connection, new, actor=actor.label, at=now)
        if state is State.ISSUED:
            await self.collect(connection, actor, standings, now)
        await ledger.post(connection, operations)

    async def collect(
        self, connection: Connection, actor: Actor, standings: Sequence[Standing], now: datetime
    ) -> list[Standing]:
        """Pay new invoices from credit that is left of payments and notes, then from wallets; return how they stand.

        Wallets are drawn on in the order in which gateways lock them, and before the invoices are posted: a wallet's
        accounts are the organisation's own, those of the invoices are everybody's and are locked last.
        """
        after = await receivables.spend(connection, actor, standings, now)
        filled = await self.wallets.filled(connection, [standing.org_id for standing in after if standing.owed])
        drawn: list[NewEvent] = []
        found: list[Standing] = []
        for standing in sorted(after, key=lambda one: (one.org_id, one.invoice_id)):
            paid = Decimal(0)
            if standing.owed and standing.org_id in filled:
                paid = await self.wallets.pay(
                    connection, standing.org_id, invoice=standing.invoice_id, amount=standing.owed, at=now
                )
            if paid:
                source = f"wallet/{standing.org_id}"
                event, standing = receivables.allocated(standing, source, paid, now)
                drawn.append(event)
            found.append(standing)
        await record_all(connection, drawn, actor=actor.label, at=now)
        return found


def posted_for(
    standing: Standing, net: Decimal, found: Sequence[tuple[str, Decimal]], supply: str, now: datetime
) -> list[Operation]:
    """Return what is posted for an invoice or a debit note: nothing for one of nothing."""
    reference = f"{standing.kind.replace('_', '-')}/{standing.invoice_id}"
    owed = account("receivable", standing.org_id)
    sold = account("supplies" if supply == "agent" else "revenue")
    entries = joined(
        entry
        for name, amount in ((sold, net), *((account("tax", name), amount) for name, amount in found))
        for entry in moved(owed, name, amount)
    )
    if not entries:
        return []
    return [Operation(reference, standing.kind, now, entries, f"invoice/{standing.invoice_id}")]


def _taxes_of(draft: Draft) -> list[tuple[str, Decimal]]:
    return [(tax.name, tax.amount) for tax in draft.taxes]


def _head(
    one: Made,
    identifier: UUID,
    kind: str,
    period: str,
    serial: str,
    now: datetime,
    until: int,
    digest: bytes,
    due_on: date | None,
) -> dict[str, Any]:
    """Return an invoice's row as its event carries it."""
    return {
        "id": str(identifier),
        "org_id": str(one.buyer["id"]),
        "kind": kind,
        "against": None,
        "period": period,
        "part": one.part,
        "attempt": one.attempt,
        "closes": one.closes,
        "serial": serial,
        "issued_at": now.isoformat(),
        "batch_to": until,
        "place_of_supply": one.draft.place_of_supply,
        "net": str(one.draft.net),
        "tax": str(one.draft.tax),
        "total": str(one.draft.total),
        "content_hash": f"\\x{digest.hex()}",
        "due_on": due_on.isoformat() if due_on else None,
        "key": None,
    }


def _line_rows(invoice: UUID, org: UUID, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return an invoice's lines as rows."""
    return [
        {
            "id": str(new_id()),
            "invoice_id": str(invoice),
            "position": position,
            "org_id": str(org),
            "identity": line.identity,
            "charge_key": charge_key(line.charge),
            "kind": line.kind,
            "period": line.period,
            "subscription_id": str(line.charge.subscription),
            "service_id": str(line.charge.service),
            "provider_org": str(line.charge.provider_org),
            "plan": line.charge.plan,
            "rate_card_id": str(line.charge.card.id),
            "id_from": str(id_bound(line.charge.start)),
            "id_to": str(id_bound(line.charge.end)),
            "batch_from": line.batch_from,
            "batch_to": line.batch_to,
            "calls": line.calls,
            "unit": line.charge.card.unit,
            "quantity": str(line.quantity),
            "free_units": str(line.free_units),
            "unit_price": str(line.charge.card.unit_price),
            "taxable": str(line.taxable),
            "provider_share": str(line.charge.card.provider_share),
            "description": line.description,
            "cached_share": None if line.charge.cached_share is None else str(line.charge.cached_share),
            "meter": line.charge.meter,
            "members": line.charge.members(),
        }
        for position, line in enumerate(lines, 1)
    ]
