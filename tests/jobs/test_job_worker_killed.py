"""A worker killed with SIGKILL in the middle of a job: another one runs the job again, soon and once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from haat.infra.jobs import Jobs, Task
from jobs.job_rig import defer, job_of, until

PROGRAM = Path(__file__).with_name("worker_process.py")


async def _never_here(*_: Any) -> None:
    raise AssertionError("the job runs in worker processes only")


@contextmanager
def worker(dsn: str, file: Path, pace: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, PROGRAM, dsn, file, pace])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("pace", "seconds"),
    [pytest.param("FAST", 15.0, id="fast"), pytest.param("NORMAL", 60.0, id="normal", marks=pytest.mark.verify)],
)
async def test_a_killed_workers_job_is_recovered_by_another(
    database: Any, tmp_path: Path, pace: str, seconds: float
) -> None:
    jobs = Jobs(database.app, [Task("slow", _never_here)])
    identifier = await defer(jobs, "slow")
    file = tmp_path / "lines"

    def lines() -> list[str]:
        return file.read_text().splitlines() if file.exists() else []

    async def begun() -> bool:
        return bool(lines())

    async def succeeded() -> bool:
        return (await job_of(jobs, identifier)).status == "succeeded"

    with worker(database.app.dsn, file, pace) as victim:
        await until(begun)
        with worker(database.app.dsn, file, pace) as heir:
            victim.kill()
            killed_at = time.monotonic()
            await until(succeeded, seconds=seconds)
            assert time.monotonic() - killed_at < seconds
            assert lines() == [f"begin {victim.pid}", f"begin {heir.pid}", f"end {heir.pid}"]
    job = await job_of(jobs, identifier)
    assert job.attempts == 2
    assert "The worker died during attempt 1." in job.error
