"""docs/conformance.md says what the tests say, and every operation at a front door is in it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from haat.gateway.doors.anthropic import SHARED
from haat.gateway.doors.table import DOORS

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import conformance  # noqa: E402


@pytest.fixture(scope="module")
def claims() -> list[conformance.Claim]:
    return conformance.claims()


def test_the_page_is_up_to_date(claims: list[conformance.Claim]) -> None:
    wanted = conformance.page(claims)
    assert conformance.PAGE.read_text(encoding="utf-8") == wanted, "run `python tools/conformance.py`"


def test_every_operation_is_held_against_something_and_nothing_else_is_claimed(
    claims: list[conformance.Claim],
) -> None:
    assert {operation.name for operation in (*DOORS.values(), *SHARED.values())} == {
        claim.operation for claim in claims
    }
