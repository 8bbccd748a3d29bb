"""``data_dir/run``: who serves this data directory, as which processes, at which addresses."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import psutil

from haat.settings import Settings


@dataclass(slots=True)
class ProcessStatus:
    """One supervised process. ``created`` tells it from a later one with the same id."""

    pid: int
    created: float
    restarts: int = 0


@dataclass(slots=True)
class Status:
    """What `haat serve` writes down about itself."""

    pid: int
    port: int
    gateway_port: int
    models_port: int
    portal: str
    gateway: str
    processes: dict[str, ProcessStatus] = field(default_factory=dict)

    def write(self, data_dir: Path) -> None:
        """Replace the status file whole, so that a reader never meets half of one."""
        fresh = _status_file(data_dir).with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=2) + "\n")
        fresh.replace(_status_file(data_dir))


def _status_file(data_dir: Path) -> Path:
    return data_dir / "run" / "status.json"


def read_status(data_dir: Path) -> Status | None:
    """Return what the present, or a killed, `haat serve` wrote, or None."""
    try:
        found = json.loads(_status_file(data_dir).read_text())
        processes = {name: ProcessStatus(**one) for name, one in found.pop("processes").items()}
        return Status(**found, processes=processes)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        return None


def remove_status(data_dir: Path) -> None:
    _status_file(data_dir).unlink(missing_ok=True)


def take_serve_lock(data_dir: Path) -> int | None:
    """Return the descriptor of the lock that one `haat serve` holds, or None when another has it."""
    (data_dir / "run").mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data_dir / "run" / "serve.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def running_status(data_dir: Path) -> Status | None:
    """Return the status of the `haat serve` that runs on ``data_dir`` now, or None."""
    status = read_status(data_dir)
    if status is None:
        return None
    descriptor = take_serve_lock(data_dir)
    if descriptor is None:
        return status
    os.close(descriptor)
    return None


def settings_of_running(settings: Settings) -> Settings:
    """Return settings with the ports that the running platform really has; refuse when none runs."""
    status = running_status(settings.data_dir)
    if status is None:
        raise click.ClickException(
            f"Haat does not run on {settings.data_dir}: start it with `haat serve`, or give its --data-dir."
        )
    return settings.model_copy(
        update={"port": status.port, "gateway_port": status.gateway_port, "models_port": status.models_port}
    )


def stale_processes(data_dir: Path) -> list[psutil.Process]:
    """Return the processes that a killed `haat serve` left behind, and only those."""
    status = read_status(data_dir)
    found = []
    for one in status.processes.values() if status else ():
        try:
            process = psutil.Process(one.pid)
            if abs(process.create_time() - one.created) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
