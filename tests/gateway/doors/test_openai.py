"""The OpenAI-compatible door, held against the protocol's shapes."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from gateway.rig import Market, Response, answer
from haat.gateway.limits.registry import PlanLimits
from haat.usage.event import Outcome

VECTORS = [[0.25, -1.5], [3.0, 0.0]]
TASK = answer(
    200,
    json.dumps({"output": [{"embedding": vector} for vector in VECTORS], "usage": {"tokens": 7}}).encode(),
    "X-Haat-Usage: tokens=7",
)


@pytest.fixture
def embedder(market: Market) -> Market:
    market.add_service(
        "embed", dialect="task", category="embedding", unit="tokens", aliases=("text-embedding-3-small",)
    )
    market.provider.behaviour = TASK
    return market


async def ask(market: Market, path: str, body: Any, *headers: str, **options: Any) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await market.call("POST", path, raw, "Content-Type: application/json", *headers, **options)


@pytest.mark.speaks("openai embeddings")
@pytest.mark.parametrize("model", ["acme/embed", "acme/embed@1", "text-embedding-3-small", "embedding"])
async def test_a_model_is_named_by_its_listing_an_alias_or_what_it_does(embedder: Market, model: str) -> None:
    response = await ask(embedder, "/v1/embeddings", {"model": model, "input": ["a", "b"]})
    assert response.status == 200, response.body
    assert response.json() == {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": VECTORS[index]} for index in range(2)],
        "model": model,
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    [request] = embedder.provider.requests
    assert (request.method, request.target) == ("POST", "/base/invoke")
    assert json.loads(request.body) == {"input": [{"text": "a"}, {"text": "b"}]}
    event = await embedder.settled_event()
    assert (event.service_slug, event.units["tokens"], event.outcome) == ("embed", "7", Outcome.COMPLETED)


async def test_an_alias_is_never_taken_for_a_listings_own_name_nor_for_a_strangers(embedder: Market) -> None:
    embedder.add_service(
        "thief", port=9, dialect="task", aliases=("acme/embed", "text-embedding-3-small"), subscribed=None
    )
    for model in ("acme/embed", "text-embedding-3-small"):
        assert (await ask(embedder, "/v1/embeddings", {"model": model, "input": ["a", "b"]})).status == 200
    assert len(embedder.provider.requests) == 2


async def test_base64_is_little_endian_single_precision(embedder: Market) -> None:
    body = {"model": "acme/embed", "input": "a", "encoding_format": "base64"}
    data = (await ask(embedder, "/v1/embeddings", body)).json()["data"]
    assert [list(struct.unpack("<2f", base64.b64decode(one["embedding"]))) for one in data] == VECTORS


async def test_neither_record_nor_limits_tell_the_doors_apart(embedder: Market) -> None:
    native = json.dumps({"input": [{"text": "a"}, {"text": "b"}]}, separators=(",", ":")).encode()
    await ask(embedder, "/v1/services/acme/embed/invoke", native)
    await ask(embedder, "/v1/embeddings", {"model": "acme/embed", "input": ["a", "b"]})
    await embedder.until(lambda: len(embedder.confirmed()) == 2)
    one, other = (vars_of(event) for event in embedder.events())
    assert one == other


def vars_of(event: Any) -> dict[str, Any]:
    own = {"id", "at", "timings_us"}
    return {name: getattr(event, name) for name in event.__struct_fields__ if name not in own}


@pytest.mark.parametrize(
    ("body", "status", "code", "kind"),
    [
        (b"{", 400, "MALFORMED_JSON", "invalid_request_error"),
        (b'{"model": "acme/embed"}', 400, "INVALID_REQUEST", "invalid_request_error"),
        (b'{"model": "acme/embed", "input": 5}', 400, "INVALID_REQUEST", "invalid_request_error"),
        (b'{"model": "acme/embed", "input": [1, 2]}', 400, "INVALID_REQUEST", "invalid_request_error"),
        (b'{"model": "acme/embed", "input": []}', 400, "INVALID_REQUEST", "invalid_request_error"),
        (b'{"model": "acme/embed", "input": "a", "dimensions": 5}', 400, "INVALID_REQUEST", "invalid_request_error"),
        (b'{"model": "gpt-none", "input": "a"}', 404, "SERVICE_NOT_FOUND", "not_found_error"),
        (b'{"model": "acme/none", "input": "a"}', 404, "SERVICE_NOT_FOUND", "not_found_error"),
        (b'{"model": "translation:hi-ur", "input": "a"}', 404, "SERVICE_NOT_FOUND", "not_found_error"),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else str(value),
)
async def test_a_refusal_has_the_protocols_shape_and_is_recorded(
    embedder: Market, body: bytes, status: int, code: str, kind: str
) -> None:
    response = await ask(embedder, "/v1/embeddings", body)
    error = response.json()["error"]
    assert (response.status, error["code"], error["type"]) == (status, code, kind)
    assert error["message"] and error["request_id"] == response.header("x-request-id")
    event = await embedder.settled_event()
    assert (event.outcome, event.error_code, event.units) == (Outcome.REFUSED, code, {})
    assert embedder.provider.requests == []


async def test_a_stranger_is_refused_before_his_body_is_taken(embedder: Market) -> None:
    client = await embedder.connect()
    raw = embedder.raw("POST", "/v1/embeddings", b"", "Content-Length: 4000000", "Expect: 100-continue", key="nobody")
    await client.send(raw)
    response = await client.receive("POST")
    assert response is not None and response.status == 401
    assert response.json()["error"]["type"] == "authentication_error"
    assert embedder.events() == []


async def test_a_provider_that_refuses_is_answered_for_in_the_same_shape(embedder: Market) -> None:
    problem = {"code": "INPUT_TOO_LONG", "title": "Too long", "detail": "Input 0 is too long.", "status": 422}
    embedder.provider.behaviour = answer(422, json.dumps(problem).encode())
    response = await ask(embedder, "/v1/embeddings", {"model": "acme/embed", "input": "a"})
    assert response.status == 422
    assert response.json()["error"]["message"] == "Input 0 is too long."
    assert response.json()["error"]["code"] == "INPUT_TOO_LONG"
    assert (await embedder.settled_event()).outcome == Outcome.PROVIDER_FAILED


@pytest.mark.parametrize("body", [b"no json", b'{"output": 5}', b'{"output": [{"text": "a"}]}'], ids=repr)
async def test_an_answer_that_holds_no_vectors_is_the_providers_failure(embedder: Market, body: bytes) -> None:
    embedder.provider.behaviour = answer(200, body)
    response = await ask(embedder, "/v1/embeddings", {"model": "acme/embed", "input": "a"})
    assert (response.status, response.json()["error"]["type"]) == (502, "server_error")
    assert (await embedder.settled_event()).outcome == Outcome.PROVIDER_FAILED


async def test_limits_are_the_subscriptions_and_said_in_its_headers(embedder: Market) -> None:
    embedder.subscribe("acme/embed", PlanLimits(per_minute=1))
    assert (await ask(embedder, "/v1/embeddings", {"model": "acme/embed", "input": "a"})).status == 200
    response = await ask(embedder, "/v1/embeddings", {"model": "acme/embed", "input": "a"})
    assert (response.status, response.json()["error"]["type"]) == (429, "rate_limit_error")
    assert response.header("retry-after")


@pytest.mark.speaks("openai models", "openai models.retrieve")
async def test_the_models_are_those_of_the_application(embedder: Market) -> None:
    embedder.add_service("foreign", subscribed=None)
    response = await embedder.call("GET", "/v1/models")
    names = [model["id"] for model in response.json()["data"]]
    assert names == ["acme/echo", "acme/embed", "text-embedding-3-small"]
    one = await embedder.call("GET", "/v1/models/acme/embed")
    assert one.json() == {"id": "acme/embed", "object": "model", "created": 0, "owned_by": "acme"}
    assert (await embedder.call("GET", "/v1/models/acme%2Fembed")).json()["id"] == "acme/embed"
    assert (await embedder.call("GET", "/v1/models/acme/foreign")).status == 404
    assert embedder.events()[:-1] == []  # only the last one, refused, is a call


async def test_a_provider_who_speaks_the_protocol_is_passed_on_to(market: Market) -> None:
    market.add_service("llm", dialect="http", category="embedding")
    market.provider.behaviour = answer(200, b'{"object":"list","data":[],"own":1}')
    body = b'{"model":"acme/llm","input":[1,2],"extra":true}'
    response = await ask(market, "/v1/embeddings", body)
    assert response.body == b'{"object":"list","data":[],"own":1}'
    [request] = market.provider.requests
    assert (request.target, request.body) == ("/base/embeddings", body)


async def test_an_idempotency_key_keeps_the_native_answer_for_every_door(embedder: Market) -> None:
    key = "Idempotency-Key: one"
    body = {"model": "acme/embed", "input": ["a", "b"]}
    first = await ask(embedder, "/v1/embeddings", body, key)
    again = await ask(embedder, "/v1/embeddings", body, key)
    assert again.body == first.body and again.header("idempotency-replayed") == "true"
    native = json.dumps({"input": [{"text": "a"}, {"text": "b"}]}, separators=(",", ":")).encode()
    third = await ask(embedder, "/v1/services/acme/embed/invoke", native, key)
    assert third.header("idempotency-replayed") == "true" and third.json()["usage"] == {"tokens": 7}
    assert len(embedder.provider.requests) == 1
