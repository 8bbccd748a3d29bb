"""The cache on the call path: what is answered from it, what isn't, and what is written down about both."""

from __future__ import annotations

import asyncio
import json
import random
import tracemalloc
from typing import Any

import msgspec
import pytest

from gateway.rig import APP, Market, Request, Response, answer, reset
from haat.gateway.cache import Answer, Cache, Item
from haat.gateway.limits import PlanLimits
from haat.gateway.policy import CachePolicy, ServicePolicy, Transform, VersionPolicy
from haat.gateway.snapshot import Price

PATH = "/v1/services/acme/echo/invoke"
JSON = "Content-Type: application/json"


def keep(market: Market, slug: str = "echo", *, generation: int = 0, status: str = "published", **policy: Any) -> None:
    """Have a service's answers kept; without a policy no more."""
    directory = market.gateway.directory
    service = directory.services[f"acme/{slug}"]
    said = ServicePolicy(cache=CachePolicy(**policy), cache_generation=generation) if policy else ServicePolicy()
    directory.put_service(service.id, msgspec.structs.replace(service, policy=said, status=status))


async def ask(market: Market, body: object = None, *headers: str, path: str = PATH, method: str = "POST") -> Response:
    content = json.dumps(body).encode() if body is not None else b""
    return await market.call(method, path, content, JSON, *headers)


def stats(market: Market) -> dict[str, Any]:
    return market.gateway.cache.stats()


async def upper(request: Request, reader: Any, writer: Any) -> bool:
    """A task service: texts in capitals, metered by characters."""
    inputs = json.loads(request.body)["input"]
    if any(item["text"] == "bad" for item in inputs):
        at = next(at for at, item in enumerate(inputs) if item["text"] == "bad")
        problem = {"code": "VALIDATION_FAILED", "errors": [{"field": f"input[{at}].text", "message": "bad"}]}
        writer.write(answer(422, json.dumps(problem).encode()))
        return True
    total = sum(len(item["text"]) for item in inputs)
    body = {"output": [{"text": item["text"].upper()} for item in inputs], "usage": {"characters": total}}
    writer.write(answer(200, json.dumps(body).encode(), f"X-Haat-Usage: characters={total}"))
    return True


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


# --- the same question at the same time ---------------------------------------------------------


class Gate:
    """A provider that answers when it is let."""

    def __init__(self, market: Market, body: bytes = b'{"n":1}', *headers: str, status: int = 200) -> None:
        self._market, self._answer = market, answer(status, body, *headers)
        self._open = asyncio.Event()
        market.provider.behaviour = self.behave

    async def behave(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await self._open.wait()
        writer.write(self._answer)
        return True

    def open(self) -> None:
        self._open.set()

    async def reached(self, calls: int) -> None:
        await self._market.until(lambda: len(self._market.provider.requests) == calls)

    async def waited_for(self, calls: int) -> None:
        await self._market.until(lambda: stats(self._market)["coalesced"] == calls)


async def test_many_who_ask_the_same_at_once_are_one_call_to_the_provider(market: Market) -> None:
    keep(market, ttl_seconds=60)
    gate = Gate(market)
    calls = [asyncio.create_task(ask(market, {})) for _ in range(20)]
    await gate.waited_for(19)
    gate.open()
    responses = await asyncio.gather(*calls)
    assert len(market.provider.requests) == 1
    assert sorted(str(response.header("x-cache")) for response in responses) == ["HIT"] * 19 + ["MISS"]
    assert {response.body for response in responses} == {b'{"n":1}'} and stats(market)["in_flight"] == 0
    await market.until(lambda: len(market.confirmed()) == 20)
    assert sorted(event.cache for event in market.events()) == ["hit"] * 19 + ["miss"]


async def test_nobody_fails_because_somebody_elses_client_left(market: Market) -> None:
    keep(market, ttl_seconds=60)
    gate = Gate(market)
    first = await market.connect()
    await first.send(market.raw("POST", PATH, b"{}", JSON))
    await gate.reached(1)
    calls = [asyncio.create_task(ask(market, {})) for _ in range(5)]
    await gate.waited_for(5)
    first.reset()
    await gate.reached(2)  # one of the others has taken its place, and only one
    gate.open()
    responses = await asyncio.gather(*calls)
    assert [response.status for response in responses] == [200] * 5 and len(market.provider.requests) == 2
    await market.until(lambda: len(market.confirmed()) == 6)
    assert sorted((event.outcome, event.cache) for event in market.events()) == [
        ("client_left", "miss"),
        *[("completed", "hit")] * 4,
        ("completed", "miss"),
    ]


async def test_whoever_takes_the_place_has_all_the_time_it_was_granted(market: Market) -> None:
    keep(market, ttl_seconds=60)
    gate = Gate(market)
    first = await market.connect()
    await first.send(market.raw("POST", PATH, b"{}", JSON))
    await gate.reached(1)
    waiting = asyncio.create_task(ask(market, {}))
    await gate.waited_for(1)
    [call] = [call for call in market.gateway.calls if call.upstream is None]
    granted = call.deadline
    call.deadline = market.gateway.clock.now_us() + 400_000
    first.reset()
    await gate.reached(2)
    assert call.deadline > granted
    gate.open()
    assert (await waiting).status == 200


async def test_after_two_losses_everybody_goes(market: Market) -> None:
    keep(market, ttl_seconds=60)
    gate = Gate(market)
    leaving = [await market.connect() for _ in range(2)]
    for number, client in enumerate(leaving, 1):
        await client.send(market.raw("POST", PATH, b"{}", JSON))
        await market.until(lambda number=number: len(market.gateway.calls) == number)  # type: ignore[misc]
    calls = [asyncio.create_task(ask(market, {})) for _ in range(4)]
    await gate.waited_for(5)
    for number, client in enumerate(leaving, 2):
        client.reset()
        await market.until(lambda number=number: len(market.provider.requests) >= number)  # type: ignore[misc]
    await gate.reached(6)
    gate.open()
    assert [response.status for response in await asyncio.gather(*calls)] == [200] * 4


async def test_a_leader_whose_connection_breaks_fails_alone(market: Market) -> None:
    keep(market, ttl_seconds=60)
    gate = Gate(market)
    broken = asyncio.Event()

    async def once(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await broken.wait()
        market.provider.behaviour = gate.behave
        reset(writer)
        return False

    market.provider.behaviour = once
    calls = [asyncio.create_task(ask(market, {})) for _ in range(4)]
    await gate.waited_for(3)
    broken.set()
    await gate.reached(2)
    gate.open()
    assert sorted(response.status for response in await asyncio.gather(*calls)) == [200, 200, 200, 502]


async def test_nobody_waits_where_answers_are_not_kept(market: Market) -> None:
    keep(market, ttl_seconds=60)
    gate = Gate(market, b"{}", "Cache-Control: no-store")
    calls = [asyncio.create_task(ask(market, {})) for _ in range(4)]
    await gate.waited_for(3)
    gate.open()
    assert {response.status for response in await asyncio.gather(*calls)} == {200}
    assert len(market.provider.requests) == 4
    gate = Gate(market, b"{}", "Cache-Control: no-store")
    calls = [asyncio.create_task(ask(market, {})) for _ in range(4)]
    await gate.reached(8)  # it is known by now: nobody has waited
    gate.open()
    await asyncio.gather(*calls)
    assert stats(market)["coalesced"] == 3


async def test_those_who_wait_do_not_wait_longer_than_their_time(market: Market) -> None:
    market.add_service("slow", timeout_ms=300)
    keep(market, "slow", ttl_seconds=60)
    Gate(market)
    path = "/v1/services/acme/slow/invoke"
    responses = await asyncio.gather(*[ask(market, {}, path=path) for _ in range(3)])
    assert {response.status for response in responses} == {504}
    await market.until(lambda: stats(market)["in_flight"] == 0)


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


# --- batches ------------------------------------------------------------------------------------


def batches(market: Market, unit: str = "characters", **policy: Any) -> None:
    market.add_service("task", unit=unit, dialect="task", max_units=policy.pop("max_units", ""))
    keep(market, "task", ttl_seconds=60, items=True, **policy)
    market.provider.behaviour = upper


async def task(market: Market, *texts: str, **options: Any) -> Response:
    body = {"input": [{"text": text} for text in texts], "config": options.pop("config", {})}
    return await ask(market, body, *options.pop("headers", ()), path="/v1/services/acme/task/invoke")


def asked(market: Market) -> list[list[str]]:
    return [[item["text"] for item in json.loads(request.body)["input"]] for request in market.provider.requests]


def texts(response: Response) -> list[str]:
    return [output["text"] for output in response.json()["output"]]


async def test_only_the_unknown_items_of_a_batch_are_asked_for(market: Market) -> None:
    batches(market)
    assert (await task(market, "a", "bb")).header("x-cache") == "MISS"
    mixed = await task(market, "ccc", "bb", "dddd", "a")
    assert (mixed.header("x-cache"), texts(mixed)) == ("PARTIAL", ["CCC", "BB", "DDDD", "A"])
    whole = await task(market, "dddd", "a")
    assert (whole.header("x-cache"), texts(whole)) == ("HIT", ["DDDD", "A"])
    assert whole.json()["usage"] == {"characters": 5} and mixed.json()["usage"] == {"characters": 10}
    assert asked(market) == [["a", "bb"], ["ccc", "dddd"]]
    assert int(market.provider.requests[-1].header("content-length")[0]) == len(market.provider.requests[-1].body)
    await market.until(lambda: len(market.confirmed()) == 3)
    events = sorted(market.events(), key=lambda event: event.id)
    assert [(event.cache, event.units["characters"], event.cached_units) for event in events] == [
        ("miss", "3", {}),
        ("partial", "10", {"characters": "3"}),
        ("hit", "5", {"characters": "5"}),
    ]
    assert mixed.header("x-haat-units") == "characters=10"
    assert (stats(market)["items_known"], stats(market)["items_asked"]) == (4, 4)


async def test_an_item_that_is_in_a_batch_twice_is_asked_for_once(market: Market) -> None:
    batches(market)
    response = await task(market, "a", "bb", "a")
    assert texts(response) == ["A", "BB", "A"] and asked(market) == [["a", "bb"]]
    event = await market.settled_event()
    assert (event.cache, event.units["characters"], event.cached_units) == ("partial", "4", {"characters": "1"})


async def test_another_config_is_another_item(market: Market) -> None:
    batches(market)
    await task(market, "a", config={"target": "hi"})
    assert (await task(market, "a", config={"target": "ur"})).header("x-cache") == "MISS"


async def test_what_was_known_costs_the_plans_share_and_the_answer_says_so(market: Market) -> None:
    batches(market)
    directory = market.gateway.directory
    service = directory.services["acme/task"]
    priced = msgspec.structs.replace(service, prices=(Price("", "characters", "0.5", "0", 0),))
    directory.put_service(service.id, priced)
    subscribed = directory.subscriptions[APP, service.id]
    directory.put_subscription(subscribed.id, msgspec.structs.replace(subscribed, cached_share="0.125"))
    answers = [await task(market, "aaaa"), await task(market, "aaaa", "bb"), await task(market, "bb")]
    assert [one.header("x-haat-charge") for one in answers] == ["2 INR", "1.25 INR", "0.125 INR"]
    await market.until(lambda: len(market.confirmed()) == 3)
    events = sorted(market.events(), key=lambda event: event.id)
    assert [event.cached_share for event in events] == ["", "0.125", "0.125"]


async def test_a_refresh_asks_for_everything_and_keeps_it(market: Market) -> None:
    batches(market)
    await task(market, "a")
    assert (await task(market, "a", "b", "a", headers=("Cache-Control: no-cache",))).header("x-cache") == "BYPASS"
    assert asked(market) == [["a"], ["a", "b", "a"]]
    assert (await task(market, "b")).header("x-cache") == "HIT"


async def test_a_known_batch_can_be_revalidated(market: Market) -> None:
    batches(market)
    tag = (await task(market, "a", "b")).header("etag")
    response = await task(market, "a", "b", headers=(f"If-None-Match: {tag}",))
    assert (response.status, response.header("etag")) == (304, tag)
    assert (await task(market, "b", "a", headers=(f"If-None-Match: {tag}",))).status == 200


async def test_a_refusal_of_the_unknown_items_names_them_as_the_caller_did_and_keeps_nothing(market: Market) -> None:
    batches(market)
    await task(market, "a", "b")
    response = await task(market, "a", "b", "bad")
    assert response.status == 422 and response.json()["errors"][0]["field"] == "input[2].text"
    assert asked(market)[-1] == ["bad"]
    await market.until(lambda: len(market.confirmed()) == 2)
    refused = next(event for event in market.events() if event.status == 422)
    assert (refused.outcome, refused.units, refused.cached_units) == ("provider_failed", {}, {})


@pytest.mark.parametrize("body", [b'{"output":[]}', b'{"output":[1,2,3]}', b"[]", b"no json"])
async def test_a_wrong_number_of_outputs_is_the_providers_failure(market: Market, body: bytes) -> None:
    batches(market)
    await task(market, "a")
    market.provider.behaviour = answer(200, body)
    response = await task(market, "a", "b", "c")
    assert (response.status, response.json()["code"]) == (502, "PROVIDER_FAILED")
    assert stats(market)["entries"] == 1
    market.provider.behaviour = upper
    assert texts(await task(market, "a", "b", "c")) == ["A", "B", "C"]


async def test_answers_that_say_more_than_outputs_are_passed_on_and_not_kept(market: Market) -> None:
    batches(market)
    market.provider.behaviour = answer(200, b'{"output":["A"],"model":"m"}')
    for _ in range(2):
        response = await task(market, "a")
        assert (response.header("x-cache"), response.json()["model"]) == ("MISS", "m")


async def test_a_partial_hit_of_a_service_sold_by_requests_costs_a_whole_request(market: Market) -> None:
    batches(market, unit="requests")
    await task(market, "a")
    await task(market, "a", "b")
    await task(market, "a", "b")
    await market.until(lambda: len(market.confirmed()) == 3)
    events = sorted(market.events(), key=lambda event: event.id)
    assert [(event.cache, event.units["requests"], event.cached_units) for event in events] == [
        ("miss", "1", {}),
        ("partial", "1", {}),
        ("hit", "1", {"requests": "1"}),
    ]


async def test_a_partial_hit_of_a_service_sold_by_bytes_asks_for_those_that_were_sent_on(market: Market) -> None:
    batches(market, unit="bytes")

    async def silent(request: Request, reader: Any, writer: Any) -> bool:
        inputs = json.loads(request.body)["input"]
        writer.write(answer(200, json.dumps({"output": inputs}).encode()))
        return True

    market.provider.behaviour = silent
    await task(market, "a" * 100)
    await task(market, "a" * 100, "b")
    await market.until(lambda: len(market.confirmed()) == 2)
    event = max(market.events(), key=lambda event: event.id)
    sent = len(market.provider.requests[-1].body)
    assert int(event.units["bytes"]) == event.bytes_in
    assert int(event.cached_units["bytes"]) == event.bytes_in - sent > 100


async def test_known_items_never_raise_a_call_above_the_versions_most(market: Market) -> None:
    batches(market, max_units="4")
    await task(market, "aaa")
    await task(market, "aaa", "bb")
    await market.until(lambda: len(market.confirmed()) == 2)
    event = max(market.events(), key=lambda event: event.id)
    assert (event.units["characters"], event.cached_units) == ("4", {"characters": "2"})


async def test_the_same_batch_at_the_same_time_is_asked_for_once(market: Market) -> None:
    batches(market)
    gate = asyncio.Event()

    async def held(request: Request, reader: Any, writer: Any) -> bool:
        await gate.wait()
        return await upper(request, reader, writer)

    market.provider.behaviour = held
    calls = [asyncio.create_task(task(market, "a", "b")) for _ in range(5)]
    await market.until(lambda: stats(market)["coalesced"] == 4)
    gate.set()
    assert {tuple(texts(response)) for response in await asyncio.gather(*calls)} == {("A", "B")}
    assert len(market.provider.requests) == 1


async def test_random_batches_are_answered_as_without_a_cache_and_their_units_add_up(market: Market) -> None:
    batches(market)
    chance = random.Random(11)
    words = ["a" * (number % 7 + 1) + chr(98 + number) for number in range(20)]
    for _ in range(60):
        chosen = chance.choices(words, k=chance.randint(1, 8))
        response = await task(market, *chosen)
        assert texts(response) == [word.upper() for word in chosen]
        assert response.json()["usage"] == {"characters": sum(map(len, chosen))}
        assert response.header("x-haat-units") == f"characters={sum(map(len, chosen))}"
    await market.until(lambda: len(market.confirmed()) == 60)
    asked_for = sum(len(text) for batch in asked(market) for text in batch)
    full = sum(int(event.units["characters"]) for event in market.events())
    cached = sum(int(event.cached_units.get("characters", 0)) for event in market.events())
    assert full - cached == asked_for == sum(map(len, words))  # each was paid in full once


# --- versions that adapt another one ------------------------------------------------------------


async def test_a_version_that_adapts_another_has_the_same_items_kept_in_its_own_shape(market: Market) -> None:
    batches(market)
    directory = market.gateway.directory
    service = directory.services["acme/task"]
    policy = VersionPolicy(
        serves="1", request=(Transform("rename", "texts", "input"),), answer=(Transform("rename", "output", "results"),)
    )
    old = msgspec.structs.replace(service.versions[0], version="0", policy=policy)
    directory.put_service(service.id, msgspec.structs.replace(service, versions=(*service.versions, old)))
    path = "/v1/services/acme/task@0/invoke"
    first = await ask(market, {"texts": [{"text": "a"}, {"text": "b"}]}, path=path)
    again = await ask(market, {"texts": [{"text": "b"}]}, path=path)
    assert (first.header("x-cache"), again.header("x-cache")) == ("MISS", "HIT")
    assert again.json() == {"results": [{"text": "B"}], "usage": {"characters": 1}}
    assert again.header("etag") is None  # it would name another shape
    moved = msgspec.structs.replace(service.versions[0], endpoint=service.versions[0].endpoint + "/moved")
    directory.put_service(service.id, msgspec.structs.replace(service, versions=(moved, service.versions[1], old)))
    assert (await ask(market, {"texts": [{"text": "b"}]}, path=path)).header("x-cache") == "MISS"


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
