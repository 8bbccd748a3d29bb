"""Issuing: for many organisations in one transaction, with statements over all of them.

What an organisation owes is worked out for one after the other; numbers, documents, events, rows and postings are then
written for all together, late and briefly, because others wait for the serials and the books meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from haat.infra.events import NewEvent
from haat.infra.postgres import Connection
from haat.invoices import receivables, store
from haat.invoices.model import (
    NOTHING,
    Billed,
    Draft,
    Former,
    FormerCard,
    Line,
    Supplier,
    canonical,
    charge_key,
    content_hash,
    describe,
    document,
    line_identity,
    place_of_supply,
    serial_text,
    taxes,
)
from haat.invoices.ports import NoWallets, Wallets
from haat.invoices.projection import record_all
from haat.invoices.states import Standing, State, begun
from haat.kernel.clock import Period, financial_year, month_of
from haat.kernel.errors import Conflict, HaatError, NotFound, ValidationFailed
from haat.kernel.gstin import check_gstin
from haat.kernel.ids import milliseconds_of, new_id
from haat.kernel.money import total
from haat.kernel.permissions import Actor
from haat.ledger import service as ledger
from haat.ledger.model import Operation, account, joined, moved
from haat.rating import service as rating
from haat.rating.model import Charge, Measured, Rated
from haat.settings import Settings
from haat.usage import intake
from haat.usage.model import id_bound, month_named

log = logging.getLogger(__name__)

GRACE = timedelta(hours=1)
"""How long after its end a period waits for usage that is still on its way."""

INDIA = ZoneInfo("Asia/Kolkata")


@dataclass(frozen=True, slots=True)
class Terms:
    """How the operator bills, as its settings say."""

    supplier: Supplier
    billing: str
    supply: str
    payment_days: int

    @classmethod
    def of(cls, settings: Settings) -> Terms:
        supplier = Supplier(
            settings.operator_name,
            settings.operator_address,
            settings.operator_gstin,
            settings.operator_state,
            settings.gst_rate,
            settings.sac_code,
            settings.invoice_prefix,
        )
        return cls(supplier, settings.billing, settings.supply, settings.payment_days)

    @property
    def shows_only(self) -> bool:
        return self.billing == "showback"

    def require_billing(self) -> None:
        """Raise Conflict where nobody is billed."""
        if self.billing == "off":
            raise Conflict('This platform doesn\'t bill (`billing = "off"`): set `showback` or `invoice` to have it.')


@dataclass(frozen=True, slots=True)
class Made:
    """A draft and where it belongs."""

    buyer: store.Row
    draft: Draft
    unpriced: Sequence[Measured]
    attempt: int
    part: int
    closes: bool


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
        wanted: list[tuple[store.Row, Period, bool]] = []
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
        wanted: Sequence[tuple[store.Row, Period, bool]],
        until: int,
        present: Mapping[UUID, Sequence[store.Row]],
        failed: dict[UUID, Exception],
    ) -> list[Made]:
        """Rate what no invoice has yet: the month's usage, and what came late, or was corrected, of earlier ones.

        Who can't be billed is named in ``failed`` with the reason and stops nobody else.
        """
        orgs = [buyer["id"] for buyer, _, _ in wanted]
        upto = await store.billed_up_to(connection, orgs)
        closed = await store.closed_months(connection)
        asked: list[tuple[UUID, Period, int]] = []
        for buyer, month, _ in wanted:
            labels = {row["period"] for row in present[buyer["id"]] if row["state"] != State.VOID}
            labels |= closed.intersection(_months_before(month, buyer["zone"]))
            months = [month_named(label, buyer["zone"]) for label in sorted(labels) if label < month.label]
            for one in [*months, month]:
                batch = upto.get((buyer["id"], one.label), 0)
                if batch < until and (one is not month or batch):
                    asked.append((buyer["id"], one, batch))
        later = await store.with_later_usage(connection, asked)
        todo: dict[UUID, list[Period]] = {}
        for buyer, month, closes in wanted:
            org = buyer["id"]
            todo[org] = [one for who, one, _ in asked if who == org and one is not month and (org, one.label) in later]
            if closes or not upto.get((org, month.label)) or (org, month.label) in later:
                todo[org].append(month)
        parts = {buyer["id"]: month for buyer, month, closes in wanted if not closes}
        rated, names = await _rated(connection, todo, parts, until, failed)
        made: list[Made] = []
        for buyer, month, closes in wanted:
            org = buyer["id"]
            if org in failed:
                continue
            voided = sum(row["state"] == State.VOID for row in present[org])
            try:
                lines = await self._lines(connection, org, month, todo[org], rated[org], names, until, upto, voided)
                draft = self._draft(buyer, lines)
            except (HaatError, ValueError) as error:
                failed[org] = error
                continue
            unpriced = [usage for one in rated[org] for usage in one.unpriced]
            part = sum(row["period"] == month.label for row in present[org]) + 1
            made.append(Made(buyer, draft, unpriced, voided, part, closes))
        return made

    async def _lines(
        self,
        connection: Connection,
        org: UUID,
        month: Period,
        todo: Sequence[Period],
        rated: Sequence[Rated],
        names: Mapping[UUID, str],
        until: int,
        upto: Mapping[tuple[UUID, str], int],
        attempt: int,
    ) -> list[Line]:
        """Return the lines by which the months differ from what their invoices say.

        What would bring the invoice below zero waits for the next one, a whole month's difference at a time.
        """
        billed: Mapping[tuple[str, str], Billed] = {}
        if before := [one.label for one in todo if upto.get((org, one.label))]:
            billed = await store.billed(connection, org, before)
        found: list[list[Line]] = []
        for one, charged in zip(todo, rated, strict=True):
            charges: list[Charge | Former] = [*charged.charges]
            present = {charge_key(charge) for charge in charges}
            if gone := [key for label, key in billed if label == one.label and key not in present]:
                charges += [_former(row) for row in await store.former_lines(connection, org, one.label, gone)]
            batch, adjusts = upto.get((org, one.label), 0), one is not month
            lines = [
                Line(
                    charge,
                    line_identity(charge, one.label, batch, attempt),
                    one.label,
                    batch,
                    until,
                    describe(names.get(charge.service, str(charge.service)), charge, one.label if adjusts else ""),
                    billed.get((one.label, charge_key(charge)), NOTHING),
                    adjusts,
                )
                for charge in charges
            ]
            found.append([line for line in lines if line.says_something])
        kept: set[int] = set()
        net = Decimal(0)
        for place in sorted(range(len(found)), key=lambda place: total(line.taxable for line in found[place]))[::-1]:
            after = total((net, *(line.taxable for line in found[place])))
            if after >= 0:
                kept.add(place)
                net = after
        return [line for place, lines in enumerate(found) if place in kept for line in lines]

    def _draft(self, buyer: store.Row, lines: Sequence[Line]) -> Draft:
        supplier = self.terms.supplier
        gstin = check_gstin(buyer["gstin"]) if buyer["gstin"] else None
        place = place_of_supply(buyer["state_code"], gstin, supplier.state_code)
        net = total(line.taxable for line in lines)
        if self.terms.shows_only:
            return Draft(lines, [], place)
        return Draft(lines, taxes(net, supplier.gst_rate, supplier.state_code, place), place)

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

        A wallet is drawn on before the invoices are posted: its accounts are the organisation's own, those of the
        invoices are everybody's and are locked last.
        """
        after = await receivables.spend(connection, actor, standings, now)
        filled = await self.wallets.filled(connection, [standing.org_id for standing in after if standing.owed])
        drawn: list[NewEvent] = []
        found: list[Standing] = []
        for standing in after:
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


async def _rated(
    connection: Connection,
    todo: Mapping[UUID, Sequence[Period]],
    parts: Mapping[UUID, Period],
    until: int,
    failed: dict[UUID, Exception],
) -> tuple[dict[UUID, list[Rated]], dict[UUID, str]]:
    """Rate whole months up to a batch, those that begin and end together at once, and name what was sold.

    ``parts`` are months of which only a part is billed: their fees and minimums aren't due yet.
    """
    together: dict[tuple[Period, bool], list[UUID]] = {}
    for org, periods in todo.items():
        for period in periods:
            together.setdefault((period, parts.get(org) != period), []).append(org)
    found: dict[tuple[UUID, Period], Rated] = {}
    for (period, final), orgs in together.items():
        try:
            rated_now = await rating.charges_of_many(connection, orgs, period, (0, until), {}, final=final)
        except (HaatError, ValueError):  # one of them can't be rated: which, and why, is found one by one
            rated_now = {}
            for org in orgs:
                try:
                    rated_now |= await rating.charges_of_many(connection, [org], period, (0, until), {}, final=final)
                except (HaatError, ValueError) as error:
                    failed[org] = error
        found |= {(org, period): one for org, one in rated_now.items()}
    rated = {org: [found[org, one] for one in periods] for org, periods in todo.items() if org not in failed}
    services = {charge.service for one in found.values() for charge in one.charges}
    return rated, await rating.service_names(connection, sorted(services))


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


def _months_before(month: Period, zone: str) -> list[str]:
    """Return the two months before one, of which usage may still come when nobody had any at their close."""
    last = month_of(month.start - timedelta(days=1), zone)
    return [last.label, month_of(last.start - timedelta(days=1), zone).label]


def _kind_of(row: store.Row) -> str:
    """Return what kind of charge a line was of, which an adjustment's own kind doesn't say."""
    kind = str(row["charge_key"]).rpartition("/")[2].partition("-")[0]
    return kind if kind in ("fee", "minimum") else "usage"


def _former(row: store.Row) -> Former:
    card = FormerCard(row["rate_card_id"], row["card_version"], row["unit"], row["unit_price"], row["provider_share"])
    return Former(
        row["charge_key"],
        row["subscription_id"],
        row["service_id"],
        row["plan"],
        row["provider_org"],
        card,
        instant_of(row["id_from"]),
        instant_of(row["id_to"]),
        row["cached_share"],
        _kind_of(row),
        row["meter"],
        row["members"],
    )


def instant_of(bound: UUID) -> datetime:
    """Return the time that an id of a line's predicate stands for."""
    return datetime.fromtimestamp(milliseconds_of(bound) / 1000, UTC)


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
