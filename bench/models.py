"""What serving a model costs, beside other servers of models.

    python -m bench.models [--quick] [--rows haat,litserve,…] [--no-docs]

Every server runs the same two models and is started anew in each round, the one after the other, so that none is
idle beside another that is measured. The results go to bench/results/models.json, the tables to standard output and,
after a full run, into docs/performance.md. `--quick` takes under two minutes on a quiet machine,
once the others are installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvloop

from bench import conditions, load, many_models, model_words
from bench.crash import Crash, crash
from bench.gateway import DOCUMENT, working_folder
from bench.load import LoadFailed
from bench.measure import Sample
from bench.model_servers import PEERS, Server, model_alone, ours, text_model
from bench.peers import NotInstalled
from bench.processes import NotStarted, end_in_order, forget_settings, say
from bench.report import put_between_markers
from bench.servers import ROOT

RESULTS = ROOT / "bench" / "results" / "models.json"
CALLERS = (1, 32, 128)
SERVERS = (ours(1), ours(4), *PEERS)
ROWS = (*(server.name for server in SERVERS), "crash", "many")


@dataclass(frozen=True, slots=True)
class Effort:
    rounds: int
    seconds: int
    warm_seconds: int
    many_seconds: float
    peers_crash: bool
    """The others' models are killed too: some take long to come back, or don't."""
    peers_workers: tuple[int, ...]
    """The others are measured with so many workers."""


FULL = Effort(rounds=5, seconds=5, warm_seconds=2, many_seconds=120.0, peers_crash=True, peers_workers=(1, 4))
QUICK = Effort(rounds=1, seconds=1, warm_seconds=1, many_seconds=8.0, peers_crash=False, peers_workers=(1,))


@dataclass(slots=True)
class Found:
    """What was measured: samples by server, model and callers; crashes and the thousand models."""

    samples: dict[tuple[str, str, int], list[Sample]] = field(default_factory=dict)
    crashes: dict[str, Crash] = field(default_factory=dict)
    many: many_models.Seen | None = None
    alone_ms: list[float] = field(default_factory=list)
    """What the model of ten milliseconds takes by itself, by round."""
    left_out: dict[str, str] = field(default_factory=dict)
    failed: bool = False


def measure(effort: Effort, wanted: Sequence[str], found: Found, work: Path) -> None:
    """Measure the rows that are wanted."""
    model = text_model()
    servers = []
    for server in SERVERS:
        if server.name not in wanted or (server in PEERS and server.workers not in effort.peers_workers):
            continue
        try:
            if server.packages:
                server.install()
            servers.append(server)
        except NotInstalled as error:
            say(f"{server.name} is left out: {error}")
            found.left_out[server.name] = str(error).splitlines()[0]
    for number in range(effort.rounds):
        found.alone_ms.append(model_alone())
        say(f"  the model of ten milliseconds, by itself: {found.alone_ms[-1]:.2f} ms")
        # The one that was first is last in the next round: what drifts meets all alike.
        for server in servers if number % 2 == 0 else servers[::-1]:
            with_crash = "crash" in wanted and number == effort.rounds - 1
            with_crash &= effort.peers_crash or server not in PEERS
            try:
                _measure(server, effort, with_crash, found, work, model)
            except (NotInstalled, NotStarted, LoadFailed) as error:
                say(f"  {server.name} failed: {error}")
                found.left_out[server.name] = str(error).splitlines()[0]
                found.failed = True
    if "many" in wanted:
        say(f"many: {many_models.MODELS:,} models for {effort.many_seconds:.0f} s")
        found.many = uvloop.run(many_models.run(effort.many_seconds))


def _measure(server: Server, effort: Effort, with_crash: bool, found: Found, work: Path, model: Path) -> None:
    with server.start(work, model) as targets:
        for name in server.models:
            load.run_wrk(targets[name], effort.warm_seconds, max(CALLERS))
            for callers in CALLERS:
                sample = load.measure(targets[name], effort.seconds, callers)
                found.samples.setdefault((server.name, name, callers), []).append(sample)
                say(
                    f"  {server.name} {name}, {callers} callers: {sample.rps:,.0f}/s, p50 {sample.p50_ms:.1f}, p99 "
                    f"{sample.p99_ms:.1f} ms, {sample.cpu_us_per_request:,.0f} µs CPU, {sample.errors} errors"
                )
        if with_crash:
            seen = asyncio.run(crash(targets["ten"], targets["text"]))
            found.crashes[server.name] = seen
            say(f"  {server.name} killed: {asdict(seen)}")


def as_json(found: Found, seen: conditions.Conditions, *, quick: bool) -> str:
    """Return all figures: medians with the least and the most of the rounds."""
    rows = []
    for (server, model, callers), samples in found.samples.items():
        row: dict[str, object] = {"server": server, "model": model, "callers": callers, "rounds": len(samples)}
        for figure in ("rps", "p50_ms", "p95_ms", "p99_ms", "cpu_us_per_request", "rss_mb"):
            values = [getattr(sample, figure) for sample in samples]
            row[figure] = round(statistics.median(values), 3)
            row[f"{figure}_range"] = [round(min(values), 3), round(max(values), 3)]
        row["errors"] = sum(sample.errors for sample in samples)
        if callers == 1 and model == "ten":
            row["added_ms"] = round(float(str(row["p50_ms"])) - statistics.median(found.alone_ms), 3)
        rows.append(row)
    members = {
        "rows": rows,
        "crashes": {name: asdict(found_crash) for name, found_crash in found.crashes.items()},
        "alone_ms": [round(one, 3) for one in found.alone_ms],
        "many": found.many.as_json() if found.many else None,
        "conditions": asdict(seen) | {"quick": quick, "left_out": found.left_out},
    }
    return json.dumps(members, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short round; docs/performance.md stays")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"only these, of: {', '.join(ROWS)}")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/performance.md as it is")
    options = parser.parse_args()
    wanted = options.rows.split(",")
    if unknown := set(wanted) - set(ROWS):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    if shutil.which("wrk") is None:
        parser.exit(1, "wrk is missing: `make bench-models` installs it\n")
    end_in_order()
    forget_settings()
    found, seen = Found(), conditions.look()
    seen.compiled = None  # models are served without the gateway
    began, stolen = time.monotonic(), conditions.stolen_seconds()
    try:
        with working_folder() as work:
            measure(QUICK if options.quick else FULL, wanted, found, work)
    except KeyboardInterrupt:
        parser.exit(130, "stopped: nothing is written\n")
    for server in SERVERS:
        if any(name == server.name for name, _, _ in found.samples):
            seen.versions |= server.versions()
    conditions.finish(seen, began, stolen)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(as_json(found, seen, quick=options.quick))
    text = model_words.describe(found, seen, quick=options.quick)
    print(text)
    if not (options.quick or options.no_docs):
        DOCUMENT.write_text(put_between_markers(DOCUMENT.read_text(), text, model_words.MARKERS))
    sys.exit(1 if found.failed else 0)


if __name__ == "__main__":
    main()
