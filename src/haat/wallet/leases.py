"""Leases: a bounded part of a wallet or a budget, which a gateway draws calls from without asking for each.

A gateway and a fund have one account for life, in billionths of a rupee that only grow: what was authorised, and how
much of it is counted, that is, lies in the usage store. The difference is out of the fund, used or not. It comes back
in two ways only: the gateway gives up what it has not drawn, or the calls it was drawn for are in the usage store. What
a gateway has used is counted once the shipper has passed the places that its journals had by then. So nothing comes
back earlier than the calls can be counted, whoever dies; who falls silent for good keeps its lease until the last
moment at which its calls could still come, or until the operator says that they won't.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from haat.infra.postgres import Connection
from haat.kernel.clock import month_of, month_period
from haat.kernel.money import total
from haat.wallet import holds, store
from haat.wallet.model import from_nano, spendable, to_nano

UNCOUNTABLE = timedelta(days=36)
"""After so long nothing that a gateway has served can come into the usage store by itself: 35 days is the bound."""
Positions = Mapping[str, tuple[int, int]]
"""Segment and offset by the worker whose journal it is."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a gateway says of one fund, and what it wants. All in billionths of a rupee.

    ``limit`` is what it goes by, ``taken`` what calls have taken of that so far, ``used`` how much of it belongs to
    calls that are in its journals; ``need`` is the least that would help it, ``want`` what it would like.
    """

    org: UUID
    fund: str
    limit: int
    taken: int
    used: int
    need: int = 0
    want: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """Up to what a gateway may draw from a fund now, and what was left to others. ``denied``: less than the need."""

    org: UUID
    fund: str
    limit: int
    left: int
    denied: bool


async def sync(
    connection: Connection,
    gateway: str,
    asks: Sequence[Ask],
    positions: Positions,
    *,
    seconds: float,
    tax: Decimal,
    at: datetime | None = None,
) -> list[Answer]:
    """Take note of what a gateway has used and give it more, within the caller's transaction.

    ``positions`` must have been read after the asks' numbers. ``at`` is the database's time by default.
    """
    now = at or await _now(connection)
    orgs = sorted({ask.org for ask in asks})
    for org in orgs:
        await store.lock(connection, org)
    await store.count_shipped(connection, orgs)
    return [await _answer(connection, gateway, ask, positions, now, seconds, tax) for ask in asks]


async def _answer(
    connection: Connection, gateway: str, ask: Ask, positions: Positions, now: datetime, seconds: float, tax: Decimal
) -> Answer:
    row = await store.lease(connection, ask.org, ask.fund, gateway)
    if row is None:  # new, or long counted and forgotten
        row = {"authorised": ask.limit, "counted": ask.used, "mark": None, "latest": None}
    authorised, counted = max(min(row["authorised"], ask.limit), row["counted"]), row["counted"]
    marks = [
        (min(row[name], authorised), row[f"{name}_positions"]) for name in ("mark", "latest") if row[name] is not None
    ]
    if ask.used > (marks[-1][0] if marks else counted):
        marks = [*marks[:1], (ask.used, positions)]
    marks += [(None, {})] * (2 - len(marks))

    async def keep() -> None:
        await store.put_lease(
            connection,
            ask.org,
            ask.fund,
            gateway,
            authorised=authorised,
            counted=counted,
            mark=marks[0][0],
            mark_positions=marks[0][1],
            latest=marks[1][0],
            latest_positions=marks[1][1],
            expires_at=now + timedelta(seconds=seconds),
        )

    await keep()
    left = await _left(connection, ask, now, tax)
    grown = 0
    if ask.want > 0 and left > 0:  # half of what is there, or as much as one call needs; the rest is for others
        grown = min(ask.want, max(ask.need, left // 2) if left >= ask.need else left // 2)
    if grown:
        authorised += grown
        await keep()
    return Answer(ask.org, ask.fund, authorised, left - grown, bool(ask.need and grown < ask.need))


async def _left(connection: Connection, ask: Ask, now: datetime, tax: Decimal) -> int:
    """Return what of a fund neither a lease nor known usage has; below zero when it is overdrawn."""
    if ask.fund == holds.WALLET:
        taken = await holds.held(connection, ask.org, now, tax)
        return to_nano(spendable(await store.grants(connection, ask.org), taken.total, now))
    _, identifier, label = ask.fund.split("/")
    budget = await store.budget(connection, ask.org, UUID(identifier))
    zone = await store.zone_of(connection, ask.org)
    if budget is None or not budget.hard_stop or zone is None:
        return ask.want  # it stops nobody any more; the gateway hears of it in a moment
    year, _, month = label.partition("-")
    period = month_period(int(year), int(month), zone)
    used = (await holds.spent(connection, ask.org, period, [budget]))[budget.id]
    leased = from_nano(await store.leased(connection, ask.org, ask.fund))
    return to_nano(total((budget.amount, -used, -leased)))


async def end(connection: Connection, gateway: str, positions: Positions) -> int:
    """Say that a gateway draws no more: its leases come back once the journals are shipped up to these places."""
    return await store.end_leases(connection, gateway, positions)


async def sweep(connection: Connection, at: datetime) -> int:
    """Forget leases of which nothing is out any more, and those of gateways that fell silent long ago."""
    return await store.forget_leases(connection, at - timedelta(hours=1), at - UNCOUNTABLE)


def period_label(at_us: int, zone: str) -> tuple[str, int]:
    """Return the month of a zone that a moment lies in, and when it ends; in microseconds since the epoch."""
    period = month_of(datetime.fromtimestamp(at_us / 1_000_000, UTC), zone)
    return period.label, int(period.end.timestamp()) * 1_000_000


async def _now(connection: Connection) -> datetime:
    row = await (await connection.execute("SELECT clock_timestamp() AS now")).fetchone()
    assert row is not None
    now: datetime = row["now"]
    return now
