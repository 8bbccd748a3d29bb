"""A mutational fuzzer: takes cases of the corpus, breaks them, and asks a target whether all still holds.

It needs nothing but the corpus, so it runs within the tests. Where atheris is installed, ``--atheris`` lets
libFuzzer choose what to try by what it reaches in the gateway's code (not in its compiled form).
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gateway.http.wire import Wire
from haat.infra.keyring import Keyring

LONGEST = 6000
TOKENS = [
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\x00", b"\x7f", b"\xff", b":", b",", b";"),
    *(b"0", b"-", b"+", b"0x", b"_", b"ffffffffffffffff", b"99999999999999999999", b"0\r\n\r\n", b"5\r\nhello\r\n"),
    *(b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"GET ", b"POST ", b"HEAD ", b"OPTIONS * ", b"CONNECT ", b"PRI * "),
    *(
        b"Host: g\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Expect: 100-continue\r\n",
        b"Trailer: X\r\n",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Upgrade: h2c\r\n",
        b"Upgrade: websocket\r\n",
    ),
    *(b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: Upgrade\r\n"),
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 X\r\n"),
]
Target = Callable[[Wire, bytes], None]


def mutate(chance: random.Random, seeds: list[bytes]) -> bytes:
    """Return a seed with a few things wrong, or two of them joined."""
    raw = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 5, 9))):
        at = chance.randrange(len(raw) + 1)
        match chance.randrange(9):
            case 0 if at < len(raw):
                raw[at] = chance.randrange(256)
            case 1 if at < len(raw):
                raw[at] ^= 1 << chance.randrange(8)
            case 2:
                del raw[at : at + chance.choice((1, 1, 2, 4, 20))]
            case 3 | 4:
                raw[at:at] = chance.choice(TOKENS)
            case 5:
                end = at + chance.choice((1, 5, 30, 100))
                raw[at:at] = raw[at:end] * chance.choice((1, 1, 2, 20))
            case 6:
                other = chance.choice(seeds)
                raw[at:] = other[chance.randrange(len(other) + 1) :]
            case 7:
                raw += chance.choice(seeds)
            case _:
                raw[at : at + 1] = chance.choice(TOKENS)
    return bytes(raw[:LONGEST])


def cuts(data: bytes) -> tuple[bytes, list[int], bool]:
    """Read an input: how many pieces, in which proportions, whether the provider is slow; then the bytes."""
    if not data:
        return b"", [], False
    count, late = data[0] % 6, data[0] >= 128
    places, raw = data[1 : 1 + count], data[1 + count :]
    return raw, sorted(place * len(raw) // 256 for place in places), late


def inputs(chance: random.Random, seeds: list[bytes]) -> Iterator[bytes]:
    while True:
        yield bytes([chance.randrange(256)]) + chance.randbytes(5) + mutate(chance, seeds)


def run(target: Target, wire: Wire, seeds: Iterable[bytes], seconds: float, seed: int) -> int:
    """Fuzz for some seconds; return how many inputs were tried. Raises what the target raises, with the input."""
    chance, known = random.Random(seed), [raw for raw in seeds if 0 < len(raw) <= LONGEST]
    wire.events()  # of whoever was here before
    end, tried = time.monotonic() + seconds, 0
    for data in inputs(chance, known):
        if time.monotonic() >= end:
            break
        tried += 1
        try:
            target(wire, data)
        except BaseException as error:
            error.add_note(f"seed {seed}, input {tried}: {data!r}")
            raise
    return tried


def main(target: Target, seeds: Iterable[bytes]) -> None:
    """The command line of a target."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="repeats a run")
    parser.add_argument("--atheris", action="store_true", help="let coverage lead, with atheris (pip install atheris)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Wire(Path(folder), Keyring(bytes(range(32)))) as wire:
        if chosen.atheris:
            _with_atheris(target, wire, seeds, chosen.seconds)
        seed = random.SystemRandom().randrange(1 << 32) if chosen.seed is None else chosen.seed
        tried = run(target, wire, seeds, chosen.seconds, seed)
        print(f"{tried} inputs, nothing found (seed {seed})")


def _with_atheris(target: Target, wire: Wire, seeds: Iterable[bytes], seconds: float) -> None:
    from haat.gateway import relay, stages
    from haat.gateway.http import connection, headers, reader, upgrades
    from haat.gateway.upstreams import connection as upstream
    from haat.gateway.upstreams import reader as answers

    atheris: Any = importlib.import_module("atheris")
    for module in (connection, reader, upstream, answers, relay, stages, headers, upgrades):
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__:
                for name, method in list(vars(value).items()):
                    if callable(method) and hasattr(method, "__code__"):
                        setattr(value, name, atheris.instrument_func(method))
    with tempfile.TemporaryDirectory() as corpus:
        for number, raw in enumerate(seeds):
            (Path(corpus) / str(number)).write_bytes(b"\x00" + raw)
        atheris.Setup(
            [sys.argv[0], f"-max_total_time={int(seconds)}", f"-max_len={LONGEST}", corpus],
            lambda data: target(wire, data),
        )
        atheris.Fuzz()
