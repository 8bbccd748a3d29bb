"""The Open Inference Protocol at the door, held against its own client and against its shapes."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.bills import PRICE, billed
from gateway.doors.inference_calls import ask, encoded, infer, listed, plain, sound, texts, triton
from gateway.rig import Market, Request, answer
from haat.gateway.limits.registry import PlanLimits
from haat.models.task import parse_call
from haat.plugins.manager import hosted_services
from haat.usage.event import Outcome

VECTORS = [[0.25, -1.5], [3.0, 0.0]]


async def tasks(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """A provider of task services that tells by its address what it does."""
    asked = json.loads(request.body)
    items = asked["input"]
    what = request.target.split("/")[1]
    output: list[dict[str, Any]] = []
    for number, item in enumerate(items):
        if what == "embed":
            output.append({"embedding": VECTORS[number % 2]})
        elif what == "hear":
            output.append({"text": f"{len(base64.b64decode(item['audio']['content']))} {item['audio']['format']}"})
        elif what == "speak":
            output.append({"audio": {"content": encoded(sound()), "format": "wav"}})
        elif what == "read":
            output.append({"text": item["image"]["format"], "lines": []})
        elif what == "judge":
            output.append({"label": "positive", "score": 0.5, "config": asked.get("config")})
        else:
            output.append({"text": item["text"].upper()})
    body = json.dumps({"output": output, "usage": {"characters": 3}}).encode()
    writer.write(answer(200, body, "X-Haat-Usage: characters=3"))
    await writer.drain()
    return True


@pytest.fixture
def models(market: Market) -> Market:
    for slug, category, options in (
        ("translate", "translation", {"language_pairs": ("hi-Deva>ur-Arab", "hi-Deva>en-Latn")}),
        ("embed", "embedding", {"aliases": ("all-minilm",)}),
        ("hear", "speech_to_text", {"languages": ("en-Latn", "hi-Deva")}),
        ("speak", "text_to_speech", {"languages": ("en-Latn",)}),
        ("read", "ocr", {}),
        ("judge", "nlp", {}),
    ):
        market.add_service(
            slug, dialect="task", category=category, unit="characters", price=PRICE, base=f"/{slug}", **options
        )
    market.provider.behaviour = tasks
    return market


# --- with the protocol's own client -------------------------------------------------------------


def done(slug: str) -> tuple[Any, ...]:
    """Return what a call comes to, as `billed` has it."""
    return slug, "completed", {"characters": "3"}, "0.375"


@pytest.mark.speaks(
    "inference server metadata",
    "inference health live",
    "inference health ready",
    "inference models",
    "inference repository index",
    "inference elsewhere",
    client="tritonclient.http (PyPI)",
)
async def test_who_is_here_what_is_ready_and_which_tensors_it_takes(models: Market) -> None:
    models.add_service("foreign", dialect="task", subscribed=None)
    live, ready, server, one, two, missing, foreign, card, versioned, index, elsewhere = await triton(
        models,
        ask("is_server_live", key=False),
        ask("is_server_ready", key=False),
        ask("get_server_metadata", key=False),
        ask("is_model_ready", model_name="acme/translate"),
        ask("is_model_ready", model_name="translation:hi-ur", model_version="2"),
        ask("is_model_ready", model_name="acme/none"),
        ask("get_model_metadata", model_name="acme/foreign"),
        ask("get_model_metadata", model_name="all-minilm"),
        ask("get_model_metadata", model_name="acme/translate", model_version="7"),
        ask("get_model_repository_index"),
        ask("get_model_config", model_name="acme/translate"),
    )
    assert (live, ready, one, two, missing) == (True, True, True, True, False)
    assert (server["name"], server["extensions"]) == ("haat", ["binary_tensor_data"])
    assert foreign["status"] == "403" and "acme/foreign" in foreign["error"]
    assert card == {
        "name": "all-minilm",
        "versions": ["1", "2"],
        "platform": "haat_task",
        "inputs": [{"name": "INPUT_TEXT", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "EMBEDDING", "datatype": "FP32", "shape": [-1, -1]}],
    }
    assert versioned["status"] == "404" and "version" in versioned["error"]
    assert [one["name"] for one in index][:3] == ["acme/echo", "acme/embed", "all-minilm"]
    assert elsewhere["status"] == "404"
    assert await billed(models) == [("", "refused", {}, "0")] * 4


@pytest.mark.speaks("inference infer", client="tritonclient.http (PyPI)")
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
async def test_translation_takes_the_tensors_that_its_containers_have(models: Market, binary: bool) -> None:
    inputs = [
        texts("INPUT_TEXT", "a", "b", shape=[2, 1], binary=binary),
        texts("INPUT_LANGUAGE_ID", "hi", "hi", shape=[2, 1], binary=binary),
        texts("OUTPUT_LANGUAGE_ID", "ur", shape=[1, 1], binary=binary),
    ]
    outputs = None if binary else [{"name": "OUTPUT_TEXT", "binary_data": False}]
    call = {"do": "infer", "inputs": inputs, "outputs": outputs, "request_id": "mine"}
    [named, versioned] = await triton(
        models, {**call, "model": "acme/translate"}, {**call, "model": "translation:hi-ur", "model_version": "2"}
    )
    assert (named["model_name"], named["model_version"], named["id"]) == ("acme/translate", "1", "mine")
    assert named["outputs"]["OUTPUT_TEXT"]["shape"] == [2, 1]
    assert named["outputs"]["OUTPUT_TEXT"]["binary"] is binary
    assert plain(named, "OUTPUT_TEXT") == ["A", "B"]
    assert (versioned["model_name"], versioned["model_version"]) == ("translation:hi-ur", "2")
    first, second = models.provider.requests
    assert json.loads(first.body) == {
        "input": [{"text": "a"}, {"text": "b"}],
        "config": {"source": "hi", "target": "ur"},
    }
    assert (first.target, second.target) == ("/translate/invoke", "/two/invoke")
    assert first.header("inference-header-content-length") == []
    assert await billed(models) == [done("translate")] * 2


@pytest.mark.speaks("inference infer", client="tritonclient.http (PyPI)")
async def test_embeddings_sounds_images_and_findings(models: Market) -> None:
    wav, png = sound(), b"\x89PNG\r\n\x1a\n rest"
    audio = {"name": "AUDIO", "shape": [1], "data": [encoded(wav)]}
    listed = {"name": "AUDIO", "shape": [1], "data": [encoded(wav)], "binary": False}
    image = {"name": "IMAGE", "shape": [1, 1], "data": [encoded(png)]}
    vectors, heard, again, spoken, read, judged = await triton(
        models,
        {"do": "infer", "model": "all-minilm", "inputs": [texts("INPUT_TEXT", "a", "b")]},
        {"do": "infer", "model": "acme/hear", "inputs": [audio, texts("LANGUAGE_ID", "en")]},
        {"do": "infer", "model": "acme/hear", "inputs": [listed, texts("LANGUAGE_ID", "en")]},
        {"do": "infer", "model": "acme/speak", "inputs": [texts("INPUT_TEXT", "hello")]},
        {"do": "infer", "model": "acme/read", "inputs": [image]},
        {"do": "infer", "model": "acme/judge", "inputs": [texts("INPUT_TEXT", "x")], "parameters": {"method": "edit"}},
    )
    assert vectors["outputs"]["EMBEDDING"] == {"shape": [2, 2], "data": [0.25, -1.5, 3.0, 0.0], "binary": True}
    assert plain(heard, "TRANSCRIPT") == plain(again, "TRANSCRIPT") == [f"{len(wav)} wav"]
    assert spoken["outputs"]["AUDIO"]["data"] == [encoded(sound())]
    assert plain(read, "OUTPUT_TEXT") == ["png"]
    assert json.loads(plain(judged, "OUTPUT")[0]) == {"label": "positive", "score": 0.5, "config": {"method": "edit"}}
    assert await billed(models) == list(map(done, ("embed", "hear", "hear", "speak", "read", "judge")))


@pytest.mark.speaks("inference infer", client="tritonclient.http (PyPI)")
async def test_a_request_may_be_compressed(models: Market) -> None:
    call = {"do": "infer", "model": "acme/judge", "inputs": [texts("INPUT_TEXT", "a")]}
    for kind in ("gzip", "deflate"):
        [found] = await triton(models, {**call, "request_compression_algorithm": kind})
        assert json.loads(plain(found, "OUTPUT")[0])["label"] == "positive"
    broken = await infer(models, b"\x1f\x8bnothing", "Content-Encoding: gzip")
    assert (broken.status, broken.json()["error"]) == (400, "body: the body is not gzip.")
    assert await billed(models) == [done("judge"), done("judge"), ("", "refused", {}, "0")]


@pytest.mark.speaks("inference infer", client="tritonclient.http (PyPI)")
async def test_a_refusal_is_one_that_the_client_reads(models: Market) -> None:
    models.subscribe("acme/embed", PlanLimits(per_minute=1))
    call = {"do": "infer", "model": "acme/embed", "inputs": [texts("INPUT_TEXT", "a")]}
    wrong = {"do": "infer", "model": "acme/embed", "inputs": [texts("INPUT", "a")]}
    first, limited, unknown = await triton(models, call, call, wrong)
    assert "error" not in first
    assert limited["status"] == "429"
    assert unknown["status"] == "400" and unknown["error"].startswith("INPUT: ")
    [stranger] = await triton(models, call, key="nobody")
    assert stranger["status"] == "401"
    assert await billed(models) == [done("embed"), ("embed", "refused", {}, "0"), ("", "refused", {}, "0")]


@pytest.mark.speaks("inference infer", client="tritonclient.http (PyPI)")
async def test_the_built_in_services_are_models(market: Market) -> None:
    services = hosted_services()

    async def run(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        service = services[request.target.strip("/").removesuffix("/invoke")]
        output, _ = service.invoke(*parse_call(service, request.body))
        writer.write(answer(200, json.dumps({"output": output}).encode()))
        await writer.drain()
        return True

    market.provider.behaviour = run
    for path in ("akshara/transliterate", "akshara/sentiment", "akshara/text-similarity"):
        one = services[path]
        market.add_service(
            one.slug,
            dialect="task",
            category=one.category,
            price=PRICE,
            base=f"/{path}",
            languages=one.languages,
            language_pairs=one.language_pairs,
        )
    text = texts("INPUT_TEXT", "नमस्ते दुनिया")
    pair = [texts("INPUT_LANGUAGE_ID", "hi"), texts("OUTPUT_LANGUAGE_ID", "te")]
    english, other = texts("INPUT_TEXT", "lovely"), texts("OTHER_TEXT", "lovely")
    written, judged, compared, unknown = await triton(
        market,
        {"do": "infer", "model": "acme/transliterate", "inputs": [text, *pair]},
        {"do": "infer", "model": "acme/sentiment", "inputs": [english, texts("LANGUAGE_ID", "en")]},
        {
            "do": "infer",
            "model": "acme/text-similarity",
            "inputs": [english, other],
            "parameters": {"method": "edit"},
        },
        {"do": "infer", "model": "acme/sentiment", "inputs": [other]},
    )
    assert plain(written, "OUTPUT_TEXT") == ["నమస్తే దునియా"]
    assert json.loads(plain(judged, "OUTPUT")[0])["label"] == "positive"
    assert json.loads(plain(compared, "OUTPUT")[0]) == {"score": 1.0, "method": "edit"}
    assert unknown["error"].startswith("INPUT_TEXT: is missing")
    assert await billed(market) == [
        ("transliterate", "completed", {}, PRICE),
        ("sentiment", "completed", {}, PRICE),
        ("text-similarity", "completed", {}, PRICE),
        ("", "refused", {}, "0"),
    ]


async def test_nothing_recognised_is_an_empty_text(models: Market) -> None:
    models.provider.behaviour = answer(200, b'{"output":[{"command":null,"matched":false}]}')
    inputs = [listed("AUDIO", encoded(sound())), listed("LANGUAGE_ID", "en")]
    response = await infer(models, {"inputs": inputs}, model="acme/hear")
    assert response.json()["outputs"][0]["data"] == [""]


# --- with raw requests --------------------------------------------------------------------------


@pytest.mark.speaks("inference infer")
async def test_json_in_and_out(models: Market) -> None:
    body = {"id": "1", "inputs": [listed("INPUT_TEXT", ["hi"], shape=[1, 1])]}
    response = await infer(models, body, model="acme%2Fjudge")
    assert response.status == 200, response.body
    found = response.json()
    [output] = found.pop("outputs")
    assert found == {"model_name": "acme/judge", "model_version": "1", "id": "1"}
    assert (output["name"], output["shape"], output["datatype"]) == ("OUTPUT", [1, 1], "BYTES")
    assert json.loads(output["data"][0])["label"] == "positive"
    assert response.header("content-type") == "application/json"


async def test_sound_in_json_is_base64_and_says_so(models: Market) -> None:
    response = await infer(models, {"inputs": [listed("INPUT_TEXT", "a")]}, model="acme/speak")
    [output] = response.json()["outputs"]
    assert (output["parameters"], output["data"]) == ({"content_type": "base64"}, [encoded(sound())])


@pytest.mark.parametrize("shape", [[2], [2, 1], [1, 2]], ids=str)
async def test_items_come_in_any_of_three_shapes_and_leave_in_the_same(models: Market, shape: list[int]) -> None:
    body = {"inputs": [listed("INPUT_TEXT", "a", "b", shape=shape)]}
    response = await infer(models, body, model="acme/judge")
    assert response.json()["outputs"][0]["shape"] == shape
    assert (await infer(models, body)).json()["outputs"][0]["shape"] == [2, 2]


def vars_of(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__ if name not in ("id", "at", "timings_us")}


async def test_neither_record_nor_limits_tell_the_doors_apart(models: Market) -> None:
    task = {"input": [{"text": "a"}], "config": {"source": "hi", "target": "ur"}}
    native = json.dumps(task, separators=(",", ":")).encode()
    await models.call("POST", "/v1/services/acme/translate/invoke", native, "Content-Type: application/json")
    tensors = [listed("INPUT_TEXT", "a"), listed("INPUT_LANGUAGE_ID", "hi"), listed("OUTPUT_LANGUAGE_ID", "ur")]
    assert (await infer(models, {"inputs": tensors}, model="acme/translate")).status == 200
    await models.until(lambda: len(models.confirmed()) == 2)
    one, other = (vars_of(event) for event in models.events())
    assert one == other
    assert one["language_pair"] == "hi>ur" and one["units"]["characters"] == "3"


TEXT = listed("INPUT_TEXT", "a")
SIZED = {"name": "INPUT_TEXT", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"{", "JSON"),
        (b"\xff", "JSON"),
        (b"[" * 3000, "JSON"),
        ([], "body"),
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [5]}, "inputs[0]"),
        ({"inputs": [TEXT, TEXT]}, "INPUT_TEXT"),
        ({"inputs": [TEXT], "id": 5}, "id"),
        ({"inputs": [TEXT], "parameters": []}, "parameters"),
        ({"inputs": [TEXT], "parameters": {"sequence_id": 7}}, "parameters.sequence_id"),
        ({"inputs": [TEXT], "parameters": {"binary_data_output": "yes"}}, "parameters"),
        ({"inputs": [TEXT], "outputs": [{"name": "OTHER"}]}, "OTHER"),
        ({"inputs": [TEXT], "outputs": {}}, "outputs"),
        ({"inputs": [TEXT], "outputs": [5]}, "outputs[0]"),
        ({"inputs": [TEXT], "outputs": [{"name": "EMBEDDING", "parameters": {"classification": 3}}]}, "EMBEDDING"),
        ({"inputs": [listed("OTHER", "a")]}, "OTHER"),
        ({"inputs": [TEXT, listed("LANGUAGE_ID", "hi")]}, "LANGUAGE_ID"),
        ({"inputs": [listed("INPUT_TEXT", 1.5, datatype="FP32")]}, "INPUT_TEXT"),
        ({"inputs": [listed("INPUT_TEXT", "a", datatype="TEXT")]}, "INPUT_TEXT"),
        ({"inputs": [listed("INPUT_TEXT", 5)]}, "INPUT_TEXT"),
        ({"inputs": [listed("INPUT_TEXT", "a", shape=[2])]}, "INPUT_TEXT"),
        ({"inputs": [listed("INPUT_TEXT", "a", shape=[-1])]}, "INPUT_TEXT"),
        ({"inputs": [listed("INPUT_TEXT", "a", shape=[True])]}, "INPUT_TEXT"),
        ({"inputs": [listed("INPUT_TEXT", "a", shape="1")]}, "INPUT_TEXT"),
        ({"inputs": [listed("INPUT_TEXT", *"abcd", shape=[2, 2])]}, "INPUT_TEXT"),
        ({"inputs": [listed("INPUT_TEXT", "a", shape=[1, 1, 1])]}, "INPUT_TEXT"),
        ({"inputs": [listed("INPUT_TEXT", shape=[0])]}, "INPUT_TEXT"),
        ({"inputs": [listed("INPUT_TEXT", *["a"] * 1001)]}, "INPUT_TEXT"),
        ({"inputs": [listed("INPUT_TEXT", "a", "b", shape=[1])]}, "INPUT_TEXT"),
        ({"inputs": [listed("INPUT_TEXT", [[[[[[[[[["a"]]]]]]]]]], shape=[1])]}, "INPUT_TEXT"),
        ({"inputs": [SIZED]}, "INPUT_TEXT"),
        ({"inputs": [{**SIZED, "data": ["a"]}]}, "INPUT_TEXT"),
        ({"inputs": [{**TEXT, "parameters": {"shared_memory_region": "x"}}]}, "INPUT_TEXT"),
        ({"inputs": [{**TEXT, "parameters": 5}]}, "INPUT_TEXT"),
        ({"inputs": [{"name": "INPUT_TEXT", "shape": [1], "datatype": "BYTES"}]}, "INPUT_TEXT"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_is_wrong_is_named_and_recorded(models: Market, body: Any, names: str) -> None:
    response = await infer(models, body)
    assert response.status == 400, response.body
    said = response.json()
    assert names in said["error"] and said["code"] in ("INVALID_REQUEST", "MALFORMED_JSON")
    assert said["request_id"] == response.header("x-request-id")
    event = await models.settled_event()
    assert (event.outcome, event.units) == (Outcome.REFUSED, {})
    assert models.provider.requests == []


@pytest.mark.parametrize(
    ("model", "inputs", "names"),
    [
        ("acme/translate", [TEXT], "INPUT_LANGUAGE_ID"),
        ("acme/translate", [TEXT, listed("INPUT_LANGUAGE_ID", "hi")], "OUTPUT_LANGUAGE_ID"),
        ("acme/translate", [listed("INPUT_LANGUAGE_ID", "hi"), listed("OUTPUT_LANGUAGE_ID", "ur")], "INPUT_TEXT"),
        ("acme/hear", [listed("AUDIO", encoded(b"RIFF"))], "LANGUAGE_ID"),
        ("acme/hear", [listed("AUDIO", "not base64"), listed("LANGUAGE_ID", "en")], "AUDIO"),
        ("acme/read", [listed("IMAGE", "")], "IMAGE"),
        ("acme/judge", [listed("INPUT_TEXT", "a", "b"), listed("LANGUAGE_ID", "hi", "en")], "LANGUAGE_ID"),
        ("acme/judge", [listed("INPUT_TEXT", "a", "b"), listed("OTHER_TEXT", "a")], "OTHER_TEXT"),
        ("acme/judge", [listed("INPUT_TEXT", *"abc"), listed("LANGUAGE_ID", "hi", "hi")], "LANGUAGE_ID"),
    ],
    ids=str,
)
async def test_inputs_that_do_not_go_together_are_named(
    models: Market, model: str, inputs: list[Any], names: str
) -> None:
    response = await infer(models, {"inputs": inputs}, model=model)
    assert response.status == 400, response.body
    assert response.json()["error"].startswith(f"{names}: ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/", 404),
        ("GET", "/v2/models/acme/none", 404),
        ("GET", "/v2/models/gpt", 404),
        ("GET", "/v2/models/acme/embed/infer", 404),
        ("POST", "/v2/models/acme/embed", 404),
        ("POST", "/v2/models/acme/embed/generate", 404),
        ("POST", "/v2/models/acme/embed/versions/9/infer", 404),
        ("POST", "/v2/models/%FF%00/infer", 404),
        ("POST", "/v2/repository/models/acme/load", 404),
    ],
)
@pytest.mark.speaks("inference elsewhere")
async def test_addresses_that_are_not_there(models: Market, method: str, path: str, status: int) -> None:
    response = await models.call(method, path)
    assert (response.status, list(response.json())) == (status, ["error", "code", "request_id"])


def in_binary(*values: bytes, size: int | None = None, shape: list[int] | None = None) -> tuple[bytes, str]:
    data = b"".join(struct.pack("<I", len(value)) + value for value in values)
    entry = {
        "name": "INPUT_TEXT",
        "shape": shape or [len(values)],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(data) if size is None else size},
    }
    head = json.dumps({"inputs": [entry]}).encode()
    return head + data, f"Inference-Header-Content-Length: {len(head)}"


WHOLE, HEADER = in_binary(b"first", "नमस्ते".encode())


@pytest.mark.parametrize(
    ("body", "header", "names"),
    [
        (WHOLE[:-1], HEADER, "INPUT_TEXT"),
        (WHOLE + b"x", HEADER, "body"),
        (WHOLE, "Inference-Header-Content-Length: 99999", "Inference-Header-Content-Length"),
        (WHOLE, "Inference-Header-Content-Length: -1", "Inference-Header-Content-Length"),
        (*in_binary(b"a", size=4), "INPUT_TEXT"),
        (*in_binary(b"a", shape=[2]), "INPUT_TEXT"),
        (*in_binary(b"\xff"), "INPUT_TEXT"),
    ],
    ids=["truncated", "more", "longer than it is", "negative", "cut in an element", "other shape", "no UTF-8"],
)
async def test_binary_data_that_breaks_off_is_refused(models: Market, body: bytes, header: str, names: str) -> None:
    response = await infer(models, body, header)
    assert response.status == 400, response.body
    assert response.json()["error"].startswith(f"{names}: ")


async def test_whatever_bytes_come_the_fault_is_the_callers(models: Market) -> None:
    @given(
        st.one_of(
            st.tuples(st.binary(max_size=200), st.integers(0, 250)),
            st.tuples(st.integers(0, len(WHOLE) - 1).map(lambda end: WHOLE[:end]), st.just(len(WHOLE) - 22)),
            st.tuples(
                st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)).map(
                    lambda change: WHOLE[: change[0]] + bytes([change[1]]) + WHOLE[change[0] + 1 :]
                ),
                st.just(int(HEADER.split()[1])),
            ),
        )
    )
    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    def never_ours(sent: tuple[bytes, int]) -> None:
        body, size = sent
        future = asyncio.run_coroutine_threadsafe(
            infer(models, body or b" ", f"Inference-Header-Content-Length: {size}"), loop
        )
        response = future.result(10)
        assert response.status == 200 or 400 <= response.status < 500
        if response.status != 200:
            assert response.json()["error"]

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(never_ours)


@pytest.mark.speaks("inference health live", "inference health ready", "inference server metadata")
async def test_health_is_told_without_a_key(models: Market) -> None:
    client = await models.connect()
    models.gateway.meter.failing = True
    try:
        for path, status in (("/v2/health/live", 200), ("/v2/health/ready", 503), ("/v2", 200)):
            await client.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            response = await client.receive()
            assert response is not None and response.status == status
        assert json.loads(response.body)["name"] == "haat"
    finally:
        models.gateway.meter.failing = False
    await client.send(b"GET /v2/models/acme/embed HTTP/1.1\r\nHost: h\r\n\r\n")
    response = await client.receive()
    assert response is not None and response.status == 401
    assert "error" in response.json()


@pytest.mark.speaks("inference models")
async def test_a_model_that_is_left_alone_is_not_ready(models: Market) -> None:
    for path in ("acme/embed", "acme%2Fembed", "acme/embed/versions/1"):
        response = await models.call("GET", f"/v2/models/{path}/ready")
        assert (response.status, response.json()["ready"]) == (200, True)
    models.provider.behaviour = answer(503, b"{}")
    for _ in range(20):
        await infer(models, {"inputs": [TEXT]})
    response = await models.call("GET", "/v2/models/acme/embed/ready")
    assert (response.status, response.json()) == (503, {"name": "acme/embed", "ready": False})


@pytest.mark.parametrize(
    ("behaviour", "status", "says"),
    [
        (answer(200, b"no json"), 502, "task schema"),
        (answer(200, b'{"output":[{"text":"a"}]}'), 502, "embeddings"),
        (answer(200, b'{"output":[{"embedding":[1e300]}]}'), 502, "embeddings"),
        (answer(200, b'{"output":[{"embedding":[1]},{"embedding":[1]}]}'), 502, "outputs"),
        (answer(422, b'{"code":"INPUT_TOO_LONG","detail":"Input 0 is too long."}'), 422, "too long"),
        (answer(422, b'{"code":"X","detail":"d","errors":[{"field":"config.a","message":"b"}]}'), 422, "config.a: b"),
        (answer(422, b'{"code":"X","detail":"said","errors":[{"field":"config.a"}]}'), 422, "said"),
        (answer(500, b"oops"), 500, "oops"),
    ],
    ids=["no JSON", "no vectors", "too large", "too many", "refused", "a field", "half a field", "failed"],
)
async def test_what_a_provider_gets_wrong_is_said_in_the_same_shape(
    models: Market, behaviour: bytes, status: int, says: str
) -> None:
    models.provider.behaviour = behaviour
    response = await infer(models, {"inputs": [TEXT]})
    assert response.status == status and says in response.json()["error"]
    assert (await models.settled_event()).outcome == Outcome.PROVIDER_FAILED


async def test_a_provider_who_is_called_as_it_likes_gets_the_request_as_it_came(models: Market) -> None:
    models.add_service("own", base="/v2/models/own")
    models.provider.behaviour = answer(200, b'{"outputs":[],"own":1}')
    response = await infer(models, WHOLE, HEADER, model="acme/own")
    assert response.body == b'{"outputs":[],"own":1}'
    [request] = models.provider.requests
    assert (request.target, request.body) == ("/v2/models/own/infer", WHOLE)
    assert request.header("inference-header-content-length") == [HEADER.split()[1]]
    card = (await models.call("GET", "/v2/models/acme/own")).json()
    assert (card["platform"], card["inputs"]) == ("haat_http", [])
