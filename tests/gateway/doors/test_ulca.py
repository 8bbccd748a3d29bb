"""The compute call of ULCA's door: every task, tasks in a row, and what is refused."""

from __future__ import annotations

import base64
import json
import wave
from io import BytesIO
from typing import Any

import pytest

from gateway.doors.ulca_market import PICTURE, RATE, SPOKEN, add, behave, sound, stock, task, texts, wav
from gateway.rig import Market, Response, answer
from haat.gateway.doors.ulca.services import ALIASES
from haat.gateway.limits.registry import PlanLimits
from haat.usage.event import Outcome

PIPELINE = "/services/inference/pipeline"


@pytest.fixture
def shelf(market: Market) -> Market:
    return stock(market)


async def post(market: Market, path: str, body: Any, key: str | None = None) -> Response:
    """Send a request as ULCA's clients do: the key alone, no Bearer."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = f"POST {path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n"
    client = await market.connect()
    await client.send(f"{lines}Authorization: {key or market.key}\r\n\r\n".encode() + raw)
    response = await client.receive("POST")
    assert response is not None
    return response


async def compute(market: Market, *tasks: Any, data: Any, **more: Any) -> Response:
    return await post(market, PIPELINE, {"pipelineTasks": list(tasks), "inputData": data, **more})


def asked(market: Market) -> list[Any]:
    return [json.loads(request.body) for request in market.provider.requests]


def part(name: str, output: Any, audio: Any = None, config: Any = None) -> dict[str, Any]:
    return {"taskType": name, "config": config, "output": output, "audio": audio}


SPEECH_CONFIG = {
    "language": {"sourceLanguage": "hi"},
    "gender": "female",
    "audioFormat": "wav",
    "encoding": "base64",
    "samplingRate": RATE,
}
TOKEN = {"token": "Asha", "tag": "B-PER", "tokenIndex": 0, "tokenStartIndex": 0, "tokenEndIndex": 4}
EACH = {
    "translation": (
        task("translation", "hi", "ur"),
        texts("a", "b"),
        {"input": [{"text": "a"}, {"text": "b"}], "config": {"source": "hi-Deva", "target": "ur-Arab"}},
        part(
            "translation",
            [{"source": text, "target": f"{text} [hi-Deva>ur-Arab]"} for text in ("a", "b")],
        ),
    ),
    "transliteration": (
        task("transliteration", "en", "hi", isSentence=False, numSuggestions=2),
        texts("ram"),
        {"input": [{"text": "ram"}], "config": {"source": "hi-Latn", "target": "hi-Deva"}},
        part("transliteration", [{"source": "ram", "target": ["RAM", "Ram"]}]),
    ),
    "asr": (
        task("asr", "hi", audioFormat="wav", samplingRate=float(RATE), preProcessors=["vad"], postProcessors=["itn"]),
        sound(),
        {"input": [{"audio": {"content": SPOKEN, "format": "wav"}}], "config": {"language": "hi-Deva"}},
        part("asr", [{"source": "heard hi-Deva", "nBestTokens": None}]),
    ),
    "tts": (
        task("tts", "hi", gender="female", samplingRate=8000, audioFormat="wav"),
        texts("a"),
        {"input": [{"text": "a"}], "config": {"language": "hi-Deva", "voice": "female"}},
        part("tts", None, [{"audioContent": SPOKEN, "audioUri": None}], SPEECH_CONFIG),
    ),
    "ner": (
        task("ner", "en"),
        texts("Asha"),
        {"input": [{"text": "Asha"}], "config": {"language": "en-Latn"}},
        part("ner", [{"source": "Asha", "nerPrediction": [TOKEN], "entities": [{"text": "Asha", "label": "PER"}]}]),
    ),
    "txt-lang-detection": (
        {"taskType": "txt-lang-detection"},
        texts("a"),
        {"input": [{"text": "a"}]},
        part(
            "txt-lang-detection",
            [{"source": "a", "langPrediction": [{"langCode": "te", "ScriptCode": "Telu", "langScore": 0.75}]}],
        ),
    ),
    "ocr": (
        task("ocr", "hi", textDetection="False"),
        {"image": [{"imageContent": PICTURE}]},
        {"input": [{"image": {"content": PICTURE, "format": "png"}}], "config": {"language": "hi-Deva"}},
        part("ocr", [{"source": "read png hi-Deva"}]),
    ),
}


@pytest.mark.speaks("ulca pipeline")
@pytest.mark.parametrize("name", EACH)
async def test_each_task_becomes_one_native_call_and_comes_back_in_its_own_shape(shelf: Market, name: str) -> None:
    wanted, data, native, shown = EACH[name]
    response = await compute(shelf, wanted, data=data, controlConfig={"dataTracking": False})
    assert response.status == 200, response.body
    assert response.json() == {"pipelineResponse": [shown]}
    assert asked(shelf) == [native]
    event = await shelf.settled_event()
    assert (event.outcome, event.units["characters"]) == (Outcome.COMPLETED, "7")
    assert (event.id, response.header("x-haat-units")) == (response.header("x-request-id"), "characters=7")


async def test_neither_record_nor_limits_tell_a_task_from_a_native_call(shelf: Market) -> None:
    wanted, data, native, _ = EACH["translation"]
    raw = json.dumps(native, separators=(",", ":")).encode()
    await shelf.call("POST", "/v1/services/acme/translate/invoke", raw, "Content-Type: application/json")
    await compute(shelf, wanted, data=data)
    await shelf.until(lambda: len(shelf.confirmed()) == 2)
    own = {"id", "at", "timings_us"}
    one, other = (
        {name: getattr(event, name) for name in event.__struct_fields__ if name not in own} for event in shelf.events()
    )
    assert one == other


@pytest.mark.parametrize("alias", sorted(ALIASES))
async def test_a_name_that_clients_have_written_into_them_is_the_best_service_for_it(shelf: Market, alias: str) -> None:
    name = ALIASES[alias]
    add(shelf, "stranger", {"asr": "hear", "tts": "speak", "ner": "names"}.get(name, "translate"), subscribed=None)
    wanted, data, _, shown = EACH[name]
    wanted = {**wanted, "config": {**wanted.get("config", {}), "serviceId": alias}}
    response = await compute(shelf, wanted, data=data)
    assert response.status == 200, response.body
    assert response.json() == {"pipelineResponse": [shown]}


async def test_a_listing_of_that_name_comes_before_what_we_take_it_for(shelf: Market) -> None:
    alias = "ai4bharat/indictrans-v2-all-gpu--t4"
    add(shelf, "own", "translate", aliases=(alias,))
    await compute(shelf, task("translation", "hi", "ur", serviceId=alias), data=texts("a"))
    assert (await shelf.settled_event()).service_slug == "own"


@pytest.mark.parametrize("service", ["acme/translate", "acme/translate@1", "translation:hi-ur"])
async def test_a_service_is_named_as_anywhere_else(shelf: Market, service: str) -> None:
    response = await compute(shelf, task("translation", "hi", "ur", serviceId=service), data=texts("a"))
    assert response.status == 200, response.body
    assert (await shelf.settled_event()).service_slug == "translate"


@pytest.mark.parametrize("data", [{"audio": [{"audioContent": None}]}, {"audio": []}, {"audio": None, "image": []}])
async def test_placeholders_of_other_kinds_are_not_looked_at(shelf: Market, data: Any) -> None:
    response = await compute(shelf, task("translation", "hi", "ur"), data={**texts("a"), **data})
    assert response.status == 200, response.body
    spoken = {**sound(), "input": [{"source": None}]}
    assert (await compute(shelf, task("asr", "hi"), data=spoken)).status == 200


# --- content ------------------------------------------------------------------------------------


async def test_bare_samples_get_a_head_and_lose_it_again(shelf: Market) -> None:
    samples = b"\x05\x00" * 400
    spoken = {"audio": [{"audioContent": base64.b64encode(samples).decode()}]}
    wanted = task("asr", "hi", audioFormat="pcm", samplingRate=8000)
    response = await compute(shelf, wanted, data=spoken)
    assert response.status == 200, response.body
    item = asked(shelf)[0]["input"][0]["audio"]
    with wave.open(BytesIO(base64.b64decode(item["content"])), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        assert (file.readframes(400), item["format"]) == (samples, "wav")
    response = await compute(shelf, task("tts", "hi", audioFormat="pcm"), data=texts("a"))
    [answered] = response.json()["pipelineResponse"]
    assert base64.b64decode(answered["audio"][0]["audioContent"]) == b"\x01\x00" * 80
    assert (answered["config"]["audioFormat"], answered["config"]["samplingRate"]) == ("pcm", RATE)


async def test_content_may_be_broken_into_lines_or_stand_in_a_data_address(shelf: Market) -> None:
    broken = "\n".join(PICTURE[at : at + 8] for at in range(0, len(PICTURE), 8))
    for image in ({"imageContent": broken}, {"imageUri": f"data:image/png;base64,{PICTURE}"}):
        response = await compute(shelf, task("ocr", "hi"), data={"image": [image]})
        assert response.status == 200, response.body
    assert [body["input"][0]["image"]["content"] for body in asked(shelf)] == [PICTURE, PICTURE]


async def test_the_rate_of_a_sound_is_read_from_its_head_when_nobody_says_it(shelf: Market) -> None:
    sounds = {"output": [{"audio": {"content": wav(rate=11_025)}}]}
    shelf.provider.behaviour = behave(speak=answer(200, json.dumps(sounds).encode()))
    response = await compute(shelf, task("tts", "hi"), data=texts("a"))
    assert response.json()["pipelineResponse"][0]["config"]["samplingRate"] == 11_025


# --- tasks in a row -----------------------------------------------------------------------------


async def test_what_is_heard_is_translated_and_spoken_and_each_is_a_call_of_its_own(shelf: Market) -> None:
    # The last task names the first one's language, as a known client does: it is the translation that is spoken.
    tasks = task("asr", "hi"), task("translation", "hi", "ur"), task("tts", "hi", gender="female")
    response = await compute(shelf, *tasks, data={**sound(), "input": [{"source": None}]})
    assert response.status == 200, response.body
    heard, translated = "heard hi-Deva", "heard hi-Deva [hi-Deva>ur-Arab]"
    config = {**SPEECH_CONFIG, "language": {"sourceLanguage": "ur"}}
    assert response.json() == {
        "pipelineResponse": [
            part("asr", [{"source": heard, "nBestTokens": None}]),
            part("translation", [{"source": heard, "target": translated}]),
            part("tts", None, [{"audioContent": SPOKEN, "audioUri": None}], config),
        ]
    }
    assert asked(shelf)[2] == {"input": [{"text": translated}], "config": {"language": "ur-Arab", "voice": "female"}}
    await shelf.until(lambda: len(shelf.confirmed()) == 3)
    assert [(event.service_slug, event.outcome) for event in shelf.events()] == [
        (slug, Outcome.COMPLETED) for slug in ("hear", "translate", "speak")
    ]
    assert {event.trace for event in shelf.events()} == {(response.header("x-request-id") or "").replace("-", "")}


@pytest.mark.parametrize(
    ("tasks", "data", "slugs"),
    [
        ([task("asr", "hi"), task("translation", "hi", "ur")], sound(), ["hear", "translate"]),
        ([task("translation", "hi", "ur"), task("tts", "ur")], texts("a", "b"), ["translate", "speak"]),
        ([task("translation", "hi", "ur"), task("tts")], texts("a"), ["translate", "speak"]),
        (
            [task("transliteration", "en", "hi", isSentence=True), task("translation", "hi", "ur")],
            texts("ram"),
            ["letters", "translate"],
        ),
        ([task("transliteration", "en", "hi"), task("tts", "hi")], texts("ram"), ["letters", "speak"]),
        ([task("ocr", "hi"), task("translation", "hi", "en")], {"image": [{"imageContent": PICTURE}]}, None),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) and isinstance(value[0], str) else "",
)
async def test_tasks_that_fit_may_stand_in_a_row(shelf: Market, tasks: Any, data: Any, slugs: Any) -> None:
    response = await compute(shelf, *tasks, data=data)
    assert response.status == 200, response.body
    assert [one["taskType"] for one in response.json()["pipelineResponse"]] == [one["taskType"] for one in tasks]
    await shelf.until(lambda: len(shelf.confirmed()) == 2)
    assert [event.service_slug for event in shelf.events()] == (slugs or ["read", "translate"])


async def test_speech_falls_back_to_the_language_it_names_when_nobody_speaks_the_texts(shelf: Market) -> None:
    response = await compute(shelf, task("translation", "hi", "en"), task("tts", "hi"), data=texts("a"))
    assert response.status == 200, response.body
    assert asked(shelf)[1]["config"] == {"language": "hi-Deva"}


async def test_silence_passes_through_the_tasks_behind_it_without_being_sent_to_anybody(shelf: Market) -> None:
    quiet = {"audio": [{"audioContent": SPOKEN}, {"audioContent": wav(b"\0\0" * 80)}]}
    response = await compute(shelf, task("asr", "hi"), task("translation", "hi", "ur"), data=quiet)
    assert [one["target"] for one in response.json()["pipelineResponse"][1]["output"]] == [
        "heard hi-Deva [hi-Deva>ur-Arab]",
        "",
    ]
    assert [len(body["input"]) for body in asked(shelf)] == [2, 1]
    quiet["audio"].pop(0)
    response = await compute(shelf, task("asr", "hi"), task("translation", "hi", "ur"), task("tts"), data=quiet)
    assert response.status == 200, response.body
    assert response.json()["pipelineResponse"][2]["audio"] == [{"audioContent": "", "audioUri": None}]
    await shelf.until(lambda: len(shelf.confirmed()) == 3)
    assert [event.service_slug for event in shelf.events()] == ["hear", "translate", "hear"]


@pytest.mark.parametrize(
    ("broken", "status", "code"),
    [
        (answer(422, b'{"code":"INPUT_TOO_LONG","title":"t","detail":"Too long."}'), 422, "INPUT_TOO_LONG"),
        (answer(500, b"oops"), 500, "PROVIDER_FAILED"),
        (answer(200, b'{"output":[]}'), 502, "PROVIDER_FAILED"),
        (answer(200, b'{"output":[{"label":"x"}]}'), 502, "PROVIDER_FAILED"),
        (answer(200, b"[]"), 502, "PROVIDER_FAILED"),
    ],
    ids=["refused", "failed", "too few", "no text", "no task"],
)
async def test_a_failure_of_the_second_task_leaves_the_first_one_billed(
    shelf: Market, broken: bytes, status: int, code: str
) -> None:
    shelf.provider.behaviour = behave(translate=broken)
    response = await compute(shelf, task("asr", "hi"), task("translation", "hi", "ur"), data=sound())
    assert (response.status, response.json()["code"]) == (status, code), response.body
    await shelf.until(lambda: len(shelf.confirmed()) == 2)
    first, second = shelf.events()
    assert (first.service_slug, first.outcome, first.units["characters"]) == ("hear", Outcome.COMPLETED, "7")
    assert second.service_slug == "translate"
    if not broken.startswith(b"HTTP/1.1 200"):
        assert (second.outcome, second.units) == (Outcome.PROVIDER_FAILED, {})


async def test_a_limit_says_when_to_come_back(shelf: Market) -> None:
    for slug in ("translate", "speak"):
        shelf.subscribe(f"acme/{slug}", PlanLimits(per_minute=1))
    both = task("translation", "hi", "ur"), task("tts", "ur")
    assert (await compute(shelf, *both, data=texts("a"))).status == 200
    for tasks in (both[:1], both):
        response = await compute(shelf, *tasks, data=texts("a"))
        refused = response.json()
        assert (response.status, refused["code"], refused["detail"]["code"]) == (429, "RATE_LIMITED", "RATE_LIMITED")
        assert refused["message"] == refused["detail"]["message"]
        assert int(response.header("retry-after") or 0) > 0
    assert refused["message"].startswith("Stage 1 (translation): ")


async def test_a_providers_own_limit_says_so_too(shelf: Market) -> None:
    shelf.provider.behaviour = behave(translate=answer(429, b"{}", "Retry-After: 9"))
    for tasks in ([task("translation", "hi", "ur")], [task("translation", "hi", "ur"), task("tts", "ur")]):
        response = await compute(shelf, *tasks, data=texts("a"))
        assert (response.status, response.header("retry-after")) == (429, "9")


# --- refusals -----------------------------------------------------------------------------------

HINDI = task("translation", "hi", "ur")
WRONG: dict[str, tuple[Any, Any, int, str, str]] = {
    "unknown task": ([task("poetry")], texts("a"), 422, "VALIDATION_FAILED", "pipelineTasks[0].taskType"),
    "vad in a row": ([task("vad")], sound(), 422, "VALIDATION_FAILED", "pipelineTasks[0].taskType"),
    "no tasks": ([], texts("a"), 422, "VALIDATION_FAILED", "pipelineTasks"),
    "too many": ([HINDI] * 9, texts("a"), 422, "VALIDATION_FAILED", "pipelineTasks"),
    "no task type": ([{"config": {}}], texts("a"), 422, "VALIDATION_FAILED", "pipelineTasks[0]"),
    "no language": ([task("translation", "hi")], texts("a"), 422, "VALIDATION_FAILED", "language.targetLanguage"),
    "no such pair": ([task("translation", "hi", "ta")], texts("a"), 422, "UNSUPPORTED_LANGUAGE", "hi-Deva>ta-Taml"),
    "no such language": ([task("tts", "xx")], texts("a"), 422, "UNSUPPORTED_LANGUAGE", "config.language"),
    "named, no such pair": (
        [task("translation", "hi", "ta", serviceId="acme/translate")],
        texts("a"),
        422,
        "UNSUPPORTED_LANGUAGE",
        "config.language",
    ),
    "no such service": (
        [task("translation", "hi", "ur", serviceId="no/such")],
        texts("a"),
        404,
        "SERVICE_NOT_FOUND",
        "pipelineTasks[0].config.serviceId",
    ),
    "no such version": (
        [task("translation", "hi", "ur", serviceId="acme/translate@é")],
        texts("a"),
        404,
        "SERVICE_NOT_FOUND",
        "serviceId",
    ),
    "a name for nothing": (
        [task("translation", "hi", "ur", serviceId="x y\ud83d\ude00")],
        texts("a"),
        404,
        "SERVICE_NOT_FOUND",
        "serviceId",
    ),
    "another kind of service": (
        [task("translation", "hi", "ur", serviceId="acme/speak")],
        texts("a"),
        422,
        "VALIDATION_FAILED",
        "config.serviceId",
    ),
    "another kind of capability": (
        [task("ner", "en", serviceId="acme/detect")],
        texts("a"),
        422,
        "VALIDATION_FAILED",
        "config.serviceId",
    ),
    "no task service": (
        [task("translation", "hi", "ur", serviceId="acme/own-api")],
        texts("a"),
        422,
        "VALIDATION_FAILED",
        "config.serviceId",
    ),
    "an alias for something else": (
        [task("tts", "hi", serviceId="ai4bharat/indictrans-v2-all-gpu--t4")],
        texts("a"),
        422,
        "VALIDATION_FAILED",
        "config.serviceId",
    ),
    "nobody subscribed": ([task("translation", "ta", "te")], texts("a"), 403, "NOT_SUBSCRIBED", "acme/foreign"),
    "named, not subscribed": (
        [task("translation", "ta", "te", serviceId="acme/foreign")],
        texts("a"),
        403,
        "NOT_SUBSCRIBED",
        "acme/foreign",
    ),
    "second not subscribed": (
        [HINDI, task("translation", "ta", "te")],
        texts("a"),
        403,
        "NOT_SUBSCRIBED",
        "acme/foreign",
    ),
    "no input": ([HINDI], {}, 422, "VALIDATION_FAILED", "inputData.input"),
    "no texts": ([HINDI], {"input": []}, 422, "VALIDATION_FAILED", "inputData.input"),
    "an empty text": ([HINDI], texts("a", " "), 422, "VALIDATION_FAILED", "inputData.input[1].source"),
    "a placeholder only": ([HINDI], {"input": [{"source": None}]}, 422, "VALIDATION_FAILED", "input[0].source"),
    "a number": ([HINDI], {"input": [{"source": 5}]}, 422, "VALIDATION_FAILED", "inputData.input[0].source"),
    "no base64": ([task("asr", "hi")], sound("no!"), 422, "VALIDATION_FAILED", "inputData.audio[0].audioContent"),
    "not even ASCII": ([task("asr", "hi")], sound("नमस्ते"), 422, "VALIDATION_FAILED", "audio[0].audioContent"),
    "no content": ([task("asr", "hi")], {"audio": [{}]}, 422, "VALIDATION_FAILED", "audio[0].audioContent"),
    "an address of sound": (
        [task("asr", "hi")],
        {"audio": [{"audioUri": "https://sound.example/a.wav"}]},
        422,
        "VALIDATION_FAILED",
        "inputData.audio[0].audioUri",
    ),
    "an address of an image": (
        [task("ocr", "hi")],
        {"image": [{"imageUri": "http://127.0.0.1/a.png"}]},
        422,
        "VALIDATION_FAILED",
        "inputData.image[0].imageUri",
    ),
    "samples of no rate": (
        [task("asr", "hi", audioFormat="pcm")],
        sound("AAAA"),
        422,
        "VALIDATION_FAILED",
        "pipelineTasks[0].config.samplingRate",
    ),
    "subtitles": (
        [task("asr", "hi", transcriptionFormat={"value": "srt"})],
        sound(),
        422,
        "VALIDATION_FAILED",
        "config.transcriptionFormat.value",
    ),
    "a voice": ([task("tts", "hi", gender="robot")], texts("a"), 422, "VALIDATION_FAILED", "config.gender"),
    "a format": ([task("tts", "hi", audioFormat="mp3")], texts("a"), 422, "VALIDATION_FAILED", "audioFormat"),
    "what does not fit": (
        [task("tts", "hi"), HINDI],
        texts("a"),
        422,
        "VALIDATION_FAILED",
        "pipelineTasks[1].taskType",
    ),
    "words of one by one": (
        [task("transliteration", "en", "hi", isSentence=False), HINDI],
        texts("a"),
        422,
        "VALIDATION_FAILED",
        "pipelineTasks[0].config.isSentence",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_cannot_be_done_is_refused_with_its_field_and_asks_nobody(shelf: Market, name: str) -> None:
    add(shelf, "own-api", "translate", dialect="http")
    add(shelf, "foreign", "translate", subscribed=None, languages={"language_pairs": ("ta-Taml>te-Telu",)})
    tasks, data, status, code, named = WRONG[name]
    response = await compute(shelf, *tasks, data=data)
    refused = response.json()
    assert (response.status, refused["code"]) == (status, code), refused
    assert named in refused["message"]
    assert refused["detail"]["message"] == refused["message"]
    assert refused["request_id"] == response.header("x-request-id")
    assert shelf.provider.requests == []
    event = await shelf.settled_event()
    assert (event.outcome, event.error_code, event.units) == (Outcome.REFUSED, code, {})


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "MALFORMED_JSON"),
        (b"\xff\xfe", 400, "MALFORMED_JSON"),
        (b"[]", 422, "VALIDATION_FAILED"),
        (b'{"pipelineTasks":[]}', 422, "VALIDATION_FAILED"),
        (b'{"inputData":{}}', 422, "VALIDATION_FAILED"),
        (b'{"pipelineTasks":[' + b"[" * 5000, 400, "MALFORMED_JSON"),
        (b'{"pipelineTasks":[{"taskType":"tts"}],"inputData":{"input":[{"source":"\\ud800"}]}}', 400, "MALFORMED_JSON"),
    ],
    ids=["cut", "not UTF-8", "a list", "no data", "no tasks", "deep", "half a letter"],
)
async def test_a_body_of_another_shape_is_refused(shelf: Market, body: bytes, status: int, code: str) -> None:
    response = await post(shelf, PIPELINE, body)
    assert (response.status, response.json()["code"]) == (status, code), response.body
    assert shelf.provider.requests == []


async def test_a_stranger_is_refused_in_the_same_shape(shelf: Market) -> None:
    response = await post(shelf, PIPELINE, {}, key="haat_test_nobody")
    assert (response.status, response.json()["code"]) == (401, "INVALID_CREDENTIAL")
    response = await post(shelf, PIPELINE, {}, key="someone-elses-key")
    assert (response.status, response.json()["code"]) == (401, "UNAUTHENTICATED")
    assert response.json()["message"] and response.json()["detail"]["message"]


@pytest.mark.parametrize(
    "broken",
    [
        b'{"output":[{"nothing":1}]}',
        b'{"output":[]}',
        b'{"output":[{"text":"a"},{"text":"b"}]}',
        b"[]",
        b"oops",
    ],
    ids=lambda value: value.decode(),
)
@pytest.mark.parametrize("name", EACH)
async def test_an_answer_that_is_not_the_tasks_is_a_failure_of_the_provider(
    shelf: Market, name: str, broken: bytes
) -> None:
    shelf.provider.behaviour = answer(200, broken)
    wanted, data, _, _ = EACH[name]
    data = {kind: items[:1] for kind, items in data.items()}
    response = await compute(shelf, wanted, data=data)
    assert (response.status, response.json()["code"]) == (502, "PROVIDER_FAILED")
    assert (await shelf.settled_event()).units == {}


# --- one task at an address of its own ----------------------------------------------------------


@pytest.mark.speaks("ulca translation", "ulca transliteration", "ulca asr", "ulca tts", "ulca ner", "ulca ocr")
@pytest.mark.parametrize("name", [name for name in EACH if name != "txt-lang-detection"])
@pytest.mark.parametrize("query", ["", "?serviceId=", "named"])
async def test_a_task_has_an_address_of_its_own(shelf: Market, name: str, query: str) -> None:
    wanted, data, native, shown = EACH[name]
    if query == "named":
        query = "?serviceId=" + next(alias for alias, meant in ALIASES.items() if meant == name).replace("/", "%2F")
    body = {"config": wanted["config"], **data, "controlConfig": {"dataTracking": True}}
    response = await post(shelf, f"/services/inference/{name}{query}", body)
    assert response.status == 200, response.body
    assert response.json() == shown
    assert asked(shelf) == [native]
    assert (await shelf.settled_event()).units["characters"] == "7"


@pytest.mark.speaks("ulca vad")
async def test_it_is_told_when_somebody_speaks(shelf: Market) -> None:
    response = await post(shelf, "/services/inference/vad?serviceId=acme/listen", {"config": {}, **sound()})
    assert response.status == 200, response.body
    assert response.json() == part("vad", [{"timestamps": [{"start": 0.25, "end": 1.5}]}])
    assert asked(shelf) == [{"input": [{"audio": {"content": SPOKEN, "format": "wav"}}]}]


@pytest.mark.speaks("ulca s2s")
async def test_speech_to_speech_is_three_calls(shelf: Market) -> None:
    config = {"language": {"sourceLanguage": "hi", "targetLanguage": "ur"}, "gender": "male", "audioFormat": "wav"}
    response = await post(shelf, "/services/inference/s2s", {"config": config, **sound()})
    assert response.status == 200, response.body
    said = response.json()
    assert (said["taskType"], said["audio"]) == ("s2s", [{"audioContent": SPOKEN, "audioUri": None}])
    assert said["output"] == [{"source": "heard hi-Deva", "target": "heard hi-Deva [hi-Deva>ur-Arab]"}]
    assert said["config"]["language"] == {"sourceLanguage": "ur"}
    await shelf.until(lambda: len(shelf.confirmed()) == 3)
    assert [event.service_slug for event in shelf.events()] == ["hear", "translate", "speak"]
    response = await post(shelf, "/services/inference/s2s?serviceId=acme/hear", {"config": config, **sound()})
    assert (response.status, "serviceId" in response.json()["message"]) == (422, True)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("translation", {"config": {"language": {"sourceLanguage": "hi"}}}, "config.language.targetLanguage"),
        ("translation", {"config": task("translation", "hi", "ur")["config"]}, "input"),
        ("translation?serviceId=acme/speak", {"config": HINDI["config"], **texts("a")}, "config.serviceId"),
        ("asr", {"config": task("asr", "hi")["config"], **sound("!")}, "audio[0].audioContent"),
        ("s2s", {"config": task("asr", "hi")["config"], **sound()}, "config.language.targetLanguage"),
        ("vad", sound(""), "audio[0].audioContent"),
    ],
    ids=str,
)
async def test_a_task_alone_is_refused_with_its_field(shelf: Market, path: str, body: Any, field: str) -> None:
    response = await post(shelf, f"/services/inference/{path}", body)
    assert (response.status, response.json()["code"]) == (422, "VALIDATION_FAILED"), response.body
    assert response.json()["message"].startswith(f"{field}: ")
    assert shelf.provider.requests == []
