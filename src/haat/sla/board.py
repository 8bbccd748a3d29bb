"""The operator's board of service levels: what is in trouble first, then everything that promises something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.kernel.clock import Clock
from haat.kernel.pages import MAX_PAGE, Page, decode_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.sla import board_store, counts
from haat.sla.model import Counts, percent_of
from haat.sla.views import BudgetView

MOST_TROUBLE = 100
"""Listings in trouble that are shown; with more of them nobody reads on."""
_SHOWN_DAYS = 30


@dataclass(frozen=True, slots=True)
class Place:
    """A listing on the board.

    ``promised`` and ``measured`` are percentages over ``days``, None where nothing is promised or too little was
    measured; ``alerts`` are open ones, as a signal and its pace, such as ``p95_fast``; ``breach`` is the newest judged
    month in which the promise was broken.
    """

    service_id: UUID
    path: str
    name: str
    status: str
    promised: Decimal | None
    measured: Decimal | None
    source: str | None
    days: int
    budget: BudgetView | None
    alerts: Sequence[str]
    suspended_since: datetime | None
    maintenance_until: datetime | None
    breach: UUID | None

    @property
    def severity(self) -> tuple[int, Decimal]:
        """What comes first in order of this: suspended ones, fast alerts, slow ones; the emptier budget before."""
        fast = any(alert.endswith("_fast") for alert in self.alerts)
        rank = 0 if self.suspended_since else 1 if fast else 2 if self.alerts else 3
        return rank, -self.budget.spent if self.budget else Decimal(0)


class Board:
    """Standings of all listings that promise something, for the operator."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db, self._clock = db, clock

    async def trouble(self, actor: Actor) -> list[Place]:
        """Return listings with an open alert, suspended for their uptime or in maintenance, the worst first.

        They are `MOST_TROUBLE` at most.
        """
        actor.require(Permission.PLATFORM_WATCH)
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            troubled = await board_store.troubled(connection, now, MOST_TROUBLE)
            rows = await counts.standings(connection, now, troubled, _SHOWN_DAYS)
        return sorted((_place(row) for row in rows), key=lambda place: (*place.severity, place.path))

    async def page(self, actor: Actor, *, cursor: str | None = None, limit: int = 25) -> Page[Place]:
        """Return every listing with an objective in force, in order of their addresses."""
        actor.require(Permission.PLATFORM_WATCH)
        limit = max(1, min(limit, MAX_PAGE))
        after = decode_cursor(cursor, 2, str, str) if cursor else ["", ""]
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            promising = await board_store.promising(connection, now, (after[0], after[1]), limit + 1)
            rows = await counts.standings(connection, now, promising, _SHOWN_DAYS)
        return page_of([_place(row) for row in rows], limit, lambda place: tuple(place.path.split("/")))


def _place(row: counts.Row) -> Place:
    found = Counts(row["answered"], row["failed"], row["down"], row["probes_good"], row["probes_bad"])
    share, promised = found.availability, row["promised"]
    return Place(
        row["id"],
        f"{row['provider_slug']}/{row['slug']}",
        row["name"],
        row["status"],
        promised,
        None if share is None else percent_of(share),
        found.source,
        row["days"],
        None if promised is None else BudgetView.of(found, promised),
        row["alerts"],
        row["suspended_since"],
        row["maintenance_until"],
        row["breach"],
    )
