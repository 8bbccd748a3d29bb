"""Try job engines on one PostgreSQL against what the platform asks of them, and print a table.

    python bench/job_engines.py                 # all on an embedded PostgreSQL, about seven minutes
    python bench/job_engines.py --dsn 'user=owner host=/run/postgresql dbname=postgres' procrastinate haat

Every engine runs the same two jobs in worker processes of its own: `small` (one line to a file) and
`long` (a line, some seconds of sleep, a line). The file tells what ran when and where. DBOS is not a
dependency of the platform: this script installs it into an environment of its own, kept in `--work`.
`haat` is what the platform made of the engine it chose (`haat.infra.job_worker`). The databases
`bench_procrastinate`, `bench_dbos` and `bench_haat` are dropped and made anew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

ENGINES = ("procrastinate", "dbos", "haat")
JOBS, DELAYED, LONG_SECONDS, HEARTBEAT, STALLED = 3000, 20_000, 10.0, 5.0, 20.0


def note(log: str, word: str, name: str) -> None:
    """Append one line `word name pid seconds`; O_APPEND keeps lines of several processes whole."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, f"{word} {name} {os.getpid()} {time.time():.6f}\n".encode())
    os.close(descriptor)


# --- the engines, each in its own process ------------------------------------------------------


def procrastinate_app(dsn: str, log: str) -> Any:
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=dsn, min_size=1, max_size=12))

    @app.task(name="small", queue="default")
    async def small(name: str) -> None:
        note(log, "end", name)

    @app.task(name="long", queue="default")
    async def long(name: str) -> None:
        note(log, "start", name)
        await asyncio.sleep(LONG_SECONDS)
        note(log, "end", name)

    return app


async def procrastinate_setup(dsn: str) -> None:
    app = procrastinate_app(dsn, os.devnull)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def procrastinate_enqueue(dsn: str, log: str, task: str, count: int, delay: int) -> None:
    app = procrastinate_app(dsn, log)
    async with app.open_async():
        options = {"schedule_in": {"seconds": delay}} if delay else {}
        names = [{"name": f"{task}{number}"} for number in range(count)]
        for start in range(0, count, 500):
            await app.configure_task(task, **options).batch_defer_async(*names[start : start + 500])


async def procrastinate_worker(dsn: str, log: str) -> None:
    app = procrastinate_app(dsn, log)

    async def recover() -> None:
        """Procrastinate names the jobs of silent workers; putting them back is the application's part."""
        while True:
            for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED):
                await app.job_manager.retry_job(job)
            await asyncio.sleep(HEARTBEAT)

    async with app.open_async():
        sweep = asyncio.create_task(recover())
        await app.run_worker_async(
            concurrency=8,
            fetch_job_polling_interval=1,
            update_heartbeat_interval=HEARTBEAT,
            stalled_worker_timeout=STALLED,
        )
        sweep.cancel()


async def haat_enqueue(dsn: str, log: str, task: str, count: int, delay: int) -> None:
    from haat.infra.jobs import Jobs, NewJob
    from haat.infra.postgres import PUBLIC, Database

    run_at = datetime.now(UTC) + timedelta(seconds=delay) if delay else None
    async with Database(dsn) as db:
        for start in range(0, count, 500):
            async with db.transaction(PUBLIC) as connection:
                numbers = range(start, min(start + 500, count))
                new = [NewJob(task, {"name": f"{task}{number}"}, run_at=run_at) for number in numbers]
                await Jobs(db).defer_many(connection, new)


async def haat_worker(dsn: str, log: str) -> None:
    from haat.infra.job_worker import JobWorker, Pace
    from haat.infra.jobs import Jobs, RunningJob, Task
    from haat.infra.postgres import Database

    async def small(_: Any, job: RunningJob) -> None:
        note(log, "end", job.args["name"])

    async def long(_: Any, job: RunningJob) -> None:
        note(log, "start", job.args["name"])
        await asyncio.sleep(LONG_SECONDS)
        note(log, "end", job.args["name"])

    async with Database(dsn) as db:
        jobs = Jobs(db, [Task("small", small), Task("long", long)])
        await JobWorker(jobs, None, pace=Pace(heartbeat=HEARTBEAT, dead_after=STALLED)).run(asyncio.Event())


def dbos_launch(dsn: str, log: str, executor: str | None, *, worker: bool) -> None:
    dbos: Any = import_module("dbos").DBOS  # installed where this runs, not where it is checked
    config: dict[str, Any] = {
        "name": "bench",
        "system_database_url": dsn,
        "application_version": "1",
        "log_level": "ERROR",
        "notification_listener_polling_interval_sec": 0.1,
    }
    if executor:
        config["executor_id"] = executor
    dbos(config=config)

    async def small_step(name: str) -> None:
        note(log, "end", name)

    async def long_step(name: str) -> None:
        note(log, "start", name)
        await asyncio.sleep(LONG_SECONDS)
        note(log, "end", name)

    small_in_step, long_in_step = dbos.step(name="small_step")(small_step), dbos.step(name="long_step")(long_step)

    async def small(name: str) -> None:
        await small_in_step(name)

    async def long(name: str) -> None:
        await long_in_step(name)

    dbos.workflow(name="small")(small)
    dbos.workflow(name="long")(long)
    if not worker:
        dbos.listen_queues([])
    dbos.launch()
    dbos.register_queue("default", worker_concurrency=8, polling_interval_sec=0.05)


def dbos_enqueue(dsn: str, log: str, task: str, count: int, delay: int) -> None:
    client: Any = import_module("dbos").DBOSClient(system_database_url=dsn)
    for number in range(count):
        options: Any = {"workflow_name": task, "queue_name": "default", "app_version": "1"}
        if delay:
            options["delay_seconds"] = delay
        client.enqueue(options, f"{task}{number}")
    client.destroy()


def dbos_worker(dsn: str, log: str, executor: str | None) -> None:
    dbos_launch(dsn, log, executor, worker=True)
    while True:
        time.sleep(1)


# --- the trial ---------------------------------------------------------------------------------


class Trial:
    """Runs one engine's processes and reads what its jobs wrote."""

    def __init__(self, engine: str, python: str, dsn: str, work: Path) -> None:
        self.engine, self.python, self.dsn = engine, python, dsn
        self.log = work / f"{engine}.log"
        self.workers: list[subprocess.Popen[bytes]] = []

    def command(self, *words: str) -> list[str]:
        return [self.python, __file__, "--dsn", self.dsn, "--log", str(self.log), "--role", *words]

    def enqueue(self, task: str, count: int, delay: int = 0) -> float:
        began = time.monotonic()
        subprocess.run([*self.command("enqueue", self.engine), task, str(count), str(delay)], check=True)
        return time.monotonic() - began

    def start(self, executor: str = "") -> subprocess.Popen[bytes]:
        worker = subprocess.Popen([*self.command("worker", self.engine), executor], stdout=subprocess.DEVNULL)
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.workers.clear()

    def lines(self, word: str) -> list[tuple[str, int, float]]:
        text = self.log.read_text() if self.log.exists() else ""
        rows = [line.split() for line in text.splitlines()]
        return [(row[1], int(row[2]), float(row[3])) for row in rows if row[0] == word]

    def wait(self, word: str, count: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        mark = f"{word} ".encode()
        while time.monotonic() < deadline:  # cheaply: what looks on must not slow down what it looks at
            if self.log.exists() and self.log.read_bytes().count(mark) >= count:
                break
            time.sleep(0.2)
        return len(self.lines(word)) >= count

    def clear(self) -> None:
        self.stop()
        self.log.unlink(missing_ok=True)

    def rate(self, workers: int, jobs: int) -> str:
        """Jobs a second between the first and the last end, all waiting when the workers start, and their CPU."""
        self.clear()
        self.enqueue("small", jobs)
        for number in range(workers):
            self.start(f"rate{number}")
        if not self.wait("end", 1, 60):
            self.clear()
            return "none in 60 s"
        before, cpu = len(self.lines("end")), self.cpu_seconds()
        done = self.wait("end", jobs, 120)
        cpu = self.cpu_seconds() - cpu
        at = sorted(row[2] for row in self.lines("end"))
        self.clear()
        speed = f"{len(at) / (at[-1] - at[0]):.0f}/s" if done else f"only {len(at)} of {jobs} in 120 s"
        return f"{speed}, {cpu / (len(at) - before) * 1e6:.0f} µs of worker CPU a job"

    def cpu_seconds(self) -> float:
        times = [psutil.Process(worker.pid).cpu_times() for worker in self.workers]
        return float(sum(one.user + one.system for one in times))

    def killed(self, first: str, second: str) -> str:
        """Seconds until a job whose worker was killed starts again on a worker that was already running."""
        self.clear()
        victim = self.start(first)
        self.enqueue("long", 1)
        assert self.wait("start", 1, 30), "the job never started"
        self.start(second)
        time.sleep(3)  # both are up; the job is in its first seconds
        reruns = len(self.lines("start")) - 1
        victim.kill()
        at = time.time()
        again = self.wait("start", reruns + 2, 60)
        text = f"{self.lines('start')[-1][2] - at:.1f} s" if again else "not within 60 s"
        self.clear()
        return text

    def rerun(self, first: str, second: str) -> str:
        """How often a live job was started when a second worker came up beside its own."""
        self.clear()
        self.start(first)
        self.enqueue("long", 1)
        assert self.wait("start", 1, 30), "the job never started"
        self.start(second)
        self.wait("end", 1, 30)
        time.sleep(2)
        text = f"{len(self.lines('start'))} start(s)"
        self.clear()
        return text


def prepare(dsn: str, database: str) -> str:
    """Make a database anew and return its connection string, as a URL that both drivers read."""
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {database}")
        info = connection.info
        who = quote(info.user) + (f":{quote(info.password)}" if info.password else "")
        return f"postgresql://{who}@/{database}?host={quote(info.host)}&port={info.port}"


def dbos_python(work: Path) -> str:
    home = work / "dbos"
    if not (home / "bin" / "python").exists():
        venv.create(home, with_pip=True)
        subprocess.run([home / "bin" / "pip", "install", "-q", "dbos>=3.4,<4", "psutil"], check=True)
    return str(home / "bin" / "python")


def trial(engine: str, dsn: str, work: Path) -> None:
    database = prepare(dsn, f"bench_{engine}")
    python = dbos_python(work) if engine == "dbos" else sys.executable
    run = Trial(engine, python, database, work)
    subprocess.run(run.command("setup", engine), check=True)
    same = [("default executor id", "", ""), ("own executor ids", "a", "b")]
    identities = same if engine == "dbos" else [("heartbeats", "", "")]
    print(f"\n{engine}")
    run.clear()
    print(f"  defer {JOBS} small jobs        {JOBS / run.enqueue('small', JOBS):8.0f}/s (process start included)")
    run.start("drain")
    run.wait("end", JOBS, 90)
    for workers in (1, 2):
        print(f"  small jobs, {workers} worker(s)       {run.rate(workers, JOBS):>10}", flush=True)
    for name, first, second in identities:
        print(f"  live job, second worker starts: {run.rerun(first, second)} ({name})", flush=True)
        print(f"  killed worker's job again after {run.killed(first, second)} ({name})", flush=True)
    run.enqueue("small", DELAYED, 7 * 24 * 3600)
    print(f"  small jobs, 2 workers, {DELAYED} waiting for next week {run.rate(2, JOBS):>10}", flush=True)
    run.clear()


def role(words: list[str], dsn: str, log: str) -> None:
    match words:
        case ["setup", "procrastinate"]:
            asyncio.run(procrastinate_setup(dsn))
        case ["setup", "haat"]:
            from haat.infra.migrate import migrate

            migrate(dsn, "0002")
        case ["enqueue", "haat", task, count, delay]:
            asyncio.run(haat_enqueue(dsn, log, task, int(count), int(delay)))
        case ["worker", "haat", _]:
            asyncio.run(haat_worker(dsn, log))
        case ["setup", "dbos"]:
            dbos_launch(dsn, os.devnull, "setup", worker=False)
            os._exit(0)  # its threads would keep the process
        case ["enqueue", "procrastinate", task, count, delay]:
            asyncio.run(procrastinate_enqueue(dsn, log, task, int(count), int(delay)))
        case ["enqueue", "dbos", task, count, delay]:
            dbos_enqueue(dsn, log, task, int(count), int(delay))
        case ["worker", "procrastinate", _]:
            asyncio.run(procrastinate_worker(dsn, log))
        case ["worker", "dbos", executor]:
            dbos_worker(dsn, log, executor or None)
        case _:
            raise SystemExit(f"no such role: {words}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engines", nargs="*", choices=[*ENGINES, []], default=[])
    parser.add_argument("--dsn", help="PostgreSQL to use as an owner of databases; default: an embedded one")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "haat-bench-jobs")
    parser.add_argument("--log", help=argparse.SUPPRESS)
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        role(options.role, options.dsn, options.log)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        dsn = options.dsn or stack.enter_context(embedded(options.work))
        for engine in options.engines or ENGINES:
            trial(engine, dsn, options.work)


@contextlib.contextmanager
def embedded(work: Path) -> Iterator[str]:
    """Run the platform's own PostgreSQL below ``work`` and yield its owner's connection string."""
    from haat.infra.dsn import dsn_for
    from haat.infra.keyring import Keyring
    from haat.infra.prepare import database_server
    from haat.settings import Settings

    settings = Settings(data_dir=work / "data", database_url=None)
    keyring = Keyring.load(settings.data_dir)
    with database_server(settings, keyring):
        yield dsn_for(settings, keyring, "owner")


if __name__ == "__main__":
    main()
