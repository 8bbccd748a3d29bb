"""A plain infer request is read at a glance; it comes to what reading it thoroughly comes to."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from haat.gateway.doors.inference.glance import glance_at
from haat.gateway.doors.inference.inference import Inference, read_inference
from haat.gateway.doors.inference.tasks import face_of
from haat.gateway.http.answers import Whole
from haat.kernel.errors import ProviderFailed

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


OUTPUTS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"text": st.text(max_size=3)}),
        st.sampled_from([{"text": "a", "summary": "b"}, {"summary": "b"}, {"text": None}, {"text": 1}, {}]),
    ),
    max_size=3,
)


def given_of(inference: Inference, answered: bytes) -> Any:
    """Return what becomes of a task's answer."""
    answer = Whole(200, b"OK", [], answered)
    try:
        inference.give(answer)
    except ProviderFailed as error:
        return error.detail
    return answer.lines, json.loads(answer.body)


@given(BODIES, st.sampled_from(CATEGORIES), st.sets(st.sampled_from(sorted(FIELDS))), OUTPUTS)
def test_a_glance_comes_to_what_thorough_reading_comes_to(
    body: dict[str, Any], category: str, also: set[str], outputs: list[Any]
) -> None:
    face = face_of(category)
    wanted = frozenset({"text"} | (also & face.tensors.inputs.keys()))
    raw = json.dumps(body).encode()
    glance = glance_at(raw, face, wanted, "acme/it", "1")
    if glance is None:
        return
    thorough = read_inference(raw, None, face, wanted, "acme/it", "1")
    assert json.loads(glance.task) == json.loads(thorough.task)
    assert glance.languages == thorough.languages
    answered = json.dumps({"output": outputs, "usage": {"characters": 1}}).encode()
    assert given_of(glance, answered) == given_of(thorough, answered)


def test_what_most_clients_send_is_read_at_a_glance() -> None:
    def text(name: str, *values: str) -> dict[str, Any]:
        return {"name": name, "shape": [len(values), 1], "datatype": "BYTES", "data": list(values)}

    sent = [text("INPUT_TEXT", "a", "b"), text("INPUT_LANGUAGE_ID", "hi"), text("OUTPUT_LANGUAGE_ID", "ur")]
    raw, wanted = json.dumps({"id": "1", "inputs": sent}).encode(), frozenset({"text", "source", "target"})
    glance = glance_at(raw, face_of("translation"), wanted, "acme/it", "1")
    assert glance is not None
    task = {"input": [{"text": "a"}, {"text": "b"}], "config": {"source": "hi", "target": "ur"}}
    assert (json.loads(glance.task), glance.languages) == (task, "hi>ur")
    assert given_of(glance, b'{"output": [{"text": "c"}, {"text": "d"}]}')[1] == {
        "model_name": "acme/it",
        "model_version": "1",
        "id": "1",
        "outputs": [{"name": "OUTPUT_TEXT", "shape": [2, 1], "datatype": "BYTES", "data": ["c", "d"]}],
    }
