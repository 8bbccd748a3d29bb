"""Which services a key opens, and that there is no way around it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.rig import Market
from haat.gateway.market.scopes import opens

PATH = "/v1/services/acme/echo/invoke"


@pytest.mark.parametrize(
    ("only", "opened"),
    [
        ("", True),
        (" acme/echo ", True),
        (" vani/read acme/echo ", True),
        (" acme/echo-2 ", False),
        (" my-acme/echo ", False),
    ],
)
async def test_a_key_opens_the_services_that_it_names_whole(market: Market, only: str, opened: bool) -> None:
    [credential] = market.gateway.directory.credentials.values()
    assert opens(replace(credential, only=only), market.gateway.directory.services["acme/echo"]) is opened


async def test_another_service_is_refused_before_its_provider_is_asked(market: Market) -> None:
    market.narrow("vani/read", "vani/speak")
    response = await market.call("POST", PATH, b"{}")
    problem = response.json()
    assert (response.status, problem["code"], problem["opens"]) == (403, "OUT_OF_SCOPE", ["vani/read", "vani/speak"])
    assert "opens vani/read, vani/speak and not acme/echo" in problem["detail"]
    event = await market.settled_event()
    assert (event.outcome, event.error_code, event.units) == ("refused", "OUT_OF_SCOPE", {})
    assert market.provider.requests == []


async def test_a_key_is_narrowed_from_the_next_call_on(market: Market) -> None:
    client = await market.connect()
    statuses = []
    for paths in ((), ("vani/read",), ("acme/echo",), ("vani/read", "acme/echo")):
        market.narrow(*paths)
        await client.send(market.raw("POST", PATH, b"{}"))
        response = await client.receive()
        assert response is not None
        statuses.append(response.status)
    assert statuses == [200, 403, 200, 200]


async def test_models_are_listed_and_shown_to_keys_that_open_them(market: Market) -> None:
    market.add_service("other")
    market.narrow("acme/other")
    listed = await market.call("GET", "/v1/models")
    assert [one["id"] for one in listed.json()["data"]] == ["acme/other"]
    assert (await market.call("GET", "/v1/models/acme/other")).status == 200
    assert (await market.call("GET", "/v1/models/acme/echo")).status == 404
