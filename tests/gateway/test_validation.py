"""Batches that a version wants looked at before they go to it."""

from __future__ import annotations

import gzip
import json
from typing import Any

import msgspec
import pytest

from gateway.rig import Market, Response, answer
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import Bounds, Transform, ValidationPolicy, VersionPolicy
from haat.usage.event import Outcome

ADDRESS = "/v1/services/acme/text/invoke"


def offer(market: Market, validation: ValidationPolicy | None, dialect: str = "task", **more: Any) -> None:
    market.add_service("text", dialect=dialect)
    service = market.gateway.directory.services["acme/text"]
    first, *others = service.versions
    first = msgspec.structs.replace(first, policy=VersionPolicy(validation=validation, **more))
    service = msgspec.structs.replace(service, versions=(first, *others))
    market.gateway.directory.put_service(service.id, service)
    market.provider.behaviour = answer(200, b'{"output":[{"text":"ok"}]}')


async def ask(market: Market, body: Any, *headers: str) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await market.call("POST", ADDRESS, raw, "Content-Type: application/json", *headers)


def texts(*given: str, **config: str) -> dict[str, Any]:
    return {"input": [{"text": text} for text in given], "config": config}


def fields(response: Response) -> list[str]:
    return [error["field"] for error in response.json()["errors"]]


async def test_what_is_unfit_is_refused_with_its_place_and_reaches_nobody(market: Market) -> None:
    offer(market, ValidationPolicy(most=10, repeats=5, duplicates="refuse", language=True))
    response = await ask(market, texts("आज", "aaaaaaa", "", "x" * 11, "आज", source="hi"))
    assert (response.status, response.json()["code"]) == (422, "VALIDATION_FAILED")
    assert fields(response) == ["input[1].text", "input[1].text", "input[2].text", "input[3].text", "input[4].text"]
    assert market.provider.requests == []
    event = await market.settled_event()
    assert (event.outcome, event.error_code, event.units) == (Outcome.REFUSED, "VALIDATION_FAILED", {})


async def test_what_is_fit_passes_as_it_is(market: Market) -> None:
    offer(market, ValidationPolicy(most=10, profanity="refuse"))
    body = b'{ "input" : [ {"text":"fine"} ] }'
    response = await ask(market, body)
    assert response.status == 200 and response.header("x-haat-flagged") is None
    assert market.provider.requests[0].body == body


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "MALFORMED_JSON"),
        (b"[" * 100_000, 400, "MALFORMED_JSON"),
        (b"", 400, "MALFORMED_JSON"),
        (b"[]", 422, "VALIDATION_FAILED"),
        (b'{"input": 5}', 422, "VALIDATION_FAILED"),
    ],
)
async def test_what_is_no_batch_is_refused_here(market: Market, body: bytes, status: int, code: str) -> None:
    offer(market, ValidationPolicy())
    response = await ask(market, body, *(() if body else ("Content-Length: 0",)))
    assert (response.status, response.json()["code"]) == (status, code)
    assert market.provider.requests == []


async def test_compressed_batches_are_looked_at_too(market: Market) -> None:
    offer(market, ValidationPolicy(most=3))
    long = gzip.compress(json.dumps(texts("four")).encode())
    assert fields(await ask(market, long, "Content-Encoding: gzip")) == ["input[0].text"]
    response = await ask(market, long, "Content-Encoding: br")
    assert (response.status, response.json()["code"]) == (400, "INVALID_REQUEST")
    assert market.provider.requests == []


@pytest.mark.parametrize(("plan", "status"), [("basic", 422), ("large", 200)])
async def test_a_plan_can_have_limits_of_its_own(market: Market, plan: str, status: int) -> None:
    offer(market, ValidationPolicy(items=1, plans={"large": Bounds(items=2)}))
    market.subscribe("acme/text", PlanLimits(), plan=plan)
    assert (await ask(market, texts("one", "two"))).status == status


@pytest.mark.parametrize(("policy", "status", "flagged"), [("refuse", 422, None), ("flag", 200, "input[1].text")])
async def test_abuse_is_refused_or_marked(market: Market, policy: str, status: int, flagged: str | None) -> None:
    offer(market, ValidationPolicy(profanity=policy))
    response = await ask(market, texts("तुम कौन हो", "तू कमीना है"))
    assert (response.status, response.header("x-haat-flagged")) == (status, flagged)


async def test_a_batch_is_looked_at_before_it_is_reshaped(market: Market) -> None:
    offer(market, ValidationPolicy(most=3), request=(Transform("rename", "input", "texts"),))
    assert fields(await ask(market, texts("four"))) == ["input[0].text"]
    assert (await ask(market, texts("one"))).status == 200
    assert json.loads(market.provider.requests[0].body)["texts"] == [{"text": "one"}]


async def test_a_version_that_does_not_ask_has_no_step(market: Market) -> None:
    offer(market, None)
    assert (await ask(market, b"no json at all")).status == 200
    assert market.gateway.routes.find(b"acme/text").steps == ()


async def test_only_task_services_are_looked_at(market: Market) -> None:
    offer(market, ValidationPolicy(), dialect="http")
    assert (await ask(market, b"no json at all")).status == 200
