"""Requests that were good until something in them was twisted: never our own failure, always a refusal that helps.

Each door's good request is changed in one to three places: another type, a number of a thousand digits, half a
character, lists in lists, a name twice, something missing. What the protocol still allows is answered.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from gateway.doors.every_door import JSON, SOUND, tensors
from gateway.doors.forms import CONTENT_TYPE, form
from gateway.doors.ulca_market import SPOKEN
from gateway.rig import Market, Request, answer, close_market, open_market
from haat.gateway.market.policy import ServicePolicy
from haat.infra.keyring import Keyring

PAIR = {"source": "hi", "target": "ur"}
LANGUAGES = {"language": {"sourceLanguage": "hi", "targetLanguage": "ur"}}
RAN = settings(max_examples=30, deadline=None)


class Spelt(str):
    """JSON as it is to stand in a body, well-formed or not."""


@dataclass(frozen=True)
class Door:
    path: str
    body: Any
    protocol: str


def ulca(kind: str, given: dict[str, Any], **config: Any) -> dict[str, Any]:
    return {"pipelineTasks": [{"taskType": kind, "config": {**LANGUAGES, **config}}], "inputData": given}


CHAT = {"model": "acme/llm", "messages": [{"role": "user", "content": "a"}], "stream": False, "max_tokens": 5, "n": 1}
DOORS = {
    "chat": Door("/v1/chat/completions", CHAT, "openai"),
    "responses": Door("/v1/responses", {"model": "acme/llm", "input": "a", "stream": False}, "openai"),
    "embeddings": Door(
        "/v1/embeddings",
        {"model": "acme/embedding", "input": ["a", "b"], "encoding_format": "base64", "dimensions": None},
        "openai",
    ),
    "moderations": Door(
        "/v1/moderations", {"model": "acme/nlp", "input": ["a", {"type": "text", "text": "b"}]}, "openai"
    ),
    "speech": Door(
        "/v1/audio/speech",
        {"model": "acme/text-to-speech", "input": "नमस्ते", "voice": {"id": "x"}, "speed": 1.5, "response_format": "pcm"},
        "openai",
    ),
    "messages": Door("/v1/messages", {**CHAT, "model": "acme/claude"}, "anthropic"),
    "count": Door("/v1/messages/count_tokens", {**CHAT, "model": "acme/claude"}, "anthropic"),
    "configs": Door(
        "/ulca/apis/v0/model/getModelsPipeline",
        {**ulca("translation", {}), "pipelineRequestConfig": {"pipelineId": "x"}},
        "configs",
    ),
    "translation": Door(
        "/services/inference/pipeline",
        {**ulca("translation", {"input": [{"source": "क"}], "audio": None}), "controlConfig": {"dataTracking": False}},
        "ulca",
    ),
    "asr": Door(
        "/services/inference/pipeline",
        ulca("asr", {"audio": [{"audioContent": SPOKEN}]}, audioFormat="pcm", samplingRate=16000),
        "ulca",
    ),
    "tts": Door(
        "/services/inference/tts", {"config": {**LANGUAGES, "gender": "female"}, "input": [{"source": "क"}]}, "ulca"
    ),
    "chain": Door(
        "/services/inference/pipeline",
        {
            "pipelineTasks": [{"taskType": kind, "config": LANGUAGES} for kind in ("asr", "translation", "tts")],
            "inputData": {"audio": [{"audioContent": SPOKEN}]},
        },
        "ulca",
    ),
    "feedback": Door(
        "/services/feedback/submit",
        {
            "feedbackTimeStamp": 1,
            "feedbackLanguage": "en",
            "pipelineInput": {"pipelineTasks": [{"taskType": "asr", "config": LANGUAGES}]},
            "pipelineFeedback": {"commonFeedback": [{"question": "?", "feedbackType": "rating", "rating": 5}]},
            "suggestedPipelineOutput": {"pipelineResponse": [{"taskType": "asr", "output": [{"source": "a"}]}]},
        },
        "ulca",
    ),
    "infer": Door(
        "/v2/models/acme/translation/infer",
        {
            "id": "1",
            "parameters": {"binary_data_output": False, "priority": 1},
            "inputs": [
                {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [[value]], "parameters": {}}
                for name, value in (("INPUT_TEXT", "क"), ("INPUT_LANGUAGE_ID", "hi"), ("OUTPUT_LANGUAGE_ID", "ur"))
            ],
            "outputs": [{"name": "OUTPUT_TEXT", "parameters": {"binary_data": True}}],
        },
        "inference",
    ),
    "pipelines": Door(
        "/v1/pipelines",
        {
            "stages": [{"service": "acme/translation", "config": PAIR, "name": "a"}],
            "input": [{"text": "क"}],
            "timeout_ms": 900,
        },
        "native",
    ),
    "translate": Door("/v1/translate", {"text": ["क"], "target": "ur", "source": "hi", "pivot": "allow"}, "native"),
}

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "a" * 5000, "null", "%00", "../..", "acme/none", "hi-Zzzz", "data:audio/wav;base64,!!", "=="]
    ),
    st.sampled_from(
        [
            Spelt(text)
            for text in (
                "1" * 5000,
                "-" + "9" * 400,
                "1e999",
                "1e-999",
                "0.1e400",
                "NaN",
                "-0",
                '"\\ud800"',
                '"\\udc00\\ud800"',
                '"\\u0000"',
                "[" * 2000 + "]" * 2000,
                '{"a":' * 2000 + "1" + "}" * 2000,
                "[" * 100_000,
            )
        ]
    ),
    st.lists(st.none() | st.integers() | st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=5), st.none() | st.text(max_size=5), max_size=2),
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in a document, as what holds it and its key there."""
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from places(value[key])


@st.composite
def twisted(draw: st.DrawFn, good: Any) -> bytes:
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(value))
        if not found:
            break
        holder, key = draw(st.sampled_from(found))
        how = draw(st.sampled_from(("replace", "replace", "replace", "drop", "twice", "wrap")))
        if how == "replace":
            holder[key] = draw(ODD)
        elif how == "drop":
            del holder[key]
        elif how == "wrap":
            holder[key] = [holder[key]]
        elif isinstance(holder, dict):
            holder[f"{key}\0"] = draw(ODD)  # under the same name: see `spell`
        else:
            holder.append(holder[key])
    return spell(value).encode("utf-8", "surrogatepass")


def spell(value: Any) -> str:
    if isinstance(value, Spelt):
        return value
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key.rstrip(chr(0)))}:{spell(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(spell, value)) + "]"
    return json.dumps(value)


# --- the market -----------------------------------------------------------------------------------


OUTPUT: dict[str, Any] = {
    "text": "x",
    "seconds": 0.5,
    "embedding": [1.0, 0.5],
    "audio": {"content": SPOKEN, "format": "wav", "sample_rate": 16000},
    "flagged": False,
    "categories": {"a": False},
    "scores": {"a": 0.5},
    "suggestions": ["x", "y"],
    "language": "hi-Deva",
    "confidence": 0.5,
    "entities": [{"text": "x", "label": "PER"}],
    "tokens": [{"token": "x", "tag": "O", "start": 0, "end": 1}],
    "segments": [{"start": 0.5, "end": 1}],
}
"""Something for every door."""


class Obliging:
    """A provider that answers every item, or says what it is told to say instead."""

    instead = b""

    async def __call__(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            items = json.loads(request.body)["input"]
            count = len(items) if isinstance(items, list) else 1
        except (ValueError, KeyError, TypeError, RecursionError):
            count = 1
        writer.write(answer(200, self.instead or json.dumps({"output": [OUTPUT] * count}).encode()))
        await writer.drain()
        return True


class Running:
    """A market on an event loop that a test of another kind drives step by step."""

    def __init__(self, loop: asyncio.AbstractEventLoop, market: Market, provider: Obliging) -> None:
        self.loop, self.market, self.provider = loop, market, provider

    def call(self, path: str, body: bytes, *headers: str) -> tuple[int, Any, bytes]:
        """Return status, the JSON of the answer (None where it is none), and the answer."""
        response = self.loop.run_until_complete(self.market.call("POST", path, body, *headers))
        assert response.whole
        kind = response.header("content-type") or ""
        return response.status, response.json() if "json" in kind else None, response.body


def capable(market: Market, slug: str, capability: str) -> None:
    directory = market.gateway.directory
    service = directory.services[f"acme/{slug}"]
    directory.put_service(service.id, structs.replace(service, policy=ServicePolicy(capability=capability)))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    loop = uvloop.new_event_loop()
    folder = tmp_path_factory.mktemp("twisted")
    market = loop.run_until_complete(open_market(folder, Keyring(bytes(range(32)))))
    spoken = {"languages": ("hi-Deva", "ur-Arab")}
    for category in ("translation", "embedding", "nlp", "speech_to_text", "text_to_speech"):
        more: dict[str, Any] = spoken if category.startswith(("speech", "text_")) else {}
        if category == "translation":
            more = {"language_pairs": ("hi-Deva>ur-Arab", "ur-Arab>hi-Deva")}
        market.add_service(category.replace("_", "-"), dialect="task", category=category, **more)
    market.add_service("llm", dialect="openai", category="llm", unit="tokens", model="theirs")
    market.add_service("claude", dialect="anthropic", category="llm", unit="tokens")
    market.add_service("names", dialect="task", category="nlp")
    capable(market, "names", "named-entities")
    market.add_service("told", dialect="task", category="nlp")
    capable(market, "told", "detect-language")
    market.add_service("voices", dialect="task", category="speech_to_text")
    capable(market, "voices", "voice-activity")
    market.add_service("letters", dialect="task", category="transliteration")
    market.provider.behaviour = provider = Obliging()
    yield Running(loop, market, provider)
    loop.run_until_complete(close_market(market))
    loop.close()


# --- refusals -------------------------------------------------------------------------------------

NAMING = ("INVALID_REQUEST", "VALIDATION_FAILED")
"""Codes of refusals for a field; all others say themselves what they are about."""


def check_refusal(protocol: str, said: Any) -> None:
    """Hold a refusal against the protocol's shape; one for a field must name it."""
    if protocol == "openai":
        error = said["error"]
        assert error["message"] and error["type"] and error["code"]
        assert error["param"] or error["code"] not in NAMING, said
    elif protocol == "anthropic":
        assert said["type"] == "error" and said["error"]["type"]
        assert ": " in said["error"]["message"] or said["error"]["code"] not in NAMING, said
    elif protocol in ("ulca", "configs"):
        assert said["message"] and said["detail"]["message"] and said["code"]
        detail = said["detail"]
        assert detail.get("errors") or detail.get("field") or detail["code"] not in NAMING, said
    elif protocol == "inference":
        assert set(said) == {"error", "code", "request_id"}
        assert ": " in said["error"] or said["code"] not in NAMING, said
    else:
        assert said["status"] and said["detail"] and said["request_id"]
        assert said.get("errors") or said.get("field") or said["code"] not in NAMING, said


def check(running: Running, protocol: str, path: str, body: bytes, *headers: str) -> None:
    status, said, raw = running.call(path, body, *headers)
    assert status < 500, (raw, body[:300])
    if status >= 400:
        check_refusal(protocol, said)


@pytest.mark.parametrize("name", DOORS)
def test_each_door_takes_its_good_request(running: Running, name: str) -> None:
    door = DOORS[name]
    status, _, raw = running.call(door.path, json.dumps(door.body).encode(), JSON)
    assert status < 300, raw


@pytest.mark.parametrize("name", DOORS)
@RAN
@given(data=st.data())
def test_a_twisted_one_is_answered_or_refused(running: Running, name: str, data: st.DataObject) -> None:
    door = DOORS[name]
    check(running, door.protocol, door.path, data.draw(twisted(door.body)), JSON)


BINARY = tensors("translation", {"text": b"k", "source": b"hi", "target": b"ur"}, binary=True)
SIZE = int(BINARY.headers[0].partition(": ")[2])


@RAN
@given(
    st.lists(st.tuples(st.integers(0, len(BINARY.body) - 1), st.integers(0, 255)), max_size=4),
    st.integers(-40, 40),
    st.sampled_from(("", "-1", "1e3", "²", "99999999999999999999"))
    | st.integers(-3, 3).map(lambda off: str(SIZE + off)),
)
def test_tensors_whose_bytes_disagree_are_refused(
    running: Running, changes: list[tuple[int, int]], cut: int, size: str
) -> None:
    body = bytearray(BINARY.body)
    for place, byte in changes:
        body[place] = byte
    raw = bytes(body) + b"\0" * max(cut, 0) if cut >= 0 else bytes(body[:cut])
    header = f"Inference-Header-Content-Length: {size}".encode().decode("latin-1")
    check(running, "inference", "/v2/models/acme/translation/infer", raw, header)


FIELDS = st.sampled_from(
    ["model", "file", "language", "response_format", "stream", "timestamp_granularities[]", "temperature", "x" * 300]
)
VALUES = st.sampled_from(
    [b"", b"acme/speech-to-text", b"\xff", b"hi", b"vtt", b"true", b"word", SOUND, SOUND[:30], b"x" * 70_000]
)


@RAN
@given(
    st.lists(st.tuples(FIELDS, st.sampled_from([None, "", "a.wav", "a", 'q".mp3', "\ufffd.ogg"]), VALUES), max_size=5),
    st.integers(0, 60),
)
def test_a_form_that_is_odd_or_breaks_off_is_refused(
    running: Running, parts: list[tuple[str, str | None, bytes]], cut: int
) -> None:
    body = form(("model", None, b"acme/speech-to-text"), *parts, ("file", "a.wav", SOUND))
    check(running, "openai", "/v1/audio/transcriptions", body[: len(body) - cut], CONTENT_TYPE)


# --- what a provider may answer -------------------------------------------------------------------

ONE = {
    "embeddings": ("/v1/embeddings", {"model": "acme/embedding", "input": "a", "encoding_format": "base64"}),
    "moderations": ("/v1/moderations", {"model": "acme/nlp", "input": "a"}),
    "speech": ("/v1/audio/speech", {**DOORS["speech"].body, "speed": 1}),
    "translation": (DOORS["translation"].path, DOORS["translation"].body),
    "transliteration": (DOORS["asr"].path, ulca("transliteration", {"input": [{"source": "a"}]}, numSuggestions=2)),
    "asr": (DOORS["asr"].path, DOORS["asr"].body),
    "tts": (DOORS["asr"].path, ulca("tts", {"input": [{"source": "a"}]}, audioFormat="pcm")),
    "ner": (DOORS["asr"].path, ulca("ner", {"input": [{"source": "a"}]})),
    "detection": (DOORS["asr"].path, ulca("txt-lang-detection", {"input": [{"source": "a"}]})),
    "vad": ("/services/inference/vad", {"audio": [{"audioContent": SPOKEN}]}),
    "chain": (DOORS["chain"].path, DOORS["chain"].body),
    "infer": (DOORS["infer"].path, DOORS["infer"].body),
    "pipelines": (DOORS["pipelines"].path, DOORS["pipelines"].body),
    "translate": (DOORS["translate"].path, DOORS["translate"].body),
}


@pytest.mark.parametrize("name", ONE)
@RAN
@given(body=twisted({"output": [OUTPUT], "usage": {"tokens": 7}}))
def test_a_twisted_answer_is_the_providers_failure_and_not_ours(running: Running, name: str, body: bytes) -> None:
    path, asked = ONE[name]
    running.provider.instead = body
    try:
        status, _, raw = running.call(path, json.dumps(asked).encode(), JSON)
    finally:
        running.provider.instead = b""
    assert status in (200, 502), raw


@RAN
@given(
    body=twisted({"output": [OUTPUT], "usage": {"audio_seconds": 7}}),
    shape=st.sampled_from(["json", "srt", "verbose_json"]),
)
def test_nor_is_one_to_a_recording(running: Running, body: bytes, shape: str) -> None:
    asked = form(
        ("model", None, b"acme/speech-to-text"),
        ("language", None, b"hi"),
        ("response_format", None, shape.encode()),
        ("file", "a.wav", SOUND),
    )
    running.provider.instead = body
    try:
        status, _, raw = running.call("/v1/audio/transcriptions", asked, CONTENT_TYPE)
    finally:
        running.provider.instead = b""
    assert status in (200, 502), raw
