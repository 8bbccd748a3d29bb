"""Limits against a naive reference, under a clock that moves as it likes, in one process's view and in two."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from haat.gateway.limits.counts import Counts
from haat.gateway.limits.registry import MICRO, SECOND, Allowance, Limits, PlanLimits, Refusal
from haat.gateway.limits.windows import SPANS, Rate, Windows, history, merge

KOLKATA = "Asia/Kolkata"
START = int(datetime(2026, 11, 29, 6, 30, tzinfo=UTC).timestamp()) * SECOND
SPAN = dict(SPANS)
DAY = 86_400 * SECOND


class NoLock:
    """Stands for the lock among processes where there is one process."""

    def take(self) -> int:
        return 0

    def let(self) -> None: ...

    def mend(self, code: int) -> None: ...


def allowance_of(plan: PlanLimits, now: int = START, zone: str = KOLKATA, started_at: int = 0) -> Allowance:
    return Limits().of("app", "service", plan, zone, now, started_at)


class Reference:
    """The rules in their plainest form: every admission is kept for ever and counted anew."""

    def __init__(self, limits: PlanLimits, started_at: int) -> None:
        self.limits = limits
        self.anchor = self.local(started_at).day
        self.times: list[int] = []
        self.charged: list[dict[str, Any]] = []
        self.open: list[dict[str, Any]] = []
        self.latest = START  # an allowance is made at that time and never goes back behind it

    @staticmethod
    def local(at: int) -> date:
        return datetime.fromtimestamp(at / SECOND, ZoneInfo(KOLKATA)).date()

    def month(self, at: int) -> date:
        """Return the first day of the period: walk back to a day on which one begins."""
        day = self.local(at)
        while not self.begins(day):
            day -= timedelta(days=1)
        return day

    def begins(self, day: date) -> bool:
        if self.limits.quota_reset == "calendar":
            return day.day == 1
        is_last = (day + timedelta(days=1)).day == 1
        return day.day == self.anchor or (is_last and day.day < self.anchor)

    def admit(self, now: int, amount: int) -> str | None:
        self.latest = now = max(now, self.latest)
        limits = self.limits
        waits = {}
        for name in ("minute", "hour", "day"):
            limit = getattr(limits, f"per_{name}")
            held = [at for at in self.times if at > now - SPAN[name]]
            if limit is not None and len(held) >= limit:
                waits[name] = held[len(held) - limit] + SPAN[name]
        if waits:
            return max(waits, key=lambda name: waits[name])
        if limits.burst and limits.per_minute:
            interval = -(-60 * SECOND * 1000 // limits.per_minute)
            for place, at in enumerate(self.times):
                if len(self.times) - place + 1 > limits.burst + (now - at) * 1000 // interval:
                    return "burst"
        charge = {"month": self.month(now), "day": self.local(now), "amount": amount}
        for name, quota, period in (
            ("month", limits.quota_per_month, "month"),
            ("day-quota", limits.quota_per_day, "day"),
        ):
            spent = sum(one["amount"] for one in self.charged if one[period] == charge[period])
            if quota is not None and not limits.overage and spent + amount > quota * MICRO:
                return name
        if limits.max_concurrent is not None and len(self.open) >= limits.max_concurrent:
            return "concurrent"
        self.times.append(now)
        self.open.append(charge)
        self.charged.append(charge)
        return None


some = st.none() | st.integers(1, 6)
plans = st.builds(
    PlanLimits,
    per_minute=some,
    per_hour=some,
    per_day=some,
    quota_per_month=st.none() | st.integers(1, 12),
    max_concurrent=st.none() | st.integers(1, 4),
    burst=st.none() | st.integers(1, 3),
    quota_per_day=st.none() | st.integers(1, 8),
    quota_unit=st.sampled_from(["requests", "characters"]),
    quota_reset=st.sampled_from(["calendar", "anniversary"]),
    overage=st.booleans(),
)
steps = st.one_of(
    st.integers(-5 * SECOND, 5 * SECOND),
    st.integers(0, 70 * SECOND),
    st.sampled_from([60 * SECOND, 60 * SECOND - 1, 3600 * SECOND, DAY, DAY - 1, 31 * DAY, 40 * DAY]),
)
amounts = st.sampled_from([MICRO, MICRO, 2 * MICRO, 1, MICRO * 3 // 2])


class LimitsAgainstReference(RuleBasedStateMachine):
    @initialize(plan=plans, days_ago=st.integers(0, 400))
    def begin(self, plan: PlanLimits, days_ago: int) -> None:
        self.now = START
        self.started_at = START - days_ago * DAY
        self.views = self.open_views(plan)
        self.reference = Reference(plan, self.started_at)
        self.open: list[tuple[int, int]] = []

    def open_views(self, plan: PlanLimits) -> list[Allowance]:
        return [allowance_of(plan, START, KOLKATA, self.started_at)]

    @rule(step=steps)
    def time_passes(self, step: int) -> None:
        self.now += step

    @rule(amount=amounts, view=st.integers(0, 7))
    def a_call_arrives(self, amount: int, view: int) -> None:
        allowance = self.views[view % len(self.views)]
        refusal = allowance.admit(self.now, amount)
        assert (refusal.limit if refusal else None) == self.reference.admit(self.now, amount)
        if refusal is None:
            self.open.append((allowance.period, amount))
        else:
            assert refusal.reset_seconds >= 1
            assert 0 <= refusal.remaining <= refusal.quota

    @rule(place=st.integers(0, 10), share=st.sampled_from([0, 0.5, 1, 1]), view=st.integers(0, 7))
    def a_call_ends(self, place: int, share: float, view: int) -> None:
        if self.open:
            place %= len(self.open)
            period, reserved = self.open.pop(place)
            used = int(reserved * share)
            self.views[view % len(self.views)].settle(period, reserved, used)
            self.reference.open.pop(place)["amount"] = used

    @rule(plan=plans)
    def the_plan_changes_its_quota_and_concurrency(self, plan: PlanLimits) -> None:
        present = self.reference.limits
        changed = PlanLimits(
            per_minute=present.per_minute,
            per_hour=present.per_hour,
            per_day=present.per_day,
            burst=present.burst,
            quota_per_month=plan.quota_per_month,
            max_concurrent=plan.max_concurrent,
            quota_per_day=present.quota_per_day,
            quota_unit=present.quota_unit,
            quota_reset=present.quota_reset,
            overage=plan.overage,
        )
        for view in self.views:
            view.change(changed, KOLKATA, self.now, self.started_at)
        self.reference.limits = changed

    @invariant()
    def nothing_is_negative(self) -> None:
        if hasattr(self, "views"):
            self.reference.latest = max(self.reference.latest, self.now)  # asking for the standing shows the time, too
            for allowance in self.views:
                assert allowance.in_flight == len(self.reference.open)
                assert allowance.reserved >= 0 and allowance.used >= 0
                standing = allowance.standing(self.now)
                assert standing is None or 0 <= standing.remaining <= standing.quota
                assert bool(allowance.headers(self.now)) == (standing is not None)


class TwoProcessesAgainstReference(LimitsAgainstReference):
    """Two processes that count in the same records; they read the same clock, which goes forward."""

    def open_views(self, plan: PlanLimits) -> list[Allowance]:
        counts = Counts(slots=2, lock=NoLock())
        first = Limits(counts).of("app", "service", plan, KOLKATA, START, self.started_at)
        counts.slot = 1
        return [first, Limits(counts).of("app", "service", plan, KOLKATA, START, self.started_at)]

    @rule(step=steps)
    def time_passes(self, step: int) -> None:
        self.now += max(0, step)

    @rule(place=st.integers(0, 10), share=st.sampled_from([0, 0.5, 1, 1]), view=st.integers(0, 7))
    def a_call_ends(self, place: int, share: float, view: int) -> None:
        super().a_call_ends(place, share, view)


TestLimitsAgainstReference = LimitsAgainstReference.TestCase
TestTwoProcessesAgainstReference = TwoProcessesAgainstReference.TestCase
TestLimitsAgainstReference.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestTwoProcessesAgainstReference.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# --- windows with large limits -------------------------------------------------------------------


def coarse(limit: int) -> Windows:
    """Return a window of a second that counts as large limits do."""
    rates = [Rate(0, limit, exact=False)]
    return Windows(rates, Counts().fitting("k", rates, START), START)


@given(st.integers(1, 40), st.lists(st.integers(0, 200_000), max_size=200))
@settings(deadline=None)
def test_no_span_ever_holds_more_than_the_limit_in_a_coarse_window(limit: int, gaps: list[int]) -> None:
    now, admitted = START, []
    window = coarse(limit)
    for gap in gaps:
        now += gap
        frees = window.take(now)
        if frees:
            assert frees > now
        else:
            admitted.append(now)
    for at in admitted:
        assert sum(at <= other < at + SECOND for other in admitted) <= limit


@given(st.lists(st.integers(0, 300_000), min_size=1, max_size=60), st.integers(1, 50))
@settings(deadline=None)
def test_a_coarse_window_gives_places_back_at_most_a_thousandth_late(gaps: list[int], limit: int) -> None:
    now, times = START, list[int]()
    window = coarse(limit)
    late = -(-SECOND // 1024) * 1025 - SECOND  # a bucket's width, and what rounding it up adds
    for gap in gaps:
        now += gap
        frees = window.take(now)
        if frees:
            held = [at for at in times if at > now - SECOND - late]
            assert len(held) >= limit
            assert frees <= held[len(held) - limit] + SECOND + late
        else:
            times.append(now)


def test_a_huge_limit_takes_bounded_memory() -> None:
    counts = Counts()
    allowance = Limits(counts).of("app", "service", PlanLimits(per_minute=3_000_000), KOLKATA, START)
    for n in range(50_000):
        assert allowance.admit(START + n * 600) is None
    assert allowance.admitted("minute", START + 50_000 * 600) == 50_000
    [key] = counts.keys()
    cells = counts.find(key)
    assert cells is not None and len(cells) < 1200


@given(st.lists(st.tuples(st.integers(0, 3 * 3600 * SECOND), st.integers(1, 9)), max_size=30))
@settings(deadline=None, max_examples=50)
def test_a_history_survives_its_being_carried_over(past: list[tuple[int, int]]) -> None:
    limits = PlanLimits(per_minute=50, per_hour=50_000, per_day=100)
    allowance = allowance_of(limits)
    allowance.restore(START, 0, 0, [sorted((START - ago, count) for ago, count in past)])
    again = allowance_of(limits)
    again.restore(START, 0, 0, [history(allowance._cells)])
    for window in ("minute", "hour", "day"):
        assert again.admitted(window, START) >= allowance.admitted(window, START)
    assert again.admitted("day", START) == allowance.admitted("day", START)


def test_several_accounts_of_the_same_admissions_become_one() -> None:
    minute, hour, day = [(50, 2), (55, 1)], [(45, 4), (60, 3)], [(40, 3), (60, 9)]
    assert merge([minute, hour, day]) == [(40, 3), (45, 2), (45, 4), (50, 2), (55, 1)]
    assert merge([[], hour]) == hour
    assert merge([]) == []


# --- rates and burst -----------------------------------------------------------------------------


def test_sixty_a_minute_admits_the_sixty_first_exactly_one_minute_after_the_first() -> None:
    allowance = allowance_of(PlanLimits(per_minute=60))
    assert [allowance.admit(START + n) for n in range(60)] == [None] * 60
    assert allowance.admit(START + 60 * SECOND - 1) == Refusal("minute", 60, 0, 1)
    assert allowance.admit(START + 60 * SECOND) is None
    assert allowance.admit(START + 60 * SECOND) is not None


def test_a_burst_passes_at_once_and_then_the_pace_of_the_minute_holds() -> None:
    allowance = allowance_of(PlanLimits(per_minute=60, burst=5))
    assert [allowance.admit(START) is None for _ in range(7)] == [True] * 5 + [False] * 2
    assert allowance.admit(START) == Refusal("burst", 5, 0, 1)
    assert allowance.admit(START + SECOND) is None
    assert allowance.admit(START + SECOND) is not None
    assert '"burst";q=5;w=5, "minute";q=60;w=60' in allowance.policy_line.decode()


def test_a_refused_call_takes_nothing_from_any_other_limit() -> None:
    allowance = allowance_of(PlanLimits(per_minute=5, per_hour=5, quota_per_month=2))
    assert allowance.admit(START) is None
    assert allowance.admit(START) is None
    for _ in range(10):
        assert allowance.admit(START) == Refusal("month", 2, 0, 1 * 24 * 3600 + 12 * 3600)
    allowance.change(PlanLimits(per_minute=5, per_hour=5, quota_per_month=100), KOLKATA, START)
    assert [allowance.admit(START) is None for _ in range(4)] == [True, True, True, False]


def test_the_window_that_frees_last_is_the_one_that_is_named() -> None:
    allowance = allowance_of(PlanLimits(per_minute=1, per_hour=1))
    assert allowance.admit(START) is None
    assert allowance.admit(START + SECOND) == Refusal("hour", 1, 0, 3599)


def test_a_changed_plan_keeps_what_was_used_in_both_directions() -> None:
    allowance = allowance_of(PlanLimits(per_minute=3))
    for _ in range(3):
        allowance.admit(START)
    allowance.change(PlanLimits(per_minute=3_000_000), KOLKATA, START)
    assert allowance.admitted("minute", START) == 3
    assert allowance.admit(START) is None
    allowance.change(PlanLimits(per_minute=4, per_hour=4), KOLKATA, START)
    refusal = allowance.admit(START + SECOND)
    assert refusal is not None and refusal.limit == "hour"
    allowance.change(PlanLimits(per_minute=4, per_hour=5), KOLKATA, START)
    refusal = allowance.admit(START + SECOND)
    assert refusal is not None and refusal.limit == "minute"
    assert allowance.admit(START + 62 * SECOND) is None


def test_a_lowered_limit_says_when_enough_has_left() -> None:
    allowance = allowance_of(PlanLimits(per_minute=10))
    for second in range(10):
        allowance.admit(START + second * SECOND)
    allowance.change(PlanLimits(per_minute=2), KOLKATA, START)
    assert allowance.admit(START + 9 * SECOND) == Refusal("minute", 2, 0, 59)


def test_a_providers_pace_is_kept_across_all_its_callers() -> None:
    limits = Limits()
    callers = [limits.of(f"app-{n}", "service", PlanLimits(per_minute=60), KOLKATA, START, 0, 5) for n in range(3)]
    assert [callers[n % 3].admit(START) is None for n in range(6)] == [True] * 5 + [False]
    assert callers[0].admit(START + SECOND - 1) == Refusal("provider", 5, 0, 1)
    assert callers[0].admitted("minute", START + SECOND - 1) == 2, "the refused call was counted"
    assert callers[0].admit(START + SECOND) is None


# --- quotas --------------------------------------------------------------------------------------


def test_the_quota_begins_anew_at_midnight_of_the_organisations_zone() -> None:
    allowance = allowance_of(PlanLimits(quota_per_month=1))
    midnight = int(datetime(2026, 12, 1, tzinfo=ZoneInfo(KOLKATA)).timestamp()) * SECOND
    assert allowance.admit(START) is None
    assert allowance.admit(midnight - 1) is not None
    november = allowance.period
    assert allowance.admit(midnight) is None
    allowance.settle(november, MICRO, 0)  # a call of November that ends now gives December nothing back
    assert allowance.admit(midnight) is not None
    assert '"month";q=1;w=2678400' in allowance.policy_line.decode()


def test_a_quota_by_the_day_ends_with_a_day_of_twenty_three_hours() -> None:
    zone = ZoneInfo("Europe/Berlin")
    midnight, now, following = (
        int(datetime(2026, 3, day, hour, tzinfo=zone).timestamp()) * SECOND
        for day, hour in ((29, 0), (29, 12), (30, 0))
    )
    assert following - midnight == 23 * 3600 * SECOND
    allowance = allowance_of(PlanLimits(quota_per_day=1), midnight, "Europe/Berlin")
    assert allowance.admit(now) is None
    assert allowance.admit(now) == Refusal("day-quota", 1, 0, 12 * 3600)
    assert allowance.policy_line == b'RateLimit-Policy: "day-quota";q=1;w=82800\r\n'
    assert allowance.admit(following - 1) is not None
    assert allowance.admit(following) is None


def test_an_anniversary_of_the_31st_never_drifts() -> None:
    started = int(datetime(2026, 10, 31, 15, tzinfo=ZoneInfo(KOLKATA)).timestamp()) * SECOND
    allowance = allowance_of(PlanLimits(quota_per_month=1, quota_reset="anniversary"), started, KOLKATA, started)
    assert allowance.admit(started) is None
    begins = [(2026, 11, 30), (2026, 12, 31), (2027, 1, 31), (2027, 2, 28), (2027, 3, 31), (2028, 2, 29), (2028, 3, 31)]
    for day in begins:
        midnight = int(datetime(*day, tzinfo=ZoneInfo(KOLKATA)).timestamp()) * SECOND
        if day != (2028, 2, 29):
            refusal = allowance.admit(midnight - SECOND)
            assert refusal is not None and refusal.reset_seconds == 1, day
        assert allowance.admit(midnight) is None, day


def test_a_released_reservation_can_be_used_again() -> None:
    allowance = allowance_of(PlanLimits(quota_per_month=1))
    assert allowance.admit(START) is None
    allowance.settle(allowance.period, MICRO, 0)
    assert allowance.admit(START) is None


def test_units_are_reserved_and_settled_in_millionths() -> None:
    allowance = allowance_of(PlanLimits(quota_per_month=100, quota_unit="tokens"))
    assert allowance.admit(START, 60 * MICRO) is None
    refusal = allowance.admit(START, 60 * MICRO)
    assert refusal is not None and (refusal.limit, refusal.remaining, refusal.unit) == ("month", 40, "tokens")
    allowance.settle(allowance.period, 60 * MICRO, 40 * MICRO + 1)
    assert allowance.admit(START, 60 * MICRO) is not None
    assert allowance.admit(START, 60 * MICRO - 1) is None


def test_overage_lets_calls_pass_and_says_that_nothing_remains() -> None:
    allowance = allowance_of(PlanLimits(quota_per_month=2, overage=True))
    assert [allowance.admit(START) for _ in range(4)] == [None] * 4
    standing = allowance.standing(START)
    assert standing is not None and (standing.limit, standing.quota, standing.remaining) == ("month", 2, 0)
    for _ in range(4):
        allowance.settle(allowance.period, MICRO, MICRO)
    assert allowance.used == 4


def test_going_to_another_plan_and_back_gives_no_fresh_quota() -> None:
    monthly, tokens = PlanLimits(quota_per_month=1), PlanLimits(quota_per_month=1, quota_unit="tokens")
    anniversary = PlanLimits(quota_per_month=1, quota_reset="anniversary")
    allowance = allowance_of(monthly)
    assert allowance.admit(START) is None
    allowance.settle(allowance.period, MICRO, MICRO)
    for other in (tokens, anniversary, PlanLimits(), PlanLimits(per_minute=60)):
        allowance.change(other, KOLKATA, START + SECOND, START)
        allowance.change(monthly, KOLKATA, START + SECOND, START)
        refusal = allowance.admit(START + SECOND)
        assert refusal is not None and refusal.limit == "month", other


def test_a_call_that_was_in_flight_while_the_unit_changed_stays_counted_in_the_old_one() -> None:
    monthly, tokens = PlanLimits(quota_per_month=1), PlanLimits(quota_per_month=1, quota_unit="tokens")
    allowance = allowance_of(monthly)
    assert allowance.admit(START) is None
    period = allowance.period
    allowance.change(tokens, KOLKATA, START)
    allowance.settle(period, MICRO, 0)
    assert (allowance.in_flight, allowance.used, allowance.reserved) == (0, 0, 0)
    allowance.change(monthly, KOLKATA, START)
    assert allowance.admit(START) is not None


# --- what is said --------------------------------------------------------------------------------


def test_the_headers_name_the_tightest_limit() -> None:
    allowance = allowance_of(PlanLimits(per_minute=60, per_hour=1000, quota_per_month=5000))
    assert allowance.admit(START) is None
    assert allowance.headers(START + 5 * SECOND).decode().split("\r\n") == [
        'RateLimit-Policy: "minute";q=60;w=60, "hour";q=1000;w=3600, "month";q=5000;w=2592000',
        'RateLimit: "minute";r=59;t=55',
        "X-RateLimit-Limit: 60",
        "X-RateLimit-Remaining: 59",
        "X-RateLimit-Reset: 55",
        "",
    ]


def test_a_quota_in_another_unit_has_a_line_of_its_own() -> None:
    allowance = allowance_of(PlanLimits(per_minute=60, quota_per_month=5000, quota_unit="characters"))
    assert allowance.admit(START, 120 * MICRO) is None
    lines = allowance.headers(START).decode().split("\r\n")
    assert lines[0].endswith('"month";q=5000;w=2592000;qu="characters"')
    assert lines[1] == 'RateLimit: "minute";r=59;t=60'
    assert lines[-2] == 'RateLimit: "month";r=4880;t=129600'


def test_an_unlimited_plan_has_no_standing_and_admits() -> None:
    allowance = allowance_of(PlanLimits())
    assert allowance.admit(START) is None
    assert allowance.standing(START) is None
    assert allowance.headers(START) == b"" == allowance.policy_line


# --- before a restart ----------------------------------------------------------------------------


def test_what_was_used_before_a_restart_counts() -> None:
    limits, plan = Limits(), PlanLimits(per_minute=5, quota_per_month=9)
    limits.restore("app", "service", plan, KOLKATA, START, 0, 7 * MICRO, 0, [[(START - 30 * SECOND, 4)]])
    allowance = limits.of("app", "service", plan, KOLKATA, START)
    assert limits.of("app", "service", plan, KOLKATA, START) is allowance
    assert allowance.admit(START) is None
    refusal = allowance.admit(START)
    assert refusal is not None and refusal.limit == "minute"
    assert allowance.admit(START + 31 * SECOND) is None
    refusal = allowance.admit(START + 31 * SECOND)
    assert refusal is not None and refusal.limit == "month"


def test_a_call_can_reserve_more_within_both_quotas() -> None:
    plan = PlanLimits(quota_per_month=100, quota_per_day=60, quota_unit="tokens")
    allowance = allowance_of(plan)
    assert allowance.admit(START, 10 * MICRO) is None
    assert allowance.extend(allowance.period, 40 * MICRO) is None
    assert allowance.reserved == 50
    refusal = allowance.extend(allowance.period, 20 * MICRO)
    assert refusal is not None and (refusal.limit, refusal.remaining) == ("day-quota", 10)
    assert allowance.reserved == 50
    allowance.settle(allowance.period, 50 * MICRO, 30 * MICRO)
    assert (allowance.used, allowance.reserved) == (30, 0)


def test_a_call_that_outlived_its_period_reserves_nothing_in_the_next() -> None:
    allowance = allowance_of(PlanLimits(quota_per_month=100, quota_unit="tokens"))
    assert allowance.admit(START, 10 * MICRO) is None
    period = allowance.period
    assert allowance.admit(START + 40 * DAY, 10 * MICRO) is None
    assert allowance.extend(period, 1000 * MICRO) is None
    assert allowance.reserved == 10
