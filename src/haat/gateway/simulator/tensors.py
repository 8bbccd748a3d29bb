"""Answers of the Open Inference Protocol v2, for services whose endpoint speaks it: texts for texts."""

from __future__ import annotations

import struct
from typing import Any

from haat.gateway.simulator.marks import encode, mark, marked
from haat.gateway.simulator.shapes import JSON, Simulated, read_object
from haat.kernel.errors import InvalidRequest, ValidationFailed

HEADER = b"inference-header-content-length"
_OUTPUT = "OUTPUT_TEXT"


def answer(lines: list[bytes], path: bytes, body: bytes, unit: str) -> Simulated:
    """Return the answer to an inference: each output asked for holds the first input's texts, marked.

    Inputs come in JSON or behind it in binary form; outputs go in JSON, which both kinds of client read.
    """
    asked, binary = _split(lines, body)
    inputs = asked.get("inputs")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(one, dict) for one in inputs):
        raise ValidationFailed(errors=[{"field": "inputs", "message": "must be a list with at least one tensor"}])
    texts = _texts(inputs[0], binary)
    wanted = [one.get("name", _OUTPUT) for one in asked.get("outputs") or [{}] if isinstance(one, dict)]
    shape = inputs[0].get("shape") or [len(texts)]
    outputs = [
        {
            "name": name,
            "shape": shape,
            "datatype": "BYTES",
            "data": [marked(text, [name, inputs, text]) for text in texts],
        }
        for name in wanted
    ]
    model = path.rpartition(b"/models/")[2].split(b"/")[0].decode("ascii", "replace")
    identifier = str(asked.get("id") or mark(asked))
    found = {"model_name": model, "model_version": "1", "id": identifier, "outputs": outputs}
    used = sum(map(len, texts)) if unit in ("characters", "graphemes") else 1
    return Simulated(JSON, b"" if unit == "bytes" else f"{unit}={used}".encode("ascii"), (encode(found),))


def _split(lines: list[bytes], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the JSON of a request and the binary tensors behind it."""
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == HEADER:
            size = value.strip()
            if not size.isdigit() or int(size[:10]) > len(body):
                sentence = "Inference-Header-Content-Length is how many bytes of the body are JSON."
                raise InvalidRequest(sentence, field="Inference-Header-Content-Length")
            return read_object(body[: int(size)]), body[int(size) :]
    return read_object(body), b""


def _texts(tensor: dict[str, Any], binary: bytes) -> list[str]:
    """Return a tensor's elements as texts; those in binary form have their lengths before them, little-endian."""
    data = tensor.get("data")
    if data is not None:
        return _flat(data)
    if tensor.get("datatype") != "BYTES":
        return [mark(binary)]
    found, at = [], 0
    while at + 4 <= len(binary):
        (size,) = struct.unpack_from("<I", binary, at)
        found.append(binary[at + 4 : at + 4 + size].decode("utf-8", "replace"))
        at += 4 + size
    parameters = tensor.get("parameters")
    limit = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if isinstance(limit, int) and limit < len(binary):  # what is behind it is another tensor's
        return _texts({"datatype": "BYTES"}, binary[: max(0, limit)])
    return found


def _flat(data: Any) -> list[str]:
    if isinstance(data, list):
        return [text for one in data for text in _flat(one)]
    return [str(data)]
