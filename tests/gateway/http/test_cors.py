"""Calls of web pages: preflights for everybody, permission by the application, and what browsers are told besides."""

import pytest

from gateway.rig import APP, Market, Response, answer
from haat.gateway.http import cors
from haat.gateway.market.policy import ApplicationPolicy, Cors
from haat.gateway.market.snapshot import Application

PATH = "/v1/services/acme/echo/invoke"
SHOP, OTHER = "https://shop.example", "https://other.example"


def allow(market: Market, *origins: str, app: str = APP, **options: object) -> None:
    policy = ApplicationPolicy(cors=Cors(origins, **options))  # type: ignore[arg-type]  # the test's own words
    market.gateway.directory.put_application(app, Application(app, policy))


async def preflight(market: Market, origin: str, *headers: str) -> Response:
    client = await market.connect()
    lines = [
        f"OPTIONS {PATH} HTTP/1.1",
        "Host: g",
        f"Origin: {origin}",
        "Access-Control-Request-Method: POST",
        *headers,
    ]
    await client.send("\r\n".join(lines).encode() + b"\r\n\r\n")
    response = await client.receive("OPTIONS")
    assert response is not None
    return response


async def test_a_preflight_is_answered_without_a_key_when_any_application_allows_the_page(market: Market) -> None:
    allow(market, SHOP, app="somebody")
    response = await preflight(market, SHOP)
    assert response.status == 204
    assert response.header("access-control-allow-origin") == SHOP
    assert "POST" in (response.header("access-control-allow-methods") or "")
    assert "Authorization" in (response.header("access-control-allow-headers") or "")
    assert response.header("access-control-max-age") == "3600"
    assert response.header("access-control-allow-credentials") is None
    assert "Origin" in (response.header("vary") or "")
    assert response.header("content-length") is None
    assert market.provider.requests == [] and market.events() == []


async def test_a_page_that_nobody_allows_is_told_nothing(market: Market) -> None:
    allow(market, SHOP)
    response = await preflight(market, OTHER)
    assert response.status == 204
    assert response.header("access-control-allow-origin") is None
    assert "Origin" in (response.header("vary") or "")


async def test_credentials_and_the_shortest_memory_are_said(market: Market) -> None:
    allow(market, SHOP, app="a", credentials=True, max_age=60)
    allow(market, SHOP, app="b")
    response = await preflight(market, SHOP)
    assert response.header("access-control-allow-credentials") == "true"
    assert response.header("access-control-max-age") == "60"


async def test_a_change_of_an_application_counts_for_the_next_preflight(market: Market) -> None:
    assert (await preflight(market, SHOP)).header("access-control-allow-origin") is None
    allow(market, "*")
    assert (await preflight(market, SHOP)).header("access-control-allow-origin") == "*"
    market.gateway.directory.put_application(APP, None)
    assert (await preflight(market, SHOP)).header("access-control-allow-origin") is None


async def test_too_many_preflights_are_turned_away_unmetered(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cors, "MOST_PREFLIGHTS", 0)
    response = await preflight(market, SHOP)
    assert (response.status, response.header("retry-after")) == (429, "1")
    assert market.events() == []


async def test_options_with_a_key_is_a_call_like_any_other(market: Market) -> None:
    response = await market.call("OPTIONS", PATH, b"", f"Origin: {SHOP}", "Access-Control-Request-Method: POST")
    assert response.status == 200
    assert len(market.provider.requests) == 1


async def test_an_allowed_page_may_read_the_answer_and_what_it_cost(market: Market) -> None:
    allow(market, SHOP, credentials=True)
    for _ in range(2):
        response = await market.call("POST", PATH, b"", f"Origin: {SHOP}")
        assert response.header("access-control-allow-origin") == SHOP
        assert response.header("access-control-allow-credentials") == "true"
        assert "X-Request-ID" in (response.header("access-control-expose-headers") or "")
        assert [value for name, value in response.headers if name == "vary"] == ["Origin"]


async def test_a_page_that_the_keys_application_does_not_allow_is_served_and_told_nothing(market: Market) -> None:
    allow(market, SHOP)
    allow(market, OTHER, app="somebody")
    response = await market.call("POST", PATH, b"", f"Origin: {OTHER}")
    assert response.status == 200
    assert response.header("access-control-allow-origin") is None
    assert response.header("vary") == "Origin"


async def test_any_page_means_any_page(market: Market) -> None:
    allow(market, "*")
    response = await market.call("POST", PATH, b"", "Origin: null")
    assert response.header("access-control-allow-origin") == "*"
    assert response.header("vary") is None


async def test_caches_are_told_that_answers_differ_also_without_an_origin(market: Market) -> None:
    assert (await market.call("POST")).header("vary") is None
    allow(market, SHOP)
    response = await market.call("POST")
    assert (response.header("vary"), response.header("access-control-allow-origin")) == ("Origin", None)


async def test_refusals_can_be_read_by_the_page_as_well(market: Market) -> None:
    allow(market, SHOP)
    unknown = await market.call("POST", PATH, b"", f"Origin: {SHOP}", key="nonsense")
    assert (unknown.status, unknown.header("access-control-allow-origin")) == (401, SHOP)
    market.add_service("closed", subscribed=None)
    refused = await market.call("POST", "/v1/services/acme/closed/invoke", b"", f"Origin: {SHOP}")
    assert (refused.status, refused.header("access-control-allow-origin")) == (403, SHOP)


async def test_what_a_provider_says_to_browsers_ends_here(market: Market) -> None:
    market.provider.behaviour = answer(
        200,
        b"{}",
        "Access-Control-Allow-Origin: *",
        "Access-Control-Allow-Credentials: true",
        "Set-Cookie: session=1",
        "Strict-Transport-Security: max-age=1",
        "Clear-Site-Data: *",
        "Server: Apache/1.3",
        "X-Powered-By: PHP/4",
        "X-Content-Type-Options: none",
    )
    response = await market.call("POST", PATH, b"", f"Origin: {SHOP}", "Cookie: haat_session=secret")
    names = [name for name, _ in response.headers]
    assert not {"access-control-allow-origin", "set-cookie", "strict-transport-security", "clear-site-data"} & set(
        names
    )
    assert "server" not in names and "x-powered-by" not in names
    assert [value for name, value in response.headers if name == "x-content-type-options"] == ["nosniff"]
    assert response.header("cache-control") == "private"  # it was meant for this caller alone
    assert market.provider.requests[0].header("cookie") == []


async def test_our_own_words_are_not_kept_and_not_guessed_at(market: Market) -> None:
    problem = await market.call("POST", key="nonsense")
    assert (problem.header("cache-control"), problem.header("x-content-type-options")) == ("no-store", "nosniff")
    assert problem.header("strict-transport-security") is None


async def test_behind_https_browsers_are_told_to_stay_there(make_market: object) -> None:
    market = await make_market(gateway_url="https://api.market.example")  # type: ignore[operator]  # a fixture
    for response in (await market.call("POST"), await market.call("POST", key="nonsense")):
        assert response.header("strict-transport-security") == "max-age=31536000"
