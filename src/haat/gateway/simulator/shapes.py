"""A simulated answer, and the reading of what was asked."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from haat.kernel.errors import MalformedJson

JSON = b"application/json"
EVENTS = b"text/event-stream"


class Simulated(NamedTuple):
    """An answer. ``usage`` is what the provider reports; ``parts`` are events of a stream, or the one body."""

    content_type: bytes
    usage: bytes
    parts: tuple[bytes, ...]


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body; raise MalformedJson for anything else."""
    try:
        read = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedJson from error
    if not isinstance(read, dict):
        raise MalformedJson("The body must be a JSON object.")
    return read
