from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.errors import (
    EngineFailed,
    EngineMissing,
    EngineTimeout,
    HaatError,
    Overloaded,
    UnsupportedLanguage,
    ValidationFailed,
)
from haat.models.engine_worker import error_named
from haat.models.execution import Execution, Places
from haat.models.hosted import Item, Output, Units
from haat.plugins.manager import hosted_services
from haat.providers import programs


@pytest.fixture
async def execution(unruly: None) -> AsyncIterator[Execution]:
    execution = Execution(hosted_services())
    yield execution
    await execution.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition about real processes holds, at most ten seconds."""
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true in time")


async def run(execution: Execution, path: str, *texts: str) -> tuple[list[Output], Units]:
    return await execution.run(execution.services[path], [Item(text=text) for text in texts], {})


async def test_a_worker_process_answers_whatever_the_engine_prints(execution: Execution) -> None:
    outputs, units = await run(execution, "unruly/worker", "नमस्ते", "b")
    assert [output["text"] for output in outputs] == ["नमस्ते", "b"]
    assert outputs[0]["pid"] != os.getpid()
    assert units == {"characters": Decimal("1.50")}


async def test_a_worker_is_used_again(execution: Execution) -> None:
    first, _ = await run(execution, "unruly/worker", "a")
    second, _ = await run(execution, "unruly/worker", "b")
    assert first[0]["pid"] == second[0]["pid"]


@pytest.mark.parametrize("what", ["crash", "exit"])
async def test_a_worker_that_dies_fails_its_call_and_is_replaced(execution: Execution, what: str) -> None:
    with pytest.raises(EngineFailed):
        await run(execution, "unruly/worker", what)
    outputs, _ = await run(execution, "unruly/worker", "again")
    assert outputs[0]["text"] == "again"


async def test_a_worker_that_died_between_calls_costs_nobody_a_call(execution: Execution) -> None:
    outputs, _ = await run(execution, "unruly/worker", "a")
    os.kill(outputs[0]["pid"], 9)
    await until(lambda: all(worker.returncode is not None for worker in execution._workers._alive))
    assert (await run(execution, "unruly/worker", "b"))[0][0]["text"] == "b"


async def test_a_hanging_worker_is_killed_in_time(execution: Execution) -> None:
    began = time.monotonic()
    with pytest.raises(EngineTimeout):
        await run(execution, "unruly/worker", "hang")
    assert time.monotonic() - began < 5
    assert (await run(execution, "unruly/worker", "again"))[0][0]["text"] == "again"


async def test_an_answer_nobody_waits_for_is_never_given_to_somebody_else(execution: Execution) -> None:
    await run(execution, "unruly/worker", "warm")
    left = asyncio.create_task(run(execution, "unruly/worker", "hang"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait({left})
    for text in ("one", "two", "three"):
        assert (await run(execution, "unruly/worker", text))[0][0]["text"] == text


@pytest.mark.parametrize("path", ["unruly/worker", "unruly/inline"])
async def test_what_an_engine_raises_does_not_leave_the_house(
    execution: Execution, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(EngineFailed) as failure:
        await run(execution, path, "raise")
    assert "secret" not in failure.value.detail
    with pytest.raises(UnsupportedLanguage, match="Not this one") as refusal:
        await run(execution, path, "refuse")
    assert refusal.value.extensions == {"supported": ["hi-Deva"]}


async def test_many_calls_at_once_are_all_answered_with_their_own(execution: Execution) -> None:
    texts = [f"call {number}" for number in range(40)]
    answers = await asyncio.gather(*(run(execution, "unruly/worker", text) for text in texts))
    assert [outputs[0]["text"] for outputs, _ in answers] == texts
    assert len({outputs[0]["pid"] for outputs, _ in answers}) >= 2


async def test_programs_of_a_call_end_with_its_time(execution: Execution) -> None:
    assert (await run(execution, "unruly/program", "echo hello"))[0] == [{"text": "hello\n"}]
    began = time.monotonic()
    with pytest.raises(EngineTimeout):
        await run(execution, "unruly/program", "sleep 0.7", "sleep 0.7; sleep 86393")
    assert time.monotonic() - began < 5


async def test_the_loop_goes_on_while_a_program_runs(execution: Execution) -> None:
    slow = asyncio.create_task(run(execution, "unruly/program", "sleep 0.5"))
    turns = 0
    while not slow.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 10


async def test_a_missing_engine_is_named_before_anything_runs(execution: Execution) -> None:
    with pytest.raises(EngineMissing, match="make engines"):
        await run(execution, "unruly/absent", "echo")


async def test_warming_up_makes_inline_engines_answer_in_place(unruly: None) -> None:
    services = {path: service for path, service in hosted_services().items() if path.startswith("unruly/")}
    execution = Execution(services)
    try:
        await execution.warm_up()
        assert execution._warm == {"unruly/inline"}
        assert (await run(execution, "unruly/inline", "a"))[0][0]["pid"] == os.getpid()
    finally:
        await execution.stop()


async def test_a_full_queue_refuses_at_once_and_a_slow_one_after_a_while() -> None:
    places = Places(1, most_waiting=1, wait_seconds=0.05)
    async with places.one():
        waiting = asyncio.create_task(places.take())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refusal:
            await places.take()
        assert refusal.value.extensions == {"retry_after": 2}
        with pytest.raises(Overloaded):
            await waiting
    async with places.one():  # the place was given back, and nothing of the refused is left
        pass


@given(st.lists(st.sampled_from(["take", "leave", "give back", "turn"]), max_size=40))
def test_no_place_is_ever_lost_or_doubled(steps: list[str]) -> None:
    async def play() -> None:
        places, waiting, held = Places(2, most_waiting=3), list[asyncio.Task[None]](), 0
        for step in steps:
            if step == "take":
                waiting.append(asyncio.create_task(places.take()))
            elif step == "leave" and waiting:
                waiting[-1].cancel()
            elif step == "give back" and held:
                places.give_back()
                held -= 1
            elif step == "turn":
                await asyncio.sleep(0)
            done = [task for task in waiting if task.done()]
            waiting = [task for task in waiting if not task.done()]
            held += sum(not task.cancelled() and task.exception() is None for task in done)
            assert held <= 2
        for task in waiting:
            task.cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        for _ in range(held + results.count(None)):
            places.give_back()
        for _ in range(2):
            await places.take()
        late = asyncio.create_task(places.take())
        await asyncio.sleep(0)
        assert not late.done()
        places.give_back()
        await late

    asyncio.run(play())


async def test_stopping_ends_workers_and_programs(unruly: None) -> None:
    execution = Execution(hosted_services())
    calls = [
        asyncio.create_task(run(execution, "unruly/worker", "hang")),
        asyncio.create_task(run(execution, "unruly/program", "sleep 86392")),
    ]
    await until(lambda: bool(execution._workers._alive and programs._running))
    began = time.monotonic()
    await execution.stop()
    assert time.monotonic() - began < 5
    assert all(isinstance(result, HaatError) for result in await asyncio.gather(*calls, return_exceptions=True))


def test_an_error_crosses_the_pipe_as_what_it_was() -> None:
    error = error_named("VALIDATION_FAILED", "Correct it.", {"errors": []})
    assert type(error) is ValidationFailed
    assert error.problem("id")["errors"] == []
    assert type(error_named("NO_SUCH_CODE", "x", {})) is EngineFailed


def test_a_worker_whose_server_was_killed_ends_without_complaint() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "haat.models.engine_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as worker:
        assert worker.stdin is not None and worker.stdout is not None and worker.stderr is not None
        worker.stdout.close()
        complaint = worker.stderr.read().decode()
        assert worker.wait(20) == 0, complaint
    assert "Traceback" not in complaint
