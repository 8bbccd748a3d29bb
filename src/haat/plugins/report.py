"""What each gateway says about its plugins: a file a worker, which commands read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from haat.plugins.registry import Loaded, Row


class Counts(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a plugin has done since it was made; ``slow`` counts hooks beyond its ``slow_ms``."""

    calls: int = 0
    failures: int = 0
    slow: int = 0
    ms: float = 0.0


class Report(msgspec.Struct, frozen=True):
    """What runs in one worker."""

    worker: str
    pid: int
    revision: int
    """Of the switches that it has taken over."""
    order: dict[str, list[str]]
    """Stages and plugins, in order, by the pass of a call."""
    rows: list[Row]
    counts: dict[str, Counts] = {}


_decoder = msgspec.json.Decoder(Report)


def report_of(loaded: Loaded, worker: str, revision: int) -> Report:
    counts = {
        name: Counts(owner.calls, owner.failures, owner.slow, round(owner.seconds * 1000, 1))
        for name, owner in loaded.running.items()
    }
    return Report(worker, os.getpid(), revision, loaded.order, loaded.rows, counts)


def reports_folder(data_dir: Path) -> Path:
    return data_dir / "gateway" / "plugins"


def write(folder: Path, report: Report) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{report.worker}.json"
    fresh = path.with_name(f".{path.name}.{report.pid}")
    fresh.write_bytes(msgspec.json.encode(report))
    fresh.replace(path)


def withdraw(folder: Path, worker: str) -> None:
    (folder / f"{worker}.json").unlink(missing_ok=True)


def read_all(folder: Path) -> Iterator[Report]:
    """Return the reports of the workers that are alive."""
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            report = _decoder.decode(path.read_bytes())
            os.kill(report.pid, 0)
        except (OSError, msgspec.MsgspecError):
            continue  # it has just ended, or left its file behind when it was killed
        yield report
