"""A closed-loop load from wrk: each connection sends the next request when it has the last answer."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import Sample, cpu, rss_megabytes
from bench.processes import LOOPBACK

CONNECTIONS = 64
LONGEST_ANSWER_SECONDS = 30
_SCRIPT = Path(__file__).with_name("call.lua")


class LoadFailed(Exception):
    """wrk did not run to its end; the sentence is its own."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load: where the requests go, what they are, and the process tree that pays."""

    name: str
    port: int
    pid: int
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    keys: Path | None = None
    """A file of API keys, one a line, to be used in turn."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What wrk saw. ``errors`` are answers of 400 and above, broken connections and timeouts."""

    requests: int
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int


def parse_outcome(text: str) -> Outcome:
    """Read what `call.lua` prints at the end; raise LoadFailed when it isn't there."""
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "result":
            return Outcome(**json.loads(rest))
    raise LoadFailed(f"wrk ended without a result: {text.strip()[-500:]}")


def run_wrk(target: Target, seconds: int, connections: int = CONNECTIONS) -> Outcome:
    """Load a target for whole seconds."""
    with tempfile.NamedTemporaryFile(prefix="haat-bench-body-") as body:
        body.write(target.body)
        body.flush()
        headers = [part for header in target.headers.items() for part in header]
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={LONGEST_ANSWER_SECONDS}s"]
        command += ["--latency", "-s", str(_SCRIPT), f"http://{LOOPBACK}:{target.port}{target.path}", "--"]
        command += [body.name, str(target.keys or "-"), *headers]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadFailed(f"wrk against {target.name}: {(done.stderr or done.stdout).strip()[-500:]}")
    return parse_outcome(done.stdout)


def measure(target: Target, seconds: int, connections: int = CONNECTIONS) -> Sample:
    """Load a target and return what it cost. Memory is read at the end of the load."""
    before = cpu(target.pid)
    seen = run_wrk(target, seconds, connections)
    spent, in_kernel = cpu(target.pid).since(before, seen.requests)
    return Sample(
        cpu_us_per_request=spent,
        system_us_per_request=in_kernel,
        rps=seen.requests / seen.seconds,
        p50_ms=seen.p50_ms,
        p95_ms=seen.p95_ms,
        p99_ms=seen.p99_ms,
        rss_mb=rss_megabytes(target.pid),
        errors=seen.errors,
    )
