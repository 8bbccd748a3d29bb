"""A task as an infer request to the model that does it, and the model's answer as the task's.

The one who asks wrote the task, so what is wrong with it is refused as in any task (422). What is wrong with the
answer is the model's: `Unfit`.
"""

from __future__ import annotations

import base64
import binascii
import math
from array import array
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from haat.infra.inference.mapping import CONTENT_FIELDS, LANGUAGE_FIELDS, SAMPLES, WHOLE, TensorMap, format_of
from haat.infra.inference.sound import NoSound, as_wav, as_waveform, read_wav
from haat.infra.inference.tensors import Tensor, Unfit, read_tensors, split, unbase64, write_tensor
from haat.kernel.errors import MalformedJson, ValidationFailed
from haat.language import parse_tag

MOST_ITEMS = 1000
"""So many items a call may have that is written in tensors."""
_encode = msgspec.json.Encoder().encode


class Asked(NamedTuple):
    """A request: its body, how much of that is JSON (-1: all), its items, and the units we count of them."""

    body: bytes
    json_size: int
    items: int
    units: dict[str, Decimal]


def _wrong(field: str, sentence: str) -> ValidationFailed:
    return ValidationFailed(errors=[{"field": field, "message": sentence}])


def ask(tensors: TensorMap, body: bytes) -> Asked:
    """Return the infer request for the body of a task; raise MalformedJson or ValidationFailed."""
    try:
        task = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedJson from error
    if not isinstance(task, dict):
        raise _wrong("", "must be an object with `input` and `config`")
    for name in task:
        if name not in ("input", "config"):
            raise _wrong(name[:100], "is not a field of a task")
    items, config = task.get("input"), task.get("config", {})
    most = tensors.most_items or MOST_ITEMS
    if not isinstance(items, list) or not 1 <= len(items) <= most:
        raise _wrong("input", f"must be a list of 1 to {most} items")
    if not isinstance(config, dict):
        raise _wrong("config", "must be an object")
    columns = {field: [_part(item, field, at, tensors) for at, item in enumerate(items)] for field in tensors.items}
    written = [_config_tensor(tensors, field, tensor, config, len(items)) for field, tensor in tensors.options.items()]
    for name in config:
        if name not in tensors.options:
            known = ", ".join(tensors.options) or "no options"
            raise _wrong(f"config.{name[:100]}", f"is not an option of this service; it takes {known}")
    units: dict[str, Decimal] = {}
    asked = []
    for field, column in columns.items():
        asked += _item_tensors(tensors, field, column, units)
    entries, data = [], b""
    for tensor in [*asked, *written]:
        is_waveform = tensor.datatype != "BYTES" and len(tensor.data) > len(items)
        binary = is_waveform or (tensor.base64 and not tensors.base64)
        entry, raw = write_tensor(tensor, binary=binary)
        entries.append(entry)
        data += raw
    outputs = [
        {"name": name, "parameters": {"binary_data": member in CONTENT_FIELDS and not tensors.base64}}
        for member, name in tensors.outputs.items()
    ]
    message: dict[str, Any] = {"inputs": entries, "outputs": outputs}
    if tensors.parameters:
        message["parameters"] = tensors.parameters
    head = _encode(message)
    return Asked(head + data, len(head) if data else -1, len(items), units)


def _part(item: Any, field: str, at: int, tensors: TensorMap) -> Any:
    """Return what an item holds for a field: a text, or a sound's or image's bytes."""
    known = tensors.items
    if not isinstance(item, dict):
        raise _wrong(f"input[{at}]", f"must be an object with `{'` and `'.join(known)}`")
    for name in item:
        if name not in known:
            raise _wrong(f"input[{at}].{name[:100]}", f"is not a field here; give `{'` and `'.join(known)}`")
    value = item.get(field)
    if field not in CONTENT_FIELDS:
        if not isinstance(value, str) or not value.strip():
            raise _wrong(f"input[{at}].{field}", "must be a text that is not empty")
        return value
    content = value.get("content") if isinstance(value, dict) else None
    try:
        raw = base64.b64decode(content.encode("ascii"), validate=True) if isinstance(content, str) else b""
    except (UnicodeEncodeError, binascii.Error):
        raw = b""
    if not raw:
        raise _wrong(f"input[{at}].{field}.content", "must be base64 and not empty")
    return raw


def _item_tensors(tensors: TensorMap, field: str, column: list[Any], units: dict[str, Decimal]) -> list[Tensor]:
    """Return the tensors of one field of the items, and count what they hold."""
    name, count = tensors.inputs[field], len(column)
    if field == "image":
        units["images"] = Decimal(count)
        return [Tensor(name, "BYTES", _shape(tensors, count), column, base64=True)]
    if field != "audio":
        units["characters"] = units.get("characters", Decimal(0)) + sum(len(text) for text in column)
        return [Tensor(name, "BYTES", _shape(tensors, count), [text.encode("utf-8", "replace") for text in column])]
    waves, seconds = [], Decimal(0)
    for at, content in enumerate(column):
        try:
            samples, rate = read_wav(content)
        except NoSound as error:
            raise _wrong(f"input[{at}].audio", str(error)) from error
        if tensors.datatype(name) != "BYTES" and rate != tensors.sample_rate:
            raise _wrong(f"input[{at}].audio", f"must be sampled at {tensors.sample_rate} Hz, not {rate}")
        seconds += Decimal(len(samples)) / rate
        waves.append(samples)
    units["audio_seconds"] = seconds
    if tensors.datatype(name) == "BYTES":
        return [Tensor(name, "BYTES", _shape(tensors, count), column, base64=True)]
    longest = max(map(len, waves))
    data = array("f")
    for wave in waves:
        data.extend(as_waveform(wave))
        data.frombytes(bytes((longest - len(wave)) * data.itemsize))
    found = [Tensor(name, tensors.datatype(name), [count, longest], data)]
    if SAMPLES in tensors.inputs:
        sizes = tensors.inputs[SAMPLES]
        datatype = tensors.datatypes.get(sizes, "INT32")
        found.append(Tensor(sizes, datatype, _shape(tensors, count), [len(wave) for wave in waves]))
    return found


def _config_tensor(tensors: TensorMap, field: str, name: str, config: Mapping[str, Any], count: int) -> Tensor:
    """Return the tensor of a member of ``config``: the same value for each item."""
    value = config.get(field, tensors.defaults.get(field))
    if value is None:
        raise _wrong(f"config.{field}", "must be given for this service")
    datatype = tensors.datatype(name)
    if field in LANGUAGE_FIELDS:
        if not isinstance(value, str) or not value.strip():
            raise _wrong(f"config.{field}", "must be a language tag such as `hi-Deva`")
        value = language_code(tensors, value)
    if datatype == "BYTES":
        if not isinstance(value, str | int | float):
            raise _wrong(f"config.{field}", "must be a text or a number")
        data: Any = str(value).encode("utf-8", "replace")
    elif datatype == "BOOL":
        if not isinstance(value, bool):
            raise _wrong(f"config.{field}", "must be true or false")
        data = value
    else:
        whole = datatype.startswith(("INT", "UINT"))
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or abs(value) >= 2**31:
            raise _wrong(f"config.{field}", "must be a whole number" if whole else "must be a number")
        data = value
    return Tensor(name, datatype, _shape(tensors, count), [data] * count)


def _shape(tensors: TensorMap, count: int) -> list[int]:
    return [count] if tensors.rank == 1 else [count, 1]


def language_code(tensors: TensorMap, tag: str) -> str:
    """Return what the model calls a language: as declared, or its short tag where the script is the usual one."""
    try:
        full = str(parse_tag(tag))
        code = full.partition("-")[0]
        short = code if str(parse_tag(code)) == full else full
    except ValueError:
        full = short = tag
    return tensors.languages.get(tag) or tensors.languages.get(full) or short


# --- the answer ---------------------------------------------------------------------------------


def read_answer(tensors: TensorMap, body: bytes, json_size: bytes | None, count: int) -> list[dict[str, Any]]:
    """Return a model's outputs, one an item; raise Unfit for an answer that doesn't hold them."""
    head, rest = split(body, json_size)
    try:
        message = msgspec.json.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unfit("body", "is not JSON") from error
    if not isinstance(message, dict):
        raise Unfit("body", "must be an object")
    found = {tensor.name: tensor for tensor in read_tensors(message.get("outputs"), rest, "outputs")}
    outputs: list[dict[str, Any]] = [{} for _ in range(count)]
    for member, name in tensors.outputs.items():
        tensor = found.get(name)
        if tensor is None:
            raise Unfit(name, "is missing")
        if tensor.datatype != tensors.datatype(name):
            raise Unfit(name, f"is {tensor.datatype} and should be {tensors.datatype(name)}")
        for output, part in zip(outputs, _parts(tensor, count), strict=True):
            _put(tensors, output, member, tensor, part)
    return outputs


def _parts(tensor: Tensor, count: int) -> list[Sequence[Any]]:
    """Return the elements of a tensor that belong to each item."""
    whole = len(tensor.data)
    if whole != count and (not whole or whole % count or (count > 1 and tensor.shape[0] != count)):
        raise Unfit(tensor.name, f"is of shape {tensor.shape} for {count} items")
    each = whole // count
    return [tensor.data[at * each : (at + 1) * each] for at in range(count)]


def _put(tensors: TensorMap, output: dict[str, Any], member: str, tensor: Tensor, part: Sequence[Any]) -> None:
    if member == "audio" and tensor.datatype != "BYTES":
        content = as_wav(_finite(tensor, part), tensors.sample_rate)
        output["audio"] = _content(content, "audio") | {"sample_rate": tensors.sample_rate}
    elif tensor.datatype != "BYTES":
        values = _finite(tensor, part)
        output[member] = values if len(values) > 1 or member == "embedding" else values[0]
    elif len(part) != 1:
        raise Unfit(tensor.name, f"holds {len(part)} values an item: this service's answers have one")
    elif member in CONTENT_FIELDS:
        content = unbase64(part[0], tensor.name) if tensor.base64 or tensors.base64 else part[0]
        output[member] = _content(content, member)
    elif member == WHOLE:
        output.update(_document(tensor, part[0]))
    else:
        output[member] = _text(tensor, part[0])


def _content(content: bytes, field: str) -> dict[str, Any]:
    return {"content": base64.b64encode(content).decode("ascii"), "format": format_of(content, field)}


def _finite(tensor: Tensor, values: Sequence[Any]) -> list[Any]:
    if not all(map(math.isfinite, values)):
        raise Unfit(tensor.name, "holds numbers that are none")
    return list(values)


def _text(tensor: Tensor, value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unfit(tensor.name, "is not UTF-8") from error


def _document(tensor: Tensor, value: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unfit(tensor.name, "is not JSON") from error
    return document if isinstance(document, dict) else {"value": document}


def error_in(body: bytes) -> str:
    """Return what a server says went wrong, empty when it doesn't say."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    sentence = said.get("error") if isinstance(said, dict) else None
    return sentence[:500] if isinstance(sentence, str) else ""
