"""What the money benchmark measures by, on its own."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from bench.close import Watched, last_month
from bench.rating import CARDS, ratings
from haat.invoices.terms import GRACE

_NOVEMBER = datetime(2026, 10, 31, 18, 30, tzinfo=UTC)
"""Where November begins in India."""


@pytest.mark.parametrize(
    ("now", "label"),
    [
        (_NOVEMBER + GRACE, "2026-10"),
        (_NOVEMBER + GRACE - timedelta(seconds=1), "2026-09"),
        (_NOVEMBER + timedelta(days=29), "2026-10"),
    ],
)
def test_the_month_that_is_closed_is_the_newest_that_can_be(now: datetime, label: str) -> None:
    month = last_month(now)
    assert month.label == label and month.end + GRACE <= now


def test_every_card_of_the_benchmark_charges_all_that_is_called() -> None:
    found = ratings(500)
    assert [one.card for one in found] == list(CARDS)
    assert all(one.events == 500 and one.charges and one.per_second > 0 for one in found)


def test_what_a_process_uses_is_counted_from_when_it_is_watched() -> None:
    with Watched([os.getpid()]) as seen:
        pass
    assert 0 <= seen.cpu_seconds < 60 and seen.most_mb > 1
