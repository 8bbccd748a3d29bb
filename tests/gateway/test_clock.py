"""Ids and time of the gateway."""

from __future__ import annotations

import itertools
import uuid

from hypothesis import given
from hypothesis import strategies as st

from haat.gateway.clock import CallIds, GatewayClock


def test_time_never_steps_back() -> None:
    clock = GatewayClock()
    times = [clock.now_us() for _ in range(1000)]
    assert times == sorted(times)


@given(st.lists(st.integers(1_700_000_000_000_000, 1_700_000_000_005_000), max_size=50))
def test_ids_are_increasing_uuids_of_version_7_whatever_the_clock_does(times: list[int]) -> None:
    ids = CallIds()
    numbers = [ids.next(at) for at in times]
    made = [uuid.UUID(ids.text(number)) for number in numbers]
    assert all(one < other for one, other in itertools.pairwise(made))
    assert all(one.version == 7 and one.variant == uuid.RFC_4122 for one in made)
    assert [one.bytes for one in made] == [ids.octets(number) for number in numbers]


def test_more_than_4096_ids_in_a_millisecond_borrow_from_the_next() -> None:
    ids = CallIds()
    made = {ids.text(ids.next(1_700_000_000_000_000)) for _ in range(10_000)}
    assert len(made) == 10_000
