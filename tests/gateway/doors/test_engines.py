"""Every task of ULCA's, and speech at OpenAI's door, against the real engines: processes and sockets, no stand-ins.

For each the answer's shape and content, the usage event and the charge.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import subprocess
import wave
from array import array
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import socketio

from gateway.doors.house import House
from haat.models.hosted import Item
from haat.plugins.manager import hosted
from haat.providers.vani import dictation, sound
from haat.usage.event import Outcome

SAMPLES = resources.files("haat.providers.vani").joinpath("samples")
SPOKEN = SAMPLES.joinpath("call-my-mother.wav").read_bytes()
HEARD = "all my mother"
"""What the weak recogniser that comes with the platform makes of it."""
NOTICE = SAMPLES.joinpath("notice-hi.png").read_bytes()
PAGE = Path(__file__).parents[3] / "docs" / "openai.md"


def audio(content: bytes) -> dict[str, Any]:
    return {"audio": [{"audioContent": base64.b64encode(content).decode()}]}


def language(source: str, target: str = "") -> dict[str, Any]:
    return {"language": {"sourceLanguage": source, **({"targetLanguage": target} if target else {})}}


TEXT = "नमस्ते दुनिया"
TELUGU = "ఈ రోజు వాతావరణం చాలా బాగుంది."
SINGLES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "translation": (
        "vani/translate-hi-ur",
        {"config": language("hi", "ur"), "input": [{"source": "आज मौसम बहुत अच्छा है।"}]},
        {"output": [{"source": "आज मौसम बहुत अच्छा है।", "target": "آج موسم بہت اچھا ہے۔"}]},
    ),
    "transliteration": (
        "akshara/transliterate",
        {"config": language("hi", "te"), "input": [{"source": TEXT}]},
        {"output": [{"source": TEXT, "target": ["నమస్తే దునియా"]}]},
    ),
    "asr": (
        "vani/dictation",
        {"config": language("en"), **audio(SPOKEN)},
        {"output": [{"source": HEARD, "nBestTokens": None}]},
    ),
    "ocr": (
        "vani/ocr",
        {"config": language("hi"), "image": [{"imageContent": base64.b64encode(NOTICE).decode()}]},
        {"output": [{"source": "आज बाज़ार बंद है।\nकल सुबह आइए।"}]},
    ),
    "ner": (
        "akshara/named-entities",
        {"config": language("en"), "input": [{"source": "in Pune"}]},
        {
            "output": [
                {
                    "source": "in Pune",
                    "nerPrediction": [
                        {"token": "in", "tag": "O", "tokenIndex": 0, "tokenStartIndex": 0, "tokenEndIndex": 2},
                        {
                            "token": "Pune",
                            "tag": "B-LOCATION",
                            "tokenIndex": 1,
                            "tokenStartIndex": 3,
                            "tokenEndIndex": 7,
                        },
                    ],
                    "entities": [{"text": "Pune", "label": "LOCATION"}],
                }
            ]
        },
    ),
    "vad": (
        "vani/voice-activity",
        {"config": {}, **audio(SPOKEN)},
        {"output": [{"timestamps": [{"start": 0.03, "end": 1.149}]}]},
    ),
}


@pytest.mark.speaks(
    "ulca translation",
    "ulca transliteration",
    "ulca asr",
    "ulca ocr",
    "ulca ner",
    "ulca vad",
    client="raw requests, before the real engines",
)
@pytest.mark.parametrize("name", SINGLES)
def test_a_task_alone_is_done_metered_and_charged(house: House, name: str) -> None:
    path, asked, wanted = SINGLES[name]
    before = house.seen()
    response = house.call(f"/services/inference/{name}", asked)
    assert response.status_code == 200, response.text
    assert response.json() == {"taskType": name, "config": None, "audio": None, **wanted}
    is_charged(house, before, path, response)


def is_charged(house: House, before: set[str], path: str, response: httpx.Response) -> None:
    """Hold the one event since against the answer's headers and the listing's price."""
    [event] = house.settled(before)
    unit = hosted()[path].unit
    assert (event.service_slug, event.outcome) == (path.partition("/")[2], Outcome.COMPLETED)
    assert Decimal(event.units[unit]) > 0 and event.units_source == "upstream"
    assert response.headers["x-haat-units"] == f"{unit}={event.units[unit]}"
    amount, currency = response.headers["x-haat-charge"].split()
    assert (Decimal(amount), currency) == (hosted()[path].unit_price * Decimal(event.units[unit]), "INR")


@pytest.mark.speaks("ulca pipeline", client="raw requests, before the real engines")
def test_the_language_of_a_text_is_told_metered_and_charged(house: House) -> None:
    before = house.seen()
    asked = {"pipelineTasks": [{"taskType": "txt-lang-detection"}], "inputData": {"input": [{"source": TELUGU}]}}
    response = house.call("/services/inference/pipeline", asked)
    [part] = response.json()["pipelineResponse"]
    [output] = part["output"]
    assert (part["taskType"], output["source"]) == ("txt-lang-detection", TELUGU)
    [found] = output["langPrediction"]
    assert (found["langCode"], found["ScriptCode"]) == ("te", "Telu") and found["langScore"] > 0.5
    is_charged(house, before, "akshara/detect-language", response)


BEGINNINGS = {"wav": b"RIFF", "mp3": b"ID3", "ogg": b"OggS", "flac": b"fLaC", "aac": b"\xff\xf1", "pcm": b""}


@pytest.mark.speaks("ulca tts", client="raw requests, before the real engines")
@pytest.mark.parametrize("form", BEGINNINGS)
def test_a_text_is_spoken_in_the_format_that_is_asked_for_metered_and_charged(house: House, form: str) -> None:
    before = house.seen()
    config = {**language("hi"), "gender": "female", "audioFormat": form}
    response = house.call("/services/inference/tts", {"config": config, "input": [{"source": TEXT}]})
    assert response.status_code == 200, response.text
    said = response.json()
    assert (said["taskType"], said["output"]) == ("tts", None)
    assert (said["config"]["audioFormat"], said["config"]["encoding"]) == (form, "base64")
    content = base64.b64decode(said["audio"][0]["audioContent"])
    assert content.startswith(BEGINNINGS[form])
    if form == "pcm":
        samples = content
        assert said["config"]["samplingRate"] == 24_000
    else:
        [decoded] = sound.recordings([Item(content=content)], 24_000, 60, lambda wav: sound.mono(wav, 24_000))
        samples = decoded.samples
    assert 0.5 < len(samples) / 48_000 < 2.0
    assert max(array("h", samples)) > 3000
    is_charged(house, before, "vani/text-to-speech", response)


def test_a_format_that_nobody_gives_is_refused_with_those_that_are_given(house: House) -> None:
    config = {**language("hi"), "audioFormat": "amr"}
    response = house.call("/services/inference/tts", {"config": config, "input": [{"source": TEXT}]})
    assert response.status_code == 422
    assert response.json()["message"] == "config.audioFormat: must be one of wav, mp3, ogg, aac, flac, pcm"


@pytest.mark.speaks("ulca s2s", client="raw requests, before the real engines")
def test_what_is_said_in_one_language_is_said_in_another_and_each_part_is_metered(house: House) -> None:
    before = house.seen()
    response = house.call("/services/inference/s2s", {"config": language("en", "hi"), **audio(SPOKEN)})
    assert response.status_code == 200, response.text
    said = response.json()
    assert said["taskType"] == "s2s"
    assert said["output"] == [{"source": HEARD, "target": "सब मेरी माँ"}]
    assert base64.b64decode(said["audio"][0]["audioContent"]).startswith(b"RIFF")
    assert house.billed(before, 3) == [
        ("dictation", "completed", {"audio_seconds": "1.150"}, "0.0115"),
        ("translate", "completed", {"characters": str(len(HEARD))}, "0.013"),
        ("text-to-speech", "completed", {"characters": str(len("सब मेरी माँ"))}, "0.033"),
    ]


def test_pipelines_of_the_house_hear_and_speak_in_encoded_formats(house: House) -> None:
    before = house.seen()
    stages = [
        {"service": "vani/dictation", "config": {}},
        {"service": "vani/text-to-speech", "config": {"language": "en", "format": "opus"}},
    ]
    [wav] = sound.recordings([Item(content=SPOKEN)], 16_000, 60, lambda wav: wav)
    for form in ("mp3", "opus", "flac", "aac"):
        content, _ = sound.encode(wav.samples, wav.rate, form)
        item = {"audio": {"content": base64.b64encode(content).decode(), "format": form}}
        response = house.call("/v1/pipelines", {"stages": stages, "input": [item]})
        assert response.status_code == 200, response.text
        [output] = response.json()["output"]
        assert output["audio"]["format"] == "opus"
        assert base64.b64decode(output["audio"]["content"]).startswith(b"OggS")
        events = {event.service_slug: event for event in house.settled(before, 2)}
        for stage in response.json()["stages"]:
            price = hosted()[stage["service"]]
            units = events[price.slug].units[price.unit]
            assert stage["units"][price.unit] == units
            assert Decimal(stage["charge"].split()[0]) == price.unit_price * Decimal(units)
        before = house.seen()


# --- what is no recording -----------------------------------------------------------------------

NOT_HEARD = ("dictation", "provider_failed", {}, "0")
BROKEN = {
    "a head that lies": SPOKEN[:4] + (len(SPOKEN) + 1000).to_bytes(4, "little") + SPOKEN[8:],
    "cut off": SPOKEN[:-1000],
    "garbage": bytes(range(256)) * 20,
    "an MP3 of garbage": b"ID3" + bytes(range(256)) * 20,
    "an Ogg file of garbage": b"OggS" + bytes(range(256)) * 20,
    "an MP4 file of garbage": b"\0\0\0\x20ftypM4A " + bytes(range(256)) * 20,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_is_no_recording_is_refused_by_the_field_in_each_protocols_shape(house: House, content: bytes) -> None:
    response = house.call("/services/inference/asr", {"config": language("en"), **audio(content)})
    assert response.status_code == 422, response.text
    assert response.json()["detail"]["errors"][0]["field"] == "audio[0].audioContent"
    before = house.seen()
    with client_of(house) as client, pytest.raises(openai.UnprocessableEntityError) as raised:
        client.audio.transcriptions.create(model="vani/dictation", file=("a.wav", content))
    assert raised.value.param == "file"
    assert house.billed(before) == [NOT_HEARD]


def test_a_small_file_that_would_be_a_long_recording_is_refused(house: House) -> None:
    content, _ = sound.encode(bytes(2 * 8_000 * 600), 8_000, "flac")
    assert len(content) < 100_000
    before = house.seen()
    with client_of(house) as client, pytest.raises(openai.UnprocessableEntityError) as raised:
        client.audio.transcriptions.create(model="vani/dictation", file=("a.flac", content))
    assert (raised.value.param, raised.value.code) == ("file", "INPUT_TOO_LONG")
    assert "60 s" in raised.value.message
    assert house.billed(before) == [NOT_HEARD]


# --- OpenAI's client ----------------------------------------------------------------------------


def client_of(house: House) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{house.address}/v1", api_key=house.key, max_retries=0)


@pytest.mark.speaks("openai audio.speech", "openai audio.transcriptions", client="openai (PyPI)")
def test_what_openais_client_has_spoken_without_naming_a_format_it_can_have_written_down(house: House) -> None:
    before = house.seen()
    with client_of(house) as client:
        made = client.audio.speech.create(
            model="vani/text-to-speech", input="open the door", voice="alloy", extra_body={"language": "en"}
        )
        assert made.response.headers["content-type"] == "audio/mpeg" and made.content.startswith(b"ID3")
        heard = client.audio.transcriptions.create(model="vani/dictation", file=("speech.mp3", made.content))
    [same], _ = dictation.invoke([Item(content=made.content)], {})
    assert heard.text == same["text"] != ""
    spoken, written = house.billed(before, 2)
    assert spoken == ("text-to-speech", "completed", {"characters": "13"}, "0.039")
    seconds = Decimal(written.units["audio_seconds"])
    assert written[:2] == ("dictation", "completed") and seconds > Decimal("0.5")
    assert Decimal(written.charge) == seconds * Decimal("0.01")


FORMATS = {
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm;rate=24000",
}


@pytest.mark.speaks("openai audio.speech", client="openai (PyPI)")
@pytest.mark.parametrize("form", FORMATS)
def test_openais_client_gets_the_format_that_it_asks_for(house: House, form: Any) -> None:
    before = house.seen()
    with client_of(house) as client:
        made = client.audio.speech.create(model="text_to_speech:hi", input=TEXT, voice="alloy", response_format=form)
    assert made.response.headers["content-type"] == FORMATS[form]
    assert made.content.startswith(BEGINNINGS["ogg" if form == "opus" else form]) and len(made.content) > 1000
    assert house.billed(before) == [("text-to-speech", "completed", {"characters": "13"}, "0.039")]


def test_the_commands_of_the_page_about_the_door_run(house: House, tmp_path: Path) -> None:
    [commands] = re.findall(r"```sh speech\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    commands = commands.replace("http://127.0.0.1:8080", house.address).replace("YOUR-KEY", house.key)
    (tmp_path / "recording.wav").write_bytes(SPOKEN)
    before = house.seen()
    done = subprocess.run(["sh", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["text"] == HEARD, done
    assert (tmp_path / "speech.mp3").read_bytes().startswith(b"ID3")
    assert house.billed(before, 2) == [
        ("text-to-speech", "completed", {"characters": "20"}, "0.06"),
        ("dictation", "completed", {"audio_seconds": "1.150"}, "0.0115"),
    ]


# --- while it is spoken -------------------------------------------------------------------------


@pytest.mark.speaks("bhashini streaming speech", client="python-socketio (PyPI)")
async def test_speech_is_written_down_while_it_is_spoken(house: House) -> None:
    with wave.open(io.BytesIO(SPOKEN)) as file:
        samples = file.readframes(file.getnframes())
    before = await asyncio.to_thread(house.seen)
    client, told = socketio.AsyncClient(reconnection=False), asyncio.Queue()
    for name in ("ready", "response", "abort"):
        client.on(name, lambda *given, name=name: told.put_nowait((name, *given)))
    await client.connect(house.address, auth={"authorization": house.key}, wait_timeout=20)
    try:
        tasks = [{"taskType": "asr", "config": {**language("en"), "samplingRate": 16000}}]
        await client.emit("start", (tasks, {"responseFrequencyInSecs": 1.0, "responseTaskSequenceDepth": 1}))
        assert await asyncio.wait_for(told.get(), 20) == ("ready",)
        for at in range(0, len(samples), 8000):
            await client.emit("data", ({"audio": [{"audioContent": samples[at : at + 8000]}]}, {}, False, False))
        await client.emit("data", (None, None, True, True))
        answers = [await asyncio.wait_for(told.get(), 30) for _ in range(2)]
    finally:
        await client.disconnect()
    assert [(name, state["isIntermediateResult"]) for name, _, state in answers] == [
        ("response", True),
        ("response", False),
    ]
    _, [whole], _ = answers[-1]
    assert whole["output"][0]["source"] == HEARD
    assert await asyncio.to_thread(house.billed, before, 2) == [
        ("dictation", "completed", {"audio_seconds": "1.000"}, "0.01"),
        ("dictation", "completed", {"audio_seconds": "1.150"}, "0.0115"),
    ]
