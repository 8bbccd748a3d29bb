"""Burn-rate alerts on recorded shapes: outages, smoulders, blips, flapping, quiet nights."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import cycle, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haat.sla.burn import RULES, Burn, Rule, of_availability, of_latency, step
from haat.sla.model import Counts

FAST, SLOW = RULES
START = datetime(2026, 11, 21, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
Shape = Callable[[int], tuple[int, int]]
"""Calls and failures of a minute."""


def alerts(shape: Shape, minutes: int, rule: Rule, objective: str = "99.9") -> list[tuple[str, int]]:
    """Play a shape minute by minute; return what an alert did, and in which minute."""
    history: list[Counts] = []
    did: list[tuple[str, int]] = []
    is_open, quiet = False, None
    for minute in range(minutes):
        calls, failed = shape(minute)
        history.append(Counts(calls - failed, failed, failed))
        short, long = (sum(history[-(window // MINUTE) :], Counts()) for window in (rule.short, rule.long))
        found = of_availability(rule, short, long, Decimal(objective), 30)
        done = step(rule, found, START + minute * MINUTE, is_open=is_open, quiet_since=quiet)
        quiet = done.quiet_since
        if done.do != "nothing":
            is_open = done.do == "open"
            did.append((done.do, minute))
    return did


def outage(first: int, last: int, share: float = 1.0, calls: int = 60) -> Shape:
    return lambda minute: (calls, round(calls * share) if first <= minute < last else 0)


def test_the_factors_for_thirty_days_are_the_usual_ones() -> None:
    assert (FAST.factor(30), SLOW.factor(30)) == (Fraction(144, 10), Fraction(6))
    assert (FAST.factor(7), SLOW.factor(7)) == (Fraction(336, 100), Fraction(14, 10))


def test_an_outage_is_one_alert_that_opens_within_minutes_and_closes_once() -> None:
    did = alerts(outage(120, 150), 400, FAST)
    assert [what for what, _ in did] == ["open", "close"]
    (_, opened), (_, closed) = did
    assert 120 <= opened <= 123
    assert 150 < closed <= 150 + 60 + 5 + 1, "an hour after its end, and five quiet minutes"


def test_a_smoulder_opens_the_slow_alert_and_not_the_fast_one() -> None:
    smoulder = outage(60, 1000, share=1 / 60)  # one call a minute: 1.7 % of a budget of 0.1 %
    assert [what for what, _ in alerts(smoulder, 900, SLOW)] == ["open"]
    gentle = outage(60, 1000, share=0.01, calls=100)  # ten times the pace
    assert alerts(gentle, 900, FAST) == []
    assert [what for what, _ in alerts(gentle, 1500, SLOW)] == ["open", "close"]


def test_what_stays_within_its_budget_alerts_nobody() -> None:
    calm: Shape = lambda minute: (1000, 1)  # noqa: E731
    for rule in RULES:
        assert alerts(calm, 1000, rule) == []


def test_a_blip_that_is_over_alerts_nobody_though_the_hour_still_remembers_it() -> None:
    """The long window burns after two bad calls of few; the short one is well again before the sample is enough."""
    blip: Shape = lambda minute: (2, 2 if minute == 3 else 0)  # noqa: E731
    assert alerts(blip, 300, FAST) == []


def test_an_incident_with_pauses_is_one_alert() -> None:
    flapping: Shape = lambda minute: (60, 60 if 60 <= minute < 240 and minute % 20 < 4 else 0)  # noqa: E731
    assert [what for what, _ in alerts(flapping, 600, FAST)] == ["open", "close"]


def test_too_small_a_sample_alerts_nobody_however_bad_it_is() -> None:
    for rule, calls in ((FAST, 1.65), (SLOW, 0.27)):
        few: Shape = lambda minute, calls=calls: (int((minute + 1) * calls) - int(minute * calls),) * 2  # type: ignore[misc]  # noqa: E731
        assert alerts(few, 900, rule) == [], "99 calls at most in the long window"


def test_probes_alert_where_nobody_calls() -> None:
    history = [Counts(probes_good=1)] * 60
    down = [Counts(probes_bad=1)] * 10
    short = sum(down[-5:], Counts())
    long = sum((history + down)[-60:], Counts())
    assert of_availability(FAST, short, long, Decimal("99.9"), 30).burning
    assert not of_availability(FAST, short, sum(down, Counts()), Decimal("99.9"), 30).burning, "10 probes are too few"


def test_both_windows_are_judged_by_what_the_long_one_has_enough_of() -> None:
    short, long = Counts(0, 0, 0, 0, 5), Counts(1000, 0, 0, 55, 5)
    found = of_availability(FAST, short, long, Decimal("99.9"), 30)
    assert (found.short, found.long, found.burning) == (None, 0, False), "traffic is well, whatever probes say"


def test_when_calls_stop_an_open_alert_closes() -> None:
    ends: Shape = lambda minute: (60, 60) if minute < 30 else (0, 0)  # noqa: E731
    assert [what for what, _ in alerts(ends, 400, FAST)] == ["open", "close"]


def test_a_slow_answer_burns_the_budget_of_its_quantile() -> None:
    assert of_latency(SLOW, "p95", (40, 100), (40, 100), 30).burning, "40 % slow, 5 % allowed: eight times"
    assert not of_latency(FAST, "p95", (40, 100), (40, 100), 30).burning
    assert not of_latency(FAST, "p50", (100, 100), (1000, 1000), 30).burning, "half may be slow: it burns twice at most"
    assert not of_latency(SLOW, "p95", (99, 99), (99, 99), 30).burning, "99 answers are too few"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1)), min_size=1, max_size=300),
    st.sampled_from(RULES),
    st.sampled_from(["99", "99.9"]),
)
def test_whatever_happens_an_alert_opens_and_closes_in_turn(
    minutes: list[tuple[int, float]], rule: Rule, objective: str
) -> None:
    shape: Shape = lambda minute: (minutes[minute][0], int(minutes[minute][0] * minutes[minute][1]))  # noqa: E731
    did = [what for what, _ in alerts(shape, len(minutes), rule, objective)]
    assert did == list(islice(cycle(["open", "close"]), len(did)))


@pytest.mark.parametrize("is_open", [False, True])
def test_between_burning_and_over_nothing_happens(is_open: bool) -> None:
    between = Burn(Fraction(1), Fraction(20), Fraction(144, 10), True)
    quiet = START - timedelta(hours=9)
    assert step(FAST, between, START, is_open=is_open, quiet_since=quiet).do == "nothing"
