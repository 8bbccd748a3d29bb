"""docs/settlement.md says what the code does: columns, statuses, commands, and rates that come to its sum."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from decimal import Decimal
from pathlib import Path
from uuid import UUID

from haat.cli.settlement import settlement
from haat.infra.parquet import Kind
from haat.settlement import model
from haat.settlement.bank_answers import COLUMNS as ANSWER_COLUMNS
from haat.settlement.dispute_model import MOST_LOG_BYTES
from haat.settlement.evidence import COLUMNS
from haat.settlement.payout_model import FILE_COLUMNS, STEPS, Status, narration
from haat.settlement.withholding import parse, withhold

DOCUMENT = (Path(__file__).parents[2] / "docs" / "settlement.md").read_text()
KINDS = {
    "string": Kind.TEXT,
    "timestamp, ms, UTC": Kind.TIME,
    "int32": Kind.INTEGER,
    "decimal(38, 6)": Kind.DECIMAL,
    "decimal(38, 12)": Kind.FINE_DECIMAL,
}


def _rows(heading: str) -> list[list[str]]:
    """Return the cells of the table whose head begins so."""
    found = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", DOCUMENT, re.MULTILINE)
    assert found is not None, heading
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()]


def test_the_evidence_has_these_columns_of_these_types() -> None:
    described = []
    for names, kinds, _ in _rows("column | Parquet type"):
        columns = re.findall(r"`(\w+)`", names)
        parts = [kinds] if kinds in KINDS else kinds.split(", ")
        described += zip(columns, parts * len(columns) if len(parts) == 1 else parts, strict=True)
    assert [(name, KINDS[kind]) for name, kind in described] == [(column.name, column.kind) for column in COLUMNS]


def test_the_banks_file_has_these_columns() -> None:
    rows = _rows("column | example")
    assert tuple(row[0].strip("`") for row in rows) == FILE_COLUMNS
    assert narration(UUID(rows[0][1].strip("`"))) in rows[-1][1]


def test_the_banks_answers_have_these_columns() -> None:
    assert tuple(row[0].strip("`") for row in _rows("column | what it says")) == ANSWER_COLUMNS


def test_statuses_and_where_they_lead_are_those_of_the_code() -> None:
    described = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in _rows("status")}
    leads = {status: {to for allowed, to in STEPS.values() if status in allowed} for status in Status}
    assert described == leads


def test_the_rates_come_to_the_sum_in_the_picture() -> None:
    block = re.search(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert block is not None
    rules = parse(tomllib.loads(block[1])["withholdings"])
    credited, _ = model.reversed_share(Decimal(100), Decimal("0.7"), Decimal(0), Decimal(10))
    taxes = withhold(
        rules,
        closed=date(2026, 12, 1),
        period_end=date(2026, 11, 30),
        gross=Decimal(90),
        provider=Decimal(63),
        rates={},
    )
    assert f'"₹{Decimal(70) - credited - sum(one.amount for one in taxes)}"' in DOCUMENT


def test_every_command_that_is_written_down_exists() -> None:
    written = set(re.findall(r"`haat settlement ([a-z-]+)", DOCUMENT))
    assert written and written <= set(settlement.commands)
    assert f"{MOST_LOG_BYTES // 2**30} GiB" in DOCUMENT


def test_the_kinds_of_posting_are_those_of_the_code() -> None:
    cells = " ".join(row[0] for row in _rows("what"))
    assert set(re.findall(r"`([a-z-]+)/\{id\}`", cells)) == set(model.OWN_KINDS)
