"""The same work, as it is asked for at every door that has it: what `test_every_door` compares."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.doors.forms import CONTENT_TYPE, form
from gateway.doors.ulca_market import SPOKEN, sound, task, texts
from haat.infra.inference.mapping import tensors_of

JSON = "Content-Type: application/json"
SERVICE = "acme/words"
HINDI, URDU = "hi-Deva", "ur-Arab"
TEXT = "आज मौसम बहुत अच्छा है।"
SOUND = base64.b64decode(SPOKEN)


@dataclass(frozen=True)
class Way:
    """One request. ``chain``: the gateway makes a call of its own for it. ``names``: it says by which service."""

    path: str
    body: bytes
    headers: tuple[str, ...] = (JSON,)
    chain: bool = False
    names: bool = True


@dataclass(frozen=True)
class Work:
    """What is done, by which kind of service, and how the provider answers: its body and what it reports."""

    category: str
    unit: str
    answer: Mapping[str, Any]
    ways: Mapping[str, Way]
    reported: str = ""
    dialect: str = "task"
    listing: Mapping[str, Any] = field(default_factory=dict)


def spelt(body: Any) -> bytes:
    """Return JSON as the doors write it: so that a native call which says the same has as many bytes."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def native(body: Any, tail: str = "/invoke") -> Way:
    return Way(f"/v1/services/{SERVICE}{tail}", spelt(body))


def one_stage(body: Mapping[str, Any]) -> Way:
    stage = {"service": SERVICE, "config": body.get("config", {})}
    return Way("/v1/pipelines", spelt({"stages": [stage], "input": body["input"]}), chain=True)


def compute(asked: dict[str, Any], given: dict[str, Any]) -> Way:
    named = {**asked, "config": {**asked["config"], "serviceId": SERVICE}}
    return Way("/services/inference/pipeline", spelt({"pipelineTasks": [named], "inputData": given}))


def single(asked: dict[str, Any], given: dict[str, Any]) -> Way:
    path = f"/services/inference/{asked['taskType']}?serviceId={SERVICE}"
    return Way(path, spelt({"config": asked["config"], **given}))


def tensors(category: str, fields: Mapping[str, bytes], *, binary: bool) -> Way:
    """Return an infer request whose fields hold one value each."""
    names = tensors_of(category).inputs
    inputs: list[dict[str, Any]] = []
    rest = b""
    for name, value in fields.items():
        entry: dict[str, Any] = {"name": names[name], "shape": [1], "datatype": "BYTES"}
        if binary:
            raw = struct.pack("<I", len(value)) + value
            inputs.append({**entry, "parameters": {"binary_data_size": len(raw)}})
            rest += raw
        else:
            text = base64.b64encode(value).decode() if name == "audio" else value.decode()
            inputs.append({**entry, "data": [text]})
    head = spelt({"inputs": inputs})
    size = (f"Inference-Header-Content-Length: {len(head)}",) if binary else ()
    return Way(f"/v2/models/{SERVICE}/infer", head + rest, (*size, "Content-Type: application/octet-stream"))


def both(category: str, fields: Mapping[str, bytes]) -> dict[str, Way]:
    return {
        "inference": tensors(category, fields, binary=False),
        "inference-binary": tensors(category, fields, binary=True),
    }


_PAIR = {"input": [{"text": TEXT}], "config": {"source": HINDI, "target": URDU}}
_VECTOR = {"input": [{"text": "a"}]}
_SPEAK = {"input": [{"text": TEXT}], "config": {"language": HINDI}}
_HEAR = {"input": [{"audio": {"content": SPOKEN, "format": "wav"}}], "config": {"language": HINDI}}
_CHAT = {"model": SERVICE, "messages": [{"role": "user", "content": "Namaste"}]}
_COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Namaste!"}, "finish_reason": "stop"}],
}

WORKS: dict[str, Work] = {
    "translation": Work(
        "translation",
        "characters",
        {"output": [{"text": "آج موسم بہت اچھا ہے۔"}]},
        {
            "native": native(_PAIR),
            "ulca": compute(task("translation", "hi", "ur"), texts(TEXT)),
            "ulca-single": single(task("translation", "hi", "ur"), texts(TEXT)),
            **both("translation", {"text": TEXT.encode(), "source": HINDI.encode(), "target": URDU.encode()}),
            "pipelines": one_stage(_PAIR),
            "translate": Way(
                "/v1/translate", spelt({"text": TEXT, "source": "hi", "target": "ur"}), chain=True, names=False
            ),
        },
        "characters=22",
        listing={"language_pairs": (f"{HINDI}>{URDU}",)},
    ),
    "embedding": Work(
        "embedding",
        "tokens",
        {"output": [{"embedding": [0.5, 0.25]}], "usage": {"tokens": 7}},
        {
            "native": native(_VECTOR),
            "openai": Way("/v1/embeddings", spelt({"model": SERVICE, "input": "a"})),
            **both("embedding", {"text": b"a"}),
        },
        "tokens=7",
    ),
    "speech": Work(
        "text_to_speech",
        "characters",
        {"output": [{"audio": {"content": SPOKEN, "format": "wav", "sample_rate": 16000}}]},
        {
            "native": native(_SPEAK),
            "openai": Way("/v1/audio/speech", spelt({"model": SERVICE, "input": TEXT, "voice": "alloy"})),
            "ulca": compute(task("tts", "hi"), texts(TEXT)),
            "ulca-single": single(task("tts", "hi"), texts(TEXT)),
            **both("text_to_speech", {"text": TEXT.encode(), "language": HINDI.encode()}),
            "pipelines": one_stage(_SPEAK),
        },
        "characters=22",
        listing={"languages": (HINDI, URDU)},
    ),
    "hearing": Work(
        "speech_to_text",
        "audio_seconds",
        {"output": [{"text": "नमस्ते", "seconds": 0.005}]},
        {
            "native": native(_HEAR),
            "openai": Way(
                "/v1/audio/transcriptions",
                form(("model", None, SERVICE.encode()), ("language", None, b"hi"), ("file", "a.wav", SOUND)),
                (CONTENT_TYPE,),
            ),
            "ulca": compute(task("asr", "hi"), sound()),
            "ulca-single": single(task("asr", "hi"), sound()),
            **both("speech_to_text", {"audio": SOUND, "language": HINDI.encode()}),
            "pipelines": one_stage(_HEAR),
        },
        "audio_seconds=0.005",
        listing={"languages": (HINDI, URDU)},
    ),
    "chat": Work(
        "llm",
        "tokens",
        {**_COMPLETION, "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}},
        {"native": native(_CHAT, "/chat/completions"), "openai": Way("/v1/chat/completions", spelt(_CHAT))},
        dialect="openai",
    ),
    "chat-estimated": Work(
        "llm",
        "tokens",
        _COMPLETION,
        {"native": native(_CHAT, "/chat/completions"), "openai": Way("/v1/chat/completions", spelt(_CHAT))},
        dialect="openai",
    ),
    "message": Work(
        "llm",
        "tokens",
        {"content": [{"type": "text", "text": "Namaste!"}], "usage": {"input_tokens": 5, "output_tokens": 20}},
        {"native": native(_CHAT, "/messages"), "anthropic": Way("/v1/messages", spelt(_CHAT))},
        dialect="anthropic",
    ),
}
