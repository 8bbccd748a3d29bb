"""Speech and transcriptions at the OpenAI-compatible door."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import tracemalloc
import wave
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from msgspec import structs

from gateway.bills import PRICE, billed
from gateway.doors.forms import BOUNDARY, CONTENT_TYPE, form
from gateway.doors.upstreams import events, stream
from gateway.rig import MakeMarket, Market, Provider, answer
from haat.gateway.market.policy import VersionPolicy
from haat.usage.event import Outcome

MB = 1 << 20
PATH = "/v1/audio/transcriptions"


def open_files() -> int:
    """Return how many nameless bodies this process has open."""
    names = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            names.append(str(link.readlink()))
    return sum("/body-" in name for name in names)


def wav(samples: bytes = b"\1\0\2\0", rate: int = 22050) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as made:
        made.setnchannels(1)
        made.setsampwidth(2)
        made.setframerate(rate)
        made.writeframes(samples)
    return file.getvalue()


@pytest.fixture
def audio(market: Market) -> Market:
    market.add_service(
        "hear",
        dialect="task",
        category="speech_to_text",
        unit="audio_seconds",
        price=PRICE,
        languages=("hi-Deva", "en-Latn"),
    )
    market.add_service(
        "speak",
        dialect="task",
        category="text_to_speech",
        unit="characters",
        price=PRICE,
        languages=("hi-Deva", "en-Latn"),
    )
    market.add_service(
        "whisper", dialect="openai", category="speech_to_text", model="whisper-1", unit="audio_seconds", price=PRICE
    )
    return market


# --- speech -------------------------------------------------------------------------------------

SPEECH = ("speak", "completed", {"characters": "7"}, "0.875")


def spoken(content: bytes, form: str = "wav", rate: Any = 22_050) -> bytes:
    audio = {"content": base64.b64encode(content).decode(), "format": form, "sample_rate": rate}
    return answer(200, json.dumps({"output": [{"audio": audio}]}).encode(), "X-Haat-Usage: characters=7")


@pytest.mark.speaks("openai audio.speech", client="openai (PyPI)")
@pytest.mark.parametrize(
    ("asked", "config"),
    [
        ({"voice": "alloy"}, {"language": "hi-Deva"}),
        ({"voice": "female", "speed": 1.5}, {"language": "hi-Deva", "voice": "female", "rate": 240}),
        ({"voice": "alloy", "extra_body": {"language": "en"}}, {"language": "en-Latn"}),
    ],
    ids=["plain", "voice and speed", "language"],
)
async def test_a_text_is_spoken(
    audio: Market, client: openai.AsyncOpenAI, asked: dict[str, Any], config: dict[str, Any]
) -> None:
    audio.provider.behaviour = spoken(wav())
    text = "नमस्ते, आप कैसे हैं? आज मौसम बहुत अच्छा है।"
    made = await client.audio.speech.create(model="acme/speak", input=text, response_format="wav", **asked)
    assert made.content == wav() and made.response.headers["content-type"] == "audio/wav"
    assert json.loads(audio.provider.requests[0].body) == {"input": [{"text": text}], "config": config}
    assert await billed(audio) == [SPEECH]


async def test_pcm_is_the_samples_alone(audio: Market, client: openai.AsyncOpenAI) -> None:
    audio.provider.behaviour = spoken(wav())
    made = await client.audio.speech.create(
        model="text_to_speech:hi", input="नमस्ते", voice="alloy", response_format="pcm"
    )
    assert made.content == b"\1\0\2\0"
    assert made.response.headers["content-type"] == "audio/pcm;rate=22050"
    assert json.loads(audio.provider.requests[0].body)["config"] == {"language": "hi-Deva"}
    assert await billed(audio) == [SPEECH]


@pytest.mark.parametrize(
    ("asked", "field_"),
    [
        ({"response_format": "mp3"}, "response_format"),
        ({"speed": 9.0}, "speed"),
        ({"stream_format": "sse"}, "stream_format"),
        ({"input": " "}, "input"),
        ({"input": "12345"}, "language"),
        ({"model": "acme/echo"}, "model"),
    ],
)
async def test_what_can_not_be_spoken_is_refused_by_its_field(
    audio: Market, client: openai.AsyncOpenAI, asked: dict[str, Any], field_: str
) -> None:
    body: dict[str, Any] = {"model": "acme/speak", "input": "नमस्ते", "voice": "alloy", "response_format": "wav", **asked}
    with pytest.raises(openai.BadRequestError) as raised:
        await client.audio.speech.create(**body)
    assert raised.value.param == field_
    assert await billed(audio) == [("", "refused", {}, "0")]
    assert audio.provider.requests == []


@pytest.mark.parametrize("content", [b"", b"RIFFxxxxWAVE", b"ID3"], ids=repr)
async def test_an_answer_that_is_no_sound_is_the_providers_failure(
    audio: Market, client: openai.AsyncOpenAI, content: bytes
) -> None:
    audio.provider.behaviour = spoken(content)
    with pytest.raises(openai.InternalServerError):
        await client.audio.speech.create(model="text_to_speech:hi", input="नमस्ते", voice="alloy", response_format="pcm")
    assert await billed(audio) == [("speak", "provider_failed", {}, "0")]


def gives(market: Market, *formats: str) -> None:
    """Let the service that speaks say that it gives its sound in these."""
    service = market.gateway.directory.services["acme/speak"]
    versions = tuple(
        structs.replace(version, policy=VersionPolicy(audio_formats=formats)) for version in service.versions
    )
    market.gateway.directory.put_service(service.id, structs.replace(service, versions=versions))


@pytest.mark.speaks("openai audio.speech", client="openai (PyPI)")
@pytest.mark.parametrize(
    ("asked", "form", "content_type"),
    [
        ({}, "mp3", "audio/mpeg"),
        ({"response_format": "mp3"}, "mp3", "audio/mpeg"),
        ({"response_format": "opus"}, "opus", "audio/ogg"),
        ({"response_format": "aac"}, "aac", "audio/aac"),
        ({"response_format": "flac"}, "flac", "audio/flac"),
        ({"response_format": "pcm"}, "pcm", "audio/pcm;rate=24000"),
    ],
    ids=["none named", "mp3", "opus", "aac", "flac", "pcm"],
)
async def test_a_service_is_asked_for_a_format_that_it_gives(
    audio: Market, client: openai.AsyncOpenAI, asked: dict[str, Any], form: str, content_type: str
) -> None:
    gives(audio, "wav", "mp3", "opus", "aac", "flac", "pcm")
    audio.provider.behaviour = spoken(b"a sound", form, 24_000)
    made = await client.audio.speech.create(model="text_to_speech:hi", input="नमस्ते", voice="alloy", **asked)
    assert (made.content, made.response.headers["content-type"]) == (b"a sound", content_type)
    assert json.loads(audio.provider.requests[0].body)["config"] == {"language": "hi-Deva", "format": form}
    assert await billed(audio) == [SPEECH]


async def test_a_service_that_gives_no_mp3_gives_wav_when_nobody_names_a_format(
    audio: Market, client: openai.AsyncOpenAI
) -> None:
    audio.provider.behaviour = spoken(wav())
    for formats in ((), ("wav", "flac")):
        gives(audio, *formats)
        made = await client.audio.speech.create(model="text_to_speech:hi", input="नमस्ते", voice="alloy")
        assert (made.content, made.response.headers["content-type"]) == (wav(), "audio/wav")
        assert json.loads(audio.provider.requests[-1].body)["config"] == {"language": "hi-Deva"}
    assert await billed(audio) == [SPEECH, SPEECH]


@pytest.mark.parametrize(
    ("formats", "named"),
    [((), "wav, pcm"), (("mp3", "flac"), "mp3, flac, wav, pcm"), (("amr", "opus"), "opus, wav, pcm")],
)
async def test_a_format_that_is_not_given_is_refused_with_those_that_are(
    audio: Market, client: openai.AsyncOpenAI, formats: tuple[str, ...], named: str
) -> None:
    gives(audio, *formats)
    for wanted in ("aac", "amr"):
        with pytest.raises(openai.BadRequestError) as raised:
            await client.audio.speech.create(
                model="text_to_speech:hi", input="नमस्ते", voice="alloy", extra_body={"response_format": wanted}
            )
        assert raised.value.param == "response_format"
        assert f"this model gives {named}" in raised.value.message
    assert await billed(audio) == [("", "refused", {}, "0")] * 2
    assert audio.provider.requests == []


@pytest.mark.parametrize("rate", [0, -5, "24000", None, 0.5])
async def test_samples_that_come_at_no_rate_are_the_providers_failure(
    audio: Market, client: openai.AsyncOpenAI, rate: Any
) -> None:
    gives(audio, "pcm")
    audio.provider.behaviour = spoken(b"a sound.", "pcm", rate)
    with pytest.raises(openai.InternalServerError):
        await client.audio.speech.create(model="text_to_speech:hi", input="नमस्ते", voice="alloy", response_format="pcm")
    assert await billed(audio) == [("speak", "provider_failed", {}, "0")]


@pytest.mark.parametrize(
    "behaviour", [spoken(wav()), spoken(b"", "mp3"), spoken(b"x", "opus")], ids=["wav", "nothing", "opus"]
)
async def test_another_format_than_the_one_asked_for_is_the_providers_failure(
    audio: Market, client: openai.AsyncOpenAI, behaviour: bytes
) -> None:
    gives(audio, "mp3")
    audio.provider.behaviour = behaviour
    with pytest.raises(openai.InternalServerError):
        await client.audio.speech.create(model="text_to_speech:hi", input="नमस्ते", voice="alloy")
    assert await billed(audio) == [("speak", "provider_failed", {}, "0")]


def problem(code: str, status: int, **more: Any) -> bytes:
    return answer(status, json.dumps({"code": code, "title": "No", "detail": "No.", **more}).encode())


WRONG = {"errors": [{"field": "input[0].audio.content", "message": "is no recording"}]}


@pytest.mark.parametrize(
    "behaviour",
    [problem("VALIDATION_FAILED", 422, **WRONG), problem("INPUT_TOO_LONG", 422, limit=60)],
    ids=["no recording", "too long"],
)
async def test_a_service_that_refuses_the_recording_refuses_the_file(
    audio: Market, client: openai.AsyncOpenAI, behaviour: bytes
) -> None:
    audio.provider.behaviour = behaviour
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        await client.audio.transcriptions.create(model="acme/hear", file=("a.wav", wav()), language="hi")
    assert raised.value.param == "file"
    assert await billed(audio) == [("hear", "provider_failed", {}, "0")]


async def test_speech_of_who_speaks_the_protocol_passes_as_it_comes(audio: Market, client: openai.AsyncOpenAI) -> None:
    audio.add_service("tts", dialect="openai", category="text_to_speech", model="tts-1", unit="characters", price=PRICE)
    audio.provider.behaviour = answer(200, b"ID3mp3", "Content-Type: audio/mpeg")
    made = await client.audio.speech.create(model="acme/tts", input="नमस्ते", voice="alloy")
    assert made.content == b"ID3mp3"
    assert json.loads(audio.provider.requests[0].body)["model"] == "tts-1"
    assert await billed(audio) == [("tts", "completed", {"characters": "6"}, "0.75")]


# --- transcriptions of a task service ------------------------------------------------------------

HEARD = answer(
    200,
    json.dumps({"output": [{"text": "नमस्ते", "seconds": 61.25}], "usage": {"audio_seconds": 61.25}}).encode(),
    "X-Haat-Usage: audio_seconds=61.25",
)
TRANSCRIPTION = ("hear", "completed", {"audio_seconds": "61.25"}, "7.65625")


@pytest.mark.speaks("openai audio.transcriptions", client="openai (PyPI)")
async def test_a_recording_is_transcribed(audio: Market, client: openai.AsyncOpenAI) -> None:
    audio.provider.behaviour = HEARD
    made = await client.audio.transcriptions.create(model="acme/hear", file=("a.wav", wav()), language="hi")
    assert made.text == "नमस्ते"
    body = json.loads(audio.provider.requests[0].body)
    content = base64.b64encode(wav()).decode()
    assert body == {"input": [{"audio": {"content": content, "format": "wav"}}], "config": {"language": "hi-Deva"}}
    assert await billed(audio) == [TRANSCRIPTION]
    assert (await audio.settled_event()).path_template == "/v1/services/{provider}/{service}/{path}"


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ("text", "नमस्ते\n"),
        ("srt", "1\n00:00:00,000 --> 00:01:01,250\nनमस्ते\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:01:01.250\nनमस्ते\n"),
    ],
)
async def test_other_shapes_of_a_transcription(
    audio: Market, client: openai.AsyncOpenAI, shape: Any, wanted: str
) -> None:
    audio.provider.behaviour = HEARD
    made: Any = await client.audio.transcriptions.create(
        model="acme/hear", file=("a.wav", wav()), response_format=shape
    )
    assert made == wanted
    assert await billed(audio) == [TRANSCRIPTION]


async def test_a_transcription_with_its_segments(audio: Market, client: openai.AsyncOpenAI) -> None:
    audio.provider.behaviour = HEARD
    made = await client.audio.transcriptions.create(
        model="speech_to_text:hi",
        file=("a.wav", wav()),
        response_format="verbose_json",
        timestamp_granularities=["segment"],
    )
    assert (made.duration, made.language) == (61.25, "hi-Deva")
    assert [(one.start, one.end, one.text) for one in made.segments or []] == [(0.0, 61.25, "नमस्ते")]
    assert await billed(audio) == [TRANSCRIPTION]


@pytest.mark.speaks("openai audio.transcriptions", client="openai (PyPI)")
async def test_a_transcription_as_a_stream(audio: Market, client: openai.AsyncOpenAI) -> None:
    audio.provider.behaviour = HEARD
    seen: list[Any] = [
        one
        async for one in await client.audio.transcriptions.create(model="acme/hear", file=("a.wav", wav()), stream=True)
    ]
    assert [one.type for one in seen] == ["transcript.text.delta", "transcript.text.done"]
    assert (seen[0].delta, seen[1].text) == ("नमस्ते", "नमस्ते")
    assert await billed(audio) == [TRANSCRIPTION]


MODEL = ("model", None, b"acme/hear")
FILE = ("file", "a.wav", b"RIFF")


@pytest.mark.parametrize(
    ("body", "field_"),
    [
        (form(FILE), "model"),
        (form(MODEL), "file"),
        (form(MODEL, ("file", "a.wav", b"")), "file"),
        (form(MODEL, ("file", None, b"RIFF")), "file"),
        (form(MODEL, FILE)[:-10], "file"),
        (form(MODEL, FILE, ("response_format", None, b"docx")), "response_format"),
        (form(MODEL, FILE, ("stream", None, b"perhaps")), "stream"),
        (form(MODEL, FILE, ("language", None, b"\xff")), "language"),
        (form(MODEL, FILE, ("language", None, b"x" * 70_000)), "language"),
        (form(("model", None, b"acme/echo"), FILE), "model"),
        (form(MODEL, FILE, ("timestamp_granularities[]", None, b"word")), "timestamp_granularities"),
    ],
    ids=range(11),
)
async def test_a_form_that_is_wrong_is_refused_by_its_field(audio: Market, body: bytes, field_: str) -> None:
    response = await audio.call("POST", PATH, body, CONTENT_TYPE)
    assert (response.status, response.json()["error"]["param"]) == (400, field_), response.body
    assert (await audio.settled_event()).outcome == Outcome.REFUSED
    assert audio.provider.requests == []


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data"])
async def test_a_body_that_is_no_form_is_refused(audio: Market, kind: str) -> None:
    response = await audio.call("POST", PATH, b"{}", f"Content-Type: {kind}")
    assert (response.status, response.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_a_large_form_without_a_model_is_refused_while_it_comes(audio: Market) -> None:
    client = await audio.connect()
    raw = audio.raw("POST", PATH, b"", CONTENT_TYPE, "Content-Length: 500000")
    await client.send(raw + b"--%b\r\nno name\r\n\r\n" % BOUNDARY + bytes(70_000))
    response = await client.receive("POST")
    assert response is not None and response.status == 400


# --- forms that are passed on -------------------------------------------------------------------


@pytest.mark.parametrize("first", ["model", "file"])
@pytest.mark.parametrize("size", [10, 300_000, 900_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_form_is_passed_on_as_it_came_but_for_the_models_name(
    audio: Market, first: str, size: int, chunked: bool
) -> None:
    audio.provider.behaviour = answer(200, b'{"text": "a", "usage": {"type": "duration", "seconds": 3}}')
    parts = {"model": ("model", None, b"acme/whisper"), "file": ("file", "a.wav", bytes(size))}
    names = [first, *(name for name in parts if name != first)]
    body = form(*(parts[name] for name in names), ("language", None, b"hi"))
    if chunked:
        sent = b"".join(
            b"%x\r\n%b\r\n" % (len(piece), piece)
            for piece in (body[at : at + 50_000] for at in range(0, len(body), 50_000))
        )
        raw = audio.raw("POST", PATH, sent + b"0\r\n\r\n", CONTENT_TYPE, "Transfer-Encoding: chunked")
    else:
        raw = audio.raw("POST", PATH, body, CONTENT_TYPE)
    client = await audio.connect()
    await client.send(raw, range(0, len(raw), 40_000))
    response = await client.receive("POST")
    assert response is not None and response.json()["text"] == "a", response
    [request] = audio.provider.requests
    assert request.target == "/base/audio/transcriptions"
    assert request.body == body.replace(b"acme/whisper", b"whisper-1")
    event = await audio.settled_event()
    assert (event.units["audio_seconds"], event.units_source, event.bytes_in) == ("3", "upstream", len(body))
    await client.send(raw)  # the connection is as good as before
    again = await client.receive("POST")
    assert again is not None and again.status == 200


@pytest.mark.parametrize("path", [PATH, "/v1/services/acme/whisper/audio/transcriptions"], ids=["door", "native"])
async def test_a_form_goes_on_before_it_is_here_whole(audio: Market, path: str) -> None:
    audio.provider.behaviour = answer(200, b'{"text": "a"}')
    body = form(("model", None, b"acme/whisper"), ("file", "a.wav", bytes(900_000)))
    raw = audio.raw("POST", path, body, CONTENT_TYPE)
    client = await audio.connect()
    await client.send(raw[:500_000])
    await audio.until(lambda: audio.provider.connections == 1)
    await client.send(raw[500_000:])
    response = await client.receive("POST")
    assert response is not None and response.status == 200
    assert len(audio.provider.requests[0].body) == len(body) - (len("acme/whisper") - len("whisper-1")) * (path == PATH)


async def test_a_client_that_leaves_while_its_form_waits_leaves_no_file_open(audio: Market) -> None:
    open_before = open_files()
    client = await audio.connect()
    raw = audio.raw(
        "POST", PATH, form(("file", "a.wav", bytes(900_000)), ("model", None, b"acme/whisper")), CONTENT_TYPE
    )
    await client.send(raw[:500_000])
    await audio.until(lambda: open_files() > open_before)
    client.reset()
    await audio.until(lambda: open_files() <= open_before)
    assert audio.provider.requests == []


async def test_a_stream_of_a_transcription_passes_and_is_metered(audio: Market, client: openai.AsyncOpenAI) -> None:
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}
    parts: list[Any] = [
        {"type": "transcript.text.delta", "delta": "Namaste"},
        {"type": "transcript.text.done", "text": "Namaste", "usage": usage},
    ]
    audio.add_service("listen", dialect="openai", category="speech_to_text", unit="tokens", price=PRICE)
    audio.provider.behaviour = stream([events(parts)])
    seen: list[Any] = [
        one
        async for one in await client.audio.transcriptions.create(
            model="acme/listen", file=("a.wav", wav()), stream=True
        )
    ]
    assert [one.type for one in seen] == [part["type"] for part in parts]
    units = {"tokens": "59", "input_tokens": "14", "output_tokens": "45"}
    assert await billed(audio) == [("listen", "completed", units, "7.375")]


async def test_an_idempotency_key_looks_at_the_whole_form(audio: Market) -> None:
    audio.provider.behaviour = answer(200, b'{"text": "a"}')
    statuses = []
    for filler in (b"a", b"a", b"b"):
        body = form(("file", "a.wav", filler * 200_000), ("model", None, b"acme/whisper"))
        statuses.append((await audio.call("POST", PATH, body, CONTENT_TYPE, "Idempotency-Key: one")).status)
    assert statuses == [200, 200, 422]
    assert len(audio.provider.requests) == 1


@dataclass
class Sink:
    """A provider that keeps nothing of what it is sent but its digest."""

    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while self.size < length:
            data = await reader.read(65536)
            if not data:
                break
            self.size += len(data)
            self.digest.update(data)
        writer.write(answer(200, b'{"text": "a"}'))
        await writer.drain()
        writer.close()


@pytest.mark.parametrize("first", ["model", "file"])
async def test_eighty_megabytes_pass_without_being_held(make_market: MakeMarket, first: str, tmp_path: Path) -> None:
    sink = Sink()
    server = await asyncio.start_server(sink.serve, "127.0.0.1", 0)
    market = await make_market(max_body_bytes=100 * MB)
    port = server.sockets[0].getsockname()[1]
    market.add_service("whisper", dialect="openai", port=port, max_body_bytes=100 * MB, timeout_ms=60_000)
    piece, count = bytes(64 * 1024), 1280
    model, begin = form(("model", None, b"acme/whisper")), form(("file", "a.wav", b""))
    model, begin = model[: model.rindex(b"--" + BOUNDARY)], begin[: begin.rindex(b"\r\n--" + BOUNDARY)]
    if first == "model":
        before, after = model + begin, b"\r\n--%b--\r\n" % BOUNDARY
    else:
        before, after = begin, b"\r\n" + model + b"--%b--\r\n" % BOUNDARY
    size = len(before) + count * len(piece) + len(after)
    digest = hashlib.sha256(before)
    client = await market.connect()
    tracemalloc.start()
    try:
        await client.send(market.raw("POST", PATH, b"", CONTENT_TYPE, f"Content-Length: {size}") + before)
        start, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(count):
            client.writer.write(piece)
            digest.update(piece)
            await client.writer.drain()
        client.writer.write(after)
        digest.update(after)
        response = await _patiently(client)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        server.close()
    assert response.startswith(b"HTTP/1.1 200")
    assert (sink.size, sink.digest.hexdigest()) == (size, digest.hexdigest())
    assert peak - start < 8 * MB
    assert _left_behind(tmp_path) == []


def _left_behind(folder: Path) -> list[Path]:
    return list(folder.glob("body-*"))


async def _patiently(client: Any) -> bytes:
    async with asyncio.timeout(60):
        return bytes(await client.reader.readuntil(b"\r\n\r\n"))


async def test_a_provider_that_answers_before_it_has_the_form_is_heard(audio: Market, second: Provider) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(413, b'{"error": {"message": "too large"}}'))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(behave, "127.0.0.1", 0)
    audio.add_service("early", dialect="openai", port=server.sockets[0].getsockname()[1])
    body = form(("file", "a.wav", bytes(900_000)), ("model", None, b"acme/early"))
    response = await audio.call("POST", PATH, body, CONTENT_TYPE)
    assert response.status in (413, 502)
    assert (await audio.settled_event()).units == {}
    server.close()
