"""A call from end to end: what reaches the provider, what comes back, what is metered."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.rig import Market, answer
from haat.gateway import admission
from haat.kernel.clock import Period, month_of
from haat.usage.event import Outcome


def this_month() -> Period:
    return month_of(datetime.now(UTC), "Asia/Kolkata")


async def test_a_call_reaches_the_provider_unchanged_but_for_credentials_and_hop_by_hop_headers(market: Market) -> None:
    response = await market.call(
        "PUT",
        "/v1/services/acme/echo/some/path%20here?q=%E0%A4%B9&x=1&x=2",
        b"\x00\x01binary",
        "Content-Type: application/octet-stream",
        "X-API-Key: " + market.key,
        "Connection: keep-alive, X-Private",
        "X-Private: secret",
        "Keep-Alive: timeout=5",
        "Proxy-Authorization: Basic x",
        "TE: trailers",
        "X-Provider-Key: forged",
        "X-Custom: नमस्ते",
        "Accept: */*",
    )
    assert (response.status, response.body) == (200, b'{"ok":true}')
    [request] = market.provider.requests
    assert (request.method, request.target) == ("PUT", "/base/some/path%20here?q=%E0%A4%B9&x=1&x=2")
    assert request.body == b"\x00\x01binary"
    assert request.header("content-type") == ["application/octet-stream"]
    assert request.header("x-provider-key") == ["provider-secret"]
    assert request.header("host") == [f"127.0.0.1:{market.provider.port}"]
    assert request.header("x-custom")[0].encode("latin-1").decode() == "नमस्ते"
    assert request.header("x-request-id") == [response.header("x-request-id")]
    for gone in ("authorization", "x-api-key", "x-private", "keep-alive", "proxy-authorization", "te", "connection"):
        assert request.header(gone) == []


async def test_the_answer_comes_back_with_its_own_headers_ours_and_no_hop_by_hop_ones(market: Market) -> None:
    market.provider.behaviour = answer(
        201, b"made", "X-Model: m1", "Connection: X-Internal", "X-Internal: 1", "X-Request-ID: theirs", "RateLimit: 1"
    )
    before, response, after = this_month(), await market.call(), this_month()
    assert (response.status, response.body) == (201, b"made")
    assert response.header("x-model") == "m1"
    assert response.header("x-internal") is None
    assert response.header("x-request-id") != "theirs"
    assert response.header("ratelimit-policy") in [  # the month may end while the call is on its way
        f'"month";q=1000;w={(month.end - month.start).days * 86400}' for month in (before, after)
    ]
    assert response.header(
        "ratelimit",
    ).startswith('"month";r=999;t=')  # type: ignore[union-attr]
    assert response.header("x-ratelimit-limit") == "1000"
    assert response.header("x-ratelimit-remaining") == "999"
    assert response.header("x-haat-units") == "requests=1"


async def test_a_completed_call_makes_one_confirmed_event(market: Market) -> None:
    response = await market.call(
        "POST",
        "/v1/services/acme/echo/invoke",
        b"x" * 185,
        "X-Request-ID: mine-1",
        "X-Haat-User: user-7",
        "X-Haat-Tags: team=search, urgent",
    )
    event = await market.settled_event()
    assert event.id == response.header("x-request-id")
    assert (event.outcome, event.status, event.units) == (Outcome.COMPLETED, 200, {"requests": "1"})
    assert (event.bytes_in, event.bytes_out, event.method) == (185, 11, "POST")
    assert (event.caller_request_id, event.user) == ("mine-1", "user-7")
    assert event.tags == {"team": "search", "urgent": ""}
    assert (event.provider, event.service_slug, event.version, event.plan) == ("acme", "echo", "1", "basic")
    assert event.gateway == "gateway-0"
    assert 0 < event.timings_us.admission <= event.timings_us.first_byte <= event.timings_us.total


@pytest.mark.parametrize(
    ("body", "pair"),
    [
        (b'{"input":[{"text":"x"}],"config":{"source":"hi-Deva","target":"ur-Arab"}}', "hi-Deva>ur-Arab"),
        (b'{"config":{"source":"hi"}}', "hi"),
        (b'{"config":{"language":"en"}}', "en"),
        (b'{"config":{"source":"<script>","target":"ur"}}', "ur"),
        (b'{"config":7}', ""),
        (b"not JSON \xff", ""),
    ],
)
async def test_the_languages_of_a_task_are_noted_and_its_body_is_not_judged(
    market: Market, body: bytes, pair: str
) -> None:
    market.add_service("task", dialect="task")
    assert (await market.call("POST", "/v1/services/acme/task/invoke", body)).status == 200
    assert market.provider.requests[0].body == body
    assert (await market.settled_event()).language_pair == pair


async def test_an_error_of_our_own_is_told_as_ours_and_logged(
    market: Market, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(gateway: object, call: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(admission, "ADMIT", (stumble,))
    response = await market.call(body=b"{}")
    assert response.status == 500 and response.json()["code"] == "INTERNAL"
    assert "a bug" in caplog.text


async def test_a_body_that_is_nested_without_end_is_the_services_business(market: Market) -> None:
    market.add_service("deep", dialect="task", unit="characters")
    body = b'{"config":' + b"[" * 100_000
    assert (await market.call("POST", "/v1/services/acme/deep/invoke", body)).status == 200
    [request] = market.provider.requests
    assert request.body == body
