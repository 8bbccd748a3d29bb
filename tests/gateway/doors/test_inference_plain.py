"""A plain infer request is read at a glance; it comes to what reading it thoroughly comes to."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from haat.gateway.doors.inference.inference import read_plain
from haat.gateway.doors.inference.message import read_request
from haat.gateway.doors.inference.tasks import face_of, plain_task_of, task_of

CATEGORIES = ("translation", "text_to_speech", "nlp", "embedding")
FIELDS = frozenset({"text", "source", "target", "language"})
NAMES = st.sampled_from(["INPUT_TEXT", "INPUT_LANGUAGE_ID", "OUTPUT_LANGUAGE_ID", "LANGUAGE_ID", "OTHER_TEXT", "X"])


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Any]:
    """Tensors as they come: mostly right, some with a shape or a member that isn't."""
    data: list[Any] = draw(st.lists(st.one_of(st.text(max_size=3), st.just("hi")), min_size=0, max_size=3))
    size = len(data)
    shape = draw(st.sampled_from([[size], [size, 1], [1, size], [size + 1], [size, 2], [], [1, 1, size]]))
    made = {"name": draw(NAMES), "shape": shape, "datatype": "BYTES", "data": data}
    odd = draw(
        st.sampled_from([{}, {}, {}, {"datatype": "FP32"}, {"parameters": {}}, {"data": [data]}, {"data": None}])
    )
    return {**made, **odd}


BODIES = st.fixed_dictionaries(
    {"inputs": st.lists(tensors(), max_size=4)},
    optional={"id": st.text(max_size=4), "outputs": st.just([]), "parameters": st.just({"language": "hi"})},
)


@given(BODIES, st.sampled_from(CATEGORIES), st.sets(st.sampled_from(sorted(FIELDS))))
def test_a_glance_comes_to_what_thorough_reading_comes_to(body: dict[str, Any], category: str, also: set[str]) -> None:
    face = face_of(category)
    wanted = frozenset({"text"} | (also & face.tensors.inputs.keys()))
    raw = json.dumps(body).encode()
    plain = read_plain(raw)
    at_a_glance = None if plain is None else plain_task_of(plain, face, wanted)
    if plain is None or at_a_glance is None:
        return
    asked = read_request(raw, None)
    assert at_a_glance == task_of(asked, face, wanted)
    assert (plain.id, asked.options, asked.wanted, asked.binary) == (asked.id, {}, {}, False)


def test_what_most_clients_send_is_read_at_a_glance() -> None:
    def text(name: str, *values: str) -> dict[str, Any]:
        return {"name": name, "shape": [len(values), 1], "datatype": "BYTES", "data": list(values)}

    sent = [text("INPUT_TEXT", "a", "b"), text("INPUT_LANGUAGE_ID", "hi"), text("OUTPUT_LANGUAGE_ID", "ur")]
    plain = read_plain(json.dumps({"id": "1", "inputs": sent}).encode())
    assert plain is not None
    found = plain_task_of(plain, face_of("translation"), frozenset({"text", "source", "target"}))
    task = {"input": [{"text": "a"}, {"text": "b"}], "config": {"source": "hi", "target": "ur"}}
    assert found == (task, [2, 1])
