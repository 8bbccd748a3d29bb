"""A provider tries a price on a past month before setting it."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from haat.catalog.drafts import PriceDraft
from haat.catalog.model import Listing
from haat.kernel.errors import HaatError, NotFound, ValidationFailed
from haat.language.messages import N_, _, gettext
from haat.portal import formats
from haat.portal.pages_usage import chosen_month, months
from haat.portal.visit import Fields, Visit, VisitOf, messages, parse_id
from haat.rating.simulation import Simulation

router = APIRouter(prefix="/partner/services/{service}/prices")

MODELS = [
    ("unit", N_("by the unit")),
    ("graduated", N_("in tiers, each unit at its tier's price")),
    ("volume", N_("by volume, all units at the price of the tier they reach")),
    ("package", N_("by the package")),
]
FIELDS = ("unit_price", "free_units", "package_size", "tiers", "fee", "minimum", "plan_code", "model")
_SHOWN = 50
_TIER = re.compile(r"(?:up to )?(?P<end>[0-9][0-9,.]*|rest)\s*[:=]\s*₹?(?P<price>[0-9.]+)")
_HOMES = {
    "package_price": "unit_price",
    "amount": "fee",
    "up_to": "tiers",
    "graduated": "tiers",
    "volume": "tiers",
}


async def _own(visit: Visit, service: str) -> Listing:
    identifier = parse_id(service)
    for listing in await visit.platform.catalog.own(visit.require_actor()):
        if listing.id == identifier:
            return listing
    raise NotFound


async def _page(
    visit: Visit,
    listing: Listing,
    status: int = 200,
    *,
    errors: Fields | None = None,
    found: Simulation | None = None,
) -> Response:
    period = chosen_month(visit, found.period if found else visit.text("month"))
    menu = months(visit, period)
    typed = visit.typed
    if not visit.form:
        period = chosen_month(visit, menu[1].label)
        typed = Fields({"free_units": f"{listing.free_units or 0:f}".rstrip("0").rstrip(".") or "0"})
        typed["unit_price"] = f"{(listing.unit_price or 0):f}".rstrip("0").rstrip(".") or "0"
    return visit.render(
        "prices.html",
        status,
        listing=listing,
        errors=errors or Fields(),
        typed=typed,
        models=[(model, gettext(words)) for model, words in MODELS],
        months=[(month.label, formats.month(month.label)) for month in menu],
        period=period,
        plans=[("", _("every plan")), *((plan.code, plan.name) for plan in await _plans(visit, listing))],
        found=found,
        shown=found.customers[:_SHOWN] if found else [],
        settable=FIELDS,
    )


async def _plans(visit: Visit, listing: Listing) -> list[Any]:
    return list(await visit.platform.subscriptions.plans(listing.id))


@router.get("")
async def prices(visit: VisitOf, service: str) -> Response:
    return await _page(visit, await _own(visit, service))


@router.post("")
async def simulate(visit: VisitOf, service: str) -> Response:
    """Show what a month would have cost on the typed card; nothing is stored."""
    listing = await _own(visit, service)
    try:
        found = await visit.platform.simulator.simulate(
            visit.require_actor(), listing.id, period=visit.text("month") or None, draft=read_card(visit, listing.unit)
        )
    except ValidationFailed as error:
        return await _page(visit, listing, error.status, errors=_at_home(messages(error)))
    except HaatError as error:
        return await _page(visit, listing, error.status, errors=messages(error))
    return await _page(visit, listing, found=found)


@router.post("/set")
async def set_price(visit: VisitOf, service: str) -> Response:
    listing = await _own(visit, service)
    try:
        await visit.platform.catalog.set_price(visit.require_actor(), listing.id, read_card(visit, listing.unit))
    except HaatError as error:
        return await _page(visit, listing, error.status, errors=_at_home(messages(error)))
    return visit.redirect(f"/partner/services/{listing.id}", done="priced")


def read_card(visit: Visit, unit: str) -> PriceDraft:
    """Return the card that the form says; raise ValidationFailed."""
    model, price, free = visit.text("model") or "unit", visit.text("unit_price"), visit.text("free_units") or "0"
    data: dict[str, Any] = {"plan_code": visit.text("plan_code") or None, "minimum": visit.text("minimum") or "0"}
    fee = visit.text("fee")
    if model == "unit" and not fee.strip("0."):
        return _draft(data | {"unit_price": price, "free_units": free})
    part: dict[str, Any] = {"model": model, "meter": unit, "free_units": free}
    if model in ("graduated", "volume"):
        part["tiers"] = _tiers(visit.text("tiers"))
    elif model == "package":
        part |= {"package_size": visit.text("package_size"), "package_price": price}
    else:
        part["unit_price"] = price
    fees = [{"model": "flat", "amount": fee}] if fee.strip("0.") else []
    return _draft(data | {"components": [*fees, part]})


def _draft(data: dict[str, Any]) -> PriceDraft:
    draft: PriceDraft = PriceDraft.parse(data)
    return draft


def _tiers(written: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in filter(None, map(str.strip, written.splitlines())):
        match = _TIER.fullmatch(line)
        if match is None:
            message = _(
                "Write a tier as `%(tier)s`, and the last one as `%(last)s`; this is no tier: %(line)s",
                tier="1000: 0.05",
                last="rest: 0.02",
                line=line[:40],
            )
            raise ValidationFailed(errors=[{"field": "tiers", "message": message}])
        end = None if match["end"] == "rest" else match["end"].replace(",", "")
        found.append({"up_to": end, "unit_price": match["price"]})
    return found


def _at_home(errors: Fields) -> Fields:
    """Bring refusals to the fields of this form: ``components.0.package.package_size`` to ``package_size``."""
    folded = Fields()
    for name, message in errors.items():
        last = next((part for part in reversed(name.split(".")) if not part.isdigit()), "")
        last = "tiers" if ".tiers" in name else _HOMES.get(last, last)
        folded[last if last in FIELDS else ""] = message
    return folded
