"""The worker: attempts, dead letters, cancelling, shutting down, recovery, order, schedules."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from haat.infra import dead_letters, events
from haat.infra.job_worker import recover
from haat.infra.jobs import Jobs, NewJob, Retry, RunningJob, Schedule, Task
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.errors import Conflict, NotFound
from haat.kernel.ids import new_id
from jobs.job_rig import DEADLINE_SECONDS, FAST, defer, ended, job_of, until, working

QUICK = Retry(max_attempts=3, first_seconds=0.02, factor=2)


class Diary:
    """What jobs did, and what they are told to do."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, int]] = []
        self.failing = False
        self.gate = asyncio.Event()

    async def write(self, _: Any, job: RunningJob) -> None:
        self.runs.append((job.args.get("name", ""), job.attempt))
        if self.failing:
            raise RuntimeError("the printer is on fire")

    async def wait(self, _: Any, job: RunningJob) -> None:
        self.runs.append((job.args.get("name", ""), job.attempt))
        await self.gate.wait()

    async def began(self, runs: int = 1, seconds: float = DEADLINE_SECONDS) -> None:
        async def enough() -> bool:
            return len(self.runs) >= runs

        await until(enough, seconds)


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
def jobs(database: Any, diary: Diary) -> Jobs:
    return Jobs(database.app, [Task("write", diary.write, QUICK), Task("wait", diary.wait, QUICK)])


async def letters(jobs: Jobs, *, replayed: bool = False) -> list[dead_letters.DeadLetter]:
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        return await dead_letters.find(connection, replayed=replayed)


async def test_a_job_runs_once_with_its_arguments_and_the_platform(jobs: Jobs) -> None:
    seen = []

    async def note(platform: Any, job: RunningJob) -> None:
        seen.append((platform, dict(job.args), job.attempt, job.id))

    jobs.register(Task("note", note))
    identifier = await defer(jobs, "note", {"name": "a"})
    async with working(jobs, "the platform"):
        job = await ended(jobs, identifier)
    assert seen == [("the platform", {"name": "a"}, 1, identifier)]
    assert (job.status, job.attempts, job.error) == ("succeeded", 1, "")
    assert job.ended_at is not None


async def test_a_job_deferred_while_the_worker_idles_runs_at_once(jobs: Jobs, diary: Diary) -> None:
    async with working(jobs, pace=replace(FAST, poll=600)):
        await ended(jobs, await defer(jobs, "write"))  # the worker listens by now
        for _ in range(5):
            # The engine loses a wake-up that comes while it looks at the queue; the next one or the poll makes
            # up for it. Two in a row that meet such a moment are chance, five are a fault.
            await defer(jobs, "write")
            with suppress(TimeoutError):
                await diary.began(2, seconds=3)
                break
    assert len(diary.runs) >= 2


async def test_a_failing_job_is_retried_until_it_succeeds(jobs: Jobs, diary: Diary) -> None:
    diary.failing = True
    identifier = await defer(jobs, "write")
    async with working(jobs):
        await diary.began(2)
        diary.failing = False
        job = await ended(jobs, identifier)
    assert (job.status, job.attempts) == ("succeeded", 3)
    assert [attempt for _, attempt in diary.runs] == [1, 2, 3]
    assert "the printer is on fire" in job.error
    assert await letters(jobs) == []


async def test_a_job_that_fails_at_every_attempt_becomes_a_dead_letter(jobs: Jobs, diary: Diary) -> None:
    diary.failing = True
    identifier = await defer(jobs, "write", {"name": "a"}, queue="slow", priority=3)
    async with working(jobs):
        job = await ended(jobs, identifier)
    assert (job.status, len(diary.runs)) == ("failed", 3)
    (letter,) = await letters(jobs)
    assert (letter.job_id, letter.task, letter.queue, letter.priority) == (identifier, "write", "slow", 3)
    assert (letter.args, letter.attempts, letter.event_id, letter.handler) == ({"name": "a"}, 3, None, None)
    assert "RuntimeError: the printer is on fire" in letter.error


async def test_a_replayed_dead_letter_runs_anew_and_the_log_says_who_did_it(
    jobs: Jobs, diary: Diary, clock: Any
) -> None:
    diary.failing = True
    first = await defer(jobs, "write", {"name": "a"}, key="once")
    async with working(jobs):
        await ended(jobs, first)
        (letter,) = await letters(jobs)
        diary.failing = False
        async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
            second = await dead_letters.replay(connection, jobs, letter.id, actor="user/7", at=clock.now())
        job = await ended(jobs, second)
    assert (job.status, job.attempts, job.args) == ("succeeded", 1, {"name": "a"})
    assert await letters(jobs) == []
    (replayed,) = await letters(jobs, replayed=True)
    assert (replayed.replayed_at, replayed.replay_job_id) == (clock.now(), second)
    assert await defer(jobs, "write", key="once") == second
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        (event,) = await events.read_stream(connection, f"dead_letter/{letter.id}")
    assert (event.type, event.actor, event.data["replay_job"]) == ("dead_letter.replayed", "user/7", second)


async def test_a_dead_letter_is_replayed_once_and_an_unknown_one_is_not_found(
    jobs: Jobs, diary: Diary, clock: Any
) -> None:
    diary.failing = True
    identifier = await defer(jobs, "write")
    async with working(jobs):
        await ended(jobs, identifier)
    (letter,) = await letters(jobs)
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        assert len(await dead_letters.replay_all(connection, jobs, actor="platform", at=clock.now())) == 1
        assert await dead_letters.replay_all(connection, jobs, actor="platform", at=clock.now()) == []
        with pytest.raises(Conflict, match="replayed already"):
            await dead_letters.replay(connection, jobs, letter.id, actor="platform", at=clock.now())
        with pytest.raises(NotFound):
            await dead_letters.replay(connection, jobs, new_id(), actor="platform", at=clock.now())


async def test_a_job_that_takes_too_long_fails(jobs: Jobs, diary: Diary) -> None:
    jobs.register(Task("slow", diary.wait, Retry(max_attempts=1), timeout_seconds=0.05))
    identifier = await defer(jobs, "slow")
    async with working(jobs):
        job = await ended(jobs, identifier)
    assert job.status == "failed"
    assert "TimeoutError" in job.error


async def test_a_running_job_can_be_cancelled(jobs: Jobs, diary: Diary) -> None:
    identifier = await defer(jobs, "wait")
    async with working(jobs):
        await diary.began()
        async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
            await jobs.cancel(connection, identifier)
        job = await ended(jobs, identifier)
    assert job.status == "cancelled"
    assert len(diary.runs) == 1
    assert await letters(jobs) == []


async def test_a_running_job_tells_how_far_it_is(jobs: Jobs) -> None:
    gate = asyncio.Event()

    async def pages(_: Any, job: RunningJob) -> None:
        await job.report(0.25, "page 1 of 4")
        await job.report(0.5, "page 2 of 4")
        await gate.wait()

    jobs.register(Task("pages", pages))
    identifier = await defer(jobs, "pages")
    async with working(jobs):

        async def half() -> bool:
            return (await job_of(jobs, identifier)).progress == 0.5

        await until(half)
        job = await job_of(jobs, identifier)
        gate.set()
    assert (job.status, job.note) == ("running", "page 2 of 4")


async def test_a_stopping_worker_lets_a_running_job_finish(jobs: Jobs, diary: Diary) -> None:
    identifier = await defer(jobs, "wait")
    async with working(jobs):
        await diary.began()
        asyncio.get_running_loop().call_later(0.2, diary.gate.set)
    assert (await job_of(jobs, identifier)).status == "succeeded"


async def test_a_job_that_outlasts_the_shutdown_is_put_back_at_once(jobs: Jobs, diary: Diary) -> None:
    identifier = await defer(jobs, "wait")
    async with working(jobs, grace=0.1):
        await diary.began()
    assert (await job_of(jobs, identifier)).status == "waiting"
    diary.gate.set()
    async with working(jobs):
        await ended(jobs, identifier, "succeeded")
    assert len(diary.runs) == 2


async def test_two_workers_share_the_jobs_and_run_each_once(jobs: Jobs, diary: Diary) -> None:
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        ids = await jobs.defer_many(connection, [NewJob("write", {"name": str(n)}) for n in range(300)])
    async with working(jobs), working(jobs):
        for identifier in ids:
            await ended(jobs, identifier, "succeeded")
    assert Counter(diary.runs) == Counter((str(n), 1) for n in range(300))


async def test_a_second_worker_leaves_the_jobs_of_a_live_one_alone(jobs: Jobs, diary: Diary) -> None:
    identifier = await defer(jobs, "wait")
    async with working(jobs):
        await diary.began()
        async with working(jobs):
            late = await defer(jobs, "write", {"name": "late"})
            await ended(jobs, late)
            assert await recover(jobs, FAST.dead_after) == 0
        diary.gate.set()
        await ended(jobs, identifier, "succeeded")
    assert diary.runs == [("", 1), ("late", 1)]


async def test_jobs_run_by_priority_then_age_and_sleeping_ones_when_their_time_comes(jobs: Jobs, diary: Diary) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    sleeping = await defer(jobs, "write", {"name": "sleeping"}, priority=1000, run_at=soon)
    for name, priority in (("low", -5), ("first", 0), ("second", 0), ("high", 9)):
        await defer(jobs, "write", {"name": name}, priority=priority)
    async with working(jobs):
        job = await ended(jobs, sleeping)
    assert [name for name, _ in diary.runs] == ["high", "first", "second", "low", "sleeping"]
    assert job.priority == 1000


async def test_a_task_of_the_next_version_waits_for_a_worker_that_knows_it(jobs: Jobs) -> None:
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        (identifier,) = await jobs.defer_many(connection, [NewJob("of-tomorrow", {})])
    async with working(jobs):

        async def tried() -> bool:
            job = await job_of(jobs, identifier)
            return job.attempts == 1 and job.status == "waiting"

        await until(tried)
    job = await job_of(jobs, identifier)
    assert "No worker of this version knows the task of-tomorrow" in job.error
    assert await letters(jobs) == []

    done = asyncio.Event()

    async def tomorrow(*_: Any) -> None:
        done.set()

    jobs.register(Task("of-tomorrow", tomorrow))
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        await jobs.hurry(connection, identifier)
    async with working(jobs):
        await ended(jobs, identifier, "succeeded")
    assert done.is_set()


async def test_a_job_that_keeps_killing_its_worker_becomes_a_dead_letter(jobs: Jobs) -> None:
    identifier = await defer(jobs, "write", {"name": "poison"})
    for attempt in (1, 2, 3):
        await _die_holding(jobs, identifier)
        assert await recover(jobs, 30) == 1
        assert (await job_of(jobs, identifier)).attempts == attempt
    assert (await job_of(jobs, identifier)).status == "failed"
    (letter,) = await letters(jobs)
    assert letter.error == "The worker died during attempt 3."


async def test_several_recoverers_at_once_put_a_job_back_once(jobs: Jobs) -> None:
    ids = [await defer(jobs, "write") for _ in range(5)]
    await _die_holding(jobs, *ids)
    assert sum(await asyncio.gather(*(recover(jobs, 30) for _ in range(4)))) == 5
    assert [(await job_of(jobs, identifier)).attempts for identifier in ids] == [1] * 5


async def test_a_worker_taken_for_dead_changes_nothing_about_a_job_that_moved_on(jobs: Jobs, diary: Diary) -> None:
    identifier = await defer(jobs, "wait")
    async with working(jobs):
        await diary.began()
        await _forget_workers(jobs)  # as after a pause longer than `dead_after`
        await recover(jobs, 30)
        diary.gate.set()
        job = await ended(jobs, identifier, "succeeded")  # by its second run, on the worker that registered anew
    assert job.attempts == 2
    assert len(diary.runs) == 2


async def test_a_cancelled_job_whose_worker_died_does_not_come_back(jobs: Jobs) -> None:
    identifier = await defer(jobs, "write")
    await _die_holding(jobs, identifier)
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        await jobs.cancel(connection, identifier)
    await recover(jobs, 30)
    assert (await job_of(jobs, identifier)).status == "cancelled"


async def test_a_schedule_ticks_once_however_many_workers_there_are(jobs: Jobs) -> None:
    ticks: list[int] = []

    async def tick(_: Any, job: RunningJob) -> None:
        ticks.append(job.args["timestamp"])

    jobs.register(Task("tick", tick))
    jobs.schedule(Schedule("tick", "* * * * * */1", name="each second"))
    async with working(jobs), working(jobs):

        async def three() -> bool:
            return len(ticks) >= 3

        await until(three)
    assert len(set(ticks)) == len(ticks)
    assert max(ticks) - min(ticks) == len(ticks) - 1


async def test_a_failed_tick_gives_way_to_the_next_that_waits_already(jobs: Jobs, diary: Diary) -> None:
    diary.failing = True
    jobs.schedule(Schedule("write", "0 0 1 1 *", name="yearly"))
    first = await _tick(jobs, 1)
    await _die_holding(jobs, first)
    second = await _tick(jobs, 2)
    await recover(jobs, 30)
    assert (await job_of(jobs, first)).status == "cancelled"
    assert (await job_of(jobs, second)).status == "waiting"


async def _tick(jobs: Jobs, timestamp: int) -> int:
    """Defer one tick the way the engine does."""
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        row = await (
            await connection.execute(
                """
                SELECT procrastinate_defer_periodic_job_v2('default', NULL, 'yearly', 'write', 0, 'yearly', %s, '{}')
                    AS id
                """,
                (timestamp,),
            )
        ).fetchone()
    assert row is not None
    return int(row["id"])


async def _die_holding(jobs: Jobs, *ids: int) -> None:
    """Take jobs as a worker whose last sign of life is an hour old."""
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute(
            """
            WITH dead AS (INSERT INTO procrastinate_workers (last_heartbeat)
                VALUES (now() - interval '1 hour') RETURNING id)
            UPDATE procrastinate_jobs SET status = 'doing', worker_id = dead.id FROM dead
            WHERE procrastinate_jobs.id = ANY(%s)
            """,
            (list(ids),),
        )


async def _forget_workers(jobs: Jobs) -> None:
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute("DELETE FROM procrastinate_workers")
