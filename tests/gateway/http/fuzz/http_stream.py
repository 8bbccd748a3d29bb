"""Fuzzes what a provider answers behind a stream on the same connection: ``make fuzz SECONDS=60``.

The connection remembers the stream's head. Whatever follows, in whatever pieces, comes to what it comes to on
a connection that remembers nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from gateway.http.case import call, head
from gateway.http.corpus.answers import ANSWERS, LAST
from gateway.http.fuzz.engine import main
from gateway.http.test_corpus import comparable
from gateway.http.wire import Visit, Wire
from haat.gateway.upstreams import reader

HEAD = head("HTTP/1.1 200 OK", "Content-Type: text/event-stream", "X-Own: a", "Transfer-Encoding: chunked")
CHUNKS = [b"%x\r\n%b\r\n" % (len(event), event) for event in (b"data: one\n\n", b"data: two, longer\n\n")]
STREAM = [HEAD + CHUNKS[0], CHUNKS[1], CHUNKS[0] + LAST]
SEEDS = [
    *[b"|".join(STREAM), b"|".join([HEAD, *CHUNKS, LAST]), b"|".join([HEAD + LAST]), HEAD + b"|".join(CHUNKS)] * 12,
    *(answer.raw for answer in ANSWERS if answer.raw and b"|" not in answer.raw),
]
"""A bar stands between two pieces."""


def target(wire: Wire, data: bytes) -> None:
    """The first bytes of the input say whether the provider ends, and what bars are where there was none."""
    if not data:
        return
    pieces, ends = data[6:].split(b"|"), data[0] >= 200
    if data[1] >= 128 and len(data) > 7:
        places = sorted(6 + place % (len(data) - 6) for place in data[1:6])
        pieces = [data[start:stop].replace(b"|", b"") for start, stop in pairwise([6, *places, len(data)])]
    kept, most = wire.play(behind_a_stream(wire, pieces, ends)), reader.MAX_MISSES
    reader.MAX_MISSES = 0
    try:
        assert kept == wire.play(behind_a_stream(wire, pieces, ends))
    finally:
        reader.MAX_MISSES = most


async def behind_a_stream(wire: Wire, pieces: Sequence[bytes], ends: bool = False) -> tuple[object, ...]:
    """Let a provider stream an answer over a new connection, and then answer another call with these pieces.

    Return what came of that.
    """
    for peer in wire.peers:
        peer.end()
    wire.peers.clear()
    await wire.settle()
    for parts, over in ((STREAM, False), (pieces, ends)):
        wire.events()
        visit = Visit(wire)
        visit.client.data_received(call())
        await wire.settle(answering=False)
        [peer] = wire.asked
        wire.asked.clear()
        peer.begin()
        for part in parts:
            if part:
                peer.receive(part)
                await wire.settle()
        if over:
            peer.end()
        await wire.settle()
        seen, stays = await visit.end(), not peer.transport.lost
    events = [(event.outcome, event.status, event.bytes_out, event.units, event.raw_usage) for event in wire.events()]
    return comparable(seen), stays, events


if __name__ == "__main__":
    main(target, SEEDS)
