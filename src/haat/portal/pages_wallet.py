"""The wallet of an organisation, what came into it and left it, and the budgets that watch its spending."""

from __future__ import annotations

from decimal import Decimal
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.responses import Response

from haat.kernel.clock import month_of
from haat.kernel.errors import HaatError, NotFound, ValidationFailed
from haat.kernel.money import rupees
from haat.kernel.permissions import Permission
from haat.language.messages import _
from haat.portal.visit import Fields, Visit, VisitOf, messages, parse_id
from haat.wallet.model import burn_order

router = APIRouter(prefix="/account/wallet")


async def _page(visit: Visit, status: int = 200, *, cursor: str = "", errors: Fields | None = None) -> Response:
    actor, platform = visit.require_actor(), visit.platform
    standing = await platform.wallets.standing(actor)
    movements = await platform.wallets.movements(actor, cursor=cursor or None, limit=20)
    choices = [("", _("The whole organisation"))]
    choices += [
        (f"application/{one.id}", _("Application %(name)s", name=one.name))
        for one in await platform.identity.applications(actor)
    ]
    subscriptions = await platform.subscriptions.of(actor)
    choices += [
        (
            f"subscription/{one.id}",
            _("%(service)s by %(application)s", service=one.service_name, application=one.application_name),
        )
        for one in subscriptions
    ]
    return visit.render(
        "wallet.html",
        status,
        standing=standing,
        grants=burn_order(standing.grants),
        own_modes=[(one, standing.subscriptions[one.id]) for one in subscriptions if one.id in standing.subscriptions],
        movements=movements.items,
        budgets=await platform.budgets.standing(actor),
        period=month_of(platform.clock.now(), visit.zone).label,
        choices=choices,
        may_set=actor.may(Permission.SUBSCRIPTIONS_EDIT),
        errors=errors or Fields(),
        typed=visit.typed if errors else Fields(),
        next_href=f"/account/wallet?{urlencode({'cursor': movements.next})}" if movements.next else None,
    )


@router.get("")
async def wallet(visit: VisitOf, cursor: str = "") -> Response:
    return await _page(visit, cursor=cursor)


@router.post("/budgets")
async def set_budget(visit: VisitOf) -> Response:
    actor = visit.require_actor()
    kind, __, identifier = visit.text("whose").partition("/")
    whose = {kind: parse_id(identifier)} if kind in ("application", "subscription") else {}
    try:
        amount = _rupees(visit.text("amount"))
        await visit.platform.budgets.set(actor, amount, hard_stop=visit.text("at_end") == "stop", **whose)
    except NotFound:
        raise
    except HaatError as error:
        return await _page(visit, error.status, errors=messages(error))
    return visit.redirect("/account/wallet", done="budget")


@router.post("/budgets/{budget}/remove")
async def remove_budget(visit: VisitOf, budget: str) -> Response:
    await visit.platform.budgets.remove(visit.require_actor(), parse_id(budget))
    return visit.redirect("/account/wallet", done="budget-removed")


def _rupees(text: str) -> Decimal:
    try:
        return rupees(text)
    except ValueError:
        raise ValidationFailed(errors=[{"field": "amount", "message": _("Give rupees, such as 500.")}]) from None
