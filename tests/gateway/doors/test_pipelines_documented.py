"""The examples of docs/pipelines.md, run as they stand: the gateway before real engines."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import wave
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gateway.doors.flows import Event, events_in
from gateway.rig import Market, Request, answer
from haat.catalog.drafts import VersionPolicyDraft
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import ServicePolicy
from haat.gateway.market.snapshot import Price
from haat.models.task import parse_call
from haat.plugins.manager import hosted_services

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "pipelines.md").read_text(encoding="utf-8")
ENGINES = ("akshara/transliterate", "akshara/detect-language", "vani/translate-hi-ur", "vani/text-to-speech")


@pytest.fixture
def engines(market: Market) -> Market:
    """Engines as the platform lists them, under their own names and with their prices but without free units."""
    services = hosted_services()

    async def run(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        service = services["/".join(request.target.split("/")[1:3])]
        items, config = parse_call(service, request.body)
        outputs, units = await asyncio.to_thread(service.invoke, items, config)
        usage = "; ".join(f"{unit}={count}" for unit, count in units.items())
        writer.write(answer(200, json.dumps({"output": outputs}).encode(), f"X-Haat-Usage: {usage}"))
        await writer.drain()
        return True

    for path in ENGINES:
        hosted = services[path]
        assert hosted.missing() is None
        market.add_service(
            hosted.slug,
            base=f"/{path}",
            dialect="task",
            category=hosted.category,
            unit=hosted.unit,
            languages=hosted.languages,
            language_pairs=hosted.language_pairs,
            subscribed=None,
        )
        listed = market.gateway.directory.services[f"acme/{hosted.slug}"]
        own = structs.replace(
            listed,
            provider=hosted.company.slug,
            policy=ServicePolicy(capability=hosted.capability),
            prices=(Price("", hosted.unit, str(hosted.unit_price), "0", 1),),
        )
        market.gateway.directory.put_service(own.id, own)
        market.subscribe(path, PlanLimits())
    market.provider.behaviour = run
    return market


def alike(documented: Any, given: Any) -> bool:
    """Tell whether two answers agree; ``…`` stands for anything but nothing."""
    if documented == "…":
        return given not in ("", None)
    if isinstance(documented, dict) and isinstance(given, dict):
        return documented.keys() == given.keys() and all(alike(documented[name], given[name]) for name in documented)
    if isinstance(documented, list) and isinstance(given, list):
        return len(documented) == len(given) and all(map(alike, documented, given))
    return bool(documented == given)


@pytest.mark.speaks("haat pipelines", "haat translate", client="raw requests, before real engines")
async def test_the_requests_are_answered_as_the_page_says(engines: Market) -> None:
    examples = re.findall(
        r"```json example (\S+)\n([^`]*)```\n```json answer\n([^`]*)```(?:\n```text head\n([^`]*)```)?", PAGE
    )
    assert len(examples) == 2
    for path, request, wanted, head in examples:
        response = await engines.call("POST", path, request.encode())
        assert response.status == 200, response.body
        assert alike(json.loads(wanted), response.json()), response.json()
        for line in head.splitlines():
            name, _, value = line.partition(": ")
            assert response.header(name.lower()) == value


async def test_the_stream_has_the_events_that_the_page_says(engines: Market) -> None:
    [(path, request, wanted)] = re.findall(r"```json example (\S+)\n([^`]*)```\n```text events\n([^`]*)```", PAGE)
    response = await engines.call("POST", path, request.encode())
    given = events_in(response.body)
    documented = [Event.parse(part) for part in wanted.strip().split("\n\n")]

    def order(event: Event) -> tuple[int, int]:
        said = event.data if isinstance(event.data, dict) else {}
        return said.get("stage", 9), said.get("part", 9)

    assert [event.name for event in given[-2:]] == ["done", "message"]
    in_order = [*sorted(documented[:-2], key=order), *documented[-2:]], [*sorted(given[:-2], key=order), *given[-2:]]
    for one, other in zip(*in_order, strict=True):
        assert one.name == other.name and alike(one.data, other.data), other


async def test_speech_is_heard_as_soon_as_its_sentence_is_translated(engines: Market) -> None:
    stages = [
        {"service": "translation:hi-ur", "config": {"source": "hi", "target": "ur"}},
        {"service": "text_to_speech:ur", "config": {"language": "ur"}},
    ]
    asked = {"stages": stages, "input": [{"text": "आज मौसम बहुत अच्छा है। आपका नाम क्या है?"}]}
    body = json.dumps({**asked, "stream": True, "split": "sentences"}).encode()
    *outputs, done, _ = events_in((await engines.call("POST", "/v1/pipelines", body)).body)
    texts = [event.data["output"]["text"] for event in outputs if event.data["stage"] == 1]
    assert texts == ["آج موسم بہت اچھا ہے۔", "آپ کا نام کیا ہے؟"]
    for event in outputs:
        if event.data["stage"] == 2:
            with wave.open(io.BytesIO(base64.b64decode(event.data["output"]["audio"]["content"]))) as sound:
                assert sound.getnframes() > sound.getframerate() // 2
    assert done.data["served_by"] == ["vani/translate-hi-ur@1", "vani/text-to-speech@1"]
    await engines.until(lambda: len(engines.confirmed()) == 4)
    assert sorted(event.service_slug for event in engines.events()) == ["text-to-speech"] * 2 + ["translate-hi-ur"] * 2


async def test_both_directions_are_translated_and_transliteration_is_no_translation(engines: Market) -> None:
    async def translate(**asked: Any) -> Any:
        return await engines.call("POST", "/v1/translate", json.dumps(asked).encode())

    back = await translate(text="میرا بھائی لاہور میں رہتا ہے۔", target="hi")
    assert back.json()["translations"] == ["मेरा भाई लाहौर में रहता है।"]
    assert (back.json()["source"], back.json()["stages"][0]["service"]) == ("ur-Arab", "vani/translate-hi-ur")
    refused = await translate(text="नमस्ते", source="hi", target="te", pivot="allow")
    assert (refused.status, refused.json()["code"]) == (422, "UNSUPPORTED_LANGUAGE")
    assert refused.json()["supported"] == ["hi-Deva>ur-Arab", "ur-Arab>hi-Deva"]
    written = {"stages": [{"service": "transliteration:hi-te", "config": {"source": "hi", "target": "te"}}]}
    body = json.dumps({**written, "input": [{"text": "नमस्ते"}]}).encode()
    assert (await engines.call("POST", "/v1/pipelines", body)).json()["output"] == [{"text": "నమస్తే"}]


async def test_a_third_language_between_two_engines_is_said_and_only_taken_when_allowed(engines: Market) -> None:
    """Hindi in Latin letters into Urdu: by way of Hindi in its own script."""
    engines.add_service(
        "letters",
        base="/akshara/transliterate",
        dialect="task",
        category="translation",
        unit="characters",
        language_pairs=("hi-Latn>hi-Deva",),
    )
    asked = {"text": "āja mausama bahuta acchā hai", "source": "hi-Latn", "target": "ur"}
    refused = await engines.call("POST", "/v1/translate", json.dumps(asked).encode())
    assert (refused.status, refused.json()["code"]) == (422, "UNSUPPORTED_LANGUAGE")
    assert "hi-Latn>hi-Deva" in refused.json()["supported"] and engines.provider.requests == []
    for wish in ({"pivot": "allow"}, {"via": "hi"}):
        response = await engines.call("POST", "/v1/translate", json.dumps({**asked, **wish}).encode())
        assert response.status == 200, response.body
        assert response.json()["translations"] == ["آج موسم بہت اچھا ہے"]
        assert response.json()["pivot"] == ["hi-Deva"]
        assert response.header("x-haat-served-by") == "acme/letters@1, vani/translate-hi-ur@1"


def test_the_declared_quality_of_the_providers_page_is_one() -> None:
    [text] = re.findall(r"```json quality\n(.*?)```", (DOCS / "providers.md").read_text(encoding="utf-8"), re.DOTALL)
    draft = VersionPolicyDraft.parse(json.loads(text))
    assert draft.model_dump(mode="json", exclude_defaults=True)["quality"] == json.loads(text)["quality"]
