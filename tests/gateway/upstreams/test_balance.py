"""Health of endpoints: who is ejected, after how many calls, for how long."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from haat.gateway.clock import SECOND
from haat.gateway.upstreams.balance import EJECT_US, FAILED_OF_SAMPLE, LONGEST_EJECTION_US, SAMPLE, Health


def feed(health: Health, good: int, bad: int, now: int = 0) -> bool:
    """Let calls go well, then badly; return whether one of them ejected the endpoint."""
    for _ in range(good):
        health.succeeded()
    return sum(health.failed(now) for _ in range(bad)) > 0


def test_an_endpoint_that_fails_a_fifth_of_a_hundred_calls_is_ejected() -> None:
    health = Health()
    assert not feed(health, 90, 19)
    assert health.failed(7)
    assert health.ejected_until == 7 + EJECT_US


def test_fewer_than_a_hundred_calls_eject_nobody() -> None:
    assert not feed(Health(), 0, SAMPLE - 1)


def test_failures_that_lie_more_than_a_hundred_calls_back_count_no_more() -> None:
    health = Health()
    feed(health, 80, FAILED_OF_SAMPLE - 1)
    assert not feed(health, SAMPLE, FAILED_OF_SAMPLE - 1)


def test_an_ejected_endpoint_is_not_ejected_again_by_calls_that_were_on_their_way() -> None:
    health = Health()
    feed(health, 80, FAILED_OF_SAMPLE)
    until = health.ejected_until
    assert not feed(health, 0, 50, now=SECOND)
    assert health.ejected_until == until


def test_each_further_ejection_lasts_longer_up_to_five_minutes_and_a_clean_sample_forgives() -> None:
    health, lasted = Health(), []
    for _ in range(12):
        feed(health, 80, FAILED_OF_SAMPLE)
        lasted.append(health.ejected_until)
        health.restore()
    assert lasted[:3] == [EJECT_US, 2 * EJECT_US, 3 * EJECT_US]
    assert lasted[-1] == LONGEST_EJECTION_US
    feed(health, SAMPLE, 0)
    feed(health, 80, FAILED_OF_SAMPLE)
    assert health.ejected_until == EJECT_US


def test_after_its_return_an_endpoint_is_judged_by_new_calls_only() -> None:
    health = Health()
    feed(health, 80, FAILED_OF_SAMPLE)
    health.restore()
    assert (health.ejected_until, health.failures) == (0, 0)
    assert not feed(health, 0, SAMPLE - 1)


@given(st.lists(st.booleans(), max_size=400))
def test_the_window_holds_exactly_the_last_hundred_calls(outcomes: list[bool]) -> None:
    health, last = Health(), deque[bool](maxlen=SAMPLE)
    for number, bad in enumerate(outcomes, 1):
        last.append(bad)
        if bad:
            ejected = health.failed(0)
            assert ejected == (number >= SAMPLE and sum(last) >= FAILED_OF_SAMPLE)
            if ejected:
                health.restore()
                return
        else:
            health.succeeded()
        assert health.failures == sum(last)
