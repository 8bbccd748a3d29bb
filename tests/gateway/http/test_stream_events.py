"""Events of a stream behind which something goes wrong: what is good goes on, and then the stream ends."""

from __future__ import annotations

import pytest

from haat.gateway.http.streams import Rewriter
from haat.kernel.errors import ProviderFailed
from haat.plugins.api import Event


def refuse_b(event: Event) -> bool | None:
    if event.data == "b":
        raise ProviderFailed("no b")
    event.data = event.data.upper()
    return None


def test_what_came_before_in_the_same_piece_goes_on() -> None:
    told: list[bool] = []
    outer = Rewriter((lambda event: None,), (told.append,), Rewriter((refuse_b,)))
    assert outer.feed(b"data: a\n\ndata: c\n\ndata: b\n\ndata: d\n\n", True) == b"data: A\n\ndata: C\n\n"
    assert isinstance(outer.failed, ProviderFailed) and outer.failed.detail == "no b"
    assert told == []
    outer.cut_off()
    assert told == [False]


def test_with_nothing_before_it_is_raised() -> None:
    rewriter = Rewriter((refuse_b,), (), Rewriter((lambda event: None,)))
    assert rewriter.feed(b"data: a\n\n", False) == b"data: A\n\n" and rewriter.failed is None
    with pytest.raises(ProviderFailed, match="no b"):
        rewriter.feed(b"data: b\n\ndata: d\n\n", False)
