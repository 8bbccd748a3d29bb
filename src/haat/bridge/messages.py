"""Infer requests and responses, between the protocol's form over HTTP and its form over gRPC. Pure.

Tensors go as raw contents in both directions where they can, because these are the binary data of the form over
HTTP as they stand. Servers that answer in typed contents are understood too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from haat.bridge import open_inference_pb2 as pb
from haat.infra.inference.tensors import Unfit, read_tensors, split, write_tensor

FINAL = "triton_final_response"
"""Says of a response that it is the last one of its request."""
ASKS_FOR_FINAL = "triton_enable_empty_final_response"
_CONTENTS = {
    "BOOL": ("bool_contents", "?"),
    "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"),
    "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "INT8": ("int_contents", "b"),
    "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
}
"""Where typed contents of a datatype are, and the letter of `struct` for one element. FP16 is only ever raw."""
_OF_HTTP = frozenset({"binary_data", "binary_data_output", "binary_data_size"})
_encode = msgspec.json.Encoder().encode


class Asked:
    """A request, and which of its outputs hold bytes that are no text."""

    __slots__ = ("binary", "message")

    def __init__(self, message: pb.ModelInferRequest, binary: frozenset[str]) -> None:
        self.message, self.binary = message, binary


# --- the request --------------------------------------------------------------------------------


def read_request(model: str, version: str, body: bytes, json_size: bytes | None) -> Asked:
    """Return the request over gRPC for one over HTTP; raise Unfit."""
    head, rest = split(body, json_size)
    try:
        document = msgspec.json.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unfit("body", "is not JSON") from error
    if not isinstance(document, dict):
        raise Unfit("body", "must be an object with `inputs`")
    identifier = document.get("id", "")
    if not isinstance(identifier, str):
        raise Unfit("id", "must be a text")
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=identifier)
    _set(message.parameters, document.get("parameters", {}), "parameters")
    _add_inputs(message, document.get("inputs"), rest)
    binary = set()
    outputs = document.get("outputs", [])
    if not isinstance(outputs, list):
        raise Unfit("outputs", "must be a list of outputs")
    for number, entry in enumerate(outputs):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise Unfit(f"outputs[{number}]", "must be an object with a `name`")
        parameters = entry.get("parameters", {})
        output = message.outputs.add(name=name)
        _set(output.parameters, parameters, name)
        if parameters.get("binary_data") is True:
            binary.add(name)
    return Asked(message, frozenset(binary))


def _add_inputs(message: pb.ModelInferRequest, entries: Any, rest: bytes) -> None:
    """Add the tensors: those in JSON are written as binary data, the others are that already."""
    for tensor, entry in zip(read_tensors(entries, rest, "inputs"), entries, strict=True):
        added = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        _set(added.parameters, entry.get("parameters", {}), tensor.name)
        try:
            message.raw_input_contents.append(write_tensor(tensor, binary=True)[1])
        except (struct.error, OverflowError) as error:
            raise Unfit(tensor.name, f"holds a number that is no {tensor.datatype}") from error


def _set(target: Any, parameters: Any, field: str) -> None:
    """Set the parameters that mean something over gRPC as well."""
    if not isinstance(parameters, dict):
        raise Unfit(field, "`parameters` must be an object")
    for name, value in parameters.items():
        if name in _OF_HTTP:
            continue
        one = target[name]
        if isinstance(value, bool):
            one.bool_param = value
        elif isinstance(value, int) and -(2**63) <= value < 2**63:
            one.int64_param = value
        elif isinstance(value, float):
            one.double_param = value
        elif isinstance(value, str):
            one.string_param = value.encode("utf-8", "replace").decode("utf-8")
        else:
            raise Unfit(field, f"`{name[:100]}` must be a text, a number or a truth value")


# --- the response -------------------------------------------------------------------------------


def write_response(response: pb.ModelInferResponse) -> tuple[bytes, int]:
    """Return a whole answer, its tensors as binary data, and how many bytes of it are JSON: -1 when all are.

    What the model says wrong is left to whoever reads the answer: a tensor whose contents can't be had has none.
    """
    entries, data = _entries(response)
    head = _encode(_document(response, entries))
    return b"".join((head, *data)), len(head) if data else -1


def write_event(response: pb.ModelInferResponse, binary: frozenset[str]) -> bytes:
    """Return one part of an answer, all of it JSON. The tensors of ``binary`` are base64; raise Unfit."""
    entries, data = _entries(response)
    written = []
    for tensor, entry in zip(read_tensors(entries, b"".join(data), "outputs"), entries, strict=True):
        said = {name: value for name, value in entry.get("parameters", {}).items() if name not in _OF_HTTP}
        tensor.base64 = tensor.name in binary and "content_type" not in said
        fresh, _ = write_tensor(tensor, binary=False)
        if said:
            fresh["parameters"] = {**said, **fresh.get("parameters", {})}
        written.append(fresh)
    return _encode(_document(response, written))


def read_part(data: bytes) -> pb.ModelStreamInferResponse:
    """Return a message of a stream, as Triton has it; raise DecodeError.

    MLServer sends infer responses as they are, where Triton wraps each: only the former have outputs in themselves.
    """
    try:
        bare = pb.ModelInferResponse.FromString(data)
    except DecodeError:
        pass  # what Triton wraps is no text, which the version has to be
    else:
        if bare.outputs:
            return pb.ModelStreamInferResponse(infer_response=bare)
    part: pb.ModelStreamInferResponse = pb.ModelStreamInferResponse.FromString(data)
    return part


def is_final(response: pb.ModelInferResponse) -> bool:
    """Tell whether nothing comes after this part."""
    return FINAL in response.parameters and response.parameters[FINAL].bool_param


def _document(response: pb.ModelInferResponse, entries: list[dict[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        document["id"] = response.id
    said = {name: value for name, value in _parameters(response.parameters) if name != FINAL}
    if said:
        document["parameters"] = said
    return {**document, "outputs": entries}


def _entries(response: pb.ModelInferResponse) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the outputs as over HTTP, and the binary data that stand behind them."""
    raw = response.raw_output_contents
    whole = len(raw) == len(response.outputs)
    entries, data = [], []
    for number, output in enumerate(response.outputs):
        entry: dict[str, Any] = {"name": output.name, "shape": list(output.shape), "datatype": output.datatype}
        said = dict(_parameters(output.parameters))
        contents = (raw[number] if whole else None) if raw else _contents(output)
        if contents is not None:
            said["binary_data_size"] = len(contents)
            data.append(contents)
        if said:
            entry["parameters"] = said
        entries.append(entry)
    return entries, data


def _contents(output: pb.ModelInferResponse.InferOutputTensor) -> bytes | None:
    """Return typed contents as binary data, None for what can't be written so."""
    if output.datatype == "BYTES":
        values: Iterable[bytes] = output.contents.bytes_contents
        return b"".join(len(value).to_bytes(4, "little") + value for value in values)
    found = _CONTENTS.get(output.datatype)
    if found is None:
        return None
    member, letter = found
    numbers = getattr(output.contents, member)
    try:
        return struct.pack(f"<{len(numbers)}{letter}", *numbers)
    except struct.error:
        return None


def _parameters(parameters: Mapping[str, pb.InferParameter]) -> Iterable[tuple[str, Any]]:
    for name in parameters:
        chosen = parameters[name].WhichOneof("parameter_choice")
        if chosen is not None:
            yield name, getattr(parameters[name], chosen)
