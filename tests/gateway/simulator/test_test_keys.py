"""Calls of test keys: answered here, the same each time, metered and free; failures come when they are wished for."""

from __future__ import annotations

import base64
import io
import json
import wave
from typing import Any

import pytest
from msgspec import structs

from gateway.rig import Market, Response, answer
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import CachePolicy, ServicePolicy, Transform, VersionPolicy
from haat.gateway.market.snapshot import Price
from haat.gateway.simulator.marks import TONES
from haat.identity.model import make_key
from haat.models.hosted import Item
from haat.providers.vani.sound import recordings
from haat.usage import event as usage
from haat.usage.event import Outcome

HELLO = json.dumps(
    {"input": [{"text": "नमस्ते"}], "config": {"source": "hi", "target": "ur"}}, ensure_ascii=False
).encode()


@pytest.fixture
def test_key(market: Market) -> str:
    market.add_service("translate", dialect="task", category="translation", unit="characters")
    market.add_service("chat", dialect="openai", category="llm", unit="tokens")
    market.provider.behaviour = answer(200, b'{"output":[{"text":"real"}],"usage":{"characters":6}}')
    return market.add_key(mode="test")


async def ask(market: Market, key: str, *headers: str, slug: str = "translate", body: bytes = HELLO) -> Response:
    path = f"/v1/services/acme/{slug}/invoke"
    return await market.call("POST", path, body, "Content-Type: application/json", *headers, key=key)


async def test_a_test_key_is_answered_here_the_same_each_time_and_no_provider_hears_of_it(
    market: Market, test_key: str
) -> None:
    first, second = await ask(market, test_key), await ask(market, test_key)
    assert first.status == 200, first.body
    assert first.body == second.body
    answered = first.json()
    assert answered["output"][0]["text"].startswith("[test ") and answered["output"][0]["text"].endswith("नमस्ते")
    assert answered["usage"] == {"characters": 6}
    assert (first.header("X-Haat-Mode"), first.header("X-Haat-Served-By")) == ("test", "haat/simulator")
    assert (first.header("X-Haat-Units"), first.header("X-Haat-Charge")) == ("characters=6", "0 INR")
    assert market.provider.requests == []
    other = await ask(market, test_key, body=HELLO.replace("नमस्ते".encode(), "शुभ".encode()))
    assert other.json()["output"][0]["text"][:15] != answered["output"][0]["text"][:15]


async def test_a_live_key_is_simply_not_test(market: Market, test_key: str) -> None:
    response = await ask(market, market.key, "X-Haat-Simulate: quota")
    assert (response.status, response.header("X-Haat-Mode")) == (200, None)
    assert response.json()["output"] == [{"text": "real"}]
    assert len(market.provider.requests) == 1


async def test_each_call_makes_one_event_that_says_test_and_nothing_that_could_be_billed(
    market: Market, test_key: str
) -> None:
    await ask(market, test_key)
    event = await market.settled_event()
    assert (event.mode, event.outcome, event.units) == ("test", Outcome.COMPLETED, {"requests": "1", "characters": "6"})
    assert (event.subscription, event.provider_org, event.plan, event.service_slug) == ("", "", "basic", "translate")
    assert event.credential == f"key-{test_key[-6:]}"


async def test_a_plain_record_says_it_too(market: Market, test_key: str) -> None:
    await ask(market, test_key, slug="echo", body=b'{"hello":1}')
    event = await market.settled_event()
    assert (event.mode, event.units, event.subscription) == ("test", {"requests": "1"}, "")


async def test_the_live_record_has_no_more_bytes_than_before(market: Market, test_key: str) -> None:
    await ask(market, market.key)
    await market.until(lambda: bool(market.confirmed()))
    assert all(b"mode" not in frame.payload for frame in market.frames())


async def test_the_quota_is_not_used_and_a_used_up_one_stops_no_test(market: Market, test_key: str) -> None:
    market.subscribe("acme/translate", PlanLimits(quota_per_month=1))
    for _ in range(3):
        assert (await ask(market, test_key)).status == 200
    assert (await ask(market, market.key)).status == 200
    assert (await ask(market, market.key)).json()["code"] == "QUOTA_EXHAUSTED"
    assert (await ask(market, test_key)).status == 200


async def test_rates_apply_as_the_plan_has_them_and_are_counted_apart(market: Market, test_key: str) -> None:
    market.subscribe("acme/translate", PlanLimits(per_minute=2))
    assert [(await ask(market, test_key)).status for _ in range(3)] == [200, 200, 429]
    assert (await ask(market, market.key)).status == 200


async def test_no_simulated_answer_is_kept_for_live_callers_nor_the_other_way_round(
    market: Market, test_key: str
) -> None:
    service = market.gateway.directory.services["acme/translate"]
    policy = ServicePolicy(cache=CachePolicy(items=True))
    market.gateway.directory.put_service(service.id, structs.replace(service, policy=policy))
    simulated = await ask(market, test_key)
    assert simulated.header("X-Cache") is None
    live = await ask(market, market.key)
    assert live.json()["output"] == [{"text": "real"}] and live.header("X-Cache") == "MISS"
    assert (await ask(market, test_key)).body == simulated.body


async def test_an_idempotency_key_means_another_call_to_a_live_key(market: Market, test_key: str) -> None:
    simulated = await ask(market, test_key, "Idempotency-Key: one")
    again = await ask(market, test_key, "Idempotency-Key: one")
    assert (again.body, again.header("Idempotency-Replayed")) == (simulated.body, "true")
    live = await ask(market, market.key, "Idempotency-Key: one")
    assert live.json()["output"] == [{"text": "real"}] and live.header("Idempotency-Replayed") is None


async def test_a_test_key_still_needs_a_subscription_and_its_refusal_is_recorded_as_test(
    market: Market, test_key: str
) -> None:
    market.add_service("other", dialect="task", subscribed=None)
    assert (await ask(market, test_key, slug="other")).json()["code"] == "NOT_SUBSCRIBED"
    event = await market.settled_event()
    assert (event.mode, event.outcome, event.error_code) == ("test", Outcome.REFUSED, "NOT_SUBSCRIBED")


async def test_a_snapshot_of_an_older_release_makes_no_test_key_live(market: Market, test_key: str) -> None:
    key_hash = market.keyring.hash_key(test_key)
    entry = market.gateway.directory.credentials[key_hash]
    market.gateway.directory.put_credential(entry.id, structs.replace(entry, test=False))
    assert (await ask(market, test_key)).header("X-Haat-Mode") == "test"
    assert market.provider.requests == []


@pytest.mark.parametrize(
    ("wish", "status", "code"),
    [("quota", 429, "QUOTA_EXHAUSTED"), ("overload", 503, "OVERLOADED"), ("timeout", 504, "PROVIDER_TIMEOUT")],
)
async def test_a_failure_comes_when_it_is_wished_for(
    market: Market, test_key: str, wish: str, status: int, code: str
) -> None:
    response = await ask(market, test_key, f"X-Haat-Simulate: {wish}")
    assert (response.status, response.json()["code"]) == (status, code)
    assert (await market.settled_event()).mode == "test"
    assert (await ask(market, test_key)).status == 200, "and only for the call that wishes it"


async def test_the_simulated_quota_has_the_headers_of_a_real_one(market: Market, test_key: str) -> None:
    limits = PlanLimits(per_minute=600, max_concurrent=1, quota_per_month=5000, quota_unit="characters")
    market.subscribe("acme/translate", limits)
    for _ in range(3):  # its place among the concurrent ones is free again each time
        response = await ask(market, test_key, "X-Haat-Simulate: quota")
    problem = response.json()
    assert (problem["limit"], problem["quota"], problem["remaining"], problem["unit"]) == (
        "month",
        5000,
        0,
        "characters",
    )
    assert response.header("X-RateLimit-Remaining") == "0" and response.header("X-RateLimit-Limit") == "5000"
    assert response.header("RateLimit") is not None and response.header("X-Should-Retry") == "false"
    assert response.header("Retry-After") == str(problem["reset_seconds"])
    assert (await ask(market, test_key)).status == 200


async def test_an_overload_says_when_to_come_back(market: Market, test_key: str) -> None:
    assert (await ask(market, test_key, "X-Haat-Simulate: overload")).header("Retry-After") == "2"


async def test_slow_is_the_answer_after_a_few_seconds(
    market: Market, test_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haat.gateway.simulator.step.SLOW_SECONDS", 0.2)
    began = market.gateway.clock.now_us()
    response = await ask(market, test_key, "X-Haat-Simulate: slow")
    assert response.status == 200 and market.gateway.clock.now_us() - began >= 200_000


async def test_a_stream_breaks_off_in_its_middle_with_the_event_that_says_so(market: Market, test_key: str) -> None:
    response = await ask(market, test_key, "Accept: text/event-stream", "X-Haat-Simulate: midstream")
    events = [part for part in response.body.decode().split("\n\n") if part]
    assert response.header("Content-Type") == "text/event-stream" and len(events) == 2
    assert events[-1].startswith("event: error\ndata: ")
    assert json.loads(events[-1].partition("data: ")[2])["code"] == "PROVIDER_FAILED"
    event = await market.settled_event()
    assert (event.mode, event.outcome) == ("test", Outcome.PROVIDER_FAILED)


async def test_an_answer_that_is_no_stream_breaks_its_connection_off(market: Market, test_key: str) -> None:
    response = await ask(market, test_key, "X-Haat-Simulate: midstream")
    assert (response.status, response.whole) == (200, False) and response.body
    assert (await market.settled_event()).outcome is Outcome.PROVIDER_FAILED


async def test_a_failure_that_nobody_knows_is_refused_by_its_header(market: Market, test_key: str) -> None:
    response = await ask(market, test_key, "X-Haat-Simulate: earthquake")
    assert (response.status, response.json()["code"]) == (400, "INVALID_REQUEST")
    assert response.json()["field"] == "X-Haat-Simulate"


async def test_a_websocket_session_has_no_test_mode(market: Market, test_key: str) -> None:
    response = await market.call(
        "GET", "/v1/services/acme/echo/live", b"", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", key=test_key,
    )  # fmt: skip
    assert (response.status, response.json()["code"]) == (501, "NOT_SUPPORTED")
    assert market.provider.connections == 0


async def test_a_large_body_is_taken_whole_and_a_caller_that_leaves_ends_its_slow_call(
    market: Market, test_key: str
) -> None:
    big = json.dumps({"input": [{"text": "a" * 300_000}]}).encode()
    assert (await ask(market, test_key, body=big)).json()["usage"] == {"characters": 300_000}
    path = "/v1/services/acme/translate/invoke"
    client = await market.connect()
    await client.send(market.raw("POST", path, HELLO, "X-Haat-Simulate: slow", key=test_key))
    await market.until(lambda: bool(market.gateway.calls))
    client.close()
    await market.until(lambda: not market.gateway.calls)
    left = [event for event in market.events() if event.outcome is Outcome.CLIENT_LEFT]
    assert [event.mode for event in left] == ["test"] and left[0].units == {}


async def test_a_head_request_and_an_old_client_are_answered(market: Market, test_key: str) -> None:
    head = await market.call("HEAD", "/v1/services/acme/echo/thing", key=test_key)
    assert (head.status, head.body) == (200, b"")
    old = await market.call("GET", "/v1/services/acme/echo/thing", key=test_key, version="1.0")
    assert old.status == 200 and old.json()["path"] == "/thing"


async def test_a_version_that_adapts_another_is_adapted_for_test_keys_as_well(market: Market, test_key: str) -> None:
    service = market.gateway.directory.services["acme/translate"]
    one, two = service.versions
    rename = Transform("rename", "input", "items")
    adapter = structs.replace(two, policy=VersionPolicy(serves="1", answer=(structs.replace(rename, path="output"),)))
    market.gateway.directory.put_service(service.id, structs.replace(service, versions=(one, adapter)))
    path = "/v1/services/acme/translate@2/invoke"
    response = await market.call("POST", path, HELLO, "Content-Type: application/json", key=test_key)
    assert response.status == 200 and response.json()["items"][0]["text"].startswith("[test ")


async def test_failures_on_purpose_say_nothing_about_the_provider(market: Market, test_key: str) -> None:
    for _ in range(7):
        await ask(market, test_key, "Accept: text/event-stream", "X-Haat-Simulate: midstream")
    route = market.gateway.routes.find(b"acme/translate")
    assert route.breaker.failures == 0 and route.traffic.calls == 0
    assert (await ask(market, test_key)).status == 200
    assert (await ask(market, market.key)).status == 200


@pytest.mark.parametrize(
    ("category", "unit", "item", "member"),
    [
        ("text_to_speech", "characters", {"text": "hello"}, "audio"),
        ("embedding", "tokens", {"text": "two words"}, "embedding"),
        ("ocr", "images", {"image": {"content": "aGFhdA==", "format": "png"}}, "lines"),
        ("speech_to_text", "audio_seconds", {"audio": {"content": "AAAA" * 4000, "format": "wav"}}, "text"),
        ("nlp", "requests", {"text": "What a fine morning."}, "language"),
    ],
)
async def test_every_kind_of_task_has_its_answer(
    market: Market, test_key: str, category: str, unit: str, item: dict[str, Any], member: str
) -> None:
    market.add_service("kind", dialect="task", category=category, unit=unit)
    response = await ask(market, test_key, slug="kind", body=json.dumps({"input": [item, item]}).encode())
    assert response.status == 200, response.body
    first, second = response.json()["output"]
    assert first == second and member in first
    assert float(response.json()["usage"][unit]) > 0
    if member == "audio":
        with wave.open(io.BytesIO(base64.b64decode(first["audio"]["content"]))) as sound:
            assert (sound.getframerate(), sound.getnchannels()) == (16_000, 1)
    if member == "embedding":
        assert sum(number * number for number in first["embedding"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("form", TONES)
async def test_a_tone_comes_in_the_format_that_is_asked_for(market: Market, test_key: str, form: str) -> None:
    market.add_service("speak", dialect="task", category="text_to_speech", unit="characters")
    body = json.dumps({"input": [{"text": "hello"}], "config": {"format": form}}).encode()
    response = await ask(market, test_key, slug="speak", body=body)
    audio = response.json()["output"][0]["audio"]
    assert (audio["format"], audio["sample_rate"]) == (form, TONES[form])
    content = base64.b64decode(audio["content"])
    if form == "pcm":
        assert len(content) == 2 * 0.25 * 24_000
    else:
        [heard] = recordings([Item(content=content)], 16_000, 5, lambda wav: wav)
        assert 0.24 < heard.seconds < 0.4
    body = json.dumps({"input": [{"text": "hello"}], "config": {"format": ["amr"]}}).encode()
    refused = await ask(market, test_key, slug="speak", body=body)
    assert (refused.status, refused.json()["errors"][0]["field"]) == (422, "config.format")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[", 400),
        (b"[]", 400),
        (b"{}", 422),
        (b'{"input":[]}', 422),
        (b'{"input":' + b"[" * 100_000, 400),
        (b'{"input":[{"text":"a"}],"config":{"x":' + b"[" * 900 + b"]" * 900 + b"}}", 200),
        (b'{"input":[1]}', 422),
        (b'{"input":[{"text":"a"}],"x":1}', 422),
    ],
)
async def test_what_a_task_service_refuses_is_refused_here(
    market: Market, test_key: str, body: bytes, status: int
) -> None:
    response = await ask(market, test_key, body=body)
    assert response.status in (status, 400 if status == 200 else status), response.body
    if status == 422:
        assert response.json()["errors"][0]["field"]


async def test_a_language_model_answers_whole_and_streamed(market: Market, test_key: str) -> None:
    asked: dict[str, Any] = {"model": "acme/chat", "messages": [{"role": "user", "content": "Good morning"}]}
    path = "/v1/services/acme/chat/chat/completions"

    async def complete(**more: Any) -> Response:
        body = json.dumps({**asked, **more}).encode()
        return await market.call("POST", path, body, "Content-Type: application/json", key=test_key)

    whole = (await complete()).json()
    text = whole["choices"][0]["message"]["content"]
    assert text.endswith("Good morning") and whole["usage"]["prompt_tokens"] == 2
    streamed = await complete(stream=True, stream_options={"include_usage": True})
    data = [line[6:] for line in streamed.body.decode().splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    chunks = [json.loads(one) for one in data[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"]) == text
    assert chunks[-1]["usage"] == whole["usage"]
    events = [event for event in market.events() if event.mode == "test"]
    assert len(events) == 2


@pytest.mark.parametrize("dialect", ["ulca", "inference"])
async def test_whatever_its_endpoint_speaks_a_service_of_tasks_answers_in_tasks(
    market: Market, test_key: str, dialect: str
) -> None:
    market.add_service("model", dialect=dialect, category="translation", unit="characters")
    body = json.dumps({"input": [{"text": "नमस्ते"}], "config": {"source": "hi", "target": "ur"}}).encode()
    response = await market.call("POST", "/v1/services/acme/model/invoke", body, key=test_key)
    assert response.status == 200, response.body
    assert response.json()["output"][0]["text"].endswith("नमस्ते")
    assert market.provider.requests == []


async def test_a_provider_with_an_api_of_its_own_is_echoed(market: Market, test_key: str) -> None:
    response = await market.call("POST", "/v1/services/acme/echo/some/path?x=1", b'{"a":1}', key=test_key)
    assert response.status == 200
    answered = response.json()
    assert (answered["test"], answered["path"], answered["request"]) == (True, "/some/path", {"a": 1})


async def test_doors_work_with_test_keys(market: Market, test_key: str) -> None:
    market.add_service("vectors", dialect="task", category="embedding", unit="tokens", aliases=("small",))
    body = json.dumps({"model": "small", "input": ["one", "two words"]}).encode()
    found = await market.call("POST", "/v1/embeddings", body, "Content-Type: application/json", key=test_key)
    assert found.status == 200, found.body
    assert [len(one["embedding"]) for one in found.json()["data"]] == [64, 64]
    assert found.json()["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    stages = json.dumps({"stages": [{"service": "acme/translate"}] * 2, "input": [{"text": "a"}]}).encode()
    ran = await market.call("POST", "/v1/pipelines", stages, key=test_key)
    assert ran.status == 200 and ran.json()["output"][0]["text"].count("[test ") == 2
    failed = await market.call("POST", "/v1/pipelines", stages, "X-Haat-Simulate: overload", key=test_key)
    assert (failed.status, failed.json()["code"]) == (503, "OVERLOADED")
    assert market.provider.requests == []


async def test_a_test_call_costs_nothing_where_a_live_one_has_a_price(market: Market, test_key: str) -> None:
    service = market.gateway.directory.services["acme/translate"]
    price = Price("", "characters", "0.5", "0", 1)
    market.gateway.directory.put_service(service.id, structs.replace(service, prices=(price,)))
    market.provider.behaviour = answer(200, b'{"output":[]}', "X-Haat-Usage: characters=6")
    assert (await ask(market, market.key)).header("X-Haat-Charge") == "3 INR"
    assert (await ask(market, test_key)).header("X-Haat-Charge") == "0 INR"


async def test_a_key_that_only_looks_like_a_test_key_opens_nothing(market: Market, test_key: str) -> None:
    response = await ask(market, make_key("test"))
    assert (response.status, response.json()["code"]) == (401, "INVALID_CREDENTIAL")


def test_an_event_without_a_mode_is_live_and_one_of_an_unknown_mode_is_not_billed() -> None:
    known = b'{"id":"0193b0f0-0000-7000-8000-000000000001","at":1,"outcome":"completed"'
    assert usage.decode(known + b"}").mode == "live"
    newer = usage.decode(known + b',"mode":"rehearsal"}')
    assert newer.is_test
