"""Fuzzes what a client sends after it has sent something: ``make fuzz SECONDS=60``.

A connection remembers its last head. Whatever follows, altered however little, comes to what it comes to on a
connection that remembers nothing.
"""

from __future__ import annotations

from gateway.http.case import call, get
from gateway.http.corpus import CASES
from gateway.http.fuzz.engine import main
from gateway.http.test_corpus import comparable
from gateway.http.wire import Seen, Visit, Wire
from haat.gateway.http import reader

FIRST = [
    call("Content-Length: 5", "X-Own: a", body=b"hello"),
    call("content-length:  24", "Accept: text/event-stream", body=b'{"input":[{"text":"x"}]}'),
    call("X-Own: a", "Content-Length: 0"),
    get("X-Own: a"),
]
SEEDS = [*FIRST * 12, *(case.raw for case in CASES if case.raw)]


def target(wire: Wire, data: bytes) -> None:
    if not data:
        return
    first, second = FIRST[data[0] % len(FIRST)], data[6:]
    kept, most = comparable(wire.play(one_after_the_other(wire, first, second))), reader.MAX_MISSES
    reader.MAX_MISSES = 0
    try:
        assert kept == comparable(wire.play(one_after_the_other(wire, first, second)))
    finally:
        reader.MAX_MISSES = most


async def one_after_the_other(wire: Wire, first: bytes, second: bytes) -> Seen:
    """Send two pieces over one connection, the second when the first has its answer."""
    visit = Visit(wire)
    for piece in (first, second):
        if piece and not visit.transport.lost and visit.transport.reading:
            visit.client.data_received(piece)
        await wire.settle()
    return await visit.end()


if __name__ == "__main__":
    main(target, SEEDS)
