"""What the protocols allow and the clients that most tests use don't do: each was sent by some other client."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from msgspec import structs

from gateway.doors.forms import CONTENT_TYPE, form
from gateway.doors.ulca_market import SPOKEN, stock, task, texts
from gateway.doors.upstreams import completion, usage_of
from gateway.rig import APP, Market, Response, answer
from haat.gateway.market.policy import ApplicationPolicy, Cors
from haat.gateway.market.snapshot import Application, Price

JSON = "Content-Type: application/json"
VECTOR = answer(200, b'{"output": [{"embedding": [1.0]}], "usage": {"tokens": 7}}', "X-Haat-Usage: tokens=7")
VERSION = "anthropic-version: 2023-06-01"
CHAT = {"model": "acme/llm", "messages": [{"role": "user", "content": "Namaste"}]}
EMBED = {"model": "acme/embed", "input": "a"}


@pytest.fixture
def shelf(market: Market) -> Market:
    market.add_service("embed", dialect="task", category="embedding", unit="tokens")
    market.add_service("llm", dialect="openai", category="llm", unit="tokens")
    market.add_service("claude", dialect="anthropic", category="llm", unit="tokens")
    market.provider.behaviour = VECTOR
    return market


async def ask(market: Market, path: str, body: Any, *headers: str) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    response: Response = await market.call("POST", path, raw, JSON, *headers)
    return response


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1/embeddings/",
        "/v1//embeddings",
        "//v1/embeddings",
        "/v1/embeddings?api-version=2024-10-21&x=",
        "/openai/v1/embeddings",
        "http://gateway/v1/embeddings/",
    ],
)
async def test_an_address_may_be_joined_carelessly(shelf: Market, path: str) -> None:
    assert (await ask(shelf, path, EMBED)).json()["data"][0]["embedding"] == [1.0]


@pytest.mark.parametrize("path", ["/v1/models/", "/v1//models", "/openai/v1/models", "/v1/models?limit=2"])
async def test_the_list_of_models_too(shelf: Market, path: str) -> None:
    assert len((await shelf.call("GET", path)).json()["data"]) == 4


@pytest.mark.parametrize(
    "path", ["/v1/models/acme/embed/", "/v1//models//acme/embed", "/openai/v1/models/acme%2Fembed"]
)
async def test_and_one_of_them(shelf: Market, path: str) -> None:
    assert (await shelf.call("GET", path)).json()["id"] == "acme/embed"


@pytest.mark.parametrize(
    "path", ["/v2/models/acme/embed/", "/v2/models//acme/embed", "/v2/models/acme/embed/versions/1/"]
)
async def test_a_model_behind_the_inference_protocol_as_well(shelf: Market, path: str) -> None:
    assert (await shelf.call("GET", path)).json()["inputs"][0]["name"] == "INPUT_TEXT"


@pytest.mark.speaks("openai elsewhere")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/chat/completions"),
        ("POST", "/v1/images/generations"),
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/models/acme/embed"),
        ("POST", "/v1/audio/translations/x"),
    ],
)
async def test_what_is_not_spoken_is_said_in_openais_words(shelf: Market, method: str, path: str) -> None:
    response = await shelf.call(method, path)
    error = response.json()["error"]
    assert (response.status, error["type"], error["code"]) == (404, "not_found_error", "NOT_FOUND")
    assert "docs/openai.md" in error["message"]
    assert shelf.events() == []


@pytest.mark.speaks("anthropic elsewhere")
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/messages/batches"), ("GET", "/v1/messages/batches/b")])
async def test_or_in_anthropics(shelf: Market, method: str, path: str) -> None:
    response = await shelf.call(method, path, b"", VERSION)
    assert (response.status, response.json()["error"]["type"]) == (404, "not_found_error")
    assert response.header("request-id") == response.header("x-request-id") == response.json()["request_id"]


async def test_a_query_goes_on_to_who_speaks_the_protocol(shelf: Market) -> None:
    await ask(shelf, "/v1/messages?beta=true", {**CHAT, "model": "acme/claude"}, VERSION)
    assert shelf.provider.requests[-1].target == "/base/messages?beta=true"


# --- the list of models, as Anthropic's clients read it -----------------------------------------------


def model(name: str, created: str = "1970-01-01T00:00:00Z") -> dict[str, str]:
    return {"type": "model", "id": name, "display_name": name, "created_at": created}


@pytest.mark.speaks("anthropic models")
async def test_who_sends_anthropics_version_gets_its_list(shelf: Market) -> None:
    directory = shelf.gateway.directory
    service = directory.services["acme/claude"]
    since = Price("", "tokens", "1", "0", 1_700_000_000_000_000)
    directory.put_service(service.id, structs.replace(service, prices=(since,)))
    response = await shelf.call("GET", "/v1/models", b"", VERSION)
    assert response.json() == {
        "data": [model("acme/claude", "2023-11-14T22:13:20Z"), *map(model, ("acme/echo", "acme/embed", "acme/llm"))],
        "has_more": False,
        "first_id": "acme/claude",
        "last_id": "acme/llm",
    }
    assert response.header("request-id") == response.header("x-request-id")


@pytest.mark.speaks("anthropic models")
@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ("limit=2", ["claude", "echo"], True),
        ("limit=2&after_id=acme/echo", ["embed", "llm"], False),
        ("limit=2&after_id=acme%2Fllm", [], False),
        ("limit=2&before_id=acme/llm", ["echo", "embed"], True),
        ("limit=2&before_id=acme/embed", ["claude", "echo"], False),
        ("limit=1000", ["claude", "echo", "embed", "llm"], False),
    ],
)
async def test_page_by_page(shelf: Market, query: str, ids: list[str], more: bool) -> None:
    page = (await shelf.call("GET", f"/v1/models?{query}", b"", VERSION)).json()
    names = [f"acme/{name}" for name in ids]
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (names, more)
    assert (page["first_id"], page["last_id"]) == ((names[0], names[-1]) if names else (None, None))


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=%C2%B2", "after_id=acme/none", "before_id=acme/none"]
)
async def test_a_page_that_there_is_not_is_refused(shelf: Market, query: str) -> None:
    response = await shelf.call("GET", f"/v1/models?{query}", b"", VERSION)
    error = response.json()["error"]
    assert (response.status, error["type"]) == (400, "invalid_request_error"), response.body
    assert query.partition("=")[0] in error["message"]


@pytest.mark.speaks("anthropic models.retrieve")
async def test_one_model_in_that_shape(shelf: Market) -> None:
    assert (await shelf.call("GET", "/v1/models/acme/llm", b"", VERSION)).json() == model("acme/llm")
    missing = await shelf.call("GET", "/v1/models/acme/none", b"", VERSION)
    assert (missing.status, missing.json()["type"], missing.json()["error"]["type"]) == (
        404,
        "error",
        "not_found_error",
    )


# --- bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "deflate", "identity"])
@pytest.mark.parametrize(
    ("path", "body"), [("/v1/embeddings", EMBED), ("/v1/chat/completions", CHAT)], ids=["embeddings", "chat"]
)
async def test_a_body_may_be_compressed(shelf: Market, path: str, body: Any, coding: str) -> None:
    plain = json.dumps(body).encode()
    pack = {"identity": bytes, "deflate": zlib.compress}.get(coding, gzip.compress)
    response = await ask(shelf, path, pack(plain), f"Content-Encoding: {coding}")
    assert response.status == 200, response.body
    [request] = shelf.provider.requests
    assert coding == "identity" or request.header("content-encoding") == []
    assert json.loads(request.body).get("messages", "none") == body.get("messages", "none")


async def test_what_can_not_be_unfolded_is_named(shelf: Market) -> None:
    for coding, body in (("br", b"x"), ("gzip", b"{}"), ("gzip", gzip.compress(b"{}")[:-4])):
        response = await ask(shelf, "/v1/embeddings", body, f"Content-Encoding: {coding}")
        assert (response.status, response.json()["error"]["param"]) == (400, "body")
    huge = gzip.compress(b" " * (shelf.gateway.settings.max_body_bytes + 1))
    response = await ask(shelf, "/v1/embeddings", huge, "Content-Encoding: gzip")
    assert (response.status, response.json()["error"]["code"]) == (413, "BODY_TOO_LARGE")
    assert shelf.provider.requests == []


async def test_a_body_may_come_in_chunks_and_when_it_is_let(shelf: Market) -> None:
    raw = json.dumps(EMBED).encode()
    client = await shelf.connect()
    headers = ("transfer-encoding: chunked", "EXPECT: 100-continue", JSON.lower())
    await client.send(shelf.raw("POST", "/v1/embeddings", b"", *headers))
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    await client.send(b"".join(b"1\r\n%c\r\n" % byte for byte in raw) + b"0\r\n\r\n")
    response = await client.receive("POST")
    assert response is not None and response.status == 200
    assert (await shelf.settled_event()).units["tokens"] == "7"


NULLS = {"encoding_format": None, "dimensions": None, "user": None, "extra": None}


async def test_null_is_as_good_as_nothing(shelf: Market) -> None:
    assert (await ask(shelf, "/v1/embeddings", {**EMBED, **NULLS})).json()["data"][0]["embedding"] == [1.0]
    shelf.add_service("guard", dialect="task", category="nlp", aliases=("omni-moderation-latest",))
    verdict = {"flagged": False, "categories": {}, "scores": {}}
    shelf.provider.behaviour = answer(200, json.dumps({"output": [verdict]}).encode())
    assert (await ask(shelf, "/v1/moderations", {"input": "a", "model": None})).status == 200
    shelf.add_service("say", dialect="task", category="text_to_speech")
    said = {"audio": {"content": SPOKEN, "format": "wav"}}
    shelf.provider.behaviour = answer(200, json.dumps({"output": [said]}).encode())
    body = dict.fromkeys(("voice", "response_format", "speed", "stream_format", "instructions", "language"))
    response = await ask(shelf, "/v1/audio/speech", {**body, "model": "acme/say", "input": "नमस्ते"})
    assert (response.status, response.header("content-type")) == (200, "audio/wav")
    assert json.loads(shelf.provider.requests[-1].body) == {"input": [{"text": "नमस्ते"}], "config": {}}


async def test_null_in_an_infer_request_as_well(shelf: Market) -> None:
    tensor = {"name": "INPUT_TEXT", "shape": [1], "datatype": "BYTES", "data": ["a"], "parameters": None}
    body = {"id": None, "parameters": None, "outputs": None, "inputs": [tensor]}
    assert (await ask(shelf, "/v2/models/acme/embed/infer", body)).json()["outputs"][0]["data"] == [1.0]
    said = {
        "model_name": "acme/embed",
        "parameters": {"content_type": "str", "headers": {"x": "y"}},
        "inputs": [{**tensor, "parameters": {"content_type": "str"}}],
    }
    assert (await ask(shelf, "/v2/models/acme/embed/infer", said)).status == 200
    assert json.loads(shelf.provider.requests[-1].body) == {"input": [{"text": "a"}]}


async def test_null_in_ulcas_words_too(market: Market) -> None:
    stock(market)
    asked = task("translation", "hi", "ur", serviceId=None, gender=None, preProcessors=None)
    asked["config"]["language"]["targetScriptCode"] = None
    body = {"pipelineTasks": [asked], "inputData": {**texts("क"), "audio": None, "image": None}, "controlConfig": None}
    response = await ask(market, "/services/inference/pipeline", body)
    assert response.json()["pipelineResponse"][0]["output"][0]["target"] == "क [hi-Deva>ur-Arab]"


@pytest.mark.parametrize("word", ["True", "true", "TRUE"])
async def test_a_form_of_requests_says_true_as_python_does(market: Market, word: str) -> None:
    market.add_service("hear", dialect="task", category="speech_to_text")
    market.provider.behaviour = answer(200, b'{"output": [{"text": "Namaste"}]}')
    body = form(("model", None, b"acme/hear"), ("file", "a.wav", b"RIFF"), ("stream", None, word.encode()))
    response = await market.call("POST", "/v1/audio/transcriptions", body, CONTENT_TYPE)
    assert response.header("content-type") == "text/event-stream"


# --- the older completions ----------------------------------------------------------------------------


@pytest.mark.speaks("openai completions")
async def test_completions_of_a_text_are_passed_on_and_metered(shelf: Market) -> None:
    choice = {"index": 0, "text": " duniya", "finish_reason": "stop", "logprobs": None}
    shelf.provider.behaviour = completion(object="text_completion", choices=[choice])
    body = {"model": "acme/llm", "prompt": "Namaste", "max_tokens": 16, "echo": False, "logprobs": None}
    response = await ask(shelf, "/v1/completions", body)
    assert response.json()["choices"] == [choice]
    assert shelf.provider.requests[-1].target == "/base/completions"
    assert usage_of((await shelf.settled_event()).units) == (30, 10, 20)


async def test_a_test_keys_completions_are_simulated(shelf: Market) -> None:
    key = shelf.add_key(mode="test")
    asked = {"model": "acme/llm", "prompt": ["one", "two words"]}
    whole = await shelf.call("POST", "/v1/completions", json.dumps(asked).encode(), JSON, key=key)
    texts_of = [choice["text"] for choice in whole.json()["choices"]]
    assert [text.partition("] ")[2] for text in texts_of] == ["one", "two words"]
    streamed = {**asked, "stream": True, "stream_options": {"include_usage": True}}
    response = await shelf.call("POST", "/v1/completions", json.dumps(streamed).encode(), JSON, key=key)
    chunks = [json.loads(line[6:]) for line in response.body.splitlines() if line.startswith(b"data: {")]
    pieces = [[c["text"] for chunk in chunks for c in chunk["choices"] if c["index"] == at] for at in (0, 1)]
    assert ["".join(one) for one in pieces] == texts_of and chunks[-1]["usage"]["prompt_tokens"] == 3
    assert response.body.endswith(b"data: [DONE]\n\n")
    refused = await shelf.call("POST", "/v1/completions", b'{"model": "acme/llm"}', JSON, key=key)
    assert (refused.status, refused.json()["error"]["param"]) == (400, "prompt")


# --- programs in web pages ------------------------------------------------------------------------------


async def test_a_page_may_send_the_headers_that_its_client_asks_for(market: Market) -> None:
    page = "https://shop.example"
    market.gateway.directory.put_application(APP, Application(APP, ApplicationPolicy(cors=Cors((page,)))))
    wanted = "authorization,anthropic-dangerous-direct-browser-access,anthropic-version,x-stainless-os, x-own, b@d"
    client = await market.connect()
    lines = (f"Origin: {page}", "Access-Control-Request-Method: POST", f"Access-Control-Request-Headers: {wanted}")
    head = "\r\n".join(("OPTIONS /v1/messages HTTP/1.1", "Host: gateway", *lines))
    await client.send(head.encode() + b"\r\n\r\n")
    response = await client.receive("OPTIONS")
    assert response is not None and response.status == 204
    allowed = (response.header("access-control-allow-headers") or "").split(", ")
    assert allowed[-4:] == wanted.replace(", ", ",").split(",")[1:-1]
    assert {"Authorization", "Content-Type"} <= set(allowed) and "authorization" not in allowed and "b@d" not in allowed


# --- sound ----------------------------------------------------------------------------------------


async def test_segments_have_all_that_typed_clients_ask_for(market: Market) -> None:
    market.add_service("hear", dialect="task", category="speech_to_text")
    market.provider.behaviour = answer(200, b'{"output": [{"text": "Namaste", "seconds": 1.5}]}')
    body = form(("model", None, b"acme/hear"), ("file", "a.wav", b"RIFF"), ("response_format", None, b"verbose_json"))
    [segment] = (await market.call("POST", "/v1/audio/transcriptions", body, CONTENT_TYPE)).json()["segments"]
    numbers = {"temperature", "avg_logprob", "compression_ratio", "no_speech_prob", "start", "end"}
    assert numbers <= segment.keys() and all(isinstance(segment[name], float) for name in numbers)


async def test_who_only_hears_that_somebody_speaks_transcribes_nothing(market: Market) -> None:
    stock(market)
    body = form(("model", None, b"acme/listen"), ("file", "a.wav", b"RIFF"))
    response = await market.call("POST", "/v1/audio/transcriptions", body, CONTENT_TYPE)
    assert (response.status, response.json()["error"]["param"]) == (400, "model")
    assert market.provider.requests == []


async def test_a_word_is_spoken_in_the_only_language_of_its_script(market: Market) -> None:
    market.add_service("say", dialect="task", category="text_to_speech", languages=("hi-Deva", "ur-Arab", "mr-Deva"))
    market.provider.behaviour = answer(200, json.dumps({"output": [{"audio": {"content": SPOKEN}}]}).encode())
    spoken = await ask(market, "/v1/audio/speech", {"model": "acme/say", "input": "سلام"})
    assert spoken.status == 200
    assert json.loads(market.provider.requests[0].body)["config"] == {"language": "ur-Arab"}
    unclear = await ask(market, "/v1/audio/speech", {"model": "acme/say", "input": "नमस्ते"})
    assert (unclear.status, unclear.json()["error"]["param"]) == (400, "language")
