"""Control API of people: members, invitations, open sessions, passwords, one's own account."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from haat.control.context import ActorOf, Body, ClientOf, PlatformOf, VisitorOf, bearer_token
from haat.identity.api import SessionView
from haat.identity.model import Invitation, Member, Membership, OpenSession, Session, User
from haat.kernel.errors import Unauthenticated, ValidationFailed

router = APIRouter(tags=["people"])


class RoleChoice(Body):
    role: str


class NewInvitation(Body):
    email: str
    role: str


class Acceptance(Body):
    """``token`` is what the link in the mail ends in. Without a session ``password`` is that of the address's account;
    where it has none one is made with it and ``name``."""

    token: str
    password: str | None = None
    name: str = ""


class OrganisationChoice(Body):
    org_id: UUID


class Profile(Body):
    """What is left out stays; an empty ``language`` leaves the choice to the browser."""

    name: str | None = None
    language: str | None = None


class PasswordChange(Body):
    present_password: str
    password: str


class ResetRequest(Body):
    email: str


class Reset(Body):
    token: str
    password: str


class Account(BaseModel):
    user_id: UUID
    email: str
    name: str
    language: str | None
    created_at: datetime


async def _session(request: Request, platform: PlatformOf) -> Session:
    """Return the session that asks; raise Unauthenticated."""
    token = bearer_token(request)
    if token is None:
        raise Unauthenticated("Sign in at /api/v1/sessions and send the token as `Authorization: Bearer …`.")
    return await platform.identity.session_of(token)


def _agent(request: Request) -> str:
    return request.headers.get("user-agent", "")


SessionOf = Annotated[Session, Depends(_session)]
AgentOf = Annotated[str, Depends(_agent)]


def _view(session: Session) -> SessionView:
    return SessionView(token=session.token, org_id=session.org_id, role=session.role, expires_at=session.expires_at)


def _account(user: User) -> Account:
    language = str(user.language) if user.language else None
    return Account(user_id=user.id, email=user.email, name=user.name, language=language, created_at=user.created_at)


# --- members and invitations ----------------------------------------------------------------------


@router.get("/members")
async def members(actor: ActorOf, platform: PlatformOf) -> list[Member]:
    """List the organisation's members."""
    return await platform.members.of(actor)


@router.put("/members/{user_id}/role", status_code=204)
async def change_role(user_id: UUID, body: RoleChoice, actor: ActorOf, platform: PlatformOf) -> Response:
    """Give a member another role; their sessions for the organisation end."""
    await platform.members.change_role(actor, user_id, body.role)
    return Response(status_code=204)


@router.delete("/members/{user_id}", status_code=204)
async def remove_member(user_id: UUID, actor: ActorOf, platform: PlatformOf) -> Response:
    """Take a member out of the organisation, or leave it oneself; never the last one who may edit members."""
    await platform.members.remove(actor, user_id)
    return Response(status_code=204)


@router.get("/invitations")
async def invitations(actor: ActorOf, platform: PlatformOf) -> list[Invitation]:
    """List the invitations that wait."""
    return await platform.members.invitations(actor)


@router.post("/invitations", status_code=201)
async def invite(body: NewInvitation, actor: ActorOf, platform: PlatformOf) -> Invitation:
    """Invite an address by mail, for seven days."""
    return await platform.members.invite(actor, body.email, body.role)


@router.post("/invitations/accept", status_code=201)
async def accept(
    body: Acceptance, visitor: VisitorOf, client: ClientOf, agent: AgentOf, platform: PlatformOf
) -> SessionView:
    """Join by the token of a mail: as who is signed in, or with a password; answers with a session there."""
    if visitor is not None:
        return _view(await platform.members.join(visitor, body.token, user_agent=agent))
    if body.password is None:
        raise ValidationFailed(errors=[{"field": "password", "message": "Send a password, or a session's token."}])
    return _view(await platform.members.accept(body.token, body.password, body.name, client=client, user_agent=agent))


@router.post("/invitations/{invitation_id}/resend")
async def resend(invitation_id: UUID, actor: ActorOf, platform: PlatformOf) -> Invitation:
    """Send an invitation again, with a new link and seven new days."""
    return await platform.members.resend(actor, invitation_id)


@router.delete("/invitations/{invitation_id}", status_code=204)
async def revoke(invitation_id: UUID, actor: ActorOf, platform: PlatformOf) -> Response:
    """Take an invitation back."""
    await platform.members.revoke(actor, invitation_id)
    return Response(status_code=204)


# --- one's own account ----------------------------------------------------------------------------


@router.get("/me/account")
async def account(session: SessionOf) -> Account:
    """Return one's own account."""
    return _account(session.user)


@router.patch("/me/account")
async def change_account(body: Profile, session: SessionOf, platform: PlatformOf) -> Account:
    """Change one's own name or language."""
    return _account(await platform.access.change_profile(session.actor, name=body.name, language=body.language))


@router.put("/me/password")
async def change_password(
    body: PasswordChange, actor: ActorOf, client: ClientOf, agent: AgentOf, platform: PlatformOf
) -> SessionView:
    """Change one's own password; every session ends, and the answer is a new one."""
    return _view(
        await platform.access.change_password(
            actor, body.present_password, body.password, client=client, user_agent=agent
        )
    )


@router.get("/me/organisations")
async def organisations(actor: ActorOf, platform: PlatformOf) -> list[Membership]:
    """List the organisations one belongs to."""
    return await platform.identity.memberships(actor)


@router.post("/sessions/switch", status_code=201)
async def switch(body: OrganisationChoice, session: SessionOf, agent: AgentOf, platform: PlatformOf) -> SessionView:
    """Act for another organisation one belongs to; the answer is a session in place of this one."""
    return _view(await platform.identity.switch(session.actor, body.org_id, user_agent=agent, instead_of=session.token))


@router.get("/sessions")
async def sessions(session: SessionOf, platform: PlatformOf) -> list[OpenSession]:
    """List where one is signed in."""
    return await platform.access.sessions(session.actor, session.id)


@router.delete("/sessions", status_code=204)
async def end_other_sessions(session: SessionOf, platform: PlatformOf) -> Response:
    """Sign out everywhere else."""
    await platform.access.end_others(session.actor, session.id)
    return Response(status_code=204)


@router.delete("/sessions/{session_id}", status_code=204)
async def end_session(session_id: UUID, actor: ActorOf, platform: PlatformOf) -> Response:
    """End one of one's own sessions."""
    await platform.access.end_session(actor, session_id)
    return Response(status_code=204)


@router.post("/password-resets", status_code=202)
async def ask_reset(body: ResetRequest, client: ClientOf, platform: PlatformOf) -> Response:
    """Ask for a mail to choose a new password; the answer is the same whether the address has an account or not."""
    await platform.access.ask_reset(body.email, client=client)
    return Response(status_code=202)


@router.post("/password-resets/redeem", status_code=204)
async def reset_password(body: Reset, platform: PlatformOf) -> Response:
    """Choose a new password by the token of a mail; every session ends."""
    await platform.access.reset_password(body.token, body.password)
    return Response(status_code=204)
