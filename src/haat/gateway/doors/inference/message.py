"""An infer request as it comes and an infer response as it leaves, in JSON or with binary data."""

from __future__ import annotations

from typing import Any

import msgspec

from haat.infra.inference.asking import MOST_ITEMS
from haat.infra.inference.tensors import Tensor, Unfit, read_tensors, split, write_tensor

LONGEST_ID = 1000
_OURS = frozenset(
    {"binary_data_output", "content_type", "headers", "priority", "timeout", "triton_enable_empty_final_response"}
)
"""Parameters about the request, not options of the service. Nothing here has priorities, and time is its listing's.

``content_type`` and ``headers`` are what MLServer's clients say of the tensors and of HTTP.
"""
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_encode = msgspec.json.Encoder(decimal_format="number").encode


class InferRequest:
    """What was asked. ``wanted`` says of each output whether it is wanted as binary data; empty for all outputs."""

    __slots__ = ("binary", "id", "options", "tensors", "wanted")

    def __init__(
        self, identifier: str, tensors: list[Tensor], options: dict[str, Any], wanted: dict[str, bool], *, binary: bool
    ) -> None:
        self.id, self.tensors, self.options, self.wanted, self.binary = identifier, tensors, options, wanted, binary


def read_request(body: bytes, json_size: bytes | None) -> InferRequest:
    """Return what a body asks; raise Unfit for what isn't an infer request, msgspec.DecodeError for what isn't JSON.

    Members that nobody here knows are passed over: some clients name the model again.
    """
    head, rest = split(body, json_size)
    message = msgspec.json.decode(head)
    if not isinstance(message, dict):
        raise Unfit("body", "must be an object with `inputs`")
    message = {member: value for member, value in message.items() if value is not None}
    identifier, parameters = message.get("id", ""), message.get("parameters", {})
    if not isinstance(identifier, str) or len(identifier) > LONGEST_ID:
        raise Unfit("id", "must be a text of at most 1000 characters")
    if not isinstance(parameters, dict):
        raise Unfit("parameters", "must be an object")
    for name in _SEQUENCE:
        if parameters.get(name):
            raise Unfit(f"parameters.{name}", "services here keep nothing between calls: there are no sequences")
    binary = _truth(parameters, "binary_data_output", "parameters", False)
    options = {
        name: value
        for name, value in parameters.items()
        if value is not None and name not in _OURS and name not in _SEQUENCE
    }
    tensors = read_tensors(message.get("inputs"), rest, "inputs", MOST_ITEMS)
    return InferRequest(identifier, tensors, options, _wanted(message.get("outputs", []), binary), binary=binary)


def _wanted(outputs: Any, binary: bool) -> dict[str, bool]:
    if not isinstance(outputs, list):
        raise Unfit("outputs", "must be a list of outputs")
    wanted = {}
    for number, output in enumerate(outputs):
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str):
            raise Unfit(f"outputs[{number}]", "must be an object with a `name`")
        parameters = {} if output.get("parameters") is None else output["parameters"]
        if not isinstance(parameters, dict):
            raise Unfit(name, "`parameters` must be an object")
        if parameters.get("classification"):
            raise Unfit(name, "`classification` is not done here: ask for the tensor itself")
        if parameters.get("shared_memory_region") is not None:
            raise Unfit(name, "no memory is shared here: the data is in the answer")
        wanted[name] = _truth(parameters, "binary_data", name, binary)
    return wanted


def _truth(parameters: dict[str, Any], name: str, field: str, default: bool) -> bool:
    value = parameters.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Unfit(field, f"`{name}` must be true or false")
    return value


def write_response(asked: InferRequest, model: str, version: str, tensors: list[Tensor]) -> tuple[bytes, int]:
    """Return the body of an answer, and how many bytes of it are JSON: -1 when all are."""
    entries: list[dict[str, Any]] = []
    data: list[bytes] = []
    for tensor in tensors:
        in_binary = asked.binary
        if asked.wanted:
            if tensor.name not in asked.wanted:
                continue
            in_binary = asked.wanted[tensor.name]
        entry, raw = write_tensor(tensor, binary=in_binary)
        entries.append(entry)
        if in_binary:
            data.append(raw)
    message: dict[str, Any] = {"model_name": model, "model_version": version}
    if asked.id:
        message["id"] = asked.id
    message["outputs"] = entries
    head = _encode(message)
    return (b"".join((head, *data)), len(head)) if data else (head, -1)
