"""Providers who speak ULCA's tasks: called in the task schema and from its door, asked in their own words."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from msgspec import structs

from gateway.doors.ulca_market import PICTURE, RATE, SPOKEN, texts
from gateway.doors.ulca_market import task as task_of
from gateway.rig import Market, Response, answer
from haat.gateway.market.policy import ServicePolicy, Transform, VersionPolicy
from haat.usage.event import Outcome

TRACKED = {"controlConfig": {"dataTracking": False}}
SOUND = {"audio": {"content": SPOKEN, "format": "wav"}}
Example = tuple[str, str, str, dict[str, Any], dict[str, Any], dict[str, Any], list[Any], str]
EXAMPLES: dict[str, Example] = {
    "translation": (
        "translation",
        "",
        "characters",
        {"input": [{"text": "नमस्ते"}, {"text": "ab"}], "config": {"source": "hi-Deva", "target": "ks-Deva"}},
        {
            "config": {
                "language": {"sourceLanguage": "hi", "targetLanguage": "ks", "targetScriptCode": "Deva"},
                "serviceId": "their/own",
            },
            "input": [{"source": "नमस्ते"}, {"source": "ab"}],
        },
        {"output": [{"source": "नमस्ते", "target": "x"}, {"source": "ab", "target": "y"}]},
        [{"text": "x"}, {"text": "y"}],
        "8",
    ),
    "transliteration": (
        "transliteration",
        "",
        "characters",
        {"input": [{"text": "ram"}], "config": {"source": "hi-Latn", "target": "hi-Deva"}},
        {
            "config": {
                "language": {"sourceLanguage": "hi", "sourceScriptCode": "Latn", "targetLanguage": "hi"},
                "isSentence": True,
                "serviceId": "their/own",
            },
            "input": [{"source": "ram"}],
        },
        {"output": [{"source": "ram", "target": ["राम", "रम"]}]},
        [{"text": "राम", "suggestions": ["राम", "रम"]}],
        "3",
    ),
    "asr": (
        "speech_to_text",
        "",
        "audio_seconds",
        {"input": [SOUND], "config": {"language": "hi-Deva"}},
        {
            "config": {
                "language": {"sourceLanguage": "hi"},
                "audioFormat": "wav",
                "samplingRate": RATE,
                "serviceId": "their/own",
            },
            "audio": [{"audioContent": SPOKEN}],
        },
        {"output": [{"source": "x", "nBestTokens": None}], "audio": None},
        [{"text": "x"}],
        "0.005",
    ),
    "tts": (
        "text_to_speech",
        "",
        "characters",
        {"input": [{"text": "a"}], "config": {"language": "hi-Deva", "voice": "male"}},
        {
            "config": {
                "language": {"sourceLanguage": "hi"},
                "gender": "male",
                "audioFormat": "wav",
                "serviceId": "their/own",
            },
            "input": [{"source": "a"}],
        },
        {"output": None, "audio": [{"audioContent": SPOKEN, "audioUri": None}], "config": {"audioFormat": "wav"}},
        [{"audio": {"content": SPOKEN, "format": "wav", "sample_rate": RATE}}],
        "1",
    ),
    "ocr": (
        "ocr",
        "",
        "images",
        {"input": [{"image": {"content": PICTURE, "format": "png"}}], "config": {"language": "hi-Deva"}},
        {
            "config": {"language": {"sourceLanguage": "hi"}, "serviceId": "their/own"},
            "image": [{"imageContent": PICTURE}],
        },
        {"output": [{"source": "x"}]},
        [{"text": "x"}],
        "1",
    ),
    "ner": (
        "nlp",
        "named-entities",
        "characters",
        {"input": [{"text": "Asha Rao"}], "config": {"language": "en-Latn"}},
        {
            "config": {"language": {"sourceLanguage": "en"}, "serviceId": "their/own"},
            "input": [{"source": "Asha Rao"}],
        },
        {
            "output": [
                {
                    "source": "Asha Rao",
                    "nerPrediction": [
                        {"token": "Asha", "tag": "B-PER", "tokenIndex": 0, "tokenStartIndex": 0, "tokenEndIndex": 4},
                        {"token": "Rao", "tag": "I-PER", "tokenIndex": 1, "tokenStartIndex": 5, "tokenEndIndex": 8},
                    ],
                }
            ]
        },
        [
            {
                "entities": [{"text": "Asha Rao", "label": "PER", "start": 0, "end": 8}],
                "tokens": [
                    {"token": "Asha", "tag": "B-PER", "start": 0, "end": 4},
                    {"token": "Rao", "tag": "I-PER", "start": 5, "end": 8},
                ],
            }
        ],
        "8",
    ),
    "txt-lang-detection": (
        "nlp",
        "detect-language",
        "characters",
        {"input": [{"text": "ab"}]},
        {"config": {"serviceId": "their/own"}, "input": [{"source": "ab"}]},
        {"output": [{"source": "ab", "langPrediction": [{"langCode": "te", "langScore": 0.75}]}]},
        [{"language": "te-Telu", "script": "Telu", "confidence": 0.75}],
        "2",
    ),
    "vad": (
        "speech_to_text",
        "voice-activity",
        "audio_seconds",
        {"input": [SOUND]},
        {
            "config": {"audioFormat": "wav", "samplingRate": RATE, "serviceId": "their/own"},
            "audio": [{"audioContent": SPOKEN}],
        },
        {"output": [{"timestamps": [{"start": 0.5, "end": 1.5}]}]},
        [{"segments": [{"start": 0.5, "end": 1.5}]}],
        "0.005",
    ),
}


def put(market: Market, name: str, dialect: str = "ulca", address: str = "") -> None:
    """List a provider's own service; what he calls it is a change that its version declares."""
    category, capability, unit, *_ = EXAMPLES[name]
    market.add_service(
        "theirs", dialect=dialect, category=category, unit=unit, base=address or f"/services/inference/{name}"
    )
    service = market.gateway.directory.services["acme/theirs"]
    own = VersionPolicy(request=(Transform("set", "config.serviceId", value="their/own"),))
    first = structs.replace(service.versions[0], policy=own)
    said = structs.replace(service, policy=ServicePolicy(capability=capability), versions=(first,))
    market.gateway.directory.put_service(service.id, said)


async def invoke(market: Market, body: Any, *headers: str, path: str = "/invoke", method: str = "POST") -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await market.call(method, f"/v1/services/acme/theirs{path}", raw, *headers)


@pytest.mark.parametrize("name", EXAMPLES)
async def test_a_task_is_asked_in_their_words_and_answered_in_ours(market: Market, name: str) -> None:
    _, _, unit, native, wanted, theirs, outputs, count = EXAMPLES[name]
    put(market, name)
    market.provider.behaviour = answer(200, json.dumps({"taskType": name, **theirs}).encode())
    response = await invoke(market, {"config": {}, **native})
    assert response.status == 200, response.body
    assert response.json()["output"] == outputs
    [request] = market.provider.requests
    assert request.target == f"/services/inference/{name}"
    assert json.loads(request.body) == {**wanted, **TRACKED}
    event = await market.settled_event()
    assert (event.outcome, event.units[unit], event.units_source) == (Outcome.COMPLETED, count, "counted")
    assert response.header("x-haat-units") == f"{unit}={count}"


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in ("vad", "transliteration")])
async def test_at_their_own_door_they_are_found_like_any_other(market: Market, name: str) -> None:
    *_, native, _, theirs, _, _ = EXAMPLES[name]
    put(market, name)
    bare = {"taskType": name, "config": None, "audio": None, **theirs}
    market.provider.behaviour = answer(200, json.dumps({"pipelineResponse": [bare]}).encode())  # the envelope too
    source = "en" if name == "ner" else "hi"
    data = {
        "asr": {"audio": [{"audioContent": SPOKEN}]},
        "ocr": {"image": [{"imageContent": PICTURE}]},
    }.get(name) or texts(*(item["text"] for item in native["input"]))
    asked = {"pipelineTasks": [task_of(name, source, "ur" if name == "translation" else "")], "inputData": data}
    response = await market.call("POST", "/services/inference/pipeline", json.dumps(asked).encode())
    assert response.status == 200, response.body
    [part] = response.json()["pipelineResponse"]
    for field in ("target", "source"):
        if theirs["output"] and field in theirs["output"][0]:
            assert part["output"][0][field] == theirs["output"][0][field]
    assert (part["audio"] or [{}])[0].get("audioContent") == (SPOKEN if name == "tts" else None)


async def test_a_request_that_came_packed_is_understood(market: Market) -> None:
    put(market, "translation")
    _, _, _, native, wanted, theirs, *_ = EXAMPLES["translation"]
    packed = gzip.compress(json.dumps(theirs).encode())
    market.provider.behaviour = answer(200, packed, "Content-Encoding: gzip")
    response = await invoke(market, gzip.compress(json.dumps(native).encode()), "Content-Encoding: gzip")
    assert response.status == 200, response.body
    assert response.json()["output"][0] == {"text": "x"}
    assert json.loads(market.provider.requests[0].body) == {**wanted, **TRACKED}
    assert market.provider.requests[0].header("content-encoding") == []


@pytest.mark.parametrize(
    ("name", "body", "code", "field"),
    [
        ("translation", b"{", "MALFORMED_JSON", ""),
        ("translation", b"[]", "INVALID_REQUEST", ""),
        ("translation", {"config": {}}, "VALIDATION_FAILED", "input"),
        ("translation", {"input": [{"text": ""}], "config": {}}, "VALIDATION_FAILED", "input[0].text"),
        ("translation", {"input": [{"text": "a"}], "config": {"source": "hi"}}, "VALIDATION_FAILED", "config.target"),
        ("asr", {"input": [{"text": "a"}], "config": {}}, "VALIDATION_FAILED", "input[0].audio.content"),
        (
            "asr",
            {"input": [{"audio": {"content": "AAAA"}}], "config": {"language": "hi"}},
            "VALIDATION_FAILED",
            "input[0].audio.content",
        ),
        (
            "tts",
            {"input": [{"text": "a"}], "config": {"language": "hi", "voice": "robot"}},
            "VALIDATION_FAILED",
            "config.voice",
        ),
    ],
    ids=str,
)
async def test_what_is_no_task_is_not_sent(market: Market, name: str, body: Any, code: str, field: str) -> None:
    put(market, name)
    response = await invoke(market, body)
    assert (400 <= response.status < 500, response.json()["code"]) == (True, code), response.body
    if field:
        assert response.json()["errors"][0]["field"] == field
    assert market.provider.requests == []
    assert (await market.settled_event()).outcome == Outcome.REFUSED


@pytest.mark.parametrize(
    ("theirs", "status", "code", "said"),
    [
        (answer(400, b'{"detail":{"message":"No such language"}}'), 400, "PROVIDER_REFUSED", "No such language"),
        (answer(422, b'{"message":"Too long"}'), 422, "PROVIDER_REFUSED", "Too long"),
        (answer(401, b'{"detail":"Not authenticated"}'), 401, "PROVIDER_REFUSED", "Not authenticated"),
        (answer(500, b"oops"), 500, "PROVIDER_FAILED", "oops"),
        (answer(200, b"oops"), 502, "PROVIDER_FAILED", "not JSON"),
        (answer(200, b"[]"), 502, "PROVIDER_FAILED", "no `output`"),
        (answer(200, b'{"pipelineResponse":[]}'), 502, "PROVIDER_FAILED", "no `output`"),
        (answer(200, b'{"output":[{"target":"x"}]}'), 502, "PROVIDER_FAILED", "1 items for 2"),
        (answer(200, b'{"output":[{"target":5},{"target":6}]}'), 502, "PROVIDER_FAILED", "no `output`"),
    ],
    ids=lambda value: value.decode().rpartition("\n")[2] if isinstance(value, bytes) else "",
)
async def test_what_they_refuse_or_get_wrong_is_not_billed(
    market: Market, theirs: bytes, status: int, code: str, said: str
) -> None:
    put(market, "translation")
    market.provider.behaviour = theirs
    response = await invoke(market, EXAMPLES["translation"][3])
    assert (response.status, response.json()["code"]) == (status, code)
    assert said in response.json()["detail"]
    event = await market.settled_event()
    assert (event.outcome, event.units) == (Outcome.PROVIDER_FAILED, {})


async def test_nothing_else_is_at_their_address(market: Market) -> None:
    put(market, "translation")
    assert (await invoke(market, {}, path="/other")).status == 404
    assert (await invoke(market, {}, method="PUT")).status == 405
    put(market, "translation", address="/somewhere")
    response = await invoke(market, EXAMPLES["translation"][3])
    assert (response.status, response.json()["code"]) == (400, "INVALID_REQUEST")
    assert market.provider.requests == []
