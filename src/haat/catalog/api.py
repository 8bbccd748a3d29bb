"""Control API of the catalog."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from haat.catalog.drafts import PriceDraft, ServiceDraft, ServicePolicyDraft, VersionDraft, VersionPolicyDraft
from haat.catalog.model import Category, Listing, Order, Price, Suggestion, Version
from haat.catalog.pricing import MeterDraft
from haat.control.context import ActorOf, Body, PlatformOf, VisitorOf

router = APIRouter(tags=["catalog"])


class ListingPage(BaseModel):
    """``instead`` are the words that were searched for when some of those typed stand nowhere."""

    items: list[Listing]
    next: str | None
    instead: str | None


class VersionView(BaseModel):
    """A version as its buyers see it: without the endpoint behind it."""

    id: UUID
    version: str
    dialect: str
    languages: list[str]
    language_pairs: list[str]
    sample: dict[str, Any]
    is_default: bool
    accepted_at: datetime | None
    serves: str
    deprecated_at: datetime | None
    sunset_at: datetime | None
    successor: str
    quality: list[dict[str, str]]
    """What its provider says of how well it translates, a pair each: a claim, which nobody here has measured."""

    @classmethod
    def of(cls, version: Version) -> VersionView:
        return cls.model_validate(version, from_attributes=True)


class ListingView(BaseModel):
    listing: Listing
    versions: list[VersionView]
    prices: list[Price]


class RegisteredView(BaseModel):
    """``credential`` is what the gateway sends to the endpoint; it is shown here once."""

    service_id: UUID
    version_id: UUID
    credential_header: str
    credential: str


class VersionAdded(BaseModel):
    version_id: UUID


class PurgeView(BaseModel):
    """``generation`` counts the purges of a service."""

    generation: int


class StepView(BaseModel):
    name: str
    ok: bool
    detail: str
    ms: float


class Endpoint(Body):
    endpoint: str


class Reason(Body):
    reason: str


class Deprecation(Body):
    sunset_at: AwareDatetime
    reason: str = ""


class VersionDeprecation(Body):
    """``sunset_at`` is the end, if it is known; ``successor`` the version to move to."""

    sunset_at: AwareDatetime | None = None
    successor: Annotated[str, Field(max_length=32)] = ""


class PriceSet(BaseModel):
    version: int


class MeterView(BaseModel):
    """A meter; ``filter`` has what restricts the calls it sees."""

    name: str
    aggregation: str
    measure: str
    less: list[str]
    filter: dict[str, Any]


@router.get("/listings")
async def search(
    visitor: VisitorOf,
    platform: PlatformOf,
    q: Annotated[str, Query(max_length=200)] = "",
    category: Category | None = None,
    language: Annotated[str | None, Query(max_length=20)] = None,
    provider: Annotated[str | None, Query(max_length=80)] = None,
    max_price: Annotated[Decimal | None, Query(ge=0)] = None,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 24,
    sort: Order = "best",
    exact: bool = False,
) -> ListingPage:
    """Search the catalog in any script. A word that stands nowhere is replaced by the nearest unless `exact`."""
    page = await platform.discovery.search(
        visitor,
        text=q,
        category=category,
        language=language,
        provider=provider,
        max_price=max_price,
        cursor=cursor,
        limit=limit,
        order=sort,
        exact=exact,
    )
    return ListingPage(items=list(page.items), next=page.next, instead=page.instead)


@router.get("/autocomplete")
async def autocomplete(
    visitor: VisitorOf, platform: PlatformOf, prefix: Annotated[str, Query(max_length=100)]
) -> list[Suggestion]:
    """Complete the last word that is being typed."""
    return await platform.discovery.autocomplete(visitor, prefix)


@router.get("/listings/{provider}/{service}")
async def listing(provider: str, service: str, visitor: VisitorOf, platform: PlatformOf) -> ListingView:
    """Show one listing with its versions and prices."""
    found = await platform.discovery.listing(visitor, provider, service)
    versions = await platform.discovery.versions(visitor, found.id)
    return ListingView(
        listing=found,
        versions=[VersionView.of(version) for version in versions],
        prices=await platform.discovery.prices(visitor, found.id),
    )


@router.get("/services")
async def own(actor: ActorOf, platform: PlatformOf) -> list[Listing]:
    """List the own services, drafts included."""
    return await platform.catalog.own(actor)


@router.post("/services", status_code=201)
async def register(body: ServiceDraft, actor: ActorOf, platform: PlatformOf) -> RegisteredView:
    """Register a service as a draft, with its first version and price."""
    made = await platform.catalog.register(actor, body)
    return RegisteredView.model_validate(asdict(made))


@router.post("/services/{service_id}/versions", status_code=201)
async def add_version(service_id: UUID, body: VersionDraft, actor: ActorOf, platform: PlatformOf) -> VersionAdded:
    """Add a version beside the others."""
    return VersionAdded(version_id=await platform.catalog.versions.add(actor, service_id, body))


@router.post("/services/{service_id}/versions/{version_id}/accept")
async def accept(
    service_id: UUID, version_id: UUID, actor: ActorOf, platform: PlatformOf, default: bool = True
) -> list[StepView]:
    """Make the acceptance call; a version that passes becomes the default one, unless that isn't wanted."""
    report = await platform.catalog.versions.accept(actor, service_id, version_id, default=default)
    return [StepView.model_validate(asdict(step)) for step in report.steps]


@router.put("/services/{service_id}/versions/{version_id}/endpoint")
async def move_endpoint(
    service_id: UUID, version_id: UUID, body: Endpoint, actor: ActorOf, platform: PlatformOf
) -> list[StepView]:
    """Send a version's calls to another address, once it has passed the acceptance call."""
    report = await platform.catalog.versions.move_endpoint(actor, service_id, version_id, body.endpoint)
    return [StepView.model_validate(asdict(step)) for step in report.steps]


@router.put("/services/{service_id}/versions/{version_id}/policy")
async def set_version_policy(
    service_id: UUID, version_id: UUID, body: VersionPolicyDraft, actor: ActorOf, platform: PlatformOf
) -> list[StepView]:
    """Replace what a version says to the gateway; further endpoints must pass the acceptance call first."""
    report = await platform.catalog.versions.set_policy(actor, service_id, version_id, body)
    return [StepView.model_validate(asdict(step)) for step in report.steps]


@router.post("/services/{service_id}/versions/{version_id}/deprecate")
async def deprecate_version(
    service_id: UUID, version_id: UUID, body: VersionDeprecation, actor: ActorOf, platform: PlatformOf
) -> VersionView:
    """Announce with every answer that a version should be left; after its end it is answered with 410."""
    return VersionView.of(
        await platform.catalog.versions.deprecate(
            actor, service_id, version_id, sunset_at=body.sunset_at, successor=body.successor
        )
    )


@router.post("/services/{service_id}/versions/{version_id}/restore")
async def restore_version(service_id: UUID, version_id: UUID, actor: ActorOf, platform: PlatformOf) -> VersionView:
    """Take back what was announced of a version's end."""
    return VersionView.of(await platform.catalog.versions.restore(actor, service_id, version_id))


@router.put("/services/{service_id}/policy")
async def set_policy(service_id: UUID, body: ServicePolicyDraft, actor: ActorOf, platform: PlatformOf) -> Listing:
    """Replace what a service says to the gateway: whether its calls may be repeated, what it can stand in for."""
    return await platform.catalog.set_policy(actor, service_id, body)


@router.post("/services/{service_id}/cache/purge")
async def purge_cache(service_id: UUID, actor: ActorOf, platform: PlatformOf) -> PurgeView:
    """Have every gateway forget what it keeps of a service's answers, within a second."""
    return PurgeView(generation=await platform.catalog.purge_cache(actor, service_id))


@router.post("/services/{service_id}/publish")
async def publish(service_id: UUID, actor: ActorOf, platform: PlatformOf) -> Listing:
    """Open a listing that has an accepted version."""
    return await platform.catalog.publish(actor, service_id)


@router.post("/services/{service_id}/deprecate")
async def deprecate(service_id: UUID, body: Deprecation, actor: ActorOf, platform: PlatformOf) -> Listing:
    """Announce the end of a listing."""
    return await platform.catalog.deprecate(actor, service_id, body.sunset_at, body.reason)


@router.post("/services/{service_id}/retire")
async def retire(service_id: UUID, actor: ActorOf, platform: PlatformOf) -> Listing:
    """Take a listing off the market for good."""
    return await platform.catalog.retire(actor, service_id)


@router.post("/services/{service_id}/prices", status_code=201)
async def set_price(service_id: UUID, body: PriceDraft, actor: ActorOf, platform: PlatformOf) -> PriceSet:
    """Add a price that counts from now on, or from the moment it names."""
    return PriceSet(version=await platform.catalog.set_price(actor, service_id, body))


@router.get("/services/{service_id}/prices")
async def price_history(service_id: UUID, visitor: VisitorOf, platform: PlatformOf) -> list[Price]:
    """List every version of a listing's prices, those to come included, the latest first."""
    return await platform.discovery.price_history(visitor, service_id)


@router.post("/services/{service_id}/meters", status_code=201)
async def define_meter(service_id: UUID, body: MeterDraft, actor: ActorOf, platform: PlatformOf) -> MeterView:
    """Add a meter that prices can be put on; it is never changed."""
    return MeterView.model_validate((await platform.catalog.define_meter(actor, service_id, body)).data())


@router.get("/services/{service_id}/meters")
async def meters(service_id: UUID, visitor: VisitorOf, platform: PlatformOf) -> list[MeterView]:
    """List a listing's own meters; the sum of each unit is a meter besides."""
    return [MeterView.model_validate(one.data()) for one in await platform.discovery.meters(visitor, service_id)]


@router.post("/services/{service_id}/suspend")
async def suspend(service_id: UUID, body: Reason, actor: ActorOf, platform: PlatformOf) -> Listing:
    """Stop a listing on every gateway, as the operator."""
    return await platform.catalog.suspend(actor, service_id, body.reason)


@router.post("/services/{service_id}/restore")
async def restore(service_id: UUID, actor: ActorOf, platform: PlatformOf) -> Listing:
    """Open a suspended listing again, as the operator."""
    return await platform.catalog.restore(actor, service_id)
