"""Money is exact until it is rounded, once, half-up."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.money import exact, multiply, rupees, share, to_paisa, total

PAISE = st.integers(min_value=-(10**20), max_value=10**20).map(lambda paise: Decimal(paise).scaleb(-2))
RATES = st.integers(min_value=0, max_value=100_000).map(lambda part: Decimal(part).scaleb(-5))
AMOUNTS = st.decimals(min_value=-(10**12), max_value=10**12, places=12)


@pytest.mark.parametrize("value", [0.1, 1.0, True])
def test_binary_fractions_and_truth_values_are_not_money(value: float) -> None:
    with pytest.raises(TypeError):
        exact(value)  # type: ignore[arg-type]  # what must be refused


@pytest.mark.parametrize(
    ("typed", "amount"),
    [
        ("500", "500"),
        (" ₹ 1,00,000.50 ", "100000.50"),
        ("12,34,567", "1234567"),
        ("1,234,567.8", "1234567.8"),
        ("-1,000", "-1000"),
        ("0.05", "0.05"),
    ],
)
def test_amounts_are_read_as_people_type_them(typed: str, amount: str) -> None:
    assert rupees(typed) == Decimal(amount)


@pytest.mark.parametrize("typed", ["", "5,50", "1,0", ",500", "1,00,00", "1,000,", "1.5,000", "1,,000", "NaN", "ten"])
def test_what_may_be_meant_otherwise_is_no_amount(typed: str) -> None:
    with pytest.raises(ValueError, match=r"number|never|commas"):
        rupees(typed)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-inf", "sNaN", "", "ten", "1,5"])
def test_what_is_no_finite_number_is_not_money(value: str) -> None:
    with pytest.raises(ValueError, match=r"number|never"):
        exact(value)


@given(AMOUNTS)
def test_money_as_text_is_kept_to_the_last_digit(amount: Decimal) -> None:
    assert exact(str(amount)) == amount


@given(
    st.decimals(min_value=0, max_value=10**18, places=6),
    st.decimals(min_value=0, max_value=10**6, places=12),
)
def test_a_product_is_exact(quantity: Decimal, price: Decimal) -> None:
    with localcontext(prec=5):  # whatever the caller's context is
        product = multiply(quantity, price)
    assert Fraction(product) == Fraction(quantity) * Fraction(price)


@given(st.lists(AMOUNTS, max_size=50))
def test_a_sum_is_exact_in_any_order(amounts: list[Decimal]) -> None:
    with localcontext(prec=5):
        forth, back = total(amounts), total(reversed(amounts))
    assert Fraction(forth) == Fraction(back) == sum(map(Fraction, amounts))


@pytest.mark.parametrize(
    ("amount", "rounded"),
    [("0.005", "0.01"), ("0.004999999999", "0.00"), ("2.675", "2.68"), ("-0.005", "-0.01"), ("1", "1.00")],
)
def test_half_a_paisa_is_rounded_away_from_zero(amount: str, rounded: str) -> None:
    assert str(to_paisa(Decimal(amount))) == rounded


@given(AMOUNTS)
def test_rounding_moves_an_amount_by_at_most_half_a_paisa(amount: Decimal) -> None:
    assert abs(Fraction(to_paisa(amount)) - Fraction(amount)) <= Fraction(1, 200)


@given(PAISE, RATES)
def test_a_share_and_its_remainder_add_up_to_the_paisa(amount: Decimal, rate: Decimal) -> None:
    part, remainder = share(amount, rate)
    assert Fraction(part) + Fraction(remainder) == Fraction(amount)
    assert part == to_paisa(part) and remainder == to_paisa(remainder)


@given(PAISE, RATES)
def test_a_share_is_the_exact_one_rounded_once(amount: Decimal, rate: Decimal) -> None:
    part, _ = share(amount, rate)
    assert abs(Fraction(part) - Fraction(amount) * Fraction(rate)) <= Fraction(1, 200)


@pytest.mark.parametrize("rate", ["-0.01", "1.01"])
def test_a_share_lies_between_nothing_and_all(rate: str) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        share(Decimal(1), Decimal(rate))


def test_seventy_percent_of_an_odd_amount_leaves_the_paisa_with_the_platform() -> None:
    assert share(Decimal("0.05"), Decimal("0.70")) == (Decimal("0.04"), Decimal("0.01"))
