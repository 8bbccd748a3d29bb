"""What a model behind the Open Inference Protocol seems to do, read from its metadata: a proposal to start from."""

from __future__ import annotations

import base64
import math
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from haat.catalog.tensors import MOST_FIELDS
from haat.infra.inference.mapping import SAMPLES, TensorMap
from haat.infra.inference.sound import as_wav

_LANGUAGE = re.compile(r"LANG|LOCALE")
_SOURCE = re.compile(r"SRC|SOURCE|INPUT|FROM")
_TARGET = re.compile(r"TGT|TARGET|OUTPUT|TO_|_TO")
_AUDIO = re.compile(r"AUDIO|WAV|SPEECH|SOUND|SIGNAL")
_IMAGE = re.compile(r"IMAGE|IMG|PICTURE|PHOTO")
_TEXT = re.compile(r"TEXT|SENTENCE|PROMPT|QUERY|INPUT|SOURCE|SRC|DOCUMENT|PASSAGE")
_PAIRED = re.compile(r"TEXT|SENTENCE|QUERY|DOCUMENT|PASSAGE|PREMISE|HYPOTHESIS")
_LENGTH = re.compile(r"NUM_?SAMPLES|LENGTH|_LEN|N_SAMPLES")
_TOKENS = re.compile(r"INPUT_IDS|ATTENTION_MASK|TOKEN")
_WORDS_OUT = re.compile(r"TEXT|TRANSCRI|TRANSLAT|SUMMARY|OUTPUT|RESULT|PREDICT")
_TRANSLITERATES = re.compile(r"XLIT|TRANSLIT", re.IGNORECASE)
_VECTORS = re.compile(r"EMBED|VECTOR|HIDDEN|POOL")
_UNNAMED = re.compile(r"[^a-z0-9_]+")
_FLOATS = frozenset({"FP16", "FP32", "FP64"})


class Unclear(ValueError):
    """No task could be told from the metadata; the sentence says what was in the way."""


@dataclass(slots=True)
class Proposal:
    """What a model seems to do. ``notes`` are what a person should look at."""

    category: str
    unit: str
    tensors: TensorMap
    sample: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    datatype: str
    shape: tuple[int, ...]
    base64: bool

    @property
    def key(self) -> str:
        return self.name.upper()

    @property
    def is_float(self) -> bool:
        return self.datatype in _FLOATS

    @property
    def option(self) -> str:
        """The name that an option, or a member of the answer, of this tensor gets."""
        name = _UNNAMED.sub("_", self.name.lower()).strip("_")[:64]
        return name if name[:1].isalpha() else f"field_{name}"[:64]


def _tensors(metadata: Mapping[str, Any], member: str) -> list[_Tensor]:
    found = []
    for entry in metadata.get(member) or []:
        try:
            shape = tuple(int(size) for size in entry["shape"])
            parameters = entry.get("parameters") or {}
            is_base64 = parameters.get("content_type") == "base64"
            found.append(_Tensor(str(entry["name"]), str(entry["datatype"]), shape, is_base64))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Unclear(
                f"`{member}` of the metadata is not a list of tensors with name, datatype and shape"
            ) from error
    if not 1 <= len(found) <= MOST_FIELDS:
        raise Unclear(f"the metadata names {len(found)} `{member}`: there must be 1 to {MOST_FIELDS}")
    return found


def propose(metadata: Mapping[str, Any], sample_rate: int = 16_000) -> Proposal:
    """Return how a model could be asked, and what it then does, by its metadata; raise Unclear."""
    inputs, outputs = _tensors(metadata, "inputs"), _tensors(metadata, "outputs")
    for one in inputs:
        if _TOKENS.search(one.key) and one.datatype.startswith(("INT", "UINT")):
            raise Unclear(f"{one.name} takes token numbers: put a tokenizer before the model, so that it takes texts")
    notes: list[str] = []
    asked = _inputs(inputs, notes)
    answered = _outputs(outputs, asked, notes)
    main = next(one for one in inputs if one.name in (asked.get("text"), asked.get("audio"), asked.get("image")))
    name = str(metadata.get("name", ""))
    tensors = TensorMap(
        model=name,
        inputs=asked,
        outputs=answered,
        datatypes={one.name: one.datatype for one in (*inputs, *outputs) if one.datatype != "BYTES"},
        rank=1 if len(main.shape) == 1 else 2,
        most_items=main.shape[0] if main.shape[0] > 0 else 0,
        sample_rate=sample_rate,
        base64=any(one.base64 for one in (*inputs, *outputs)),
        version=str(metadata.get("version", "")),
        decoupled=metadata.get("decoupled") is True,
    )
    if tensors.decoupled:
        notes.append("it answers in several parts: its callers get a stream of events")
    category, unit = _category(name, asked, answered)
    return Proposal(category, unit, tensors, _sample(asked, {one.name: one for one in inputs}, sample_rate), notes)


def _inputs(inputs: list[_Tensor], notes: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    languages = [one for one in inputs if _LANGUAGE.search(one.key)]
    rest = [one for one in inputs if one not in languages]
    _name_languages(languages, fields, notes)
    for one in rest:
        if _LENGTH.search(one.key) and one.datatype.startswith(("INT", "UINT")):
            fields[SAMPLES] = one.name
        elif _AUDIO.search(one.key) and one.datatype in ("BYTES", "FP32") and "audio" not in fields:
            fields["audio"] = one.name
        elif _IMAGE.search(one.key) and one.datatype == "BYTES" and "image" not in fields:
            fields["image"] = one.name
    if "audio" not in fields and "image" not in fields:
        _name_texts([one for one in rest if one.name not in fields.values()], fields)
    if not fields.keys() & {"text", "audio", "image"}:
        names = ", ".join(f"{one.name} {one.datatype}{list(one.shape)}" for one in inputs)
        raise Unclear(f"none of the inputs looks like a text, a sound or an image: {names}")
    for one in rest:
        if one.name not in fields.values():
            fields[one.option] = one.name
            notes.append(f"{one.name} ({one.datatype}) is taken for the option `{one.option}`, which callers must give")
    return fields


def _name_languages(languages: list[_Tensor], fields: dict[str, str], notes: list[str]) -> None:
    if len(languages) == 1:
        fields["language"] = languages[0].name
        return
    target = next((one for one in languages if _TARGET.search(one.key)), None)
    source = next((one for one in languages if one is not target and _SOURCE.search(one.key)), None)
    if len(languages) == 2 and target is not None:
        source = source or next(one for one in languages if one is not target)
    for name, one in (("source", source), ("target", target)):
        if one is not None:
            fields[name] = one.name
    for one in languages:
        if one not in (source, target):
            fields[one.option] = one.name
            notes.append(f"{one.name} is a language of which nobody knows what it is for")


def _name_texts(rest: list[_Tensor], fields: dict[str, str]) -> None:
    texts = [one for one in rest if one.datatype == "BYTES"]
    likely = [one for one in texts if _TEXT.search(one.key)] or texts
    if likely:
        fields["text"] = likely[0].name
    if len(likely) == 2 and len(texts) == 2 and all(_PAIRED.search(one.key) for one in likely):
        fields["other"] = likely[1].name


def _outputs(outputs: list[_Tensor], asked: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    members: dict[str, str] = {}
    for one in outputs:
        if _AUDIO.search(one.key) and "text" in asked and one.datatype in ("BYTES", "FP32") and "audio" not in members:
            members["audio"] = one.name
        elif one.datatype == "BYTES" and "text" not in members and (len(outputs) == 1 or _WORDS_OUT.search(one.key)):
            members["text"] = one.name
        elif one.is_float and "embedding" not in members and _is_vector(one, outputs):
            members["embedding"] = one.name
        else:
            members[one.option] = one.name
            notes.append(f"{one.name} ({one.datatype}) is answered as `{one.option}`")
    return members


def _is_vector(one: _Tensor, outputs: list[_Tensor]) -> bool:
    if len(one.shape) != 2 or one.shape[-1] == 1:
        return False
    return bool(_VECTORS.search(one.key)) or len(outputs) == 1


def _category(name: str, asked: Mapping[str, str], answered: Mapping[str, str]) -> tuple[str, str]:
    """Return the category and the unit that calls are counted in."""
    if "audio" in asked:
        return ("speech_to_text" if "text" in answered else "custom"), "audio_seconds"
    if "image" in asked:
        return ("ocr" if "text" in answered else "custom"), "images"
    if "audio" in answered:
        return "text_to_speech", "characters"
    if "embedding" in answered:
        return "embedding", "characters"
    if "target" in asked and "text" in answered:
        return ("transliteration" if _TRANSLITERATES.search(name) else "translation"), "characters"
    return "nlp", "characters"


# --- a sample -----------------------------------------------------------------------------------


def _sample(asked: Mapping[str, str], tensors: Mapping[str, _Tensor], sample_rate: int) -> dict[str, Any]:
    """Return a task to try the model with."""
    item: dict[str, Any] = {}
    for name, value in (("text", "नमस्ते दुनिया"), ("other", "नमस्ते")):
        if name in asked:
            item[name] = value
    if "audio" in asked:
        item["audio"] = {"content": base64.b64encode(_tone(sample_rate)).decode("ascii"), "format": "wav"}
    if "image" in asked:
        item["image"] = {"content": base64.b64encode(_white(64, 32)).decode("ascii"), "format": "png"}
    languages = {"source": "hi", "target": "en", "language": "hi"}
    config: dict[str, Any] = {}
    for name, tensor in asked.items():
        if name in item or name == SAMPLES:
            continue
        kind = tensors[tensor].datatype
        config[name] = languages.get(name, "default") if kind == "BYTES" else False if kind == "BOOL" else 1
    return {"input": [item], "config": config}


def _tone(rate: int) -> bytes:
    """Return half a second of a quiet tone of 440 Hz, as WAV."""
    return as_wav([0.1 * math.sin(2 * math.pi * 440 * at / rate) for at in range(rate // 2)], rate)


def _white(width: int, height: int) -> bytes:
    """Return a white picture, as PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\xff" * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
