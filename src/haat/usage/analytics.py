"""Dashboards from rollups: how many calls, how well, how fast, what they brought, compared with the time before.

Three look at the same calls: who made them, who executed them, and the operator. A provider sees of its customers
pseudonyms, and of few customers nothing that is theirs: where fewer than `SMALL_GROUP` stand behind a figure, it is
added to others'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from haat.infra.postgres import PLATFORM_SCOPE, Database, Scope, tenant
from haat.kernel.clock import Clock, Period, month_of, month_period
from haat.kernel.errors import InvalidRequest, PermissionDenied
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _
from haat.usage import analytics_store as store
from haat.usage import intake, rebuild, rollups
from haat.usage.analytics_store import Question, Row, Spans, spans_of
from haat.usage.model import UNITS, Pseudonyms, merged, month_named, quantiles
from haat.usage.store import zone_of

SMALL_GROUP = 5
"""A figure of fewer customers than these would be one of them to who knows it."""
TOP = 20
WINDOWS = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}
OTHER_PAIRS = "other"


@dataclass(frozen=True, slots=True)
class Window:
    """What a dashboard shows: a period in steps of an ``hour`` or a ``day``, and the one it is compared with."""

    period: Period
    before: Period
    step: str
    zone: str

    def local(self, at: datetime) -> datetime:
        """Return what a clock on the wall shows at an instant, to the whole hour."""
        return at.astimezone(ZoneInfo(self.zone)).replace(minute=0, second=0, microsecond=0, tzinfo=None)


@dataclass(frozen=True, slots=True)
class Figures:
    """Calls by what became of them, and how long those took that reached a provider.

    ``success_rate`` is the part of dispatched calls that the provider answered with success; None without any.
    """

    calls: int = 0
    completed: int = 0
    client_left: int = 0
    refused: int = 0
    failed: int = 0
    in_doubt: int = 0
    success_rate: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """How a period differs from the one before; None where one of the two has nothing to compare."""

    calls: float | None
    """Relative: 0.5 is half as many again."""
    success_rate: float | None
    """In points of the rate."""
    p95_ms: float | None
    """Relative."""


@dataclass(frozen=True, slots=True)
class Point:
    """One step of the series; ``at`` is its beginning on the wall of the dashboard's zone."""

    at: datetime
    figures: Figures


@dataclass(frozen=True, slots=True)
class Part:
    """The figures of one service, application, provider, language pair or status class."""

    key: str
    name: str
    figures: Figures
    units: Mapping[str, Decimal]
    """Billed quantities; of services only."""
    net: Decimal | None = None
    """What issued invoices of the month came to before tax, less what credit notes took back; of services, and where
    the period is a month."""
    earned: Decimal | None = None
    """The provider's share of that."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A customer as its provider knows it."""

    pseudonym: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Consumers:
    """A provider's customers: those with most calls, unless they are so few that each would be known.

    ``number`` is None when there are some, and fewer than `SMALL_GROUP`.
    """

    number: int | None
    top: Sequence[Consumer]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Everything that one view of a period shows. Times are UTC but for the points'."""

    window: Window
    totals: Figures
    before: Figures
    change: Change
    series: Sequence[Point]
    services: Sequence[Part]
    language_pairs: Sequence[Part]
    status_classes: Sequence[Part]
    applications: Sequence[Part] = ()
    providers: Sequence[Part] = ()
    consumers: Consumers | None = None
    net: Decimal | None = None
    earned: Decimal | None = None


class Analytics:
    """Answers from rollups, never from calls, however many there were."""

    def __init__(self, db: Database, clock: Clock, pseudonyms: Pseudonyms, zone: str) -> None:
        self._db, self._clock, self._pseudonyms, self._zone = db, clock, pseudonyms, zone

    async def window(self, actor: Actor, name: str | None = None) -> Window:
        """Return the window that ``24h``, ``7d``, ``30d`` or a month such as ``2026-11`` names, the running month
        by default, in the zone of the actor's organisation."""
        zone = self._zone
        if actor.org_id is not None:
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                zone = await zone_of(connection, actor.org_id) or zone
        return window_of(name, self._clock.now(), zone)

    async def consumer(
        self, actor: Actor, window: Window, *, service_id: UUID | None = None, application_id: UUID | None = None
    ) -> Dashboard:
        """Return the dashboard of the actor's organisation as a customer."""
        actor.require(Permission.USAGE_READ)
        if actor.org_id is None:
            raise PermissionDenied(_("Choose an organisation first."))
        asked = Question(org=actor.org_id, service_id=service_id, application_id=application_id)
        return await self._dashboard(tenant(actor.org_id), asked, window)

    async def provider(self, actor: Actor, window: Window, *, service_id: UUID | None = None) -> Dashboard:
        """Return the dashboard of the actor's organisation as a provider: of what it executed, by whomever called."""
        actor.require(Permission.SERVICES_READ_OWN)
        if actor.org_id is None:
            raise PermissionDenied(_("Choose an organisation first."))
        asked = Question(provider_org=actor.org_id, service_id=service_id)
        seen = await self._dashboard(tenant(actor.org_id), asked, window)
        return replace(seen, providers=())

    async def operator(
        self,
        actor: Actor,
        window: Window,
        *,
        service_id: UUID | None = None,
        provider_org: UUID | None = None,
    ) -> Dashboard:
        """Return the dashboard of the whole market, or of one provider or service."""
        actor.require(Permission.PLATFORM_WATCH)
        asked = Question(provider_org=provider_org, service_id=service_id)
        return await self._dashboard(PLATFORM_SCOPE, asked, window)

    async def rebuild(self, actor: Actor) -> int:
        """Make all rollups anew from the rows; return of how many calls. No usage comes in meanwhile."""
        actor.require(Permission.DEAD_LETTERS_REPLAY)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await intake.lock(connection)
            return await rebuild.rebuild(connection)

    async def _dashboard(self, scope: Scope, asked: Question, window: Window) -> Dashboard:
        zone = window.zone
        async with self._db.transaction(scope) as connection:
            await store.expect_many_rows(connection)
            settled = await rollups.settled_until(connection)
            spans = spans_of(window.period.start, window.period.end, zone, settled)
            before = spans_of(window.before.start, window.before.end, zone, settled)
            # An hour is not found in a day's sum.
            fine = spans if window.step == "day" else Spans(None, ((window.period.start, window.period.end),))
            series = await store.divided(connection, asked, fine, "when", step=window.step, zone=zone)
            earlier = await store.divided(connection, asked, before, None)
            services = await store.divided(connection, asked, spans, "service_id", units=True)
            pairs = await store.divided(connection, asked, spans, "language_pair")
            classes = await store.divided(connection, asked, spans, "status_class", sketches=False)
            owners: dict[str, list[Row]] = {"application_id": [], "provider_org": []}
            if asked.org is not None:
                owners["application_id"] = await store.divided(connection, asked, spans, "application_id")
            if asked.provider_org is None:
                owners["provider_org"] = await store.divided(connection, asked, spans, "provider_org")
            consumers = None
            if asked.provider_org is not None:
                customers = await store.customers(connection, asked.provider_org, spans)
                consumers = self._consumers(asked.provider_org, customers)
                pairs = _without_small_groups(pairs, _customers_of_pairs(customers))
        # Names are public to whom the rollups name them, and lines are looked up for their owner: policies would hide
        # a provider's lines behind its customers' invoices.
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            named = await store.names(
                connection, _keys(services), _keys(owners["application_id"]), _keys(owners["provider_org"])
            )
            money: dict[UUID, Row] = {}
            if month := _month_label(window):
                rows = await store.revenue(connection, month, org=asked.org, provider_org=asked.provider_org)
                money = {row["service_id"]: row for row in rows if asked.service_id in (None, row["service_id"])}
        totals = _total(series)
        then = _figures(earlier[0]) if earlier else Figures()
        shows_earned = asked.org is None
        return Dashboard(
            window=window,
            totals=totals,
            before=then,
            change=change_of(totals, then),
            series=[Point(row["key"], _figures(row)) for row in sorted(series, key=lambda row: row["key"])],
            services=[_service(row, named, money, shows_earned=shows_earned) for row in services],
            language_pairs=[_part(row, row["key"]) for row in pairs],
            status_classes=[_part(row, f"{row['key']}xx") for row in classes],
            applications=[_part(row, named.get(row["key"], "")) for row in owners["application_id"]],
            providers=[_part(row, named.get(row["key"], "")) for row in owners["provider_org"]],
            consumers=consumers,
            net=sum((row["net"] for row in money.values()), Decimal(0)) if month else None,
            earned=sum((row["provider_amount"] for row in money.values()), Decimal(0))
            if month and shows_earned
            else None,
        )

    def _consumers(self, provider_org: UUID, customers: Sequence[Row]) -> Consumers:
        if 0 < len(customers) < SMALL_GROUP:
            return Consumers(None, ())
        most = sorted(customers, key=lambda row: (-row["calls"], row["org_id"]))[:TOP]
        top = [Consumer(self._pseudonyms.of(provider_org, row["org_id"]), _figures(row)) for row in most]
        return Consumers(len(customers), top)


def _customers_of_pairs(rows: Sequence[Row]) -> dict[str, frozenset[UUID]]:
    """Return who called with each language pair."""
    found: dict[str, set[UUID]] = {}
    for row in rows:
        for pair in row["pairs"]:
            found.setdefault(pair, set()).add(row["org_id"])
    return {pair: frozenset(who) for pair, who in found.items()}


def window_of(name: str | None, now: datetime, zone: str) -> Window:
    """Return a window; raise InvalidRequest for a name that is none.

    A running month is compared with as much of the month before as has gone of it.
    """
    if name is not None and name in WINDOWS:
        span, step = WINDOWS[name], "hour" if name == "24h" else "day"
        if step == "hour":
            whole = now.astimezone(ZoneInfo(zone)).replace(minute=0, second=0, microsecond=0)  # on this zone's wall
            end = whole.astimezone(UTC) + timedelta(hours=1)
            start = end - span
            before = Period(start - span, start, f"{name} before")
        else:
            tz = ZoneInfo(zone)
            today = now.astimezone(tz).date()
            edges = [
                datetime.combine(today + timedelta(days=1 - span.days * times), time(), tz).astimezone(UTC)
                for times in range(3)
            ]
            end, start = edges[0], edges[1]
            before = Period(edges[2], edges[1], f"{name} before")
        return Window(Period(start, end, name), before, step, zone)
    try:
        period = month_named(name, zone) if name else month_of(now, zone)
    except InvalidRequest as error:
        raise InvalidRequest(_("A window is 24h, 7d, 30d, or a month such as 2026-11.")) from error
    last = month_of(period.start - timedelta(days=1), zone)
    end = last.end
    if now in period:
        gone = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1) - period.start
        end = min(last.end, last.start + gone)
    return Window(period, Period(last.start, end, last.label), "day", zone)


def change_of(now: Figures, before: Figures) -> Change:
    """Compare two periods."""
    rates = (now.success_rate, before.success_rate)
    return Change(
        _relative(now.calls, before.calls),
        None if rates[0] is None or rates[1] is None else round(rates[0] - rates[1], 6),
        _relative(now.p95_ms, before.p95_ms),
    )


def _relative(now: float | None, before: float | None) -> float | None:
    return None if now is None or not before else round(now / before - 1, 4)


def _month_label(window: Window) -> str | None:
    """Return the label by which invoices know a period: that of a month, None for any other."""
    label = window.period.label
    if label in WINDOWS:
        return None
    whole = month_period(int(label[:4]), int(label[5:7]), window.zone)
    return label if whole == window.period else None


def _figures(row: Mapping[str, Any]) -> Figures:
    return _measured(row, row.get("latency", {}))


def _total(rows: Sequence[Row]) -> Figures:
    """Add up the rows of a series, their sketches too."""
    if not rows:
        return Figures()
    counts = {name: sum(row[name] for row in rows) for name in _COUNTS}
    return _measured(counts, merged(row["latency"] for row in rows))


_COUNTS = ("calls", "completed", "client_left", "refused", "failed", "in_doubt")


def _measured(counts: Mapping[str, Any], histogram: Mapping[int, int]) -> Figures:
    calls, completed, client_left, refused, failed, in_doubt = (int(counts[name]) for name in _COUNTS)
    dispatched = completed + failed
    return Figures(
        calls,
        completed,
        client_left,
        refused,
        failed,
        in_doubt,
        round(completed / dispatched, 6) if dispatched else None,
        *quantiles(histogram, (0.5, 0.95, 0.99)),
    )


def _part(row: Row, name: str) -> Part:
    return Part(str(row["key"]) if row["key"] is not None else "", name, _figures(row), {})


def _service(row: Row, named: Mapping[UUID, str], money: Mapping[UUID, Row], *, shows_earned: bool) -> Part:
    brought = money.get(row["key"])
    return Part(
        str(row["key"]) if row["key"] is not None else "",
        named.get(row["key"], ""),
        _figures(row),
        {unit: row[unit] for unit in UNITS if row[unit]},
        brought["net"] if brought else None,
        brought["provider_amount"] if brought and shows_earned else None,
    )


def _keys(rows: Sequence[Row]) -> list[UUID]:
    return [row["key"] for row in rows if row["key"] is not None]


def _without_small_groups(pairs: Sequence[Row], customers: Mapping[str, frozenset[UUID]]) -> list[Row]:
    """Add language pairs up that few customers called with, and a further pair if few stand behind the sum, too.

    Otherwise the difference from the whole would tell what was left out.
    """
    ordered = sorted(pairs, key=lambda row: len(customers.get(row["key"], ())))
    hidden: list[Row] = []
    behind: set[UUID] = set()
    enough = False
    while ordered:
        who = customers.get(ordered[0]["key"], frozenset())
        if len(who) >= SMALL_GROUP and (not hidden or enough):
            break
        hidden.append(ordered.pop(0))
        behind |= who
        enough = len(behind) >= SMALL_GROUP
    if hidden and not enough:
        return []
    shown = sorted(ordered, key=lambda row: -int(row["calls"]))
    if hidden:
        shown.append(
            {
                "key": OTHER_PAIRS,
                **{name: sum(row[name] for row in hidden) for name in _COUNTS},
                "latency": merged(row["latency"] for row in hidden),
            }
        )
    return shown
