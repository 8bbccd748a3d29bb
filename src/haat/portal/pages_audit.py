"""The operator's audit log: who did what, when and to whom; one event whole; all that fit as a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from haat.infra.events import Wanted
from haat.kernel.errors import ValidationFailed
from haat.kernel.events import DomainEvent
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _
from haat.portal.visit import Fields, Visit, VisitOf, messages, parse_id
from haat.usage.model import csv_safe

router = APIRouter(prefix="/operator/audit")

FIELDS = ("actor", "org", "type", "stream", "since", "until", "text")
"""The search, as its form and every address of it spell it. Both days count in, in the visitor's zone."""
COLUMNS = ("at", "id", "stream", "version", "type", "actor", "organisation", "data")
_YEARS = range(2000, 2101)


@dataclass(frozen=True, slots=True)
class Names:
    """What stands for ids on a page: whoever was erased since has none, and is shown as the log has them."""

    people: dict[str, str]
    organisations: dict[UUID, str]


def _reader(visit: Visit) -> Actor:
    actor = visit.require_actor()
    actor.require(Permission.AUDIT_READ)
    return actor


def _typed(visit: Visit) -> Fields:
    given = visit.request.query_params
    return Fields((name, text) for name in FIELDS if (text := given.get(name, "").strip()))


async def _wanted(visit: Visit, actor: Actor, typed: Fields) -> Wanted:
    """Return the search that was typed; raise ValidationFailed with a message for each field that can't be read."""
    errors = []

    def read_day(name: str) -> date | None:
        try:
            day = date.fromisoformat(typed[name]) if typed[name] else None
        except ValueError:
            day = date.min
        if day is not None and day.year not in _YEARS:
            errors.append({"field": name, "message": _("Write the day as 2026-11-21.")})
            return None
        return day

    since, until = read_day("since"), read_day("until")
    org = None
    if typed["org"]:
        try:
            org = UUID(typed["org"])
        except ValueError:
            errors.append({"field": "org", "message": _("Enter the organisation's id.")})
    who = typed["actor"]
    if "@" in who:
        person = await visit.platform.identity.person(actor, who)
        who = f"user/{person.id}" if person else who
        if person is None:
            errors.append({"field": "actor", "message": _("Nobody here has this e-mail address.")})
    if errors:
        raise ValidationFailed(errors=errors)
    return Wanted(
        actor=who,
        org=org,
        type=typed["type"],
        stream=typed["stream"],
        start=_midnight(since, visit.zone) if since else None,
        end=_midnight(until + timedelta(days=1), visit.zone) if until else None,
        text=typed["text"],
    )


def _midnight(day: date, zone: str) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))


async def _names(visit: Visit, actor: Actor, found: Iterable[DomainEvent]) -> Names:
    events = list(found)
    users = {user for event in events if (user := _user_of(event.actor)) is not None}
    people = await visit.platform.identity.people(actor, list(users))
    organisations = await visit.platform.identity.names(event.org for event in events if event.org is not None)
    return Names({f"user/{user.id}": user.email for user in people.values()}, organisations)


def _user_of(label: str) -> UUID | None:
    """Return the user whom an event names as its actor; None for the platform, and in an event that was changed."""
    kind, _slash, identifier = label.partition("/")
    try:
        return UUID(identifier) if kind == "user" else None
    except ValueError:
        return None


@router.get("")
async def search(visit: VisitOf, cursor: str = "") -> Response:
    actor, typed = _reader(visit), _typed(visit)
    errors, found, following = Fields(), [], None
    try:
        page = await visit.platform.audit.page(actor, await _wanted(visit, actor, typed), cursor=cursor or None)
        found, following = list(page.items), page.next
    except ValidationFailed as error:
        errors = messages(error)
    return visit.render(
        "audit.html",
        422 if errors else 200,
        events=found,
        names=await _names(visit, actor, found),
        types=await visit.platform.audit.types(actor),
        typed=typed,
        errors=errors,
        query=urlencode(typed),
        next_href=f"/operator/audit?{urlencode({**typed, 'cursor': following})}" if following else None,
    )


@router.get("/export")
async def export(visit: VisitOf) -> Response:
    """Stream everything that fits as CSV, newest first; the first piece is there before the answer begins."""
    actor = _reader(visit)
    batches = visit.platform.audit.batches(actor, await _wanted(visit, actor, _typed(visit)))
    first: Sequence[DomainEvent] = await anext(batches, [])

    async def body() -> AsyncIterator[str]:
        yield _csv([COLUMNS])
        yield _csv(map(_row, first))
        async for batch in batches:
            yield _csv(map(_row, batch))

    headers = {"Content-Disposition": 'attachment; filename="audit.csv"', "Cache-Control": "no-store"}
    return StreamingResponse(body(), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/{identifier}")
async def event(visit: VisitOf, identifier: str) -> Response:
    actor = _reader(visit)
    entry = await visit.platform.audit.entry(actor, parse_id(identifier))
    return visit.render(
        "audit_event.html",
        entry=entry,
        event=entry.event,
        names=await _names(visit, actor, [entry.event]),
        data=json.dumps(entry.event.data, indent=2, ensure_ascii=False),
    )


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([[csv_safe(cell) for cell in row] for row in rows])
    return text.getvalue()


def _row(event: DomainEvent) -> Sequence[object]:
    data = json.dumps(event.data, ensure_ascii=False, separators=(",", ":"))
    return event.at.isoformat(), event.id, event.stream, event.version, event.type, event.actor, event.org, data
