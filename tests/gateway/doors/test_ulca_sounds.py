"""Sounds at ULCA's door: in which format a service is asked for them, and by what name a recording is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from msgspec import structs

from gateway.doors.ulca_market import behave, sound, stock, task, texts
from gateway.rig import Market, answer
from haat.gateway.market.policy import VersionPolicy


@pytest.fixture
def shelf(market: Market) -> Market:
    stock(market)
    service = market.gateway.directory.services["acme/speak"]
    policy = VersionPolicy(audio_formats=("wav", "mp3", "opus"))
    versions = tuple(structs.replace(version, policy=policy) for version in service.versions)
    market.gateway.directory.put_service(service.id, structs.replace(service, versions=versions))
    return market


def spoken(form: str) -> bytes:
    audio = {"content": base64.b64encode(b"a sound").decode(), "format": form, "sample_rate": 24_000}
    return answer(200, json.dumps({"output": [{"audio": audio}]}).encode())


@pytest.mark.speaks("ulca pipeline", "ulca tts")
@pytest.mark.parametrize(
    ("wanted", "asked", "shown"),
    [("mp3", {"format": "mp3"}, "mp3"), ("MP3", {"format": "mp3"}, "mp3"), ("ogg", {"format": "opus"}, "ogg")],
)
async def test_a_service_is_asked_for_the_format_that_it_gives(
    shelf: Market, wanted: str, asked: dict[str, Any], shown: str
) -> None:
    shelf.provider.behaviour = behave(speak=spoken(asked["format"]))
    body = {"pipelineTasks": [task("tts", "hi", audioFormat=wanted)], "inputData": texts("a")}
    response = await shelf.call("POST", "/services/inference/pipeline", json.dumps(body).encode())
    assert response.status == 200, response.body
    [part] = response.json()["pipelineResponse"]
    assert part["audio"] == [{"audioContent": base64.b64encode(b"a sound").decode(), "audioUri": None}]
    assert (part["config"]["audioFormat"], part["config"]["samplingRate"]) == (shown, 24_000)
    assert json.loads(shelf.provider.requests[0].body)["config"] == {"language": "hi-Deva", **asked}


@pytest.mark.parametrize("wanted", [{}, {"audioFormat": "wav"}])
async def test_wav_is_what_nobody_has_to_ask_for(shelf: Market, wanted: dict[str, Any]) -> None:
    body = {"pipelineTasks": [task("tts", "hi", **wanted)], "inputData": texts("a")}
    response = await shelf.call("POST", "/services/inference/pipeline", json.dumps(body).encode())
    assert response.json()["pipelineResponse"][0]["config"]["audioFormat"] == "wav"
    assert json.loads(shelf.provider.requests[0].body)["config"] == {"language": "hi-Deva"}


async def test_a_format_that_it_does_not_give_is_refused_with_those_that_it_does(shelf: Market) -> None:
    body = {"pipelineTasks": [task("tts", "hi", audioFormat="flac")], "inputData": texts("a")}
    response = await shelf.call("POST", "/services/inference/pipeline", json.dumps(body).encode())
    assert response.status == 422
    assert response.json()["message"] == "pipelineTasks[0].config.audioFormat: must be one of wav, mp3, ogg, pcm"
    assert shelf.provider.requests == []


@pytest.mark.parametrize(
    ("begin", "form"),
    [
        (b"RIFF\x10\0\0\0", "wav"),
        (b"ID3\4\0\0\0\0", "mp3"),
        (b"\xff\xf3\x40\xc4\0\0\0\0", "mp3"),
        (b"\xff\xf1\x50\x80\0\0\0\0", "aac"),
        (b"OggS\0\2\0\0", "ogg"),
        (b"fLaC\0\0\0\x22", "flac"),
        (b"\0\0\0\x20ftyp", "m4a"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81", "webm"),
        (b"nothing known", "wav"),
    ],
)
async def test_a_recording_whose_format_nobody_names_is_told_by_its_beginning(
    shelf: Market, begin: bytes, form: str
) -> None:
    given = {"config": {"language": {"sourceLanguage": "hi"}}, **sound(base64.b64encode(begin + bytes(20)).decode())}
    await shelf.call("POST", "/services/inference/asr", json.dumps(given).encode())
    assert json.loads(shelf.provider.requests[0].body)["input"][0]["audio"]["format"] == form


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("input[1].audio.content", "audio[1].audioContent"),
        ("input[0].audio.format", "config.audioFormat"),
        ("config.commands", "config.commands"),
    ],
)
async def test_what_a_service_says_is_wrong_is_said_in_the_callers_words(shelf: Market, ours: str, theirs: str) -> None:
    said = {"code": "VALIDATION_FAILED", "title": "No", "errors": [{"field": ours, "message": "is none"}]}
    shelf.provider.behaviour = behave(hear=answer(422, json.dumps(said).encode()))
    given = {"config": {"language": {"sourceLanguage": "hi"}}, **sound()}
    response = await shelf.call("POST", "/services/inference/asr", json.dumps(given).encode())
    assert (response.status, response.json()["message"]) == (422, f"{theirs}: is none")
    assert response.json()["detail"]["errors"] == [{"field": theirs, "message": "is none"}]


async def test_what_a_later_task_was_given_by_another_keeps_its_name(shelf: Market) -> None:
    said = {"code": "VALIDATION_FAILED", "errors": [{"field": "input[0].text", "message": "is none"}]}
    shelf.provider.behaviour = behave(translate=answer(422, json.dumps(said).encode()))
    body = {"pipelineTasks": [task("asr", "hi"), task("translation", "hi", "ur")], "inputData": sound()}
    response = await shelf.call("POST", "/services/inference/pipeline", json.dumps(body).encode())
    assert response.json()["message"] == "Stage 2 (translation): input[0].text: is none"
