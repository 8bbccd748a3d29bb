"""Named tensors on the wire: in JSON, or as binary data behind it (the protocol's binary extension).

Elements are kept flat, in row-major order. BYTES are byte strings; in binary each has its length before it, four
bytes, little-endian. Everything else is a number (little-endian in binary) or, of BOOL, a truth value.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

SIZE_HEADER = "Inference-Header-Content-Length"
"""Says how many bytes of a body with binary data are JSON."""
MOST_DIMENSIONS = 8
MOST_TENSORS = 64
MOST_ELEMENTS = 2**24
_LONGEST = 2**40

_LENGTH = struct.Struct("<I")


class _Kind(NamedTuple):
    """How a datatype is written: its letter in `struct`, and the bounds of a whole number."""

    letter: str
    least: int = 0
    most: int = 0

    @property
    def size(self) -> int:
        return struct.calcsize(f"<{self.letter}")


_NUMBERS = {
    "BOOL": _Kind("?"),
    "UINT8": _Kind("B", 0, 2**8 - 1),
    "UINT16": _Kind("H", 0, 2**16 - 1),
    "UINT32": _Kind("I", 0, 2**32 - 1),
    "UINT64": _Kind("Q", 0, 2**64 - 1),
    "INT8": _Kind("b", -(2**7), 2**7 - 1),
    "INT16": _Kind("h", -(2**15), 2**15 - 1),
    "INT32": _Kind("i", -(2**31), 2**31 - 1),
    "INT64": _Kind("q", -(2**63), 2**63 - 1),
    "FP16": _Kind("e"),
    "FP32": _Kind("f"),
    "FP64": _Kind("d"),
}
DATATYPES = frozenset({"BYTES", *_NUMBERS})


class Unfit(ValueError):
    """A message that can't be read: ``field`` says which tensor or member it is about."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(f"{field}: {sentence}")
        self.field = field


class Tensor:
    """One named tensor.

    ``base64``: its JSON form is base64, because its bytes are no text. ``listed``: it came in JSON.
    """

    __slots__ = ("base64", "data", "datatype", "listed", "name", "shape")

    def __init__(
        self,
        name: str,
        datatype: str,
        shape: list[int],
        data: Sequence[Any],
        *,
        base64: bool = False,
        listed: bool = False,
    ) -> None:
        self.name, self.datatype, self.shape, self.data = name, datatype, shape, data
        self.base64, self.listed = base64, listed


# --- reading ------------------------------------------------------------------------------------


def split(body: bytes, size: bytes | None) -> tuple[bytes, bytes]:
    """Return the JSON of a message and the binary data behind it; ``size`` is the header that tells, None for none."""
    if size is None:
        return body, b""
    text = size.strip()
    if not text.isdigit() or len(text) > 12 or int(text) > len(body):
        raise Unfit(SIZE_HEADER, f"must be a number of bytes, at most the {len(body)} of the body")
    return body[: int(text)], body[int(text) :]


def read_tensors(entries: Any, rest: bytes, member: str, most: int = MOST_ELEMENTS) -> list[Tensor]:
    """Return the tensors in a message's list ``member`` (``inputs`` or ``outputs``); raise Unfit.

    ``rest`` is the binary data, of which nothing may be left. A tensor has at most ``most`` elements.
    """
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_TENSORS:
        raise Unfit(member, f"must be a list of 1 to {MOST_TENSORS} tensors")
    tensors: dict[str, Tensor] = {}
    at = 0
    for number, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= 200:
            raise Unfit(f"{member}[{number}]", "must be an object with a `name`")
        if name in tensors:
            raise Unfit(name, "is here twice")
        tensors[name], at = _tensor(entry, name, rest, at, most)
    if at != len(rest):
        raise Unfit("body", f"holds {len(rest) - at} bytes more than its tensors say (`binary_data_size`)")
    return list(tensors.values())


def _tensor(entry: dict[str, Any], name: str, rest: bytes, at: int, most: int) -> tuple[Tensor, int]:
    datatype = entry.get("datatype")
    shape: Any = entry.get("shape")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise Unfit(name, f"`datatype` must be one of {', '.join(sorted(DATATYPES))}")
    count = _elements(shape)
    if count < 0:
        raise Unfit(name, f"`shape` must be a list of 1 to {MOST_DIMENSIONS} sizes")
    parameters = {} if entry.get("parameters") is None else entry["parameters"]
    if not isinstance(parameters, dict):
        raise Unfit(name, "`parameters` must be an object")
    if parameters.get("shared_memory_region") is not None:
        raise Unfit(name, "no memory is shared here: send the data")
    size = parameters.get("binary_data_size")
    is_base64 = parameters.get("content_type") == "base64"
    data: list[Any]
    if count > most:
        raise Unfit(name, f"has {count} elements; there may be {most}")
    given = entry.get("data")
    if size is None:
        if given is None:
            raise Unfit(name, "has neither `data` nor `binary_data_size`")
        data = _listed(given, name, datatype, count)
        return Tensor(name, datatype, shape, data, base64=is_base64, listed=True), at
    if given is not None:
        raise Unfit(name, "has both `data` and `binary_data_size`")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise Unfit(name, "`binary_data_size` must be a number of bytes")
    raw = rest[at : at + size]
    if len(raw) != size:
        raise Unfit(name, f"has {len(raw)} bytes of binary data instead of {size}")
    data = _byte_strings(raw, name, count) if datatype == "BYTES" else _numbers(raw, name, datatype, count)
    return Tensor(name, datatype, shape, data), at + size


def _elements(shape: Any) -> int:
    """Return how many elements a shape has; -1 for what is no shape."""
    if not isinstance(shape, list) or not 1 <= len(shape) <= MOST_DIMENSIONS:
        return -1
    count = 1
    for size in shape:
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _LONGEST:
            return -1
        count *= size
    return count


def _byte_strings(raw: bytes, name: str, count: int) -> list[bytes]:
    data: list[bytes] = []
    at = 0
    while at < len(raw):
        if len(data) == count:
            raise Unfit(name, f"`shape` asks for {count} elements, the data has more")
        if len(raw) - at < _LENGTH.size:
            raise Unfit(name, "its binary data breaks off within a length")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if length > len(raw) - at:
            raise Unfit(name, f"its binary data breaks off: {len(raw) - at} bytes where {length} are announced")
        data.append(raw[at : at + length])
        at += length
    _check_count(name, len(data), count)
    return data


def _numbers(raw: bytes, name: str, datatype: str, count: int) -> list[Any]:
    kind = _NUMBERS[datatype]
    if len(raw) != count * kind.size:
        raise Unfit(name, f"`shape` asks for {count} elements of {kind.size} bytes, the data has {len(raw)} bytes")
    return list(struct.unpack(f"<{count}{kind.letter}", raw))


def _listed(given: Any, name: str, datatype: str, count: int) -> list[Any]:
    if not isinstance(given, list):
        raise Unfit(name, "`data` must be a list")
    flat: list[Any] = []
    _flatten(given, flat, name, 0, count)
    _check_count(name, len(flat), count)
    if datatype == "BYTES":
        return [_bytes(value, name) for value in flat]
    kind = _NUMBERS[datatype]
    for value in flat:
        if not _is_of(value, datatype, kind):
            raise Unfit(name, f"`data` must hold {datatype} values")
    return flat


def _flatten(values: list[Any], flat: list[Any], name: str, depth: int, count: int) -> None:
    """Append the elements of nested lists to ``flat``; raise Unfit when there are more than ``count``."""
    if depth > MOST_DIMENSIONS:
        raise Unfit(name, "`data` is nested too deep")
    for value in values:
        if isinstance(value, list):
            _flatten(value, flat, name, depth + 1, count)
        elif len(flat) == count:
            raise Unfit(name, f"`shape` asks for {count} elements, the data has more")
        else:
            flat.append(value)


def _bytes(value: Any, name: str) -> bytes:
    if not isinstance(value, str):
        raise Unfit(name, "`data` of BYTES must hold texts")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        raise Unfit(name, "`data` holds half a character") from None


def _is_of(value: Any, datatype: str, kind: _Kind) -> bool:
    if datatype == "BOOL" or isinstance(value, bool):
        return isinstance(value, bool) and datatype == "BOOL"
    if kind.most:
        return isinstance(value, int) and kind.least <= value <= kind.most
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**64)


def _check_count(name: str, found: int, count: int) -> None:
    if found != count:
        raise Unfit(name, f"`shape` asks for {count} elements, the data has {found}")


def unbase64(value: bytes, name: str) -> bytes:
    """Return what an element in base64 holds; raise Unfit."""
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        raise Unfit(name, "must be base64, or binary data") from None


# --- writing ------------------------------------------------------------------------------------


def write_tensor(tensor: Tensor, *, binary: bool) -> tuple[dict[str, Any], bytes]:
    """Return a tensor's entry in the message, and its binary data, empty where it is in the entry."""
    entry: dict[str, Any] = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
    if binary:
        raw = _binary(tensor)
        entry["parameters"] = {"binary_data_size": len(raw)}
        return entry, raw
    if tensor.base64:
        entry["parameters"] = {"content_type": "base64"}
        entry["data"] = [base64.b64encode(value).decode("ascii") for value in tensor.data]
    elif tensor.datatype == "BYTES":
        entry["data"] = [value.decode("utf-8", "replace") for value in tensor.data]
    else:
        entry["data"] = list(tensor.data)
    return entry, b""


def _binary(tensor: Tensor) -> bytes:
    if tensor.datatype == "BYTES":
        return b"".join(_LENGTH.pack(len(value)) + value for value in tensor.data)
    return struct.pack(f"<{len(tensor.data)}{_NUMBERS[tensor.datatype].letter}", *tensor.data)
