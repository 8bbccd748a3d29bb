"""Where an application's data may go."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.rig import APP, Market
from haat.gateway.market.data_policy import allows
from haat.gateway.market.policy import ApplicationPolicy, CachePolicy, DataPolicy, ServicePolicy
from haat.gateway.market.snapshot import Application, Service

PATH = "/v1/services/acme/echo/invoke"


def demand(market: Market, **policy: Any) -> None:
    data = DataPolicy(**policy) if policy else None
    market.gateway.directory.put_application(APP, Application(APP, ApplicationPolicy(data=data)))


def say(market: Market, **changes: Any) -> Service:
    directory = market.gateway.directory
    service = msgspec.structs.replace(directory.services["acme/echo"], **changes)
    directory.put_service(service.id, service)
    return service


@pytest.mark.parametrize(
    ("regions", "region", "allowed"),
    [
        ((), "SG", True),
        (("IN",), "IN", True),
        (("IN",), "IN-KA", True),
        (("IN-KA",), "IN-KA", True),
        (("IN-KA",), "IN", False),  # somewhere in India is not in Karnataka
        (("IN-KA",), "IN-KL", False),
        (("IN",), "INX", False),
        (("IN", "SG"), "SG", True),
        (("IN",), "SG", False),
    ],
)
async def test_a_country_covers_its_parts_and_no_part_its_country(
    market: Market, regions: tuple[str, ...], region: str, allowed: bool
) -> None:
    service = say(market, region=region)
    assert allows(DataPolicy(regions), service) is allowed
    assert allows(None, service)


async def test_a_service_that_keeps_inputs_is_for_those_who_do_not_mind(market: Market) -> None:
    keeps = say(market, retains_inputs=True)
    assert allows(DataPolicy(), keeps) and not allows(DataPolicy(retains_inputs=False), keeps)
    assert allows(DataPolicy(retains_inputs=False), say(market, retains_inputs=False))


async def test_a_refusal_names_what_is_demanded_and_what_the_service_says(market: Market) -> None:
    say(market, region="SG", retains_inputs=True)
    demand(market, regions=("IN", "NP"), retains_inputs=False)
    response = await market.call("POST", PATH, b"{}")
    problem = response.json()
    assert (response.status, problem["code"]) == (403, "DATA_POLICY")
    assert "only go to IN, NP, and the service runs in SG" in problem["detail"]
    assert "may not be kept, and the service keeps its inputs" in problem["detail"]
    assert problem["demanded"] == {"regions": ["IN", "NP"], "retains_inputs": False}
    assert problem["service"] == {"region": "SG", "retains_inputs": True}
    assert response.header("x-should-retry") == "false"
    event = await market.settled_event()
    assert (event.outcome, event.error_code, event.units) == ("refused", "DATA_POLICY", {})
    assert market.provider.requests == []


async def test_a_changed_policy_counts_from_the_next_call_on(market: Market) -> None:
    client = await market.connect()
    statuses = []
    for policy in ({}, {"regions": ("SG",)}, {"regions": ("IN",)}, {"retains_inputs": False}):
        demand(market, **policy)
        await client.send(market.raw("POST", PATH, b"{}"))
        response = await client.receive()
        assert response is not None
        statuses.append(response.status)
    assert statuses == [200, 403, 200, 200]
    say(market, region="SG-01")
    demand(market, regions=("IN",))
    assert (await market.call("POST", PATH, b"{}")).status == 403


async def test_a_refused_services_answers_are_not_given_from_the_cache_either(market: Market) -> None:
    say(market, region="SG", policy=ServicePolicy(cache=CachePolicy()))
    assert (await market.call("POST", PATH, b"{}")).header("x-cache") == "MISS"
    demand(market, regions=("IN",))
    assert (await market.call("POST", PATH, b"{}")).status == 403
    demand(market, regions=("SG",))
    assert (await market.call("POST", PATH, b"{}")).header("x-cache") == "HIT"
