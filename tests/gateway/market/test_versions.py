"""Versions: how a call names one, what its answers say, how it ends, and old shapes on new models."""

import json
from typing import Any

import msgspec
import pytest

from gateway.rig import Market, answer
from haat.gateway.market.policy import Transform, VersionPolicy
from haat.gateway.market.snapshot import Version

PATH = "/v1/services/acme/echo{}/invoke"
SECOND = 1_000_000


def change(market: Market, *versions: Version, **members: Any) -> None:
    service = market.gateway.directory.services["acme/echo"]
    service = msgspec.structs.replace(service, versions=versions or service.versions, **members)
    market.gateway.directory.put_service(service.id, service)


def version(market: Market, name: str, path: str = "/base", **policy: Any) -> Version:
    endpoint = f"http://127.0.0.1:{market.provider.port}{path}"
    return Version(name, endpoint, 5000, 1 << 20, "", "http", VersionPolicy(**policy))


@pytest.mark.parametrize(
    ("at", "headers", "target", "named"),
    [
        ("", (), "/base/invoke", "1"),
        ("@2", (), "/two/invoke", "2"),
        ("", ("API-Version: 2",), "/two/invoke", "2"),
        ("", ("Accept: application/vnd.haat.v2+json",), "/two/invoke", "2"),
        ("", ("Accept: text/html;q=0.1, application/vnd.haat.v2+json;q=0.9",), "/two/invoke", "2"),
        ("@2", ("API-Version: 2", "Accept: application/vnd.haat.v2"), "/two/invoke", "2"),
        ("", ("Accept: application/json",), "/base/invoke", "1"),
    ],
)
async def test_a_version_is_named_by_path_header_or_media_type(
    market: Market, at: str, headers: tuple[str, ...], target: str, named: str
) -> None:
    for _ in range(2):
        response = await market.call("POST", PATH.format(at), b"", *headers)
        assert (response.status, response.header("api-version")) == (200, named)
    request = market.provider.requests[0]
    assert request.target == target
    assert request.header("api-version") == []
    assert not any("vnd.haat" in value for value in request.header("accept"))
    assert {event.version for event in market.events()} == {named}


async def test_the_media_type_becomes_json_for_the_provider(market: Market) -> None:
    await market.call("POST", PATH.format(""), b"", "Accept: application/vnd.haat.v2+json;q=0.9, text/csv")
    assert market.provider.requests[0].header("accept") == ["application/json;q=0.9, text/csv"]


@pytest.mark.parametrize(
    ("at", "headers"),
    [
        ("@1", ("API-Version: 2",)),
        ("@1", ("Accept: application/vnd.haat.v2+json",)),
        ("", ("API-Version: 1", "API-Version: 2")),
        ("", ("API-Version: 1", "Accept: application/vnd.haat.v2+json")),
        ("", ("Accept: application/vnd.haat.v1+json, application/vnd.haat.v2+json",)),
        ("", ("API-Version: 2/../3",)),
        ("", ("API-Version: ",)),
    ],
)
async def test_two_versions_at_once_are_refused(market: Market, at: str, headers: tuple[str, ...]) -> None:
    response = await market.call("POST", PATH.format(at), b"", *headers)
    assert (response.status, response.json()["code"]) == (400, "INVALID_REQUEST")
    assert market.provider.requests == []


async def test_an_unknown_version_is_not_found(market: Market) -> None:
    assert (await market.call("POST", PATH.format(""), b"", "API-Version: 9")).status == 404


# --- announced ends -------------------------------------------------------------------------------


async def test_an_announced_end_is_said_with_every_answer(market: Market) -> None:
    ends = 4_102_444_800 * SECOND
    one = version(market, "1", deprecated_at=1_700_000_000 * SECOND, sunset_at=ends, successor="2")
    change(market, one, version(market, "2", "/two"))
    response = await market.call("POST")
    assert response.header("deprecation") == "@1700000000"
    assert response.header("sunset") == "Fri, 01 Jan 2100 00:00:00 GMT"
    links = [value for name, value in response.headers if name == "link"]
    assert any("/services/acme/echo>" in link and 'rel="deprecation"' in link for link in links)
    assert any("/v1/services/acme/echo@2>" in link and 'rel="successor-version"' in link for link in links)
    second = await market.call("POST", PATH.format("@2"))
    assert (second.header("deprecation"), second.header("sunset"), second.header("link")) == (None, None, None)


async def test_a_deprecated_service_says_so_for_all_its_versions(market: Market) -> None:
    change(market, status="deprecated", deprecated_at=1_700_000_000 * SECOND, sunset_at=4_102_444_800 * SECOND)
    for at in ("", "@2"):
        response = await market.call("POST", PATH.format(at))
        assert (response.status, response.header("deprecation")) == (200, "@1700000000")


async def test_what_a_provider_says_of_versions_is_not_taken_for_ours(market: Market) -> None:
    market.provider.behaviour = answer(200, b"{}", "API-Version: 77", "Deprecation: @1", "Sunset: soon")
    response = await market.call("POST")
    assert response.header("api-version") == "1"
    assert response.header("deprecation") is None and response.header("sunset") is None


async def test_after_its_end_a_version_is_gone_and_names_its_successor(market: Market) -> None:
    now = market.gateway.clock.now_us()
    soon = version(market, "1", sunset_at=now + SECOND // 4, successor="2")
    change(market, soon, version(market, "2", "/two"))
    assert (await market.call("POST")).status == 200
    await market.until(lambda: market.gateway.clock.now_us() > now + SECOND // 4)
    response = await market.call("POST")
    problem = response.json()
    assert (response.status, problem["code"], problem["successor"]) == (410, "VERSION_RETIRED", "acme/echo@2")
    assert (await market.call("POST", PATH.format("@2"))).status == 200
    [gone] = [event for event in market.events() if event.status == 410]
    assert (gone.outcome, gone.error_code, gone.version) == ("refused", "VERSION_RETIRED", "1")


# --- adapters and transforms ------------------------------------------------------------------------


def adapter(market: Market) -> Version:
    return version(
        market,
        "1",
        "/gone",
        serves="2",
        request=(
            Transform("move", "text", "input[0].text"),
            Transform("move", "source", "config.source"),
            Transform("set", "config.target", value="ur"),
            Transform("set_header", "X-Model", value="two"),
            Transform("remove_header", "X-Old"),
        ),
        answer=(
            Transform("move", "output[].text", "texts[]"),
            Transform("remove", "output"),
            Transform("set_header", "X-Adapted", value="yes"),
        ),
    )


async def test_an_old_shape_works_on_a_new_model(market: Market) -> None:
    change(market, adapter(market), version(market, "2", "/two"))
    market.provider.behaviour = answer(
        200, b'{"output":[{"text":"x"},{"text":"y"}],"score":1.50,"big":123456789012345678901}'
    )
    body = '{"text": "नमस्ते", "source": "hi", "n": 1e3, "p": 0.10}'.encode()
    response = await market.call("POST", PATH.format(""), body, "X-Old: 1", "Content-Type: application/json")
    [request] = market.provider.requests
    assert request.target == "/two/invoke"
    assert json.loads(request.body) == {
        "input": [{"text": "नमस्ते"}],
        "config": {"source": "hi", "target": "ur"},
        "n": 1000.0,
        "p": 0.1,
    }
    assert b"0.10" in request.body
    assert (request.header("x-model"), request.header("x-old")) == (["two"], [])
    assert response.body == b'{"score":1.50,"big":123456789012345678901,"texts":["x","y"]}'
    assert (response.header("x-adapted"), response.header("api-version")) == ("yes", "1")
    event = await market.settled_event()
    assert (event.version, event.variant) == ("1", "2")


async def test_the_version_that_executes_can_be_called_by_itself(market: Market) -> None:
    change(market, adapter(market), version(market, "2", "/two"))
    await market.call("POST", PATH.format("@2"), b'{"text": "x"}')
    assert market.provider.requests[0].body == b'{"text": "x"}'
    event = await market.settled_event()
    assert (event.version, event.variant) == ("2", "")


async def test_a_request_of_another_shape_is_refused_with_the_place(market: Market) -> None:
    change(market, adapter(market), version(market, "2", "/two"))
    response = await market.call("POST", PATH.format(""), b'{"text": "x", "config": "y", "source": "hi"}')
    assert (response.status, response.json()["code"]) == (400, "INVALID_REQUEST")
    assert "`config` is not an object" in response.json()["detail"]
    broken = await market.call("POST", PATH.format(""), b'{"text": ')
    assert (broken.status, broken.json()["code"]) == (400, "MALFORMED_JSON")
    deep = await market.call("POST", PATH.format(""), b"[" * 100_000)
    assert deep.status == 400
    assert market.provider.requests == []


async def test_an_answer_that_can_not_be_adapted_is_the_providers_failure(market: Market) -> None:
    change(market, adapter(market), version(market, "2", "/two"))
    market.provider.behaviour = answer(200, b'{"output": "text"}')
    response = await market.call("POST", PATH.format(""), b'{"text": "x"}')
    assert (response.status, response.json()["code"]) == (502, "PROVIDER_FAILED")
    assert (await market.settled_event()).units == {}


async def test_an_error_keeps_its_body_and_other_types_are_left_alone(market: Market) -> None:
    change(market, adapter(market), version(market, "2", "/two"))
    market.provider.behaviour = answer(422, b'{"output": "no"}')
    response = await market.call("POST", PATH.format(""), b"plain", "Content-Type: text/plain")
    assert (response.status, response.body) == (422, b'{"output": "no"}')
    assert response.header("x-adapted") == "yes"
    assert market.provider.requests[0].body == b"plain"


async def test_an_adapter_of_an_adapter_or_of_nothing_is_not_found(market: Market) -> None:
    change(market, version(market, "1", serves="2"), version(market, "2", serves="3"), version(market, "3"))
    assert (await market.call("POST")).status == 404
    change(market, version(market, "1", serves="9"))
    assert (await market.call("POST")).status == 404


async def test_changes_that_this_gateway_does_not_know_refuse_the_call(market: Market) -> None:
    change(market, version(market, "1", request=(Transform("turn_around", "a"),)))
    response = await market.call("POST")
    assert response.status == 400
    assert market.provider.requests == []
