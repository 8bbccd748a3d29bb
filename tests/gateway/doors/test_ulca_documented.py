"""The examples of docs/bhashini.md, run as they stand: the gateway before real engines."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import re
import wave
from importlib import resources
from pathlib import Path

import pytest
from msgspec import structs

from gateway.rig import Market, Request, answer
from haat.gateway.doors.table import DOORS
from haat.gateway.doors.ulca.door import OPERATIONS
from haat.gateway.doors.ulca.protocol import encode
from haat.gateway.doors.ulca.services import ALIASES
from haat.gateway.doors.ulca.tasks import TASKS
from haat.gateway.market.policy import ServicePolicy, VersionPolicy
from haat.models.task import parse_call
from haat.plugins.manager import hosted_services
from providers.test_documented_tasks import alike, with_files

PAGE = (Path(__file__).parents[3] / "docs" / "bhashini.md").read_text(encoding="utf-8")
ENGINES = (
    "akshara/transliterate",
    "akshara/detect-language",
    "vani/text-to-speech",
    "vani/ocr",
    "vani/dictation",
)
SAMPLES = resources.files("haat.providers.vani").joinpath("samples")


@pytest.fixture
def engines(market: Market) -> Market:
    """Engines that run within the platform, each listed as the platform lists it."""
    services = hosted_services()

    async def run(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        service = services["/".join(request.target.split("/")[1:3])]
        items, config = parse_call(service, request.body)
        outputs, units = await asyncio.to_thread(service.invoke, items, config)
        usage = "; ".join(f"{unit}={count}" for unit, count in units.items())
        writer.write(answer(200, encode({"output": outputs}), f"X-Haat-Usage: {usage}"))
        await writer.drain()
        return True

    for path in ENGINES:
        hosted = services[path]
        market.add_service(
            hosted.slug,
            base=f"/{path}",
            dialect="task",
            category=hosted.category,
            unit=hosted.unit,
            languages=hosted.languages,
            language_pairs=hosted.language_pairs,
        )
        listed = market.gateway.directory.services[f"acme/{hosted.slug}"]
        versions = tuple(
            structs.replace(version, policy=VersionPolicy(audio_formats=hosted.audio_formats))
            for version in listed.versions
        )
        said = structs.replace(listed, policy=ServicePolicy(capability=hosted.capability), versions=versions)
        market.gateway.directory.put_service(said.id, said)
    market.provider.behaviour = run
    return market


async def test_the_program_prints_what_the_page_says(engines: Market) -> None:
    [(program, wanted)] = re.findall(r"```python example\n(.*?)```\n```text\n(.*?)```", PAGE, re.DOTALL)

    def run() -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(program, {"KEY": engines.key, "GATEWAY": f"http://127.0.0.1:{engines.port}"})
        return printed.getvalue()

    assert await asyncio.to_thread(run) == wanted


async def test_the_request_is_answered_as_the_page_says(engines: Market) -> None:
    examples = re.findall(r"```json example (\S+)\n(.*?)```\n```json answer\n(.*?)```", PAGE, re.DOTALL)
    assert examples
    for path, request, wanted in examples:
        response = await engines.call("POST", path, with_files(request))
        assert response.status == 200, response.body
        assert alike(json.loads(wanted), response.json()), response.body


async def test_what_is_read_in_an_image_is_spoken(engines: Market) -> None:
    tasks = [
        {"taskType": "ocr", "config": {"language": {"sourceLanguage": "hi"}, "textDetection": "False"}},
        {"taskType": "tts", "config": {"language": {"sourceLanguage": "hi"}, "gender": "female"}},
    ]
    image = base64.b64encode(SAMPLES.joinpath("notice-hi.png").read_bytes()).decode()
    body = {"pipelineTasks": tasks, "inputData": {"image": [{"imageContent": image}], "input": [{"source": None}]}}
    response = await engines.call("POST", "/services/inference/pipeline", json.dumps(body).encode())
    assert response.status == 200, response.body
    text, speech = response.json()["pipelineResponse"]
    assert "आज बाज़ार बंद है" in text["output"][0]["source"]
    sound = base64.b64decode(speech["audio"][0]["audioContent"])
    with wave.open(io.BytesIO(sound), "rb") as file:
        assert file.getframerate() == speech["config"]["samplingRate"] == 22_050
        assert file.getnframes() > 22_050
    await engines.until(lambda: len(engines.confirmed()) == 2)
    assert [event.service_slug for event in engines.events()] == ["ocr", "text-to-speech"]
    assert [event.units.get("images") for event in engines.events()] == ["1", None]


def test_the_page_names_what_there_is() -> None:
    for _, path in OPERATIONS:
        name = path.decode().rpartition("/")[2]
        assert path.decode() in PAGE or f"`{name}`" in PAGE
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) == set(TASKS)
    assert {TASKS[name].name for name in ALIASES.values()} <= set(TASKS)
    assert set(OPERATIONS.items()) <= set(DOORS.items())
