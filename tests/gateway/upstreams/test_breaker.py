"""The circuit breaker, by itself and against a plain reference over random histories."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haat.gateway.clock import SECOND
from haat.gateway.upstreams.breaker import LONGEST_US, OPEN_US, THRESHOLD, Breaker


def opened(now: int = 0) -> Breaker:
    breaker = Breaker()
    for _ in range(THRESHOLD):
        breaker.failed(now, None)
    return breaker


def test_it_opens_at_the_fifth_failure_in_a_row_and_not_before() -> None:
    breaker = Breaker()
    assert [breaker.failed(0, None) for _ in range(5)] == [False] * 4 + [True]
    assert breaker.state(0) == "open"


def test_a_success_between_failures_begins_the_count_anew() -> None:
    breaker = Breaker()
    for _ in range(THRESHOLD - 1):
        breaker.failed(0, None)
    breaker.succeeded(None)
    assert [breaker.failed(0, None) for _ in range(THRESHOLD - 1)] == [False] * 4


def test_open_it_refuses_for_sixty_seconds_and_then_lets_one_probe_pass() -> None:
    breaker = opened(now=1000)
    assert not breaker.admit(1000 + 60 * SECOND - 1, "a")
    assert breaker.admit(1000 + 60 * SECOND, "a")
    assert not breaker.admit(1000 + 61 * SECOND, "b")
    assert breaker.state(1000 + 61 * SECOND) == "half_open"


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = opened()
    breaker.admit(OPEN_US, "probe")
    assert breaker.succeeded("probe")
    assert (breaker.state(OPEN_US), breaker.failures, breaker.admit(OPEN_US, "next")) == ("closed", 0, True)


def test_each_failed_probe_doubles_the_wait_up_to_ten_minutes() -> None:
    breaker, now, waits = opened(), 0, []
    for _ in range(6):
        waits.append(breaker.open_until - now)
        now = breaker.open_until
        assert breaker.admit(now, now)
        assert breaker.failed(now, now)
    assert waits == [60 * SECOND, 120 * SECOND, 240 * SECOND, 480 * SECOND, 600 * SECOND, 600 * SECOND]


def test_after_it_has_closed_the_wait_is_sixty_seconds_again() -> None:
    breaker = opened()
    breaker.admit(OPEN_US, "a")
    breaker.failed(OPEN_US, "a")
    breaker.admit(breaker.open_until, "b")
    breaker.succeeded("b")
    for _ in range(THRESHOLD):
        breaker.failed(0, None)
    assert breaker.open_until == OPEN_US


def test_calls_that_began_before_it_opened_say_nothing_about_the_endpoint_now() -> None:
    breaker = opened()
    until = breaker.open_until
    assert not breaker.failed(SECOND, "old") and not breaker.succeeded("old")
    breaker.admit(until, "probe")
    assert not breaker.succeeded("old")
    assert breaker.state(until) == "half_open"


def test_a_probe_that_ends_without_a_verdict_makes_room_for_another() -> None:
    breaker = opened()
    breaker.admit(OPEN_US, "a")
    breaker.released("b")
    assert not breaker.ready(OPEN_US)
    breaker.released("a")
    assert breaker.admit(OPEN_US, "c")


def test_it_says_in_whole_seconds_when_to_come_back() -> None:
    breaker = opened()
    assert [breaker.retry_after(now) for now in (0, 1, OPEN_US - 1, OPEN_US, 2 * OPEN_US)] == [60, 60, 1, 1, 1]


class Reference:
    """The same by a table of all calls in flight, without any thought for cost."""

    def __init__(self) -> None:
        self.state, self.row, self.until, self.wait = "closed", 0, 0, OPEN_US
        self.probe: int | None = None

    def admit(self, now: int, call: int) -> bool:
        if self.state == "open" and now >= self.until:
            self.state, self.probe = "half_open", None
        if self.state == "closed":
            return True
        if self.state == "half_open" and self.probe is None:
            self.probe = call
            return True
        return False

    def end(self, now: int, call: int, how: str) -> None:
        if self.state == "closed":
            self.row = {"ok": 0, "bad": self.row + 1, "left": self.row}[how]
            if self.row == THRESHOLD:
                self.state, self.until, self.wait = "open", now + OPEN_US, OPEN_US
        elif self.state == "half_open" and self.probe == call:
            self.probe = None
            if how == "ok":
                self.state, self.row, self.wait = "closed", 0, OPEN_US
            elif how == "bad":
                self.wait = min(LONGEST_US, self.wait * 2)
                self.state, self.until = "open", now + self.wait


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "ok", "bad", "bad", "left"]),
            st.integers(min_value=0, max_value=9),
            st.sampled_from([0, 1, SECOND, 30 * SECOND, OPEN_US, LONGEST_US]),
        ),
        max_size=120,
    )
)
def test_it_behaves_as_the_reference_does_whatever_happens(history: list[tuple[str, int, int]]) -> None:
    breaker, reference = Breaker(), Reference()
    now, number = 0, 0
    in_flight: list[int] = []
    for what, which, passed in history:
        now += passed
        if what == "begin":
            number += 1
            assert breaker.ready(now) == breaker.admit(now, number) == reference.admit(now, number)
            if breaker.state(now) != "open" and (breaker.state(now) == "closed" or reference.probe == number):
                in_flight.append(number)
        elif in_flight:
            call = in_flight.pop(which % len(in_flight))
            reference.end(now, call, what)
            match what:
                case "ok":
                    breaker.succeeded(call)
                case "bad":
                    breaker.failed(now, call)
                case _:
                    breaker.released(call)
        if reference.state == "open" and now >= reference.until:
            reference.state, reference.probe = "half_open", None
        assert breaker.state(now) == reference.state
