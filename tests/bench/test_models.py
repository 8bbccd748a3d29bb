"""Servers of models: what is counted of a crash, and the figures in words."""

from __future__ import annotations

import asyncio
import json
import os
from types import SimpleNamespace

import pytest

from bench import crash
from bench.conditions import Conditions
from bench.crash import Calls, Crash
from bench.load import Target
from bench.many_models import LIMIT_MB, Seen
from bench.measure import Sample
from bench.model_servers import worker_of
from bench.model_words import describe
from bench.models import Found, as_json
from bench.peers import NotInstalled

CONDITIONS = Conditions("2026-01-01", "cpu", 2, 24.0, True, "Linux", "3.11", False, 0.1, 1.0, {})


def sample(rps: float, p50: float = 10.5) -> Sample:
    return Sample(100, 50, rps, p50, 20, 30, 100, 0)


def found(mine: float, litserve: float, ray: float) -> Found:
    result = Found()
    for callers in (32, 128):
        result.samples["haat", "ten", callers] = [sample(mine)]
        result.samples["litserve", "ten", callers] = [sample(litserve)]
        result.samples["ray-serve", "ten", callers] = [sample(ray)]
    result.alone_ms = [10.2, 10.1, 10.0]
    result.samples["haat", "ten", 1] = [sample(95, p50=10.5), sample(94, p50=10.7), sample(90, p50=12.0)]
    return result


def test_a_figure_is_met_or_missed() -> None:
    text = describe(found(2000, 1000, 401), CONDITIONS, quick=False)
    assert "haat, 32 callers: 2.00 × the requests/s of litserve, wanted ≥ 2 ×: met." in text
    assert "haat, 128 callers: 4.99 × the requests/s of ray-serve, wanted ≥ 5 ×: missed." in text
    assert "One caller: 0.60 ms added to the model's 10.10, wanted < 1 ms: met." in text
    assert "haat: 2,000 requests/s with 32 callers, wanted ≥ 200: met." in text


def test_nobody_is_asked_for_more_than_the_model_gives() -> None:
    result = found(2880, 1601, 400)
    result.samples["haat-4-workers", "ten", 128] = [sample(3202)]
    result.samples["litserve-4-workers", "ten", 128] = [sample(1602)]
    text = describe(result, CONDITIONS, quick=False)
    alone = "haat, 128 callers: 1.80 × the requests/s of litserve; 2 × would be more than the model gives (3,200), of "
    assert f"{alone}which it reaches 90%." in text
    assert "haat-4-workers, 128 callers: 2.00 × the requests/s of litserve-4-workers, wanted ≥ 2 ×: missed." in text


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (Crash(100, 3, 0.5, 50, 0), "met"),
        (Crash(100, 3, 2.5, 50, 0), "missed"),
        (Crash(100, 3, None, 50, 0), "missed"),
        (Crash(100, 3, 0.5, 50, 1), "missed"),
    ],
)
def test_a_crash_that_lasts_or_spreads_is_missed(seen: Crash, verdict: str) -> None:
    result = found(2000, 1000, 400)
    result.crashes["haat"] = seen
    assert f"others unaffected: {verdict}." in describe(result, CONDITIONS, quick=False)


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (Seen(calls=9, most_counted_mb=LIMIT_MB, pids={"a": {1}}), "met"),
        (Seen(calls=9, most_counted_mb=LIMIT_MB + 1, pids={"a": {1}}), "missed"),
        (Seen(calls=9, most_counted_mb=9, pids={"a": {1, 2}}), "missed"),
        (Seen(calls=9, failed=1, most_counted_mb=9, pids={"a": {1}}), "missed"),
    ],
)
def test_memory_beyond_the_limit_or_a_hot_model_unloaded_is_missed(seen: Seen, verdict: str) -> None:
    result = found(2000, 1000, 400)
    result.many = seen
    line = next(line for line in describe(result, CONDITIONS, quick=False).splitlines() if "A thousand" in line)
    assert line.endswith(f": {verdict}.")


def test_the_json_has_medians_and_ranges() -> None:
    members = json.loads(as_json(found(2000, 1000, 400), CONDITIONS, quick=True))
    row = next(row for row in members["rows"] if row["server"] == "haat" and row["callers"] == 1)
    assert (row["rps"], row["rps_range"], row["rounds"], row["added_ms"]) == (94, [90, 95], 3, 0.6)
    assert members["conditions"]["quick"] is True


def test_an_answer_names_the_process_that_gave_it() -> None:
    assert worker_of(b'{"output":[{"label":"x","pid":123}]}') == 123
    with pytest.raises(NotInstalled):
        worker_of(b"{}")


def test_it_is_back_with_the_first_call_that_began_afterwards_and_succeeded() -> None:
    calls = Calls([(0.0, 9.0, True), (1.5, 2.0, False), (2.5, 4.0, True), (3.0, 3.5, True)])
    assert calls.recovered(1.0) == 2.5
    assert calls.recovered(3.0) is None
    assert calls.failed == 1


async def test_calls_lost_in_a_crash_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that breaks off all connections once, when its process is 'killed'."""
    monkeypatch.setattr(crash, "BEFORE_SECONDS", 0.5)
    monkeypatch.setattr(crash, "AFTER_SECONDS", 0.5)
    writers: set[asyncio.StreamWriter] = set()
    killed: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\nx")
                await asyncio.sleep(0.01)
                writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"pid":7}')
        except (EOFError, OSError):
            pass
        finally:
            writers.discard(writer)
            writer.close()

    def kill(pid: int, number: int) -> None:
        killed.append(pid)
        for writer in tuple(writers):
            writer.transport.abort()

    monkeypatch.setattr(crash, "ask", lambda port, request: SimpleNamespace(body=b'{"pid":7}'))
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    target = Target("small", port, os.getpid(), "/", b"x")
    with monkeypatch.context() as patched:
        patched.setattr(os, "kill", kill)
        seen = await crash.crash(target, target)
    server.close()
    await server.wait_closed()
    assert killed == [7]
    assert seen.failed == crash.CALLERS
    assert seen.others_failed == crash.OTHERS
    assert seen.back_seconds is not None and seen.back_seconds < 5
