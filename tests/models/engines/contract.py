"""What every engine does. A subclass gives the fixture ``engine``: one that is started, and stopped afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from haat.kernel.errors import EngineFailed, EngineTimeout, HaatError, InputTooLong, Overloaded, ServiceNotFound
from haat.models.engines.port import Engine, Model, Status, Ticket
from haat.models.manifest import Batching, Manifest, Workers
from haat.models.runtimes.port import Input

SAMPLE = Path(__file__).parent / "sample"
KEY = "shop/sample@1.0.0"


def sample(key: str = KEY, entry: str = "sample:Sample", **more: Any) -> Model:
    """Return a model of the sample's kind; ``more`` are members of its manifest."""
    return Model(key, Manifest(name="sample", runtime="python", entry=entry, **more), SAMPLE)


async def ask(engine: Engine, *texts: str, key: str = KEY, **ticket: Any) -> list[dict[str, Any]]:
    """Run a call of some texts."""
    return await engine.run(key, [Input(text) for text in texts], Ticket(**ticket))


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.005)


async def outcome(call: Awaitable[Any]) -> Any:
    """Return what a call returns or raises."""
    try:
        return await call
    except HaatError as error:
        return error


class EngineContract:
    # --- calls --------------------------------------------------------------------------------------

    async def test_each_input_has_its_output_in_its_place(self, engine: Engine) -> None:
        await engine.deploy(sample())
        outputs = await ask(engine, "c", "a", "b")
        assert [output["text"] for output in outputs] == ["C", "A", "B"]

    async def test_a_call_of_nothing_is_answered_with_nothing(self, engine: Engine) -> None:
        await engine.deploy(sample())
        assert await engine.run(KEY, [], Ticket()) == []

    async def test_a_call_may_be_larger_than_a_batch(self, engine: Engine) -> None:
        await engine.deploy(sample(batching=Batching(max_items=4)))
        texts = [f"text {number}" for number in range(30)]
        outputs = await ask(engine, *texts)
        assert [output["text"] for output in outputs] == [text.upper() for text in texts]
        assert max(len(output["batch"]) for output in outputs) <= 4

    async def test_content_arrives_as_it_was_sent(self, engine: Engine) -> None:
        await engine.deploy(sample(entry="sample:steady"))
        given = Input("नमस्ते \U0001f600", "", os.urandom(3_000_000), "wav", {"language": "hi-Deva"})
        assert (await engine.run(KEY, [given], Ticket()))[0]["text"] == given.text

    async def test_calls_that_come_together_share_batches(self, engine: Engine) -> None:
        await engine.deploy(sample())
        await engine.load(KEY)
        running = asyncio.create_task(ask(engine, "sleep 0.3"))
        await until(lambda: engine.state(KEY).in_flight == 1)
        tickets = [Ticket() for _ in range(20)]
        answers = await asyncio.gather(*(engine.run(KEY, [Input(f"n{i}")], t) for i, t in enumerate(tickets)))
        await running
        assert [answer[0]["text"] for answer in answers] == [f"N{i}" for i in range(20)]
        assert max(ticket.batch for ticket in tickets) >= 10
        assert all(ticket.queued > 0 for ticket in tickets)

    async def test_a_ticket_says_how_long_it_took(self, engine: Engine) -> None:
        await engine.deploy(sample())
        ticket = Ticket()
        await engine.run(KEY, [Input("sleep 0.05")], ticket)
        assert 0.05 <= ticket.ran < 5
        assert ticket.loaded > 0
        assert ticket.batch == 1

    async def test_who_is_not_known_is_not_found(self, engine: Engine) -> None:
        with pytest.raises(ServiceNotFound):
            await ask(engine, "a")
        with pytest.raises(ServiceNotFound):
            async for _ in engine.stream(KEY, Input("a"), Ticket()):
                pass
        with pytest.raises(KeyError):
            engine.state(KEY)

    # --- errors -------------------------------------------------------------------------------------

    @pytest.mark.parametrize("bad", ["raise", "few", "nan", "number", "object", "half"])
    async def test_one_bad_input_spoils_no_other_call(self, engine: Engine, bad: str) -> None:
        await engine.deploy(sample(batching=Batching(max_items=16)))
        await engine.load(KEY)
        running = asyncio.create_task(ask(engine, "sleep 0.2"))
        await until(lambda: engine.state(KEY).in_flight == 1)
        texts = [bad if number == 5 else f"good {number}" for number in range(16)]
        answers = await asyncio.gather(*(outcome(ask(engine, text)) for text in texts))
        await running
        for text, answer in zip(texts, answers, strict=True):
            if text == bad:
                assert isinstance(answer, EngineFailed)
                assert "secret" not in answer.detail
            else:
                assert answer[0]["text"] == text.upper()

    async def test_what_is_no_number_is_named(self, engine: Engine) -> None:
        await engine.deploy(sample())
        with pytest.raises(EngineFailed, match=r"output\.scores\[1\] is nan"):
            await ask(engine, "nan")

    async def test_a_refusal_of_the_model_reaches_its_caller_only(self, engine: Engine) -> None:
        await engine.deploy(sample())
        refused, fine = await asyncio.gather(outcome(ask(engine, "refuse")), outcome(ask(engine, "fine")))
        assert isinstance(refused, InputTooLong)
        assert refused.extensions == {"limit": 3}
        assert fine[0]["text"] == "FINE"

    @pytest.mark.parametrize("bad", ["exit", "kill", "leave"])
    async def test_a_worker_that_ends_is_replaced_and_only_the_bad_call_fails(self, engine: Engine, bad: str) -> None:
        await engine.deploy(sample(batching=Batching(max_items=4)))
        await engine.load(KEY)
        running = asyncio.create_task(ask(engine, "sleep 0.2"))
        await until(lambda: engine.state(KEY).in_flight == 1)
        answers = await asyncio.gather(*(outcome(ask(engine, text)) for text in ("a", bad, "b", "c")))
        await running
        assert isinstance(answers[1], EngineFailed)
        assert [answer[0]["text"] for answer in (answers[0], *answers[2:])] == ["A", "B", "C"]
        assert (await ask(engine, "again"))[0]["text"] == "AGAIN"

    async def test_what_a_model_prints_disturbs_nobody(self, engine: Engine) -> None:
        await engine.deploy(sample())
        assert (await ask(engine, "print"))[0]["text"] == "PRINT"
        assert (await ask(engine, "a"))[0]["text"] == "A"

    async def test_a_model_that_forks_goes_on(self, engine: Engine) -> None:
        await engine.deploy(sample())
        assert (await ask(engine, "fork"))[0]["text"] == "FORK"
        assert (await ask(engine, "a"))[0]["text"] == "A"

    async def test_a_model_that_can_not_be_loaded_says_so(self, engine: Engine) -> None:
        await engine.deploy(sample(entry="sample:Broken"))
        with pytest.raises(EngineFailed):
            await ask(engine, "a")
        assert engine.state(KEY).status is Status.ERROR
        assert engine.state(KEY).error

    async def test_a_model_that_fails_at_everything_fails_everybody(self, engine: Engine) -> None:
        await engine.deploy(sample(entry="sample:Useless"))
        answers = await asyncio.gather(*(outcome(ask(engine, str(number))) for number in range(20)))
        assert all(isinstance(answer, EngineFailed) for answer in answers)

    # --- time ---------------------------------------------------------------------------------------

    async def test_a_model_that_hangs_is_given_up_and_comes_back(self, engine: Engine) -> None:
        await engine.deploy(sample(timeout_seconds=1.0))
        await engine.load(KEY)
        began = time.monotonic()
        with pytest.raises(EngineTimeout):
            await ask(engine, "hang")
        assert time.monotonic() - began < 5
        deadline = time.monotonic() + 20
        while isinstance(answer := await outcome(ask(engine, "a")), HaatError):
            assert time.monotonic() < deadline
        assert answer[0]["text"] == "A"

    async def test_a_deadline_holds_in_the_queue(self, engine: Engine) -> None:
        await engine.deploy(sample(batching=Batching(max_items=1)))
        await engine.load(KEY)
        running = asyncio.create_task(ask(engine, "sleep 1"))
        await until(lambda: engine.state(KEY).in_flight == 1)
        began = time.monotonic()
        with pytest.raises(EngineTimeout):
            await ask(engine, "a", deadline=time.monotonic() + 0.2)
        assert time.monotonic() - began < 0.9
        await running

    async def test_beyond_ten_batches_calls_are_refused(self, engine: Engine) -> None:
        await engine.deploy(sample(batching=Batching(max_items=2)))
        await engine.load(KEY)
        running = asyncio.create_task(ask(engine, "sleep 1", "sleep 1"))
        await until(lambda: engine.state(KEY).in_flight == 2)
        answers = await asyncio.gather(*(outcome(ask(engine, str(number))) for number in range(40)))
        await running
        refused = [answer for answer in answers if isinstance(answer, Overloaded)]
        assert len(refused) == 20
        assert all(refusal.extensions["retry_after"] >= 1 for refusal in refused)

    async def test_who_waits_is_told_the_place(self, engine: Engine) -> None:
        await engine.deploy(sample(batching=Batching(max_items=1)))
        await engine.load(KEY)
        running = asyncio.create_task(ask(engine, "sleep 0.5"))
        await until(lambda: engine.state(KEY).in_flight == 1)
        places: list[int] = []
        calls = [asyncio.create_task(ask(engine, "a")) for _ in range(3)]
        await until(lambda: engine.state(KEY).queued == 3)
        await ask(engine, "b", on_place=places.append)
        await asyncio.gather(running, *calls)
        assert places == sorted(places, reverse=True)
        assert places[0] == 4
        assert places[-1] <= 1

    async def test_priority_goes_first(self, engine: Engine) -> None:
        await engine.deploy(sample(batching=Batching(max_items=1)))
        await engine.load(KEY)
        running = asyncio.create_task(ask(engine, "sleep 0.5"))
        await until(lambda: engine.state(KEY).in_flight == 1)
        done: list[int] = []

        async def call(priority: int) -> None:
            await ask(engine, "sleep 0.02", priority=priority)
            done.append(priority)

        await asyncio.gather(running, *(call(priority) for priority in (1, 5, 10, 3, 8)))
        assert done == [10, 8, 5, 3, 1]

    # --- giving up ----------------------------------------------------------------------------------

    async def test_a_call_that_is_given_up_leaves_the_queue(self, engine: Engine) -> None:
        await engine.deploy(sample(batching=Batching(max_items=1)))
        await engine.load(KEY)
        running = asyncio.create_task(ask(engine, "sleep 0.5"))
        await until(lambda: engine.state(KEY).in_flight == 1)
        call = asyncio.create_task(ask(engine, "a", "b"))
        await until(lambda: engine.state(KEY).queued == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: engine.state(KEY).queued == 0, 0.3)
        await running

    async def test_a_stream_comes_in_parts(self, engine: Engine) -> None:
        await engine.deploy(sample(streams=True))
        parts = [part["text"] async for part in engine.stream(KEY, Input("one two three"), Ticket())]
        assert parts == ["one", "two", "three"]

    async def test_a_stream_is_not_gathered_before_it_is_given(self, engine: Engine) -> None:
        await engine.deploy(sample(streams=True))
        stream = engine.stream(KEY, Input("count 0.05"), Ticket())
        assert [(await anext(stream))["text"] for _ in range(3)] == ["1", "2", "3"]
        await stream.aclose()

    async def test_a_stream_that_is_closed_ends_the_work(self, engine: Engine) -> None:
        await engine.deploy(sample(streams=True))
        stream = engine.stream(KEY, Input("count 0.01"), Ticket())
        await anext(stream)
        await stream.aclose()
        await until(lambda: engine.state(KEY).in_flight == 0)
        assert (await ask(engine, "a"))[0]["text"] == "A"

    @pytest.mark.parametrize("bad", ["raise", "kill"])
    async def test_a_stream_that_breaks_says_so_after_its_parts(self, engine: Engine, bad: str) -> None:
        await engine.deploy(sample(streams=True))
        parts = []
        with pytest.raises(EngineFailed):
            async for part in engine.stream(KEY, Input(f"one two {bad}"), Ticket()):
                parts.append(part["text"])
        assert parts[:1] == ["one"]
        assert (await ask(engine, "a"))[0]["text"] == "A"

    # --- models -------------------------------------------------------------------------------------

    async def test_a_model_is_loaded_by_its_first_call(self, engine: Engine) -> None:
        await engine.deploy(sample())
        assert engine.state(KEY).status is Status.UNLOADED
        await ask(engine, "a")
        assert engine.state(KEY).status in (Status.READY, Status.BUSY)
        assert engine.state(KEY).workers == 1

    async def test_a_model_that_says_so_is_loaded_at_once(self, engine: Engine) -> None:
        await engine.deploy(sample(preload=True))
        await until(lambda: engine.state(KEY).status is Status.READY)

    async def test_an_unloaded_model_comes_back_with_the_next_call(self, engine: Engine) -> None:
        await engine.deploy(sample())
        await engine.load(KEY)
        await engine.unload(KEY)
        assert engine.state(KEY).status is Status.UNLOADED
        assert (await ask(engine, "a"))[0]["text"] == "A"

    async def test_models_are_listed_until_they_are_removed(self, engine: Engine) -> None:
        await engine.deploy(sample())
        await engine.deploy(sample("shop/other@1.0.0"))
        assert {model.key for model in engine.models()} == {KEY, "shop/other@1.0.0"}
        await engine.remove(KEY)
        await engine.remove(KEY)
        assert {model.key for model in engine.models()} == {"shop/other@1.0.0"}

    async def test_a_removed_model_ends_what_it_is_doing(self, engine: Engine) -> None:
        await engine.deploy(sample())
        await engine.load(KEY)
        running = asyncio.create_task(ask(engine, "sleep 0.3"))
        await until(lambda: engine.state(KEY).in_flight == 1)
        await engine.remove(KEY)
        assert (await running)[0]["text"] == "SLEEP 0.3"

    async def test_a_model_of_the_same_key_takes_the_place_of_the_one_before(self, engine: Engine) -> None:
        await engine.deploy(sample())
        await ask(engine, "a")
        await engine.deploy(sample(entry="sample:steady"))
        assert (await ask(engine, "a"))[0]["text"] == "a"

    async def test_several_workers_work_at_the_same_time(self, engine: Engine) -> None:
        await engine.deploy(sample(batching=Batching(max_items=1), workers=Workers(least=1, most=3)))
        await engine.load(KEY)
        await engine.scale(KEY, 3)
        await until(lambda: engine.state(KEY).workers == 3, 30)
        answers = await asyncio.gather(*(ask(engine, "sleep 0.3") for _ in range(6)))
        assert len({answer[0]["pid"] for answer in answers}) == 3
        await engine.scale(KEY, 1)
        await until(lambda: engine.state(KEY).workers == 1, 30)

    async def test_workers_keep_within_their_bounds(self, engine: Engine) -> None:
        await engine.deploy(sample(workers=Workers(least=1, most=2)))
        await engine.load(KEY)
        await engine.scale(KEY, 50)
        await until(lambda: engine.state(KEY).workers == 2, 30)
        await engine.scale(KEY, 0)
        await until(lambda: engine.state(KEY).workers == 1, 30)

    async def test_a_worker_that_is_killed_idle_is_replaced(self, engine: Engine) -> None:
        await engine.deploy(sample())
        pid = (await ask(engine, "a"))[0]["pid"]
        os.kill(pid, signal.SIGKILL)
        answer = await outcome(ask(engine, "b"))
        while isinstance(answer, HaatError):  # an engine may find out by the first call
            answer = await outcome(ask(engine, "b"))
        assert answer[0]["pid"] != pid
