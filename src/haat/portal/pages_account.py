"""A developer's own: applications, keys, subscriptions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from haat.identity.model import INVOKE, Application, Credential, IssuedKey, KeyMode
from haat.kernel.errors import HaatError, NotFound, ValidationFailed
from haat.language.messages import _n
from haat.portal.visit import Fields, Visit, VisitOf, messages, parse_id
from haat.subscriptions.model import Plan, Subscription

router = APIRouter(prefix="/account")

_DAYS = (30, 90, 365)
"""How long a new key can be open that is not open for good."""


@dataclass(frozen=True, slots=True)
class Group:
    """An application with its keys, the living apart from the ended, and what it may call."""

    application: Application
    living: list[Credential]
    ended: list[Credential]
    subscriptions: list[Subscription]


async def _applications_page(
    visit: Visit,
    status: int = 200,
    *,
    errors: Fields | None = None,
    issued: IssuedKey | None = None,
    rotated: datetime | None = None,
    asked_for: UUID | None = None,
) -> Response:
    """``asked_for`` is the application whose key was refused: its form is filled again."""
    actor, now = visit.require_actor(), visit.platform.clock.now()
    every = await visit.platform.subscriptions.of(actor)
    groups = []
    for application in await visit.platform.identity.applications(actor):
        keys = await visit.platform.identity.keys(actor, application.id)
        groups.append(
            Group(
                application,
                [key for key in keys if key.is_active(now)],
                [key for key in keys if not key.is_active(now)],
                [one for one in every if one.application_id == application.id],
            )
        )
    names = {group.application.id: group.application.name for group in groups}
    return visit.render(
        "applications.html",
        status,
        groups=groups,
        issued=issued,
        issued_for=names.get(issued.credential.application_id, "") if issued else "",
        rotated=rotated,
        lengths=[(days, _n("%(count)s day", "%(count)s days", days)) for days in _DAYS],
        asked_for=asked_for,
        chosen=visit.texts("service") if asked_for else [],
        typed=visit.typed if errors else Fields(),
        errors=errors or Fields(),
    )


@router.get("")
async def applications(visit: VisitOf) -> Response:
    return await _applications_page(visit)


@router.post("/applications")
async def create_application(visit: VisitOf) -> Response:
    try:
        made = await visit.platform.identity.create_application(visit.require_actor(), visit.text("name"))
    except HaatError as error:
        if visit.visitor is None:
            raise
        return await _applications_page(visit, error.status, errors=messages(error))
    return visit.redirect("/account", done="application", made=str(made.id))


@router.post("/applications/{application}/keys")
async def create_key(visit: VisitOf, application: str) -> Response:
    """Make a key and show it in this very answer: it can't be shown again."""
    mode: KeyMode = "test" if visit.text("mode") == "test" else "live"
    days = next((days for days in _DAYS if visit.text("days") == str(days)), None)
    try:
        issued = await visit.platform.identity.create_key(
            visit.require_actor(),
            parse_id(application),
            name=visit.text("name"),
            mode=mode,
            scopes=[f"{INVOKE}:{path}" for path in visit.texts("service")] or [INVOKE],
            expires_at=visit.platform.clock.now() + timedelta(days=days) if days else None,
        )
    except ValidationFailed as error:
        refusal = Fields({"": "; ".join(messages(error).values())})
        return await _applications_page(visit, error.status, errors=refusal, asked_for=parse_id(application))
    return await _applications_page(visit, issued=issued)


@router.post("/keys/{key}/rotate")
async def rotate_key(visit: VisitOf, key: str) -> Response:
    actor, old = visit.require_actor(), parse_id(key)
    try:
        issued = await visit.platform.identity.rotate_key(actor, old)
    except NotFound:
        raise
    except HaatError as error:
        return await _applications_page(visit, error.status, errors=messages(error))
    keys = await visit.platform.identity.keys(actor, issued.credential.application_id)
    ends = next((one.revoked_at for one in keys if one.id == old), None)
    return await _applications_page(visit, issued=issued, rotated=ends)


@router.post("/keys/{key}/revoke")
async def revoke_key(visit: VisitOf, key: str) -> Response:
    await visit.platform.identity.revoke_key(visit.require_actor(), parse_id(key))
    return visit.redirect("/account", done="revoked")


# --- subscriptions --------------------------------------------------------------------------------


async def _subscriptions_page(visit: Visit, status: int = 200, errors: Fields | None = None) -> Response:
    every = await visit.platform.subscriptions.of(visit.require_actor(), active_only=False)
    active = [one for one in every if one.status == "active"]
    plans: dict[object, list[Plan]] = {}
    for one in active:
        if one.service_id not in plans:
            plans[one.service_id] = await visit.platform.subscriptions.plans(one.service_id)
    return visit.render(
        "subscriptions.html",
        status,
        active=active,
        ended=[one for one in every if one.status != "active"],
        plans=plans,
        errors=errors or Fields(),
    )


@router.get("/subscriptions")
async def subscriptions(visit: VisitOf) -> Response:
    return await _subscriptions_page(visit)


@router.post("/subscriptions/{subscription}/plan")
async def change_plan(visit: VisitOf, subscription: str) -> Response:
    actor = visit.require_actor()
    try:
        await visit.platform.subscriptions.change_plan(actor, parse_id(subscription), visit.text("plan"))
    except NotFound:
        raise
    except HaatError as error:
        return await _subscriptions_page(visit, error.status, messages(error))
    return visit.redirect("/account/subscriptions", done="plan")


@router.post("/subscriptions/{subscription}/cancel")
async def cancel(visit: VisitOf, subscription: str) -> Response:
    actor = visit.require_actor()
    try:
        await visit.platform.subscriptions.cancel(actor, parse_id(subscription))
    except NotFound:
        raise
    except HaatError as error:
        return await _subscriptions_page(visit, error.status, messages(error))
    return visit.redirect("/account/subscriptions", done="cancelled")
