"""Control API of identity."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import AwareDatetime, BaseModel, Field

from haat.control.context import ActorOf, Body, ClientOf, PlatformOf, bearer_token
from haat.flags.switchboard import SIGN_UP
from haat.identity.model import INVOKE, Application, Credential, KeyMode
from haat.identity.policy import ApplicationPolicyDraft

router = APIRouter(tags=["identity"])


class SignUp(Body):
    email: str
    password: str
    name: str
    organisation: str
    kind: Literal["consumer", "provider"] = "consumer"
    address: str = ""
    state_code: str | None = None
    gstin: str | None = None


class SignIn(Body):
    email: str
    password: str


class SessionView(BaseModel):
    token: str
    org_id: UUID
    role: str
    expires_at: datetime


class Me(BaseModel):
    user_id: UUID | None
    org_id: UUID | None
    role: str
    name: str


class NewApplication(Body):
    name: str


class NewKey(Body):
    name: str = ""
    mode: KeyMode = "live"
    scopes: tuple[str, ...] = (INVOKE,)
    """`invoke` opens every service that the application is subscribed to, `invoke:provider/service` one."""
    expires_at: AwareDatetime | None = None


class Rotation(Body):
    grace_seconds: Annotated[int, Field(ge=0, le=30 * 86400)] = 86400


class NewKeyView(BaseModel):
    """``key`` is shown here once and never again."""

    key: str
    credential: Credential


@router.post("/accounts", status_code=201)
async def sign_up(request: Request, body: SignUp, client: ClientOf, platform: PlatformOf) -> SessionView:
    """Create a user with an organisation, signed in."""
    await platform.switchboard.require(SIGN_UP)
    await platform.identity.sign_up(**body.model_dump(), client=client)
    return await sign_in(request, SignIn(email=body.email, password=body.password), client, platform)


@router.post("/sessions", status_code=201)
async def sign_in(request: Request, body: SignIn, client: ClientOf, platform: PlatformOf) -> SessionView:
    """Sign in; send the token as `Authorization: Bearer …` from then on."""
    agent = request.headers.get("user-agent", "")
    session = await platform.identity.sign_in(body.email, body.password, client=client, user_agent=agent)
    return SessionView(token=session.token, org_id=session.org_id, role=session.role, expires_at=session.expires_at)


@router.delete("/sessions/current", status_code=204)
async def sign_out(request: Request, _: ActorOf, platform: PlatformOf) -> Response:
    """End this session."""
    token = bearer_token(request)
    if token:
        await platform.identity.sign_out(token)
    return Response(status_code=204)


@router.get("/me")
async def me(actor: ActorOf) -> Me:
    """Tell who is asking."""
    return Me(user_id=actor.user_id, org_id=actor.org_id, role=actor.role, name=actor.name)


@router.post("/applications", status_code=201)
async def create_application(body: NewApplication, actor: ActorOf, platform: PlatformOf) -> Application:
    """Create an application."""
    return await platform.identity.create_application(actor, body.name)


@router.get("/applications")
async def applications(actor: ActorOf, platform: PlatformOf) -> list[Application]:
    """List the organisation's applications."""
    return await platform.identity.applications(actor)


@router.put("/applications/{application_id}/policy")
async def set_application_policy(
    application_id: UUID, body: ApplicationPolicyDraft, actor: ActorOf, platform: PlatformOf
) -> Application:
    """Replace which pages may call, where the calls' data may go, and whether another provider may answer."""
    return await platform.identity.set_application_policy(actor, application_id, body)


@router.post("/applications/{application_id}/keys", status_code=201)
async def create_key(application_id: UUID, body: NewKey, actor: ActorOf, platform: PlatformOf) -> NewKeyView:
    """Create an API key; its text is in this answer only."""
    issued = await platform.identity.create_key(
        actor, application_id, name=body.name, mode=body.mode, scopes=body.scopes, expires_at=body.expires_at
    )
    return NewKeyView(key=issued.key, credential=issued.credential)


@router.get("/applications/{application_id}/keys")
async def keys(application_id: UUID, actor: ActorOf, platform: PlatformOf) -> list[Credential]:
    """List an application's keys."""
    return await platform.identity.keys(actor, application_id)


@router.post("/keys/{credential_id}/rotate", status_code=201)
async def rotate_key(credential_id: UUID, body: Rotation, actor: ActorOf, platform: PlatformOf) -> NewKeyView:
    """Replace a key by a new one with the same settings; the old one goes on for the grace period."""
    issued = await platform.identity.rotate_key(actor, credential_id, grace=timedelta(seconds=body.grace_seconds))
    return NewKeyView(key=issued.key, credential=issued.credential)


@router.delete("/keys/{credential_id}", status_code=204)
async def revoke_key(credential_id: UUID, actor: ActorOf, platform: PlatformOf) -> Response:
    """Revoke a key on every gateway within a second."""
    await platform.identity.revoke_key(actor, credential_id)
    return Response(status_code=204)
