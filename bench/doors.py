"""The front doors, each beside the native call that it stands for."""

from __future__ import annotations

from dataclasses import dataclass

from bench.bodies import ANSWER_BYTES, REQUEST_BYTES, padded

TEXT = "भारत एक विशाल देश है"


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


def _json(content: dict[str, object]) -> bytes:
    return padded(content, REQUEST_BYTES)


_VECTOR = [round(number / 16 - 0.5, 4) for number in range(16)]
CASES = (
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
)
