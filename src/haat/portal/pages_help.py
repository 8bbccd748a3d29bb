"""Long texts for readers: help with its search, pages such as the terms, announcements; and reports of bad phrases."""

from __future__ import annotations

from fastapi import APIRouter
from markupsafe import Markup
from starlette.responses import Response

from haat.content.markup import render
from haat.content.model import Kind
from haat.kernel.errors import HaatError
from haat.portal.announcements import SEEN_COOKIE, with_seen
from haat.portal.visit import YEAR, Fields, Visit, VisitOf, messages, own_path

router = APIRouter()

ADDRESSES: dict[Kind, str] = {"help": "/help", "page": "/pages", "announcement": "/announcements"}
"""Where readers find each kind; mails are in nobody's reach."""


@router.get("/help")
async def help_pages(visit: VisitOf, q: str = "") -> Response:
    """List the help pages, or what a search finds among everything that can be read."""
    asked, library = q.strip()[:200], visit.platform.library
    return visit.render(
        "help.html",
        asked=asked,
        found=await library.search(visit.tongue, asked) if asked else [],
        pages=await library.shelf(visit.tongue, ("help",)),
        others=await library.shelf(visit.tongue, ("page",)),
        addresses=ADDRESSES,
    )


async def _read(visit: Visit, key: str, kind: Kind) -> Response:
    page = await visit.platform.library.published(key, visit.tongue, (kind,))
    html = Markup(render(page.body))  # noqa: S704 - rendered safely
    languages = await visit.platform.library.languages(key)
    return visit.render("reading.html", page=page, html=html, languages=languages)


@router.get("/help/{key}")
async def read_help(visit: VisitOf, key: str) -> Response:
    return await _read(visit, key, "help")


@router.get("/pages/{key}")
async def read_page(visit: VisitOf, key: str) -> Response:
    return await _read(visit, key, "page")


@router.get("/announcements/{key}")
async def read_announcement(visit: VisitOf, key: str) -> Response:
    return await _read(visit, key, "announcement")


@router.post("/announcements/dismiss")
async def dismiss(visit: VisitOf) -> Response:
    """Put an announcement away on this browser."""
    response = visit.redirect(own_path(visit.text("back")))
    seen = with_seen(visit.request.cookies.get(SEEN_COOKIE, ""), visit.text("name"))
    visit.set_cookie(response, SEEN_COOKIE, seen, max_age=YEAR)
    return response


# --- bad phrases --------------------------------------------------------------------------------------


@router.get("/words/report")
async def report_form(visit: VisitOf, page: str = "") -> Response:
    return visit.render("report.html", typed=Fields(page=own_path(page, "") if page else ""), errors=Fields())


@router.post("/words/report")
async def report(visit: VisitOf) -> Response:
    """Keep what a reader says of a phrase, in the language that they read the page in."""
    try:
        await visit.platform.phrase_reports.make(
            visit.actor,
            visit.tongue,
            page=visit.text("page"),
            phrase=visit.text("phrase"),
            better=visit.text("better"),
            client=visit.client,
        )
    except HaatError as error:
        return visit.render("report.html", error.status, typed=visit.typed, errors=messages(error))
    return visit.redirect("/words/report", done="reported")
