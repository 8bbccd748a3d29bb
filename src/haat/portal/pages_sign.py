"""Signing up, in and out, and the choice of colours."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from starlette.responses import Response

from haat.flags.switchboard import SIGN_UP
from haat.invoices.model import STATES
from haat.kernel.errors import HaatError
from haat.language.messages import _, gettext
from haat.portal.visit import THEME_COOKIE, THEMES, YEAR, Fields, VisitOf, messages, own_path

router = APIRouter()


def _states() -> list[tuple[str, str]]:
    """Return the options of the choice of a State, in the reader's language."""
    named = [(code, gettext(name)) for code, name in STATES.items()]
    return [("", _("Choose a State")), *sorted(named, key=lambda item: item[1])]


@router.get("/sign-in")
async def sign_in_form(visit: VisitOf, next: str = "/account") -> Response:
    if visit.visitor:
        return visit.redirect(own_path(next))
    return visit.render("sign_in.html", typed=Fields(), errors=Fields(), next=own_path(next))


@router.post("/sign-in")
async def sign_in(visit: VisitOf) -> Response:
    next_page = own_path(visit.text("next") or "/account")
    try:
        session = await visit.platform.identity.sign_in(
            visit.text("email"),
            visit.secret("password"),
            client=visit.client,
            user_agent=visit.user_agent,
            instead_of=visit.session,
        )
    except HaatError as error:
        return visit.render("sign_in.html", error.status, typed=visit.typed, errors=messages(error), next=next_page)
    return visit.enter(session, visit.redirect(next_page))


@router.get("/sign-up")
async def sign_up_form(visit: VisitOf, kind: str = "consumer") -> Response:
    if visit.visitor:
        return visit.redirect("/partner" if kind == "provider" else "/account")
    return visit.render("sign_up.html", typed=Fields(kind=kind), errors=Fields(), states=_states())


@router.post("/sign-up")
async def sign_up(visit: VisitOf) -> Response:
    kind: Literal["consumer", "provider"] = "provider" if visit.text("kind") == "provider" else "consumer"
    email, password = visit.text("email"), visit.secret("password")
    try:
        await visit.platform.switchboard.require(SIGN_UP)
        await visit.platform.identity.sign_up(
            email=email,
            password=password,
            name=visit.text("name"),
            organisation=visit.text("organisation"),
            kind=kind,
            state_code=visit.text("state_code") or None,
            gstin=visit.text("gstin") or None,
            client=visit.client,
        )
        session = await visit.platform.identity.sign_in(
            email, password, client=visit.client, user_agent=visit.user_agent, instead_of=visit.session
        )
    except HaatError as error:
        return visit.render("sign_up.html", error.status, typed=visit.typed, errors=messages(error), states=_states())
    return visit.enter(session, visit.redirect("/partner" if kind == "provider" else "/account", done="welcome"))


@router.post("/sign-out")
async def sign_out(visit: VisitOf) -> Response:
    if visit.visitor:
        await visit.platform.identity.sign_out(visit.visitor.session)
    return visit.leave(visit.redirect("/", done="signed-out"))


@router.post("/theme")
async def choose_theme(visit: VisitOf) -> Response:
    response = visit.redirect(own_path(visit.text("back")))
    theme = visit.text("theme")
    visit.set_cookie(response, THEME_COOKIE, theme if theme in THEMES else "auto", max_age=YEAR)
    return response
