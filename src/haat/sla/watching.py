"""What happens every minute: calls are gathered, alerts open and close, listings are suspended and come back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from fractions import Fraction
from uuid import UUID

from haat.catalog.service import Catalog
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.clock import Clock
from haat.kernel.errors import HaatError
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.sla import burn, counts, store, uptime
from haat.sla.access import Leveled
from haat.sla.burn import Burn, Rule
from haat.sla.maintenance import quarter_before
from haat.sla.model import LEAST_PROBES, Counts, Objective, Signal, in_force, percent_of, slow_of

log = logging.getLogger(__name__)

_WINDOWS = tuple(
    sorted({window for rule in burn.RULES for window in (rule.short, rule.long)} | {uptime.RECENT, uptime.LATEST})
)
_NOTHING: Mapping[timedelta, Counts] = dict.fromkeys(_WINDOWS, Counts())
KEEP_GOOD_PROBES, KEEP_BAD_PROBES = timedelta(days=62), timedelta(days=400)


class Watch(Leveled):
    """Looks at every listing. Running twice, or twice at once, does what running once does."""

    def __init__(self, db: Database, clock: Clock, settings: Settings, *, catalog: Catalog) -> None:
        super().__init__(db, clock, settings)
        self._catalog = catalog

    async def gather(self) -> None:
        """Count what the intake has brought since the last time."""
        more = True
        while more:
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                more = await counts.gather(connection, self._clock.now())

    async def review(self) -> None:
        """Gather, then look at each listing; one that can't be looked at stops no other."""
        await self.gather()
        now = self._clock.now()
        end = now.replace(second=0, microsecond=0)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            seen = await counts.lately(connection, end, _WINDOWS)
            promised: dict[UUID, list[Objective]] = {}
            for one in await store.objectives(connection):
                promised.setdefault(one.service_id, []).append(one)
            suspended = set(await store.open_suspensions(connection))
        for service_id in sorted(seen.keys() | promised.keys() | suspended):
            objective = in_force(promised.get(service_id, []), now)
            recent = seen.get(service_id, _NOTHING)
            try:
                if objective is not None:
                    await self._alert(objective, recent, end, now)
                await self._judge_uptime(service_id, recent, service_id in suspended, end, now)
            except HaatError as error:
                log.warning("the level of service %s was not looked at: %s", service_id, error.detail)

    # --- alerts ---------------------------------------------------------------------------------

    async def _alert(
        self, objective: Objective, recent: Mapping[timedelta, Counts], end: datetime, now: datetime
    ) -> None:
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock(connection, objective.service_id)
            present = await store.open_alerts(connection, objective.service_id)
            for rule in burn.RULES:
                short, long = recent[rule.short], recent[rule.long]
                found = burn.of_availability(rule, short, long, objective.availability, objective.window_days)
                await self._step(connection, objective, "availability", rule, found, present, now)
                for signal, limit in objective.latencies.items():
                    found = await self._latency_burn(connection, objective, rule, signal, limit, end)
                    await self._step(connection, objective, signal, rule, found, present, now)

    async def _latency_burn(
        self, connection: Connection, objective: Objective, rule: Rule, signal: Signal, limit: int, end: datetime
    ) -> Burn:
        service = objective.service_id
        short, long = [
            slow_of(await counts.latency_of(connection, service, end - window, end, 1), limit)
            for window in (rule.short, rule.long)
        ]
        return burn.of_latency(rule, signal, short, long, objective.window_days)

    async def _step(
        self,
        connection: Connection,
        objective: Objective,
        signal: Signal,
        rule: Rule,
        found: Burn,
        present: Mapping[tuple[str, str], store.Row],
        now: datetime,
    ) -> None:
        alert = present.get((signal, rule.pace))
        step = burn.step(
            rule, found, now, is_open=alert is not None, quiet_since=alert["quiet_since"] if alert else None
        )
        if alert is None and step.do == "nothing":
            return
        listing = await store.listing(connection, objective.service_id)
        figures = {
            "objective": objective.version,
            "short_minutes": rule.short // timedelta(minutes=1),
            "long_minutes": rule.long // timedelta(minutes=1),
            "short_rate": _rate(found.short),
            "long_rate": _rate(found.long),
            "factor": _rate(found.factor),
        }
        if alert is None:
            alert_id = await store.add_alert(
                connection, listing["org_id"], objective.service_id, signal, rule.pace, now, figures
            )
            data = {"alert": str(alert_id), "signal": signal, "pace": rule.pace, **figures}
            await self._record(connection, listing, "sla.alert_opened", data)
        elif step.do == "close":
            await store.close_alert(connection, alert["id"], now)
            data = {"alert": str(alert["id"]), "signal": signal, "pace": rule.pace, **figures}
            await self._record(connection, listing, "sla.alert_closed", data)
        elif step.quiet_since != alert["quiet_since"]:
            await store.set_quiet(connection, alert["id"], step.quiet_since)

    # --- suspension -----------------------------------------------------------------------------

    async def _judge_uptime(
        self, service_id: UUID, recent: Mapping[timedelta, Counts], suspended: bool, end: datetime, now: datetime
    ) -> None:
        last = recent[uptime.RECENT]
        if not suspended and not last.down and not last.probes_bad:
            return  # it does well: nothing is read of it
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock(connection, service_id)
            listing = await store.listing(connection, service_id)
            past = await store.suspensions(connection, service_id, 100)
            if past and past[0]["restored_at"] is None:
                await self._restore(connection, listing, past, now)
            elif listing["status"] in ("published", "deprecated"):
                await self._suspend(connection, listing, past, last, recent[uptime.LATEST], end, now)

    async def _suspend(
        self,
        connection: Connection,
        listing: store.Row,
        past: list[store.Row],
        recent: Counts,
        latest: Counts,
        end: datetime,
        now: datetime,
    ) -> None:
        service_id, start = listing["id"], quarter_before(now) - uptime.DAY
        since = max([start, *(row["restored_at"] for row in past[:1])])
        if since > start:  # minutes, because it came back in the middle of a quarter hour
            day = await counts.counts_of(connection, service_id, since, end, 1)
            half_hour = max(end - uptime.RECENT, since)
            recent = await counts.counts_of(connection, service_id, half_hour, end, 1)
        else:
            day, half_hour = await counts.counts_of(connection, service_id, start, now), end - uptime.RECENT
        share = uptime.uptime(day)
        if share is None or share >= uptime.LEAST_UPTIME or await self._hosted(connection, listing):
            return
        minutes = await counts.bad_minutes(connection, service_id, half_hour, end)
        callers = await counts.callers_let_down(connection, service_id, since, now)
        if not uptime.is_down(day, recent, latest, minutes, callers):
            return
        figures = {
            "uptime": str(percent_of(share)),
            "source": day.source,
            "calls": day.calls,
            "down": day.down,
            "probes": day.probes,
            "probes_bad": day.probes_bad,
            "hold_minutes": uptime.hold(_lately(past, now)) // timedelta(minutes=1),
        }
        reason = (
            f"It was there for {figures['uptime']} % of the last 24 hours, which is less than 90 %. "
            "It comes back by itself when it answers again."
        )
        await self._catalog.suspend_within(connection, PLATFORM, service_id, reason)
        await store.add_suspension(connection, listing["org_id"], service_id, now, figures)
        await self._record(connection, listing, "sla.suspended", figures)

    async def _restore(self, connection: Connection, listing: store.Row, past: list[store.Row], now: datetime) -> None:
        service_id, present = listing["id"], past[0]
        if listing["status"] != "suspended":  # the operator was sooner
            await store.end_suspension(connection, service_id, now)
            return
        rows = await counts.probes(connection, service_id, present["suspended_at"], LEAST_PROBES)
        probes = [row["good"] for row in rows if row["counted"]]
        if listing["partner_status"] != "approved" or not uptime.is_back(
            probes, present["suspended_at"], now, _lately(past[1:], now)
        ):
            return
        await self._catalog.restore_within(connection, PLATFORM, service_id)
        await store.end_suspension(connection, service_id, now)
        await self._record(connection, listing, "sla.restored", {"probes": len(probes)})

    # --- housekeeping ---------------------------------------------------------------------------

    async def forget(self) -> None:
        """Drop what nobody reads any more."""
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await counts.forget(connection, now - counts.MINUTES_KEPT, now - KEEP_GOOD_PROBES, now - KEEP_BAD_PROBES)


def _lately(past: list[store.Row], now: datetime) -> int:
    """Return how many suspensions of the last days make the next one longer."""
    return sum(1 for row in past if now - row["suspended_at"] < uptime.REMEMBERED)


def _rate(rate: Fraction | None) -> str | None:
    return None if rate is None else f"{float(rate):.2f}"
