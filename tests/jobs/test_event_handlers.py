"""Events become jobs: each handler once per event, whatever dispatchers, transactions and deployments do."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import pytest

from haat.infra import dead_letters, events
from haat.infra.handlers import Dispatcher, deliver_past, handler_task
from haat.infra.jobs import Jobs, Retry
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.events import DomainEvent, EventHandler
from jobs.job_rig import ended, until, working

QUICK = Retry(first_seconds=0.02, factor=1)


class Witness:
    """A handler that remembers what it was given and fails when told to."""

    def __init__(self, name: str = "witness", types: tuple[str, ...] = ("partner.registered",)) -> None:
        self.seen: list[UUID] = []
        self.failing = False
        self.handler = EventHandler(name, frozenset(types), self.run, max_attempts=3)

    async def run(self, platform: Any, event: DomainEvent) -> None:
        self.seen.append(event.id)
        if self.failing:
            raise RuntimeError("no paper")

    async def saw(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.seen) >= count

        await until(enough)


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
def jobs(database: Any, witness: Witness) -> Jobs:
    return Jobs(database.app, [handler_task(witness.handler, QUICK)])


async def happen(connection: Connection, clock: Any, name: str, type: str = "partner.registered") -> UUID:
    event = await events.append(
        connection, stream=f"partner/{name}", type=type, data={}, actor="platform", org=None, at=clock.now()
    )
    return event.id


async def happened(db: Database, clock: Any, *names: str, type: str = "partner.registered") -> list[UUID]:
    async with db.transaction(PLATFORM_SCOPE) as connection:
        return [await happen(connection, clock, name, type) for name in names]


async def dispatch_all(dispatcher: Dispatcher) -> None:
    await dispatcher.begin()
    while await dispatcher.dispatch():
        pass


async def deferred(jobs: Jobs) -> list[str]:
    """Return the event ids of all jobs, oldest first."""
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        return [job.args["event"] for job in reversed(await jobs.recent(connection, limit=5000))]


async def test_a_handler_runs_once_for_each_event_of_its_types(jobs: Jobs, witness: Witness, clock: Any) -> None:
    wanted = await happened(jobs.db, clock, "a", "b", "c")
    await happened(jobs.db, clock, "a", type="partner.approved")
    await dispatch_all(Dispatcher(jobs.db, jobs, [witness.handler]))
    async with working(jobs):
        await witness.saw(3)
    assert Counter(witness.seen) == Counter(wanted)


async def test_every_handler_of_an_event_gets_a_job_of_its_own(jobs: Jobs, witness: Witness, clock: Any) -> None:
    other = Witness("other")
    jobs.register(handler_task(other.handler))
    (event,) = await happened(jobs.db, clock, "a")
    await dispatch_all(Dispatcher(jobs.db, jobs, [witness.handler, other.handler]))
    async with working(jobs):
        await witness.saw(1)
        await other.saw(1)
    assert (witness.seen, other.seen) == ([event], [event])


async def test_a_failing_handler_is_retried_dead_lettered_and_replayed(
    jobs: Jobs, witness: Witness, clock: Any
) -> None:
    witness.failing = True
    (event,) = await happened(jobs.db, clock, "a")
    await dispatch_all(Dispatcher(jobs.db, jobs, [witness.handler]))
    async with working(jobs):

        async def dead() -> list[dead_letters.DeadLetter]:
            async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
                return await dead_letters.find(connection)

        (letter,) = await until(dead)
        assert witness.seen == [event] * 3
        assert (letter.event_id, letter.handler, letter.attempts) == (event, "witness", 3)
        assert "RuntimeError: no paper" in letter.error
        witness.failing = False
        async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
            (job,) = await dead_letters.replay_all(connection, jobs, actor="platform", at=clock.now())
        await ended(jobs, job, "succeeded")
    assert witness.seen == [event] * 4


async def test_dispatchers_at_once_neither_miss_an_event_nor_defer_it_twice(
    jobs: Jobs, witness: Witness, clock: Any
) -> None:
    dispatchers = [Dispatcher(jobs.db, jobs, [witness.handler]) for _ in range(3)]
    stop = asyncio.Event()
    running = [asyncio.create_task(dispatcher.run(stop)) for dispatcher in dispatchers]
    wanted: list[UUID] = []
    for number in range(60):
        wanted += await happened(jobs.db, clock, str(number))

    async def all_deferred() -> bool:
        return len(await deferred(jobs)) >= 60

    await until(all_deferred)
    for dispatcher in dispatchers:
        assert not await dispatcher.dispatch()
    stop.set()
    await asyncio.gather(*running)
    assert await deferred(jobs) == [str(event) for event in wanted]


async def test_an_event_whose_transaction_commits_late_is_not_skipped(jobs: Jobs, witness: Witness, clock: Any) -> None:
    dispatcher = Dispatcher(jobs.db, jobs, [witness.handler])
    await dispatcher.begin()
    async with jobs.db.transaction(PLATFORM_SCOPE) as late:
        early_in_sequence = await happen(late, clock, "late")
        (committed_first,) = await happened(jobs.db, clock, "quick")
        assert not await dispatcher.dispatch()  # the quick one waits for the late one, so that neither is lost
    await dispatch_all(dispatcher)
    assert await deferred(jobs) == [str(early_in_sequence), str(committed_first)]


async def test_a_dispatcher_that_fails_halfway_has_done_nothing(
    jobs: Jobs, witness: Witness, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await happened(jobs.db, clock, "a", "b")
    dispatcher = Dispatcher(jobs.db, jobs, [witness.handler])
    await dispatcher.begin()
    defer_many = jobs.defer_many

    async def fail_after_deferring(*args: Any) -> list[int]:
        await defer_many(*args)
        raise ConnectionError("the plug was pulled")

    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(jobs, "defer_many", fail_after_deferring)
        await dispatcher.dispatch()
    assert await deferred(jobs) == []
    await dispatch_all(dispatcher)
    assert len(await deferred(jobs)) == 2


async def test_more_events_than_a_batch_are_all_dispatched_in_order(
    jobs: Jobs, witness: Witness, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haat.infra.handlers.BATCH", 7)
    wanted = await happened(jobs.db, clock, *map(str, range(23)))
    await dispatch_all(Dispatcher(jobs.db, jobs, [witness.handler]))
    assert await deferred(jobs) == [str(event) for event in wanted]


async def test_a_handler_added_later_gets_only_what_happens_from_then_on(
    jobs: Jobs, witness: Witness, clock: Any
) -> None:
    await happened(jobs.db, clock, "old")
    await dispatch_all(Dispatcher(jobs.db, jobs, [witness.handler]))
    newcomer = Witness("newcomer")
    jobs.register(handler_task(newcomer.handler))
    both = Dispatcher(jobs.db, jobs, [witness.handler, newcomer.handler])
    await both.begin()
    (fresh,) = await happened(jobs.db, clock, "fresh")
    await dispatch_all(Dispatcher(jobs.db, jobs, [witness.handler]))  # the version before still runs
    await dispatch_all(both)
    async with working(jobs):
        await witness.saw(2)
        await newcomer.saw(1)
    assert newcomer.seen == [fresh]


async def test_the_past_is_delivered_on_request_and_only_once(jobs: Jobs, witness: Witness, clock: Any) -> None:
    past = await happened(jobs.db, clock, "a", "b")
    await happened(jobs.db, clock, "a", type="partner.approved")
    await dispatch_all(Dispatcher(jobs.db, jobs, [witness.handler]))
    newcomer = Witness("newcomer")
    jobs.register(handler_task(newcomer.handler))
    await Dispatcher(jobs.db, jobs, [newcomer.handler]).begin()
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        assert await deliver_past(connection, jobs, newcomer.handler) == 2
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        assert await deliver_past(connection, jobs, newcomer.handler) == 0
    async with working(jobs):
        await newcomer.saw(2)
    assert Counter(newcomer.seen) == Counter(past)


async def test_a_dispatcher_is_woken_by_the_log_not_by_the_clock(jobs: Jobs, witness: Witness, clock: Any) -> None:
    stop = asyncio.Event()
    dispatcher = asyncio.create_task(Dispatcher(jobs.db, jobs, [witness.handler], poll_seconds=15).run(stop))
    await happened(jobs.db, clock, "before")

    async def deferred_count(count: int) -> bool:
        return len(await deferred(jobs)) >= count

    await until(lambda: deferred_count(1), seconds=5)
    await happened(jobs.db, clock, "after")
    await until(lambda: deferred_count(2), seconds=5)
    stop.set()
    await happened(jobs.db, clock, "farewell")  # wakes it once more, to notice that it shall stop
    await dispatcher


async def test_an_idle_dispatcher_writes_nothing(jobs: Jobs, witness: Witness, clock: Any) -> None:
    await happened(jobs.db, clock, "a")
    dispatcher = Dispatcher(jobs.db, jobs, [witness.handler])
    await dispatch_all(dispatcher)

    async def next_transaction() -> int:
        async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
            row = await (
                await connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS x")
            ).fetchone()
            assert row is not None
            return int(row["x"])

    before = await next_transaction()
    for _ in range(5):
        assert not await dispatcher.dispatch()
    assert await next_transaction() == before
