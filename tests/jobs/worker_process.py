"""A job worker in a process of its own, for tests that kill it: ``python worker_process.py DSN FILE NORMAL|FAST``.

The task `slow` writes one line when it begins and one when it ends three seconds later.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from haat.infra.job_worker import JobWorker, Pace
from haat.infra.jobs import Jobs, RunningJob, Task
from haat.infra.postgres import Database

PACES = {"NORMAL": Pace(), "FAST": Pace(heartbeat=0.3, dead_after=2, poll=0.1)}


async def main(dsn: str, file: Path, pace: str) -> None:
    def line(word: str) -> None:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{word} {os.getpid()}\n".encode())
        os.close(descriptor)

    async def slow(_: Any, job: RunningJob) -> None:
        line("begin")
        await asyncio.sleep(3)
        line("end")

    async with Database(dsn) as db:
        await JobWorker(Jobs(db, [Task("slow", slow)]), None, pace=PACES[pace]).run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
