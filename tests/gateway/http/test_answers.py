"""Every answer of the corpus, whole and cut at every byte, as the client, the provider and the journal see it."""

from __future__ import annotations

import itertools

import h11
import pytest

from gateway.http.case import call
from gateway.http.corpus.answers import ANSWERS, Answer
from gateway.http.wire import Seen, Visit, Wire
from gateway.rig import Response
from haat.usage.event import Outcome, UsageEvent

ids = [answer.name for answer in ANSWERS]


class Outside:
    """What came of one answer."""

    def __init__(self, answer: Answer, seen: Seen, reused: bool, events: list[UsageEvent]) -> None:
        self.answer, self.seen, self.reused = answer, seen, reused
        [self.event] = events
        self.response, self.whole = read(seen, answer.method)

    def check(self) -> None:
        answer, response, event = self.answer, self.response, self.event
        assert self.reused == answer.reused
        assert len(self.seen.requests) == 1
        if answer.breaks and response.status != 502:
            assert not self.whole and not self.seen.kept, "a part must not pass for the whole"
            assert (event.outcome, event.units) == (Outcome.PROVIDER_FAILED, {})
            return
        assert self.whole and self.seen.kept
        if answer.status == 502 or answer.breaks:
            assert (response.status, response.json()["code"]) == (502, "PROVIDER_FAILED")
            assert (event.outcome, event.units) == (Outcome.PROVIDER_FAILED, {})
            return
        assert (response.status, response.body) == (answer.status, answer.body)
        assert event.outcome == (Outcome.COMPLETED if answer.status < 400 else Outcome.PROVIDER_FAILED)
        assert event.bytes_out == len(answer.body)
        names = [name for name, _ in response.headers]
        assert names.count("x-request-id") == names.count("date") == 1
        assert not set(names) & {"connection", *answer.lacks}
        for name, value in answer.has.items():
            assert "|".join(text for key, text in response.headers if key == name) == value


def read(seen: Seen, method: str) -> tuple[Response, bool]:
    """Parse what may have broken off; return it with whether it is whole."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(seen.output)
    head = parser.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := parser.next_event(), h11.Data):
        body += bytes(event.data)
    headers = [(name.decode(), value.decode("latin-1")) for name, value in head.headers]
    return Response(head.status_code, headers, body), isinstance(event, h11.EndOfMessage)


async def ask(wire: Wire, answer: Answer, cuts: tuple[int, ...] = ()) -> Outside:
    """Make a call, and let the provider answer in pieces."""
    visit = Visit(wire)
    visit.client.data_received(call(method=answer.method))
    await wire.settle(answering=False)
    [peer] = wire.asked
    wire.asked.clear()
    peer.begin()
    for start, stop in itertools.pairwise([0, *cuts, len(answer.raw)]):
        if start != stop:
            peer.receive(answer.raw[start:stop])
            await wire.settle()
    if answer.ends:
        peer.end()
    await wire.settle()
    reused = not peer.transport.is_closing()
    return Outside(answer, await visit.end(), reused, wire.events())


@pytest.mark.parametrize("answer", ANSWERS, ids=ids)
def test_an_answer(wire: Wire, answer: Answer) -> None:
    wire.play(ask(wire, answer)).check()


@pytest.mark.parametrize("answer", ANSWERS, ids=ids)
def test_an_answer_cut_at_every_byte(wire: Wire, answer: Answer) -> None:
    length = len(answer.raw)
    places = range(1, length) if length < 1000 else [*range(1, 100), *range(100, length, length // 50)]

    async def each() -> None:
        for place in places:
            (await ask(wire, answer, (place,))).check()

    wire.play(each())


@pytest.mark.parametrize(
    "answer", [answer for answer in ANSWERS if len(answer.raw) < 1000], ids=lambda answer: answer.name
)
def test_an_answer_byte_by_byte(wire: Wire, answer: Answer) -> None:
    wire.play(ask(wire, answer, tuple(range(1, len(answer.raw))))).check()


def test_the_call_behind_any_answer_gets_its_own(wire: Wire) -> None:
    """Whatever a provider has sent before, nothing of it is taken for the next call's answer."""

    async def each() -> None:
        for answer in ANSWERS:
            await ask(wire, answer)
            seen = await wire.once(call())
            [response] = seen.answers()
            assert (response.status, response.body) == (200, b'{"ok":true}'), answer.name
            assert len(wire.events()) == 1

    wire.play(each())
