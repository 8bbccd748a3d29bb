"""What people ask about usage: their own as customers, their services' as providers, everybody's as operator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from haat.infra.postgres import PLATFORM_SCOPE, Database, Scope, tenant
from haat.kernel.clock import Clock, Period, month_of
from haat.kernel.errors import NotFound, PermissionDenied
from haat.kernel.money import multiply, total
from haat.kernel.pages import MAX_PAGE, Page, decode_id_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.kernel.prices import REPORTED_UNITS
from haat.language.messages import _
from haat.usage import intake, store
from haat.usage.event import LIVE, decode
from haat.usage.export import Format, lines
from haat.usage.intake import Taken
from haat.usage.model import (
    BILLED,
    UNITS,
    CallFilter,
    Pseudonyms,
    histogram_of,
    month_named,
    quantiles,
)
from haat.usage.record import Record

_BILLED = frozenset(outcome.value for outcome in BILLED)


@dataclass(frozen=True, slots=True)
class Counts:
    """Calls by what became of them."""

    calls: int
    completed: int
    client_left: int
    refused: int
    failed: int
    in_doubt: int


@dataclass(frozen=True, slots=True)
class ServiceUsage:
    """One service in a period. ``units`` are the billed quantities; latency is that of dispatched calls."""

    service_id: UUID | None
    name: str
    provider: str
    slug: str
    unit: str
    counts: Counts
    units: Mapping[str, Decimal]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Hour:
    hour: datetime
    counts: Counts
    bytes_in: int
    bytes_out: int
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer as its providers know it."""

    pseudonym: str
    counts: Counts


@dataclass(frozen=True, slots=True)
class ProviderUsage:
    services: Sequence[ServiceUsage]
    customers: Sequence[Customer]


@dataclass(frozen=True, slots=True)
class CallStory:
    """One call, its price, and the lines it lies on. ``call`` has what the asker may see of the row.

    ``invoice`` and ``settlement`` are its line; what the cache answered of a call of which the provider
    was asked for the rest lies on a second one, ``cached_invoice`` and ``cached_settlement``. Where several meters
    see it, it lies on a line of each: these are the first ones, and ``lines`` has all.
    """

    call: Mapping[str, Any]
    units: Mapping[str, Decimal]
    billed: bool
    rate_card_version: int | None
    unit: str | None
    quantity: Decimal | None
    unit_price: Decimal | None
    cached_quantity: Decimal | None
    """The part of the quantity that came out of the cache, when there is one."""
    cached_share: Decimal | None
    """The part of the price which that costs."""
    list_charge: Decimal | None
    """Quantity × price, exact; free units are taken off on the invoice line, not on a call. None where the price of a
    call can't be told alone."""
    invoice: Mapping[str, Any] | None
    settlement: Mapping[str, Any] | None
    cached_invoice: Mapping[str, Any] | None
    cached_settlement: Mapping[str, Any] | None
    lines: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class SetAside:
    """A journal record that could not be counted, and why."""

    id: UUID
    worker: str
    segment: int
    offset: int
    reason: str
    event: Mapping[str, Any] | None
    set_aside_at: datetime


class Usage:
    """Reads the usage store. Rows belong to the calling organisation; a provider sees those of its services."""

    def __init__(self, db: Database, clock: Clock, pseudonyms: Pseudonyms) -> None:
        self._db, self._clock, self._pseudonyms = db, clock, pseudonyms

    async def watermark(self) -> int:
        """Return the newest ingest batch: what an invoice "up to now" names as ``until``."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await intake.watermark(connection)

    async def month(self, actor: Actor, label: str | None = None) -> Period:
        """Return a month, or the running one, in the zone of the actor's organisation."""
        zone = "Asia/Kolkata"
        if actor.org_id is not None:
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                zone = await store.zone_of(connection, actor.org_id) or zone
        return month_named(label, zone) if label else month_of(self._clock.now(), zone)

    # --- customers ---

    async def summary(self, actor: Actor, period: Period, *, org: UUID | None = None) -> list[ServiceUsage]:
        """Return the organisation's usage by service. The operator may name an organisation, or take all."""
        scope, whose = _whose(actor, org)
        async with self._db.transaction(scope) as connection:
            return [_service_usage(row) for row in await store.by_service(connection, period, org=whose)]

    async def of_services(self, period: Period, services: Collection[UUID]) -> list[ServiceUsage]:
        """Return what everybody together has used of some services, which is no secret (see `haat.portal.proofs`)."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return [_service_usage(row) for row in await store.by_service(connection, period, of=services)]

    async def hourly(
        self, actor: Actor, period: Period, *, service_id: UUID | None = None, org: UUID | None = None
    ) -> list[Hour]:
        """Return the hours of a period that had calls, in order."""
        scope, whose = _whose(actor, org)
        async with self._db.transaction(scope) as connection:
            rows = await store.by_hour(connection, period, org=whose, service_id=service_id)
        return [_hour(row) for row in rows]

    async def calls(
        self, actor: Actor, chosen: CallFilter, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Mapping[str, Any]]:
        """Return a page of calls, newest first; ``chosen.org`` is the operator's to set."""
        scope, whose = _whose(actor, chosen.org)
        limit = max(1, min(limit, MAX_PAGE))
        async with self._db.transaction(scope) as connection:
            rows = await store.calls(connection, replace(chosen, org=whose), decode_id_cursor(cursor), limit + 1)
        return page_of(rows, limit, lambda row: (row["id"],))

    async def count(self, actor: Actor, chosen: CallFilter) -> int:
        """Return how many calls there are; ``chosen.org`` is the operator's to set."""
        scope, whose = _whose(actor, chosen.org)
        async with self._db.transaction(scope) as connection:
            return await store.count_of(connection, replace(chosen, org=whose))

    async def call(self, actor: Actor, identifier: UUID) -> CallStory:
        """Tell one call's story by its request id; raise NotFound for one that is not the asker's."""
        scope = _scope(actor)
        async with self._db.transaction(scope) as connection:
            row = await store.call(connection, identifier)
        if row is None:
            raise NotFound(_("There is no such call, or it is not yours. A call shows up seconds after its answer."))
        customer = scope.platform or (row["org_id"] == actor.org_id and actor.may(Permission.USAGE_READ))
        if not customer and not actor.may(Permission.SERVICES_READ_OWN):
            raise NotFound(_("There is no such call, or it is not yours."))
        # Prices are public and the lines are the asker's; the policies would hide a provider's settlement line
        # behind its customer's invoice line, so ownership is checked here instead.
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            card = await store.price_of(connection, row["service_id"], row["plan"], row["at"]) if row["plan"] else None
            billed = row["outcome"] in _BILLED and row["mode"] == LIVE
            lines = await store.lines_of(connection, row) if billed and row["subscription_id"] else []
        units = _units(row) | {
            unit: Decimal(row["other_units"][unit]) for unit in REPORTED_UNITS if unit in row["other_units"]
        }
        quantity = units.get(card["unit"], Decimal(0)) if card and billed else None
        cached = row["cached"] if billed and row["cached"] else None
        share = row["cached_share"] if cached is not None else None
        asked, hits = ([one for one in lines if (one["line_share"] is None) == whole] for whole in (True, False))
        line = next(iter([*asked, *hits]), None)
        second = hits[0] if asked and hits else None
        provider = scope.platform or row["provider_org"] == actor.org_id
        return CallStory(
            call=row if customer else self._for_provider(row),
            units=units,
            billed=billed,
            rate_card_version=card["version"] if card else None,
            unit=card["unit"] if card else None,
            quantity=quantity,
            unit_price=card["unit_price"] if card and card["plain"] else None,
            cached_quantity=cached,
            cached_share=share,
            list_charge=_list_charge(quantity, card["unit_price"], cached, share)
            if card and card["plain"] and quantity is not None
            else None,
            invoice=_pick(line, *_INVOICE) if customer else None,
            settlement=_pick(line, *_SETTLEMENT) if provider else None,
            cached_invoice=_pick(second, *_INVOICE) if customer else None,
            cached_settlement=_pick(second, *_SETTLEMENT) if provider else None,
            lines=[
                {"meter": one["meter"]}
                | ((_pick(one, *_INVOICE) or {}) if customer else {})
                | ((_pick(one, *_SETTLEMENT) or {}) if provider else {})
                for one in lines
            ],
        )

    async def export(self, actor: Actor, chosen: CallFilter, form: Format = Format.CSV) -> AsyncIterator[bytes]:
        """Yield the chosen calls as a file, oldest first, in constant memory."""
        scope, whose = _whose(actor, chosen.org)
        async with self._db.transaction(scope) as connection:
            async for piece in lines(connection, replace(chosen, org=whose), form):
                yield piece

    async def export_csv(self, actor: Actor, chosen: CallFilter) -> AsyncIterator[str]:
        """Yield CSV of the chosen calls."""
        async for piece in self.export(actor, chosen):
            yield piece.decode()

    # --- providers ---

    async def provider_summary(
        self, actor: Actor, period: Period, *, provider_org: UUID | None = None
    ) -> ProviderUsage:
        """Return a provider's services in a period and its top customers under pseudonyms."""
        if provider_org is None or not actor.may(Permission.PLATFORM_WATCH):
            actor.require(Permission.SERVICES_READ_OWN)
            if provider_org not in (None, actor.org_id) or actor.org_id is None:
                raise NotFound
            provider_org = actor.org_id
        async with self._db.transaction(_scope(actor)) as connection:
            services = await store.by_service(connection, period, provider_org=provider_org)
            customers = await store.top_customers(connection, period, provider_org, 20)
        return ProviderUsage(
            [_service_usage(row) for row in services],
            [Customer(self._pseudonyms.of(provider_org, row["org_id"]), _counts(row)) for row in customers],
        )

    def _for_provider(self, row: Mapping[str, Any]) -> dict[str, Any]:
        seen = {name: value for name, value in row.items() if name not in _CUSTOMERS_OWN}
        seen["customer"] = self._pseudonyms.of(row["provider_org"], row["org_id"]) if row["org_id"] else None
        return seen

    # --- the operator ---

    async def shipping(self, actor: Actor) -> list[Mapping[str, Any]]:
        """Return how far each gateway worker's journal is shipped, and what stops it."""
        actor.require(Permission.PLATFORM_WATCH)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await store.shipping(connection)

    async def skip_segment(self, actor: Actor, worker: str, segment: int) -> None:
        """Go on after a damaged or lost segment, accepting that the rest of it is never counted."""
        actor.require(Permission.DEAD_LETTERS_REPLAY)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.move(connection, worker, segment + 1, 0, self._clock.now())

    async def quarantined(self, actor: Actor, limit: int = 100) -> list[SetAside]:
        """Return records that were set aside, oldest first."""
        actor.require(Permission.PLATFORM_WATCH)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await store.quarantined(connection, limit)
        return [_set_aside(row) for row in rows]

    async def release(self, actor: Actor, identifiers: Sequence[UUID]) -> Taken | None:
        """Count records that were set aside for their time alone; what still can't be counted stays."""
        actor.require(Permission.DEAD_LETTERS_REPLAY)
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = [row for row in await store.quarantined(connection, len(identifiers), identifiers) if row["outcome"]]
            records = [
                Record(decode(bytes(row["payload"])), row["worker"], row["segment"], row["byte_offset"]) for row in rows
            ]
            taken = await intake.take(connection, records, now, any_time=True)
            if taken is not None:
                known = [identifier for identifier in map(_id_of, records) if identifier]
                stored = await store.present(connection, known)
                released = [row["id"] for row, record in zip(rows, records, strict=True) if _id_of(record) in stored]
                await store.mark_released(connection, released, now)
        return taken


_CUSTOMERS_OWN = frozenset(
    {"org_id", "application_id", "application", "credential_id", "subscription_id", "end_user", "tags",
     "caller_request_id"}
)  # fmt: skip


def _scope(actor: Actor) -> Scope:
    return PLATFORM_SCOPE if actor.may(Permission.PLATFORM_WATCH) else tenant(actor.org_id)


def _whose(actor: Actor, org: UUID | None) -> tuple[Scope, UUID | None]:
    """Return the scope and the organisation to filter by; None (all) is for the operator only."""
    actor.require(Permission.USAGE_READ)
    if actor.may(Permission.PLATFORM_WATCH):
        return PLATFORM_SCOPE, org
    if actor.org_id is None:
        raise PermissionDenied(_("Choose an organisation first."))
    if org not in (None, actor.org_id):
        raise NotFound
    return tenant(actor.org_id), actor.org_id


def _id_of(record: Record) -> UUID | None:
    try:
        return UUID(record.event.id) if record.event else None
    except ValueError:
        return None


def _counts(row: Mapping[str, Any]) -> Counts:
    return Counts(*[int(row[name]) for name in ("calls", "completed", "client_left", "refused", "failed", "in_doubt")])


def _units(row: Mapping[str, Any]) -> dict[str, Decimal]:
    return {unit: row[unit] for unit in UNITS if row[unit]}


def _service_usage(row: Mapping[str, Any]) -> ServiceUsage:
    return ServiceUsage(
        row["service_id"],
        row["name"] or "",
        row["provider_slug"] or "",
        row["slug"] or "",
        row["unit"] or "",
        _counts(row),
        _units(row),
        *quantiles(histogram_of(row["latency"]), (0.5, 0.95, 0.99)),
    )


def _hour(row: Mapping[str, Any]) -> Hour:
    return Hour(
        row["hour"],
        _counts(row),
        int(row["bytes_in"]),
        int(row["bytes_out"]),
        *quantiles(histogram_of(row["latency"]), (0.5, 0.95)),
    )


def _set_aside(row: Mapping[str, Any]) -> SetAside:
    payload = bytes(row["payload"])
    return SetAside(
        row["id"],
        row["worker"],
        row["segment"],
        row["byte_offset"],
        row["reason"],
        msgspec.json.decode(payload) if row["outcome"] else None,
        row["set_aside_at"],
    )


_INVOICE = ("invoice_id", "serial", "line_id", "identity", "position")
_SETTLEMENT = ("settlement_id", "settlement_line_id")


def _list_charge(quantity: Decimal, price: Decimal, cached: Decimal | None, share: Decimal | None) -> Decimal:
    """Return quantity × price, where what came out of the cache costs a share of the price."""
    if cached is None or share is None:
        return multiply(quantity, price)
    return total((multiply(total((quantity, -cached)), price), multiply(multiply(cached, price), share)))


def _pick(row: Mapping[str, Any] | None, *names: str) -> dict[str, Any] | None:
    return {name: row[name] for name in names} if row is not None and row[names[0]] is not None else None
