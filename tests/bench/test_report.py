"""The results as JSON, as a table, and their place in a document."""

from __future__ import annotations

import pytest

from bench.measure import Sample
from bench.report import BEGIN, END, NoMarkers, put_between_markers, row_of, table

BASES = [Sample(10, 8, 1000, 1, 2, 3, 15, 0), Sample(10, 8, 1000, 1, 2, 3, 15, 0), Sample(10, 8, 1000, 1, 2, 3, 15, 0)]
ROWS = [Sample(20, 8, 900, 1, 2, 3, 50, 1), Sample(22, 8, 910, 1, 2, 3, 50, 0), Sample(30, 8, 890, 1, 2, 3, 50, 0)]


def test_a_row_has_the_agreed_members_and_those_of_its_own() -> None:
    members = row_of("haat-full", ROWS, BASES, workers=1).as_json()
    assert list(members)[:9] == [
        "name",
        "cpu_us_per_request",
        "ratio_to_nginx",
        "rps",
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "rss_mb",
        "errors",
    ]
    assert (members["cpu_us_per_request"], members["ratio_to_nginx"], members["errors"]) == (22, 2.2, 1)
    assert members["range"]["ratio_to_nginx"] == [2.0, 3.0]
    assert (members["rounds"], members["workers"]) == (3, 1)


def test_what_was_not_measured_is_null_and_a_dash() -> None:
    row = row_of("alone", ROWS)
    assert row.as_json()["ratio_to_nginx"] is None
    assert "| alone | 22.0 (20.0–30.0) | 8 | – | 900 (890–910) |" in table([row])


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = put_between_markers(document, "new\n")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert put_between_markers(once, "new") == once


def test_a_document_without_markers_is_left_alone() -> None:
    with pytest.raises(NoMarkers):
        put_between_markers("nothing here", "new")
