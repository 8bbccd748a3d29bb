"""What happens to service levels by itself: each minute, each hour, and the mails that follow."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from haat.infra import events
from haat.infra.jobs import NewJob, Retry, RunningJob, Schedule, Task
from haat.infra.letters import MailTemplate, in_line, post
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import month_of
from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM
from haat.language import Tag, format_date, isolate
from haat.language.messages import N_, _, gettext, speaking
from haat.sla import store
from haat.sla.closing import GRACE

if TYPE_CHECKING:
    from haat.app import Platform


async def review(platform: Platform, _job: RunningJob) -> None:
    """Gather what was called, open and close alerts, suspend and restore."""
    await platform.sla_watch.review()


async def probe(platform: Platform, _job: RunningJob) -> None:
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


async def forget(platform: Platform, _job: RunningJob) -> None:
    """Drop minutes and probes that nobody reads any more."""
    await platform.sla_watch.forget()


# --- mails ------------------------------------------------------------------------------------------

_SIGNALS = {
    "availability": N_("availability"),
    "p50": N_("p50 latency"),
    "p95": N_("p95 latency"),
    "p99": N_("p99 latency"),
}
_INCIDENTS = {
    "sla.alert_opened": MailTemplate(
        "sla.alert_opened",
        N_("{name}: the error budget of its {signal} burns"),
        N_(
            "In the last {long_minutes} minutes the {signal} of {name} used up its error budget {long_rate} times as "
            "fast as it may, and {short_rate} times in the last {short_minutes}. The alert is for {factor} times and "
            "more.\n\nLook at it here: {link}\n"
        ),
    ),
    "sla.alert_closed": MailTemplate(
        "sla.alert_closed",
        N_("{name}: the error budget of its {signal} is calm again"),
        N_("The {signal} of {name} is within what its error budget lets go wrong.\n\nLook at it here: {link}\n"),
    ),
    "sla.suspended": MailTemplate(
        "sla.suspended",
        N_("{name} is suspended for its uptime"),
        N_(
            "{name} was there for {uptime} of the last 24 hours (by {source}), which is less than 90 %. Nobody can "
            "call it now. It opens by itself after {hold_minutes} minutes at the earliest, when 20 probes in a row "
            "were well.\n\nLook at it here: {link}\n"
        ),
    ),
    "sla.restored": MailTemplate(
        "sla.restored",
        N_("{name} is open again"),
        N_(
            "{name} answered every one of its last {probes} probes and can be called again.\n\n"
            "Look at it here: {link}\n"
        ),
    ),
    "sla.breached": MailTemplate(
        "sla.breached",
        N_("{name} has missed its objective of {period}"),
        N_(
            "In {period} the availability of {name} was {availability}. Missed: {missed}. Customers whose calls were "
            "affected ({affected}) are credited {credit} of what they were charged for it that month.\n\n"
            "Look at it here: {link}\n"
        ),
    ),
}
_SOURCES = {"traffic": N_("traffic"), "probes": N_("probes")}
_SHARES = ("uptime", "availability", "credit")


async def mail_incident(platform: Platform, event: DomainEvent) -> None:
    """Tell the provider and the operator what goes on with a listing, each in their organisation's language."""
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        listing = await store.listing(connection, UUID(event.stream.removeprefix("sla/")))
    mail = _INCIDENTS[event.type]
    readers = {listing["org_id"]: {str(listing["partner_email"])}}
    operator = await platform.identity.operator()
    if operator is not None:
        readers.setdefault(operator.id, set()).update(await platform.identity.member_emails(operator.id))
    told: set[str] = set()
    for org, addresses in readers.items():
        tag = await platform.papers.language(PLATFORM, org)
        with speaking(tag):
            words = _incident_words(event, tag)
        words |= {
            "name": listing["name"],
            "link": f"{platform.settings.portal_address}/services/{listing['provider_slug']}/{listing['slug']}/level",
        }
        values = {name: words[name] for name in mail.required}
        await post(platform, mail, tag, sorted(addresses - told), event.id, **values)
        told |= addresses


def _incident_words(event: DomainEvent, tag: Tag) -> dict[str, Any]:
    words: dict[str, Any] = {**event.data, "signal": gettext(_SIGNALS.get(str(event.data.get("signal")), ""))}
    words["missed"] = ", ".join(gettext(_SIGNALS[one]) for one in event.data.get("missed", ()))
    words["source"] = gettext(_SOURCES.get(str(event.data.get("source")), ""))
    return words | {name: in_line(f"{words[name]} %", tag) for name in _SHARES if name in words}


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
    "service.maintenance_announced": MailTemplate(
        "service.maintenance_announced",
        N_("Maintenance of {name} on {day}"),
        N_(
            "{name} takes no calls from {start} to {end} ({zone}). Calls are refused with 503 and cost nothing; try "
            "them again when the window is over.\n{note}"
        ),
    ),
    "service.maintenance_cancelled": MailTemplate(
        "service.maintenance_cancelled",
        N_("No maintenance of {name} on {day}"),
        N_("The maintenance of {name} that was announced from {start} to {end} ({zone}) does not take place.\n"),
        optional=frozenset({"note"}),
    ),
    "service.maintenance_ended": MailTemplate(
        "service.maintenance_ended",
        N_("The maintenance of {name} ends sooner"),
        N_("{name} takes calls again from {end} on ({zone}).\n"),
        optional=frozenset({"note", "day", "start"}),
    ),
}
MAILS = (*_INCIDENTS.values(), *_MAINTENANCE.values())


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
    tag = await platform.papers.language(PLATFORM, org)
    with speaking(tag):
        note = _("The provider says: %(note)s", note=isolate(event.data["note"])) if event.data["note"] else ""
    await post(
        platform,
        _MAINTENANCE[event.type],
        tag,
        await platform.identity.member_emails(org),
        event.id,
        name=listing["name"],
        day=format_date(start.date(), tag),
        start=in_line(f"{start:%d.%m.%Y %H:%M}", tag),
        end=in_line(f"{end:%d.%m.%Y %H:%M}", tag),
        zone=zone,
        note=f"\n{note}\n" if note else "",
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
    EventHandler("sla.mail_incident", frozenset(_INCIDENTS), mail_incident),
    EventHandler("sla.tell_subscribers", frozenset(_MAINTENANCE), tell_subscribers),
]
