"""The supervisor: children are started again, stopped in order, and their logs don't grow without end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from haat.cli.supervisor import Supervisor, end_processes, rotate

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-uc",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(60)",
]


class Watched(Supervisor):
    """A supervisor that keeps what it said."""

    def __init__(self, logs: Path | None) -> None:
        self.said: list[str] = []
        super().__init__(logs, os.environ, self.said.append, lambda: None)

    def pid(self, name: str) -> int:
        process = self.children[name].process
        assert process is not None
        return process.pid


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


async def test_a_child_that_is_killed_is_started_again(tmp_path: Path) -> None:
    supervisor = Watched(tmp_path)
    await supervisor.start("sleeper", SLEEPER)
    first = supervisor.pid("sleeper")
    os.kill(first, signal.SIGKILL)
    await until(lambda: supervisor.pid("sleeper") != first)
    assert supervisor.children["sleeper"].restarts == 1
    assert "SIGKILL" in supervisor.said[0]
    await supervisor.stop([["sleeper"]], 5)


async def test_a_child_that_keeps_failing_is_started_more_and_more_slowly(tmp_path: Path) -> None:
    supervisor = Watched(tmp_path)
    await supervisor.start("failing", [sys.executable, "-c", "raise SystemExit(3)"])
    await until(lambda: len(supervisor.said) >= 3)
    await supervisor.stop([["failing"]], 5)
    assert [sentence.rpartition("again in ")[2] for sentence in supervisor.said[:3]] == ["0.1 s", "0.2 s", "0.4 s"]


async def test_a_task_that_is_done_is_not_started_again(tmp_path: Path) -> None:
    supervisor = Watched(tmp_path)
    await supervisor.start("task", [sys.executable, "-c", ""], once=True)
    watcher = supervisor.children["task"].watcher
    assert watcher is not None
    async with asyncio.timeout(10):
        await watcher
    assert supervisor.said == []
    assert supervisor.children["task"].restarts == 0


async def test_children_stop_in_the_order_of_their_stages(tmp_path: Path) -> None:
    supervisor = Watched(tmp_path)
    note = "import signal, sys, time\ndef end(*_):\n  open(sys.argv[2], 'a').write(sys.argv[1]); sys.exit()\n"
    note += "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(60)"
    order = tmp_path / "order"
    for name in "cba":
        await supervisor.start(name, [sys.executable, "-c", note, name, str(order)])
    await until(lambda: all((tmp_path / f"{name}.log").read_text() for name in "abc"))
    await supervisor.stop([["a"], ["b"], ["c"]], 10)
    assert order.read_text() == "abc"


async def test_a_child_that_does_not_listen_is_killed_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haat.cli.supervisor._LEAST_GRACE", 0.1)
    supervisor = Watched(tmp_path)
    await supervisor.start("stubborn", STUBBORN)
    await until(lambda: (tmp_path / "stubborn.log").read_text())
    await supervisor.stop([["stubborn"]], 0)
    process = supervisor.children["stubborn"].process
    assert process is not None
    assert process.returncode == -signal.SIGKILL
    assert supervisor.said == ["stubborn does not stop in time and is killed"]


async def test_lines_can_go_to_standard_error_with_the_childs_name(capfd: pytest.CaptureFixture[str]) -> None:
    supervisor = Watched(None)
    await supervisor.start("talker", [sys.executable, "-c", "print('हाट')"], once=True)
    watcher = supervisor.children["talker"].watcher
    assert watcher is not None
    await watcher
    said = ""
    async with asyncio.timeout(10):
        while "हाट" not in said:
            said += capfd.readouterr().err
            await asyncio.sleep(0.01)
    assert said == "talker   हाट\n"
    await supervisor.stop([["talker"]], 1)


def test_processes_of_somebody_else_are_ended_even_if_they_do_not_listen() -> None:
    with (
        subprocess.Popen(SLEEPER) as sleeper,
        subprocess.Popen(STUBBORN, stdout=subprocess.PIPE) as stubborn,
    ):
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        strangers = [psutil.Process(sleeper.pid), psutil.Process(stubborn.pid)]
        asyncio.run(end_processes(strangers, 0.3))
        assert [process.is_running() for process in strangers] == [False, False]


def test_a_log_that_grew_too_long_is_put_aside_and_the_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "gateway.log"
    with log.open("a") as writer:
        for generation in range(5):
            writer.write(f"{generation}" * 20 + "\n")
            writer.flush()
            rotate(log, most_bytes=10, kept=3)
        writer.write("short\n")
        writer.flush()
        rotate(log, most_bytes=10, kept=3)
    assert log.read_text() == "short\n"
    kept = {path.name: path.read_text()[0] for path in tmp_path.glob("*.log.*")}
    assert kept == {"gateway.log.1": "4", "gateway.log.2": "3", "gateway.log.3": "2"}
