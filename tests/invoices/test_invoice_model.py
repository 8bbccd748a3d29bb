"""GST, places of supply, serials and the document."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.invoices.model import STATES, canonical, content_hash, place_of_supply, plain, serial_text, taxes
from haat.kernel.clock import financial_year
from haat.kernel.errors import ValidationFailed
from haat.kernel.money import PAISA

amounts = st.decimals(min_value=0, max_value=10**12, places=2)
rates = st.sampled_from([Decimal("0.18"), Decimal("0.05"), Decimal("0.12"), Decimal("0"), Decimal("0.28")])


@given(amounts, rates, st.sampled_from(sorted(STATES)), st.sampled_from(sorted(STATES)))
def test_taxes_are_whole_paise_and_at_most_a_paisa_from_the_exact_rate(
    net: Decimal, rate: Decimal, supplier: str, place: str
) -> None:
    found = taxes(net, rate, supplier, place)
    assert all(tax.amount == tax.amount.quantize(PAISA) for tax in found)
    assert sum(tax.rate for tax in found) == rate
    assert abs(sum(tax.amount for tax in found) - net * rate) <= PAISA


@given(amounts, rates)
def test_within_a_state_central_and_state_tax_are_equal(net: Decimal, rate: Decimal) -> None:
    central, state = taxes(net, rate, "07", "07")
    assert (central.name, state.name) == ("CGST", "SGST") and central.amount == state.amount


@pytest.mark.parametrize(
    ("supplier", "place", "names"),
    [
        ("07", "07", ["CGST", "SGST"]),
        ("34", "34", ["CGST", "SGST"]),
        ("04", "04", ["CGST", "UTGST"]),
        ("38", "38", ["CGST", "UTGST"]),
        ("07", "29", ["IGST"]),
        ("07", "04", ["IGST"]),
    ],
)
def test_the_place_of_supply_decides_which_taxes(supplier: str, place: str, names: list[str]) -> None:
    assert [tax.name for tax in taxes(Decimal("100.00"), Decimal("0.18"), supplier, place)] == names


def test_half_a_paisa_is_rounded_up_once() -> None:
    (tax,) = taxes(Decimal("0.25"), Decimal("0.18"), "07", "29")
    assert tax.amount == Decimal("0.05")
    assert [tax.amount for tax in taxes(Decimal("0.50"), Decimal("0.18"), "07", "07")] == [Decimal("0.05")] * 2


@pytest.mark.parametrize(
    ("state", "gstin", "place"),
    [
        ("29", None, "29"),
        ("29", "27AAACH0000H1Z5", "27"),
        (None, "33AAACH0000H1Z5", "33"),
        (None, None, "07"),
    ],
)
def test_registration_comes_before_address_and_address_before_the_supplier(
    state: str | None, gstin: str | None, place: str
) -> None:
    assert place_of_supply(state, gstin, "07") == place


def test_a_state_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationFailed):
        place_of_supply("77", None, "07")


@pytest.mark.parametrize("number", [1, 999_999, 1_000_000])
def test_a_serial_fits_sixteen_characters(number: int) -> None:
    assert len(serial_text("HT", "2627", number)) <= 16


def test_a_serial_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="16"):
        serial_text("HAAT", "2627", 1_000_000)


@pytest.mark.parametrize(
    ("at", "year"),
    [
        (datetime(2027, 3, 31, 18, 29, 59, tzinfo=UTC), "2627"),
        (datetime(2027, 3, 31, 18, 30, tzinfo=UTC), "2728"),
    ],
)
def test_the_financial_year_turns_at_midnight_in_india(at: datetime, year: str) -> None:
    assert financial_year(at) == year


@given(st.decimals(min_value=0, max_value=10**12, places=12))
def test_numbers_on_paper_keep_their_value_and_have_no_exponent(value: Decimal) -> None:
    assert Decimal(plain(value)) == value and "E" not in plain(value)


def test_the_same_document_has_the_same_bytes_and_hash() -> None:
    assert canonical({"b": "दो", "a": 1}) == '{"a":1,"b":"दो"}' == canonical({"a": 1, "b": "दो"})
    assert content_hash('{"a":1}') != content_hash('{"a":2}')
