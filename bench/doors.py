"""The front doors, each beside the native call that it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bench.bodies import ANSWER_BYTES, CHAT_ANSWER, REQUEST_BYTES, TASK_ANSWER, padded

TEXT = "भारत एक विशाल देश है"
LONG_BYTES = 300


@dataclass(frozen=True, slots=True)
class Case:
    """One operation. ``slug`` is the service behind it, ``answer`` what its provider says to both."""

    name: str
    slug: str
    category: str
    unit: str
    usage: str
    answer: bytes
    native_body: bytes
    path: str
    body: bytes
    tail: str = "/invoke"
    dialect: str = "task"


def _json(content: Mapping[str, object], size: int = REQUEST_BYTES) -> bytes:
    return padded(content, size)


def _text(name: str, value: str) -> dict[str, object]:
    return {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [value]}


_VECTOR = [round(number / 16 - 0.5, 4) for number in range(16)]
_CHAT = {"model": "acme/chat", "messages": [{"role": "user", "content": f"{TEXT}. Say that in Urdu."}]}
_MESSAGES = {"model": "acme/claude", "max_tokens": 50, "messages": [{"role": "user", "content": TEXT}]}
_TRANSLATE = Case(
    name="bhashini pipeline",
    slug="translate",
    category="translation",
    unit="characters",
    usage="characters=20",
    answer=TASK_ANSWER,
    native_body=_json({"input": [{"text": TEXT}], "config": {"source": "hi-Deva", "target": "ur-Arab"}}),
    path="/services/inference/pipeline",
    body=_json(
        {
            "pipelineTasks": [
                {
                    "taskType": "translation",
                    "config": {
                        "language": {"sourceLanguage": "hi", "targetLanguage": "ur"},
                        "serviceId": "acme/translate",
                    },
                }
            ],
            "inputData": {"input": [{"source": TEXT}]},
        },
        LONG_BYTES,
    ),
)
CASES = (
    Case(
        name="openai chat",
        slug="chat",
        category="llm",
        unit="tokens",
        usage="",
        answer=CHAT_ANSWER,
        native_body=_json(_CHAT),
        path="/v1/chat/completions",
        body=_json(_CHAT),
        tail="/chat/completions",
        dialect="openai",
    ),
    Case(
        name="openai embeddings",
        slug="embed",
        category="embedding",
        unit="tokens",
        usage="tokens=5",
        answer=padded({"output": [{"embedding": _VECTOR}], "usage": {"tokens": 5}}, ANSWER_BYTES),
        native_body=_json({"input": [{"text": TEXT}]}),
        path="/v1/embeddings",
        body=_json({"model": "acme/embed", "input": [TEXT]}),
    ),
    Case(
        name="anthropic messages",
        slug="claude",
        category="llm",
        unit="tokens",
        usage="",
        answer=padded(
            {
                "id": "msg_bench",
                "type": "message",
                "role": "assistant",
                "content": [{"type": "text", "text": "jawab"}],
                "usage": {"input_tokens": 20, "output_tokens": 30},
            },
            ANSWER_BYTES,
        ),
        native_body=_json(_MESSAGES),
        path="/v1/messages",
        body=_json(_MESSAGES),
        tail="/messages",
        dialect="anthropic",
    ),
    _TRANSLATE,
    replace(
        _TRANSLATE,
        name="open inference",
        path="/v2/models/acme%2Ftranslate/infer",
        body=_json(
            {
                "inputs": [
                    _text("INPUT_TEXT", TEXT),
                    _text("INPUT_LANGUAGE_ID", "hi"),
                    _text("OUTPUT_LANGUAGE_ID", "ur"),
                ]
            },
            LONG_BYTES,
        ),
    ),
)
"""What the last two say takes more bytes than the native call has."""
SERVICES = tuple({case.slug: case for case in CASES}.values())
