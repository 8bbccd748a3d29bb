"""Tensors as a task, and what was answered as tensors. One tensor holds all items of a call, in their order."""

from __future__ import annotations

import base64
import binascii
import struct
from typing import TYPE_CHECKING, Any

import msgspec

from haat.infra.inference.mapping import CONTENT_FIELDS, WHOLE, TensorMap, format_of, tensors_of
from haat.infra.inference.tensors import Tensor, Unfit, unbase64
from haat.kernel.errors import ProviderFailed

if TYPE_CHECKING:
    from haat.gateway.doors.inference.message import InferRequest
    from haat.gateway.market.routes import Route
    from haat.gateway.market.snapshot import Version

_encode = msgspec.json.Encoder(decimal_format="number").encode
_TEXTS = ("text", "command", "summary")
"""Members of an output that can be its text, the first that is there."""
_SPOKEN = ("speech_to_text", "text_to_speech", "ocr")


class Face:
    """How the services of a category are asked here: the tensors of a task, and what each call looks up in them."""

    __slots__ = ("_one", "_pair", "_usual", "category", "field_of", "items", "only_text", "outputs", "tensors")

    def __init__(self, category: str) -> None:
        self.category = category
        self.tensors: TensorMap = tensors_of(category)
        self.field_of: dict[str, str] = {name: field for field, name in self.tensors.inputs.items()}
        self.items: dict[str, str] = self.tensors.items
        self.outputs: dict[str, str] = self.tensors.outputs
        self.only_text: str = self.outputs.get("text", "") if len(self.outputs) == 1 else ""
        """The output that is an item's text, where there is no other; else empty."""
        usual = frozenset(self.items) - {"other"}
        self._usual: frozenset[str] = usual
        self._pair: frozenset[str] = usual | ({"source", "target"} & self.tensors.inputs.keys())
        self._one: frozenset[str] = usual | {"language"} if category in _SPOKEN else usual

    def required(self, version: Version) -> frozenset[str]:
        """Return the fields that a request must hold tensors for, by what the version says of its languages."""
        if version.language_pairs:
            return self._pair
        return self._one if len(version.languages) > 1 else self._usual


_faces: dict[str, Face] = {}


def face_of(category: str) -> Face:
    """Return how the services of a category are asked; there are as many as the catalog has categories."""
    face = _faces.get(category)
    if face is None:
        face = _faces[category] = Face(category)
    return face


def metadata(route: Route, name: str) -> dict[str, Any]:
    """Return a model's metadata; a service that takes no tasks names no tensors."""
    service = route.service
    card: dict[str, Any] = {
        "name": name,
        "versions": sorted(version.version for version in service.versions),
        "platform": "haat_task" if route.executing.takes_tasks else "haat_http",
        "inputs": [],
        "outputs": [],
    }
    if route.executing.takes_tasks:
        tensors = face_of(service.category).tensors
        card["inputs"] = [{"name": one, "datatype": "BYTES", "shape": [-1]} for one in tensors.inputs.values()]
        for member, one in tensors.outputs.items():
            shape = [-1, -1] if member == "embedding" else [-1]
            card["outputs"].append({"name": one, "datatype": tensors.datatype(one), "shape": shape})
    return card


# --- in -----------------------------------------------------------------------------------------


def task_of(asked: InferRequest, face: Face, wanted: frozenset[str]) -> tuple[dict[str, Any], list[int]]:
    """Return the task that a request's tensors hold, and the shape its items came in; raise Unfit."""
    items: dict[str, list[Any]] = {}
    options: dict[str, list[Any]] = {}
    shape: list[int] = []
    for tensor in asked.tensors:
        field = face.field_of.get(tensor.name)
        if field is None:
            raise Unfit(tensor.name, f"is no input of this model; it takes {', '.join(face.field_of)}")
        if tensor.datatype != "BYTES":
            raise Unfit(tensor.name, f"is {tensor.datatype} and must be BYTES")
        if field not in face.items:
            options[field] = _column(tensor, field)
            continue
        items[field] = _column(tensor, field)
        if not shape:
            shape = tensor.shape
    missing = [field for field in wanted if field not in items and field not in options]
    if missing:
        raise Unfit(face.tensors.inputs[min(missing)], "is missing")
    for name in asked.wanted:
        if name not in face.outputs.values():
            raise Unfit(name, f"is no output of this model; it has {', '.join(face.outputs.values())}")
    given = _items(items, face)
    config: dict[str, Any] = {
        field: _common(column, face.tensors.inputs[field], len(given)) for field, column in options.items()
    }
    for name, value in asked.options.items():
        if name in config:
            raise Unfit(f"parameters.{name}", f"is in the tensor {face.tensors.inputs[name]} already")
        config[name] = value
    return {"input": given, "config": config} if config else {"input": given}, shape


def _column(tensor: Tensor, field: str) -> list[Any]:
    """Return a tensor's values, one an item."""
    shape = tensor.shape
    if not (len(shape) == 1 or (len(shape) == 2 and 1 in shape)):
        raise Unfit(tensor.name, f"is of shape {shape}; n items are [n], [n,1] or [1,n]")
    if not tensor.data:
        raise Unfit(tensor.name, "holds nothing")
    if field in CONTENT_FIELDS:
        return [_content(tensor, value, field) for value in tensor.data]
    return [_text(tensor.name, value) for value in tensor.data]


def _content(tensor: Tensor, value: bytes, field: str) -> dict[str, str]:
    """Return a sound or an image, which in JSON is base64."""
    raw = unbase64(value, tensor.name) if tensor.listed else value
    if not raw:
        raise Unfit(tensor.name, "holds an element that is empty")
    return {"content": base64.b64encode(raw).decode("ascii"), "format": format_of(raw, field)}


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise Unfit(name, "must hold texts in UTF-8") from None


def _items(columns: dict[str, list[Any]], face: Face) -> list[dict[str, Any]]:
    count = len(next(iter(columns.values())))
    for field, column in columns.items():
        if len(column) != count:
            raise Unfit(face.items[field], f"holds {len(column)} items where another input holds {count}")
    return [{field: column[at] for field, column in columns.items()} for at in range(count)]


def _common(column: list[Any], name: str, items: int) -> Any:
    """Return an option's one value: it may be given once, or for each item alike."""
    if len(column) not in (1, items):
        raise Unfit(name, f"holds {len(column)} values for {items} items")
    if any(value != column[0] for value in column):
        raise Unfit(name, "must be the same for all items of a call")
    return column[0]


# --- out ----------------------------------------------------------------------------------------


def outputs_of(face: Face, outputs: list[dict[str, Any]], shape: list[int]) -> list[Tensor]:
    """Return the tensors of an answer, in the shape that its items came in; raise ProviderFailed."""
    found = []
    for member, name in face.outputs.items():
        if member == "embedding":
            found.append(_vectors(name, outputs))
            continue
        data = [_value(output, member) for output in outputs]
        found.append(Tensor(name, "BYTES", shape, data, base64=member in CONTENT_FIELDS))
    return found


def _vectors(name: str, outputs: list[dict[str, Any]]) -> Tensor:
    vectors = [output.get("embedding") for output in outputs]
    rows = [vector for vector in vectors if isinstance(vector, list) and vector and all(map(_is_number, vector))]
    width = len(rows[0]) if rows else 0
    if len(rows) != len(vectors) or any(len(row) != width for row in rows):
        raise ProviderFailed("The provider's answer holds no embeddings of one size; the call is not billed.")
    return Tensor(name, "FP32", [len(rows), width], [value for row in rows for value in row])


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        struct.pack("<f", value)
    except (OverflowError, struct.error):
        return False
    return True


def _value(output: dict[str, Any], member: str) -> bytes:
    if member == WHOLE:
        return bytes(_encode(output))
    if member in CONTENT_FIELDS:
        holder = output.get(member)
        content = holder.get("content") if isinstance(holder, dict) else None
        try:
            return base64.b64decode(content, validate=True) if isinstance(content, str) else _lacking(member)
        except (binascii.Error, ValueError) as error:
            raise ProviderFailed(f"The provider's answer holds no {member}; the call is not billed.") from error
    there = False
    for name in _TEXTS:
        text = output.get(name)
        if isinstance(text, str):
            return text.encode("utf-8", "replace")
        there = there or name in output
    return b"" if there else _lacking(member)  # null: nothing was recognised


def _lacking(member: str) -> bytes:
    raise ProviderFailed(f"The provider's answer holds no {member}; the call is not billed.")
