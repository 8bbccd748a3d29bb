"""Answers after they have come: the results that are made of them. No I/O."""

from __future__ import annotations

import json
from typing import Any

from haat_client.errors import UnreadableAnswer
from haat_client.results import Answer, Invocation, Items, Meta, PipelineRun, StageReport, Translation


def read(meta: Meta, content: bytes, *wanted: str) -> dict[str, Any]:
    """Return the JSON object of an answer with the members wanted; raise UnreadableAnswer."""
    found = _json(content)
    if not isinstance(found, dict) or any(name not in found for name in wanted):
        sentence = f"The answer is no JSON object with {', '.join(wanted) or 'any member'}."
        raise UnreadableAnswer(sentence, meta.request_id)
    return found


def answer_of(meta: Meta, content: bytes) -> Answer:
    return Answer(meta, _json(content) if "json" in meta.headers.get("content-type", "") else None, content)


def invocation_of(meta: Meta, content: bytes) -> Invocation:
    found = read(meta, content, "output")
    return Invocation(meta, list(found["output"]), dict(found.get("usage") or {}))


def pipeline_of(meta: Meta, content: bytes) -> PipelineRun:
    found = read(meta, content, "output", "stages")
    return PipelineRun(meta, [StageReport.of(one) for one in found["stages"]], list(found["output"]))


def translation_of(meta: Meta, content: bytes) -> Translation:
    found = read(meta, content, "translations", "source", "target", "stages")
    detected = found.get("detected")
    return Translation(
        meta,
        [StageReport.of(one) for one in found["stages"]],
        list(found["translations"]),
        str(found["source"]),
        str(found["target"]),
        list(found.get("pivot") or []),
        float(detected["confidence"]) if isinstance(detected, dict) else None,
    )


def items_of(meta: Meta, content: bytes) -> Items:
    """Return a page, or a whole list."""
    return _items(meta, content, "items")


def lines_of(meta: Meta, content: bytes) -> Items:
    """Return what lines of JSON say."""
    try:
        return Items(meta, [json.loads(line) for line in content.splitlines() if line.strip()], None)
    except ValueError as error:
        raise UnreadableAnswer("The answer is no lines of JSON.", meta.request_id) from error


def models_of(meta: Meta, content: bytes) -> Items:
    """Return the models, which stand in their list as OpenAI's protocol has it."""
    return _items(meta, content, "data")


def _items(meta: Meta, content: bytes, name: str) -> Items:
    found = _json(content)
    if isinstance(found, dict) and isinstance(found.get(name), list):
        return Items(meta, found[name], found.get("next"))
    if isinstance(found, list):
        return Items(meta, found, None)
    raise UnreadableAnswer("The answer is no list.", meta.request_id)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
