"""Limits against a naive reference, under a clock that moves as it likes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from haat.gateway import limits as module
from haat.gateway.limits import SECOND, Allowance, CoarseWindow, ExactWindow, Limits, PlanLimits, Refusal

KOLKATA = "Asia/Kolkata"
START = int(datetime(2026, 11, 29, 6, 30, tzinfo=UTC).timestamp()) * SECOND
SPAN = dict(module.SPANS)


class Reference:
    """The rules in their plainest form: every admission is kept for ever and counted anew."""

    def __init__(self, limits: PlanLimits) -> None:
        self.limits = limits
        self.times: list[int] = []
        self.settled: list[tuple[tuple[int, int], int]] = []
        self.open: list[tuple[int, int]] = []
        self.latest = START  # an allowance is made at that time and never goes back behind it

    @staticmethod
    def month(at: int) -> tuple[int, int]:
        local = datetime.fromtimestamp(at / SECOND, ZoneInfo(KOLKATA))
        return local.year, local.month

    def admit(self, now: int) -> str | None:
        self.latest = now = max(now, self.latest)
        for name, limit in (
            ("minute", self.limits.per_minute),
            ("hour", self.limits.per_hour),
            ("day", self.limits.per_day),
        ):
            if limit is not None and sum(at > now - SPAN[name] for at in self.times) >= limit:
                return name
        month = self.month(now)
        quota = self.limits.quota_per_month
        spent = sum(units for when, units in self.settled if when == month) + self.open.count(month)
        if quota is not None and spent >= quota:
            return "month"
        if self.limits.max_concurrent is not None and len(self.open) >= self.limits.max_concurrent:
            return "concurrent"
        self.times.append(now)
        self.open.append(month)
        return None


some = st.none() | st.integers(1, 6)
plans = st.builds(PlanLimits, some, some, some, st.none() | st.integers(1, 12), st.none() | st.integers(1, 4))
steps = st.one_of(
    st.integers(-5 * SECOND, 5 * SECOND),
    st.integers(0, 70 * SECOND),
    st.sampled_from([60 * SECOND, 60 * SECOND - 1, 3600 * SECOND, 86_400 * SECOND, 40 * 86_400 * SECOND]),
)


class LimitsAgainstReference(RuleBasedStateMachine):
    @initialize(plan=plans)
    def begin(self, plan: PlanLimits) -> None:
        self.now = START
        self.allowance = Allowance(plan, KOLKATA, self.now)
        self.reference = Reference(plan)
        self.open: list[int] = []

    @rule(step=steps)
    def time_passes(self, step: int) -> None:
        self.now += step

    @rule()
    def a_call_arrives(self) -> None:
        refusal = self.allowance.admit(self.now)
        assert (refusal.limit if refusal else None) == self.reference.admit(self.now)
        if refusal is None:
            self.open.append(self.allowance.month_start)
        else:
            assert refusal.reset_seconds >= 1

    @rule(place=st.integers(0, 10), used=st.integers(0, 1))
    def a_call_ends(self, place: int, used: int) -> None:
        if self.open:
            place %= len(self.open)
            self.allowance.settle(self.open.pop(place), 1, used)
            self.reference.settled.append((self.reference.open.pop(place), used))

    @rule(plan=plans)
    def the_plan_changes_its_quota_and_concurrency(self, plan: PlanLimits) -> None:
        present = self.reference.limits
        changed = PlanLimits(
            present.per_minute, present.per_hour, present.per_day, plan.quota_per_month, plan.max_concurrent
        )
        self.allowance.change(changed)
        self.reference.limits = changed

    @invariant()
    def nothing_is_negative(self) -> None:
        if hasattr(self, "allowance"):
            assert self.allowance.in_flight == len(self.reference.open)
            assert self.allowance.reserved >= 0
            standing = self.allowance.standing(self.now)
            assert standing is None or 0 <= standing.remaining <= standing.quota


TestLimitsAgainstReference = LimitsAgainstReference.TestCase
TestLimitsAgainstReference.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.integers(1, 40), st.lists(st.integers(0, 20_000), max_size=200))
@settings(deadline=None)
def test_no_span_ever_holds_more_than_the_limit_in_a_coarse_window(limit: int, gaps: list[int]) -> None:
    span, now, admitted = 100_000, START, []
    window = CoarseWindow(limit, span)
    for gap in gaps:
        now += gap
        if window.expire(now) < limit:
            window.add(now)
            admitted.append(now)
        else:
            assert window.frees_at() > now
    for at in admitted:
        assert sum(at <= other < at + span for other in admitted) <= limit


@given(st.lists(st.integers(0, 30_000), min_size=1, max_size=60))
def test_a_coarse_window_gives_places_back_at_most_a_thousandth_late(gaps: list[int]) -> None:
    span, now = 100_000, START
    window = CoarseWindow(1_000_000, span)
    times = []
    for gap in gaps:
        now += gap
        window.expire(now)
        window.add(now)
        times.append(now)
        late = -(-span // 1024) * 1025 - span  # a bucket's width, and what rounding it up adds
        assert sum(at > now - span for at in times) <= window.size <= sum(at > now - span - late for at in times)


@pytest.mark.parametrize("make", [ExactWindow, CoarseWindow])
def test_a_window_carries_its_entries_into_another_one(make: Callable[[int, int], module.Window]) -> None:
    window = make(10, 60 * SECOND)
    for second in range(5):
        window.expire(START + second * SECOND)
        window.add(START + second * SECOND)
    assert sum(count for _, count in window.entries()) == 5
    assert all(at >= START for at, _ in window.entries())


def test_sixty_a_minute_admits_the_sixty_first_exactly_one_minute_after_the_first() -> None:
    allowance = Allowance(PlanLimits(per_minute=60), KOLKATA, START)
    assert [allowance.admit(START + n) for n in range(60)] == [None] * 60
    assert allowance.admit(START + 60 * SECOND - 1) == Refusal("minute", 60, 0, 1)
    assert allowance.admit(START + 60 * SECOND) is None
    assert allowance.admit(START + 60 * SECOND) is not None


def test_a_refused_call_takes_nothing_from_any_other_limit() -> None:
    allowance = Allowance(PlanLimits(per_minute=5, per_hour=5, quota_per_month=2), KOLKATA, START)
    assert allowance.admit(START) is None
    assert allowance.admit(START) is None
    for _ in range(10):
        assert allowance.admit(START) == Refusal("month", 2, 0, 1 * 24 * 3600 + 12 * 3600)
    allowance.change(PlanLimits(per_minute=5, per_hour=5, quota_per_month=100))
    assert [allowance.admit(START) is None for _ in range(4)] == [True, True, True, False]


def test_the_quota_begins_anew_at_midnight_of_the_organisations_zone() -> None:
    allowance = Allowance(PlanLimits(quota_per_month=1), KOLKATA, START)
    midnight = int(datetime(2026, 12, 1, tzinfo=ZoneInfo(KOLKATA)).timestamp()) * SECOND
    assert allowance.admit(START) is None
    assert allowance.admit(midnight - 1) is not None
    old_month = allowance.month_start
    assert allowance.admit(midnight) is None
    allowance.settle(old_month, 1, 0)  # a call of November that ends now gives December nothing back
    assert allowance.admit(midnight) is not None
    assert '"month";q=1;w=2678400' in allowance.policy


def test_a_released_reservation_can_be_used_again() -> None:
    allowance = Allowance(PlanLimits(quota_per_month=1), KOLKATA, START)
    assert allowance.admit(START) is None
    allowance.settle(allowance.month_start, 1, 0)
    assert allowance.admit(START) is None


def test_a_changed_plan_keeps_what_was_used_in_both_directions() -> None:
    allowance = Allowance(PlanLimits(per_minute=3), KOLKATA, START)
    for _ in range(3):
        allowance.admit(START)
    allowance.change(PlanLimits(per_minute=3_000_000))
    assert isinstance(allowance._windows[0][1], CoarseWindow)
    assert allowance.admit(START) is None
    allowance.change(PlanLimits(per_minute=4, per_hour=4))
    refusal = allowance.admit(START + SECOND)
    assert refusal is not None and refusal.limit == "minute"
    refusal = allowance.admit(START + 62 * SECOND)
    assert refusal is not None and refusal.limit == "hour"


def test_a_lowered_limit_says_when_enough_has_left() -> None:
    allowance = Allowance(PlanLimits(per_minute=10), KOLKATA, START)
    for second in range(10):
        allowance.admit(START + second * SECOND)
    allowance.change(PlanLimits(per_minute=2))
    assert allowance.admit(START + 9 * SECOND) == Refusal("minute", 2, 0, 59)


def test_what_was_used_before_a_restart_counts() -> None:
    registry, plan = Limits(), PlanLimits(per_minute=5, quota_per_month=9)
    month_start = Allowance(plan, KOLKATA, START).month_start
    registry.remember(
        "app", "service", month_start, 7, {"minute": [(START - 90 * SECOND, 50), (START - 30 * SECOND, 4)]}
    )
    allowance = registry.of("app", "service", plan, KOLKATA, START)
    assert registry.of("app", "service", plan, KOLKATA, START) is allowance
    assert allowance.admit(START) is None
    refusal = allowance.admit(START)
    assert refusal is not None and refusal.limit == "minute"
    assert allowance.admit(START + 31 * SECOND) is None
    refusal = allowance.admit(START + 31 * SECOND)
    assert refusal is not None and refusal.limit == "month"


def test_last_months_use_is_forgotten_at_a_restart() -> None:
    registry, plan = Limits(), PlanLimits(quota_per_month=1)
    registry.remember("app", "service", START - 40 * 86_400 * SECOND, 1, {})
    assert registry.of("app", "service", plan, KOLKATA, START).admit(START) is None


def test_an_unlimited_plan_has_no_standing_and_admits() -> None:
    allowance = Allowance(PlanLimits(), KOLKATA, START)
    assert allowance.admit(START) is None
    assert allowance.standing(START) is None
    assert allowance.policy == ""


def test_a_huge_limit_takes_bounded_memory() -> None:
    window = module.make_window(3_000_000, 60 * SECOND)
    assert isinstance(window, CoarseWindow)
    for n in range(100_000):
        window.expire(START + n * 600)
        window.add(START + n * 600)
    assert window.size == 100_000
    assert len(window._counts) == 1025
