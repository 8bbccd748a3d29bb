"""The operator's desk of long texts: what there is in which language, the editor, review, reports of bad phrases."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from markupsafe import Markup
from starlette.responses import Response

from haat.content.markup import render
from haat.content.memory import Suggestion
from haat.content.model import KINDS, Kind, Page, Standing, Translation, check_tag, difference
from haat.content.service import Desk
from haat.kernel.errors import HaatError, NotFound, ValidationFailed
from haat.kernel.permissions import Actor, Permission
from haat.language import LANGUAGES, Tag
from haat.language.messages import N_, _
from haat.portal.visit import Fields, Visit, VisitOf, messages, parse_id
from haat.sla.maintenance import local_moment

router = APIRouter(prefix="/operator/content")

TAGS = tuple(Tag(code, script) for code, language in LANGUAGES.items() for script in language.scripts)
KIND_NAMES: dict[Kind, str] = {
    "help": N_("Help"),
    "page": N_("Page"),
    "announcement": N_("Announcement"),
    "mail": N_("Mail"),
}
STATE_NAMES = {
    "draft": N_("draft"),
    "review": N_("waits for review"),
    "published": N_("published"),
    "archived": N_("archived"),
}
DONE = {
    "save": "content-saved",
    "review": "content-review",
    "publish": "content-published",
    "send-back": "content-back",
    "take-away": "content-archived",
    "give-up": "content-archived",
    "translate": "content-translated",
}


def _operator(visit: Visit) -> Actor:
    actor = visit.require_actor()
    actor.require(Permission.CONTENT_EDIT)
    return actor


# --- all pages ----------------------------------------------------------------------------------------


async def _list_page(visit: Visit, status: int = 200, errors: Fields | None = None) -> Response:
    actor = _operator(visit)
    found = await visit.platform.content.pages(actor)
    of = {(page.key, one.tag): one for page, standings in found for one in standings}
    chosen = _chosen(visit)
    return visit.render(
        "content.html",
        status,
        languages=[_completeness(tag, [of.get((page.key, tag)) for page, _found in found]) for tag in TAGS],
        total=len(found),
        pages=[(page, standings, of.get((page.key, chosen)) if chosen else None) for page, standings in found],
        chosen=chosen,
        mails=[name for name in sorted(visit.platform.content.mails) if name not in {page.key for page, _ in found}],
        **_names(),
        typed=visit.typed,
        errors=errors or Fields(),
    )


def _completeness(tag: Tag, standings: list[Standing | None]) -> dict[str, object]:
    """Return how far a language is over all pages: counts of what is published, stale, in review and a draft."""
    found = [one for one in standings if one is not None]
    return {
        "tag": tag,
        "published": sum(one.published is not None for one in found),
        "stale": sum(one.stale for one in found),
        "review": sum(one.state == "review" for one in found),
        "draft": sum(one.state == "draft" for one in found),
    }


def _chosen(visit: Visit) -> Tag | None:
    asked = visit.request.query_params.get("language", "")
    return check_tag(asked) if asked else None


def _names() -> dict[str, object]:
    return {"kinds": KIND_NAMES, "states": STATE_NAMES, "tags": TAGS}


@router.get("")
async def list_pages(visit: VisitOf) -> Response:
    return await _list_page(visit)


@router.post("")
async def make(visit: VisitOf) -> Response:
    """Make a page, and go on to write it."""
    actor, kind = _operator(visit), visit.text("kind")
    try:
        if kind not in KINDS:
            raise ValidationFailed(errors=[{"field": "kind", "message": _("Choose what it is.")}])
        source = check_tag(visit.text("source"), "source")
        page = await visit.platform.content.create(
            actor,
            visit.text("key"),
            next(one for one in KINDS if one == kind),
            source,
            shown_from=_moment(visit, "shown_from"),
            shown_until=_moment(visit, "shown_until"),
        )
    except HaatError as error:
        return await _list_page(visit, error.status, messages(error))
    return visit.redirect(f"/operator/content/{page.key}/{page.source}")


def _moment(visit: Visit, field: str) -> datetime | None:
    """Return a moment of the visitor's clock, None for an empty field; raise ValidationFailed."""
    if not visit.text(field):
        return None
    try:
        return local_moment(visit.text(field), visit.zone)
    except ValueError as error:
        message = _("Choose a day and a time that the clocks of %(zone)s show once.", zone=visit.zone)
        raise ValidationFailed(errors=[{"field": field, "message": message}]) from error


# --- reports of bad phrases: before a page's own addresses -----------------------------------------------


async def _reports_page(visit: Visit, status: int = 200, errors: Fields | None = None) -> Response:
    actor = _operator(visit)
    closed = visit.request.query_params.get("closed") == "yes"
    cursor = visit.request.query_params.get("cursor") or None
    page = await visit.platform.phrase_reports.page(actor, closed=closed, cursor=cursor)
    return visit.render(
        "content_reports.html",
        status,
        reports=page.items,
        next=page.next,
        closed=closed,
        who=await _people(visit, actor),
        typed=visit.typed,
        errors=errors or Fields(),
    )


@router.get("/reports")
async def list_reports(visit: VisitOf) -> Response:
    return await _reports_page(visit)


@router.post("/reports/{report}/close")
async def close_report(visit: VisitOf, report: str) -> Response:
    actor = _operator(visit)
    try:
        await visit.platform.phrase_reports.close(actor, parse_id(report), visit.text(f"note-{report}"))
    except NotFound:
        raise
    except HaatError as error:
        return await _reports_page(visit, error.status, messages(error))
    return visit.redirect("/operator/content/reports", done="report-closed")


# --- one page -----------------------------------------------------------------------------------------


async def _page_page(visit: Visit, key: str, status: int = 200, errors: Fields | None = None) -> Response:
    page, standings = await visit.platform.content.get(_operator(visit), key)
    known = {one.tag: one for one in standings}
    return visit.render(
        "content_page.html",
        status,
        page=page,
        standings=standings,
        others=[tag for tag in TAGS if tag not in known],
        **_names(),
        typed=visit.typed,
        errors=errors or Fields(),
    )


@router.get("/{key}")
async def show(visit: VisitOf, key: str) -> Response:
    asked = visit.request.query_params.get("language", "")
    if asked:
        return visit.redirect(f"/operator/content/{(await _found(visit, key)).key}/{check_tag(asked)}")
    return await _page_page(visit, key)


async def _found(visit: Visit, key: str) -> Page:
    return (await visit.platform.content.get(_operator(visit), key))[0]


@router.post("/{key}/window")
async def set_window(visit: VisitOf, key: str) -> Response:
    actor = _operator(visit)
    try:
        shown_from, shown_until = _moment(visit, "shown_from"), _moment(visit, "shown_until")
        await visit.platform.content.set_window(actor, key, shown_from, shown_until)
    except NotFound:
        raise
    except HaatError as error:
        return await _page_page(visit, key, error.status, messages(error))
    return visit.redirect(f"/operator/content/{key}", done="content-window")


# --- the editor -----------------------------------------------------------------------------------------


async def _editor(
    visit: Visit,
    key: str,
    tag: Tag,
    status: int = 200,
    errors: Fields | None = None,
    offers: dict[str, str] | None = None,
    makers: tuple[str, ...] = (),
) -> Response:
    """Return the editor. ``offers`` are translations by sentence, ``makers`` the services that made them."""
    actor, content = _operator(visit), visit.platform.content
    origin = visit.text("source") or visit.request.query_params.get("from", "")
    desk = await content.desk(actor, key, tag, check_tag(origin, "from") if origin else None)
    known = await content.suggestions(actor, desk.source, tag) if desk.source else {}
    offers = offers or {}
    page, standings = await content.get(actor, key)
    present = desk.working or desk.published
    typed = visit.typed
    mail = content.mails.get(key) if page.kind == "mail" else None
    return visit.render(
        "content_edit.html",
        status,
        page=page,
        tag=tag,
        desk=desk,
        source_html=Markup(render(desk.source.body)) if desk.source else None,  # noqa: S704 - rendered safely
        working_html=Markup(render(desk.working.body)) if desk.working else None,  # noqa: S704 - rendered safely
        origins=[one.tag for one in standings if one.published is not None and one.tag != tag],
        title=typed["title"] or (present.title if present else mail.subject if mail else ""),
        body=typed["body"] or (present.body if present else mail.text if mail else ""),
        suggestions=[
            (sentence, known.get(sentence, []), offers.get(sentence, ""))
            for sentence in dict.fromkeys([*known, *offers])
            if sentence in offers or not _stands(known[sentence], present)
        ],
        makers=makers,
        changes=_changes(desk),
        mail=mail,
        mine=desk.working is not None and desk.working.author == actor.label,
        who=await _people(visit, actor),
        **_names(),
        typed=typed,
        errors=errors or Fields(),
    )


def _stands(known: list[Suggestion], present: Translation | None) -> bool:
    """Tell whether what is known of a whole sentence stands in the text already: then it is no news."""
    return present is not None and known[0].score == 1 and known[0].target in _whole(present)


def _changes(desk: Desk) -> list[object]:
    """Return what the text that is worked on changes of the published one; empty when one of them is missing."""
    if desk.working is None or desk.published is None:
        return []
    return list(difference(_whole(desk.published), _whole(desk.working)))


def _whole(text: Translation) -> str:
    return f"{text.title}\n\n{text.body}"


async def _people(visit: Visit, actor: Actor) -> dict[str, str]:
    """Return the names of the operator's members as the event log names them."""
    members = await visit.platform.identity.members(actor.org_id) if actor.org_id else []
    return {"platform": _("the platform"), **{one.label: one.name for one in members}}


@router.get("/{key}/{language}")
async def edit(visit: VisitOf, key: str, language: str) -> Response:
    return await _editor(visit, key, _tag(language))


def _tag(language: str) -> Tag:
    try:
        return check_tag(language)
    except ValidationFailed as error:
        raise NotFound from error


@router.post("/{key}/{language}/{change}")
async def change(visit: VisitOf, key: str, language: str, change: str) -> Response:
    """Save, hand on, publish, send back, archive or translate a text: the service records who did it."""
    actor, content, tag = _operator(visit), visit.platform.content, _tag(language)
    done = change
    try:
        if change == "services":
            return await _with_offers(visit, actor, key, tag)
        if change == "save":
            await _save(visit, actor, key, tag)
            if visit.text("then") == "review":
                await content.ask_review(actor, key, tag)
                done = "review"
        elif change == "publish":
            await content.publish(actor, key, tag, revision=_number(visit, "revision"))
        elif change == "send-back":
            await content.send_back(actor, key, tag, visit.text("reason"))
        elif change in ("take-away", "give-up"):
            await content.archive(actor, key, tag, published=change == "take-away")
        elif change == "translate":
            await content.translate(actor, key, tag, _origin(visit))
        else:
            raise NotFound
    except NotFound:
        raise
    except HaatError as error:
        return await _editor(visit, key, tag, error.status, messages(error))
    return visit.redirect(f"/operator/content/{key}/{tag}", done=DONE[done])


async def _save(visit: Visit, actor: Actor, key: str, tag: Tag) -> None:
    await visit.platform.content.save(
        actor,
        key,
        tag,
        visit.text("title"),
        visit.secret("body"),
        source=_origin(visit),
        source_version=_number(visit, "source_version"),
        revision=_number(visit, "revision"),
    )


async def _with_offers(visit: Visit, actor: Actor, key: str, tag: Tag) -> Response:
    """Return the editor with what a service makes of each sentence; nothing is saved."""
    content = visit.platform.content
    desk = await content.desk(actor, key, tag, _origin(visit))
    if desk.source is None:
        raise NotFound
    offers, answer = await content.ask_services(actor, desk.source, tag)
    return await _editor(visit, key, tag, offers=offers, makers=answer.services)


def _origin(visit: Visit) -> Tag | None:
    return check_tag(visit.text("source"), "source") if visit.text("source") else None


def _number(visit: Visit, field: str) -> int | None:
    text = visit.text(field)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
