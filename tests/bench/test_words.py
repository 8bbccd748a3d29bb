"""The results as sentences."""

from __future__ import annotations

from bench.conditions import Conditions
from bench.measure import Sample, Spread
from bench.report import Row, row_of
from bench.words import describe

NGINX = Sample(10, 8, 1000, 1, 2, 3, 15, 0)
CONDITIONS = Conditions(
    at="2026-01-01 00:00 UTC",
    processor="AMD",
    cores=2,
    memory_gb=8,
    virtual=True,
    system="Linux 6",
    python="3.11.7",
    compiled=True,
    load_before=0.1,
    busy_percent_before=1.0,
    others={"cron": 2.0},
    versions={"nginx": "1.22.1"},
)


def full(cost: float) -> Row:
    return row_of(
        "haat-full", [Sample(cost, 8, 1000, 1, 2, 3, 50, 0)], [NGINX], checked={"limits": True, "traces": False}
    )


def open_loop(*, p99: float, missing: int) -> Row:
    counts = {"rate": 10, "seconds": 2, "answered": 20, "metered": 20, "answered_and_not_metered": missing, "waited": 0}
    times = {"max_ms": 9.0, "generator_cpu_percent": 20.0, "generator_late_p99_ms": 0.5}
    return Row("haat-open-loop", 0, {"p99_ms": Spread.of([p99])}, counts | times)


def test_a_figure_within_what_is_wanted_is_met_and_one_beyond_is_missed() -> None:
    assert "haat-full: 2.20 × nginx, wanted ≤ 2.2 ×: met." in describe([full(22)], CONDITIONS, {}, quick=False)
    assert "haat-full: 2.30 × nginx, wanted ≤ 2.2 ×: missed." in describe([full(23)], CONDITIONS, {}, quick=False)


def test_what_was_looked_for_and_not_found_is_said() -> None:
    assert "rounds: limits. Not found: traces." in describe([full(22)], CONDITIONS, {}, quick=False)


def test_an_open_loop_is_met_only_when_fast_and_wholly_metered() -> None:
    assert "every answered call metered: met." in describe([open_loop(p99=19, missing=0)], CONDITIONS, {}, quick=False)
    for row in (open_loop(p99=21, missing=0), open_loop(p99=19, missing=1)):
        assert "every answered call metered: missed." in describe([row], CONDITIONS, {}, quick=False)


def test_who_is_left_out_what_else_ran_and_the_versions_are_named() -> None:
    text = describe([full(22)], CONDITIONS, {"portkey": "it needs Node.js with npm"}, quick=True)
    assert "portkey was left out: it needs Node.js with npm." in text
    assert "cron 2 %" in text
    assert "nginx 1.22.1" in text
    assert "a quick run" in text
