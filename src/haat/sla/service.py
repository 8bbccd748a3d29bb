"""Use cases of service levels: promise, announce maintenance, and see what was kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.clock import Clock, check_ahead, month_of
from haat.kernel.errors import Conflict, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.pages import MAX_PAGE, Page, decode_id_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.kernel.text import check_name
from haat.language.messages import _
from haat.settings import Settings
from haat.sla import counts, store
from haat.sla.access import Leveled
from haat.sla.evidence import Predicate
from haat.sla.maintenance import Span, Window, check, quarter_after, quarter_before
from haat.sla.model import (
    QUANTILES,
    Objective,
    ObjectiveDraft,
    in_force,
    percent_of,
)
from haat.sla.views import (
    AffectedCustomer,
    BrokenCall,
    BudgetView,
    CreditView,
    Incident,
    Measured,
    MonthStory,
    MonthView,
    Probe,
    Report,
    Standing,
)
from haat.usage.model import Pseudonyms, quantile

SHOWN_DAYS = 30
"""The window of what is shown of a listing that promises nothing."""


class Sla(Leveled):
    """Objectives, maintenance, and what was measured; `Watch` measures, `Closing` judges months."""

    def __init__(self, db: Database, clock: Clock, settings: Settings, *, pseudonyms: Pseudonyms) -> None:
        super().__init__(db, clock, settings)
        self._pseudonyms = pseudonyms

    # --- objectives -----------------------------------------------------------------------------

    async def promise(self, actor: Actor, service_id: UUID, draft: ObjectiveDraft) -> Objective:
        """Set what a listing promises; earlier months keep what was promised then.

        The first objective begins when it is asked to, at the next quarter hour by default. A later one begins with a
        calendar month of the operator's zone, the next one by default: nobody lowers a promise while it is broken.
        """
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            listing = await self._own(connection, actor, service_id)
            if listing["status"] == "retired":
                raise Conflict(_("The listing is retired: it promises nothing any more."))
            present = await store.objectives(connection, service_id)
            start = self._begin(draft.effective_from, present, now)
            made = await store.add_objective(connection, listing["org_id"], service_id, draft, start, now)
            data = {
                "version": made.version,
                "effective_from": start.isoformat(),
                **draft.model_dump(mode="json", exclude={"effective_from"}),
            }
            await self._record(connection, listing, "sla.promised", data, actor)
        return made

    def _begin(self, asked: datetime | None, present: Sequence[Objective], now: datetime) -> datetime:
        if asked is not None:
            asked = check_ahead(asked, now, "effective_from")
        if not present:
            return quarter_after(asked or now)
        start = asked or month_of(now, self._zone).end
        if month_of(start, self._zone).start != start:
            message = _("A later objective begins with a calendar month of %(zone)s.", zone=self._zone)
            raise ValidationFailed(errors=[{"field": "effective_from", "message": message}])
        if start <= present[-1].effective_from:
            message = _("Version %(version)s begins then or later: choose a later month.", version=present[-1].version)
            raise ValidationFailed(errors=[{"field": "effective_from", "message": message}])
        return start

    async def objectives(self, actor: Actor | None, service_id: UUID) -> list[Objective]:
        """Return every version of a listing's objective, the oldest first."""
        await self._see(actor, service_id)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await store.objectives(connection, service_id)

    # --- maintenance ----------------------------------------------------------------------------

    async def announce(
        self, actor: Actor, service_id: UUID, starts_at: datetime, ends_at: datetime, note: str = ""
    ) -> Window:
        """Announce that a listing takes no calls for a time: its subscribers are told, and it isn't measured.

        Raise ValidationFailed or Conflict for a window that may not be (see `haat.sla.maintenance.check`).
        """
        now = self._clock.now()
        for field, at in (("starts_at", starts_at), ("ends_at", ends_at)):
            check_ahead(at, now, field)
        span = Span(starts_at.astimezone(UTC), ends_at.astimezone(UTC))
        note = check_name(note, "note", 500) if note.strip() else ""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            listing = await self._own(connection, actor, service_id)
            around = timedelta(days=32)  # every window of every month that this one lies in
            others = await store.windows(connection, service_id, span.start - around, span.end + around)
            check(span, others, now, notice=self._notice, monthly=self._monthly, zone=self._zone)
            window = Window(new_id(), listing["org_id"], service_id, *span, note, now, None)
            await store.add_window(connection, window)
            await self._tell_of(connection, actor, window, "service.maintenance_announced")
        return window

    async def cancel(self, actor: Actor, window_id: UUID) -> Window:
        """Take back a window that hasn't begun, or end one at the next quarter hour; raise Conflict when it is over."""
        self._edits(actor)
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await self._own(connection, actor, (await store.window(connection, window_id)).service_id)
            window = await store.window(connection, window_id)
            if window.cancelled_at is not None or window.ends_at <= now:
                raise Conflict(_("The window is over, or was cancelled before."))
            if now < window.starts_at:
                await store.cancel_window(connection, window_id, now)
            else:
                await store.end_window(connection, window_id, min(window.ends_at, quarter_after(now)))
            window = await store.window(connection, window_id)
            kind = "service.maintenance_cancelled" if window.cancelled_at else "service.maintenance_ended"
            await self._tell_of(connection, actor, window, kind)
        return window

    async def _tell_of(self, connection: Connection, actor: Actor, window: Window, type: str) -> None:
        """Write an event of the service itself: gateways drain it by its windows, so they read it anew."""
        data = {
            "window": str(window.id),
            "starts_at": window.starts_at.isoformat(),
            "ends_at": window.ends_at.isoformat(),
            "note": window.note,
        }
        await self._tell(connection, f"service/{window.service_id}", window.org_id, type, data, actor)

    async def windows(self, actor: Actor | None, service_id: UUID) -> list[Window]:
        """Return a listing's maintenance of the last 30 days and to come; cancelled windows too."""
        await self._see(actor, service_id)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await self._windows(connection, service_id)

    async def _windows(self, connection: Connection, service_id: UUID) -> list[Window]:
        now = self._clock.now()
        return await store.windows(connection, service_id, now - timedelta(days=SHOWN_DAYS), now + timedelta(days=3660))

    # --- what was measured ----------------------------------------------------------------------

    async def report(self, actor: Actor | None, service_id: UUID) -> Report:
        """Return a listing's level at present, to whoever may see the listing."""
        await self._see(actor, service_id)
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            present = await store.objectives(connection, service_id)
            objective = in_force(present, now)
            days = objective.window_days if objective else SHOWN_DAYS
            start = quarter_before(now) - timedelta(days=days)
            if objective is not None:
                start = max(start, present[0].effective_from)
            window = await self._measured(connection, service_id, Span(start, now))
            month = month_of(now, self._zone)
            latency = await counts.latency_of(connection, service_id, quarter_before(now) - timedelta(days=1), now)
            alerts = await store.alerts(connection, service_id)
            suspensions = await store.suspensions(connection, service_id)
            windows = await self._windows(connection, service_id)
            months = await store.months(connection, service_id=service_id, limit=12)
            this_month = await self._measured(connection, service_id, Span(month.start, min(now, month.end)))
        incidents = [
            *(Incident(f"{row['signal']}_{row['pace']}", row["opened_at"], row["closed_at"], row["figures"])
              for row in alerts),
            *(Incident("suspension", row["suspended_at"], row["restored_at"], row["figures"]) for row in suspensions),
        ]  # fmt: skip
        return Report(
            service_id,
            now,
            objective,
            next((one for one in present if one.effective_from > now), None),
            window,
            BudgetView.of(window.counts, objective.availability) if objective else None,
            this_month,
            {name: quantile(latency, float(share)) for name, share in QUANTILES.items()},
            sorted(incidents, key=lambda one: one.since, reverse=True),
            [one for one in windows if one.cancelled_at is None],
            [_month_view(row) for row in months],
        )

    async def standing(self, actor: Actor | None, service_id: UUID) -> Standing:
        """Return the public figure of a listing, to whoever may see it."""
        await self._see(actor, service_id)
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            objective = in_force(await store.objectives(connection, service_id), now)
            days = objective.window_days if objective else SHOWN_DAYS
            measured = await self._measured(
                connection, service_id, Span(quarter_before(now) - timedelta(days=days), now)
            )
            windows = await store.windows(connection, service_id, now, now + timedelta(days=3660))
        return Standing(
            measured.availability,
            measured.source,
            days,
            objective.availability if objective else None,
            next((one for one in windows if one.cancelled_at is None), None),
        )

    async def _measured(self, connection: Connection, service_id: UUID, span: Span) -> Measured:
        found = await counts.counts_of(connection, service_id, *span)
        share = found.availability
        return Measured(*span, found, None if share is None else percent_of(share), found.source)

    async def probes(self, actor: Actor, service_id: UUID, limit: int = 100) -> list[Probe]:
        """Return the newest probes of one's own service, or for the operator of any."""
        actor.require(Permission.SERVICES_READ_OWN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            listing = await store.listing(connection, service_id)
            if listing["org_id"] != actor.org_id and not actor.may(Permission.PLATFORM_WATCH):
                raise NotFound
            since = self._clock.now() - timedelta(days=SHOWN_DAYS)
            return [Probe(**row) for row in await counts.probes(connection, service_id, since, min(limit, 1000))]

    # --- months ---------------------------------------------------------------------------------

    async def breaches(
        self,
        actor: Actor,
        *,
        service_id: UUID | None = None,
        every_month: bool = False,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[MonthView]:
        """Return broken months, or all that were judged, the newest first.

        The operator sees everybody's; an organisation those of its own listings, and those that affected its calls.
        """
        actor.require(Permission.USAGE_READ)
        limit = max(1, min(limit, MAX_PAGE))
        mine = None
        if not actor.may(Permission.PLATFORM_WATCH):
            if actor.org_id is None:
                raise NotFound
            mine = actor.org_id
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await store.months(
                connection,
                service_id=service_id,
                mine=mine,
                breached=not every_month,
                before=decode_id_cursor(cursor),
                limit=limit + 1,
            )
        return page_of([_month_view(row) for row in rows], limit, lambda month: (month.id,))

    async def month(self, actor: Actor, identifier: UUID) -> MonthStory:
        """Return a judged month with its evidence and what it credited, as far as that is the asker's."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row, whose = await self._own_month(connection, actor, identifier)
            affected = await store.affected(connection, identifier)
            credits = await store.credits(connection, identifier, whose)
        names = _Names(self._pseudonyms, row["org_id"], actor)
        return MonthStory(
            _month_view(row),
            row["fault"],
            row["evidence"],
            [
                AffectedCustomer(names.of(one["org_id"]), one["calls"])
                for one in affected
                if whose in (None, one["org_id"])
            ],
            [
                CreditView(
                    names.of(one["org_id"]),
                    one["invoice_id"] if names.open_to(one["org_id"]) else None,
                    one["credit_note_id"] if names.open_to(one["org_id"]) else None,
                    one["taxable"],
                    one["debited"] if whose is None else Decimal(0),
                    one["posted_at"],
                )
                for one in credits
            ],
        )

    async def calls(
        self, actor: Actor, identifier: UUID, *, cursor: str | None = None, limit: int = 100
    ) -> Page[BrokenCall]:
        """Return the calls that broke a month's promise, found by its frozen predicate: a customer's own, or all."""
        limit = max(1, min(limit, MAX_PAGE))
        after = decode_id_cursor(cursor)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row, whose = await self._own_month(connection, actor, identifier)
            predicate = Predicate.of(row["evidence"]["predicate"])
            rows = await counts.broken_calls(connection, predicate, whose, after, limit + 1)
        found = [
            BrokenCall(one["id"], one["at"], one["status"], one["outcome"], one["error_code"], one["ms"])
            for one in rows
        ]
        return page_of(found, limit, lambda call: (call.id,))

    async def _own_month(self, connection: Connection, actor: Actor, identifier: UUID) -> tuple[store.Row, UUID | None]:
        """Return a judged month and whose part of it the asker may see, None for all; raise NotFound."""
        actor.require(Permission.USAGE_READ)
        row = await store.month_by_id(connection, identifier)
        if row is None:
            raise NotFound
        if actor.may(Permission.PLATFORM_WATCH):
            return row, None
        if row["org_id"] == actor.org_id and actor.may(Permission.SERVICES_READ_OWN):
            return row, None
        if actor.org_id is None:
            raise NotFound
        mine = await store.months(connection, mine=actor.org_id, service_id=row["service_id"], limit=1000)
        if all(one["id"] != identifier for one in mine):
            raise NotFound
        return row, actor.org_id


@dataclass(frozen=True, slots=True)
class _Names:
    """What an asker calls customers: by their ids for the operator and themselves, else by a provider's pseudonyms."""

    pseudonyms: Pseudonyms
    provider: UUID
    actor: Actor

    def open_to(self, org: UUID) -> bool:
        return org == self.actor.org_id or self.actor.may(Permission.PLATFORM_WATCH)

    def of(self, org: UUID) -> str:
        return str(org) if self.open_to(org) else self.pseudonyms.of(self.provider, org)


def _month_view(row: store.Row) -> MonthView:
    return MonthView(
        row["id"],
        row["service_id"],
        row["period"],
        row["verdict"],
        None if row["availability"] is None else row["availability"].quantize(Decimal("0.001"), "ROUND_DOWN"),
        row["source"],
        row["missed"],
        row["credit"],
        row["judged_at"],
    )
