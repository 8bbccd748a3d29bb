"""What is remembered of a connection's last head changes the cost and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.case import AUTH, PATH, Case, call
from gateway.http.corpus import CASES
from gateway.http.corpus.answers import ANSWERS, LAST, Answer
from gateway.http.fuzz.http_again import one_after_the_other
from gateway.http.fuzz.http_stream import CHUNKS, HEAD, STREAM, behind_a_stream
from gateway.http.test_answers import Outside
from gateway.http.test_corpus import comparable
from gateway.http.wire import Visit, Wire
from haat.gateway.http import reader
from haat.gateway.http.repeated import MAX_MISSES, chunk_size, ends_with_a_chunk, head_of, last_chunk_size
from haat.gateway.upstreams import reader as upstream

BODY = b'{"input":[{"text":"x"}]}'
ORDINARY = call(f"Content-Length: {len(BODY)}", "Content-Type: application/json", "X-Own: a", body=BODY)
FOLLOWERS = {
    "the same": ORDINARY,
    "a longer body": ORDINARY.replace(b"gth: 24", b"gth: 124") + b" " * 100,
    "a shorter body": ORDINARY.replace(b"gth: 24", b"gth: 9")[:-15],
    "no body": ORDINARY.replace(b"gth: 24", b"gth: 0")[:-24],
    "a number with a zero before it": ORDINARY.replace(b"gth: 24", b"gth: 024"),
    "a number with a sign": ORDINARY.replace(b"gth: 24", b"gth: +24"),
    "a number with a blank behind": ORDINARY.replace(b"gth: 24", b"gth: 24 "),
    "a number in other digits": ORDINARY.replace(b"gth: 24", "gth: ٢٤".encode()),
    "no number": ORDINARY.replace(b"gth: 24", b"gth: "),
    "two lengths": ORDINARY.replace(b"gth: 24", b"gth: 24, 24"),
    "less than it says": ORDINARY[:-1],
    "more than it says": ORDINARY + b"G",
    "itself and another": ORDINARY + ORDINARY,
    "itself and what is no request": ORDINARY + b"\x00\x01",
    "another key": ORDINARY.replace(AUTH.encode(), AUTH.replace("OfThe", "OfTha", 1).encode()),
    "another path": ORDINARY.replace(PATH.encode(), b"/v1/services/acme/echo/other"),
    "another field at the end": ORDINARY.replace(b"X-Own: a", b"X-Own: a\r\nTransfer-Encoding: chunked"),
    "an upgrade": ORDINARY.replace(b"X-Own: a", b"Connection: Upgrade\r\nUpgrade: h2c"),
    "the end of the connection": ORDINARY.replace(b"X-Own: a", b"Connection: close"),
}


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Makes connections remember no head, or remember again."""

    def forget(everything: bool) -> None:
        for module in (reader, upstream):
            monkeypatch.setattr(module, "MAX_MISSES", 0 if everything else MAX_MISSES)

    return forget


def differ(wire: Wire, forget: Callable[[bool], None], first: bytes, second: bytes) -> Iterator[tuple[object, ...]]:
    """Yield what comes of two pieces, with a memory and without."""
    for everything in (False, True):
        forget(everything)
        yield comparable(wire.play(one_after_the_other(wire, first, second)))


@pytest.mark.parametrize("second", FOLLOWERS.values(), ids=FOLLOWERS)
def test_what_follows_a_request_is_read_as_if_it_had_been_parsed(
    wire: Wire, forgetful: Callable[[bool], None], second: bytes
) -> None:
    remembered, parsed = differ(wire, forgetful, ORDINARY, second)
    assert remembered == parsed


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.patience and not case.bounded], ids=lambda case: case.name
)
def test_every_case_comes_to_the_same_when_it_comes_again(
    wire: Wire, forgetful: Callable[[bool], None], case: Case
) -> None:
    remembered, parsed = differ(wire, forgetful, case.raw, case.raw)
    assert remembered == parsed


@pytest.mark.parametrize("other", [b"\r", b"\n", b" ", b":", b"0", b"x", b"\x00", b""], ids=repr)
def test_a_head_of_which_any_byte_is_another_is_not_taken_for_the_last_one(
    wire: Wire, forgetful: Callable[[bool], None], other: bytes
) -> None:
    for place in range(len(ORDINARY) - len(BODY)):
        changed = ORDINARY[:place] + other + ORDINARY[place + 1 :]
        remembered, parsed = differ(wire, forgetful, ORDINARY, changed)
        assert remembered == parsed, (place, changed)


def test_a_head_that_comes_again_is_not_parsed(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        visit = Visit(wire)
        visit.client.data_received(ORDINARY)
        await wire.settle()
        monkeypatch.setattr(visit.client, "_parser", None)  # whoever asks it anything fails
        visit.client.data_received(ORDINARY)
        visit.client.data_received(FOLLOWERS["a longer body"])
        await wire.settle()
        seen = await visit.end()
        assert [answer.status for answer in seen.answers()] == [200] * 3
        assert [len(request.body) for request in seen.requests] == [24, 24, 124]

    wire.play(scene())


def test_a_connection_whose_heads_always_differ_is_not_remembered_any_more(wire: Wire) -> None:
    async def scene() -> None:
        visit = Visit(wire)
        for number in range(MAX_MISSES + 5):
            visit.client.data_received(ORDINARY.replace(b"X-Own: a", b"X-Own: %d" % number))
            await wire.settle()
        assert visit.client._last_head is None
        assert len((await visit.end()).answers()) == MAX_MISSES + 5

    wire.play(scene())


# --- answers ------------------------------------------------------------------------------------


async def answered_twice(wire: Wire, first: Answer, second: Answer) -> Outside:
    """Let a provider give one answer and then another on the same connection; return what came of the other."""
    wire.events()
    for answer in (first, second):
        visit = Visit(wire)
        visit.client.data_received(call(method=answer.method))
        await wire.settle(answering=False)
        [peer] = wire.asked
        wire.asked.clear()
        peer.begin()
        peer.receive(answer.raw)
        await wire.settle()
        if answer.ends:
            peer.end()
        await wire.settle()
        outside = Outside(answer, await visit.end(), not peer.transport.is_closing(), wire.events())
    return outside


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
def test_every_answer_comes_to_the_same_when_it_comes_again(wire: Wire, answer: Answer) -> None:
    wire.play(answered_twice(wire, answer, answer)).check()


def test_any_answer_behind_any_other_is_its_own(wire: Wire) -> None:
    kept = [answer for answer in ANSWERS if answer.reused and answer.status == 200]

    async def each() -> None:
        for first in kept:
            for second in kept[::7]:
                (await answered_twice(wire, first, second)).check()

    wire.play(each())


def test_an_answer_whose_head_comes_again_has_its_own_body_and_time(wire: Wire) -> None:
    async def scene() -> list[tuple[bytes, str | None]]:
        found = []
        for body in (b"one", b"two", b"longer", b""):
            visit = Visit(wire)
            visit.client.data_received(ORDINARY)
            await wire.settle(answering=False)
            [peer] = wire.asked
            wire.asked.clear()
            peer.begin()
            peer.receive(b"HTTP/1.1 200 OK\r\nX-Own: 1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await wire.settle()
            [answer] = (await visit.end()).answers()
            found.append((answer.body, answer.header("x-own")))
            assert [name for name, _ in answer.headers].count("date") == 1
        return found

    assert wire.play(scene()) == [(b"one", "1"), (b"two", "1"), (b"longer", "1"), (b"", "1")]


# --- streams ------------------------------------------------------------------------------------

BEHIND = {
    "the same": STREAM,
    "its head alone, then each chunk": [HEAD, *CHUNKS, LAST],
    "nothing in it": [HEAD, LAST],
    "nothing in it, at once": [HEAD + LAST],
    "all at once": [b"".join(STREAM)],
    "two chunks with the head": [HEAD + b"".join(CHUNKS), LAST],
    "two chunks in a piece": [HEAD, b"".join(CHUNKS), LAST],
    "a chunk in two pieces": [HEAD, CHUNKS[0][:7], CHUNKS[0][7:], CHUNKS[1] + LAST],
    "a chunk with an extension": [HEAD + CHUNKS[0], b"1;a=b\r\nx\r\n", LAST],
    "a trailer": [HEAD + CHUNKS[0], b"0\r\nX-Haat-Usage: requests=9\r\n\r\n"],
    "a last chunk of many zeros": [HEAD + CHUNKS[0], b"000\r\n\r\n"],
    "a last chunk in two pieces": [HEAD + CHUNKS[0], LAST[:3], LAST[3:]],
    "a chunk of the wrong length": [HEAD + CHUNKS[0], b"4\r\nhello\r\n", LAST],
    "what is no chunk": [HEAD + CHUNKS[0], b"data: one\n\n"],
    "more behind the end": [HEAD + CHUNKS[0], LAST + b"x"],
    "another answer behind the end": [HEAD + CHUNKS[0], LAST + HEAD],
    "a last chunk twice": [HEAD + CHUNKS[0], LAST + LAST],
    "no end": [HEAD + CHUNKS[0]],
    "another status": [HEAD.replace(b"200", b"503") + CHUNKS[0], LAST],
    "another field": [HEAD.replace(b"X-Own: a", b"X-Own: b") + CHUNKS[0], LAST],
    "the end of the connection": [HEAD.replace(b"X-Own: a", b"Connection: close") + CHUNKS[0], LAST],
}


@pytest.mark.parametrize("ends", [False, True], ids=["stays", "ends"])
@pytest.mark.parametrize("pieces", BEHIND.values(), ids=BEHIND)
def test_what_follows_a_stream_is_read_as_if_it_had_been_parsed(
    wire: Wire, forgetful: Callable[[bool], None], pieces: list[bytes], ends: bool
) -> None:
    found = []
    for everything in (False, True):
        forgetful(everything)
        found.append(wire.play(behind_a_stream(wire, pieces, ends)))
    assert found[0] == found[1]


def test_a_stream_comes_again_in_any_two_pieces(wire: Wire, forgetful: Callable[[bool], None]) -> None:
    raw = b"".join(STREAM)
    forgetful(True)
    [parsed] = {str(wire.play(behind_a_stream(wire, [raw[:place], raw[place:]]))[2]) for place in (1, 90, len(raw))}
    forgetful(False)
    for place in range(len(raw)):
        remembered = wire.play(behind_a_stream(wire, [raw[:place], raw[place:]]))
        assert str(remembered[2]) == parsed, place


def test_a_stream_whose_head_comes_again_is_not_parsed(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        await behind_a_stream(wire, STREAM)
        [peer] = wire.peers
        monkeypatch.setattr(peer.transport.protocol, "_parser", None)  # whoever asks it anything fails
        for pieces in (STREAM, [HEAD, *CHUNKS, LAST]):
            visit = Visit(wire)
            visit.client.data_received(call())
            await wire.settle(answering=False)
            assert wire.asked == [peer]
            wire.asked.clear()
            peer.begin()
            for piece in pieces:
                peer.receive(piece)
                await wire.settle()
            [answer] = (await visit.end()).answers()
            assert answer.body.startswith(b"data: one\n\ndata: two, longer\n\n")

    wire.play(scene())


# --- the pieces ---------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_a_head_knows_bodies_of_every_length_and_nothing_else(body: bytes, behind: bytes) -> None:
    raw = b"POST / HTTP/1.1\r\ncontent-LENGTH:  5\r\nA: b\r\n\r\n"
    head = head_of(raw + b"12345", 5)
    assert head is not None
    asked = raw.replace(b"5", b"%d" % len(body)) + body
    assert head.body_of(asked) == body
    assert head.body_of(asked) == body
    assert behind == b"" or head.body_of(asked + behind) is None


@given(st.binary(max_size=60))
def test_what_is_taken_for_a_chunk_is_one(data: bytes) -> None:
    size = chunk_size(data)
    if size:
        digits, _, rest = data.partition(b"\r\n")
        assert int(digits, 16) == size == len(rest) - 2 and rest.endswith(b"\r\n")


@given(st.binary(min_size=1, max_size=17_000))
def test_a_chunk_is_known_by_its_size(content: bytes) -> None:
    for form in (b"%x", b"%X"):
        chunk = form % len(content) + b"\r\n" + content + b"\r\n"
        assert chunk_size(chunk) == len(content)
        assert chunk_size(chunk[:-1]) == chunk_size(chunk + b"\n") == chunk_size(chunk + chunk) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"0\r\n\r\n",
        b"5;a=b\r\nhello\r\n",
        b"05\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"5\nhello\r\n",
        b"6\r\nhello\r\n",
    ],
    ids=repr,
)
def test_what_the_parser_must_judge_is_left_to_it(data: bytes) -> None:
    assert chunk_size(data) == 0


@given(st.binary(max_size=300))
def test_the_end_of_a_stream_is_known_by_its_last_chunk(content: bytes) -> None:
    chunk = b"%x\r\n%b\r\n" % (len(content), content) if content else b""
    assert last_chunk_size(chunk + LAST) == len(content)
    for other in (chunk, chunk + LAST + b"\n", chunk + b"0" + LAST, b"1" + chunk + LAST, chunk + LAST[:-2]):
        assert last_chunk_size(other) == -1


def test_the_parser_stands_between_chunks_only_where_what_it_found_says_so() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert ends_with_a_chunk(head, [])
    assert ends_with_a_chunk(head + b"5\r\nhello\r\n", [b"hello"])
    assert not ends_with_a_chunk(head + b"5\r\nhel", [b"hel"])
    assert not ends_with_a_chunk(head + b"16\r\n1\r\n\r\n\r\n5\r\nhello\r\n", [b"1\r\n\r\n\r\n5\r\nhello\r\n"])
    assert not ends_with_a_chunk(head + b"5\r\nhello\r\n5\r\nhello\r\n", [b"hello", b"hello"])
