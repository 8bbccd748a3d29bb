"""The cache on the call path: what is answered from it, what isn't, and what is written down about both."""

from __future__ import annotations

import asyncio
import json
import random
import tracemalloc
from typing import Any

import msgspec
import pytest

from gateway.cache.rig import JSON, PATH, Gate, ask, keep, stats
from gateway.rig import APP, Market, Request, answer
from haat.gateway.cache.memory import Answer, Cache, Item
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import CachePolicy, ServicePolicy

# --- hits and misses ----------------------------------------------------------------------------


async def test_the_same_question_is_answered_once_by_the_provider(market: Market) -> None:
    keep(market, ttl_seconds=60)
    market.provider.behaviour = answer(200, b'{"n":1}', "X-Haat-Usage: characters=7", "Cache-Control: max-age=30")
    first = await ask(market, {"a": 1, "b": "\u0958"})
    second = await ask(market, {"b": "क़", "a": 1})
    assert len(market.provider.requests) == 1
    assert (first.header("x-cache"), second.header("x-cache")) == ("MISS", "HIT")
    assert first.body == second.body == b'{"n":1}'
    assert first.header("etag") == second.header("etag")
    assert second.header("cache-control") == "private, max-age=30" and second.header("age") == "0"
    assert second.header("x-haat-units") == "requests=1"
    assert first.header("x-request-id") != second.header("x-request-id")


async def test_a_hit_is_metered_like_any_call_and_says_that_it_is_one(market: Market) -> None:
    market.add_service("text", unit="characters")
    keep(market, "text", ttl_seconds=60)
    market.provider.behaviour = answer(200, b"{}", "X-Haat-Usage: characters=7")
    for _ in range(2):
        response = await ask(market, {"x": 1}, "X-Haat-User: asha", path="/v1/services/acme/text/invoke")
        assert response.header("x-haat-units") == "characters=7"
    await market.until(lambda: len(market.confirmed()) == 2)
    miss, hit = sorted(market.events(), key=lambda event: event.id)
    assert (miss.cache, miss.cached_units, miss.units_source) == ("miss", {}, "upstream")
    assert (hit.cache, hit.cached_units, hit.cached_share) == ("hit", {"characters": "7"}, "1")
    assert hit.units == miss.units == {"requests": "1", "characters": "7"}
    assert (hit.outcome, hit.status, hit.user, hit.raw_usage) == ("completed", 200, "asha", "characters=7")


async def test_a_call_sold_by_requests_is_cached_as_one_request(market: Market) -> None:
    keep(market, ttl_seconds=60)
    for _ in range(2):
        await ask(market, {})
    await market.until(lambda: len(market.confirmed()) == 2)
    assert sorted((event.cache, tuple(event.cached_units.items())) for event in market.events()) == [
        ("hit", (("requests", "1"),)),
        ("miss", ()),
    ]


async def test_a_service_without_the_policy_has_no_step_and_says_nothing_of_a_cache(market: Market) -> None:
    for _ in range(2):
        assert (await ask(market, {})).header("x-cache") is None
    assert len(market.provider.requests) == 2
    assert market.gateway.routes.find(b"acme/echo").steps == ()
    await market.until(lambda: len(market.confirmed()) == 2)
    assert {event.cache for event in market.events()} == {""}


async def test_only_what_the_key_holds_reaches_the_provider(market: Market) -> None:
    keep(market, ttl_seconds=60, headers=("X-Model",))
    await market.call(
        "POST", PATH, b'{"a": 1, "a": 2}', JSON, "X-Forwarded-Host: evil", "X-Model: big", "Cookie: a=b", "Origin: x"
    )
    [request] = market.provider.requests
    assert request.body == b'{"a":2}'  # as it was read here
    assert request.header("content-length") == ["7"] and request.header("x-model") == ["big"]
    assert not [name for name, _ in request.headers if name in ("x-forwarded-host", "cookie", "origin")]
    assert request.header("x-provider-key") == ["provider-secret"]
    assert (await ask(market, {"a": 2}, "X-Model: small")).header("x-cache") == "MISS"


async def test_answers_are_shared_between_callers_and_each_is_limited_by_itself(market: Market) -> None:
    keep(market, ttl_seconds=60)
    market.subscribe("acme/echo", PlanLimits(per_minute=1), app="another")
    key = market.add_key(app="another")
    await ask(market, {})
    assert (await market.call("POST", PATH, b"{}", JSON, key=key)).header("x-cache") == "HIT"
    assert (await market.call("POST", PATH, b"{}", JSON, key=key)).status == 429


async def test_get_and_head_share_an_answer(market: Market) -> None:
    keep(market, ttl_seconds=60)
    market.provider.behaviour = answer(200, b"hello")
    assert (await market.call("GET", PATH)).header("x-cache") == "MISS"
    head = await market.call("HEAD", PATH)
    assert (head.header("x-cache"), head.header("content-length"), head.body) == ("HIT", "5", b"")
    other = await market.call("HEAD", PATH + "?q=1")
    assert other.status == 200 and market.provider.requests[-1].method == "HEAD"
    assert (await market.call("GET", PATH + "?q=1")).header("x-cache") == "MISS"  # HEAD has brought nothing


async def test_other_methods_and_streams_go_by_the_cache(market: Market) -> None:
    keep(market, ttl_seconds=60)
    for _ in range(2):
        assert (await market.call("PUT", PATH, b"{}", JSON)).header("x-cache") is None
    market.provider.behaviour = answer(200, b"data: 1\n\n").replace(b"application/json", b"text/event-stream")
    for _ in range(2):
        assert (await ask(market, {}, "Accept: text/event-stream")).body == b"data: 1\n\n"
        assert (await ask(market, {"unasked": True})).body == b"data: 1\n\n"
    assert len(market.provider.requests) == 6 and stats(market)["entries"] == 0


@pytest.mark.parametrize(
    "behaviour",
    [
        answer(200, b"{}", "Set-Cookie: a=b"),
        answer(200, b"{}", "Cache-Control: private"),
        answer(200, b"{}", "Vary: Origin"),
        answer(201, b"{}"),
        answer(404, b"{}"),
        answer(500, b"{}"),
        answer(204, b"", length=False),
    ],
)
async def test_what_may_not_be_kept_is_asked_for_each_time(market: Market, behaviour: bytes) -> None:
    keep(market, ttl_seconds=60)
    market.provider.behaviour = behaviour
    for _ in range(2):
        response = await ask(market, {})
        assert response.header("x-cache") == "MISS" and response.header("etag") is None
    assert len(market.provider.requests) == 2 and stats(market)["entries"] == 0


async def test_an_answer_is_good_for_its_time_and_its_age_is_told(market: Market) -> None:
    keep(market, ttl_seconds=60)
    await ask(market, {})
    [entry] = market.gateway.cache._entries.values()
    entry.stored_at -= 59 * 1_000_000
    entry.expires_at -= 59 * 1_000_000
    response = await ask(market, {})
    assert (response.header("x-cache"), response.header("age")) == ("HIT", "59")
    assert response.header("cache-control") == "private, max-age=60"
    assert (await ask(market, {}, "Cache-Control: max-age=58")).header("x-cache") == "MISS"  # fresher, and kept
    [entry] = market.gateway.cache._entries.values()
    entry.expires_at = 1
    assert (await ask(market, {})).header("x-cache") == "MISS"
    assert stats(market)["expired"] == 1 and stats(market)["entries"] == 1


async def test_callers_can_refresh_an_answer_or_leave_the_cache_alone(market: Market) -> None:
    keep(market, ttl_seconds=60)
    market.provider.behaviour = answer(200, b"1")
    await ask(market, {})
    market.provider.behaviour = answer(200, b"2")
    untouched = await ask(market, {}, "Cache-Control: no-store", "X-Any: thing")
    assert (untouched.header("x-cache"), untouched.body) == ("BYPASS", b"2")
    assert market.provider.requests[-1].header("x-any") == ["thing"]
    assert (await ask(market, {})).body == b"1"
    refreshed = await ask(market, {}, "Cache-Control: no-cache")
    assert (refreshed.header("x-cache"), refreshed.body) == ("BYPASS", b"2")
    assert (await ask(market, {})).body == b"2"
    await market.until(lambda: len(market.confirmed()) == 5)
    assert sorted(event.cache for event in market.events()) == ["bypass", "bypass", "hit", "hit", "miss"]
    assert stats(market)["bypassed"] == 2 and stats(market)["hit_rate"] == round(2 / 3, 4)


async def test_a_caller_that_has_the_answer_gets_304_and_is_metered_for_a_hit(market: Market) -> None:
    keep(market, ttl_seconds=60)
    market.provider.behaviour = answer(200, b"hello", "Last-Modified: today")
    tag = (await ask(market, {})).header("etag")
    response = await ask(market, {}, f'If-None-Match: "other", W/{tag}')
    assert (response.status, response.body, response.header("content-length")) == (304, b"", None)
    assert (response.header("etag"), response.header("x-cache")) == (tag, "HIT")
    assert (await ask(market, {}, 'If-None-Match: "other"')).status == 200
    market.provider.requests.clear()
    fresh = await ask(market, {}, f"If-None-Match: {tag}", "Cache-Control: no-cache")
    assert (fresh.status, fresh.header("x-cache")) == (304, "BYPASS")
    assert market.provider.requests[0].header("if-none-match") == []
    await market.until(lambda: len(market.confirmed()) == 4)
    hit = next(event for event in market.events() if event.status == 304 and event.cache == "hit")
    assert (hit.outcome, hit.units, hit.cached_units, hit.bytes_out) == (
        "completed",
        {"requests": "1"},
        {"requests": "1"},
        0,
    )


async def test_a_kept_answer_does_without_the_provider(market: Market) -> None:
    keep(market, ttl_seconds=60)
    await ask(market, {})
    await market.provider.stop()
    assert (await ask(market, {})).header("x-cache") == "HIT"
    assert (await ask(market, {"other": 1})).status in (502, 503)


# --- bounds -------------------------------------------------------------------------------------


async def test_the_longest_unused_make_room_and_the_bound_holds(make_market: Any) -> None:
    market = await make_market(cache_bytes=64 * 1024)
    keep(market, ttl_seconds=60)
    market.provider.behaviour = answer(200, b"x" * 2000)
    for number in range(60):
        await ask(market, {"n": number})
        await ask(market, {"n": 0})
        assert market.gateway.cache.bytes <= 64 * 1024
    assert stats(market)["evicted"] > 20
    assert stats(market)["bytes"] == sum(entry.size for entry in market.gateway.cache._entries.values())
    count = len(market.provider.requests)
    assert (await ask(market, {"n": 0})).header("x-cache") == "HIT"  # used all the time
    assert (await ask(market, {"n": 1})).header("x-cache") == "MISS"
    assert len(market.provider.requests) == count + 1


async def test_an_answer_that_would_fill_the_cache_is_not_kept(make_market: Any) -> None:
    market = await make_market(cache_bytes=64 * 1024)
    keep(market, ttl_seconds=60)
    market.provider.behaviour = answer(200, b"x" * 8000)
    for _ in range(2):
        assert (await ask(market, {})).header("x-cache") == "MISS"
    assert stats(market)["unfit"] == 2 and stats(market)["bytes"] == 0


@pytest.mark.parametrize("number", [500, 2000])
async def test_what_is_counted_is_at_least_what_entries_really_take(market: Market, number: int) -> None:
    keep(market, ttl_seconds=60)
    service = market.gateway.directory.services["acme/echo"]
    assert service.policy.cache
    cache = Cache(1 << 30)
    space = cache.space(service, service.versions[0], service.policy.cache)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for at in range(number):
            now, units = 1_700_000_000_000_000 + at, {"characters": (at + 1) * 1_000_007}
            cache.keep(Item(space, b"item%028d" % at, now, 60, b'{"text":"%d"}' % at, units, dict(units)))
            lines = [b"Date: %d\r\n" % at]
            cache.keep(Answer(space, b"key-%028d" % at, now, 60, lines, b"x" * at, f"characters={at}"))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before <= cache.bytes <= 1.25 * (after - before)


async def test_without_memory_there_is_no_cache(make_market: Any) -> None:
    market = await make_market(cache_bytes=0)
    keep(market, ttl_seconds=60)
    assert (await ask(market, {})).header("x-cache") is None


async def test_most_of_repeated_traffic_is_answered_from_the_cache(make_market: Any) -> None:
    market = await make_market(cache_bytes=512 * 1024)
    market.subscribe("acme/echo", PlanLimits())
    keep(market, ttl_seconds=60)
    market.provider.behaviour = answer(200, b"x" * 1000)
    chance = random.Random(4)
    wanted = [1 / (rank + 1) for rank in range(500)]  # Zipf over more answers than there is room for
    client = await market.connect()
    for number in chance.choices(range(500), wanted, k=3000):
        await client.send(market.raw("POST", PATH, b'{"n":%d}' % number, JSON))
        response = await client.receive()
        assert response is not None and response.status == 200
    seen = stats(market)
    assert seen["bytes"] <= 512 * 1024 and seen["evicted"] > 0
    assert seen["hit_rate"] > 0.7
    assert seen["hits"] + seen["misses"] == 3000 and seen["misses"] == len(market.provider.requests)
    assert seen["services"]["acme/echo@1"]["hits"] == seen["hits"]


# --- what the market says -----------------------------------------------------------------------


async def test_a_new_version_a_new_default_and_a_changed_policy_know_nothing_of_before(market: Market) -> None:
    keep(market, ttl_seconds=60)
    await ask(market, {})
    assert (await ask(market, {}, path=PATH.replace("echo", "echo@1"))).header("x-cache") == "HIT"
    assert (await ask(market, {}, path=PATH.replace("echo", "echo@2"))).header("x-cache") == "MISS"
    directory = market.gateway.directory
    service = directory.services["acme/echo"]
    directory.put_service(service.id, msgspec.structs.replace(service, default_version="2"))
    assert (await ask(market, {})).header("x-cache") == "HIT"  # of version 2
    moved = msgspec.structs.replace(service.versions[0], endpoint=service.versions[0].endpoint + "/moved")
    directory.put_service(service.id, msgspec.structs.replace(service, versions=(moved, service.versions[1])))
    assert (await ask(market, {})).header("x-cache") == "MISS"
    keep(market, ttl_seconds=50)
    assert (await ask(market, {})).header("x-cache") == "MISS"
    keep(market)
    assert (await ask(market, {})).header("x-cache") is None


async def test_a_purge_forgets_at_once_and_frees_the_memory(market: Market) -> None:
    keep(market, ttl_seconds=60)
    for number in range(20):
        await ask(market, {"n": number})
    keep(market, ttl_seconds=60, generation=1)
    assert (await ask(market, {"n": 0})).header("x-cache") == "MISS"
    await market.until(lambda: stats(market)["removed"] == 20)
    assert stats(market)["entries"] == 1
    assert stats(market)["bytes"] == sum(entry.size for entry in market.gateway.cache._entries.values())


async def test_what_a_suspended_service_answered_is_not_known_after_it(market: Market) -> None:
    keep(market, ttl_seconds=60)
    await ask(market, {})
    keep(market, ttl_seconds=60, status="suspended")
    assert (await ask(market, {})).status == 403
    await market.until(lambda: stats(market)["entries"] == 0)
    keep(market, ttl_seconds=60)
    assert (await ask(market, {})).header("x-cache") == "MISS"


async def test_an_answer_that_comes_after_the_purge_is_not_kept(market: Market) -> None:
    keep(market, ttl_seconds=60)
    gate = Gate(market)
    call = asyncio.create_task(ask(market, {}))
    await gate.reached(1)
    keep(market, ttl_seconds=60, generation=1)
    await market.until(lambda: not market.gateway.cache._spaces)
    gate.open()
    assert (await call).status == 200
    assert stats(market)["entries"] == 0


# --- beside the rest of the gateway ---------------------------------------------------------------


async def test_a_hit_counts_no_more_than_a_report_for_this_call_would(market: Market) -> None:
    market.add_service("text", unit="characters", subscribed=PlanLimits(quota_per_month=1000, quota_unit="characters"))
    keep(market, "text", ttl_seconds=60)
    market.provider.behaviour = answer(200, b"{}", "X-Haat-Usage: characters=50")
    market.subscribe("acme/text", PlanLimits(), app="open")
    path, key = "/v1/services/acme/text/invoke", market.add_key(app="open")
    hard = [(await market.call("POST", path, b'{"x":1}', JSON)).header("x-haat-units") for _ in range(2)]
    assert hard == ["characters=7"] * 2  # it has reserved one for each byte of the body
    assert (await market.call("POST", path, b'{"x":1}', JSON, key=key)).header("x-haat-units") == "characters=50"
    assert len(market.provider.requests) == 1


async def test_a_stand_ins_answer_is_not_kept_as_this_services_own(market: Market) -> None:
    market.add_service("other", base="/other")
    for slug, policy in (("echo", CachePolicy()), ("other", None)):
        service = market.gateway.directory.services[f"acme/{slug}"]
        said = ServicePolicy(repeatable=True, capability="echo", cache=policy)
        market.gateway.directory.put_service(service.id, msgspec.structs.replace(service, policy=said))
    service = market.gateway.directory.services["acme/echo"]
    subscribed = market.gateway.directory.subscriptions[APP, service.id]
    market.gateway.directory.put_subscription(subscribed.id, msgspec.structs.replace(subscribed, fallback=True))

    async def broken(request: Request, reader: Any, writer: Any) -> bool:
        writer.write(answer(200, b"{}") if request.target.startswith("/other") else answer(502, b"{}"))
        return True

    market.provider.behaviour = broken
    stood_in = await ask(market, {})
    assert (stood_in.status, stood_in.header("x-haat-served-by")) == (200, "acme/other@1")
    assert stood_in.header("x-cache") == "MISS" and stats(market)["entries"] == 0


async def test_a_known_answer_is_given_while_the_provider_is_left_alone(market: Market) -> None:
    keep(market, ttl_seconds=60)
    await ask(market, {})
    market.provider.behaviour = answer(503, b"{}")
    for number in range(6):
        await ask(market, {"n": number})
    assert market.gateway.routes.find(b"acme/echo").breaker.open_until
    assert (await ask(market, {})).header("x-cache") == "HIT"
    assert (await ask(market, {"n": 9})).status == 503


async def test_a_call_sent_again_under_its_idempotency_key_gets_what_it_got_from_the_cache(market: Market) -> None:
    keep(market, ttl_seconds=60)
    await ask(market, {})
    first = await ask(market, {}, 'Idempotency-Key: "one"')
    again = await ask(market, {}, 'Idempotency-Key: "one"')
    assert (first.status, first.header("x-cache")) == (200, "HIT")
    assert (again.header("idempotency-replayed"), again.body) == ("true", first.body)


async def test_what_the_cache_did_is_on_the_status_page_and_among_the_metrics(market: Market) -> None:
    keep(market, ttl_seconds=60)
    for _ in range(3):
        await ask(market, {})
    status = json.loads((await market.call("GET", "/status")).body)
    [gateway] = status.get("workers", [status])
    assert gateway["cache"]["hits"] == 2 and gateway["cache"]["hit_rate"] == 0.6667
    metrics = (await market.call("GET", "/metrics")).body.decode()
    assert 'gateway_cache_calls_total{cache="hit",worker="gateway-0"} 2\n' in metrics
    assert f'gateway_cache_bytes{{worker="gateway-0"}} {market.gateway.cache.bytes}\n' in metrics
