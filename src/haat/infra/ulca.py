"""ULCA's tasks as a service of Dhruva's kind takes them: a call of the task schema made one of these, and back.

Pure: the gateway asks with it, and the acceptance call does. A service is asked at its task's own
address, which ends with the task's name: ``https://…/services/inference/translation``.
"""

from __future__ import annotations

import base64
import binascii
import io
import wave
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from haat.kernel.errors import HaatError, MalformedJson, ValidationFailed
from haat.language import LANGUAGES

Document = dict[str, Any]
_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_VOICES = {"female": "female", "male": "male"}
_THEIR_FORMATS = {"opus": "ogg"}
_KIND = {"text": "input", "audio": "audio", "image": "image"}
_MICRO = Decimal("0.000001")


class Unfit(ValueError):
    """A service's answer is not of the task's shape."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task by its name in the address; ``read`` makes an output of what the service says of one input."""

    name: str
    takes: Literal["text", "audio", "image"]
    read: Callable[[Document, Document], Document]
    answers: Literal["output", "audio"] = "output"
    languages: Literal["none", "one", "pair"] = "one"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to a service: its body, how many inputs it has, and what they come to in units."""

    body: bytes
    items: int
    units: Mapping[str, Decimal]


def task_at(url: str) -> Task | None:
    """Return the task whose address this is; None when it is none's."""
    return TASKS.get(urlsplit(url).path.rstrip("/").rpartition("/")[2])


# --- languages ----------------------------------------------------------------------------------


def code_of(tag: str) -> tuple[str, str]:
    """Return a language's code, and its script where it is not the usual one."""
    code, _, script = tag.partition("-")
    known = LANGUAGES.get(code)
    return code, "" if known is not None and known.scripts[0] == script else script


def language_of(source: str, target: str) -> dict[str, str]:
    """Return the ``language`` of a task's config for tags such as ``hi-Deva``, empty for none."""
    said: dict[str, str] = {}
    for name, tag in (("source", source), ("target", target)):
        if tag:
            code, script = code_of(tag)
            said[f"{name}Language"] = code
            if script:
                said[f"{name}ScriptCode"] = script
    return said


# --- asking -------------------------------------------------------------------------------------


def ask(task: Task, body: bytes, unit: str = "") -> Asked:
    """Make a call of the task schema a request to a service; ``unit`` is what it is sold by.

    Raise MalformedJson or ValidationFailed, with the fields of the task schema. Members of ``config`` that
    are not the task schema's, such as ``serviceId``, go to the service as they are.
    """
    try:
        document = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedJson from error
    if not isinstance(document, dict):
        raise _wrong("body", "must be an object with `input` and `config`")
    items, config = document.get("input"), document.get("config", {})
    if not isinstance(items, list) or not items:
        raise _wrong("input", "must be a list with at least one item")
    if not isinstance(config, dict):
        raise _wrong("config", "must be an object")
    read = {"text": _text, "audio": _sound, "image": _image}[task.takes]
    given = [read(item, f"input[{index}]") for index, item in enumerate(items)]
    units = _units(task, given, unit)
    asked = {"config": _config(task, dict(config), given), "controlConfig": {"dataTracking": False}}
    shown = [{name: value for name, value in one.items() if name != "format"} for one in given]
    return Asked(_encode({**asked, _KIND[task.takes]: shown}), len(given), units)


def _wrong(field: str, message: str) -> HaatError:
    return ValidationFailed(errors=[{"field": field, "message": message}])


def _text(item: Any, at: str) -> Document:
    text = item.get("text") if isinstance(item, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise _wrong(f"{at}.text", "must be a text that is not empty")
    return {"source": text}


def _sound(item: Any, at: str) -> Document:
    content, form = _content(item, "audio", at)
    return {"audioContent": content, "format": form or "wav"}


def _image(item: Any, at: str) -> Document:
    return {"imageContent": _content(item, "image", at)[0]}


def _content(item: Any, kind: str, at: str) -> tuple[str, str]:
    held = item.get(kind) if isinstance(item, dict) else None
    content = held.get("content") if isinstance(held, dict) else None
    try:
        if not isinstance(held, dict) or not isinstance(content, str) or not base64.b64decode(content, validate=True):
            raise ValueError
    except ValueError as error:  # binascii's is one
        raise _wrong(f"{at}.{kind}.content", "must be base64 that is not empty") from error
    form = held.get("format", "")
    if not isinstance(form, str):
        raise _wrong(f"{at}.{kind}.format", "must be a text")
    return content, form


def _config(task: Task, config: Document, given: list[Document]) -> Document:
    """Return the task's config; what is in the task schema's is taken over in ULCA's words."""
    wanted = {"none": (), "one": ("language",), "pair": ("source", "target")}[task.languages]
    tags = []
    for name in wanted:
        tag = config.pop(name, None)
        if not isinstance(tag, str) or not tag:
            raise _wrong(f"config.{name}", "must be a language tag such as `hi-Deva`")
        tags.append(tag)
    if tags:
        config["language"] = language_of(*tags) if len(tags) == 2 else language_of(tags[0], "")
    if task.name == "transliteration":
        config.setdefault("isSentence", True)
    elif task.name == "tts":
        voice = config.pop("voice", "female")
        if voice not in _VOICES:
            raise _wrong("config.voice", f"must be {' or '.join(_VOICES)}")
        form = config.pop("format", "wav")
        if not isinstance(form, str):
            raise _wrong("config.format", "must be the name of a format")
        config |= {"gender": _VOICES[voice], "audioFormat": _THEIR_FORMATS.get(form, form)}
    elif task.takes == "audio":
        forms = sorted({one["format"] for one in given})
        if len(forms) > 1:
            raise _wrong("input", f"must be sounds of one format, not {' and '.join(forms)}")
        config["audioFormat"] = forms[0]
        rate = sample_rate_of(given[0]["audioContent"])
        if rate:
            config.setdefault("samplingRate", rate)
    return config


def _units(task: Task, given: list[Document], unit: str) -> dict[str, Decimal]:
    if task.takes == "text":
        return {"characters": Decimal(sum(len(one["source"]) for one in given))}
    if task.takes == "image":
        return {"images": Decimal(len(given))}
    seconds = [seconds_of(one["audioContent"]) for one in given]
    for index, one in enumerate(seconds):
        if one is None and unit == "audio_seconds":
            raise _wrong(f"input[{index}].audio.content", "must be a WAV file: its length is what is metered")
    return {"audio_seconds": sum((one for one in seconds if one is not None), Decimal(0))}


# --- sounds -------------------------------------------------------------------------------------


def sample_rate_of(content: str) -> int:
    """Return the rate that a WAV file in base64 names, 0 when it is none."""
    head = content[:128]
    try:
        begin = base64.b64decode(head[: len(head) // 4 * 4])
    except (ValueError, binascii.Error):
        return 0
    if len(begin) < 28 or begin[:4] != b"RIFF" or begin[8:16] != b"WAVEfmt ":
        return 0
    return int.from_bytes(begin[24:28], "little")


def seconds_of(content: str) -> Decimal | None:
    """Return how long a WAV file in base64 lasts, None when it is none."""
    try:
        with wave.open(io.BytesIO(base64.b64decode(content)), "rb") as file:
            frame = file.getnchannels() * file.getsampwidth()
            there = min(file.getnframes(), len(base64.b64decode(content)) // frame)  # whatever its head says
            return (Decimal(there) / file.getframerate()).quantize(_MICRO)
    except (ValueError, binascii.Error, wave.Error, EOFError, RuntimeError, ArithmeticError):
        return None


# --- answers ------------------------------------------------------------------------------------


def read_answer(task: Task, body: bytes, items: int) -> list[Document]:
    """Return the task schema's outputs in a service's answer, bare or in a pipeline's envelope; raise Unfit."""
    try:
        document = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unfit("it is not JSON") from error
    try:
        if "pipelineResponse" in document:
            [document] = document["pipelineResponse"]
        config = document.get("config") or {}
        outputs = [task.read(one, config) for one in document[task.answers]]
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise Unfit(f"it holds no `{task.answers}` of {task.name}") from error
    if len(outputs) != items:
        raise Unfit(f"it holds {len(outputs)} items for {items} inputs")
    return outputs


def sentence_in(body: bytes) -> str:
    """Return what a refusal says: ``message``, ``detail.message`` or ``detail``; empty when it says nothing."""
    try:
        document = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body[:500].decode("utf-8", "replace").strip()
    if not isinstance(document, dict):
        return ""
    detail = document.get("detail")
    if isinstance(detail, dict):
        detail = detail.get("message")
    said = detail if isinstance(detail, str) else document.get("message")
    return said[:500] if isinstance(said, str) else ""


def _must_be_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _translated(one: Document, config: Document) -> Document:
    return {"text": _must_be_text(one["target"])}


def _transliterated(one: Document, config: Document) -> Document:
    target = one["target"]
    texts = [_must_be_text(text) for text in (target if isinstance(target, list) else [target])]
    return {"text": texts[0], "suggestions": texts}


def _source(one: Document, config: Document) -> Document:
    return {"text": _must_be_text(one["source"])}


def _spoken(one: Document, config: Document) -> Document:
    content = _must_be_text(one["audioContent"])
    rate = sample_rate_of(content) or config.get("samplingRate")
    form = config.get("audioFormat") or "wav"
    audio: Document = {"content": content, "format": "opus" if form == "ogg" else form}
    return {"audio": {**audio, "sample_rate": int(rate)} if rate else audio}


def _named(one: Document, config: Document) -> Document:
    tokens = [
        {
            "token": _must_be_text(token["token"]),
            "tag": _must_be_text(token["tag"]),
            "start": token["tokenStartIndex"],
            "end": token["tokenEndIndex"],
        }
        for token in one["nerPrediction"]
    ]
    said = one.get("entities")
    return {"entities": _entities(one.get("source") or "", tokens) if said is None else said, "tokens": tokens}


def _entities(text: str, tokens: Iterable[Document]) -> list[Document]:
    """Put together what tags of tokens say (``B-PER``, ``I-PER``, ``O``)."""
    found: list[Document] = []
    inside = ""
    for token in tokens:
        begin, _, label = token["tag"].rpartition("-")
        if begin == "I" and label == inside:
            found[-1]["end"] = token["end"]
        elif begin in ("B", "I", "S"):
            found.append({"label": label, "start": token["start"], "end": token["end"]})
        inside = label if begin in ("B", "I", "S") else ""
    return [{"text": text[one["start"] : one["end"]], **one} for one in found]


def _detected(one: Document, config: Document) -> Document:
    [best, *_] = one["langPrediction"]
    code, script = _must_be_text(best["langCode"]), best.get("ScriptCode") or best.get("scriptCode") or ""
    known = LANGUAGES.get(code)
    script = script or (known.scripts[0] if known is not None else "")
    tag = f"{code}-{script}" if known is not None else code
    return {"language": tag, "script": script or None, "confidence": best.get("langScore", 0)}


def _heard(one: Document, config: Document) -> Document:
    return {"segments": [{"start": span["start"], "end": span["end"]} for span in one["timestamps"]]}


def _tasks(*tasks: Task) -> Mapping[str, Task]:
    return {task.name: task for task in tasks}


TASKS: Mapping[str, Task] = _tasks(
    Task("translation", "text", _translated, languages="pair"),
    Task("transliteration", "text", _transliterated, languages="pair"),
    Task("asr", "audio", _source),
    Task("tts", "text", _spoken, answers="audio"),
    Task("ocr", "image", _source),
    Task("ner", "text", _named),
    Task("txt-lang-detection", "text", _detected, languages="none"),
    Task("vad", "audio", _heard, languages="none"),
)
NAMES: Sequence[str] = tuple(TASKS)
