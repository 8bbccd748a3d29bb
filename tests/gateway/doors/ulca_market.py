"""A market whose provider does what language services do, each below its own name: for the tests of ULCA's door."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import wave
from collections.abc import Callable
from typing import Any

from msgspec import structs

from gateway.bills import PRICE
from gateway.rig import Behaviour, Market, Request, answer
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import ServicePolicy

HINDI_AND_MORE = ("hi-Deva>ur-Arab", "ur-Arab>hi-Deva", "hi-Deva>en-Latn")
LETTERS = ("hi-Latn>hi-Deva", "hi-Deva>hi-Latn", "hi-Deva>te-Telu")
RATE = 16_000


def wav(samples: bytes = b"\x01\x00" * 80, rate: int = RATE) -> str:
    """Return a WAV file of one channel, in base64."""
    whole = io.BytesIO()
    with wave.open(whole, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples)
    return base64.b64encode(whole.getvalue()).decode()


SPOKEN = wav()
PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n and so on").decode()


def translate(item: Any, config: Any) -> Any:
    return {"text": f"{item['text']} [{config['source']}>{config['target']}]"}


def transliterate(item: Any, config: Any) -> Any:
    return {"text": item["text"].upper(), "suggestions": [item["text"].upper(), item["text"].title(), item["text"]]}


def recognise(item: Any, config: Any) -> Any:
    sound = base64.b64decode(item["audio"]["content"])
    try:
        with wave.open(io.BytesIO(sound), "rb") as file:
            heard = any(file.readframes(file.getnframes()))
    except (EOFError, wave.Error):  # another format
        heard = True
    return {"text": f"heard {config['language']}" if heard else ""}


def speak(item: Any, config: Any) -> Any:
    return {"audio": {"content": SPOKEN, "format": "wav", "sample_rate": RATE, "seconds": 0.01}}


def find_names(item: Any, config: Any) -> Any:
    words, at = [], 0
    for word in item["text"].split():
        start = item["text"].index(word, at)
        at = start + len(word)
        words.append({"token": word, "tag": "B-PER" if word[0].isupper() else "O", "start": start, "end": at})
    entities = [
        {"text": one["token"], "label": "PER", "start": one["start"], "end": one["end"]}
        for one in words
        if one["tag"] != "O"
    ]
    return {"entities": entities, "tokens": words}


def detect(item: Any, config: Any) -> Any:
    return {"language": "te-Telu", "script": "Telu", "confidence": 0.75}


def read(item: Any, config: Any) -> Any:
    return {"text": f"read {item['image'].get('format')} {config['language']}"}


def listen(item: Any, config: Any) -> Any:
    return {"segments": [{"start": 0.25, "end": 1.5}]}


Does = Callable[[Any, Any], Any]
SERVICES: dict[str, tuple[Does, str, str, dict[str, Any]]] = {
    "translate": (translate, "translation", "", {"language_pairs": HINDI_AND_MORE}),
    "letters": (transliterate, "transliteration", "", {"language_pairs": LETTERS}),
    "hear": (recognise, "speech_to_text", "", {"languages": ("hi-Deva", "en-Latn")}),
    "speak": (speak, "text_to_speech", "", {"languages": ("hi-Deva", "ur-Arab")}),
    "names": (find_names, "nlp", "named-entities", {"languages": ("en-Latn",)}),
    "detect": (detect, "nlp", "detect-language", {"languages": ("hi-Deva", "te-Telu")}),
    "read": (read, "ocr", "", {"languages": ("hi-Deva",)}),
    "listen": (listen, "speech_to_text", "voice-activity", {}),
}


def behave(**instead: bytes) -> Behaviour:
    """Return a provider's behaviour: each service what it does, but those named ``instead`` answer these bytes."""

    async def behaviour(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        name = request.target.split("/")[1]
        if name in instead:
            writer.write(instead[name])
        else:
            body = json.loads(request.body)
            outputs = [SERVICES[name][0](item, body.get("config", {})) for item in body["input"]]
            whole = json.dumps({"output": outputs, "usage": {"characters": 7}}).encode()
            writer.write(answer(200, whole, "X-Haat-Usage: characters=7"))
        await writer.drain()
        return True

    return behaviour


def add(market: Market, slug: str, does: str, subscribed: PlanLimits | None = PlanLimits(), **more: Any) -> None:  # noqa: B008  # frozen
    """Put one of the `SERVICES` on the shelf under a name; ``more`` replaces members of the listing."""
    _, category, capability, languages = SERVICES[does]
    market.add_service(
        slug,
        dialect=more.pop("dialect", "task"),
        category=category,
        unit="characters",
        price=PRICE,
        base=f"/{does}",
        subscribed=subscribed,
        **{**languages, **more.pop("languages", {})},
    )
    service = market.gateway.directory.services[f"acme/{slug}"]
    policy = ServicePolicy(capability=more.pop("capability", capability), aliases=more.pop("aliases", ()))
    market.gateway.directory.put_service(service.id, structs.replace(service, policy=policy, **more))


def stock(market: Market) -> Market:
    """Put all of them on the shelf, each under its own name."""
    for slug in SERVICES:
        add(market, slug, slug)
    market.provider.behaviour = behave()
    return market


def done(slug: str) -> tuple[Any, ...]:
    """Return what a call of one of them comes to, as `billed` has it."""
    return slug, "completed", {"characters": "7"}, "0.875"


def task(name: str, source: str = "", target: str = "", **config: Any) -> dict[str, Any]:
    """Return one of a request's tasks."""
    language = {f"{side}Language": code for side, code in (("source", source), ("target", target)) if code}
    return {"taskType": name, "config": {**({"language": language} if language else {}), **config}}


def texts(*given: str) -> dict[str, Any]:
    return {"input": [{"source": text} for text in given]}


def sound(content: str = SPOKEN) -> dict[str, Any]:
    return {"audio": [{"audioContent": content}]}
