"""What is the local engine's own: processes, memory, sharing, and what models do to them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from haat.kernel.errors import EngineFailed, EngineTimeout, HaatError, Overloaded
from haat.models import metrics
from haat.models.engines.degrading import Answers, DegradingEngine
from haat.models.engines.local import LocalEngine
from haat.models.engines.local import engine as engine_module
from haat.models.engines.local.crew import Crew
from haat.models.engines.local.process import WorkerProcess
from haat.models.engines.port import Model, Status, Ticket
from haat.models.manifest import Batching, Degraded, Manifest, Workers
from haat.models.region import Region
from haat.models.runtimes.port import Input
from models.engines.contract import KEY, ask, outcome, sample, until

MEGABYTE = 1024 * 1024


@pytest.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine()
    await engine.start()
    yield engine
    await engine.stop()


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- time -------------------------------------------------------------------------------------------


async def test_who_is_alone_waits_less_than_a_millisecond(engine: LocalEngine) -> None:
    await engine.deploy(sample(entry="sample:steady", batching=Batching(max_wait_ms=50)))
    await engine.load(KEY)
    added = []
    for _ in range(30):
        ticket, began = Ticket(), time.monotonic()
        await engine.run(KEY, [Input("a")], ticket)
        added.append(time.monotonic() - began - ticket.ran)
    assert sorted(added)[len(added) // 2] < 0.005  # far below the 50 ms that a batch may wait, whatever else runs here


# --- a batch that lies ready ------------------------------------------------------------------------


async def busy(engine: LocalEngine, texts: list[str], **members: Any) -> list[asyncio.Task[Any]]:
    """Ask for many things at once, one a batch; return when one runs and the next lies ready behind it."""
    await engine.deploy(sample(batching=Batching(max_items=1), **members))
    await ask(engine, "a")  # from now on it is known that batches are short
    calls = [asyncio.create_task(outcome(ask(engine, text))) for text in texts]
    pool = engine._pools[KEY]
    await until(lambda: any(batch.waits_behind for batch in pool._running))
    return calls


async def test_the_next_batch_lies_ready_while_one_runs_and_all_are_answered(engine: LocalEngine) -> None:
    calls = await busy(engine, [f"sleep 0.01 {number}" for number in range(9)])
    assert [answers[0]["text"] for answers in await asyncio.gather(*calls)] == [
        f"SLEEP 0.01 {number}" for number in range(9)
    ]
    pool = engine._pools[KEY]
    assert not pool._running and engine.state(KEY).in_flight == 0
    assert pool.counters.batch_size.count == pool.counters.inference_seconds.count == 10


async def test_nothing_lies_ready_behind_long_batches(engine: LocalEngine) -> None:
    await engine.deploy(sample(batching=Batching(max_items=1)))
    await ask(engine, "sleep 0.06")
    calls = [asyncio.create_task(ask(engine, "sleep 0.06")) for _ in range(4)]
    while not all(call.done() for call in calls):
        assert engine.state(KEY).in_flight <= 1
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("end", ["kill", "exit", "leave", "rubbish"])
async def test_what_lies_behind_a_batch_that_ends_its_worker_is_run_elsewhere(engine: LocalEngine, end: str) -> None:
    calls = await busy(engine, ["sleep 0.04", end, "a", "b", "c"])
    first, bad, *others = await asyncio.gather(*calls)
    assert isinstance(bad, EngineFailed) and first[0]["text"] == "SLEEP 0.04"
    assert [answers[0]["text"] for answers in others] == ["A", "B", "C"]


async def test_what_lies_behind_a_batch_that_hangs_is_run_elsewhere(engine: LocalEngine) -> None:
    calls = await busy(engine, ["sleep 0.04", "hang", "a", "b"], timeout_seconds=0.5)
    first, bad, *others = await asyncio.gather(*calls)
    assert isinstance(bad, EngineTimeout) and first[0]["text"] == "SLEEP 0.04"
    # Those that waited as long as it hung are late, too: none is blamed for it.
    assert all(isinstance(one, EngineTimeout) or one[0]["text"] in ("A", "B") for one in others)
    await engine.load(KEY)
    assert (await ask(engine, "d"))[0]["text"] == "D"


async def test_a_killed_worker_loses_nobody(engine: LocalEngine) -> None:
    calls = await busy(engine, [f"sleep 0.02 {number}" for number in range(9)])
    for _ in range(3):
        workers = engine._pools[KEY].workers
        if workers:
            os.kill(workers[0].pid, signal.SIGKILL)
        await asyncio.sleep(0.1)
    answers = await asyncio.gather(*calls)
    failed = [answer for answer in answers if isinstance(answer, HaatError)]
    assert len(failed) <= 3, "a killed worker costs the batch that it was at, and no other"
    told = {answer[0]["text"] for answer in answers if not isinstance(answer, HaatError)}
    assert len(told) == 9 - len(failed)


async def test_a_worker_is_taken_away_after_what_lies_ready(engine: LocalEngine) -> None:
    calls = await busy(engine, [f"sleep 0.02 {number}" for number in range(6)])
    await engine.unload(KEY)
    answers = await asyncio.gather(*calls)  # those that waited have it loaded again
    assert [answer[0]["text"] for answer in answers] == [f"SLEEP 0.02 {number}" for number in range(6)]


async def test_who_leaves_while_the_call_lies_ready_disturbs_nobody(engine: LocalEngine) -> None:
    calls = await busy(engine, [f"sleep 0.03 {number}" for number in range(8)])
    calls[1].cancel()
    calls[2].cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [answer[0]["text"] for answer in (answers[0], *answers[3:])] == [
        f"SLEEP 0.03 {number}" for number in (0, 3, 4, 5, 6, 7)
    ]
    assert engine.state(KEY).in_flight == 0


async def test_a_stream_never_lies_behind_a_batch(engine: LocalEngine) -> None:
    await engine.deploy(sample(batching=Batching(max_items=1), streams=True))
    await ask(engine, "a")
    call = asyncio.create_task(ask(engine, "sleep 0.04"))
    await until(lambda: engine.state(KEY).in_flight == 1)
    assert [part["text"] async for part in engine.stream(KEY, Input("one two"), Ticket())] == ["one", "two"]
    await call


# --- streams that are read slowly -------------------------------------------------------------------


async def test_a_stream_that_ended_before_it_was_read_holds_nobody_up(engine: LocalEngine) -> None:
    await engine.deploy(sample(streams=True, timeout_seconds=5))
    await engine.load(KEY)
    stream = engine.stream(KEY, Input("word " * 100), Ticket())
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)  # now the worker has been asked
    time.sleep(0.5)  # noqa: ASYNC251 - all of it is to lie in the socket, so that its end is read in one with it
    pid = (await first)["pid"]
    assert (await ask(engine, "a"))[0]["pid"] == pid
    assert len([part async for part in stream]) == 99


async def test_a_reader_who_stops_is_ended_and_not_the_worker(engine: LocalEngine) -> None:
    await engine.deploy(sample(streams=True, timeout_seconds=0.3))
    await engine.load(KEY)
    stream = engine.stream(KEY, Input("count 0"), Ticket())
    pid = (await anext(stream))["pid"]
    await asyncio.sleep(0.6)
    with pytest.raises(EngineTimeout):
        async for _ in stream:
            pass
    assert (await ask(engine, "a"))[0]["pid"] == pid


async def test_a_deadline_that_has_passed_is_not_run(engine: LocalEngine) -> None:
    await engine.deploy(sample())
    await engine.load(KEY)
    with pytest.raises(EngineTimeout):
        await ask(engine, "a", deadline=time.monotonic() - 1)
    counters, _state = engine.metrics()[KEY]
    assert counters.batch_size.count == 0 and counters.errors["ENGINE_TIMEOUT"] == 1


async def test_a_stream_that_ignores_its_end_has_its_worker_replaced(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haat.models.engines.local.batches.STOP_SECONDS", 0.2)
    await engine.deploy(sample(streams=True))
    stream = engine.stream(KEY, Input("one hang"), Ticket())
    pid = (await anext(stream))["pid"]
    await stream.aclose()  # type: ignore[attr-defined]
    await until(lambda: not is_running(pid))
    assert (await ask(engine, "a"))[0]["pid"] != pid


async def test_a_stream_that_falls_silent_is_ended(engine: LocalEngine) -> None:
    await engine.deploy(sample(streams=True, timeout_seconds=0.5))
    await engine.load(KEY)
    with pytest.raises(EngineTimeout):
        async for _ in engine.stream(KEY, Input("one hang"), Ticket()):
            pass


async def test_a_stream_may_take_longer_than_the_timeout_while_it_says_something(engine: LocalEngine) -> None:
    await engine.deploy(sample(streams=True, timeout_seconds=0.5))
    await engine.load(KEY)
    stream = engine.stream(KEY, Input("count 0.1"), Ticket())
    parts = [await anext(stream) for _ in range(12)]
    await stream.aclose()  # type: ignore[attr-defined]
    assert parts[-1]["text"] == "12"


async def test_a_slow_reader_holds_the_model_back(engine: LocalEngine) -> None:
    await engine.deploy(sample(streams=True))
    stream = engine.stream(KEY, Input("count"), Ticket())
    pid = (await anext(stream))["pid"]
    await asyncio.sleep(0.3)
    before = psutil.Process(pid).cpu_times().user
    await asyncio.sleep(0.3)
    assert psutil.Process(pid).cpu_times().user - before < 0.05  # it waits for us
    for number in range(2, 2000):
        assert (await anext(stream))["text"] == str(number)
    await stream.aclose()  # type: ignore[attr-defined]


async def test_a_thousand_calls_given_up_leave_nothing_behind(engine: LocalEngine) -> None:
    await engine.deploy(sample(batching=Batching(max_items=100)))
    await engine.load(KEY)
    running = asyncio.create_task(ask(engine, "sleep 3"))
    await until(lambda: engine.state(KEY).in_flight == 1)
    calls = [asyncio.create_task(ask(engine, str(number))) for number in range(1000)]
    await until(lambda: engine.state(KEY).queued == 1000)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert engine.state(KEY).queued == 0
    await running
    assert engine.metrics()[KEY][0].abandoned == 1000


# --- groups -----------------------------------------------------------------------------------------


async def test_languages_and_lengths_have_batches_of_their_own(engine: LocalEngine) -> None:
    await engine.deploy(sample(batching=Batching(group_by=("language", "length"))))
    await engine.load(KEY)
    running = asyncio.create_task(ask(engine, "sleep 0.2"))
    await until(lambda: engine.state(KEY).in_flight == 1)
    inputs = [
        Input("short", config={"language": "hi-Deva"}),
        Input("a" * 4000, config={"language": "hi-Deva"}),
        Input("short", config={"language": "ta-Taml"}),
        Input("brief", config={"language": "hi-Deva"}),
    ]
    outputs = await engine.run(KEY, inputs, Ticket())
    await running
    assert [len(output["batch"]) for output in outputs] == [2, 1, 1, 2]


async def test_a_batch_holds_no_more_than_it_may_cost(engine: LocalEngine) -> None:
    await engine.deploy(sample(batching=Batching(cost="characters", max_cost=10)))
    outputs = await ask(engine, "aaaa", "bbbb", "cccc", "d" * 50, "e")
    assert all(len(output["batch"]) == 1 or len("".join(output["batch"])) <= 10 for output in outputs)


# --- processes --------------------------------------------------------------------------------------


async def test_a_model_gets_none_of_the_platforms_settings(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAAT_DATABASE_URL", "secret")
    await engine.deploy(sample(environment={"MODEL_SIZE": "small"}))
    pid = (await ask(engine, "a"))[0]["pid"]
    environment = psutil.Process(pid).environ()
    assert not [name for name in environment if name.startswith("HAAT_")]
    assert environment["MODEL_SIZE"] == "small"


async def test_what_a_worker_has_started_goes_with_it(engine: LocalEngine, tmp_path: Path) -> None:
    program = Manifest("sample", "command", "sh -c 'sleep 86000 & read text; wait'", timeout_seconds=600)
    await engine.deploy(Model(KEY, program, tmp_path))
    asking = asyncio.create_task(outcome(ask(engine, "a")))
    await until(lambda: any(worker.pid for worker in engine._pools[KEY].workers))
    [pid] = [worker.pid for worker in engine._pools[KEY].workers]
    await until(lambda: len(psutil.Process(pid).children(recursive=True)) > 1)
    children = psutil.Process(pid).children(recursive=True)
    await engine.stop()  # to remove the model would be to wait for it
    await asking
    await until(lambda: not is_running(pid) and not any(is_running(child.pid) for child in children))


async def test_nothing_runs_after_the_end() -> None:
    engine = LocalEngine()
    await engine.start()
    await engine.deploy(sample(workers=Workers(least=2, most=2)))
    await engine.load(KEY)
    running = asyncio.create_task(outcome(ask(engine, "sleep 30")))
    await until(lambda: engine.state(KEY).in_flight == 1)
    pids = [worker.pid for pool in engine._pools.values() for worker in pool.workers]
    began = time.monotonic()
    await engine.stop()
    assert time.monotonic() - began < 5
    assert isinstance(await running, EngineFailed)
    assert not any(is_running(pid) for pid in pids)


async def test_workers_die_with_the_engine_even_at_work(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, sys\n"
        "from haat.models.engines.local import LocalEngine\n"
        "from models.engines.contract import KEY, ask, sample, until\n"
        "async def main():\n"
        "    engine = LocalEngine()\n"
        "    await engine.deploy(sample())\n"
        "    print((await ask(engine, 'a'))[0]['pid'], flush=True)\n"
        "    await ask(engine, 'hang')\n"
        "asyncio.run(main())\n"
    )
    tests = str(Path(__file__).parents[2])
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": tests}
    )
    assert process.stdout is not None
    pid = int(await asyncio.wait_for(process.stdout.readline(), 30))
    process.kill()
    await process.wait()
    await until(lambda: not is_running(pid))


async def test_a_worker_that_writes_rubbish_is_replaced(engine: LocalEngine) -> None:
    await engine.deploy(sample())
    assert isinstance(await outcome(ask(engine, "rubbish")), EngineFailed)
    assert (await ask(engine, "a"))[0]["text"] == "A"


@pytest.mark.parametrize("lie", range(5))
async def test_a_worker_that_lies_is_replaced(engine: LocalEngine, lie: int) -> None:
    await engine.deploy(sample())
    assert isinstance(await outcome(ask(engine, f"lie {lie}")), EngineFailed)
    assert (await ask(engine, "a"))[0]["text"] == "A"
    await asyncio.wait_for(engine.remove(KEY), 10)  # nothing is left that it would wait for


async def test_a_stream_whose_worker_lies_ends(engine: LocalEngine) -> None:
    await engine.deploy(sample(streams=True))
    with pytest.raises(EngineFailed):
        async for _ in engine.stream(KEY, Input("one lie"), Ticket()):
            pass
    assert (await ask(engine, "a"))[0]["text"] == "A"


async def test_what_a_lost_worker_was_at_is_run_by_another(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.deploy(sample(workers=Workers(least=2, most=2)))
    await engine.load(KEY)
    monkeypatch.setattr(engine, "hire", lambda _: asyncio.sleep(60))  # no other comes
    call = asyncio.create_task(ask(engine, "sleep 0.2 a", "sleep 0.2 b"))
    await until(lambda: engine.state(KEY).in_flight == 2)
    next(worker for worker in engine._pools[KEY].workers if worker.busy).kill()
    assert len(await asyncio.wait_for(call, 5)) == 2


async def test_a_lost_worker_is_tried_for_again_when_there_was_no_room(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haat.models.engines.local.crew.RETRY_SECONDS", 0.1)
    await engine.deploy(sample(workers=Workers(least=2, most=2)))
    await engine.load(KEY)
    refused = []
    hire = engine.hire

    async def refuse_twice(crew: Crew) -> WorkerProcess:
        if len(refused) < 2:
            refused.append(crew)
            raise Overloaded
        return await hire(crew)

    monkeypatch.setattr(engine, "hire", refuse_twice)
    engine._pools[KEY].workers[0].kill()
    await until(lambda: len(refused) == 2 and engine.state(KEY).workers == 2)


async def test_a_broken_model_is_not_started_again_and_again(engine: LocalEngine) -> None:
    await engine.deploy(sample(entry="sample:Broken"))
    for _ in range(20):
        with pytest.raises(EngineFailed):
            await ask(engine, "a")
    assert engine.metrics()[KEY][0].errors["ENGINE_FAILED"] == 20
    pool = engine._pools[KEY]
    assert pool.crew._failures == 1  # the second attempt comes after a second at the soonest


async def test_a_model_warms_up_with_its_sample(engine: LocalEngine) -> None:
    await engine.deploy(sample(sample={"input": [{"text": "sleep 0.3"}]}))
    began = time.monotonic()
    await engine.load(KEY)
    assert time.monotonic() - began > 0.3


async def test_a_sample_that_fails_is_told_and_no_hindrance(
    engine: LocalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    await engine.deploy(sample(sample={"input": [{"text": "raise"}]}))
    assert (await ask(engine, "a"))[0]["text"] == "A"
    assert "fails on its own sample" in caplog.text


async def test_of_several_workers_one_crash_disturbs_only_its_own_batch(engine: LocalEngine) -> None:
    await engine.deploy(sample(batching=Batching(max_items=1), workers=Workers(least=3, most=3)))
    await engine.load(KEY)
    calls = [asyncio.create_task(outcome(ask(engine, "sleep 0.3"))) for _ in range(3)]
    await until(lambda: engine.state(KEY).in_flight == 3)
    answer = await outcome(ask(engine, "exit"))
    assert isinstance(answer, EngineFailed)
    assert [(await call)[0]["text"] for call in calls] == ["SLEEP 0.3"] * 3
    await until(lambda: engine.state(KEY).workers == 3)


@pytest.mark.verify
async def test_a_kill_under_load_costs_at_most_a_batch_and_two_seconds(engine: LocalEngine) -> None:
    await engine.deploy(sample(entry="sample:steady", workers=Workers(least=2, most=2)))
    await engine.load(KEY)
    other = "shop/other@1.0.0"
    await engine.deploy(sample(other, entry="sample:steady"))
    await engine.load(other)
    stop, answers = time.monotonic() + 6, []

    async def caller(key: str) -> None:
        while time.monotonic() < stop:
            began = time.monotonic()
            answers.append((key, await outcome(ask(engine, "a", key=key)), began, time.monotonic()))

    callers = [asyncio.create_task(caller(key)) for key in (KEY, other) for _ in range(32)]
    for _ in range(3):
        await asyncio.sleep(1.5)
        os.kill(engine._pools[KEY].workers[0].pid, signal.SIGKILL)
        killed = time.monotonic()
        await until(lambda: engine.state(KEY).workers < 2)
        await until(lambda: engine.state(KEY).workers == 2)
        assert time.monotonic() - killed < 2
    await asyncio.gather(*callers)
    failed = [answer for answer in answers if isinstance(answer[1], HaatError)]
    assert not failed, f"{len(failed)} of {len(answers)}"  # its batch was run again
    assert max(ended - began for key, _, began, ended in answers if key == other) < 1.5


async def test_contents_of_any_size_arrive_whole_and_none_is_another_calls(engine: LocalEngine) -> None:
    await engine.deploy(sample(entry="sample:digest"))
    await engine.load(KEY)
    sizes = (0, 1, 65_535, 65_536, 65_537, 1_000_000, 9_000_000, 40_000_000)
    contents = [os.urandom(size) for size in (*sizes, *sizes)]
    answers = await asyncio.gather(*(engine.run(KEY, [Input(content=one)], Ticket()) for one in contents))
    assert [answer[0]["digest"] for answer in answers] == [hashlib.sha256(one).hexdigest() for one in contents]


def test_the_memory_a_worker_shares_can_not_be_made_smaller() -> None:
    region = Region.new()
    assert region is not None
    with pytest.raises(PermissionError):
        os.ftruncate(region.descriptor, 0)
    region.close()


# --- sharing ----------------------------------------------------------------------------------------


async def test_small_models_share_a_worker(engine: LocalEngine) -> None:
    keys = [f"shop/small-{number}@1.0.0" for number in range(5)]
    for key in keys:
        await engine.deploy(sample(key, workers=Workers(shared=True)))
    answers = await asyncio.gather(*(ask(engine, "a", "b", key=key) for key in keys))
    assert len({answer[0]["pid"] for answer in answers}) == 1
    many = await asyncio.gather(*(ask(engine, str(n), key=keys[n % 5]) for n in range(200)))
    assert [answer[0]["text"] for answer in many] == [str(n) for n in range(200)]


async def test_models_of_different_providers_never_share(engine: LocalEngine) -> None:
    keys = [f"{provider}/small@1.0.0" for provider in ("shop", "mill")]
    for key in keys:
        await engine.deploy(sample(key, workers=Workers(shared=True)))
    answers = await asyncio.gather(*(ask(engine, "a", key=key) for key in keys))
    assert len({answer[0]["pid"] for answer in answers}) == 2


async def test_who_shares_and_crashes_takes_nobody_along(engine: LocalEngine) -> None:
    good, bad = "shop/good@1.0.0", "shop/bad@1.0.0"
    for key in (good, bad):
        await engine.deploy(sample(key, workers=Workers(shared=True)))
        await engine.load(key)
    answers = await asyncio.gather(
        *(outcome(ask(engine, f"sleep 0.0{n % 3}", key=good)) for n in range(20)), outcome(ask(engine, "exit", key=bad))
    )
    assert isinstance(answers[-1], EngineFailed)
    assert not [answer for answer in answers[:-1] if isinstance(answer, HaatError)]


async def test_a_shared_worker_ends_with_its_last_model(engine: LocalEngine) -> None:
    first, second = "shop/first@1.0.0", "shop/second@1.0.0"
    for key in (first, second):
        await engine.deploy(sample(key, workers=Workers(shared=True)))
    pid = (await ask(engine, "a", key=first))[0]["pid"]
    await engine.load(second)
    await engine.unload(first)
    assert (await ask(engine, "a", key=second))[0]["pid"] == pid
    await engine.unload(second)
    await until(lambda: not is_running(pid))


# --- memory -----------------------------------------------------------------------------------------


async def test_the_least_recently_used_makes_room() -> None:
    engine = LocalEngine(memory_limit=190 * MEGABYTE)
    await engine.start()
    try:
        keys = [f"shop/model-{number}@1.0.0" for number in range(6)]
        for key in keys:
            await engine.deploy(sample(key, memory_mb=80, sample={"input": [{"text": "grow 30"}]}))
        for key in keys:
            assert (await ask(engine, "a", key=key))[0]["text"] == "A"
            assert engine.memory() <= engine.memory_limit
        assert engine.state(keys[0]).status is Status.UNLOADED
        assert engine.state(keys[-1]).status is not Status.UNLOADED
        assert (await ask(engine, "a", key=keys[0]))[0]["text"] == "A"
    finally:
        await engine.stop()


async def test_what_is_busy_or_to_be_kept_is_not_unloaded_and_who_finds_no_room_is_refused() -> None:
    engine = LocalEngine(memory_limit=100 * MEGABYTE)
    await engine.start()
    try:
        kept, busy, late = (f"shop/{name}@1.0.0" for name in ("kept", "busy", "late"))
        await engine.deploy(sample(kept, memory_mb=40, preload=True))
        await engine.deploy(sample(busy, memory_mb=50))
        await engine.deploy(sample(late, memory_mb=90))
        running = asyncio.create_task(ask(engine, "sleep 0.5", key=busy))
        await until(lambda: engine.state(busy).in_flight == 1)
        assert isinstance(await outcome(ask(engine, "a", key=late)), Overloaded)
        assert (await running)[0]["text"] == "SLEEP 0.5"
        assert engine.state(kept).status is Status.READY
    finally:
        await engine.stop()


async def test_a_model_that_takes_more_than_it_says_is_not_loaded(engine: LocalEngine) -> None:
    await engine.deploy(sample(memory_mb=40, sample={"input": [{"text": "grow 80"}]}))
    with pytest.raises(EngineFailed, match="memory_mb"):
        await ask(engine, "a")


async def test_a_worker_that_leaks_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MEASURE_SECONDS", 0.05)
    engine = LocalEngine()
    await engine.start()
    try:
        await engine.deploy(sample(memory_mb=60))
        pid = (await ask(engine, "a"))[0]["pid"]
        with pytest.raises(EngineFailed, match="memory_mb"):
            await ask(engine, "grow 100")
        await until(lambda: not is_running(pid))
        assert (await ask(engine, "a"))[0]["pid"] != pid
    finally:
        await engine.stop()


@pytest.mark.verify
async def test_of_a_thousand_models_twenty_hot_ones_stay() -> None:
    engine = LocalEngine(memory_limit=600 * MEGABYTE)
    await engine.start()
    try:
        keys = [f"shop/model-{number}@1.0.0" for number in range(1000)]
        for key in keys:
            await engine.deploy(sample(key, memory_mb=30))
        hot, cold = keys[:20], keys[20:]
        for _ in range(5):
            await asyncio.gather(*(ask(engine, "a", key=key) for key in hot))
        loads = {key: engine.metrics()[key][0].loads for key in hot}
        most, stop = 0, asyncio.Event()

        async def keep_hot() -> None:
            while not stop.is_set():
                for key in hot:
                    await ask(engine, "a", key=key)
                await asyncio.sleep(0.2)

        heating = asyncio.create_task(keep_hot())
        for number in range(150):
            await ask(engine, "a", key=cold[number * 6])
            most = max(most, engine.memory())
        stop.set()
        await heating
        assert most <= engine.memory_limit
        assert {key: engine.metrics()[key][0].loads for key in hot} == loads
    finally:
        await engine.stop()


# --- what is told -----------------------------------------------------------------------------------


async def test_counts_are_told_to_prometheus(engine: LocalEngine) -> None:
    await engine.deploy(sample())
    await ask(engine, "a", "b")
    await outcome(ask(engine, "raise"))
    text = metrics.render(engine.metrics())
    for line in (
        f'models_calls_total{{model="{KEY}"}} 2',
        f'models_inputs_total{{model="{KEY}"}} 3',
        f'models_errors_total{{model="{KEY}",code="ENGINE_FAILED"}} 1',
        f'models_batch_size_bucket{{model="{KEY}",le="2"}} 2',
        f'models_batch_size_sum{{model="{KEY}"}} 3',
        f'models_load_seconds_count{{model="{KEY}"}} 1',
        f'models_up{{model="{KEY}"}} 1',
    ):
        assert line in text.splitlines()
    state = engine.state(KEY)
    assert state.memory_bytes > MEGABYTE
    assert 0 < state.latency_p95 < 10


async def test_a_sampled_call_leaves_its_spans_in_the_log(
    engine: LocalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "haat.models.traces")
    await engine.deploy(sample())
    await engine.load(KEY)
    trace, other, span = "a" * 32, "b" * 32, "c" * 16
    await asyncio.gather(
        ask(engine, "a", trace=f"00-{trace}-{span}-01", request_id="call-7"),
        ask(engine, "b", trace=f"00-{other}-{span}-00"),
        ask(engine, "c", trace="rubbish"),
    )
    spans: list[dict[str, Any]] = [
        msgspec.json.decode(record.getMessage()) for record in caplog.records if record.name == "haat.models.traces"
    ]
    queue, batch = spans
    assert (queue["span"], queue["trace_id"], queue["parent_id"], queue["request_id"]) == (
        "queue",
        trace,
        span,
        "call-7",
    )
    assert (batch["span"], batch["trace_id"], batch["model"]) == ("batch", trace, KEY)
    assert batch["links"] == [{"trace_id": trace, "span_id": span}]


# --- degraded ---------------------------------------------------------------------------------------


async def test_an_overloaded_model_is_stood_in_for(engine: LocalEngine) -> None:
    cheap, cached = "shop/cheap@1.0.0", "shop/cached@1.0.0"
    degrading = DegradingEngine(engine)
    rules = {
        KEY: Degraded(instead=cheap),
        cached: Degraded(cached_seconds=60),
    }
    for key, rule in rules.items():
        await degrading.deploy(sample(key, batching=Batching(max_items=1), degraded=rule))
    await degrading.deploy(sample(cheap, entry="sample:steady"))
    assert (await ask(degrading, "known", key=cached))[0]["text"] == "KNOWN"
    await engine.load(cheap)
    await engine.load(KEY)
    busy = [asyncio.create_task(ask(engine, "sleep 1.5", key=key)) for key in (KEY, cached)]
    await until(lambda: engine.state(KEY).in_flight + engine.state(cached).in_flight == 2)
    busy += [asyncio.create_task(ask(engine, "a", key=key)) for key in (KEY, cached) for _ in range(10)]
    await until(lambda: engine.state(KEY).queued + engine.state(cached).queued == 20)
    ticket = Ticket()
    assert (await degrading.run(KEY, [Input("text")], ticket))[0]["text"] == "text"
    assert ticket.notes == {"degraded": cheap}
    ticket = Ticket()
    assert (await degrading.run(cached, [Input("known")], ticket))[0]["text"] == "KNOWN"
    assert ticket.notes == {"degraded": "cached"}
    ticket = Ticket()
    with pytest.raises(Overloaded):
        await degrading.run(cached, [Input("unknown")], ticket)
    assert ticket.notes == {}
    await asyncio.gather(*busy)


async def test_nobody_stands_in_with_the_model_of_another_provider(engine: LocalEngine) -> None:
    degrading = DegradingEngine(engine)
    other = "mill/cheap@1.0.0"
    await degrading.deploy(sample(batching=Batching(max_items=1), degraded=Degraded(instead=other)))
    await degrading.deploy(sample(other))
    await engine.load(KEY)
    running = [asyncio.create_task(ask(engine, "sleep 0.1")) for _ in range(11)]
    await until(lambda: engine.state(KEY).queued == 10)
    with pytest.raises(Overloaded):
        await ask(degrading, "a")
    await asyncio.gather(*running)


def test_kept_answers_stay_within_their_bound_and_time() -> None:
    answers = Answers(most_bytes=100)
    for number in range(50):
        answers.keep("key", Input(str(number)), {"text": "x" * 20}, now=number)
    assert answers.find("key", Input("49"), oldest=0) == {"text": "x" * 20}
    assert answers.find("key", Input("49", config={"a": 1}), oldest=0) is None
    assert answers.find("other", Input("49"), oldest=0) is None
    assert answers.find("key", Input("49"), oldest=50) is None
    assert answers.find("key", Input("0"), oldest=0) is None
    assert answers._bytes <= 100


def test_the_package_has_no_worker_of_its_own_running() -> None:
    """The tests above leave no worker behind."""
    assert not [child for child in psutil.Process().children() if "haat.models.worker" in " ".join(child.cmdline())]
