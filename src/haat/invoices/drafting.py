"""Drafting: what organisations owe that no invoice says yet, with statements over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from haat.infra.postgres import Connection
from haat.invoices import call_store, run_store, store
from haat.invoices.model import (
    NOTHING,
    Billed,
    Draft,
    Former,
    FormerCard,
    Line,
    charge_key,
    describe,
    line_identity,
    place_of_supply,
    taxes,
)
from haat.invoices.states import State
from haat.invoices.terms import Terms
from haat.kernel.clock import Period, month_of
from haat.kernel.errors import HaatError
from haat.kernel.gstin import check_gstin
from haat.kernel.ids import milliseconds_of
from haat.kernel.money import total
from haat.rating import service as rating
from haat.rating.model import Charge, Measured, Rated
from haat.usage.model import month_named

Wanted = tuple[store.Row, Period, bool]
"""A buyer, the month it is billed for, and whether that closes the month."""
Upto = Mapping[tuple[UUID, str], int]
"""The batch up to which usage lies on issued lines, by organisation and month."""


@dataclass(frozen=True, slots=True)
class Made:
    """A draft and where it belongs."""

    buyer: store.Row
    draft: Draft
    unpriced: Sequence[Measured]
    attempt: int
    part: int
    closes: bool


async def drafts(
    connection: Connection,
    terms: Terms,
    wanted: Sequence[Wanted],
    until: int,
    present: Mapping[UUID, Sequence[store.Row]],
    failed: dict[UUID, Exception],
) -> list[Made]:
    """Rate what no invoice has yet: the month's usage, and what came late, or was corrected, of earlier ones.

    Who can't be billed is named in ``failed`` with the reason and stops nobody else.
    """
    upto = await store.billed_up_to(connection, [buyer["id"] for buyer, _, _ in wanted])
    todo = await _months_to_rate(connection, wanted, until, present, upto)
    parts = {buyer["id"]: month for buyer, month, closes in wanted if not closes}
    rated, names = await _rated(connection, todo, parts, until, failed)
    before = [(org, one.label) for org, months in todo.items() for one in months if upto.get((org, one.label))]
    known = _Known(until, upto, await store.billed(connection, before), names)
    made: list[Made] = []
    for buyer, month, closes in wanted:
        org = buyer["id"]
        if org in failed:
            continue
        attempt = sum(row["state"] == State.VOID for row in present[org])
        try:
            months = [
                await _lines_of(connection, known, org, one, charged, attempt, adjusts=one != month)
                for one, charged in zip(todo[org], rated[org], strict=True)
            ]
            draft = _draft(terms, buyer, _kept(months))
        except (HaatError, ValueError) as error:
            failed[org] = error
            continue
        unpriced = [usage for one in rated[org] for usage in one.unpriced]
        part = sum(row["period"] == month.label for row in present[org]) + 1
        made.append(Made(buyer, draft, unpriced, attempt, part, closes))
    return made


async def _months_to_rate(
    connection: Connection,
    wanted: Sequence[Wanted],
    until: int,
    present: Mapping[UUID, Sequence[store.Row]],
    upto: Upto,
) -> dict[UUID, list[Period]]:
    """Return the months that each one's invoice is about, oldest first: its own comes last.

    A month may be on other months' invoices alone: its usage came late, or its own invoice would have been below zero.
    """
    closed = await run_store.closed_months(connection)
    billed: dict[UUID, set[str]] = {buyer["id"]: set() for buyer, _, _ in wanted}
    for org, label in upto:
        billed[org].add(label)
    asked: list[tuple[UUID, Period, int]] = []
    for buyer, month, _ in wanted:
        org = buyer["id"]
        labels = billed[org] | {row["period"] for row in present[org] if row["state"] != State.VOID}
        labels |= closed.intersection(_months_before(month, buyer["zone"]))
        months = [month_named(label, buyer["zone"]) for label in sorted(labels) if label < month.label]
        for one in [*months, month]:
            batch = upto.get((org, one.label), 0)
            if batch < until and (one is not month or batch):
                asked.append((org, one, batch))
    later = await store.with_later_usage(connection, asked)
    todo: dict[UUID, list[Period]] = {buyer["id"]: [] for buyer, _, _ in wanted}
    for org, one, _ in asked:
        if (org, one.label) in later:
            todo[org].append(one)
    for buyer, month, closes in wanted:
        org = buyer["id"]
        if month not in todo[org] and (closes or not upto.get((org, month.label))):
            todo[org].append(month)
    return todo


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of all whose drafts are made: up to which batch, what is billed already, what services are called.

    ``billed`` is by organisation and month, and then by what a line charges for.
    """

    until: int
    upto: Upto
    billed: Mapping[tuple[UUID, str], Mapping[str, Billed]]
    names: Mapping[UUID, str]


async def _lines_of(
    connection: Connection, known: _Known, org: UUID, month: Period, rated: Rated, attempt: int, *, adjusts: bool
) -> list[Line]:
    """Return the lines by which a month differs from what its invoices say; ``adjusts``: it was closed before."""
    before = known.billed.get((org, month.label), {})
    charges: list[Charge | Former] = [*rated.charges]
    if gone := sorted(before.keys() - {charge_key(charge) for charge in charges}):
        charges += [_former(row) for row in await store.former_lines(connection, org, month.label, gone)]
    batch = known.upto.get((org, month.label), 0)
    lines = [
        Line(
            charge,
            line_identity(charge, month.label, (batch, known.until), attempt),
            month.label,
            batch,
            known.until,
            describe(known.names.get(charge.service, str(charge.service)), charge, month.label if adjusts else ""),
            before.get(charge_key(charge), NOTHING),
            adjusts,
        )
        for charge in charges
    ]
    return [line for line in lines if line.says_something or await _calls_changed(connection, org, line)]


async def _calls_changed(connection: Connection, org: UUID, line: Line) -> bool:
    """Tell whether a line that comes to nothing is about other calls than those before it.

    It comes to nothing when a call was voided and another like it came late: what each bears must still be found.
    """
    return line.charge.kind == "usage" and await call_store.was_corrected(connection, org, line)


def _kept(months: Sequence[Sequence[Line]]) -> list[Line]:
    """Return the lines of an invoice: a month's that would bring it below zero wait, all of them, for the next one.

    So do lines that come to nothing, if there are no others.
    """
    worth = [total(line.taxable for line in lines) for lines in months]
    kept: set[int] = set()
    net = Decimal(0)
    for place in sorted(range(len(months)), key=worth.__getitem__, reverse=True):
        after = total((net, worth[place]))
        if after >= 0:
            kept.add(place)
            net = after
    lines = [line for place, month in enumerate(months) if place in kept for line in month]
    return lines if any(line.says_something for line in lines) else []  # a paper of nothing is sent to nobody


def _draft(terms: Terms, buyer: store.Row, lines: Sequence[Line]) -> Draft:
    supplier = terms.supplier
    gstin = check_gstin(buyer["gstin"]) if buyer["gstin"] else None
    place = place_of_supply(buyer["state_code"], gstin, supplier.state_code)
    if terms.shows_only:
        return Draft(lines, [], place)
    net = total(line.taxable for line in lines)
    return Draft(lines, taxes(net, supplier.gst_rate, supplier.state_code, place), place)


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
