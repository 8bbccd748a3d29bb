"""Under which conditions something was measured: the machine, what else ran on it, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from haat.kernel import compiled

_NOTED_PERCENT = 1.0
_PACKAGES = ("haat", "uvloop", "httptools", "msgspec")


@dataclass(slots=True)
class Conditions:
    """``others`` are programs that used the processor just before the run, with their share of one core."""

    at: str
    processor: str
    cores: int
    memory_gb: float
    virtual: bool
    system: str
    python: str
    compiled: bool | None
    """The gateway's hot path ran in its compiled form; None where no gateway ran."""
    load_before: float
    busy_percent_before: float
    others: dict[str, float]
    versions: dict[str, str] = field(default_factory=dict)
    load_after: float = 0.0
    minutes: float = 0.0
    stolen_percent: float = 0.0
    """Time that the machine below us gave to others, in percent of all cores' time during the run."""

    def sentences(self) -> list[str]:
        """Say the same as text."""
        virtual = "virtual " if self.virtual else ""
        others = ", ".join(f"{name} {share:.0f} %" for name, share in self.others.items()) or "nothing of note"
        hot_path = "" if self.compiled is None else f", hot path {'compiled' if self.compiled else 'interpreted'}"
        return [
            f"Measured {self.at} on {self.cores} {virtual}cores ({self.processor}), {self.memory_gb:.0f} GB, "
            f"{self.system}, CPython {self.python}{hot_path}; {self.minutes:.0f} minutes.",
            f"Load average {self.load_before:.2f} before and {self.load_after:.2f} after the run, which is its own "
            f"load; before it {self.busy_percent_before:.1f} % of the processor was busy (in percent of a core: "
            f"{others}). {self.stolen_percent:.1f} % of the time was stolen by the host.",
            "Versions: " + ", ".join(f"{name} {version}" for name, version in self.versions.items()) + ".",
        ]


def look(seconds: float = 2.0) -> Conditions:
    """Watch the machine for some seconds before anything is started."""
    load = os.getloadavg()[0]
    psutil.cpu_percent()
    others = _shares(seconds)
    busy = psutil.cpu_percent()
    return Conditions(
        at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gb=psutil.virtual_memory().total / (1 << 30),
        virtual="hypervisor" in _cpuinfo(),
        system=f"Linux {platform.release()}",
        python=platform.python_version(),
        compiled=compiled.is_used(),
        load_before=load,
        busy_percent_before=busy,
        others=others,
        versions={name: importlib.metadata.version(name) for name in _PACKAGES},
    )


def stolen_seconds() -> float:
    """Return the time stolen from all cores since the machine started."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


def finish(conditions: Conditions, began: float, stolen_before: float) -> None:
    """Note how long the run took (``began`` is of time.monotonic) and what happened meanwhile."""
    seconds = time.monotonic() - began
    conditions.minutes = seconds / 60
    conditions.load_after = os.getloadavg()[0]
    conditions.stolen_percent = (stolen_seconds() - stolen_before) / (seconds * conditions.cores) * 100


def version_of(command: Sequence[str]) -> str:
    """Return the first number with dots that a program prints when it is asked."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(?:\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "unknown"


def _used() -> dict[int, tuple[str, float]]:
    """Return name and CPU seconds so far of every other process, by its pid."""
    used: dict[int, tuple[str, float]] = {}
    for process in psutil.process_iter(["name", "cpu_times", "pid"]):
        seen: dict[str, Any] = process.info
        if seen["pid"] != os.getpid() and seen["cpu_times"] is not None:
            used[seen["pid"]] = seen["name"], seen["cpu_times"].user + seen["cpu_times"].system
    return used


def _shares(seconds: float) -> dict[str, float]:
    """Watch for some seconds; return what each program used, in percent of a core, the busiest first."""
    before, began = _used(), time.monotonic()
    time.sleep(seconds)
    after, spent = _used(), time.monotonic() - began
    shares: dict[str, float] = {}
    for pid, (name, now) in after.items():
        share = (now - before.get(pid, (name, 0.0))[1]) / spent * 100
        shares[name] = shares.get(name, 0.0) + share
    noted = [(name, round(share, 1)) for name, share in shares.items() if share >= _NOTED_PERCENT]
    return dict(sorted(noted, key=lambda item: -item[1]))


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return found[1] if found else platform.machine()
