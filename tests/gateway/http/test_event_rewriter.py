"""Events of a stream are changed one by one, wherever the network cut them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.gateway.http.streams import MAX_EVENT, Rewriter
from haat.kernel.errors import ProviderFailed
from haat.plugins.api import Event


def shout(event: Event) -> None:
    event.rewrite(lambda text, key: text.replace("quiet", "LOUD"))


def feed(stream: bytes, cuts: list[int]) -> bytes:
    rewriter = Rewriter((shout,))
    out, at = b"", 0
    for cut in sorted({min(cut, len(stream)) for cut in cuts}):
        out += rewriter.feed(stream[at:cut], False)
        at = cut
    return out + rewriter.feed(stream[at:], True)


STREAMS = [
    (b"data: quiet\n\ndata: b\n\n", b"data: LOUD\n\ndata: b\n\n"),
    (b"event: x\r\nid: 7\r\ndata: quiet\r\n\r\n", b"event: x\r\nid: 7\r\ndata: LOUD\r\n\r\n"),
    (b"data: a quiet\ndata:b\n\n", b"data: a LOUD\ndata: b\n\n"),
    (b'data: {"quiet": "quiet", "n": 1.0}\n\n', b'data: {"quiet": "LOUD", "n": 1.0}\n\n'),
    (b": quiet\n\n", b": quiet\n\n"),
    (b"data: quiet\r\rdata: x\r\r", b"data: LOUD\r\rdata: x\r\r"),
    (b"data: quiet", b"data: LOUD"),
    (b"data\n\n", b"data\n\n"),
    ("data: शांत quiet\n\n".encode(), "data: शांत LOUD\n\n".encode()),
    (b"data: \xff quiet\n\n", b"data: \xff LOUD\n\n"),
    (b"", b""),
]


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 40), max_size=8))
def test_the_cuts_of_the_network_change_nothing(stream: tuple[bytes, bytes], cuts: list[int]) -> None:
    assert feed(stream[0], cuts) == stream[1]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_what_nobody_changes_passes_byte_for_byte(stream: bytes, cuts: list[int]) -> None:
    assert feed(stream, cuts) == (stream if b"quiet" not in stream else feed(stream, []))


def test_a_whole_event_does_not_wait_for_the_next() -> None:
    rewriter = Rewriter((shout,))
    assert rewriter.feed(b"data: quiet\n\nda", False) == b"data: LOUD\n\n"
    assert rewriter.feed(b"ta: x\n", False) == b""
    assert rewriter.feed(b"\n", False) == b"data: x\n\n"


def test_an_event_without_an_end_is_not_collected_for_ever() -> None:
    rewriter = Rewriter((shout,))
    with pytest.raises(ProviderFailed):
        for _ in range(20):
            rewriter.feed(b"data: " + b"x" * (MAX_EVENT // 10), False)


def drop_quiet(event: Event) -> bool:
    return "quiet" not in event.data


@given(st.lists(st.integers(0, 40), max_size=8))
def test_an_event_that_is_dropped_leaves_nothing_behind(cuts: list[int]) -> None:
    rewriter = Rewriter((drop_quiet, shout))
    stream, out, at = b"data: a\n\nevent: x\ndata: quiet\n\ndata: b\n\n", b"", 0
    for cut in sorted(cuts):
        out += rewriter.feed(stream[at:cut], False)
        at = max(at, cut)
    assert out + rewriter.feed(stream[at:], True) == b"data: a\n\ndata: b\n\n"


@pytest.mark.parametrize("whole", [True, False])
def test_who_looks_is_told_once_that_it_is_over(whole: bool) -> None:
    told: list[tuple[str, bool]] = []
    inner = Rewriter((), (lambda end: told.append(("inner", end)),))
    outer = Rewriter((shout,), (lambda end: told.append(("outer", end)),), inner)
    assert outer.feed(b"data: quiet\n\ndata: b", False) == b"data: LOUD\n\n"
    if whole:
        assert outer.feed(b"", True) == b"data: b"
    outer.cut_off()
    outer.cut_off()
    assert told == [("inner", whole), ("outer", whole)]
