"""Models behind the Open Inference Protocol: asked in tensors, sold as any task service."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import wave
from io import BytesIO
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.doors.inference_calls import encoded, infer, listed, sound, texts, triton
from gateway.doors.v2_model import Model, Values, translator
from gateway.rig import Market, Response, answer
from haat.gateway.market.policy import CachePolicy, ServicePolicy, VersionPolicy
from haat.infra.inference.mapping import TensorMap
from haat.usage.event import Outcome

NMT = TensorMap(
    model="nmt",
    inputs={"text": "INPUT_TEXT", "source": "INPUT_LANGUAGE_ID", "target": "OUTPUT_LANGUAGE_ID"},
    outputs={"text": "OUTPUT_TEXT"},
)
HELLO = {"input": [{"text": "नमस्ते"}, {"text": "b"}], "config": {"source": "hi-Deva", "target": "ur"}}


def add(market: Market, tensors: TensorMap | None, slug: str = "model", cache: bool = False, **options: Any) -> None:
    """List a model; its second version is asked by its number."""
    options = {"category": "translation", "unit": "characters", **options}
    market.add_service(slug, dialect="inference", **options)
    service = market.gateway.directory.services[f"acme/{slug}"]
    versions = tuple(
        msgspec.structs.replace(one, policy=VersionPolicy(tensors=tensors), endpoint=service.versions[0].endpoint)
        for one in service.versions
    )
    policy = ServicePolicy(cache=CachePolicy(items=True)) if cache else service.policy
    market.gateway.directory.put_service(service.id, msgspec.structs.replace(service, versions=versions, policy=policy))


async def invoke(market: Market, task: Any, path: str = "acme/model/invoke", *headers: str) -> Response:
    body = task if isinstance(task, bytes) else json.dumps(task, ensure_ascii=False, separators=(",", ":")).encode()
    return await market.call("POST", f"/v1/services/{path}", body, "Content-Type: application/json", *headers)


@pytest.fixture
def model(market: Market) -> Model:
    made = translator()
    add(market, NMT)
    market.provider.behaviour = made.behave
    return made


async def test_a_task_is_asked_in_tensors_and_counted_here(market: Market, model: Model) -> None:
    response = await invoke(market, HELLO)
    assert response.status == 200, response.body
    assert response.json() == {"output": [{"text": "hi>ur:नमस्ते"}, {"text": "hi>ur:b"}], "usage": {"characters": 7}}
    assert response.header("content-type") == "application/json"
    assert response.header("x-haat-units") == "characters=7"
    assert response.header("inference-header-content-length") is None
    [request] = market.provider.requests
    assert (request.method, request.target) == ("POST", "/base/v2/models/nmt/infer")
    assert request.header("x-provider-key") == ["provider-secret"]
    event = await market.settled_event()
    assert (event.outcome, event.units["characters"], event.units_source) == (Outcome.COMPLETED, "7", "counted")
    assert (event.raw_usage, event.language_pair) == ("", "hi-Deva>ur")
    assert event.bytes_in == len(json.dumps(HELLO, ensure_ascii=False, separators=(",", ":")).encode())


async def test_what_the_endpoint_reports_goes_before_what_is_counted(market: Market, model: Model) -> None:
    body = json.dumps({"outputs": [listed("OUTPUT_TEXT", "x", "y")]}).encode()
    market.provider.behaviour = answer(200, body, "X-Haat-Usage: characters=99")
    assert (await invoke(market, HELLO)).header("x-haat-units") == "characters=99"
    event = await market.settled_event()
    assert (event.units["characters"], event.units_source, event.raw_usage) == ("99", "upstream", "characters=99")


async def test_what_is_known_already_was_counted_here_too(market: Market) -> None:
    add(market, NMT, cache=True)
    market.provider.behaviour = translator().behave
    for _ in range(2):
        assert (await invoke(market, HELLO)).header("x-haat-units") == "characters=7"
    await market.until(lambda: len(market.confirmed()) == 2)
    first, known = market.events()
    assert (first.cache, known.cache) == ("miss", "hit")
    assert (known.units, known.units_source, known.raw_usage) == (first.units, "counted", "")


async def test_languages_defaults_parameters_and_a_version_are_as_the_mapping_says(market: Market) -> None:
    made = translator()
    told: list[dict[str, Any]] = []
    compute = made.compute

    def listening(values: Values, parameters: dict[str, Any]) -> Any:
        told.append(parameters)
        return compute(values, parameters)

    made.compute = listening
    languages = {"ur-Arab": "urd_Arab"}
    mapping = msgspec.structs.replace(
        NMT, version="3", languages=languages, defaults={"source": "hi-Latn"}, parameters={"beam": 4}
    )
    add(market, mapping)
    market.provider.behaviour = made.behave
    response = await invoke(market, {"input": [{"text": "a"}], "config": {"target": "ur"}})
    assert response.json()["output"] == [{"text": "hi-Latn>urd_Arab:a"}]
    assert told == [{"beam": 4}]
    assert market.provider.requests[0].target == "/base/v2/models/nmt/versions/3/infer"


@pytest.mark.parametrize(
    ("task", "code", "field"),
    [
        (b"{", "MALFORMED_JSON", ""),
        ([], "VALIDATION_FAILED", ""),
        ({"input": []}, "VALIDATION_FAILED", "input"),
        ({**HELLO, "more": 1}, "VALIDATION_FAILED", "more"),
        ({**HELLO, "config": 5}, "VALIDATION_FAILED", "config"),
        ({"input": ["a"]}, "VALIDATION_FAILED", "input[0]"),
        ({"input": [{"text": " "}]}, "VALIDATION_FAILED", "input[0].text"),
        ({"input": [{"text": "a", "audio": {}}]}, "VALIDATION_FAILED", "input[0].audio"),
        ({"input": [{"text": "a"}], "config": {"source": "hi"}}, "VALIDATION_FAILED", "config.target"),
        ({"input": [{"text": "a"}], "config": {"source": 5, "target": "ur"}}, "VALIDATION_FAILED", "config.source"),
        ({**HELLO, "config": {"source": "hi", "target": "ur", "tone": "x"}}, "VALIDATION_FAILED", "config.tone"),
    ],
    ids=str,
)
async def test_a_task_that_is_wrong_is_refused_as_any_other(
    market: Market, model: Model, task: Any, code: str, field: str
) -> None:
    response = await invoke(market, task)
    problem = response.json()
    assert (response.status in (400, 422), problem["code"]) == (True, code)
    assert not field or problem["errors"][0]["field"] == field
    event = await market.settled_event()
    assert (event.outcome, event.error_code, event.units) == (Outcome.REFUSED, code, {})
    assert market.provider.requests == []


async def test_it_is_called_at_one_address_with_one_method(market: Market, model: Model) -> None:
    assert (await invoke(market, HELLO, "acme/model/v2/models/other/infer")).status == 404
    assert (await market.call("GET", "/v1/services/acme/model/invoke")).status == 405
    add(market, None, "bare")
    assert (await invoke(market, HELLO, "acme/bare/invoke")).status == 400
    assert market.provider.requests == []


def outputs(*entries: Any) -> bytes:
    return answer(200, json.dumps({"outputs": [*entries]}).encode())


@pytest.mark.parametrize(
    ("behaviour", "status", "says"),
    [
        (answer(400, b'{"error":"unexpected shape"}'), 400, "unexpected shape"),
        (answer(404, b"nothing"), 404, "no reason"),
        (answer(500, b'{"error":"out of memory"}'), 500, "out of memory"),
        (answer(200, b"no json"), 502, "JSON"),
        (answer(200, b"[]"), 502, "body"),
        (answer(200, b"{}"), 502, "outputs"),
        (outputs(listed("OTHER", "a", "b")), 502, "OUTPUT_TEXT"),
        (outputs(listed("OUTPUT_TEXT", 1.5, 2.5, datatype="FP32")), 502, "FP32"),
        (outputs(listed("OUTPUT_TEXT", "a")), 502, "OUTPUT_TEXT"),
        (outputs(listed("OUTPUT_TEXT", *"abcd", shape=[2, 2])), 502, "2 values"),
        (outputs(listed("OUTPUT_TEXT", *"abc")), 502, "shape"),
        (answer(200, b"{}", "Inference-Header-Content-Length: 9"), 502, "Inference-Header"),
        (answer(200, b'{"outputs":[]}', "Content-Encoding: br"), 502, "coding"),
        (answer(200, b"data: x\n\n").replace(b"application/json", b"text/event-stream"), 502, "stream"),
        (b"HTTP/1.1 200 X\r\nContent-Length: 99999999\r\n\r\n{}", 502, "too large"),
    ],
    ids=lambda value: value.decode("latin-1")[-60:] if isinstance(value, bytes) else str(value),
)
async def test_what_the_model_says_went_wrong_is_told_and_not_billed(
    market: Market, model: Model, behaviour: bytes, status: int, says: str
) -> None:
    market.provider.behaviour = behaviour
    response = await invoke(market, HELLO)
    problem = response.json()
    assert (response.status, response.header("content-type")) == (status, "application/problem+json")
    assert says in problem["detail"] and problem["code"] in ("PROVIDER_FAILED", "PROVIDER_REFUSED")
    event = await market.settled_event()
    assert (event.outcome, event.units) == (Outcome.PROVIDER_FAILED, {})


async def test_whatever_the_model_sends_is_an_answer_or_its_failure(market: Market, model: Model) -> None:
    good = json.dumps({"outputs": [listed("OUTPUT_TEXT", "a", "b")]}).encode()

    @given(
        st.one_of(
            st.binary(max_size=60),
            st.tuples(st.integers(0, len(good) - 1), st.binary(max_size=3)).map(
                lambda change: good[: change[0]] + change[1] + good[change[0] + 1 :]
            ),
        ),
        st.none() | st.integers(0, 80),
    )
    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    def never_ours(body: bytes, size: int | None) -> None:
        headers = () if size is None else (f"Inference-Header-Content-Length: {size}",)
        market.provider.behaviour = answer(200, body, *headers)
        response = asyncio.run_coroutine_threadsafe(invoke(market, HELLO), loop).result(10)
        assert response.status in (200, 502), response.body
        if response.status == 200:
            assert len(response.json()["output"]) == 2

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(never_ours)


# --- sounds, images, numbers --------------------------------------------------------------------


async def test_sound_goes_in_binary_and_is_counted_in_seconds(market: Market) -> None:
    def compute(values: Values, parameters: dict[str, Any]) -> Any:
        return {"TRANSCRIPT": ([1, 1], [str(len(values["AUDIO"][0])).encode()])}

    made = Model(
        "asr",
        {"AUDIO": ("BYTES", [-1, 1]), "LANG": ("BYTES", [-1, 1])},
        {"TRANSCRIPT": ("BYTES", [-1, 1])},
        compute,
    )
    mapping = TensorMap(model="asr", inputs={"audio": "AUDIO", "language": "LANG"}, outputs={"text": "TRANSCRIPT"})
    add(market, mapping, category="speech_to_text", unit="audio_seconds")
    market.provider.behaviour = made.behave
    wav = sound(24_000)
    task = {"input": [{"audio": {"content": encoded(wav), "format": "wav"}}], "config": {"language": "hi"}}
    response = await invoke(market, task)
    assert response.json() == {"output": [{"text": str(len(wav))}], "usage": {"audio_seconds": 1.5}}
    assert made.seen == [{"AUDIO": [wav], "LANG": [b"hi"]}]
    assert (await market.settled_event()).units["audio_seconds"] == "1.5"
    refused = await invoke(market, {**task, "input": [{"audio": {"content": encoded(b"RIFFnothing")}}]})
    assert (refused.status, refused.json()["errors"][0]["field"]) == (422, "input[0].audio")


async def test_waveforms_are_filled_up_and_come_back_as_sound(market: Market) -> None:
    def compute(values: Values, parameters: dict[str, Any]) -> Any:
        width = len(values["SIGNAL"]) // 2
        return {"WAVE": ([2, width], values["SIGNAL"]), "SCORE": ([2, 1], [0.5, 0.25])}

    made = Model(
        "voice",
        {"SIGNAL": ("FP32", [-1, -1]), "NUM_SAMPLES": ("INT32", [-1, 1])},
        {"WAVE": ("FP32", [-1, -1]), "SCORE": ("FP32", [-1, 1])},
        compute,
    )
    mapping = TensorMap(
        model="voice",
        inputs={"audio": "SIGNAL", "samples": "NUM_SAMPLES"},
        outputs={"audio": "WAVE", "score": "SCORE"},
        datatypes={"SIGNAL": "FP32", "WAVE": "FP32", "SCORE": "FP32"},
    )
    add(market, mapping, category="custom", unit="audio_seconds")
    market.provider.behaviour = made.behave
    items = [{"audio": {"content": encoded(sound(frames))}} for frames in (100, 60)]
    response = await invoke(market, {"input": items})
    assert response.status == 200, response.body
    first, second = response.json()["output"]
    assert (first["score"], second["score"]) == (0.5, 0.25)
    assert made.seen[0]["NUM_SAMPLES"] == [100, 60]
    with wave.open(BytesIO(base64.b64decode(second["audio"]["content"]))) as file:
        frames = file.readframes(100)
    assert frames == b"\x00\x10" * 60 + bytes(80)
    assert (await market.settled_event()).units["audio_seconds"] == "0.01"


async def test_images_may_go_as_base64_and_vectors_come_back_as_lists(market: Market) -> None:
    def compute(values: Values, parameters: dict[str, Any]) -> Any:
        assert values["IMAGE"] == [encoded(b"png").encode()]
        return {"EMBEDDING": ([1, 3], [1.0, 2.0, 0.5]), "LABEL": ([1], [b'{"kind":"cat"}'])}

    made = Model("clip", {"IMAGE": ("BYTES", [1])}, {"EMBEDDING": ("FP32", [1, 3]), "LABEL": ("BYTES", [1])}, compute)
    mapping = TensorMap(
        model="clip",
        inputs={"image": "IMAGE"},
        outputs={"embedding": "EMBEDDING", "*": "LABEL"},
        datatypes={"EMBEDDING": "FP32"},
        rank=1,
        most_items=1,
        base64=True,
    )
    add(market, mapping, category="embedding", unit="images")
    market.provider.behaviour = made.behave
    task = {"input": [{"image": {"content": encoded(b"png"), "format": "png"}}]}
    response = await invoke(market, task)
    assert response.json() == {"output": [{"embedding": [1.0, 2.0, 0.5], "kind": "cat"}], "usage": {"images": 1}}
    assert (await invoke(market, {"input": task["input"] * 2})).status == 422


async def test_numbers_that_are_none_are_the_models_failure(market: Market) -> None:
    mapping = TensorMap(model="m", inputs={"text": "T"}, outputs={"score": "S"}, datatypes={"S": "FP32"})
    add(market, mapping)
    head = b'{"outputs":[{"name":"S","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}'
    body = head + struct.pack("<f", float("nan"))
    market.provider.behaviour = answer(200, body, f"Inference-Header-Content-Length: {len(head)}")
    response = await invoke(market, {"input": [{"text": "a"}]})
    assert (response.status, "S: " in response.json()["detail"]) == (502, True)


# --- with what else the gateway does ------------------------------------------------------------


async def test_known_items_are_not_asked_for_again_and_cost_as_much_as_counted(market: Market) -> None:
    made = translator()
    add(market, NMT, cache=True)
    market.provider.behaviour = made.behave
    first = await invoke(market, HELLO)
    task = {**HELLO, "input": [*HELLO["input"], {"text": "ccc"}]}
    partly = await invoke(market, task)
    again = await invoke(market, task)
    assert [one.header("x-cache") for one in (first, partly, again)] == ["MISS", "PARTIAL", "HIT"]
    assert [values["INPUT_TEXT"] for values in made.seen] == [["नमस्ते".encode(), b"b"], [b"ccc"]]
    assert again.json()["output"] == partly.json()["output"]
    await market.until(lambda: len(market.confirmed()) == 3)
    assert [event.units["characters"] for event in market.events()] == ["7", "10", "10"]
    assert [event.cached_units for event in market.events()] == [{}, {"characters": "7"}, {"characters": "10"}]


async def test_a_door_before_a_model_translates_twice(market: Market, model: Model) -> None:
    inputs = [
        texts("INPUT_TEXT", "a", "b", shape=[1, 2]),
        texts("INPUT_LANGUAGE_ID", "hi"),
        texts("OUTPUT_LANGUAGE_ID", "ur"),
    ]
    [found] = await triton(market, {"do": "infer", "model": "acme/model", "inputs": inputs})
    output = found["outputs"]["OUTPUT_TEXT"]
    assert output["shape"] == [1, 2]
    assert [base64.b64decode(value) for value in output["data"]] == [b"hi>ur:a", b"hi>ur:b"]
    assert (await market.settled_event()).units["characters"] == "2"
    market.provider.behaviour = answer(400, b'{"error":"unexpected shape"}')
    tensors = [listed("INPUT_TEXT", "a"), listed("INPUT_LANGUAGE_ID", "hi"), listed("OUTPUT_LANGUAGE_ID", "ur")]
    refused = await infer(market, {"inputs": tensors}, model="acme/model")
    assert (refused.status, refused.json()["error"]) == (400, "unexpected shape")


async def test_a_model_can_be_a_stage(market: Market, model: Model) -> None:
    stages = [{"service": "acme/model", "config": {"source": "hi", "target": language}} for language in ("ur", "ta")]
    body = json.dumps({"stages": stages, "input": [{"text": "a"}]}).encode()
    response = await market.call("POST", "/v1/pipelines", body, "Content-Type: application/json")
    assert response.json()["output"] == [{"text": "hi>ta:hi>ur:a"}]


async def test_what_is_counted_is_capped_as_what_is_reported(market: Market) -> None:
    add(market, NMT, max_units="4")
    market.provider.behaviour = translator().behave
    assert (await invoke(market, HELLO)).header("x-haat-units") == "characters=4"


async def test_each_model_has_its_own_tensors_so_none_stands_in_for_another(market: Market) -> None:
    for slug in ("model", "other"):
        add(market, NMT, slug)
        service = market.gateway.directory.services[f"acme/{slug}"]
        alike = msgspec.structs.replace(service, policy=ServicePolicy(capability="translate"))
        market.gateway.directory.put_service(service.id, alike)
    route = market.gateway.routes.find(b"acme/model")
    assert market.gateway.routes.of_capability(route) == []
