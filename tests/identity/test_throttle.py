"""Throttles: how many tries, how long the wait, how much memory."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.identity import throttle
from haat.identity.throttle import Guards, Throttle
from haat.kernel.clock import SetClock
from haat.kernel.errors import RateLimited

MINUTE = timedelta(minutes=1)


def _tries(throttled: Throttle, key: str, most: int) -> int:
    """Return how many of ``most`` tries pass."""
    passed = 0
    for _ in range(most):
        try:
            throttled.take(key)
            passed += 1
        except RateLimited:
            pass
    return passed


def test_a_burst_passes_and_then_one_for_each_refill(clock: SetClock) -> None:
    throttled = Throttle(clock, burst=3, refill=MINUTE)
    assert _tries(throttled, "a", 10) == 3
    clock.advance(minutes=2)
    assert _tries(throttled, "a", 10) == 2
    clock.advance(hours=5)
    assert _tries(throttled, "a", 10) == 3


@given(st.lists(st.integers(0, 90), max_size=60))
def test_never_more_pass_than_the_burst_and_what_was_refilled(steps: list[int]) -> None:
    clock = SetClock(datetime.fromisoformat("2026-11-21T06:30:00+00:00"))
    throttled, began, passed = Throttle(clock, burst=3, refill=MINUTE), clock.now(), 0
    for step in steps:
        clock.advance(seconds=step)
        passed += _tries(throttled, "a", 2)
        assert passed <= 3 + (clock.now() - began) / MINUTE


def test_whoever_waits_as_long_as_told_passes(clock: SetClock) -> None:
    throttled = Throttle(clock, burst=1, refill=timedelta(seconds=7.5))
    throttled.take("a")
    with pytest.raises(RateLimited) as refusal:
        throttled.take("a")
    clock.advance(seconds=refusal.value.extensions["retry_after"])
    throttled.take("a")


def test_keys_do_not_wait_for_each_other(clock: SetClock) -> None:
    throttled = Throttle(clock, burst=1, refill=MINUTE)
    throttled.take("a")
    throttled.take("b")


def test_memory_is_bounded_and_the_latest_tries_are_remembered(
    clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "_MOST_KEYS", 100)
    throttled = Throttle(clock, burst=1, refill=MINUTE)
    for number in range(1000):
        throttled.take(str(number))
    assert len(throttled._clear_at) <= 100
    assert _tries(throttled, "999", 1) == 0


@pytest.mark.parametrize("address", [None, "127.0.0.1", "10.0.0.7", "::1", "testclient", ""])
def test_an_address_that_many_may_stand_behind_is_not_counted(clock: SetClock, address: str | None) -> None:
    guards = Guards(clock)
    for number in range(200):
        guards.sign_up(address)
        guards.sign_in(f"user{number}@example.in", address)


@pytest.mark.parametrize("form", ["2606:4700::{:x}", "2606:4700::{:x}:0:0:1"])
def test_of_ipv6_a_network_counts_and_not_each_of_its_addresses(clock: SetClock, form: str) -> None:
    guards = Guards(clock)
    with pytest.raises(RateLimited):
        for number in range(1, 62):
            guards.sign_in(f"user{number}@example.in", form.format(number))
    guards.sign_in("another@example.in", "2606:4700:0:1::1")


def test_an_ipv4_address_written_as_ipv6_is_the_same_one(clock: SetClock) -> None:
    guards = Guards(clock)
    for number in range(60):
        guards.sign_in(f"user{number}@example.in", "8.8.8.8")
    with pytest.raises(RateLimited):
        guards.sign_in("another@example.in", "::ffff:8.8.8.8")


def test_sign_in_holds_per_account_whatever_the_address_and_per_address_whatever_the_account(clock: SetClock) -> None:
    guards = Guards(clock)
    for number in range(10):
        guards.sign_in("asha@example.in", f"8.8.8.{number}")
    with pytest.raises(RateLimited):
        guards.sign_in("asha@example.in", "8.8.4.4")
    for number in range(60):
        guards.sign_in(f"user{number}@example.in", "1.1.1.1")
    with pytest.raises(RateLimited):
        guards.sign_in("one.more@example.in", "1.1.1.1")
