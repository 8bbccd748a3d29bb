"""Identifiers: UUIDv7 that only ever grow within a process."""

from __future__ import annotations

import threading
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel import ids
from haat.kernel.ids import id_at, milliseconds_of, new_id, new_id_text

MILLISECONDS = st.integers(min_value=0, max_value=(1 << 48) - 1)


def test_an_id_is_a_version_7_uuid_of_the_rfc_variant() -> None:
    for _ in range(100):
        made = new_id()
        assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_an_id_carries_the_present_millisecond() -> None:
    before = time.time_ns() // 1_000_000
    made = milliseconds_of(new_id())
    assert before <= made <= time.time_ns() // 1_000_000 + 1


def test_an_id_as_text_is_written_as_any_other_and_follows_those_before() -> None:
    before, made, after = new_id(), new_id_text(), new_id()
    assert str(uuid.UUID(made)) == made
    assert before < uuid.UUID(made) < after


def test_ids_grow_and_never_repeat_across_threads() -> None:
    made: list[list[uuid.UUID]] = [[] for _ in range(4)]

    def work(mine: list[uuid.UUID]) -> None:
        mine.extend(new_id() for _ in range(2000))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in made)
    assert len({identifier for mine in made for identifier in mine}) == 8000


def test_ids_grow_when_the_wall_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert first < new_id() < new_id()


def test_a_millisecond_that_ran_full_goes_on_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns() // 1_000_000 + 10
    monkeypatch.setattr(time, "time_ns", lambda: now * 1_000_000)
    monkeypatch.setattr(ids, "_last", (now << 74) | ((1 << 74) - 1))
    made = new_id()
    assert milliseconds_of(made) == now + 1
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


@given(MILLISECONDS)
def test_a_bound_keeps_its_millisecond_version_and_variant(milliseconds: int) -> None:
    bound = id_at(milliseconds)
    assert milliseconds_of(bound) == milliseconds
    assert (bound.version, bound.variant) == (7, uuid.RFC_4122)


@given(MILLISECONDS, MILLISECONDS)
def test_bounds_are_ordered_as_their_milliseconds(one: int, other: int) -> None:
    assert (id_at(one) < id_at(other)) == (one < other)


def test_a_bound_is_not_above_any_id_of_its_millisecond() -> None:
    made = new_id()
    assert id_at(milliseconds_of(made)) <= made < id_at(milliseconds_of(made) + 1)
