"""A provider's stall closes and opens with the provider; plain http stays in opened networks."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from haat.catalog.jobs import HANDLERS
from haat.catalog.service import Catalog
from haat.kernel.errors import AcceptanceFailed, AddressForbidden
from haat.kernel.permissions import PLATFORM, Actor
from market import Market, draft


async def follow(market: Market, actor: Actor) -> None:
    """Run the catalog's handlers over a provider's events, the last one twice as a retried job would."""
    platform: Any = SimpleNamespace(partners=market.partners, catalog=market.catalog)
    happened = await market.events(f"partner/{actor.org_id}")
    for event in [*happened, happened[-1]]:
        for handler in HANDLERS:
            if event.type in handler.types:
                await handler.run(platform, event)


async def states(market: Market, actor: Actor) -> dict[str, str]:
    return {listing.slug: listing.status for listing in await market.catalog.own(actor)}


async def test_a_suspended_providers_listings_are_not_found_and_come_back_with_it(market: Market) -> None:
    actor = await market.provider()
    assert actor.org_id
    for slug in ("anuvad", "lipi"):
        await market.listing(actor, slug)
    bad = await market.listing(actor, "kharab")
    await market.catalog.suspend(PLATFORM, bad.id, "It answers nonsense")

    await market.partners.suspend(PLATFORM, actor.org_id, "Unpaid dues")
    await follow(market, actor)
    assert set((await states(market, actor)).values()) == {"suspended"}
    assert not (await market.discovery.search(None)).items

    await market.partners.approve(PLATFORM, actor.org_id)
    await follow(market, actor)
    assert await states(market, actor) == {"anuvad": "published", "lipi": "published", "kharab": "suspended"}


async def test_a_decision_that_was_overtaken_changes_nothing(market: Market) -> None:
    actor = await market.provider()
    assert actor.org_id
    await market.listing(actor)
    await market.partners.suspend(PLATFORM, actor.org_id, "By mistake")
    await market.partners.approve(PLATFORM, actor.org_id)
    await follow(market, actor)
    assert await states(market, actor) == {"anuvad": "published"}


async def test_plain_http_is_taken_in_production_only_inside_an_opened_network(market: Market) -> None:
    strict = Catalog(
        market.db,
        market.clock,
        market.keyring,
        market.partners,
        allowed_networks=[],
        https_only=True,
        provider_share=Decimal("0.7"),
    )
    actor = await market.provider()
    assert actor.org_id
    with pytest.raises(AddressForbidden):
        await strict.register(actor, draft())
    await market.partners.allow_networks(PLATFORM, actor.org_id, ["10.1.0.0/16"])
    made = await strict.register(actor, draft())
    with pytest.raises(AcceptanceFailed, match="Only https addresses are taken, except in networks"):
        await strict.versions.accept(actor, made.service_id, made.version_id)
