"""A worker process: runs heavy or thread-unsafe engines, one call at a time.

Started as ``python -m haat.models.engine_worker``; frames of four length bytes and a msgpack map come in
on stdin and go out on stdout. It ends when its stdin does, so it never outlives the server.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import struct
from collections.abc import Mapping, Sequence
from io import FileIO
from typing import Any, BinaryIO

import msgspec

from haat.kernel import errors
from haat.kernel.errors import EngineFailed, HaatError
from haat.models.hosted import HostedService, Item
from haat.plugins.manager import hosted_services

HEADER = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder(decimal_format="number")

log = logging.getLogger(__name__)


def frame(message: Any) -> bytes:
    """Return a message as one frame."""
    payload = _encoder.encode(message)
    return HEADER.pack(len(payload)) + payload


def request_frame(path: str, items: Sequence[Item], config: Mapping[str, Any]) -> bytes:
    """Return the frame that asks for one call of the service at ``path``."""
    fields = [(item.text, item.other, item.content, item.format) for item in items]
    return frame({"service": path, "items": fields, "config": config})


def error_named(code: str, detail: str, extensions: dict[str, Any]) -> HaatError:
    """Return the error a worker reported, as the class that has its code."""
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, HaatError) and vars(kind).get("code") == code:
            return kind(detail, **extensions)
    return EngineFailed(detail)


def answer(services: Mapping[str, HostedService], request: dict[str, Any]) -> dict[str, Any]:
    """Return what a request's engine answered, or the error it ended with."""
    try:
        items = [Item(*fields) for fields in request["items"]]
        outputs, units = services[request["service"]].invoke(items, request["config"])
        return {"outputs": outputs, "units": {unit: str(count) for unit, count in units.items()}}
    except HaatError as error:
        return {"code": error.code, "detail": error.detail, "extensions": error.extensions}
    except Exception:
        log.exception("%s failed", request["service"])
        return {"code": EngineFailed.code, "detail": EngineFailed.default_detail, "extensions": {}}


def main() -> None:
    """Say when ready, then answer requests until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the server's to act on
    logging.basicConfig(level=logging.INFO)
    # Engines may print: what they write to stdout goes to stderr, and only frames to the pipe.
    with os.fdopen(os.dup(1), "wb", buffering=0) as out, os.fdopen(os.dup(0), "rb") as source:
        os.dup2(2, 1)
        services = hosted_services()
        with contextlib.suppress(BrokenPipeError):  # the server was killed: nobody waits for the answer
            _write(out, {"ready": os.getpid()})
            while (request := _read(source)) is not None:
                _write(out, answer(services, request))


def _write(out: FileIO, message: dict[str, Any]) -> None:
    payload = memoryview(frame(message))
    while payload:
        payload = payload[out.write(payload) :]


def _read(source: BinaryIO) -> dict[str, Any] | None:
    header = source.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    request: dict[str, Any] = msgspec.msgpack.decode(source.read(HEADER.unpack(header)[0]))
    return request


if __name__ == "__main__":
    main()
