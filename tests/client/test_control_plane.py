"""The client against the control plane itself: the catalog for anybody, usage for who has a session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest

from bazaar import Bazaar, Subscription
from haat_client import AsyncHaat, NotFound, Rejected, Unauthenticated
from market import market
from office import Control, control

__all__ = ["control", "market"]


@pytest.fixture
async def anybody(control: Control) -> AsyncIterator[AsyncHaat]:
    async with AsyncHaat(control_url="http://haat.example.in", transport=httpx.ASGITransport(control.app)) as client:
        yield client


async def test_anybody_searches_the_catalog_in_any_script(control: Control, anybody: AsyncHaat) -> None:
    provider = await control.market.provider("bhasha")
    listing = await control.market.listing(provider, "anuvad")
    page = await anybody.catalog.search("anuvad", category="translation", limit=5)
    assert ([one["slug"] for one in page.items], page.next) == (["anuvad"], None) and page.request_id
    assert (await anybody.catalog.search("nothing of the kind")).items == []
    view = await anybody.catalog.get("bhasha", "anuvad")
    assert view.data["listing"]["id"] == str(listing.id) and view.data["versions"]
    assert [one["path"] for one in (await anybody.catalog.autocomplete("anu")).items] == ["bhasha/anuvad"]
    with pytest.raises(NotFound) as missing:
        await anybody.catalog.get("bhasha", "nothing")
    assert missing.value.code == "NOT_FOUND" and missing.value.request_id
    with pytest.raises(Rejected) as wrong:
        await anybody.catalog.search(limit=1000)
    assert "limit" in wrong.value.errors[0]["field"]


async def test_usage_is_for_who_has_a_session(control: Control) -> None:
    asha = await control.market.consumer()
    assert asha.org_id is not None
    bazaar = Bazaar(control.platform.service_db, control.market.clock)  # type: ignore[arg-type]
    subscription: Subscription = await bazaar.subscribe(asha.org_id, await bazaar.service())
    test = bazaar.event(subscription, "3", mode="test")
    live = bazaar.event(subscription, "3")
    await bazaar.take([test, live])
    transport = httpx.ASGITransport(control.app)
    address = "http://haat.example.in"
    async with AsyncHaat(control_url=address, token=await control.token(asha), transport=transport) as client:
        [service] = (await client.usage.summary("2026-11")).items
        assert (service["slug"], service["counts"]["calls"]) == ("speak", 1)
        assert len((await client.usage.hours()).items) == 1
        assert [one["id"] for one in (await client.usage.calls(mode="test")).items] == [test.id]
        first = await client.usage.calls(start=control.market.clock.now() - timedelta(hours=1), limit=1)
        second = await client.usage.calls(limit=1, cursor=first.next)
        assert {one["id"] for one in (*first.items, *second.items)} == {test.id, live.id} and second.next is None
        story = (await client.usage.call(live.id)).data
        assert story["billed"] is True and story["call"]["id"] == live.id
    async with AsyncHaat(control_url=address, token="no session", transport=httpx.ASGITransport(control.app)) as client:
        with pytest.raises(Unauthenticated):
            await client.usage.summary()
