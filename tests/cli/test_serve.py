"""`haat serve` as an operator meets it: started, hurt, killed, started again, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from haat.cli.run_folder import running_status
from haat.cli.serve import FIRST, THEN
from haat.infra import bridge_client
from haat.infra.embedded import EmbeddedPostgres
from haat.infra.keyring import Keyring

pytestmark = pytest.mark.verify

ROLES = {*FIRST, *THEN}


class Serve:
    """`haat serve` processes on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.started: list[subprocess.Popen[bytes]] = []

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "haat.cli.main", *words, "--data-dir", str(self.data_dir)]

    def environment(self) -> dict[str, str]:
        ports = dict.fromkeys(("HAAT_PORT", "HAAT_GATEWAY_PORT", "HAAT_MODELS_PORT"), "0")
        return {**os.environ, **ports, "HAAT_SHUTDOWN_SECONDS": "10"}

    def start(self) -> subprocess.Popen[bytes]:
        """Start it and return when every process of the family has been started."""
        with (self.data_dir / "serve.log").open("ab") as log:
            process = subprocess.Popen(self.command("serve"), env=self.environment(), stdout=log, stderr=log)
        self.started.append(process)
        self.until(lambda: self.status().get("pid") == process.pid and self.pids().keys() >= ROLES)
        return process

    def until(self, condition: Callable[[], object], seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            said = (self.data_dir / "serve.log").read_text()
            assert time.monotonic() < deadline, f"it did not happen in time; serve said: {said}"
            assert self.started[-1].poll() is None or self.started[-1].returncode <= 0, said
            time.sleep(0.02)

    def status(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.data_dir / "run" / "status.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def pids(self) -> dict[str, int]:
        return {name: process["pid"] for name, process in self.status().get("processes", {}).items()}

    def postgres(self) -> int | None:
        return EmbeddedPostgres(self.data_dir, Keyring.load(self.data_dir), "haat-postgres").server_pid()


@pytest.fixture
def serve(data_dir: Path) -> Iterator[Serve]:
    running = Serve(data_dir)
    try:
        yield running
    finally:
        left = [*running.pids().values()]
        for process in running.started:
            process.terminate()
            process.wait(60)
        for pid in left:
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)
        EmbeddedPostgres(data_dir, Keyring.load(data_dir), "haat-postgres").stop(3)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_it_starts_every_process_and_stops_all_of_them(serve: Serve) -> None:
    process = serve.start()
    pids = serve.pids()
    database = serve.postgres()
    assert database is not None
    assert {path.stem for path in (serve.data_dir / "logs").glob("*.log")} >= ROLES
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert [name for name, pid in pids.items() if not gone(pid)] == []
    assert gone(database)
    assert serve.status() == {}


def test_the_bridge_runs_once_somebody_comes_to_it(serve: Serve) -> None:
    process = serve.start()
    assert "bridge" not in serve.pids()

    async def come() -> int:
        async with bridge_client.client(serve.data_dir) as client:
            return (await client.get(f"http://{bridge_client.HOST}/v2", timeout=60)).status_code

    assert asyncio.run(come()) == 400
    bridge = serve.pids()["bridge"]
    os.kill(bridge, signal.SIGKILL)
    assert asyncio.run(come()) == 400
    bridge = serve.pids()["bridge"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert gone(bridge) and not bridge_client.runs(serve.data_dir)


def test_a_killed_child_is_started_again(serve: Serve) -> None:
    serve.start()
    before = serve.pids()["worker"]
    os.kill(before, signal.SIGKILL)
    serve.until(lambda: serve.pids().get("worker", before) != before)
    assert serve.status()["processes"]["worker"]["restarts"] == 1


def test_a_killed_database_is_started_again(serve: Serve) -> None:
    serve.start()
    before = serve.postgres()
    assert before is not None
    os.kill(before, signal.SIGKILL)
    serve.until(lambda: serve.postgres() not in (None, before))


def test_after_its_own_death_the_next_one_adopts_the_database_and_ends_what_was_left(serve: Serve) -> None:
    first = serve.start()
    left, database = serve.pids(), serve.postgres()
    first.kill()
    first.wait(10)
    assert serve.postgres() == database, "the database outlives its supervisor"
    assert not gone(left["worker"]), "and so do its siblings"
    second = serve.start()
    assert serve.postgres() == database
    assert [name for name, pid in left.items() if pid not in serve.pids().values() and not gone(pid)] == []
    second.send_signal(signal.SIGINT)
    assert second.wait(60) == 0
    assert serve.postgres() is None


def test_a_second_one_on_the_same_data_is_refused_and_told_about_the_first(serve: Serve) -> None:
    first = serve.start()
    status = running_status(serve.data_dir)
    assert status is not None
    second = subprocess.run(
        serve.command("serve"), env=serve.environment(), capture_output=True, text=True, timeout=30, check=False
    )
    assert second.returncode == 1
    assert f"Haat already runs on {serve.data_dir} (as process {first.pid}, portal {status.portal})" in second.stderr
    assert first.poll() is None


def test_migrate_beside_it_leaves_the_database_running(serve: Serve) -> None:
    serve.start()
    database = serve.postgres()
    checked = subprocess.run(
        serve.command("migrate", "--check"),
        env=serve.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "newest revision" in checked.stdout
    assert serve.postgres() == database
