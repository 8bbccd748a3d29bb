"""Answers in the task schema (docs/tasks.md): one for each item, by the service's category."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from haat.gateway.simulator.marks import (
    RATE,
    SECONDS,
    TONES,
    encode,
    mark,
    marked,
    seconds_of,
    tone,
    tone_as,
    vector,
)
from haat.gateway.simulator.shapes import EVENTS, JSON, Simulated, read_object
from haat.kernel.errors import ValidationFailed
from haat.language import detect

if TYPE_CHECKING:
    from haat.gateway.market.snapshot import Service

_MOST_TEXT = 20_000
_KINDS = ("text", "audio", "image")


def answer(service: Service, body: bytes, streams: bool) -> Simulated:
    """Return the answer to a task call; raise MalformedJson, or ValidationFailed with the wrong fields."""
    items, config = _read(body)
    outputs = [_output(service.category, item, config) for item in items]
    usage = {service.unit: _used(service.unit, items)} if service.unit != "bytes" else {}
    reported = "; ".join(f"{unit}={quantity:g}" for unit, quantity in usage.items()).encode("ascii")
    whole = {"output": outputs, "usage": usage}
    if not streams:
        return Simulated(JSON, reported, (encode(whole),))
    events = [b"data: %b\n\n" % encode({"index": at, "output": output}) for at, output in enumerate(outputs)]
    return Simulated(EVENTS, reported, (*events, b"data: %b\n\n" % encode(whole), b"data: [DONE]\n\n"))


def _read(body: bytes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    asked = read_object(body)
    items, config = asked.get("input"), asked.get("config", {})
    errors = [_problem(name, "is not a field of a task") for name in asked if name not in ("input", "config")]
    if not isinstance(config, dict):
        errors.append(_problem("config", "must be an object"))
    if not isinstance(items, list) or not items:
        errors.append(_problem("input", "must be a list with at least one item"))
    else:
        errors += [_problem(f"input[{at}]", "must hold a text, a sound or an image")
                   for at, item in enumerate(items) if not _is_item(item)]  # fmt: skip
    if errors:
        raise ValidationFailed(errors=errors)
    assert isinstance(items, list) and isinstance(config, dict)
    return items, config


def _is_item(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    if isinstance(item.get("text"), str):
        return True
    return any(isinstance(item.get(kind), dict) and isinstance(item[kind].get("content"), str) for kind in _KINDS[1:])


def _problem(field: str, message: str) -> dict[str, str]:
    return {"field": field[:200], "message": message}


def _output(category: str, item: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    of = [category, item, config]
    text = item.get("text")
    if category == "text_to_speech":
        return {"audio": _sound(config.get("format", "wav"), of)}
    if category == "embedding":
        return {"embedding": vector(item)}
    if category == "nlp" and text is not None:
        return _about(text, of)
    if text is not None:
        return {"text": marked(text[:_MOST_TEXT], of)}
    if "audio" in item:
        return {"text": marked("what was spoken", of), "seconds": seconds_of(item["audio"]["content"])}
    lines = [marked("the first line", of), f"the second line of {mark(of)}"]
    return {"text": "\n".join(lines), "lines": lines}


def _sound(form: Any, of: Any) -> dict[str, Any]:
    if not isinstance(form, str) or form not in ("wav", *TONES):
        raise ValidationFailed(errors=[_problem("config.format", f"must be one of wav, {', '.join(TONES)}")])
    content = base64.b64encode(tone(of) if form == "wav" else tone_as(form)).decode("ascii")
    return {"content": content, "format": form, "sample_rate": TONES.get(form, RATE), "seconds": SECONDS}


def _about(text: str, of: Any) -> dict[str, Any]:
    """Return what the services about a text say, all at once: its language is really told, the rest is made up."""
    told = detect(text).best
    score = round(int(mark(of), 16) / 0xFFFFFFFF * 2 - 1, 4)
    label = "positive" if score >= 0.05 else "negative" if score <= -0.05 else "neutral"
    return {
        "text": marked(text[:_MOST_TEXT], of),
        "language": str(told.tag) if told is not None else "und",
        "confidence": round(told.confidence, 4) if told is not None else 0.0,
        "label": label,
        "score": score,
    }


def _used(unit: str, items: list[dict[str, Any]]) -> float:
    texts = [str(item.get(name, "")) for item in items for name in ("text", "other")]
    if unit in ("characters", "graphemes"):
        return sum(len(text) for text in texts)
    if unit == "tokens":
        return sum(len(text.split()) for text in texts)
    if unit in ("audio_seconds", "compute_seconds"):
        sounds = [item["audio"]["content"] for item in items if isinstance(item.get("audio"), dict)]
        return round(sum(seconds_of(sound) for sound in sounds), 3)
    return 1 if unit == "requests" else len(items)
