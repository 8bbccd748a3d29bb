"""Fuzzes what providers answer: ``make fuzz SECONDS=60``.

Whatever a provider sends, in whatever pieces: no exception leaves a callback, the client gets one answer that
a strict parser reads or sees it break off, there is one record of the call, and the next call gets its own
answer.
"""

from __future__ import annotations

from itertools import pairwise

from gateway.http.case import call
from gateway.http.corpus.answers import ANSWERS
from gateway.http.fuzz.engine import cuts, main
from gateway.http.test_answers import read
from gateway.http.wire import BODY, Seen, Visit, Wire
from haat.usage.event import Outcome

SEEDS = [answer.raw for answer in ANSWERS if answer.raw]


def target(wire: Wire, data: bytes) -> None:
    raw, places, ends = cuts(data)
    method = "HEAD" if data and data[0] % 16 == 0 else "POST"
    seen = wire.play(ask(wire, method, [raw[start:stop] for start, stop in pairwise([0, *places, len(raw)])], ends))
    [event] = wire.events()
    assert len(seen.requests) == 1 or method == "HEAD", "only what is safe is asked again"
    assert seen.violations == ()
    if not seen.output:  # it is waited for still, and the client has left
        assert event.outcome == Outcome.CLIENT_LEFT
        return
    response, whole = read(seen, method)
    assert 200 <= response.status < 600
    if not whole:
        assert event.outcome in (Outcome.PROVIDER_FAILED, Outcome.CLIENT_LEFT)
    elif response.status < 400:
        assert (event.outcome, event.bytes_out) == (Outcome.COMPLETED, len(response.body))
    else:
        assert event.outcome == Outcome.PROVIDER_FAILED
    after = wire.run(call())
    assert [(one.status, one.body) for one in after.answers()] == [(200, BODY)], "the next call got another answer"
    assert len(wire.events()) == 1


async def ask(wire: Wire, method: str, pieces: list[bytes], ends: bool) -> Seen:
    visit = Visit(wire)
    visit.client.data_received(call(method=method))
    await wire.settle(answering=False)
    [peer] = wire.asked
    wire.asked.clear()
    peer.begin()
    for piece in pieces:
        if piece:
            peer.receive(piece)
            await wire.settle()
    if ends:
        peer.end()
    await wire.settle()
    return await visit.end()


if __name__ == "__main__":
    main(target, SEEDS)
