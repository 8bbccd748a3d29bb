"""Models over gRPC: asked by the bridge, sold as any task service."""

from __future__ import annotations

import base64
import json
import time
import wave
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import structs

from gateway.dialects import grpc_rig
from gateway.dialects.grpc_rig import MOODY, NMT, Models, add
from gateway.doors.inference_calls import encoded, infer, listed, sound
from gateway.http.test_tls import Authority
from gateway.rig import Market, Response
from haat.gateway.market.policy import ServicePolicy
from haat.infra.inference.mapping import TensorMap
from haat.usage.event import Outcome

HELLO = {"input": [{"text": "नमस्ते"}, {"text": "b"}], "config": {"source": "hi-Deva", "target": "ur"}}


async def invoke(market: Market, task: Any, path: str = "acme/model/invoke", *headers: str) -> Response:
    body = json.dumps(task, ensure_ascii=False).encode()
    return await market.call("POST", f"/v1/services/{path}", body, "Content-Type: application/json", *headers)


async def say(market: Market, text: str) -> Response:
    return await invoke(market, {"input": [{"text": text}]})


async def test_a_task_is_asked_over_grpc_and_counted_here(market: Market, models: Models) -> None:
    add(market, models.url, structs.replace(NMT, parameters={"beam": 4, "warm": 0.5, "fast": True, "tone": "low"}))
    response = await invoke(market, HELLO, "acme/model/invoke", "traceparent: 00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    assert response.status == 200, response.body
    assert response.json() == {"output": [{"text": "hi>ur:नमस्ते"}, {"text": "hi>ur:b"}], "usage": {"characters": 7}}
    assert response.header("content-type") == "application/json"
    assert response.header("x-haat-units") == "characters=7"
    assert response.header("inference-header-content-length") is None
    [asked] = models.noted()
    assert (asked["model"], asked["version"], asked["outputs"]) == ("nmt", "", ["OUTPUT_TEXT"])
    assert asked["parameters"] == {"beam": 4, "warm": 0.5, "fast": True, "tone": "low"}
    assert asked["shapes"]["INPUT_TEXT"] == [2, 1]
    event = await market.settled_event()
    assert (event.outcome, event.units["characters"], event.units_source) == (Outcome.COMPLETED, "7", "counted")
    assert (event.raw_usage, event.language_pair) == ("", "hi-Deva>ur")
    assert event.bytes_in == len(json.dumps(HELLO, ensure_ascii=False).encode())


async def test_only_the_credential_and_the_trace_reach_the_models_server(market: Market, models: Models) -> None:
    add(market, models.url, NMT)
    trace = "a" * 32
    headers = (f"traceparent: 00-{trace}-{'b' * 16}-01", "X-Mine: secret", "Cookie: a=b", "X-Haat-Upstream: AAAA")
    response = await invoke(market, HELLO, "acme/model/invoke", *headers)
    assert response.status == 200, response.body
    [asked] = models.noted()
    metadata = asked["metadata"]
    assert (metadata["x-provider-key"], metadata["traceparent"][3:35]) == ("provider-secret", trace)
    assert metadata["x-request-id"] == response.header("x-request-id")
    assert not {"x-mine", "cookie", "authorization", "x-haat-upstream", "host"} & metadata.keys()


async def test_a_version_is_asked_by_its_number_and_typed_contents_are_read(market: Market, models: Models) -> None:
    add(market, models.url, structs.replace(NMT, model="typed"))
    response = await invoke(market, HELLO, "acme/model@2/invoke")
    assert response.json()["output"] == [{"text": "hi>ur:नमस्ते"}, {"text": "hi>ur:b"}]
    assert [(one["model"], one["version"]) for one in models.noted()] == [("typed", "3")]


async def test_waveforms_and_sounds_go_and_come(market: Market, models: Models) -> None:
    voice = TensorMap(
        model="voice",
        inputs={"audio": "SIGNAL"},
        outputs={"audio": "WAVE", "score": "SCORE"},
        datatypes={"SIGNAL": "FP32", "WAVE": "FP32", "SCORE": "FP32"},
    )
    add(market, models.url, voice, category="custom", unit="audio_seconds")
    items = [{"audio": {"content": encoded(sound(frames))}} for frames in (160, 80)]
    first, second = (await invoke(market, {"input": items})).json()["output"]
    assert (first["score"], second["score"]) == (0.5, 0.5)
    with wave.open(BytesIO(base64.b64decode(second["audio"]["content"]))) as file:
        assert file.readframes(160) == b"\x00\x10" * 80 + bytes(160)
    assert (await market.settled_event()).units["audio_seconds"] == "0.015"
    sounds = TensorMap(model="sounds", inputs={"audio": "AUDIO"}, outputs={"audio": "ECHO"})
    add(market, models.url, sounds, "sounds", category="custom", unit="audio_seconds")
    response = await invoke(market, {"input": items}, "acme/sounds/invoke")
    assert [one["audio"]["content"] for one in response.json()["output"]] == [one["audio"]["content"] for one in items]


async def test_it_is_called_at_the_protocols_door_too(market: Market, models: Models) -> None:
    add(market, models.url, NMT)
    tensors = [listed("INPUT_TEXT", "a"), listed("INPUT_LANGUAGE_ID", "hi"), listed("OUTPUT_LANGUAGE_ID", "ur")]
    response = await infer(market, {"inputs": tensors}, model="acme/model")
    assert response.json()["outputs"] == [listed("OUTPUT_TEXT", "hi>ur:a")]
    assert (await market.settled_event()).units["characters"] == "1"


@pytest.mark.parametrize(
    ("code", "status", "problem", "counts"),
    [
        ("INVALID_ARGUMENT", 400, "PROVIDER_REFUSED", False),
        ("FAILED_PRECONDITION", 400, "PROVIDER_REFUSED", False),
        ("OUT_OF_RANGE", 400, "PROVIDER_REFUSED", False),
        ("UNAUTHENTICATED", 401, "PROVIDER_REFUSED", False),
        ("PERMISSION_DENIED", 403, "PROVIDER_REFUSED", False),
        ("NOT_FOUND", 404, "PROVIDER_REFUSED", False),
        ("ALREADY_EXISTS", 409, "PROVIDER_REFUSED", False),
        ("ABORTED", 409, "PROVIDER_REFUSED", False),
        ("RESOURCE_EXHAUSTED", 429, "PROVIDER_REFUSED", False),
        ("UNKNOWN", 500, "PROVIDER_FAILED", False),
        ("INTERNAL", 500, "PROVIDER_FAILED", False),
        ("DATA_LOSS", 500, "PROVIDER_FAILED", False),
        ("UNIMPLEMENTED", 501, "PROVIDER_FAILED", False),
        ("CANCELLED", 502, "PROVIDER_FAILED", True),
        ("UNAVAILABLE", 503, "PROVIDER_FAILED", True),
        ("DEADLINE_EXCEEDED", 504, "PROVIDER_FAILED", True),
    ],
)
async def test_what_the_server_says_went_wrong_is_told_and_not_billed(
    market: Market, models: Models, code: str, status: int, problem: str, counts: bool
) -> None:
    add(market, models.url, MOODY)
    response = await say(market, f"fail {code} so it was")
    assert (response.status, response.header("content-type")) == (status, "application/problem+json")
    assert (response.json()["code"], response.json()["detail"]) == (problem, "so it was")
    event = await market.settled_event()
    assert (event.outcome, event.units) == (Outcome.PROVIDER_FAILED, {})
    assert market.gateway.routes.find(b"acme/model").endpoint.failures == counts


@pytest.mark.parametrize(
    ("tensors", "status", "says"),
    [
        (structs.replace(MOODY, model="nobody"), 404, "unknown model"),
        (structs.replace(MOODY, version="77"), 404, "unknown model"),
        (structs.replace(MOODY, rank=1), 400, "the model takes BYTES"),
        (structs.replace(MOODY, inputs={"text": "OTHER"}), 400, "unexpected inference input"),
        (structs.replace(MOODY, model="narrator"), 501, "decoupled"),
    ],
    ids=["model", "version", "shape", "tensor", "decoupled"],
)
async def test_a_mapping_that_is_wrong_is_the_servers_refusal(
    market: Market, models: Models, tensors: TensorMap, status: int, says: str
) -> None:
    add(market, models.url, tensors)
    response = await say(market, "hello")
    assert response.status == status and says in response.json()["detail"], response.body
    assert (await market.settled_event()).outcome == Outcome.PROVIDER_FAILED


@pytest.mark.parametrize("word", ["nothing", "datatype", "unknown", "shape", "breaks", "more", "less"])
async def test_an_answer_that_can_not_be_used_is_the_models_failure(market: Market, models: Models, word: str) -> None:
    add(market, models.url, structs.replace(MOODY, model="odd"))
    response = await say(market, word)
    assert (response.status, response.json()["code"]) == (502, "PROVIDER_FAILED"), response.body
    event = await market.settled_event()
    assert (event.outcome, event.units) == (Outcome.PROVIDER_FAILED, {})


async def test_what_the_server_reports_goes_before_what_is_counted(market: Market, models: Models) -> None:
    add(market, models.url, MOODY)
    response = await say(market, "usage characters=99")
    assert response.header("x-haat-units") == "characters=99"
    event = await market.settled_event()
    assert (event.units["characters"], event.units_source, event.raw_usage) == ("99", "upstream", "characters=99")


# --- time, and who leaves -----------------------------------------------------------------------


async def test_the_server_is_told_how_long_it_has(market: Market, models: Models) -> None:
    add(market, models.url, MOODY, timeout_ms=4000)
    left = float((await say(market, "left")).json()["output"][0]["text"])
    assert 2.0 < left <= 5.0


async def test_a_call_whose_time_is_over_is_cancelled_at_the_server(market: Market, models: Models) -> None:
    add(market, models.url, MOODY, timeout_ms=300)
    response = await say(market, "wait 30")
    assert (response.status, response.json()["code"]) == (504, "PROVIDER_TIMEOUT")
    event = await market.settled_event()
    assert (event.outcome, event.units) == (Outcome.PROVIDER_FAILED, {})
    await market.until(lambda: models.noted()[-1] == {"ended": "30"})


async def test_who_leaves_has_the_call_cancelled(market: Market, models: Models) -> None:
    add(market, models.url, MOODY)
    client = await market.connect()
    body = json.dumps({"input": [{"text": "wait 25"}]}).encode()
    await client.send(market.raw("POST", "/v1/services/acme/model/invoke", body, "Content-Type: application/json"))
    await market.until(lambda: bool(models.noted()))
    client.close()
    await market.until(lambda: models.noted()[-1] == {"ended": "25"})
    event = await market.settled_event()
    assert (event.outcome, event.units) == (Outcome.CLIENT_LEFT, {})


# --- servers that are not there, or elsewhere -----------------------------------------------------


async def test_a_server_that_is_not_there_opens_the_breaker(market: Market, models: Models, refused: int) -> None:
    add(market, f"grpc://127.0.0.1:{refused}", MOODY)
    for _ in range(5):
        response = await say(market, "a")
        assert response.status == 503 and "127.0.0.1" not in response.json()["detail"], response.body
    began = time.monotonic()
    response = await say(market, "a")
    assert (response.status, response.json()["code"]) == (503, "PROVIDER_UNAVAILABLE")
    assert response.header("retry-after") and time.monotonic() - began < 1
    assert all(event.outcome == Outcome.PROVIDER_FAILED and not event.units for event in market.events())


async def test_a_call_that_may_be_repeated_goes_to_the_other_endpoint(
    market: Market, models: Models, refused: int
) -> None:
    add(market, f"grpc://127.0.0.1:{refused}", MOODY, more=(models.url,))
    service = market.gateway.directory.services["acme/model"]
    repeatable = structs.replace(service, policy=ServicePolicy(repeatable=True))
    market.gateway.directory.put_service(service.id, repeatable)
    responses = [await say(market, f"a{number}") for number in range(4)]
    assert [one.json()["output"] for one in responses] == [[{"text": f"a{number}"}] for number in range(4)]
    assert [one.outcome for one in market.events()] == [Outcome.COMPLETED] * 4


async def test_a_server_that_dies_on_the_way_fails_the_call(market: Market, models: Models, tmp_path: Path) -> None:
    with grpc_rig.model_server(tmp_path / "other") as other:
        add(market, other.url, MOODY)
        response = await say(market, "die")
        assert response.status == 503, response.body
    assert (await market.settled_event()).outcome == Outcome.PROVIDER_FAILED


async def test_an_ejected_endpoint_returns_when_its_server_is_ready(
    market: Market, models: Models, refused: int
) -> None:
    elsewhere = f"grpc://127.0.0.1:{refused}"
    add(market, models.url, MOODY, more=(elsewhere,))
    service = market.gateway.directory.services["acme/model"]
    versions = tuple(structs.replace(one, health_path="/v2/health/ready") for one in service.versions)
    market.gateway.directory.put_service(service.id, structs.replace(service, versions=versions))
    there, nowhere = market.gateway.routes.find(b"acme/model").endpoints
    there.health.ejected_until = nowhere.health.ejected_until = 1
    market.gateway.endpoints.look(market.gateway.clock.now_us())
    await market.until(lambda: not there.health.ejected_until)
    assert nowhere.health.ejected_until


async def test_networks_that_nobody_opened_are_not_called(market: Market, models: Models) -> None:
    for slug, url in (("model", models.url), ("named", f"grpc://localhost:{models.port}")):
        add(market, url, MOODY, slug, networks=())
        response = await invoke(market, {"input": [{"text": "a"}]}, f"acme/{slug}/invoke")
        assert (response.status, response.json()["detail"]) == (
            503,
            "The address of the model's server may not be called.",
        )
    assert models.noted() == []


async def test_without_the_bridge_nobody_is_blamed(market: Market, shared_models: Models) -> None:
    add(market, shared_models.url, MOODY)
    response = await say(market, "a")
    assert (response.status, response.json()["code"]) == (503, "OVERLOADED")
    event = await market.settled_event()
    assert (event.outcome, event.units) == (Outcome.REFUSED, {})
    assert market.gateway.routes.find(b"acme/model").endpoint.failures == 0
    assert (await market.call(body=b"{}")).status == 200


async def test_what_is_too_large_is_told(market: Market, models: Models) -> None:
    add(market, models.url, MOODY, max_body_bytes=1 << 25)
    response = await say(market, "a" * (5 << 20))
    assert (response.status, response.json()["detail"]) == (413, "The request is larger than the model's server takes.")
    fits = await say(market, f"large {5 << 20}")
    assert (fits.status, len(fits.json()["output"][0]["text"])) == (200, 5 << 20)
    for size in (20 << 20, 65 << 20):
        response = await say(market, f"large {size}")
        assert response.status in (500, 502) and response.json()["code"] == "PROVIDER_FAILED"
    assert [event.outcome == Outcome.COMPLETED for event in market.events()] == [False, True, False, False]


async def test_tls_is_met_and_a_stranger_refused(market: Market, tmp_path: Path) -> None:
    ours, stranger = Authority(), Authority()
    home = tmp_path / "trusting"
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(ours.certificate.public_bytes(Encoding.PEM))
    with grpc_rig.bridge(home, SSL_CERT_FILE=str(trusted)):
        grpc_rig.lend(home, tmp_path)
        for number, (authority, status) in enumerate(((ours, 200), (stranger, 503))):
            certificate, key = tmp_path / f"{number}.pem", tmp_path / f"{number}.key"
            pair = authority.issue()
            certificate.write_bytes(pair[0])
            key.write_bytes(pair[1])
            with grpc_rig.model_server(tmp_path / str(number), certificate, key) as secured:
                add(market, f"grpcs://127.0.0.1:{secured.port}", MOODY, f"model-{number}")
                response = await invoke(market, {"input": [{"text": "a"}]}, f"acme/model-{number}/invoke")
                assert response.status == status, response.body
