"""The port `Jobs`: deferring within a transaction, keys, cancelling, listing, waiting times."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.infra.jobs import PURGE, Jobs, NewJob, Retry, RunningJob, Schedule, Task, UnknownTask, awake
from haat.infra.postgres import PLATFORM_SCOPE, PUBLIC
from haat.kernel.errors import Conflict, NotFound
from jobs.job_rig import defer, job_of


async def _nothing(*_: Any) -> None:
    return None


@pytest.fixture
def jobs(database: Any) -> Jobs:
    return Jobs(database.app, [Task("mail", _nothing)])


async def test_a_job_is_deferred_only_if_the_callers_transaction_commits(jobs: Jobs) -> None:
    with pytest.raises(RuntimeError):
        async with jobs.db.transaction(PUBLIC) as connection:
            await jobs.defer(connection, "mail", {})
            raise RuntimeError("the change fails")
    async with jobs.db.transaction(PUBLIC) as connection:
        assert await jobs.recent(connection) == []


async def test_a_job_carries_its_arguments_queue_and_priority(jobs: Jobs) -> None:
    identifier = await defer(jobs, "mail", {"to": "अनु@example.in", "n": 3}, queue="slow", priority=-7)
    job = await job_of(jobs, identifier)
    assert (job.task, job.args, job.queue, job.priority, job.status, job.attempts) == (
        "mail",
        {"to": "अनु@example.in", "n": 3},
        "slow",
        -7,
        "waiting",
        0,
    )
    assert job.deferred_at is not None
    assert job.ended_at is None


async def test_a_key_defers_only_once(jobs: Jobs) -> None:
    first = await defer(jobs, "mail", {"n": 1}, key="invoice/1")
    assert await defer(jobs, "mail", {"n": 2}, key="invoice/1") == first
    assert (await job_of(jobs, first)).args == {"n": 1}
    assert await defer(jobs, "mail", {"n": 3}, key="invoice/2") != first


async def test_a_key_defers_only_once_among_transactions_at_the_same_moment(jobs: Jobs) -> None:
    ids = await asyncio.gather(*(defer(jobs, "mail", {"n": n}, key="same") for n in range(6)))
    assert len(set(ids)) == 1
    async with jobs.db.transaction(PUBLIC) as connection:
        assert len(await jobs.recent(connection)) == 1


async def test_a_key_of_a_rolled_back_job_is_free_again(jobs: Jobs) -> None:
    with pytest.raises(RuntimeError):
        async with jobs.db.transaction(PUBLIC) as connection:
            await jobs.defer(connection, "mail", {}, key="k")
            raise RuntimeError
    assert (await job_of(jobs, await defer(jobs, "mail", key="k"))).key == "k"


async def test_many_jobs_come_back_with_their_ids_in_order_whatever_their_keys(jobs: Jobs) -> None:
    draw = random.Random(7)
    seen: dict[str, int] = {}
    for _ in range(25):
        keys = [draw.choice([None, "a", "b", "c", f"k{draw.randrange(60)}"]) for _ in range(draw.randrange(12))]
        async with jobs.db.transaction(PUBLIC) as connection:
            ids = await jobs.defer_many(connection, [NewJob("mail", {"key": key}, key=key) for key in keys])
            stored = {identifier: await jobs.get(connection, identifier) for identifier in ids}
        for key, identifier in zip(keys, ids, strict=True):
            assert stored[identifier].args == {"key": key}
            if key is not None:
                assert seen.setdefault(key, identifier) == identifier
        unkeyed = [identifier for key, identifier in zip(keys, ids, strict=True) if key is None]
        assert len(set(unkeyed)) == len(unkeyed)


async def test_a_task_nobody_registered_is_refused_at_once(jobs: Jobs) -> None:
    with pytest.raises(UnknownTask):
        await defer(jobs, "mial")
    with pytest.raises(UnknownTask):
        jobs.schedule(Schedule("mial", "* * * * *"))


def test_a_task_is_registered_once(jobs: Jobs) -> None:
    with pytest.raises(ValueError, match="twice"):
        jobs.register(Task("mail", _nothing))


async def test_a_priority_outside_its_range_is_refused(jobs: Jobs) -> None:
    with pytest.raises(ValueError, match="priority"):
        await defer(jobs, "mail", priority=1001)


async def test_a_job_for_later_is_listed_with_its_own_priority(jobs: Jobs) -> None:
    later = datetime.now(UTC) + timedelta(days=3)
    job = await job_of(jobs, await defer(jobs, "mail", priority=5, run_at=later))
    assert (job.priority, job.run_at) == (5, later)


async def test_hurrying_lets_a_job_for_later_run_now(jobs: Jobs) -> None:
    identifier = await defer(jobs, "mail", priority=5, run_at=datetime.now(UTC) + timedelta(days=3))
    async with jobs.db.transaction(PUBLIC) as connection:
        await jobs.hurry(connection, identifier)
    job = await job_of(jobs, identifier)
    assert (job.priority, job.run_at) == (5, None)


async def test_cancelling_a_waiting_job_keeps_it_from_running(jobs: Jobs) -> None:
    identifier = await defer(jobs, "mail")
    async with jobs.db.transaction(PUBLIC) as connection:
        await jobs.cancel(connection, identifier)
    job = await job_of(jobs, identifier)
    assert job.status == "cancelled"
    assert job.ended_at is not None


async def test_cancelling_or_hurrying_what_has_ended_says_so(jobs: Jobs) -> None:
    identifier = await defer(jobs, "mail")
    async with jobs.db.transaction(PUBLIC) as connection:
        await jobs.cancel(connection, identifier)
        with pytest.raises(Conflict, match="has ended"):
            await jobs.cancel(connection, identifier)
        with pytest.raises(Conflict, match="only a waiting job"):
            await jobs.hurry(connection, identifier)


async def test_a_job_that_never_was_is_not_found(jobs: Jobs) -> None:
    async with jobs.db.transaction(PUBLIC) as connection:
        with pytest.raises(NotFound):
            await jobs.get(connection, 4711)
        with pytest.raises(NotFound):
            await jobs.cancel(connection, 4711)


async def test_jobs_are_listed_newest_first_by_status_task_and_page(jobs: Jobs) -> None:
    jobs.register(Task("other", _nothing))
    ids = [await defer(jobs, "mail") for _ in range(4)]
    other = await defer(jobs, "other")
    async with jobs.db.transaction(PUBLIC) as connection:
        await jobs.cancel(connection, ids[0])
        assert [job.id for job in await jobs.recent(connection)] == [other, *reversed(ids)]
        assert [job.id for job in await jobs.recent(connection, task="other")] == [other]
        assert [job.id for job in await jobs.recent(connection, status="cancelled")] == [ids[0]]
        assert [job.id for job in await jobs.recent(connection, before=ids[3], limit=2)] == [ids[2], ids[1]]


async def test_purging_forgets_what_ended_long_ago_and_its_key(jobs: Jobs) -> None:
    old, young, waiting = [await defer(jobs, "mail", key=key) for key in ("old", "young", "waiting")]
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        await jobs.cancel(connection, old)
        await jobs.cancel(connection, young)
        await connection.execute(
            "UPDATE procrastinate_events SET at = at - interval '31 days' WHERE job_id = ANY(%s)", ([old, waiting],)
        )
    await PURGE.run(None, RunningJob(0, PURGE.name, {}, 1, jobs.db))
    async with jobs.db.transaction(PUBLIC) as connection:
        assert {job.id for job in await jobs.recent(connection)} == {young, waiting}
    assert await defer(jobs, "mail", key="old") not in (old, young, waiting)


@given(
    attempt=st.integers(1, 5000),
    first=st.floats(0.01, 3600),
    factor=st.floats(1, 100),
    longest=st.floats(1, 7 * 86400),
    jitter=st.floats(0, 0.9),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_a_wait_lies_within_its_jitter_around_the_bounded_exponential(
    attempt: int, first: float, factor: float, longest: float, jitter: float, draw: float
) -> None:
    retry = Retry(10, first, factor, longest, jitter)
    middle = min(first, longest) if attempt == 1 else Retry(10, first, factor, longest, 0).wait_seconds(attempt, draw)
    wait = retry.wait_seconds(attempt, draw)
    assert middle * (1 - jitter) <= wait * 1.0000001
    assert wait <= longest * (1 + jitter) * 1.0000001
    assert middle <= Retry(10, first, factor, longest, 0).wait_seconds(attempt + 1, draw)


def test_waits_grow_to_days() -> None:
    retry = Retry(max_attempts=12, first_seconds=60, factor=4, longest_seconds=2 * 86400, jitter=0)
    assert [retry.wait_seconds(attempt, 0.5) for attempt in (1, 2, 3, 7, 9)] == [60, 240, 960, 2 * 86400, 2 * 86400]


@given(st.integers(-1000, 1000))
def test_a_sunk_priority_comes_up_as_it_was(priority: int) -> None:
    assert awake(priority) == priority
    assert awake(priority - 1_000_000) == priority
