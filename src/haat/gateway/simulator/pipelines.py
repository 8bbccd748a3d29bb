"""Answers in ULCA's shape, for services whose endpoint speaks it: whole pipelines, and single tasks."""

from __future__ import annotations

import base64
from typing import Any

from haat.gateway.simulator.marks import RATE, encode, marked, tone
from haat.gateway.simulator.shapes import JSON, Simulated, read_object
from haat.kernel.errors import ValidationFailed
from haat.language import detect

Item = dict[str, Any]


def answer(path: bytes, body: bytes, unit: str) -> Simulated:
    """Return the answer to a compute call; raise MalformedJson, or ValidationFailed with the wrong field."""
    asked = read_object(body)
    if "pipelineTasks" not in asked:
        task = path.rpartition(b"/")[2].decode("ascii", "replace")
        found, _ = _perform(task, asked.get("config"), _texts(asked), _sounds(asked), "taskType")
        return _simulated(found, unit, asked)
    tasks, data = asked["pipelineTasks"], asked.get("inputData")
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise _wrong("pipelineTasks", "must be a list with at least one task")
    if not isinstance(data, dict):
        raise _wrong("inputData", "must be an object with `input`, `audio` or `image`")
    texts, sounds, response = _texts(data), _sounds(data), []
    for at, task in enumerate(tasks):
        kind = str(task.get("taskType"))
        one, texts = _perform(kind, task.get("config"), texts, sounds, f"pipelineTasks[{at}].taskType")
        response.append(one)
    return _simulated({"pipelineResponse": response}, unit, data)


def _simulated(found: Any, unit: str, data: Item) -> Simulated:
    used = sum(map(len, _texts(data))) if unit in ("characters", "graphemes") else 1
    return Simulated(JSON, b"" if unit == "bytes" else f"{unit}={used}".encode("ascii"), (encode(found),))


def _wrong(field: str, message: str) -> ValidationFailed:
    return ValidationFailed(errors=[{"field": field, "message": message}])


def _items(data: Item, name: str) -> list[Item]:
    given = data.get(name)
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def _texts(data: Item) -> list[str]:
    return [item["source"] for item in _items(data, "input") if isinstance(item.get("source"), str)]


def _sounds(data: Item) -> list[Item]:
    """Return the sounds and pictures: whatever holds content or names where it is."""
    found = [*_items(data, "audio"), *_items(data, "image")]
    return [item for item in found if any(value for name, value in item.items() if name.endswith(("Content", "Uri")))]


def _perform(kind: str, config: Any, texts: list[str], sounds: list[Item], field: str) -> tuple[Item, list[str]]:
    """Return what a task answers, and the texts that the next one goes on with."""
    of = [kind, config]
    if kind == "translation":
        targets = [marked(text, [of, text]) for text in texts]
        output = [{"source": text, "target": target} for text, target in zip(texts, targets, strict=True)]
        return _response(kind, output), targets
    if kind == "transliteration":
        targets = [marked(text, [of, text]) for text in texts]
        return _response(kind, [{"source": s, "target": [t]} for s, t in zip(texts, targets, strict=True)]), targets
    if kind in ("asr", "ocr"):
        said = [marked("what was spoken" if kind == "asr" else "what was written", [of, sound]) for sound in sounds]
        more: Item = {"nBestTokens": None} if kind == "asr" else {}
        return _response(kind, [{"source": one, **more} for one in said]), said
    if kind == "tts":
        audio = [
            {"audioContent": base64.b64encode(tone([of, text])).decode("ascii"), "audioUri": None} for text in texts
        ]
        given = config if isinstance(config, dict) else {}
        settings = {**given, "audioFormat": "wav", "encoding": "base64", "samplingRate": RATE}
        return {"taskType": kind, "config": settings, "output": None, "audio": audio}, texts
    if kind == "ner":
        return _response(kind, [{"source": text, "nerPrediction": [], "entities": []} for text in texts]), texts
    if kind == "txt-lang-detection":
        return _response(kind, [{"source": text, "langPrediction": _languages(text)} for text in texts]), texts
    raise _wrong(field, "must be translation, transliteration, asr, tts, ocr, ner or txt-lang-detection")


def _response(kind: str, output: list[Item]) -> Item:
    return {"taskType": kind, "config": None, "output": output, "audio": None}


def _languages(text: str) -> list[Item]:
    return [
        {"langCode": one.tag.language, "ScriptCode": one.tag.script, "langScore": round(one.confidence, 4)}
        for one in detect(text).candidates[:3]
    ]
