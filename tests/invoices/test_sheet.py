"""An invoice's lines as CSV: exact, and nothing in them that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.invoices.sheet import BYTE_ORDER_MARK, COLUMNS, lines_as_csv

from .papers import a_document


def rows_of(document: dict[str, Any]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(lines_as_csv(document), newline="")))


def test_each_line_is_a_row_with_the_documents_own_digits() -> None:
    document = a_document(3)
    rows = rows_of(document)
    assert [row["line"] for row in rows] == ["1", "2", "3"] and set(rows[0]) == set(COLUMNS)
    for row, line in zip(rows, document["lines"], strict=True):
        for name in ("quantity", "free_units", "unit_price", "taxable_value", "unit", "period", "from", "to"):
            assert row[name] == line[name]
        assert row["calls"] == str(line["calls"]) and row["cached_share"] == "" and row["serial"] == "HT/2627/000042"


def test_a_byte_order_mark_is_there_when_asked_for() -> None:
    plain, marked = lines_as_csv(a_document()), lines_as_csv(a_document(), mark=True)
    assert marked == BYTE_ORDER_MARK + plain and not plain.startswith(BYTE_ORDER_MARK)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r\n=1", " =1", "\x00=1", "\u2028=1"])
def test_a_text_is_never_a_formula(text: str) -> None:
    document = a_document(1)
    document["lines"][0]["description"] = text
    assert rows_of(document)[0]["description"].startswith("'")


def test_a_negative_number_stays_a_number() -> None:
    document = a_document(1)
    document["lines"][0] |= {"taxable_value": "-12.50", "quantity": "-3"}
    assert (rows_of(document)[0]["taxable_value"], rows_of(document)[0]["quantity"]) == ("-12.50", "-3")


def test_what_should_be_a_number_and_is_none_is_a_text() -> None:
    document = a_document(1)
    document["lines"][0]["quantity"] = "=1+1"
    assert rows_of(document)[0]["quantity"] == "'=1+1"


def test_joiners_that_make_letters_are_kept() -> None:
    document = a_document(1)
    document["lines"][0]["description"] = 'ಇನ್‌ವಾಯ್ಸ್, "क्‍ष"'
    assert rows_of(document)[0]["description"] == 'ಇನ್‌ವಾಯ್ಸ್, "क्‍ष"'


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_text_makes_another_row_or_a_formula(description: str, plan: str) -> None:
    document = a_document(2)
    document["lines"][0] |= {"description": description, "plan": plan}
    rows = rows_of(document)
    assert len(rows) == 2 and rows[1]["description"] == "Hindi and Urdu translation"
    for cell in (rows[0]["description"], rows[0]["plan"]):
        assert cell[:1] not in {"=", "+", "-", "@", "\t", "\r", "\n"}
