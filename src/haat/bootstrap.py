"""What a fresh platform has on its shelves: an operator, and the built-in services of two providers.

Built-in providers pass through the same doors as everybody else: they register, the operator
approves them, each service makes its acceptance call. Everything here can run again at any time;
it adds what is new (an engine that was installed since) and leaves the rest alone.
"""

from __future__ import annotations

import base64
import logging
from dataclasses import dataclass
from decimal import Decimal

from haat.app import Platform
from haat.catalog.drafts import (
    PriceDraft,
    SampleCall,
    ServiceDraft,
    ServicePolicyDraft,
    VersionDraft,
    VersionPolicyDraft,
)
from haat.catalog.model import Listing
from haat.content.seeding import seed
from haat.infra.keyring import Keyring
from haat.kernel.errors import AlreadyExists, HaatError
from haat.kernel.permissions import PLATFORM, Actor
from haat.language import Tag
from haat.models.hosted import Company, Hosted, HostedService
from haat.plugins.manager import hosted

log = logging.getLogger(__name__)

OPERATOR_EMAIL = "operator@haat.localhost"
LOOPBACK = ["127.0.0.0/8", "::1/128"]


@dataclass(frozen=True, slots=True)
class SignIn:
    """An account that the platform made by itself, and its password."""

    email: str
    password: str


def local_sign_in(keyring: Keyring, email: str) -> SignIn:
    """Return the sign-in of an account made by the platform: its password follows from the master key."""
    derived = base64.b32encode(keyring.derive(f"local-account/{email}")).decode().lower()
    return SignIn(email, "-".join(derived[start : start + 5] for start in range(0, 20, 5)))


async def ensure_operator(platform: Platform) -> Actor:
    """Return the operator's first administrator, making organisation and account when there are none."""
    sign_in = local_sign_in(platform.keyring, OPERATOR_EMAIL)
    if await platform.identity.operator() is None:
        return await platform.identity.create_organisation(
            email=sign_in.email,
            password=sign_in.password,
            name="Operator",
            organisation=platform.settings.operator_name,
            kind="operator",
            address=platform.settings.operator_address,
            state_code=platform.settings.operator_state,
        )
    return PLATFORM


async def ensure_help_pages(platform: Platform) -> list[tuple[str, Tag]]:
    """Publish the help pages that come with the platform; what the operator wrote stays. Return what was published."""
    return await seed(platform.db, platform.clock, platform.content)


async def ensure_builtin_services(platform: Platform) -> dict[str, str]:
    """Register, accept and publish every hosted service whose engine is installed.

    Return what was left out and why, by ``provider/service``. The models process must be running.
    """
    left_out: dict[str, str] = {}
    providers: dict[str, Actor] = {}
    for path, service in sorted(hosted().items()):
        missing = service.missing()
        if missing is not None:
            left_out[path] = missing
            continue
        try:
            if service.provider not in providers:
                providers[service.provider] = await _ensure_provider(platform, service.company)
            await _ensure_service(platform, providers[service.provider], service)
        except HaatError as error:
            left_out[path] = error.detail
            log.warning("%s is not on the shelf: %s", path, error.detail)
    return left_out


async def _ensure_provider(platform: Platform, company: Company) -> Actor:
    sign_in = local_sign_in(platform.keyring, company.email)
    try:
        actor = await platform.identity.create_organisation(
            email=sign_in.email,
            password=sign_in.password,
            name=company.contact_person,
            organisation=company.name,
            kind="provider",
            state_code=platform.settings.operator_state,
        )
    except AlreadyExists:
        session = await platform.identity.sign_in(sign_in.email, sign_in.password)
        actor = await platform.identity.actor_of(session.token)
        await platform.identity.sign_out(session.token)
    partner = await platform.partners.of(actor)
    if partner is None:
        partner = await platform.partners.register(
            actor,
            slug=company.slug,
            company_name=company.name,
            email=company.email,
            contact_person=company.contact_person,
            business_type=company.business_type,
        )
    if partner.status == "pending":
        await platform.partners.approve(PLATFORM, partner.org_id)
        await platform.partners.allow_networks(PLATFORM, partner.org_id, LOOPBACK)
    return actor


async def _ensure_service(platform: Platform, actor: Actor, service: Hosted) -> None:
    catalog = platform.catalog
    listing = next((own for own in await catalog.own(actor) if own.slug == service.slug), None)
    version = _version_draft(platform, service)
    if listing is None:
        made = await catalog.register(actor, _service_draft(platform, service, version))
        await catalog.versions.accept(actor, made.service_id, made.version_id)
        await catalog.publish(actor, made.service_id)
        return
    if not listing.policy and service.capability:  # it was listed before it had a name for what it does
        await catalog.set_policy(actor, listing.id, _policy_draft(service))
    versions = await platform.discovery.versions(actor, listing.id)
    present = next((v for v in versions if v.version == service.version), None)
    if present is None:
        version_id = await catalog.versions.add(actor, listing.id, version)
        await catalog.versions.accept(actor, listing.id, version_id)
    elif present.endpoint != version.endpoint:
        await catalog.versions.move_endpoint(actor, listing.id, present.id, version.endpoint)
    if present is not None and _audio_formats(service) != present.policy.get("audio_formats", []):
        # ffmpeg was installed since, or is gone
        fields = VersionPolicyDraft.model_fields
        said = {name: value for name, value in present.policy.items() if name in fields}
        policy = VersionPolicyDraft.parse({**said, "audio_formats": _audio_formats(service)})
        await catalog.versions.set_policy(actor, listing.id, present.id, policy)
    if present is not None and present.accepted_at is None:
        await catalog.versions.accept(actor, listing.id, present.id)
    if listing.status == "draft":
        await catalog.publish(actor, listing.id)


def _service_draft(platform: Platform, service: Hosted, version: VersionDraft) -> ServiceDraft:
    return ServiceDraft(
        slug=service.slug,
        name=service.name,
        summary=service.summary,
        description=f"{service.description}\n\n{service.license_note}".strip(),
        category=service.category,
        unit=service.unit,
        max_requests_per_second=100_000,  # their own queue says when it is full
        typical_latency_ms=service.typical_latency_ms,
        policy=_policy_draft(service),
        version=version,
        price=PriceDraft(unit_price=service.unit_price, free_units=Decimal(service.free_units)),
        credential_header="Authorization",
        credential=models_credential(platform.keyring),
    )


def _policy_draft(service: Hosted) -> ServicePolicyDraft:
    return ServicePolicyDraft(capability=service.capability, aliases=list(service.aliases))


def _audio_formats(service: Hosted) -> list[str]:
    return list(service.audio_formats) if isinstance(service, HostedService) else []


def _version_draft(platform: Platform, service: Hosted) -> VersionDraft:
    return VersionDraft(
        version=service.version,
        endpoint=f"{platform.settings.models_address}/{service.path}",
        dialect=service.dialect,
        health_path="/health",
        languages=list(service.languages),
        language_pairs=list(service.language_pairs),
        sample=SampleCall(path=service.sample_path, body=dict(service.sample)),
        timeout_ms=int(service.timeout_seconds * 1000) + 2000,
        warm_up_seconds=30,
        max_body_bytes=min(service.max_body_bytes, 10 * 1024 * 1024),
        policy=VersionPolicyDraft.parse({"audio_formats": _audio_formats(service)}),
    )


def models_credential(keyring: Keyring) -> str:
    """Return what the service execution module expects in ``Authorization``."""
    return f"Bearer {keyring.derive('models-token').hex()}"


async def builtin_listings(platform: Platform) -> list[Listing]:
    """Return the open listings of the built-in services."""
    names = set(hosted())
    found: list[Listing] = []
    cursor: str | None = None
    while True:
        page = await platform.discovery.search(None, cursor=cursor, limit=100)
        found += [listing for listing in page.items if listing.path in names]
        cursor = page.next
        if cursor is None:
            return found
