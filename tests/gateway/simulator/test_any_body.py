"""Whatever JSON a caller sends, the simulator answers or refuses: nothing else comes out of it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haat.catalog.model import CATEGORIES, UNITS
from haat.gateway.market.snapshot import Service
from haat.gateway.simulator import chat, task
from haat.gateway.simulator.shapes import Simulated
from haat.kernel.errors import HaatError, InvalidRequest

NAMES = st.sampled_from(
    ["input", "config", "text", "other", "audio", "image", "content", "messages", "role", "model", "stream", "source",
     "stream_options", "include_usage", "encoding_format", "format", "other", "language", "target"]
)  # fmt: skip
WORDS = st.sampled_from(["translation", "hi-Deva", "wav", "base64", "नमस्ते", ""])
LEAVES = st.none() | st.booleans() | st.integers(-5, 2**40) | st.floats(allow_nan=False) | WORDS | st.text(max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=5).map(lambda value: json.dumps(value).encode()) | st.binary(
    max_size=20
)


def service(category: str, unit: str) -> Service:
    return Service("id", "acme", "", "x", "published", "", unit, "IN", (), "", b"", (), "1", category=category)


@given(BODIES, st.sampled_from(CATEGORIES), st.sampled_from(UNITS), st.booleans())
@settings(max_examples=150, deadline=None)
def test_of_a_task_service(body: bytes, category: str, unit: str, streams: bool) -> None:
    with contextlib.suppress(HaatError):
        looked_at(task.answer(service(category, unit), body, streams))


@given(
    BODIES,
    st.sampled_from(UNITS),
    st.sampled_from([b"/chat/completions", b"/embeddings", b"/messages", b"/audio/speech", b"/audio/transcriptions"]),
)
@settings(max_examples=150, deadline=None)
def test_of_a_language_model(body: bytes, unit: str, path: bytes) -> None:
    with contextlib.suppress(HaatError):
        looked_at(chat.answer("openai", path, body, unit))


def looked_at(found: Simulated | None) -> None:
    assert found is not None
    assert found.parts and all(found.parts)
    found.usage.decode("ascii")
    if found.content_type == b"application/json":
        assert len(found.parts) == 1
        json.loads(found.parts[0])


@pytest.mark.parametrize("path", [b"/chat/completions", b"/messages"])
def test_of_messages_of_many_shapes(path: bytes) -> None:
    for messages in ([{"content": None}], [{"content": [1, {"text": 2}]}], [{"content": "hi"}], [{}]):
        looked_at(chat.answer("openai", path, json.dumps({"messages": messages}).encode(), "tokens"))
    for messages in (None, True, 7, {}, [], [1]):
        with pytest.raises(InvalidRequest) as refused:
            chat.answer("openai", path, json.dumps({"messages": messages}).encode(), "tokens")
        assert refused.value.extensions == {"field": "messages"}


@pytest.mark.parametrize("text", [r"\ud800", r"\u0000", r"\ud83d\ude00"])
def test_of_texts_that_can_hardly_be_written(text: str) -> None:
    with contextlib.suppress(HaatError):
        looked_at(task.answer(service("nlp", "characters"), b'{"input":[{"text":"a%b"}]}' % text.encode(), False))
