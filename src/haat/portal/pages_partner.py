"""A provider's stall: registration, services with versions and prices, earnings and statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from haat.catalog.drafts import PriceDraft, VersionDraft
from haat.catalog.model import CATEGORIES, UNITS, Listing, Price
from haat.catalog.service import Registered
from haat.flags.switchboard import PROVIDER_REGISTRATION
from haat.kernel.clock import month_of
from haat.kernel.errors import AcceptanceFailed, HaatError, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.money import multiply
from haat.language.messages import _, gettext
from haat.partners.model import BUSINESS_TYPES, Partner
from haat.portal import formats
from haat.portal.pages_usage import chosen_month, months
from haat.portal.service_form import (
    PRICE_FIELDS,
    SERVICE_FIELDS,
    VERSION_FIELDS,
    fold,
    read_price,
    read_service,
    read_version,
    starting_values,
)
from haat.portal.visit import Fields, Visit, VisitOf, messages, parse_id
from haat.portal.words import BUSINESSES

router = APIRouter(prefix="/partner")


async def _partner(visit: Visit) -> Partner:
    """Return the visitor's approved partner record; raise PermissionDenied before the decision."""
    partner = await visit.platform.partners.of(visit.require_actor())
    if partner is None or partner.status != "approved":
        raise PermissionDenied(_("Services are offered by approved partners: register, or wait for the decision."))
    return partner


async def _own(visit: Visit, service: str) -> Listing:
    identifier = parse_id(service)
    for listing in await visit.platform.catalog.own(visit.require_actor()):
        if listing.id == identifier:
            return listing
    raise NotFound


def _provider_only(visit: Visit) -> None:
    visit.require_actor()
    if visit.visitor is None or visit.visitor.organisation.kind != "provider":
        raise PermissionDenied(_("This is for providers: sign up as one to open a stall."))


# --- the stall ------------------------------------------------------------------------------------


@router.get("")
async def stall(visit: VisitOf, month: str = "") -> Response:
    _provider_only(visit)
    actor = visit.require_actor()
    partner = await visit.platform.partners.of(actor)
    if partner is None:
        return _registration_page(visit)
    period = chosen_month(visit, month)
    usage = await visit.platform.usage.provider_summary(actor, period)
    listings = await visit.platform.catalog.own(actor) if partner.status == "approved" else []
    return visit.render(
        "partner.html",
        partner=partner,
        listings=listings,
        period=period,
        months=months(visit, period),
        usage={one.service_id: one for one in usage.services},
        customers=usage.customers,
        proofs=await visit.request.app.state.portal.proofs.of(visit.platform, listings),
    )


def _registration_page(visit: Visit, status: int = 200, errors: Fields | None = None) -> Response:
    return visit.render(
        "partner_register.html",
        status,
        typed=visit.typed,
        errors=errors or Fields(),
        businesses=[(one, gettext(BUSINESSES[one])) for one in BUSINESS_TYPES],
    )


@router.get("/register")
async def register_again(visit: VisitOf) -> Response:
    _provider_only(visit)
    return _registration_page(visit)


@router.post("/register")
async def register(visit: VisitOf) -> Response:
    _provider_only(visit)
    try:
        await visit.platform.switchboard.require(PROVIDER_REGISTRATION, visit.require_actor())
        await visit.platform.partners.register(
            visit.require_actor(),
            slug=visit.text("slug"),
            company_name=visit.text("company_name"),
            email=visit.text("email"),
            contact_person=visit.text("contact_person"),
            business_type=visit.text("business_type"),
            gstin=visit.text("gstin") or None,
        )
    except HaatError as error:
        return _registration_page(visit, error.status, messages(error))
    return visit.redirect("/partner", done="registered")


# --- services -------------------------------------------------------------------------------------


def _service_form(
    visit: Visit, partner: Partner, typed: Fields, status: int = 200, errors: Fields | None = None
) -> Response:
    return visit.render(
        "service_form.html",
        status,
        partner=partner,
        typed=typed,
        errors=errors or Fields(),
        kinds=[(kind, formats.category_name(kind)) for kind in CATEGORIES],
        units=[(unit, f"{formats.unit_name(unit)} ({formats.price_measure(unit)})") for unit in UNITS],
    )


@router.get("/new")
async def new_service(visit: VisitOf) -> Response:
    return _service_form(visit, await _partner(visit), starting_values())


@router.post("/new")
async def register_service(visit: VisitOf) -> Response:
    """Put a draft on the shelf; the answer shows the credential its endpoint is to expect, once."""
    partner = await _partner(visit)
    try:
        registered = await visit.platform.catalog.register(visit.require_actor(), read_service(visit))
    except HaatError as error:
        return _service_form(visit, partner, visit.typed, error.status, fold(messages(error), SERVICE_FIELDS))
    return await _service_page(visit, str(registered.service_id), registered=registered)


async def _service_page(
    visit: Visit,
    service: str,
    status: int = 200,
    *,
    errors: Fields | None = None,
    registered: Registered | None = None,
    steps: list[dict[str, object]] | None = None,
) -> Response:
    listing, actor = await _own(visit, service), visit.require_actor()
    period = month_of(visit.platform.clock.now(), visit.zone)
    hours = await visit.platform.usage.provider_summary(actor, period)
    usage = next((one for one in hours.services if one.service_id == listing.id), None)
    prices = await visit.platform.discovery.prices(actor, listing.id)
    return visit.render(
        "service.html",
        status,
        listing=listing,
        versions=await visit.platform.discovery.versions(actor, listing.id),
        prices=prices,
        plans=await visit.platform.subscriptions.plans(listing.id),
        usage=usage,
        share=_share_at_list_price(prices, usage.units) if usage else None,
        registered=registered,
        steps=steps,
        errors=errors or Fields(),
        typed=visit.typed if errors else starting_values(),
    )


def _share_at_list_price(prices: Sequence[Price], units: Mapping[str, Decimal]) -> Decimal | None:
    """Return what units come to for the provider by the card for every plan; None for one with more than a price."""
    card = next((price for price in prices if price.plan_code is None), None)
    if card is None or card.components:
        return None
    return multiply(multiply(units.get(card.unit, Decimal(0)), card.unit_price), card.provider_share)


@router.get("/services/{service}")
async def service(visit: VisitOf, service: str) -> Response:
    return await _service_page(visit, service)


@router.post("/services/{service}/versions")
async def add_version(visit: VisitOf, service: str) -> Response:
    listing = await _own(visit, service)
    try:
        draft: VersionDraft = read_version(visit)
        await visit.platform.catalog.versions.add(visit.require_actor(), listing.id, draft)
    except HaatError as error:
        return await _service_page(visit, service, error.status, errors=fold(messages(error), VERSION_FIELDS))
    return visit.redirect(f"/partner/services/{listing.id}", done="version")


@router.post("/services/{service}/versions/{version}/accept")
async def accept(visit: VisitOf, service: str, version: str) -> Response:
    """Make the acceptance call now and show what it saw, step by step, when it fails."""
    listing = await _own(visit, service)
    beside = visit.text("beside") == "yes"
    try:
        await visit.platform.catalog.versions.accept(
            visit.require_actor(), listing.id, parse_id(version), default=not beside
        )
    except AcceptanceFailed as error:
        steps = error.extensions.get("steps", [])
        return await _service_page(visit, service, error.status, errors=messages(error), steps=steps)
    except ValidationFailed as error:
        return await _service_page(visit, service, error.status, errors=messages(error))
    return visit.redirect(f"/partner/services/{listing.id}", done="accepted-beside" if beside else "accepted")


@router.post("/services/{service}/publish")
async def publish(visit: VisitOf, service: str) -> Response:
    listing = await _own(visit, service)
    try:
        await visit.platform.catalog.publish(visit.require_actor(), listing.id)
    except NotFound:
        raise
    except HaatError as error:
        return await _service_page(visit, service, error.status, errors=messages(error))
    return visit.redirect(f"/partner/services/{listing.id}", done="published")


@router.post("/services/{service}/price")
async def set_price(visit: VisitOf, service: str) -> Response:
    listing = await _own(visit, service)
    try:
        draft: PriceDraft = read_price(visit)
        await visit.platform.catalog.set_price(visit.require_actor(), listing.id, draft)
    except HaatError as error:
        return await _service_page(visit, service, error.status, errors=fold(messages(error), PRICE_FIELDS))
    return visit.redirect(f"/partner/services/{listing.id}", done="priced")


@router.post("/services/{service}/deprecate")
async def deprecate(visit: VisitOf, service: str) -> Response:
    listing = await _own(visit, service)
    try:
        sunset = datetime.fromisoformat(visit.text("sunset_at")).replace(tzinfo=UTC)
    except ValueError:
        wrong = Fields(sunset_at=_("Choose the day on which the service ends."))
        return await _service_page(visit, service, 422, errors=wrong)
    try:
        await visit.platform.catalog.deprecate(visit.require_actor(), listing.id, sunset, visit.text("reason"))
    except HaatError as error:
        return await _service_page(visit, service, error.status, errors=messages(error))
    return visit.redirect(f"/partner/services/{listing.id}", done="deprecated")


# --- money ----------------------------------------------------------------------------------------


@router.get("/statements")
async def statements(visit: VisitOf, cursor: str = "") -> Response:
    _provider_only(visit)
    actor = visit.require_actor()
    page = await visit.platform.settlements.page(actor, cursor=cursor or None)
    return visit.render(
        "statements.html",
        statements=page.items,
        next_href=f"/partner/statements?{urlencode({'cursor': page.next})}" if page.next else None,
    )


@router.get("/statements/{settlement}")
async def statement(visit: VisitOf, settlement: str) -> Response:
    actor = visit.require_actor()
    found = await visit.platform.settlements.statement(actor, parse_id(settlement))
    payouts = await visit.platform.payouts.of_settlement(actor, found.settlement.id)
    return visit.render("statement.html", statement=found, settlement=found.settlement, payouts=payouts)


@router.get("/statements/{settlement}/lines/{line}")
async def statement_calls(visit: VisitOf, settlement: str, line: str, cursor: str = "") -> Response:
    """Show the calls behind a provider's line; their customer stays a pseudonym."""
    actor = visit.require_actor()
    found = await visit.platform.settlements.statement(actor, parse_id(settlement))
    wanted: UUID = parse_id(line)
    chosen = next((one for one in found.lines if one.id == wanted), None)
    if chosen is None:
        raise NotFound
    page = await visit.platform.settlements.calls(actor, wanted, cursor=cursor or None, limit=50)
    return visit.render(
        "statement_calls.html",
        settlement=found.settlement,
        line=chosen,
        calls=page.items,
        next_href=f"{visit.request.url.path}?{urlencode({'cursor': page.next})}" if page.next else None,
    )
