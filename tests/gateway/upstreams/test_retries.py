"""How often and when a call may go again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haat.gateway.clock import SECOND
from haat.gateway.upstreams.retries import BASE_US, LONGEST_US, MOST_SAVED, PER_SECOND, RetryBudget, wait


def drained(now: int = 0, calls: int = 0) -> RetryBudget:
    budget = RetryBudget(now, calls)
    while budget.spend(now, calls):
        pass
    return budget


def test_a_service_has_three_retries_a_second_however_seldom_it_is_called() -> None:
    budget = drained()
    assert [budget.spend(SECOND, 0) for _ in range(PER_SECOND + 1)] == [True] * PER_SECOND + [False]


def test_ten_calls_pay_for_one_retry() -> None:
    budget = drained()
    assert [budget.spend(0, calls) for calls in (9, 10, 10, 19, 20)] == [False, True, False, False, True]


def test_a_long_quiet_time_saves_up_no_storm() -> None:
    budget = drained()
    assert budget.left(3600 * SECOND, 1_000_000) == MOST_SAVED


@given(st.lists(st.tuples(st.integers(0, SECOND), st.integers(0, 50), st.integers(0, 20)), max_size=60))
def test_the_budget_never_gives_more_than_its_share_and_its_rate(history: list[tuple[int, int, int]]) -> None:
    budget, now, calls = drained(), 0, 0
    spent = 0
    for passed, further, wanted in history:
        now, calls = now + passed, calls + further
        spent += sum(budget.spend(now, calls) for _ in range(wanted))
        assert spent <= now * PER_SECOND / SECOND + calls / 10 + 1e-6
    assert budget.spent - spent >= 0


@given(st.integers(1, 10), st.integers(0, 60 * SECOND), st.integers(0, 30 * SECOND), st.floats(0, 1, exclude_max=True))
def test_a_wait_ends_before_the_calls_deadline_and_not_before_the_provider_allows(
    attempts: int, left: int, asked: int, draw: float
) -> None:
    pause = wait(attempts, left, asked, draw)
    if pause is None:
        assert left <= max(asked, LONGEST_US)
    else:
        assert asked <= pause < left
        assert pause <= max(asked, min(LONGEST_US, BASE_US * 2 ** (attempts - 1)))


def test_the_room_for_jitter_doubles_with_each_attempt_up_to_a_second() -> None:
    almost = 0.999999
    assert [round((wait(n, 60 * SECOND, 0, almost) or 0) / 1000) for n in range(1, 8)] == [
        50,
        100,
        200,
        400,
        800,
        1000,
        1000,
    ]
