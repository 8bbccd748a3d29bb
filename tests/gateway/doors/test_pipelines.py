"""Pipelines: each stage is a call by itself; what was done is billed, what was not isn't."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import structs

from gateway.rig import APP, Market, Request, Response, answer
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import Quality, VersionPolicy
from haat.gateway.market.snapshot import Price
from haat.usage.event import Outcome

HELLO = [{"text": "namaste"}]


def task(*texts: str, units: int = 7) -> bytes:
    body = {"output": [{"text": text} for text in texts], "usage": {"characters": units}}
    return answer(200, json.dumps(body).encode(), f"X-Haat-Usage: characters={units}")


@pytest.fixture
def chain(market: Market) -> Market:
    """Two services that add a letter to what they are sent."""

    async def behave(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        added = request.target[1]
        texts = [item["text"] + added for item in json.loads(request.body)["input"]]
        writer.write(task(*texts))
        await writer.drain()
        return True

    for slug in ("first", "second"):
        market.add_service(slug, dialect="task", category="translation", unit="characters", base=f"/{slug[0]}")
    market.provider.behaviour = behave
    return market


async def run(market: Market, stages: list[dict[str, Any]], *, headers: tuple[str, ...] = (), **more: Any) -> Response:
    body = json.dumps({"stages": stages, "input": HELLO, **more}).encode()
    return await market.call("POST", "/v1/pipelines", body, "Content-Type: application/json", *headers)


def both(**first: Any) -> list[dict[str, Any]]:
    return [{"service": "acme/first", **first}, {"service": "acme/second", "config": {"target": "ur"}}]


@pytest.mark.speaks("haat pipelines")
async def test_what_a_stage_answers_is_what_the_next_one_is_asked(chain: Market) -> None:
    response = await run(chain, both(config={"source": "hi"}, name="one"))
    assert response.status == 200, response.body
    answered = response.json()
    assert answered["output"] == [{"text": "namastefs"}]
    asked = [json.loads(request.body) for request in chain.provider.requests]
    assert asked == [
        {"input": HELLO, "config": {"source": "hi"}},
        {"input": [{"text": "namastef"}], "config": {"target": "ur"}},
    ]
    await chain.until(lambda: len(chain.confirmed()) == 2)
    events = chain.events()
    assert [event.outcome for event in events] == [Outcome.COMPLETED] * 2
    assert [event.service_slug for event in events] == ["first", "second"]
    assert [(stage["name"], stage["request_id"], stage["units"]) for stage in answered["stages"]] == [
        (name, event.id, event.units) for name, event in zip(("one", "second"), events, strict=True)
    ]
    assert {event.trace for event in events} == {(response.header("x-request-id") or "").replace("-", "")}


async def test_a_stage_that_the_key_does_not_open_is_refused_before_the_first_one_is_done(chain: Market) -> None:
    chain.narrow("acme/first")
    refused = await run(chain, both(), headers=("Idempotency-Key: once",))
    assert (refused.status, refused.json()["code"]) == (403, "OUT_OF_SCOPE") and chain.provider.requests == []
    chain.narrow()
    assert (await run(chain, both(), headers=("Idempotency-Key: once",))).status == 200
    chain.narrow("acme/first")
    kept = await run(chain, both(), headers=("Idempotency-Key: once",))
    assert kept.status == 403 and b"namaste" not in kept.body


async def test_stages_are_admitted_one_by_one(chain: Market) -> None:
    chain.subscribe("acme/second", PlanLimits(per_minute=1))
    assert (await run(chain, both())).status == 200
    response = await run(chain, both())
    problem = response.json()
    assert (response.status, problem["code"], problem["stage"]["number"]) == (429, "RATE_LIMITED", 2)
    assert problem["detail"].startswith("Stage 2 (second): ")
    assert [stage["name"] for stage in problem["done"]] == ["first"]
    assert response.header("retry-after")
    await chain.until(lambda: len(chain.confirmed()) == 4)
    assert [(event.service_slug, event.outcome) for event in chain.events()] == [
        ("first", Outcome.COMPLETED),
        ("second", Outcome.COMPLETED),
        ("first", Outcome.COMPLETED),
        ("second", Outcome.REFUSED),
    ]


@pytest.mark.parametrize(
    ("broken", "status", "code"),
    [
        (answer(422, b'{"code":"UNSUPPORTED_LANGUAGE","title":"t","detail":"No Urdu."}'), 422, "UNSUPPORTED_LANGUAGE"),
        (answer(500, b"oops"), 500, "PROVIDER_FAILED"),
        (b"garbage\r\n\r\n", 502, "PROVIDER_FAILED"),
        (answer(200, b'{"output":[{"label":"x"}]}'), 200, ""),
        (answer(200, b"[]"), 502, "PROVIDER_FAILED"),
    ],
    ids=["refused", "failed", "garbage", "no text, last", "no task"],
)
async def test_a_stage_that_fails_is_named_and_not_billed(chain: Market, broken: bytes, status: int, code: str) -> None:
    behave = chain.provider.behaviour
    assert not isinstance(behave, bytes)

    async def second_is_broken(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if request.target.startswith("/f"):
            return await behave(request, reader, writer)
        writer.write(broken)
        await writer.drain()
        return True

    chain.provider.behaviour = second_is_broken
    response = await run(chain, both())
    assert response.status == status
    if code:
        assert (response.json()["code"], response.json()["stage"]["name"]) == (code, "second")
    await chain.until(lambda: len(chain.confirmed()) == 2)
    first, second = chain.events()
    assert (first.outcome, first.units["characters"]) == (Outcome.COMPLETED, "7")
    # An answer that came whole was paid for, whatever we think of its shape; a failure is not.
    assert second.outcome == (Outcome.COMPLETED if broken.startswith(b"HTTP/1.1 200") else Outcome.PROVIDER_FAILED)


async def test_an_answer_that_leads_nowhere_names_the_stage_it_leads_to(chain: Market) -> None:
    chain.provider.behaviour = answer(200, b'{"output":[{"label":"x"}]}')
    response = await run(chain, both())
    assert (response.status, response.json()["stage"]["name"]) == (502, "second")
    assert len(chain.provider.requests) == 1


async def test_a_pipeline_has_one_deadline(chain: Market) -> None:
    async def slow(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.25)
        writer.write(task("x"))
        await writer.drain()
        return True

    chain.provider.behaviour = slow
    response = await run(chain, both(), timeout_ms=400)
    assert (response.status, response.json()["code"], response.json()["stage"]["number"]) == (
        504,
        "PROVIDER_TIMEOUT",
        2,
    )


async def test_a_caller_who_leaves_ends_the_stage_that_runs(chain: Market) -> None:
    async def never(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await reader.read(1)
        return False

    chain.provider.behaviour = never
    client = await chain.connect()
    body = json.dumps({"stages": both(), "input": HELLO}).encode()
    await client.send(chain.raw("POST", "/v1/pipelines", body, "Content-Type: application/json"))
    await chain.provider.arrived.wait()
    client.close()
    event = await chain.settled_event()
    assert (event.service_slug, event.outcome, event.units) == ("first", Outcome.CLIENT_LEFT, {})
    await chain.until(lambda: not chain.gateway.calls)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"stages": [], "input": HELLO}, "stages"),
        ({"stages": [{"service": "acme/first"}] * 9, "input": HELLO}, "stages"),
        ({"stages": both(), "input": []}, "input"),
        ({"stages": both(), "input": HELLO, "timeout_ms": 5}, "timeout_ms"),
        ({"stages": [{"service": "acme/echo"}], "input": HELLO}, "stages[0].service"),
        ({"stages": [{"servce": "acme/first"}], "input": HELLO}, "stages[0]"),
        ({"stages": both()}, "input"),
        ({"stages": both(), "input": HELLO, "extra": 1}, "extra"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_chain_that_cannot_work_is_refused_by_its_field(chain: Market, body: Any, field: str) -> None:
    raw = json.dumps(body).encode()
    response = await chain.call("POST", "/v1/pipelines", raw, "Content-Type: application/json")
    assert response.status == 422
    assert response.header("content-type") == "application/problem+json"
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert (await chain.settled_event()).outcome == Outcome.REFUSED


async def test_the_head_says_what_it_came_to(chain: Market) -> None:
    response = await run(chain, both())
    assert response.header("x-haat-units") == "characters=14"
    assert response.header("x-haat-charge") is None, "nothing here has a price"
    assert response.header("x-haat-served-by") == "acme/first@1, acme/second@1"
    put_price(chain, "first", "0.5")
    assert (await run(chain, both())).header("x-haat-charge") is None, "one price is not known"
    put_price(chain, "second", "0.25")
    priced = await run(chain, both())
    assert priced.header("x-haat-charge") == "5.25 INR"
    assert [stage["charge"] for stage in priced.json()["stages"]] == ["3.5 INR", "1.75 INR"]


async def test_units_of_several_kinds_are_listed(chain: Market) -> None:
    service = chain.gateway.directory.services["acme/first"]
    chain.gateway.directory.put_service(service.id, structs.replace(service, unit="requests"))
    assert (await run(chain, both())).header("x-haat-units") == "requests=1, characters=7"


async def test_what_nobody_counted_leaves_the_sum_open(chain: Market) -> None:
    service = chain.gateway.directory.services["acme/second"]
    chain.gateway.directory.put_service(service.id, structs.replace(service, unit="tokens"))
    response = await run(chain, both())
    assert (response.status, response.header("x-haat-units"), response.header("x-haat-charge")) == (200, None, None)


def put_price(market: Market, slug: str, rupees: str) -> None:
    service = market.gateway.directory.services[f"acme/{slug}"]
    price = Price("", "characters", rupees, "0", 1)
    market.gateway.directory.put_service(service.id, structs.replace(service, prices=(price,)))


# --- translate ----------------------------------------------------------------------------------


@pytest.fixture
def translators(chain: Market) -> Market:
    pairs = {
        "hi-ur": ("hi-Deva>ur-Arab", "ur-Arab>hi-Deva"),
        "hi-en": ("hi-Deva>en-Latn",),
        "en-ta": ("en-Latn>ta-Taml",),
    }
    for slug, own in pairs.items():
        market = chain
        market.add_service(
            slug, dialect="task", category="translation", unit="characters", base=f"/{slug[-1]}", language_pairs=own
        )
    return chain


async def translate(market: Market, **body: Any) -> Response:
    return await market.call("POST", "/v1/translate", json.dumps(body).encode(), "Content-Type: application/json")


@pytest.mark.speaks("haat translate")
async def test_a_text_is_translated_by_a_service_for_its_pair(translators: Market) -> None:
    response = await translate(translators, text=["आज मौसम बहुत अच्छा है।", "मेरा नाम राजेश है"], target="ur")
    assert response.status == 200, response.body
    answered = response.json()
    assert answered["translations"] == ["आज मौसम बहुत अच्छा है।r", "मेरा नाम राजेश हैr"]
    assert (answered["source"], answered["target"], answered["pivot"]) == ("hi-Deva", "ur-Arab", [])
    assert 0.5 <= answered["detected"]["confidence"] <= 1
    assert [stage["service"] for stage in answered["stages"]] == ["acme/hi-ur"]


async def test_a_third_language_is_used_only_where_allowed_and_always_said(translators: Market) -> None:
    refused = await translate(translators, text="नमस्ते", source="hi", target="ta")
    assert (refused.status, refused.json()["code"]) == (422, "UNSUPPORTED_LANGUAGE")
    assert "hi-Deva>en-Latn" in refused.json()["supported"]
    for wish in ({"pivot": "allow"}, {"via": "en"}):
        response = await translate(translators, text="नमस्ते", source="hi", target="ta", **wish)
        assert response.status == 200, response.body
        assert response.json()["pivot"] == ["en-Latn"]
        assert [stage["service"] for stage in response.json()["stages"]] == ["acme/hi-en", "acme/en-ta"]
        assert response.json()["detected"] is None


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"text": "1234", "target": "ur"}, 422, "UNDETERMINED_LANGUAGE"),
        ({"text": "", "source": "hi", "target": "ur"}, 422, "VALIDATION_FAILED"),
        ({"text": [], "source": "hi", "target": "ur"}, 422, "VALIDATION_FAILED"),
        ({"text": "x", "source": "hi", "target": "hi"}, 422, "VALIDATION_FAILED"),
        ({"text": "x", "source": "hi", "target": "ur", "timeout_ms": -1}, 422, "VALIDATION_FAILED"),
        ({"text": "x", "source": "hi", "target": "ur", "policy": "luck"}, 422, "VALIDATION_FAILED"),
        ({"text": "x", "source": "xx-Nope", "target": "ur"}, 422, "UNSUPPORTED_LANGUAGE"),
        ({"text": "x", "source": "hi", "target": "ta", "via": "bn"}, 422, "UNSUPPORTED_LANGUAGE"),
    ],
    ids=str,
)
async def test_what_cannot_be_translated_says_why(translators: Market, body: Any, status: int, code: str) -> None:
    response = await translate(translators, **body)
    assert (response.status, response.json()["code"]) == (status, code)


async def test_of_several_the_cheapest_that_is_subscribed_to_translates(translators: Market) -> None:
    translators.add_service(
        "free",
        dialect="task",
        category="translation",
        unit="characters",
        language_pairs=("hi-Deva>ur-Arab",),
        subscribed=None,
    )
    response = await translate(translators, text="नमस्ते", source="hi", target="ur")
    assert [stage["service"] for stage in response.json()["stages"]] == ["acme/hi-ur"]
    key = translators.add_key(app="another")
    raw = json.dumps({"text": "नमस्ते", "source": "hi", "target": "ur"}).encode()
    other = await translators.call("POST", "/v1/translate", raw, "Content-Type: application/json", key=key)
    assert (other.status, other.json()["code"]) == (403, "NOT_SUBSCRIBED")


def declare(market: Market, slug: str, **scores: str) -> None:
    """Have a listing say how well it translates; ``hi_ur`` stands for the pair."""
    names = {"hi_ur": "hi-Deva>ur-Arab"}
    said = tuple(Quality(names[pair], score, "FLORES-200 devtest", "2026-05-01") for pair, score in scores.items())
    service = market.gateway.directory.services[f"acme/{slug}"]
    first, *others = service.versions
    first = structs.replace(first, policy=VersionPolicy(quality=said))
    market.gateway.directory.put_service(service.id, structs.replace(service, versions=(first, *others)))


async def test_the_best_declared_quality_for_the_pair_wins_and_says_so(translators: Market) -> None:
    for slug in ("fair", "good", "silent"):
        translators.add_service(
            slug,
            dialect="task",
            category="translation",
            unit="characters",
            base="/g",
            language_pairs=("hi-Deva>ur-Arab",),
        )
    asked = {"text": "नमस्ते", "source": "hi", "target": "ur", "policy": "quality"}
    first = (await translate(translators, **asked)).json()["stages"][0]
    assert (first["service"], first["chosen"]) == ("acme/fair", {"by": "quality", "of": 4}), "nobody says anything"
    declare(translators, "fair", hi_ur="39.9")
    declare(translators, "good", hi_ur="41.25")
    declare(translators, "hi-ur")
    best = (await translate(translators, **asked)).json()["stages"][0]
    assert (best["service"], best["chosen"]) == (
        "acme/good",
        {"by": "quality", "of": 4, "metric": "chrF", "score": 41.25, "test_set": "FLORES-200 devtest",
         "date": "2026-05-01"},
    )  # fmt: skip
    declare(translators, "good", hi_ur="0")
    declare(translators, "fair")
    lowest = (await translate(translators, **asked)).json()["stages"][0]
    assert lowest["service"] == "acme/good", "who declares nothing comes last"
    cheapest = (await translate(translators, **{**asked, "policy": "price"})).json()["stages"][0]
    assert cheapest["chosen"] == {"by": "price", "of": 4}


async def test_of_equal_quality_the_cheaper_one_is_taken(translators: Market) -> None:
    for slug, rupees in (("dear", "2"), ("cheap", "1")):
        translators.add_service(
            slug,
            dialect="task",
            category="translation",
            unit="characters",
            base="/g",
            language_pairs=("hi-Deva>ur-Arab",),
        )
        declare(translators, slug, hi_ur="40")
        put_price(translators, slug, rupees)
    response = await translate(translators, text="नमस्ते", source="hi", target="ur", policy="quality")
    assert [stage["service"] for stage in response.json()["stages"]] == ["acme/cheap"]


async def test_a_way_that_the_application_is_subscribed_to_comes_before_english(translators: Market) -> None:
    for slug, pair, limits in (
        ("bn-ta", "bn-Beng>ta-Taml", PlanLimits()), ("hi-bn", "hi-Deva>bn-Beng", PlanLimits())
    ):  # fmt: skip
        translators.add_service(
            slug, dialect="task", category="translation", unit="characters", base="/g", language_pairs=(pair,),
            subscribed=limits,
        )  # fmt: skip
    asked = {"text": "नमस्ते", "source": "hi", "target": "ta", "pivot": "allow"}
    assert (await translate(translators, **asked)).json()["pivot"] == ["en-Latn"]
    translators.gateway.directory.put_subscription(f"sub-{APP}-acme/en-ta", None)
    assert (await translate(translators, **asked)).json()["pivot"] == ["bn-Beng"]


async def test_a_pair_that_only_an_api_of_its_own_has_is_none(translators: Market) -> None:
    translators.add_service("own", category="translation", language_pairs=("hi-Deva>bn-Beng",))
    response = await translate(translators, text="नमस्ते", source="hi", target="bn")
    assert (response.status, response.json()["code"]) == (422, "UNSUPPORTED_LANGUAGE")
    assert "hi-Deva>bn-Beng" not in response.json()["supported"]
