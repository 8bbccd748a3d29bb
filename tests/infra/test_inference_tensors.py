"""Tensors on the wire: what is written is what is read, in JSON and in binary."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.infra.inference.sound import NoSound, as_wav, as_waveform, read_wav
from haat.infra.inference.tensors import Tensor, Unfit, read_tensors, split, write_tensor

_WHOLE = {f"{sign}INT{bits}": (bits, sign) for bits in (8, 16, 32, 64) for sign in ("", "U")}


def elements(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BYTES":
        return st.text(max_size=20).map(str.encode)
    if datatype == "BOOL":
        return st.booleans()
    if datatype in _WHOLE:
        bits, sign = _WHOLE[datatype]
        return st.integers(0, 2**bits - 1) if sign else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return st.floats(width=int(datatype[2:]), allow_nan=False, allow_infinity=False)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(["BYTES", "BOOL", "FP16", "FP32", "FP64", *_WHOLE]))
    rows, columns = draw(st.integers(0, 4)), draw(st.integers(1, 3))
    data = draw(st.lists(elements(datatype), min_size=rows * columns, max_size=rows * columns))
    name = draw(st.text("AZ_", min_size=1, max_size=4))
    return Tensor(name, datatype, [rows, columns], data, base64=datatype == "BYTES" and draw(st.booleans()))


@given(st.lists(st.tuples(tensors(), st.booleans()), min_size=1, max_size=4, unique_by=lambda one: one[0].name))
def test_what_is_written_is_read_again(given_tensors: list[tuple[Tensor, bool]]) -> None:
    written = [write_tensor(tensor, binary=binary) for tensor, binary in given_tensors]
    head = json.dumps([entry for entry, _ in written]).encode()
    body = head + b"".join(raw for _, raw in written)
    first, rest = split(body, str(len(head)).encode())
    for (tensor, binary), found in zip(given_tensors, read_tensors(json.loads(first), rest, "inputs"), strict=True):
        assert (found.name, found.datatype, found.shape) == (tensor.name, tensor.datatype, tensor.shape)
        assert (found.listed, found.base64) == (not binary, tensor.base64 and not binary)
        if not found.base64:
            assert list(found.data) == list(tensor.data)


def test_byte_strings_have_their_length_before_them_and_numbers_are_little_endian() -> None:
    _, raw = write_tensor(Tensor("A", "BYTES", [2], [b"ab", b""]), binary=True)
    assert raw == b"\x02\0\0\0ab\0\0\0\0"
    _, raw = write_tensor(Tensor("A", "INT16", [1], [258]), binary=True)
    assert raw == b"\x02\x01"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=20))
def test_data_of_any_kind_is_read_or_refused(data: Any) -> None:
    for datatype in ("BYTES", "FP32", "UINT8", "BOOL"):
        try:
            [tensor] = read_tensors([{"name": "A", "datatype": datatype, "shape": [2], "data": data}], b"", "inputs")
        except Unfit as error:
            assert error.field == "A"
        else:
            assert len(tensor.data) == 2


@given(st.binary(max_size=64), st.integers(0, 8), st.integers(0, 70))
def test_binary_data_of_any_kind_is_read_or_refused(raw: bytes, count: int, size: int) -> None:
    entry = {"name": "A", "datatype": "BYTES", "shape": [count], "parameters": {"binary_data_size": size}}
    try:
        [tensor] = read_tensors([entry], raw, "inputs")
    except Unfit as error:
        assert error.field in ("A", "body")
    else:
        assert b"".join(struct.pack("<I", len(one)) + one for one in tensor.data) == raw


@pytest.mark.parametrize("rate", [8_000, 22_050])
def test_sound_survives_being_a_waveform(rate: int) -> None:
    wav = as_wav([0.0, 0.5, -0.5, 2.0, -2.0], rate)
    samples, found = read_wav(wav)
    assert (found, list(samples)) == (rate, [0, 16384, -16384, 32767, -32768])
    assert list(as_waveform(samples))[:3] == [0.0, 0.5, -0.5]


@pytest.mark.parametrize("content", [b"", b"RIFF", b"OggS" * 20, as_wav([], 16_000), as_wav([0.5], 16_000)[:44]])
def test_what_is_no_sound_is_said(content: bytes) -> None:
    with pytest.raises(NoSound):
        read_wav(content)
