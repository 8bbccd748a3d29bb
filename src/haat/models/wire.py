"""What an engine and a worker say to each other: four bytes of length, then a msgpack array.

To the worker: ``["open", key, manifest, folder]``, ``["close", key]``, ``["run", key, traceparent, inputs]``,
``["stream", key, traceparent, [input]]``, ``["ping"]``, and ``["stop"]`` while one streams. One thing at a time, and
each is answered: by ``["ready", seconds]`` (as also a worker says when it begins), ``["outputs", outputs, wrong,
seconds]`` where ``wrong`` has the errors of single outputs by their index, ``["part", output]`` and at last ``["end",
seconds]``, or ``["error", error]``. An error is ``[code, detail, extensions]``. An input is ``[text, other, content,
format, config]``; a large content is ``[at, size]`` in the memory that both share.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from haat.kernel import errors
from haat.kernel.errors import EngineFailed, HaatError
from haat.models.outputs import problem_of
from haat.models.region import Region
from haat.models.runtimes.port import Input

HEADER = struct.Struct(">I")
MOST_BYTES = 256 * 1024 * 1024
"""A message that says it is longer is not believed: a worker that writes rubbish is replaced."""

_encoder = msgspec.msgpack.Encoder(decimal_format="number")
_KINDS = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, HaatError) and "code" in vars(kind)
}


_MEMBERS = frozenset({"self", "type", "title", "status", "detail", "code", "request_id", "instance"})
"""What is said of every error: no extension may say it otherwise."""


def frame(message: Sequence[Any]) -> bytes:
    """Return a message as bytes; raises TypeError for what msgpack can't say, ValueError for one that is too long."""
    payload = _encoder.encode(message)
    if len(payload) > MOST_BYTES:
        raise ValueError(f"{len(payload)} bytes are too many for one message")
    return HEADER.pack(len(payload)) + payload


def is_whole(data: bytes) -> bool:
    """Tell whether these bytes are one message, no more and no less."""
    size = HEADER.size
    return len(data) > size and HEADER.unpack_from(data)[0] == len(data) - size


def inputs_of(given: Sequence[Input], region: Region | None = None) -> list[tuple[Any, ...]]:
    """Return inputs as they are sent: instead of a content that lies in the region, where it lies."""
    if region is None:
        return [(one.text, one.other, one.content, one.format, one.config) for one in given]
    region.clear()
    return [
        (one.text, one.other, (one.content and region.lay(one.content)) or one.content, one.format, one.config)
        for one in given
    ]


def read_inputs(sent: Sequence[Sequence[Any]], region: Region | None = None) -> list[Input]:
    """Return inputs as they were given."""
    return [
        Input(text, other, region.read(*content) if region and isinstance(content, list) else content, form, config)
        for text, other, content, form, config in sent
    ]


def error_fields(error: HaatError) -> tuple[str, str, dict[str, Any]]:
    """Return an error as it is sent."""
    return error.code, error.detail, error.extensions


def read_error(fields: Sequence[Any]) -> HaatError:
    """Return the error that a worker has sent: of the class that has its code, EngineFailed for unknown ones."""
    code, detail, extensions = fields
    if problem_of(extensions):
        extensions = {}  # JSON could not say them
    more = {name: value for name, value in extensions.items() if name not in _MEMBERS}
    return _KINDS.get(code, EngineFailed)(str(detail), **more)
