"""People: an organisation's members and invitations, one's own account, where it is open, and a forgotten password."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from haat.identity.members import Invited
from haat.kernel.errors import HaatError, LinkOver, NotFound
from haat.kernel.permissions import Permission
from haat.language.messages import INTERFACE, _
from haat.portal.roles import role_name, role_words
from haat.portal.tongue import LANGUAGE_COOKIE
from haat.portal.visit import YEAR, Fields, Visit, VisitOf, messages, parse_id

router = APIRouter()

# --- members and invitations ----------------------------------------------------------------------


async def _members_page(visit: Visit, status: int = 200, errors: Fields | None = None) -> Response:
    actor, platform = visit.require_actor(), visit.platform
    edits = actor.may(Permission.MEMBERS_EDIT)
    assert visit.visitor is not None
    return visit.render(
        "members.html",
        status,
        members=await platform.members.of(actor),
        invitations=await platform.members.invitations(actor) if edits else [],
        edits=edits,
        roles=role_words(visit.visitor.organisation.kind),
        role_name=role_name,
        now=platform.clock.now(),
        typed=visit.typed if errors else Fields(),
        errors=errors or Fields(),
    )


@router.get("/account/members")
async def members(visit: VisitOf) -> Response:
    return await _members_page(visit)


@router.post("/account/members/{user}/role")
async def change_role(visit: VisitOf, user: str) -> Response:
    """Give somebody another role; who changes their own goes on in a new session."""
    actor, whose = visit.require_actor(), parse_id(user)
    try:
        await visit.platform.members.change_role(actor, whose, visit.text("role"))
    except NotFound:
        raise
    except HaatError as error:
        return await _members_page(visit, error.status, messages(error))
    response = visit.redirect("/account/members", done="role")
    if whose == actor.user_id and actor.org_id:
        session = await visit.platform.identity.switch(
            actor, actor.org_id, user_agent=visit.user_agent, instead_of=visit.session
        )
        visit.enter(session, response)
    return response


@router.post("/account/members/{user}/remove")
async def remove_member(visit: VisitOf, user: str) -> Response:
    """Take somebody out; who leaves goes on in another organisation of theirs, or is signed out."""
    actor, whose = visit.require_actor(), parse_id(user)
    try:
        await visit.platform.members.remove(actor, whose)
    except NotFound:
        raise
    except HaatError as error:
        return await _members_page(visit, error.status, messages(error))
    if whose != actor.user_id:
        return visit.redirect("/account/members", done="member-removed")
    places = await visit.platform.identity.memberships(actor)
    if not places:
        return visit.leave(visit.redirect("/", done="left"))
    session = await visit.platform.identity.switch(actor, places[0].org_id, user_agent=visit.user_agent)
    return visit.enter(session, visit.redirect("/account", done="left"))


@router.get("/account/invitations")
async def invitations(visit: VisitOf) -> Response:
    return visit.redirect("/account/members")


@router.post("/account/invitations")
async def invite(visit: VisitOf) -> Response:
    actor = visit.require_actor()
    try:
        await visit.platform.members.invite(actor, visit.text("email"), visit.text("role"))
    except HaatError as error:
        return await _members_page(visit, error.status, messages(error))
    return visit.redirect("/account/members", done="invited")


@router.post("/account/invitations/{invitation}/resend")
async def resend(visit: VisitOf, invitation: str) -> Response:
    actor = visit.require_actor()
    try:
        await visit.platform.members.resend(actor, parse_id(invitation))
    except NotFound:
        raise
    except HaatError as error:
        return await _members_page(visit, error.status, messages(error))
    return visit.redirect("/account/members", done="invited")


@router.post("/account/invitations/{invitation}/revoke")
async def revoke(visit: VisitOf, invitation: str) -> Response:
    await visit.platform.members.revoke(visit.require_actor(), parse_id(invitation))
    return visit.redirect("/account/members", done="invitation-revoked")


# --- accepting an invitation ----------------------------------------------------------------------


def _invitation_page(visit: Visit, invited: Invited, status: int = 200, errors: Fields | None = None) -> Response:
    page = visit.render(
        "invitation.html",
        status,
        invited=invited,
        role=role_name(invited.invitation.role),
        own=_is_for(visit, invited),
        typed=visit.typed if errors else Fields(),
        errors=errors or Fields(),
    )
    return _unlinked(page)


@router.get("/invitation/{token}")
async def invitation_form(visit: VisitOf, token: str) -> Response:
    return _invitation_page(visit, await visit.platform.members.invited(token))


@router.post("/invitation/{token}")
async def accept(visit: VisitOf, token: str) -> Response:
    """Join as who is signed in, or with the password of the address's account, which is made when there is none."""
    members, invited = visit.platform.members, await visit.platform.members.invited(token)
    agent, before = visit.user_agent, visit.session
    try:
        if _is_for(visit, invited):
            session = await members.join(visit.require_actor(), token, user_agent=agent, instead_of=before)
        else:
            password, name = visit.secret("password"), visit.text("name")
            session = await members.accept(
                token, password, name, client=visit.client, user_agent=agent, instead_of=before
            )
    except LinkOver:
        raise
    except HaatError as error:
        return _invitation_page(visit, invited, error.status, messages(error))
    return visit.enter(session, visit.redirect("/account", done="joined"))


def _is_for(visit: Visit, invited: Invited) -> bool:
    """Tell whether who is signed in is who is invited."""
    account = invited.account
    return visit.visitor is not None and account is not None and visit.visitor.user.id == account.id


# --- one's own account ----------------------------------------------------------------------------


async def _profile_page(visit: Visit, status: int = 200, errors: Fields | None = None) -> Response:
    actor = visit.require_actor()
    return visit.render(
        "profile.html",
        status,
        places=await visit.platform.identity.memberships(actor),
        role_name=role_name,
        languages=[("", _("As the browser says")), *((str(tag), tag.own_name) for tag in INTERFACE)],
        typed=visit.typed if errors else Fields(),
        errors=errors or Fields(),
    )


@router.get("/account/profile")
async def profile(visit: VisitOf) -> Response:
    return await _profile_page(visit)


@router.post("/account/profile")
async def change_profile(visit: VisitOf) -> Response:
    """Change name and language; the browser remembers the language after signing out, too."""
    actor, language = visit.require_actor(), visit.text("language")
    try:
        await visit.platform.access.change_profile(actor, name=visit.text("name"), language=language)
    except HaatError as error:
        return await _profile_page(visit, error.status, messages(error))
    response = visit.redirect("/account/profile", done="profile")
    if language:
        visit.set_cookie(response, LANGUAGE_COOKIE, language, max_age=YEAR)
    else:
        response.delete_cookie(LANGUAGE_COOKIE, path="/", secure=visit.secure, httponly=True, samesite="lax")
    return response


@router.post("/account/password")
async def change_password(visit: VisitOf) -> Response:
    actor = visit.require_actor()
    try:
        session = await visit.platform.access.change_password(
            actor,
            visit.secret("present_password"),
            visit.secret("password"),
            client=visit.client,
            user_agent=visit.user_agent,
        )
    except HaatError as error:
        return await _profile_page(visit, error.status, messages(error))
    return visit.enter(session, visit.redirect("/account/profile", done="password"))


@router.post("/account/organisation")
async def switch(visit: VisitOf) -> Response:
    """Act for another organisation from now on, in a new session."""
    actor = visit.require_actor()
    session = await visit.platform.identity.switch(
        actor, visit.identifier("organisation"), user_agent=visit.user_agent, instead_of=visit.session
    )
    return visit.enter(session, visit.redirect("/account", done="switched"))


# --- sessions -------------------------------------------------------------------------------------


@router.get("/account/sessions")
async def sessions(visit: VisitOf) -> Response:
    actor = visit.require_actor()
    assert visit.visitor is not None
    return visit.render("sessions.html", sessions=await visit.platform.access.sessions(actor, visit.visitor.session_id))


@router.post("/account/sessions/others/end")
async def end_other_sessions(visit: VisitOf) -> Response:
    actor = visit.require_actor()
    assert visit.visitor is not None
    await visit.platform.access.end_others(actor, visit.visitor.session_id)
    return visit.redirect("/account/sessions", done="sessions-ended")


@router.post("/account/sessions/{session}/end")
async def end_session(visit: VisitOf, session: str) -> Response:
    await visit.platform.access.end_session(visit.require_actor(), parse_id(session))
    return visit.redirect("/account/sessions", done="session-ended")


# --- a forgotten password -------------------------------------------------------------------------


@router.get("/forgot")
async def forgot_form(visit: VisitOf) -> Response:
    return visit.render("forgot.html", typed=Fields(), errors=Fields())


@router.post("/forgot")
async def forgot(visit: VisitOf) -> Response:
    """Say the same whether the address has an account or not."""
    try:
        await visit.platform.access.ask_reset(visit.text("email"), client=visit.client)
    except HaatError as error:
        return visit.render("forgot.html", error.status, typed=visit.typed, errors=messages(error))
    return visit.redirect("/forgot", done="reset-asked")


@router.get("/reset/{token}")
async def reset_form(visit: VisitOf, token: str) -> Response:
    await visit.platform.access.check_reset(token)
    return _unlinked(visit.render("reset.html", errors=Fields()))


@router.post("/reset/{token}")
async def reset(visit: VisitOf, token: str) -> Response:
    try:
        await visit.platform.access.reset_password(token, visit.secret("password"))
    except LinkOver:
        raise
    except HaatError as error:
        return _unlinked(visit.render("reset.html", error.status, errors=messages(error)))
    return visit.leave(visit.redirect("/sign-in", done="reset"))


def _unlinked(page: Response) -> Response:
    """Let a page whose address is a secret tell it nobody and keep it nowhere."""
    page.headers["Referrer-Policy"] = "no-referrer"
    page.headers["Cache-Control"] = "no-store"
    return page
