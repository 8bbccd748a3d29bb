"""How a version of a model becomes a version of a listing: through the catalog's own door."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.catalog.drafts import PriceDraft, SampleCall, ServiceDraft, VersionDraft
from haat.catalog.model import Listing, Version
from haat.catalog.service import Catalog
from haat.infra.keyring import Keyring
from haat.kernel.errors import Conflict
from haat.kernel.permissions import Actor
from haat.models.credentials import endpoint_of, provider_token
from haat.models.manifest import Manifest
from haat.models.task import max_body_bytes
from haat.registry.model import ModelVersion
from haat.settings import Settings

WARM_UP_SECONDS = 60
WARM_UP_SECONDS_WITH_REQUIREMENTS = 600
_MOST_BODY = 10 * 1024 * 1024
_GRACE_MS = 2000
"""The models process says that it took too long before the gateway has to."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A listing's id and path, and the steps of the acceptance call; none when there was nothing to accept."""

    service_id: UUID
    path: str
    steps: tuple[dict[str, Any], ...] = ()


async def put_on_shelf(
    catalog: Catalog, keyring: Keyring, settings: Settings, actor: Actor, one: ModelVersion, *, default: bool = True
) -> Listed:
    """Register the listing or add the version, have it accepted, and open the listing. Raise AcceptanceFailed.

    Without ``default`` the version is accepted beside the listing's default one.
    """
    draft = _version_draft(settings, one)
    listing = await _listing_of(catalog, actor, one)
    if listing is None:
        made = await catalog.register(actor, _service_draft(keyring, one, draft))
        service_id, version_id = made.service_id, made.version_id
        present = None
    else:
        service_id = listing.id
        present = await _version_of(catalog, actor, service_id, one.version)
        if present is None:
            version_id = await catalog.versions.add(actor, service_id, draft)
        else:
            version_id = present.id
    steps: list[Any] = []
    if present is not None and present.endpoint != draft.endpoint:
        if not present.endpoint.endswith(f"/{one.name}%40{one.version}"):
            raise Conflict(
                f"The listing has a version {one.version} of its own at another address: choose another name."
            )
        steps += (await catalog.versions.move_endpoint(actor, service_id, version_id, draft.endpoint)).steps
    if present is None or present.accepted_at is None:
        steps += (await catalog.versions.accept(actor, service_id, version_id, default=default)).steps
    if listing is None or listing.status == "draft":
        await catalog.publish(actor, service_id)
    return Listed(service_id, f"{one.provider}/{one.name}", tuple(asdict(step) for step in steps))


async def is_default(catalog: Catalog, actor: Actor, one: ModelVersion) -> bool:
    """Tell whether an open listing sends calls that name no version to this one."""
    listing = await _listing_of(catalog, actor, one)
    if listing is None or listing.status == "retired":
        return False
    version = await _version_of(catalog, actor, listing.id, one.version)
    return version is not None and version.is_default


async def _listing_of(catalog: Catalog, actor: Actor, one: ModelVersion) -> Listing | None:
    return next((own for own in await catalog.own(actor) if own.slug == one.name), None)


async def _version_of(catalog: Catalog, actor: Actor, service_id: UUID, name: str) -> Version | None:
    return next((one for one in await catalog.versions.own(actor, service_id) if one.version == name), None)


def _service_draft(keyring: Keyring, one: ModelVersion, version: VersionDraft) -> ServiceDraft:
    said = one.manifest.listing
    draft: ServiceDraft = ServiceDraft.parse(
        {
            "slug": one.name,
            "name": said.name or one.name,
            "summary": said.summary,
            "description": f"{said.description}\n\n{said.license_note}".strip(),
            "category": one.manifest.category,
            "unit": said.unit,
            "max_requests_per_second": 100_000,  # its queue says when it is full
            "version": version.model_dump(),
            "price": PriceDraft(unit_price=Decimal(said.unit_price), free_units=Decimal(said.free_units)).model_dump(),
            "credential_header": "Authorization",
            "credential": f"Bearer {provider_token(keyring, one.provider)}",
        }
    )
    return draft


def _version_draft(settings: Settings, one: ModelVersion) -> VersionDraft:
    manifest: Manifest = one.manifest
    sample = SampleCall(path="/invoke", body={"config": {}, **manifest.sample})
    draft: VersionDraft = VersionDraft.parse(
        {
            "version": one.version,
            "endpoint": endpoint_of(settings.models_address, one.provider, one.name, one.version),
            "dialect": "task",
            "languages": list(manifest.languages),
            "language_pairs": list(manifest.language_pairs),
            "sample": sample.model_dump(),
            "timeout_ms": int(manifest.timeout_seconds * 1000) + _GRACE_MS,
            "warm_up_seconds": WARM_UP_SECONDS_WITH_REQUIREMENTS if manifest.requirements else WARM_UP_SECONDS,
            "max_body_bytes": min(max_body_bytes(manifest), _MOST_BODY),
        }
    )
    return draft
