"""The tour's job of ten thousand items, in the middle of which two processes are killed."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from haat.cli.hosting_result import JOB_ITEMS, HostingResult
from haat.cli.people import TourFailed, checked
from haat.cli.run_folder import read_status
from haat.cli.sentences import HINDI, MARATHI
from haat.infra.job_worker import Pace

if TYPE_CHECKING:
    from haat.cli.tour import Tour

_TEXTS = (*HINDI, *MARATHI)
_KILL_WORKER_AT, _KILL_MODEL_AT = 3_000, 6_000
_WAIT_SECONDS = 300.0
_METER_SECONDS = 60.0


class LongJob:
    """Hands a job in, does harm to it, and looks at what has become of each item."""

    def __init__(self, tour: Tour, data_dir: Path, listing: str, key: str) -> None:
        self._tour, self._data_dir = tour, data_dir
        self._listing, self._headers = listing, {"Authorization": f"Bearer {key}"}
        self._texts = [f"{_TEXTS[number % len(_TEXTS)]} {number}" for number in range(JOB_ITEMS)]
        self._job = ""

    async def run(self, result: HostingResult) -> None:
        """Work the job off, with a progress bar."""
        columns = (
            TextColumn("  [bold]A job[/bold]   {task.description:<28}"),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._tour.console) as progress:
            task = progress.add_task(f"of {JOB_ITEMS:,} items", total=JOB_ITEMS)
            began = time.perf_counter()
            self._job = (await self._hand_in())["id"]
            while True:
                job = await self._ask(f"/v1/jobs/{self._job}")
                done = job["items"]["total"] - job["items"]["waiting"]
                progress.update(task, completed=done)
                if job["ended_at"] is not None:
                    break
                if time.perf_counter() - began > _WAIT_SECONDS:
                    raise TourFailed(f"The job has not ended: {job}")
                self._do_harm(done, result)
                await asyncio.sleep(0.25)
            result.job_seconds = time.perf_counter() - began
        if job["status"] != "completed":
            raise TourFailed(f"The job ended otherwise than it must: {job}")
        await self._read_results(result)
        result.characters = sum(len(text) for text in self._texts)
        self._tour.say(
            f"{result.statuses['succeeded']:,} of {result.items:,} items have succeeded, in {result.job_seconds:.0f} s"
        )

    async def _hand_in(self) -> Any:
        lines = "".join(json.dumps({"input": [{"text": text}]}, ensure_ascii=False) + "\n" for text in self._texts)
        response = await self._tour.gateway.post(
            "/v1/jobs",
            params={"service": self._listing, "name": "aksharas", "priority": 10},
            content=lines.encode(),
            headers={**self._headers, "Content-Type": "application/jsonl"},
        )
        return checked(response)

    async def _ask(self, path: str) -> Any:
        return checked(await self._tour.gateway.get(path, headers=self._headers))

    def _do_harm(self, done: int, result: HostingResult) -> None:
        """Kill the process that works on the job, and later those that run the model's versions, each once."""
        if done >= _KILL_WORKER_AT and "worker" not in result.killed:
            worker = self._process("worker")
            worker.kill()
            result.killed.append("worker")
            self._tour.say(f"after {done:,} items: SIGKILL to the worker, process {worker.pid};")
            self._tour.say(f"another takes the job over when it has been silent for {Pace().dead_after:.0f} s")
        elif done >= _KILL_MODEL_AT and "model" not in result.killed:
            killed = []
            for child in self._process("models").children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "haat.models.worker" in child.cmdline():
                        child.kill()
                        killed.append(str(child.pid))
            if killed:
                result.killed.append("model")
                self._tour.say(f"after {done:,} items: SIGKILL to the model's processes, {', '.join(killed)}")

    def _process(self, name: str) -> psutil.Process:
        """Return one of the processes that our own platform has started; raise TourFailed when it isn't there."""
        status = read_status(self._data_dir)
        written = status.processes.get(name) if status else None
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(written.pid) if written else None
            if process is not None and written is not None and abs(process.create_time() - written.created) < 1:
                return process
        raise TourFailed(f"The platform's {name} process is not there to be killed.")

    async def _read_results(self, result: HostingResult) -> None:
        response = await self._tour.gateway.get(f"/v1/jobs/{self._job}/results", headers=self._headers)
        if not response.is_success:
            checked(response)
        lines = [json.loads(line) for line in response.text.splitlines()]
        result.items = len({line["index"] for line in lines})
        result.items_twice = len(lines) - len({line["request_id"] for line in lines})
        result.statuses = Counter(line["status"] for line in lines)

    async def meter(self, result: HostingResult) -> None:
        """Wait until the job's calls are in the usage store, and add up what was counted for them."""
        deadline = time.monotonic() + _METER_SECONDS
        while True:
            rows = await self._usage()
            if sum(_billed(row) for row in rows) >= result.items or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.5)
        await asyncio.sleep(1)  # none may come twice
        rows = await self._usage()
        result.usage_events = sum(_billed(row) for row in rows)
        result.repeated = sum(row["outcome"] in ("completed", "client_left") and not _billed(row) for row in rows)
        result.metered_characters = int(sum(Decimal(row["characters"] or 0) for row in rows))

    async def _usage(self) -> list[dict[str, str]]:
        """Return what the usage store has of the job's calls."""
        response = await self._tour.developer.try_("GET", "/usage/calls.csv", tag=f"job={self._job}")
        if not response.is_success:
            checked(response)
        return list(csv.DictReader(io.StringIO(response.text)))


def _billed(row: dict[str, str]) -> int:
    """Return 1 for a call that was executed and sold, 0 for refusals and repeated answers."""
    return int(Decimal(row["requests"] or 0))
