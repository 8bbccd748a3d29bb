"""How many workers a model is given, over the shapes that load takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.models.autoscaling import Policy, Wish, decide
from haat.models.engines.port import State, Status
from haat.models.manifest import Batching, Manifest, Workers

Shape = Callable[[float], float]
"""Inputs that come in a second, at a time."""
TICK = 0.1


def step(low: float, high: float, at: float, until: float = math.inf) -> Shape:
    return lambda now: high if at <= now < until else low


def ramp(most: float, over: float) -> Shape:
    return lambda now: most * min(1.0, now / over)


def spikes(low: float, high: float, every: float, length: float) -> Shape:
    return lambda now: high if now % every < length else low


def wave(low: float, high: float, period: float) -> Shape:
    return lambda now: low + (high - low) * (1 - math.cos(2 * math.pi * now / period)) / 2


@dataclass
class Simulation:
    """A model whose workers each take a batch of `batch` inputs in ``seconds``, and ``loading`` to start.

    Its queue is bounded as that of an engine, at ten batches a worker. Once a second the policy looks at it.
    """

    policy: Policy
    seconds: float = 0.1
    loading: float = 2.0
    wish: Wish = field(default_factory=lambda: Wish(2))
    queued: float = 0.0
    refused: float = 0.0
    wanted: list[int] = field(default_factory=list)
    """The number of workers wanted, second by second."""

    def run(self, shape: Shape, length: float) -> Simulation:
        running, arriving, now = self.wish.workers, list[float](), 0.0
        busy = 0.0
        for tick in range(round(length / TICK)):
            now = tick * TICK
            running += sum(1 for at in arriving if at <= now)
            arriving = [at for at in arriving if at > now]
            capacity = running * self.policy.batch / self.seconds * TICK
            self.queued += shape(now) * TICK
            done = min(self.queued, capacity)
            self.queued -= done
            bound = 10 * self.policy.batch * running
            self.refused += max(0.0, self.queued - bound)
            self.queued = min(self.queued, bound)
            share = done / capacity
            busy += (share - busy) * TICK / 2  # a mean over about two seconds
            if tick % round(1 / TICK) == 0:
                waited = self.queued / (running * self.policy.batch) * self.seconds
                load = State(
                    Status.BUSY,
                    running,
                    round(self.queued),
                    round(share * running * self.policy.batch),
                    latency_p95=self.seconds + waited,
                    utilisation=busy,
                )
                self.wish = decide(self.policy, load, now, self.wish)
                self.wanted.append(self.wish.workers)
                coming = running + len(arriving)
                if self.wish.workers > coming:
                    arriving += [now + self.loading] * (self.wish.workers - coming)
                elif self.wish.workers < coming:
                    del arriving[max(0, self.wish.workers - running) :]
                    running = min(running, self.wish.workers)
        return self

    @property
    def turns(self) -> int:
        """How often growing became shrinking or shrinking growing."""
        moves = [b - a for a, b in itertools.pairwise(self.wanted) if a != b]
        return sum(1 for one, other in itertools.pairwise(moves) if (one > 0) != (other > 0))


POLICY = Policy()
ONE = 320.0
"""Inputs a second that one worker of the simulation can do."""


def state(queued: int = 0, workers: int = 4, in_flight: int = 0, latency: float = 0.0, busy: float = 0.0) -> State:
    return State(Status.BUSY, workers, queued, in_flight, latency_p95=latency, utilisation=busy)


def settled(load: State, policy: Policy = POLICY, seconds: int = 3, workers: int | None = None) -> Wish:
    """Return the wish after a load has lasted."""
    wish = Wish(load.workers if workers is None else workers)
    for now in range(seconds):
        wish = decide(policy, load, float(now), wish)
    return wish


def test_more_than_150_waiting_ask_for_two_more_workers() -> None:
    assert settled(state(queued=150)).workers == 4
    wish = settled(state(queued=151))
    assert (wish.workers, wish.reason) == (6, "queue")


def test_fewer_than_50_waiting_let_one_worker_go() -> None:
    wish = settled(state(queued=49), seconds=31)
    assert (wish.workers, wish.reason) == (3, "calm")
    assert settled(state(queued=50), seconds=31).workers == 4


def test_there_are_never_more_than_20_workers_nor_fewer_than_two() -> None:
    wish = Wish(18)
    for now in range(600):
        wish = decide(POLICY, state(queued=3000, workers=wish.workers), float(now), wish)
        assert wish.workers <= 20
    for now in range(600, 3000):
        wish = decide(POLICY, state(workers=wish.workers), float(now), wish)
        assert wish.workers >= 2
    assert wish.workers == 2


@pytest.mark.parametrize("batch", [1, 2, 8, 16, 32, 64, 512])
@pytest.mark.parametrize("workers", [1, 2, 9, 20])
def test_the_threshold_lies_well_below_the_bound_of_the_queue(batch: int, workers: int) -> None:
    policy = Policy(batch=batch)
    bound = 10 * batch  # even if it were the same for any number of workers
    assert policy.few_waiting(workers) < policy.many_waiting(workers) <= bound
    assert policy.many_waiting(1) < bound / 2


def test_a_wide_model_has_half_a_batch_waiting_for_each_worker_before_that_is_much() -> None:
    assert [Policy().many_waiting(workers) for workers in (1, 9, 10, 20)] == [150, 150, 160, 320]
    assert Policy(batch=8).many_waiting(2) == 37.5


def test_a_latency_above_the_bound_asks_for_one_worker_if_something_waits() -> None:
    policy = Policy(latency=0.5)
    wish = settled(state(queued=1, latency=0.6), policy)
    assert (wish.workers, wish.reason) == (5, "latency")
    assert settled(state(queued=0, latency=0.6), policy).workers == 4  # more workers don't make a slow model faster
    assert settled(state(queued=1, latency=0.5), policy).workers == 4


def test_workers_without_a_pause_ask_for_another_if_the_queue_is_not_short() -> None:
    wish = settled(state(queued=60, busy=0.9))
    assert (wish.workers, wish.reason) == (5, "utilisation")
    assert settled(state(queued=40, busy=1.0)).workers == 4


def test_a_worker_stays_while_the_others_could_not_do_its_work() -> None:
    assert settled(state(busy=0.6), seconds=100).workers == 4  # 2.4 at work: 0.8 of three
    assert settled(state(busy=0.5), seconds=32).workers == 3
    assert settled(state(in_flight=100), seconds=100).workers == 4  # of the 96 places of three


def test_what_lasts_less_than_two_seconds_changes_nothing() -> None:
    wish = decide(POLICY, state(queued=300), 0.0, Wish(4))
    wish = decide(POLICY, state(queued=300), 1.0, wish)
    wish = decide(POLICY, state(queued=0), 2.0, wish)
    wish = decide(POLICY, state(queued=300), 3.0, wish)
    assert wish.workers == 4


def test_workers_that_are_still_loading_are_waited_for() -> None:
    wish = settled(state(queued=300))
    assert wish.workers == 6
    loading = state(queued=300, workers=4)
    for now in range(3, 60):
        wish = decide(POLICY, loading, float(now), wish)
        assert wish.workers == 6
    assert decide(POLICY, loading, 63.0, wish).workers == 8  # a minute is enough: they may never come


def test_a_number_outside_the_bounds_is_put_right_at_once() -> None:
    assert decide(POLICY, state(), 0.0, Wish(1)).workers == 2
    assert decide(POLICY, state(), 0.0, Wish(30)).workers == 20


def test_the_policy_of_a_model_has_its_bounds_and_its_batch() -> None:
    manifest = Manifest("m", "python", "m:M", batching=Batching(max_items=8), workers=Workers(least=1, most=3))
    policy = Policy.of(manifest)
    assert (policy.least, policy.most, policy.batch, policy.latency) == (1, 3, 8, 7.5)


# --- over time --------------------------------------------------------------------------------


def test_a_step_is_followed_within_half_a_minute_and_without_turning_back() -> None:
    seen = Simulation(POLICY).run(step(100, 12 * ONE, at=60), 400)
    assert max(seen.wanted[:60]) == 2
    first = next(second for second, wanted in enumerate(seen.wanted) if wanted > 2)
    enough = next(second for second, wanted in enumerate(seen.wanted) if wanted >= 12)
    assert first <= 60 + 5
    assert enough <= 60 + 30
    assert seen.turns == 0
    assert seen.wanted[-1] >= 12
    assert seen.queued < POLICY.few_waiting(12)


def test_after_a_step_down_they_go_one_by_one() -> None:
    seen = Simulation(POLICY).run(step(100, 8 * ONE, at=0, until=120), 600)
    assert seen.turns == 1
    assert seen.wanted[-1] == 2
    falls = [a - b for a, b in itertools.pairwise(seen.wanted) if b < a]
    assert set(falls) == {1}


def test_a_ramp_is_followed_closely() -> None:
    seen = Simulation(POLICY).run(ramp(16 * ONE, over=600), 900)
    assert seen.turns == 0
    for second in range(120, 900):
        needed = 16 * min(1.0, second / 600)
        assert needed - 3 <= seen.wanted[second] <= needed + 6
    assert seen.refused == 0


def test_a_short_spike_brings_no_worker() -> None:
    seen = Simulation(POLICY).run(step(200, 3 * ONE, at=60, until=61), 120)
    assert set(seen.wanted) == {2}


def test_a_day_has_its_workers_rise_once_and_fall_once() -> None:
    seen = Simulation(POLICY).run(wave(50, 10 * ONE, period=3600), 3600)
    assert seen.turns == 1
    assert 10 <= max(seen.wanted) <= 13
    assert seen.wanted[-1] <= 3
    assert seen.refused == 0


def test_load_that_flaps_is_served_by_as_many_as_its_peaks_need() -> None:
    seen = Simulation(POLICY).run(spikes(100, 5 * ONE, every=20, length=10), 1200)
    late = replace(seen, wanted=seen.wanted[200:])
    assert late.turns == 0
    assert min(late.wanted) >= 4


@pytest.mark.parametrize("needed", [0.1, 0.9, 1.5, 2.0, 3.3, 5.0, 7.7, 11.0, 15.2, 19.0, 30.0])
@pytest.mark.parametrize("start", [2, 7, 20])
def test_a_steady_load_comes_to_rest(needed: float, start: int) -> None:
    seen = Simulation(POLICY, wish=Wish(start)).run(lambda now: needed * ONE, 1200)
    assert seen.turns <= 1
    assert len(set(seen.wanted[-300:])) == 1
    assert seen.wanted[-1] >= min(20, math.ceil(needed * 0.98))


@pytest.mark.parametrize("batch", [1, 4, 16, 128])
def test_other_batches_are_scaled_alike(batch: int) -> None:
    policy = Policy(batch=batch)
    seen = Simulation(policy).run(step(0, 6 * batch / 0.1, at=30), 300)
    assert seen.turns <= 1
    assert len(set(seen.wanted[-150:])) == 1
    assert 6 <= seen.wanted[-1] <= 9


# --- whatever comes ---------------------------------------------------------------------------

loads = st.builds(
    state,
    queued=st.integers(0, 10_000),
    workers=st.integers(0, 30),
    in_flight=st.integers(0, 1_000),
    latency=st.floats(0, 100),
    busy=st.floats(0, 1),
)
policies = st.builds(
    lambda least, more, batch, latency: Policy(least=least, most=least + more, batch=batch, latency=latency),
    st.integers(1, 5),
    st.integers(0, 15),
    st.integers(1, 256),
    st.floats(0, 10),
)


@given(policies, st.integers(0, 40), st.lists(st.tuples(loads, st.floats(0, 10)), max_size=80))
def test_whatever_comes_the_bounds_hold_and_changes_keep_their_distance(
    policy: Policy, start: int, course: list[tuple[State, float]]
) -> None:
    wish, now = Wish(start), 0.0
    for load, later in course:
        now += later
        last, wish = wish, decide(policy, load, now, wish)
        assert policy.least <= wish.workers <= policy.most
        if last.reason and wish.workers > last.workers:
            assert wish.workers - last.workers <= policy.up
            assert now - last.changed >= policy.pause
        if last.reason and wish.workers < last.workers and wish.reason != "bounds":
            assert last.workers - wish.workers == policy.down
            assert now - last.changed >= policy.calm


@given(policies, st.lists(st.tuples(loads, st.floats(0, 10)), max_size=40))
def test_the_same_course_gives_the_same_decisions(policy: Policy, course: list[tuple[State, float]]) -> None:
    def run() -> list[Wish]:
        wish, now, seen = Wish(policy.least), 0.0, []
        for load, later in course:
            now += later
            wish = decide(policy, load, now, wish)
            seen.append(wish)
        return seen

    assert run() == run()
