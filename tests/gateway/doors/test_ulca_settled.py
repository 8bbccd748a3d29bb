"""Who does a task that is asked for in the same words: found once, and anew when the market changes."""

from __future__ import annotations

import json
from typing import Any

from msgspec import structs

from gateway.doors.ulca_market import stock, task, texts
from gateway.rig import APP, Market, Response
from haat.gateway.limits.registry import PlanLimits

PIPELINE = "/services/inference/pipeline"


async def translate(market: Market, service_id: str | None, text: str = "a", key: str | None = None) -> Response:
    config = task("translation", "hi", "ur", **({"serviceId": service_id} if service_id else {}))
    raw = json.dumps({"pipelineTasks": [config], "inputData": texts(text)}).encode()
    head = f"POST {PIPELINE} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
    client = await market.connect()
    await client.send(f"{head}Content-Length: {len(raw)}\r\nAuthorization: {key or market.key}\r\n\r\n".encode() + raw)
    response = await client.receive("POST")
    assert response is not None
    return response


def target(response: Response) -> Any:
    return json.loads(response.body)["pipelineResponse"][0]["output"][0]


async def test_the_texts_are_each_calls_own(market: Market) -> None:
    stock(market)
    for text in ("a", "b", "a"):
        response = await translate(market, "acme/translate", text)
        assert response.status == 200
        assert target(response) == {"source": text, "target": f"{text} [hi-Deva>ur-Arab]"}


async def test_a_subscription_that_ends_is_seen_at_once(market: Market) -> None:
    stock(market)
    assert (await translate(market, "acme/translate")).status == 200
    ended = next(
        one.id for one in market.gateway.directory.subscriptions.values() if one.service == service_of(market).id
    )
    market.gateway.directory.put_subscription(ended, None)
    assert (await translate(market, "acme/translate")).status == 403
    market.subscribe("acme/translate", PlanLimits(), APP)
    assert (await translate(market, "acme/translate")).status == 200


async def test_a_service_that_is_suspended_is_not_called(market: Market) -> None:
    stock(market)
    assert (await translate(market, "acme/translate")).status == 200
    service = service_of(market)
    market.gateway.directory.put_service(service.id, structs.replace(service, status="suspended", reason="a test"))
    assert (await translate(market, "acme/translate")).status == 403


async def test_what_one_application_may_is_not_anothers(market: Market) -> None:
    stock(market)
    assert (await translate(market, "acme/translate")).status == 200
    stranger = market.add_key(app="00000000-0000-7000-8000-0000000000ff")
    assert (await translate(market, "acme/translate", key=stranger)).status == 403


def service_of(market: Market) -> Any:
    return market.gateway.directory.services["acme/translate"]
