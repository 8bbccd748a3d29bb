"""What happens to service levels by itself: each minute, each hour, and the mails that follow."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID
from zoneinfo import ZoneInfo

from haat.infra import events
from haat.infra.jobs import NewJob, Retry, RunningJob, Schedule, Task
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import month_of
from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM
from haat.sla import store
from haat.sla.closing import GRACE

if TYPE_CHECKING:
    from haat.app import Platform


async def review(platform: Platform, _: RunningJob) -> None:
    """Gather what was called, open and close alerts, suspend and restore."""
    await platform.sla_watch.review()


async def probe(platform: Platform, _: RunningJob) -> None:
    """Look at every service whose time has come."""
    await platform.sla_prober.probe_due()


async def close(platform: Platform, job: RunningJob) -> None:
    """Judge the month that is over, and credit what breaches owe on invoices issued since."""
    now = platform.clock.now()
    last = month_of(month_of(now, platform.settings.zone).start - timedelta(days=1), platform.settings.zone)
    if now >= last.end + GRACE:
        closed = await platform.sla_closing.close(PLATFORM, last.label)
        await job.report(0.5, f"{last.label}: {len(closed.judged)} judged, {len(closed.paid)} invoices credited")
    paid, failed = await platform.sla_closing.pay(PLATFORM)
    await job.report(1, f"{len(paid)} invoices credited, {len(failed)} not")


async def forget(platform: Platform, _: RunningJob) -> None:
    """Drop minutes and probes that nobody reads any more."""
    await platform.sla_watch.forget()


# --- mails ------------------------------------------------------------------------------------------

_SIGNALS = {"availability": "availability", "p50": "p50 latency", "p95": "p95 latency", "p99": "p99 latency"}
_SUBJECTS = {
    "sla.alert_opened": "{name}: the error budget of its {signal} burns",
    "sla.alert_closed": "{name}: the error budget of its {signal} is calm again",
    "sla.suspended": "{name} is suspended for its uptime",
    "sla.restored": "{name} is open again",
    "sla.breached": "{name} has missed its objective of {period}",
}
_TEXTS = {
    "sla.alert_opened": (
        "In the last {long_minutes} minutes the {signal} of {name} used up its error budget {long_rate} times as fast "
        "as it may, and {short_rate} times in the last {short_minutes}. The alert is for {factor} times and more.\n"
    ),
    "sla.alert_closed": "The {signal} of {name} is within what its error budget lets go wrong.\n",
    "sla.suspended": (
        "{name} was there for {uptime} % of the last 24 hours (by {source}), which is less than 90 %. Nobody can call "
        "it now. It opens by itself after {hold_minutes} minutes at the earliest, when 20 probes in a row were well.\n"
    ),
    "sla.restored": "{name} answered every one of its last {probes} probes and can be called again.\n",
    "sla.breached": (
        "In {period} the availability of {name} was {availability} %. Missed: {missed}. Customers whose calls were "
        "affected ({affected}) are credited {credit} % of what they were charged for it that month.\n"
    ),
}


async def mail_incident(platform: Platform, event: DomainEvent) -> None:
    """Tell the provider and the operator what goes on with a listing."""
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        listing = await store.listing(connection, UUID(event.stream.removeprefix("sla/")))
    words = {**event.data, "name": listing["name"], "signal": _SIGNALS.get(str(event.data.get("signal")), "")}
    words["missed"] = ", ".join(_SIGNALS[one] for one in event.data.get("missed", ()))
    page = f"{platform.settings.portal_address}/services/{listing['provider_slug']}/{listing['slug']}/level"
    addresses = {str(listing["partner_email"])}
    operator = await platform.identity.operator()
    if operator is not None:
        addresses.update(await platform.identity.member_emails(operator.id))
    for address in sorted(addresses):
        await platform.mail.send(
            to=address,
            subject=_SUBJECTS[event.type].format_map(words),
            text=f"{_TEXTS[event.type].format_map(words)}\nLook at it here: {page}\n",
            message_id=f"{event.id}.{address.replace('@', '.at.')}",
        )


async def tell_subscribers(platform: Platform, event: DomainEvent) -> None:
    """Have every subscriber told of maintenance: a job each, so that one bad address holds up nobody."""
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        orgs = await store.subscribers(connection, UUID(event.stream.removeprefix("service/")))
        await platform.jobs.defer_many(
            connection,
            [
                NewJob(
                    MAIL_SUBSCRIBER.name, {"event": str(event.id), "org": str(org)}, key=f"sla.mail:{event.id}:{org}"
                )
                for org in orgs
            ],
        )


_MAINTENANCE = {
    "service.maintenance_announced": (
        "Maintenance of {name} on {day}",
        "{name} takes no calls from {start} to {end} ({zone}). Calls are refused with 503 and cost nothing; try them "
        "again when the window is over.\n{note}",
    ),
    "service.maintenance_cancelled": (
        "No maintenance of {name} on {day}",
        "The maintenance of {name} that was announced from {start} to {end} ({zone}) does not take place.\n",
    ),
    "service.maintenance_ended": (
        "The maintenance of {name} ends sooner",
        "{name} takes calls again from {end} on ({zone}).\n",
    ),
}


async def mail_subscriber(platform: Platform, job: RunningJob) -> None:
    """Tell one organisation's members of a listing's maintenance, in the organisation's own time."""
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        event = await events.read_event(connection, UUID(job.args["event"]))
        assert event is not None, "events are kept for good"
        listing = await store.listing(connection, UUID(event.stream.removeprefix("service/")))
    org = UUID(job.args["org"])
    zone = (await platform.identity.organisation(org)).zone
    start, end = (
        datetime.fromisoformat(event.data[name]).astimezone(ZoneInfo(zone)) for name in ("starts_at", "ends_at")
    )
    words = {
        "name": listing["name"],
        "day": f"{start.day} {start:%B %Y}",
        "start": f"{start:%d.%m.%Y %H:%M}",
        "end": f"{end:%d.%m.%Y %H:%M}",
        "zone": zone,
        "note": f"\nThe provider says: {event.data['note']}\n" if event.data["note"] else "",
    }
    subject, text = _MAINTENANCE[event.type]
    for address in await platform.identity.member_emails(org):
        await platform.mail.send(
            to=address,
            subject=subject.format_map(words),
            text=text.format_map(words),
            message_id=f"{event.id}.{address.replace('@', '.at.')}",
        )


MAIL_SUBSCRIBER = Task("sla.mail_subscriber", mail_subscriber)
REVIEW = Task("sla.review", review, Retry(max_attempts=1))
PROBE = Task("sla.probe", probe, Retry(max_attempts=1))
CLOSE = Task("sla.close", close, timeout_seconds=3600)
FORGET = Task("sla.forget", forget)
TASKS = (REVIEW, PROBE, CLOSE, FORGET, MAIL_SUBSCRIBER)
SCHEDULES = (
    Schedule(REVIEW.name, "* * * * *"),
    Schedule(PROBE.name, "* * * * *"),
    Schedule(CLOSE.name, "41 * * * *"),
    Schedule(FORGET.name, "23 3 * * *"),
)
HANDLERS = [
    EventHandler("sla.mail_incident", frozenset(_TEXTS), mail_incident),
    EventHandler("sla.tell_subscribers", frozenset(_MAINTENANCE), tell_subscribers),
]
