"""Infer requests and responses between their two forms: nothing is lost, and what can't be read is named."""

from __future__ import annotations

import contextlib
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.bridge import open_inference_pb2 as pb
from haat.bridge.messages import is_final, read_part, read_request, write_event, write_response
from haat.infra.inference.tensors import Tensor, Unfit, read_tensors, split, write_tensor

NUMBERS: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "UINT8": st.integers(0, 255),
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
    "FP16": st.floats(width=16, allow_nan=False, allow_infinity=False),
    "FP32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
    "BYTES": st.text("aé न😀", max_size=6).map(str.encode),
}
CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    kind = draw(st.sampled_from(sorted(NUMBERS)))
    data = draw(st.lists(NUMBERS[kind], min_size=1, max_size=6))
    return Tensor("T", kind, [len(data), 1], data)


def response(tensor: Tensor, raw: bytes | None) -> pb.ModelInferResponse:
    made = pb.ModelInferResponse(model_name="m", model_version="3", id="7")
    output = made.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    if raw is None:
        getattr(output.contents, CONTENTS[tensor.datatype]).extend(tensor.data)
    else:
        made.raw_output_contents.append(raw)
    return made


@given(tensors(), st.booleans())
def test_a_tensor_goes_over_as_it_is(tensor: Tensor, binary: bool) -> None:
    entry, raw = write_tensor(tensor, binary=binary)
    head = json.dumps({"inputs": [entry], "parameters": {"beam": 4, "binary_data_output": True}}).encode()
    asked = read_request("m", "3", head + raw, str(len(head)).encode() if binary else None)
    message = asked.message
    assert (message.model_name, message.model_version, dict(message.parameters).keys()) == ("m", "3", {"beam"})
    [there] = message.inputs
    assert (there.name, there.datatype, list(there.shape)) == ("T", tensor.datatype, tensor.shape)
    assert list(message.raw_input_contents) == [write_tensor(tensor, binary=True)[1]]


@given(tensors(), st.booleans())
def test_an_answer_comes_back_as_it_is(tensor: Tensor, typed: bool) -> None:
    raw = None if typed and tensor.datatype in CONTENTS else write_tensor(tensor, binary=True)[1]
    body, json_size = write_response(response(tensor, raw))
    head, rest = split(body, str(json_size).encode())
    document = json.loads(head)
    assert (document["model_name"], document["model_version"], document["id"]) == ("m", "3", "7")
    [read] = read_tensors(document["outputs"], rest, "outputs")
    assert (read.datatype, read.shape, read.data) == (tensor.datatype, tensor.shape, tensor.data)
    [listed] = read_tensors(json.loads(write_event(response(tensor, raw), frozenset()))["outputs"], b"", "outputs")
    assert listed.data == tensor.data


@given(st.binary(max_size=20))
def test_bytes_that_are_no_text_are_base64_where_they_are_wanted_as_they_are(value: bytes) -> None:
    tensor = Tensor("T", "BYTES", [1], [value])
    raw = write_tensor(tensor, binary=True)[1]
    [entry] = json.loads(write_event(response(tensor, raw), frozenset({"T"})))["outputs"]
    [read] = read_tensors([entry], b"", "outputs")
    assert read.base64 and entry["parameters"] == {"content_type": "base64"}


@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text("aé\0", max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["id", "inputs", "outputs", "parameters", "name", "shape", "datatype", "data"]), inner
            )
        ),
        max_leaves=12,
    ).map(lambda document: json.dumps(document).encode()),
    st.none() | st.integers(0, 90),
)
def test_whatever_comes_is_a_request_or_unfit(body: bytes, size: int | None) -> None:
    with contextlib.suppress(Unfit):
        read_request("m", "", body, None if size is None else str(size).encode())


GOOD = {"name": "T", "shape": [1], "datatype": "BYTES", "data": ["a"]}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"inputs": []}, "inputs"),
        ({"id": 5}, "id"),
        ({"parameters": []}, "parameters"),
        ({"parameters": {"a": None}}, "parameters"),
        ({"parameters": {"a": 2**63}}, "parameters"),
        ({"outputs": {}}, "outputs"),
        ({"outputs": [{}]}, "outputs[0]"),
        ({"outputs": [{"name": "X", "parameters": 5}]}, "X"),
        ({"inputs": [{**GOOD, "data": ["a", "b"]}]}, "T"),
        ({"inputs": [{**GOOD, "datatype": "FP32", "data": [1e300]}]}, "T"),
        ({"inputs": [{**GOOD, "parameters": {"a": {}}}]}, "T"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Unfit) as caught:
        read_request("m", "", json.dumps({"inputs": [GOOD], **change}).encode(), None)
    assert caught.value.field == field


def test_an_answer_that_does_not_hold_together_is_left_to_its_reader() -> None:
    for broken in (
        pb.ModelInferResponse(
            outputs=[{"name": "T", "datatype": "INT8", "shape": [1], "contents": {"int_contents": [300]}}]
        ),
        pb.ModelInferResponse(outputs=[{"name": "T", "datatype": "BF16", "shape": [1]}]),
        pb.ModelInferResponse(
            outputs=[{"name": name, "datatype": "INT8", "shape": [1]} for name in ("T", "U")],
            raw_output_contents=[b"1"],
        ),
    ):
        body, json_size = write_response(broken)
        head, rest = split(body, str(json_size).encode() if json_size >= 0 else None)
        with pytest.raises(Unfit):
            read_tensors(json.loads(head)["outputs"], rest, "outputs")
        with pytest.raises(Unfit):
            write_event(broken, frozenset())


def test_numbers_that_are_none_are_kept_for_the_reader_to_refuse() -> None:
    tensor = Tensor("T", "FP32", [1], [math.nan])
    body, json_size = write_response(response(tensor, struct.pack("<f", math.nan)))
    [read] = read_tensors(json.loads(body[:json_size])["outputs"], body[json_size:], "outputs")
    assert math.isnan(read.data[0])


@given(tensors(), st.sampled_from(["", "1", "v1.0"]))
def test_a_part_of_a_stream_is_read_wrapped_and_as_it_is(tensor: Tensor, version: str) -> None:
    part = response(tensor, write_tensor(tensor, binary=True)[1])
    part.model_version = version
    wrapped = pb.ModelStreamInferResponse(infer_response=part)
    assert read_part(wrapped.SerializeToString()) == read_part(part.SerializeToString()) == wrapped


@given(st.text("aé\0 ", max_size=9))
def test_what_a_stream_says_went_wrong_is_read(sentence: str) -> None:
    said = pb.ModelStreamInferResponse(error_message=sentence)
    assert read_part(said.SerializeToString()) == said


def test_the_last_part_is_known_by_its_parameter() -> None:
    part = pb.ModelInferResponse()
    assert not is_final(part)
    part.parameters["triton_final_response"].bool_param = False
    assert not is_final(part)
    part.parameters["triton_final_response"].bool_param = True
    assert is_final(part)
