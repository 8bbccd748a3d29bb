"""An invoice's lines as CSV, for spreadsheets."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from haat.usage.model import csv_safe

BYTE_ORDER_MARK = "\ufeff"
"""With it in front, Excel reads a CSV as UTF-8."""

_TEXTS = ("description", "sac", "period", "from", "to", "plan")
_NUMBERS = (
    "calls",
    "quantity",
    "free_units",
    "billable",
    "unit_price",
    "cached_share",
    "taxable_value",
)
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
COLUMNS = ("serial", "date", "line", *_TEXTS, "unit", *_NUMBERS)


def lines_as_csv(document: Mapping[str, Any], *, mark: bool = False) -> str:
    """Return a document's lines, one a row under their names; ``mark`` puts a byte order mark in front.

    Numbers are those of the document, digit by digit. A text that a spreadsheet would take for a formula gets an
    apostrophe in front; a number that is negative doesn't, or it could not be summed.
    """
    written = io.StringIO()
    writer = csv.writer(written)  # RFC 4180: commas, double quotes, CRLF
    writer.writerow(COLUMNS)
    for position, line in enumerate(document["lines"], 1):
        writer.writerow(
            [
                _text(document["serial"]),
                _text(document["date"]),
                position,
                *(_text(line.get(name)) for name in (*_TEXTS, "unit")),
                *(_number(line.get(name)) for name in _NUMBERS),
            ]
        )
    return (BYTE_ORDER_MARK if mark else "") + written.getvalue()


def _text(value: object) -> str:
    """Return a cell in one line: a control character would end it, or hide what it begins with."""
    shown = "" if value is None else str(value)
    return csv_safe(" ".join(_BREAKS.sub(" ", shown).split()))


def _number(value: object) -> str:
    try:
        Decimal(str(value))
    except InvalidOperation:
        return _text(value)
    return str(value)
