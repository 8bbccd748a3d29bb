"""How inputs get to a worker: by its socket, or by memory that is shared, new for each or kept.

``python -m bench.transport`` prints the median of a round trip, in microseconds, by the size of the input's content.
The content is bytes of an input when the measurement begins, and bytes in the other process when it ends: all copies
count. ``--keep`` writes `bench/results/transport.json`.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing import shared_memory
from multiprocessing.resource_tracker import unregister
from pathlib import Path
from typing import Any

import msgspec

from haat.models import wire
from haat.models.region import Region
from haat.models.runtimes.port import Input

SIZES = (1_000, 64_000, 1_000_000, 10_000_000)
ROUNDS = 7
RESULT = Path(__file__).parent / "results" / "transport.json"
Way = Callable[[socket.socket, bytes], None]


def receive(connection: socket.socket) -> Any:
    """Return the next message."""
    header = connection.recv(wire.HEADER.size, socket.MSG_WAITALL)
    if not header:
        raise EOFError
    received = bytearray(wire.HEADER.unpack(header)[0])
    view = memoryview(received)
    while view:
        view = view[connection.recv_into(view) :]
    return msgspec.msgpack.decode(received)


def answer(connection: socket.socket, region: Region) -> None:
    """Be the worker: have each content as bytes, and say how many they are."""
    while True:
        name, size, inputs = receive(connection)
        if name:
            block = shared_memory.SharedMemory(name)
            unregister("/" + name, "shared_memory")  # it is its maker's to take away
            content = bytes(_bytes_of(block)[:size])
            block.close()
        else:
            content = wire.read_inputs(inputs, region)[0].content
        connection.sendall(wire.frame([len(content)]))


def _bytes_of(block: shared_memory.SharedMemory) -> memoryview:
    assert block.buf is not None
    return block.buf


def by_socket(connection: socket.socket, content: bytes) -> None:
    """Send all of an input."""
    _ask(connection, "", len(content), wire.inputs_of([Input(content=content)]))


def by_new_memory(connection: socket.socket, content: bytes) -> None:
    """Lay the content into a block of its own."""
    block = shared_memory.SharedMemory(create=True, size=len(content))
    _bytes_of(block)[: len(content)] = content
    _ask(connection, block.name, len(content), [])
    block.close()
    block.unlink()


def by_region(region: Region) -> Way:
    """Lay the content into memory that both have open, if it is large, as the local engine does."""

    def way(connection: socket.socket, content: bytes) -> None:
        _ask(connection, "", len(content), wire.inputs_of([Input(content=content)], region))

    return way


def _ask(connection: socket.socket, name: str, size: int, inputs: list[tuple[Any, ...]]) -> None:
    connection.sendall(wire.frame([name, size, inputs]))
    if receive(connection) != [size]:
        raise RuntimeError("the content has not arrived")


def measure(connection: socket.socket, region: Region) -> dict[str, dict[int, float]]:
    """Return medians in microseconds by way and size; the ways take turns."""
    ways = {"socket": by_socket, "shared memory, new": by_new_memory, "shared memory, kept": by_region(region)}
    times: dict[str, dict[int, list[float]]] = {name: {size: [] for size in SIZES} for name in ways}
    for _ in range(ROUNDS):
        for size in SIZES:
            content = os.urandom(size)
            for name, way in ways.items():
                for _ in range(max(3, min(200, 20_000_000 // size))):
                    began = time.perf_counter()
                    way(connection, content)
                    times[name][size].append((time.perf_counter() - began) * 1e6)
    return {n: {size: round(statistics.median(all_), 1) for size, all_ in t.items()} for n, t in times.items()}


def main() -> None:
    """Measure, print, and keep the result."""
    ours, theirs = socket.socketpair()
    region = Region.new()
    if region is None:
        raise SystemExit("This system has no memory that can be shared by a descriptor.")
    child = os.fork()
    if not child:
        ours.close()
        try:
            answer(theirs, region)
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        result = measure(ours, region)
    os.waitpid(child, 0)
    for name, medians in result.items():
        print(f"{name:22}", *(f"{median:10.1f} µs" for median in medians.values()))
    if "--keep" in sys.argv:
        RESULT.write_text(json.dumps({"microseconds": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
