"""Which inputs make a batch: a simulation with many loads, and single rules."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haat.models.engines.local.batcher import PRIORITY_SECONDS, Batcher, Entry
from haat.models.engines.local.batches import Trial
from haat.models.manifest import Batching


@dataclass(eq=False)
class Call:
    at: float
    inputs: int = 1
    priority: int = 5
    cost: float = 1.0
    group: str = ""
    leaves: float = math.inf
    alone: bool = False
    done: list[int] = field(default_factory=list)

    def entries(self, now: float) -> list[Entry]:
        return [
            Entry(self, index, None, now, self.priority, self.cost, self.group, 10, self.alone)
            for index in range(self.inputs)
        ]


@dataclass
class Taken:
    at: float
    entries: list[Entry]


def simulate(batching: Batching, calls: list[Call], workers: int, seconds: float) -> list[Taken]:
    """Run calls through a batcher with workers that take so many seconds a batch; return the batches."""
    batcher, taken = Batcher(batching), []
    arrivals = sorted(calls, key=lambda call: call.at)
    leaving = sorted((call for call in calls if call.leaves < math.inf), key=lambda call: call.leaves)
    busy: list[tuple[float, list[Entry]]] = []
    now = 0.0
    while arrivals or len(batcher) or busy:
        while arrivals and arrivals[0].at <= now:
            batcher.add(arrivals.pop(0).entries(now), len({e.call for _, batch in busy for e in batch}))
        while leaving and leaving[0].leaves <= now:
            batcher.drop(leaving.pop(0))
        for end, batch in [b for b in busy if b[0] <= now]:
            busy.remove((end, batch))
            for entry in batch:
                entry.call.done.append(entry.index)
        while len(busy) < workers:
            batch = batcher.take(now, workers, len({e.call for _, b in busy for e in b}))
            if not batch:
                break
            taken.append(Taken(now, batch))
            busy.append((now + seconds, batch))
        steps = [end for end, _ in busy] + [call.at for call in arrivals[:1]] + [call.leaves for call in leaving[:1]]
        if len(busy) < workers:
            steps.append(batcher.due_at())
        later = [step for step in steps if step > now]
        if not later:
            assert not len(batcher), "something waits and nothing will ever happen"
            break
        now = min(later)
    return taken


batchings = st.builds(
    Batching,
    max_items=st.integers(1, 8),
    max_wait_ms=st.sampled_from([0.0, 5.0, 50.0]),
    max_cost=st.sampled_from([0.0, 3.0, 10.0]),
)
calls_of = st.lists(
    st.builds(
        Call,
        at=st.floats(0, 1),
        inputs=st.integers(1, 12),
        priority=st.integers(1, 10),
        cost=st.floats(0.1, 12),
        group=st.sampled_from("abc"),
        leaves=st.one_of(st.just(math.inf), st.floats(0, 2)),
        alone=st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(batchings, calls_of, st.integers(1, 4), st.floats(0.001, 0.2))
def test_every_input_is_taken_once_within_the_bounds_or_left_with_its_call(
    batching: Batching, calls: list[Call], workers: int, seconds: float
) -> None:
    batches = simulate(batching, calls, workers, seconds)
    for batch in batches:
        assert 1 <= len(batch.entries) <= batching.max_items
        assert len({(e.group, e.call if e.alone else None) for e in batch.entries}) == 1
        assert not batch.entries[0].alone or len({e.call for e in batch.entries}) == 1
        if batching.max_cost and len(batch.entries) > 1:
            assert sum(entry.cost for entry in batch.entries) <= batching.max_cost
        assert all(entry.call.leaves > batch.at or entry.call.leaves <= entry.since for entry in batch.entries)
    for call in calls:
        assert len(call.done) == len(set(call.done)), "an input was taken twice"
        if call.leaves == math.inf:
            assert sorted(call.done) == list(range(call.inputs))


@settings(max_examples=100, deadline=None)
@given(batchings, st.lists(st.builds(Call, at=st.floats(0, 1), group=st.sampled_from("ab")), max_size=30))
def test_with_workers_enough_nobody_waits_longer_than_told(batching: Batching, calls: list[Call]) -> None:
    for batch in simulate(batching, calls, workers=64, seconds=0.001):
        for entry in batch.entries:
            assert batch.at - entry.since <= batching.max_wait_ms / 1000 + 1e-9


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(2, 10))
def test_nobody_starves(low: int, high: int) -> None:
    """A stream of urgent calls as fast as the worker is never keeps an old one for longer than its levels are worth."""
    if low >= high:
        return
    urgent = [Call(at=number * 0.01, priority=high) for number in range(1200)]
    patient = Call(at=0.005, priority=low)
    batches = simulate(Batching(max_items=1), [*urgent, patient], workers=1, seconds=0.01)
    at = next(batch.at for batch in batches if batch.entries[0].call is patient)
    assert at - patient.at <= (high - low) * PRIORITY_SECONDS + 0.05


def test_who_is_alone_never_waits() -> None:
    batcher = Batcher(Batching(max_wait_ms=5))
    for number in range(50):
        now = number * 0.02
        batcher.add(Call(now).entries(now), 0)
        assert len(batcher.take(now, 1, 0)) == 1


def test_after_a_burst_who_is_alone_waits_once() -> None:
    batcher = Batcher(Batching(max_items=32, max_wait_ms=5))
    for _ in range(10):
        batcher.add(Call(0.0).entries(0.0), 0)
    assert len(batcher.take(0.0, 1, 0)) == 10
    batcher.add(Call(1.0).entries(1.0), 0)
    assert not batcher.take(1.0, 1, 0)
    assert batcher.due_at() == pytest.approx(1.005)
    assert len(batcher.take(1.005, 1, 0)) == 1
    batcher.add(Call(2.0).entries(2.0), 0)
    assert len(batcher.take(2.0, 1, 0)) == 1


def test_callers_who_come_back_together_make_whole_batches() -> None:
    """Thirty-two callers, seen together once, each of whom calls again half a millisecond after the one before."""
    batcher = Batcher(Batching(max_items=32, max_wait_ms=20))
    for _ in range(32):
        batcher.add(Call(0.0).entries(0.0), 0)
    now, sizes = 0.0, [len(batcher.take(0.0, 1, 0))]
    for _ in range(10):
        now += 0.01
        for _ in range(32):
            now += 0.0005
            batcher.add(Call(now).entries(now), 0)
            if batch := batcher.take(now, 1, 0):
                sizes.append(len(batch))
    assert sizes == [32] * 11


def test_a_queue_is_full_at_ten_batches_a_worker_or_64_mib() -> None:
    batcher = Batcher(Batching(max_items=2))
    batcher.add(Call(0.0, inputs=19).entries(0.0), 0)
    assert not batcher.is_full(1)
    batcher.add(Call(0.0, inputs=30).entries(0.0), 0)
    assert batcher.is_full(1)
    assert batcher.is_full(2)
    assert not batcher.is_full(3)
    large = Batcher(Batching())
    large.add([Entry(Call(0.0), 0, None, 0.0, size=64 * 1024 * 1024)], 0)
    assert large.is_full(1)


def test_places_count_all_that_go_before() -> None:
    batcher = Batcher(Batching())
    first, second, urgent = (Call(0.0, group="a"), Call(0.1, group="b"), Call(0.2, priority=10))
    entries = [call.entries(call.at)[0] for call in (first, second, urgent)]
    for entry in entries:
        batcher.add([entry], 0)
    assert [batcher.place(entry) for entry in entries] == [2, 3, 1]


@given(st.integers(1, 64), st.data())
def test_a_spoilt_batch_fails_only_what_spoils_it(size: int, data: st.DataObject) -> None:
    """Cut in two until the bad one is alone, there is always a success before the trial is given up."""
    bad = data.draw(st.integers(0, size - 1))
    trial, pieces, failed = Trial(size), [list(range(size))], []
    while pieces:
        piece = pieces.pop(0)
        if bad not in piece:
            trial.succeeded = True
            continue
        trial.failures += 1
        if len(piece) == 1 or trial.hopeless:
            failed += piece
            continue
        middle = (len(piece) + 1) // 2
        pieces = [piece[:middle], piece[middle:], *pieces]
    assert failed == [bad]
