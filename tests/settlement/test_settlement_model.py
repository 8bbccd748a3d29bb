"""Shares add up to the paisa, whatever the rate."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.money import PAISA
from haat.settlement.model import settle_line, totals

amounts = st.decimals(min_value=0, max_value=10**15, places=2)
shares = st.decimals(min_value=0, max_value=1, places=5)


@given(st.lists(st.tuples(amounts, shares), max_size=30))
def test_provider_and_platform_get_together_exactly_what_was_charged(parts: list[tuple[Decimal, Decimal]]) -> None:
    lines = [settle_line(UUID(int=number), gross, rate) for number, (gross, rate) in enumerate(parts)]
    for line in lines:
        assert line.provider + line.platform == line.gross
        assert line.provider == line.provider.quantize(PAISA) and line.provider >= 0 and line.platform >= 0
        assert abs(line.provider - line.gross * line.rate) <= PAISA / 2
    sums = totals(lines)
    assert sums.gross == sum((gross for gross, _ in parts), Decimal(0)) == sums.provider + sums.platform


def test_half_a_paisa_goes_to_the_provider() -> None:
    line = settle_line(UUID(int=1), Decimal("0.05"), Decimal("0.70"))
    assert (line.provider, line.platform) == (Decimal("0.04"), Decimal("0.01"))


def test_a_share_beyond_the_whole_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        settle_line(UUID(int=1), Decimal("1.00"), Decimal("1.1"))
