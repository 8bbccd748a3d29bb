"""Services from draft to retirement: who may do what, and what is kept."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from haat.catalog import store
from haat.catalog.drafts import CachePolicyDraft, PriceDraft, ServicePolicyDraft, VersionDraft, VersionPolicyDraft
from haat.gateway.market import store as gateway_store
from haat.gateway.market.policy import CachePolicy
from haat.infra.postgres import PLATFORM_SCOPE, tenant
from haat.kernel.errors import (
    AcceptanceFailed,
    AddressForbidden,
    AlreadyExists,
    ConcurrentChange,
    Conflict,
    NotFound,
    PermissionDenied,
    ValidationFailed,
)
from haat.kernel.permissions import PLATFORM, Actor, Role
from market import Market, draft


async def _endpoint(status: int = 200) -> tuple[asyncio.Server, str, list[bytes]]:
    """Start a service on loopback that answers everything alike, and return what it was sent."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok" % status)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


def _version(endpoint: str, **changes: Any) -> VersionDraft:
    return VersionDraft.model_validate(
        {"endpoint": endpoint, "sample": {"method": "GET", "path": "/"}, "warm_up_seconds": 1, **changes}
    )


async def test_from_registration_to_the_market_through_a_real_call(market: Market) -> None:
    server, endpoint, heads = await _endpoint()
    provider = await market.provider("bhasha")
    made = await market.catalog.register(provider, draft(version=_version(endpoint).model_dump()))
    with pytest.raises(AcceptanceFailed):
        await market.catalog.publish(provider, made.service_id)
    report = await market.catalog.versions.accept(provider, made.service_id, made.version_id)
    listing = await market.catalog.publish(provider, made.service_id)
    server.close()
    assert report.ok and (listing.status, listing.path) == ("published", "bhasha/anuvad")
    assert f"Authorization: {made.credential}".encode() in heads[0]
    types = [event.type for event in await market.events(f"service/{made.service_id}")]
    assert types == ["service.registered", "service.accepted", "service.published"]


async def test_a_failed_acceptance_changes_nothing(market: Market) -> None:
    server, endpoint, _ = await _endpoint(500)
    provider = await market.provider()
    made = await market.catalog.register(provider, draft(version=_version(endpoint).model_dump()))
    with pytest.raises(AcceptanceFailed):
        await market.catalog.versions.accept(provider, made.service_id, made.version_id)
    server.close()
    versions = await market.discovery.versions(provider, made.service_id)
    assert [(version.is_default, version.accepted_at) for version in versions] == [(False, None)]


async def test_a_new_version_serves_after_its_acceptance_beside_the_old_one(market: Market) -> None:
    server, endpoint, _ = await _endpoint()
    provider = await market.provider()
    listing = await market.listing(provider)
    second = await market.catalog.versions.add(
        provider, listing.id, _version(endpoint, version="2", languages=["ta-Taml"])
    )
    assert [version.version for version in await market.discovery.versions(None, listing.id)] == ["1"]
    assert [version.version for version in await market.discovery.versions(provider, listing.id)] == ["2", "1"]
    await market.catalog.versions.accept(provider, listing.id, second)
    server.close()
    versions = await market.discovery.versions(None, listing.id)
    assert [(version.version, version.is_default) for version in versions] == [("2", True), ("1", False)]
    found = await market.discovery.search(text="tamil")
    assert [item.languages for item in found.items] == [("ta-Taml",)]


async def test_an_endpoint_moves_only_to_an_address_that_passes(market: Market) -> None:
    server, endpoint, _ = await _endpoint()
    broken, nowhere, _ = await _endpoint(500)
    provider = await market.provider()
    made = await market.catalog.register(provider, draft(version=_version(nowhere).model_dump()))
    with pytest.raises(AcceptanceFailed):
        await market.catalog.versions.move_endpoint(provider, made.service_id, made.version_id, nowhere)
    await market.catalog.versions.move_endpoint(provider, made.service_id, made.version_id, endpoint + "/")
    server.close()
    broken.close()
    assert (await market.discovery.versions(provider, made.service_id))[0].endpoint == endpoint


async def test_every_endpoint_of_a_version_has_to_pass(market: Market) -> None:
    server, endpoint, heads = await _endpoint()
    broken, nowhere, _ = await _endpoint(500)
    provider = await market.provider()
    both = _version(endpoint, policy={"endpoints": [nowhere]}).model_dump()
    made = await market.catalog.register(provider, draft(version=both))
    with pytest.raises(AcceptanceFailed):
        await market.catalog.versions.accept(provider, made.service_id, made.version_id)
    further = VersionPolicyDraft(endpoints=[endpoint + "/second/"])
    await market.catalog.versions.set_policy(provider, made.service_id, made.version_id, further)
    report = await market.catalog.versions.accept(provider, made.service_id, made.version_id)
    server.close()
    broken.close()
    assert [step.name for step in report.steps] == ["address", "sample call"] * 2
    assert {head.split()[1] for head in heads} == {b"/", b"/second/"}
    [version] = await market.discovery.versions(provider, made.service_id)
    assert version.endpoints == (endpoint, endpoint + "/second")


async def test_a_version_that_speaks_websocket_is_one_to_the_gateway(market: Market, database: Any) -> None:
    server, endpoint, _ = await _endpoint()
    provider = await market.provider()
    speaking = _version(endpoint, policy={"websocket": True}).model_dump()
    made = await market.catalog.register(provider, draft(version=speaking))
    await market.catalog.versions.accept(provider, made.service_id, made.version_id)
    await market.catalog.publish(provider, made.service_id)
    server.close()
    async with database.service.transaction(PLATFORM_SCOPE) as connection:
        service = await gateway_store.service(connection, made.service_id)
    assert service is not None and service.versions[0].policy.websocket
    with pytest.raises(ValidationFailed):
        VersionPolicyDraft.parse({"serves": "1", "websocket": True})


async def test_a_further_endpoint_that_fails_changes_nothing(market: Market) -> None:
    server, endpoint, _ = await _endpoint()
    broken, nowhere, _ = await _endpoint(500)
    provider = await market.provider()
    made = await market.catalog.register(provider, draft(version=_version(endpoint).model_dump()))
    for wrong, refusal in (
        (nowhere, AcceptanceFailed),
        ("http://10.0.0.7", AcceptanceFailed),
        (endpoint, Conflict),
    ):
        with pytest.raises(refusal):
            await market.catalog.versions.set_policy(
                provider, made.service_id, made.version_id, VersionPolicyDraft(endpoints=[wrong])
            )
    server.close()
    broken.close()
    [version] = await market.discovery.versions(provider, made.service_id)
    assert version.endpoints == (endpoint,)


async def test_a_service_says_whether_its_calls_may_be_repeated_and_what_it_can_stand_in_for(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    assert listing.policy == {}
    changed = await market.catalog.set_policy(
        provider, listing.id, ServicePolicyDraft(repeatable=True, capability="translate")
    )
    assert changed.policy == {"repeatable": True, "capability": "translate"}
    assert (await market.events(f"service/{listing.id}"))[-1].type == "service.policy_changed"
    other = await market.provider("other")
    with pytest.raises(NotFound):
        await market.catalog.set_policy(other, listing.id, ServicePolicyDraft())


async def test_a_service_has_its_answers_kept_and_forgotten_as_its_provider_says(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    cached = ServicePolicyDraft(cache=CachePolicyDraft(ttl_seconds=60, headers=["X-Model"]))
    changed = await market.catalog.set_policy(provider, listing.id, cached)
    assert changed.policy == {"cache": {"ttl_seconds": 60, "headers": ["X-Model"]}}
    assert await market.catalog.purge_cache(provider, listing.id) == 1
    assert await market.catalog.purge_cache(await market.operator(), listing.id) == 2
    event = (await market.events(f"service/{listing.id}"))[-1]
    assert (event.type, event.data) == ("service.cache_purged", {"generation": 2})
    usual = await market.catalog.set_policy(provider, listing.id, ServicePolicyDraft(cache=CachePolicyDraft()))
    assert usual.policy == {"cache": {}, "cache_generation": 2}  # nothing of before comes back
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        entry = await gateway_store.service(connection, listing.id)
    assert entry is not None
    assert (entry.policy.cache, entry.policy.cache_generation) == (CachePolicy(), 2)
    with pytest.raises(NotFound):
        await market.catalog.purge_cache(await market.provider("other"), listing.id)
    with pytest.raises(PermissionDenied):
        await market.catalog.purge_cache(await market.consumer(), listing.id)


async def test_the_gateway_reads_what_a_provider_has_said_of_its_endpoints(market: Market, database: Any) -> None:
    provider = await market.provider("bhasha")
    version = {
        "endpoint": "http://8.8.8.8",
        "health_path": "/health",
        "sample": {"method": "GET", "path": "/"},
        "policy": {"endpoints": ["http://8.8.4.4:8080/two/"]},
    }
    listing = await market.listing(provider, version=version, policy={"repeatable": True, "capability": "translate"})
    async with database.service.transaction(PLATFORM_SCOPE) as connection:
        service = await gateway_store.service(connection, listing.id)
    assert service is not None
    assert (service.policy.repeatable, service.policy.capability) == (True, "translate")
    [known] = service.versions
    assert (known.endpoint, known.policy.endpoints) == ("http://8.8.8.8", ("http://8.8.4.4:8080/two",))
    assert known.health_path == "/health"


async def test_an_unknown_version_is_not_found(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    with pytest.raises(NotFound):
        await market.catalog.versions.accept(provider, listing.id, uuid4())


async def test_a_version_is_never_replaced(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    with pytest.raises(AlreadyExists):
        await market.catalog.versions.add(provider, listing.id, _version("http://8.8.8.8", version="1"))
    with pytest.raises(AlreadyExists):
        await market.catalog.register(provider, draft())


async def test_versions_added_at_once_are_all_kept(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    await asyncio.gather(
        *(
            market.catalog.versions.add(provider, listing.id, _version("http://8.8.8.8", version=f"v{number}"))
            for number in range(6)
        )
    )
    assert len(await market.discovery.versions(provider, listing.id)) == 7


@pytest.mark.parametrize("endpoint", ["http://api.example.in:22", "http://api.example.in:0"])
async def test_an_endpoint_on_a_forbidden_port_is_refused(market: Market, endpoint: str) -> None:
    provider = await market.provider()
    with pytest.raises(AddressForbidden):
        await market.catalog.register(provider, draft(version={"endpoint": endpoint, "sample": {}}))


async def test_the_credential_is_stored_encrypted_and_bound_to_its_service(market: Market) -> None:
    provider = await market.provider()
    made = await market.catalog.register(provider, draft(credential="Bearer from-the-provider"))
    assert made.credential == "Bearer from-the-provider"
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        row = await (await connection.execute("SELECT *, c::text AS text FROM provider_credentials c")).fetchone()
    assert row is not None
    assert "from-the-provider" not in row["text"] and b"from-the-provider".hex() not in row["text"]
    assert market.keyring.decrypt(bytes(row["ciphertext"]), str(made.service_id)) == made.credential


async def test_only_approved_partners_offer_services(market: Market) -> None:
    waiting, suspended = await market.applicant(), await market.provider()
    assert suspended.org_id
    service = await market.shelf(suspended)
    await market.partners.suspend(PLATFORM, suspended.org_id, "Spam")
    for actor in (waiting, suspended, await market.consumer(), await market.consumer(kind="provider")):
        with pytest.raises(PermissionDenied):
            await market.catalog.register(actor, draft("other"))
    with pytest.raises(PermissionDenied):
        await market.catalog.publish(suspended, service)


async def test_a_partner_suspended_while_its_call_runs_is_not_accepted(market: Market) -> None:
    provider = await market.provider()
    assert provider.org_id
    org = provider.org_id

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await market.partners.suspend(PLATFORM, org, "Spam")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    made = await market.catalog.register(provider, draft(version=_version(endpoint).model_dump()))
    with pytest.raises(PermissionDenied):
        await market.catalog.versions.accept(provider, made.service_id, made.version_id)
    server.close()


async def test_somebody_elses_service_is_not_there_to_be_changed(market: Market) -> None:
    listing = await market.listing(await market.provider())
    rival = await market.provider()
    later = market.clock.now() + timedelta(days=1)
    catalog = market.catalog
    for call in (
        catalog.versions.add(rival, listing.id, _version("http://8.8.8.8", version="2")),
        catalog.versions.accept(rival, listing.id, uuid4()),
        catalog.versions.move_endpoint(rival, listing.id, uuid4(), "http://8.8.8.8"),
        catalog.publish(rival, listing.id),
        catalog.deprecate(rival, listing.id, later, ""),
        catalog.retire(rival, listing.id),
        catalog.set_price(rival, listing.id, PriceDraft(unit_price=Decimal(1))),
        catalog.invite(rival, listing.id, uuid4()),
    ):
        with pytest.raises(NotFound):
            await call
    assert await catalog.own(rival) == []
    assert (await market.discovery.listing_by_id(None, listing.id)).status == "published"


async def test_an_own_shelf_shows_drafts(market: Market) -> None:
    provider = await market.provider()
    await market.catalog.register(provider, draft())
    assert [(item.slug, item.status) for item in await market.catalog.own(provider)] == [("anuvad", "draft")]
    with pytest.raises(PermissionDenied):
        await market.catalog.own(await market.consumer())


# --- suspension ---------------------------------------------------------------------------------


async def test_a_provider_can_not_lift_the_operators_suspension(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    suspended = await market.catalog.suspend(PLATFORM, listing.id, " Too  slow ")
    assert (suspended.status, suspended.status_reason) == ("suspended", "Too slow")
    with pytest.raises(Conflict, match="only the operator"):
        await market.catalog.publish(provider, listing.id)
    with pytest.raises(Conflict):
        await market.catalog.deprecate(provider, listing.id, market.clock.now() + timedelta(days=1), "")
    assert (await market.catalog.restore(PLATFORM, listing.id)).status == "published"


async def test_a_deprecated_listing_is_restored_as_deprecated(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    sunset = market.clock.now() + timedelta(days=90)
    await market.catalog.deprecate(provider, listing.id, sunset, "Version 2 is better")
    await market.catalog.suspend(PLATFORM, listing.id, "")
    restored = await market.catalog.restore(PLATFORM, listing.id)
    assert (restored.status, restored.sunset_at) == ("deprecated", sunset)


async def test_a_listing_published_again_has_no_sunset(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    await market.catalog.deprecate(provider, listing.id, market.clock.now() + timedelta(days=90), "")
    again = await market.catalog.publish(provider, listing.id)
    assert (again.status, again.sunset_at) == ("published", None)


async def test_only_a_suspended_listing_is_restored(market: Market) -> None:
    provider = await market.provider()
    drafted = await market.catalog.register(provider, draft("drafted"))
    listing = await market.listing(provider)
    for service in (drafted.service_id, listing.id):
        with pytest.raises(Conflict):
            await market.catalog.restore(PLATFORM, service)
    with pytest.raises(NotFound):
        await market.catalog.restore(PLATFORM, uuid4())


@pytest.mark.parametrize("role", [Role.PARTNER_ADMIN, Role.PARTNER_DEVELOPER, Role.API_CONSUMER])
async def test_only_the_operator_suspends_and_restores(market: Market, role: Role) -> None:
    actor = Actor(uuid4(), uuid4(), role)
    for call in (market.catalog.suspend(actor, uuid4(), "No"), market.catalog.restore(actor, uuid4())):
        with pytest.raises(PermissionDenied):
            await call


@pytest.mark.parametrize(
    "sunset",
    [datetime(2027, 1, 1), datetime.fromisoformat("2026-11-21T06:30:00+00:00")],  # noqa: DTZ001 - to be refused
)
async def test_a_sunset_without_zone_or_not_ahead_is_refused(market: Market, sunset: datetime) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    with pytest.raises(ValidationFailed):
        await market.catalog.deprecate(provider, listing.id, sunset, "")


async def test_a_retired_listing_takes_no_version(market: Market) -> None:
    server, endpoint, _ = await _endpoint()
    provider = await market.provider()
    made = await market.catalog.register(provider, draft(version=_version(endpoint).model_dump()))
    await market.catalog.retire(provider, made.service_id)
    with pytest.raises(Conflict):
        await market.catalog.versions.accept(provider, made.service_id, made.version_id)
    server.close()


# --- prices and invitations ---------------------------------------------------------------------


async def test_a_price_counts_from_now_on_and_the_earlier_one_is_kept(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    began = market.clock.now()
    market.clock.advance(hours=1)
    assert await market.catalog.set_price(provider, listing.id, PriceDraft(unit_price=Decimal("0.07"))) == 2
    own = PriceDraft(plan_code="basic", unit_price=Decimal("0.04"), free_units=Decimal(100))
    assert await market.catalog.set_price(provider, listing.id, own) == 1
    prices = await market.discovery.prices(None, listing.id)
    assert [(price.plan_code, price.unit_price, price.version) for price in prices] == [
        (None, Decimal("0.07"), 2),
        ("basic", Decimal("0.04"), 1),
    ]
    assert (await market.discovery.listing_by_id(None, listing.id)).unit_price == Decimal("0.07")
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        earlier = await store.prices(connection, listing.id, began)
    assert [price.unit_price for price in earlier] == [Decimal("0.05")]


async def test_two_prices_do_not_begin_at_the_same_moment(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    with pytest.raises(ConcurrentChange):
        await market.catalog.set_price(provider, listing.id, PriceDraft(unit_price=Decimal(1)))


async def test_an_organisation_that_does_not_exist_is_not_invited(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider, visibility="invited")
    with pytest.raises(NotFound):
        await market.catalog.invite(provider, listing.id, uuid4())


async def test_somebody_elses_draft_can_not_be_written_below_the_application(market: Market) -> None:
    service = await market.shelf(await market.provider())
    rival = await market.provider()
    async with market.db.transaction(tenant(rival.org_id)) as connection:
        changed = await connection.execute("UPDATE services SET status = 'published' WHERE id = %s", (service,))
    assert changed.rowcount == 0


async def test_the_first_price_begins_at_once(market: Market) -> None:
    provider = await market.provider()
    later = {"unit_price": "1", "effective_from": market.clock.now() + timedelta(days=1)}
    with pytest.raises(ValidationFailed):
        await market.catalog.register(provider, draft(price=later))
