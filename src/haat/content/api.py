"""API of content: what is published for everybody, and the operator's desk."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query
from pydantic import AwareDatetime, BaseModel, Field

from haat.content.markup import render
from haat.content.model import (
    LONGEST_BODY,
    LONGEST_NOTE,
    LONGEST_PHRASE,
    LONGEST_TITLE,
    Kind,
    Page,
    Published,
    Report,
    Standing,
    State,
    Translation,
    check_tag,
)
from haat.control.context import ActorOf, Body, ClientOf, PlatformOf, VisitorOf
from haat.kernel.permissions import Actor, Permission

router = APIRouter(tags=["content"], prefix="/content")


async def editor(actor: ActorOf) -> Actor:
    """Return who asks, if they may write content: before anything of the request is looked at."""
    actor.require(Permission.CONTENT_EDIT)
    return actor


EditorOf = Annotated[Actor, Depends(editor)]
Key = Annotated[str, Path(max_length=80)]
Language = Annotated[str, Path(max_length=20, description="A language tag such as `hi` or `hi-Deva`.")]
Wanted = Annotated[str, Query(max_length=20, description="A language tag such as `hi` or `hi-Deva`.")]


class PublishedView(BaseModel):
    """A text for readers. ``language`` is the one it is in, which may be another than was asked for."""

    key: str
    kind: Kind
    language: str
    version: int
    title: str
    body: str
    html: str
    published_at: datetime


class FoundView(BaseModel):
    key: str
    kind: Kind
    language: str
    title: str
    excerpt: str


class StandingView(BaseModel):
    """How far a page is in a language; ``published`` and ``working`` are versions."""

    language: str
    published: int | None
    working: int | None
    state: State | None
    stale: bool


class PageView(BaseModel):
    key: str
    kind: Kind
    source: str
    shown_from: datetime | None
    shown_until: datetime | None
    created_at: datetime
    languages: list[StandingView]


class TranslationView(BaseModel):
    """One version of a text. ``source`` and ``source_version`` say what it was translated from."""

    key: str
    language: str
    version: int
    state: State
    title: str
    body: str
    author: str
    reviewer: str | None
    source: str | None
    source_version: int | None
    machine: bool
    revision: int
    note: str
    changed_at: datetime
    published_at: datetime | None


class SuggestionView(BaseModel):
    """A known sentence like the one asked for; ``score`` is how alike they are, 1 for the same."""

    source: str
    target: str
    score: float
    key: str
    version: int


class ReportView(BaseModel):
    id: UUID
    language: str
    page: str
    phrase: str
    better: str
    reporter: str | None
    reported_at: datetime
    closed_at: datetime | None
    closed_by: str | None
    note: str


class ReportPage(BaseModel):
    items: list[ReportView]
    next: str | None


class NewPage(Body):
    key: Annotated[str, Field(max_length=80)]
    kind: Kind
    source: Annotated[str, Field(max_length=20, description="The language it is first written in.")] = "en"
    shown_from: AwareDatetime | None = None
    shown_until: AwareDatetime | None = None


class Window(Body):
    shown_from: AwareDatetime | None = None
    shown_until: AwareDatetime | None = None


class Draft(Body):
    """``source_version`` is the published version it was made from, by default the present one."""

    title: Annotated[str, Field(max_length=LONGEST_TITLE)]
    body: Annotated[str, Field(max_length=LONGEST_BODY)]
    source: Annotated[str | None, Field(max_length=20)] = None
    source_version: Annotated[int | None, Field(ge=1, lt=2**31)] = None
    revision: Annotated[int | None, Field(ge=0, lt=2**31, description="Only if it was saved this often.")] = None


class Revision(Body):
    revision: Annotated[int | None, Field(ge=0, lt=2**31, description="Only if it was saved this often.")] = None


class Source(Body):
    source: Annotated[str | None, Field(max_length=20)] = None


class Reason(Body):
    reason: Annotated[str, Field(max_length=1000)]


class Archive(Body):
    """What is taken away: the published text, or the one that is worked on."""

    published: bool


class NewReport(Body):
    language: Annotated[str, Field(max_length=20)]
    page: Annotated[str, Field(max_length=300)]
    phrase: Annotated[str, Field(max_length=LONGEST_PHRASE)]
    better: Annotated[str, Field(max_length=LONGEST_PHRASE)] = ""


class Note(Body):
    note: Annotated[str, Field(max_length=LONGEST_NOTE)]


# --- for everybody ----------------------------------------------------------------------------------


@router.get("/published")
async def search(
    platform: PlatformOf, language: Wanted = "en", q: Annotated[str, Query(max_length=200)] = ""
) -> list[FoundView]:
    """Search published pages in a language; without `q` list the help pages."""
    tag = check_tag(language)
    if not q.strip():
        return [_found(page, "") for page in await platform.library.shelf(tag)]
    return [_found(one.page, one.excerpt) for one in await platform.library.search(tag, q)]


@router.get("/published/{key}")
async def published(key: Key, platform: PlatformOf, language: Wanted = "en") -> PublishedView:
    """Read a published page in a language, or in the nearest one."""
    one = await platform.library.published(key, check_tag(language))
    return PublishedView(
        key=one.key,
        kind=one.kind,
        language=str(one.tag),
        version=one.version,
        title=one.title,
        body=one.body,
        html=render(one.body),
        published_at=one.published_at,
    )


@router.post("/reports", status_code=201)
async def report(body: NewReport, actor: VisitorOf, client: ClientOf, platform: PlatformOf) -> ReportView:
    """Report a bad phrase of the interface."""
    made = await platform.phrase_reports.make(
        actor, check_tag(body.language), page=body.page, phrase=body.phrase, better=body.better, client=client
    )
    return _report(made)


# --- for the operator -------------------------------------------------------------------------------


@router.get("/reports")
async def reports(
    actor: EditorOf,
    platform: PlatformOf,
    closed: bool = False,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> ReportPage:
    """List reports of bad phrases, the newest first (operator)."""
    page = await platform.phrase_reports.page(actor, closed=closed, cursor=cursor, limit=limit)
    return ReportPage(items=[_report(one) for one in page.items], next=page.next)


@router.post("/reports/{report_id}/close")
async def close_report(report_id: UUID, body: Note, actor: EditorOf, platform: PlatformOf) -> ReportView:
    """Say what became of a report (operator)."""
    return _report(await platform.phrase_reports.close(actor, report_id, body.note))


@router.get("/pages")
async def pages(actor: EditorOf, platform: PlatformOf) -> list[PageView]:
    """List all pages and how far each is in each language (operator)."""
    return [_page(page, standings) for page, standings in await platform.content.pages(actor)]


@router.post("/pages", status_code=201)
async def create(body: NewPage, actor: EditorOf, platform: PlatformOf) -> PageView:
    """Make a page without a text yet (operator)."""
    made = await platform.content.create(
        actor,
        body.key,
        body.kind,
        check_tag(body.source, "source"),
        shown_from=body.shown_from,
        shown_until=body.shown_until,
    )
    return _page(made, [])


@router.get("/pages/{key}")
async def get(key: Key, actor: EditorOf, platform: PlatformOf) -> PageView:
    """Show a page and how far it is in each language (operator)."""
    return _page(*await platform.content.get(actor, key))


@router.put("/pages/{key}/window")
async def set_window(key: Key, body: Window, actor: EditorOf, platform: PlatformOf) -> PageView:
    """Say from when until when an announcement is shown (operator)."""
    await platform.content.set_window(actor, key, body.shown_from, body.shown_until)
    return _page(*await platform.content.get(actor, key))


@router.get("/pages/{key}/{language}")
async def versions(key: Key, language: Language, actor: EditorOf, platform: PlatformOf) -> list[TranslationView]:
    """List every version of a page in a language, the newest first (operator)."""
    desk = await platform.content.desk(actor, key, check_tag(language))
    return [_translation(one) for one in desk.versions]


@router.put("/pages/{key}/{language}")
async def save(key: Key, language: Language, body: Draft, actor: EditorOf, platform: PlatformOf) -> TranslationView:
    """Keep a draft (operator)."""
    saved = await platform.content.save(
        actor,
        key,
        check_tag(language),
        body.title,
        body.body,
        source=check_tag(body.source, "source") if body.source else None,
        source_version=body.source_version,
        revision=body.revision,
    )
    return _translation(saved)


@router.post("/pages/{key}/{language}/translate")
async def translate(
    key: Key, language: Language, body: Source, actor: EditorOf, platform: PlatformOf
) -> TranslationView:
    """Make a draft by the memory and the market's services (operator)."""
    source = check_tag(body.source, "source") if body.source else None
    return _translation(await platform.content.translate(actor, key, check_tag(language), source))


@router.post("/pages/{key}/{language}/review")
async def review(
    key: Key, language: Language, body: Revision, actor: EditorOf, platform: PlatformOf
) -> TranslationView:
    """Hand a draft to a reviewer (operator)."""
    tag = check_tag(language)
    return _translation(await platform.content.ask_review(actor, key, tag, revision=body.revision))


@router.post("/pages/{key}/{language}/send-back")
async def send_back(
    key: Key, language: Language, body: Reason, actor: EditorOf, platform: PlatformOf
) -> TranslationView:
    """Make a text that waits for review a draft again (operator)."""
    return _translation(await platform.content.send_back(actor, key, check_tag(language), body.reason))


@router.post("/pages/{key}/{language}/publish")
async def publish(
    key: Key, language: Language, body: Revision, actor: EditorOf, platform: PlatformOf
) -> TranslationView:
    """Show a reviewed text to everybody; its author may not where somebody else may (operator)."""
    tag = check_tag(language)
    return _translation(await platform.content.publish(actor, key, tag, revision=body.revision))


@router.post("/pages/{key}/{language}/archive")
async def archive(
    key: Key, language: Language, body: Archive, actor: EditorOf, platform: PlatformOf
) -> TranslationView:
    """Take the published text away, or give up the draft (operator)."""
    tag = check_tag(language)
    return _translation(await platform.content.archive(actor, key, tag, published=body.published))


@router.get("/suggestions")
async def suggestions(
    actor: EditorOf,
    platform: PlatformOf,
    source: Wanted,
    target: Wanted,
    text: Annotated[str, Query(min_length=1, max_length=2000)],
) -> list[SuggestionView]:
    """List known sentences like this one, with their translations (operator)."""
    found = await platform.content.known(actor, check_tag(source, "source"), check_tag(target, "target"), text)
    return [SuggestionView.model_validate(one, from_attributes=True) for one in found]


def _found(page: Published, excerpt: str) -> FoundView:
    return FoundView(key=page.key, kind=page.kind, language=str(page.tag), title=page.title, excerpt=excerpt)


def _page(page: Page, standings: list[Standing]) -> PageView:
    return PageView(
        key=page.key,
        kind=page.kind,
        source=str(page.source),
        shown_from=page.shown_from,
        shown_until=page.shown_until,
        created_at=page.created_at,
        languages=[
            StandingView(
                language=str(one.tag),
                published=one.published,
                working=one.working,
                state=one.state,
                stale=one.stale,
            )
            for one in standings
        ],
    )


def _translation(one: Translation) -> TranslationView:
    return TranslationView(
        key=one.key,
        language=str(one.tag),
        version=one.version,
        state=one.state,
        title=one.title,
        body=one.body,
        author=one.author,
        reviewer=one.reviewer,
        source=str(one.source) if one.source else None,
        source_version=one.source_version,
        machine=one.machine,
        revision=one.revision,
        note=one.note,
        changed_at=one.changed_at,
        published_at=one.published_at,
    )


def _report(one: Report) -> ReportView:
    return ReportView(
        id=one.id,
        language=str(one.tag),
        page=one.page,
        phrase=one.phrase,
        better=one.better,
        reporter=one.reporter,
        reported_at=one.reported_at,
        closed_at=one.closed_at,
        closed_by=one.closed_by,
        note=one.note,
    )
