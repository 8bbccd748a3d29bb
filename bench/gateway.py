"""What a call through the gateway costs, beside nginx and beside other gateways.

    python -m bench.gateway [--quick] [--rows haat-full,open-loop,…] [--no-docs]

It starts nginx, the gateway and its peers on loopback, loads them with wrk and with an open-loop
generator, and ends everything again. Each row is measured in rounds, each of them paired with nginx.
The results go to bench/results/gateway.json, the tables to standard output and, after a full run, into
docs/performance.md. `--quick` has fewer rounds and seconds and takes under two minutes, once the other
gateways are installed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench import conditions, load, million, open_loop, servers, words
from bench.bodies import TASK_ANSWER
from bench.doors import CASES
from bench.load import LoadFailed, Target
from bench.measure import Sample, Spread, cpu, in_pairs, ratios, rss_megabytes
from bench.metered import Follower
from bench.peers import ENVIRONMENTS, PEERS, NotInstalled, Peer
from bench.processes import NotStarted, end_in_order, forget_settings, process_tree, say
from bench.report import Row, put_between_markers, row_of, save_json
from bench.servers import ROOT, Upstreams

RESULTS = ROOT / "bench" / "results" / "gateway.json"
DOCUMENT = ROOT / "docs" / "performance.md"
RATE = 10_000
PROFILE_SECONDS = 5
CALLERS = 7
"""How many callers take turns on each connection: no divisor of the number of connections."""
ROWS = (
    "haat-bare",
    "haat-full",
    "haat-full-2w",
    "haat-sse",
    "doors",
    *(peer.name for peer in PEERS),
    "open-loop",
    "million-keys",
)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is measured. A peer that answers few requests a second gets ``slow_seconds`` a round."""

    rounds: int
    seconds: int
    slow_rounds: int
    slow_seconds: int
    warm_seconds: int
    slow_warm_seconds: int
    open_seconds: int
    open_nginx_seconds: int
    postgresql_share: int
    """PostgreSQL is filled with one in so many of the million keys: filling takes longer than what it is for."""


FULL = Effort(
    rounds=9,
    seconds=4,
    slow_rounds=5,
    slow_seconds=10,
    warm_seconds=2,
    slow_warm_seconds=10,
    open_seconds=60,
    open_nginx_seconds=20,
    postgresql_share=1,
)
QUICK = Effort(
    rounds=2,
    seconds=1,
    slow_rounds=1,
    slow_seconds=3,
    warm_seconds=1,
    slow_warm_seconds=3,
    open_seconds=10,
    open_nginx_seconds=3,
    postgresql_share=10,
)


@dataclass(slots=True)
class Bench:
    """The run: what serves all rows, and what has been found so far."""

    effort: Effort
    work: Path
    up: Upstreams
    proxy: Target
    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    nginx: list[Sample] = field(default_factory=list)
    nginx_sse: list[Sample] = field(default_factory=list)

    def measured(self, name: str, measure: Callable[[], None]) -> None:
        """Measure one row; what goes wrong with it doesn't take the others with it."""
        try:
            measure()
        except NotInstalled as error:
            self.skip(name, str(error))
        except (NotStarted, LoadFailed) as error:
            say(f"  {name} failed: {error}")
            self.failed[name] = str(error).splitlines()[0]

    # --- rows against nginx --------------------------------------------------------------------

    def pair(self, base: Target, target: Target, *, slow: bool = False, **extra: Any) -> list[Sample]:
        """Measure a target in rounds with nginx, note its row, and return what nginx had in them."""
        effort = self.effort
        rounds, seconds = (effort.slow_rounds, effort.slow_seconds) if slow else (effort.rounds, effort.seconds)
        load.run_wrk(target, effort.slow_warm_seconds if slow else effort.warm_seconds)
        bases, samples = in_pairs(
            lambda: load.measure(base, effort.seconds),
            lambda: load.measure(target, seconds),
            rounds,
            lambda number, one, other: say(
                f"  {target.name} {number + 1}/{rounds}: {other.cpu_us_per_request:.1f} µs, nginx "
                f"{one.cpu_us_per_request:.1f} µs, {other.cpu_us_per_request / one.cpu_us_per_request:.2f} ×, "
                f"{other.rps:,.0f}/s, p99 {other.p99_ms:.1f} ms, {other.errors} errors"
            ),
        )
        processes = len(process_tree(target.pid))
        self.rows.append(row_of(target.name, samples, bases, seconds=seconds, processes=processes, **extra))
        return bases

    def gateway(self, name: str, *, workers: int = 1, bare: bool = False) -> None:
        data_dir = self.work / name
        key = servers.prepare(data_dir, self.up).keys[0]
        with servers.gateway(name, data_dir, key, workers=workers, bare=bare) as target:
            self.nginx += self.pair(self.proxy, target, workers=workers)

    def full(self) -> None:
        """Measure a plain service, callers in turn on each connection, and a task that reports units.

        Of the task the languages are noted. With callers in turn no head is the last one of its connection again.
        """
        data_dir = self.work / "haat-full"
        keys = servers.prepare(data_dir, self.up, applications=CALLERS).keys
        in_turn = data_dir / "keys"
        in_turn.write_text("".join(f"{key}\n" for key in keys))
        with servers.gateway("haat-full", data_dir, keys[0]) as target:
            does = servers.what_it_does(target)
            say("  " + ", ".join(name if done else f"NO {name}" for name, done in does.items()))
            self.nginx += self.pair(self.proxy, target, checked=does)
            self.nginx += self.pair(self.proxy, replace(target, name="haat-full-in-turn", keys=in_turn))
            self.nginx += self.pair(self.proxy, servers.at(target, "haat-full-task", servers.TASK_PATH))

    def doors(self) -> None:
        """Measure each front door in rounds with the native call that it stands for."""
        data_dir = self.work / "haat-doors"
        key = servers.prepare(data_dir, self.up).keys[0]
        with servers.gateway("haat-doors", data_dir, key) as target:
            for case in CASES:
                native = replace(target, name="native", path=f"{servers.SERVICES}/{case.slug}{case.tail}")
                native = replace(native, body=case.native_body)
                door = replace(target, name=f"door {case.name}", path=case.path, body=case.body)
                load.run_wrk(door, self.effort.warm_seconds)
                bases, samples = in_pairs(
                    partial(load.measure, native, self.effort.seconds),
                    partial(load.measure, door, self.effort.seconds),
                    self.effort.rounds,
                    partial(_tell_door, case.name),
                )
                slower = ratios(bases, samples)
                extra: dict[str, Any] = {
                    "ratio_to_native": round(slower.median, 3),
                    "native_cpu_us": round(_median_cpu(bases), 1),
                }
                self.rows.append(row_of(door.name, samples, **extra))

    def streams(self) -> None:
        data_dir = self.work / "haat-sse"
        key = servers.prepare(data_dir, self.up).keys[0]
        base = servers.at(self.proxy, "nginx-sse", "/stream")
        with servers.gateway("haat-sse", data_dir, key) as target:
            self.nginx_sse += self.pair(base, servers.at(target, "haat-sse", servers.STREAM_PATH))

    def peer(self, peer: Peer) -> None:
        peer.install()
        with peer.start(peer.home, self.work, self.up.plain) as target:
            extra = {"does": peer.does, "versions": peer.versions()}
            self.nginx += self.pair(self.proxy, target, slow=peer.slow, **extra)

    def skip(self, name: str, reason: str) -> None:
        say(f"  {name} is left out: {reason}")
        self.skipped[name] = reason.splitlines()[0]

    # --- the open loop -------------------------------------------------------------------------

    def by_the_clock(self) -> None:
        """Send by the clock to nginx, then to one gateway, and hold its journal against what was answered."""
        base = self._open("nginx-open-loop", self.proxy, self.effort.open_nginx_seconds)[0]
        data_dir = self.work / "open-loop"
        key = servers.prepare(data_dir, self.up).keys[0]
        with servers.gateway("haat-open-loop", data_dir, key) as target:
            load.run_wrk(target, self.effort.warm_seconds)
            before = Follower(data_dir / "journal")
            before.read()
            row, seen = self._open("haat-open-loop", target, self.effort.open_seconds)
        metered = before.read()  # the gateway has ended: whatever it will ever write is there
        missing = metered.missing(seen.ids) + seen.answered - len(seen.ids)
        row.extra.update(
            metered=len(metered.outcomes), confirmed=len(metered.confirmed), answered_and_not_metered=missing
        )
        cost = "cpu_us_per_request"
        row.spreads["ratio_to_nginx"] = Spread.of([row.spreads[cost].median / base.spreads[cost].median])
        say(f"  {seen.answered:,} answered, {len(metered.outcomes):,} metered, {missing} answered and not metered")
        self.rows += [base, row]

    def _open(self, name: str, target: Target, seconds: int) -> tuple[Row, open_loop.Seen]:
        before = cpu(target.pid)
        seen = uvloop.run(open_loop.OpenLoop(target, TASK_ANSWER, RATE, seconds).run())
        spent, in_kernel = cpu(target.pid).since(before, seen.answered)
        latency = seen.quantiles()
        figures = {
            "cpu_us_per_request": spent,
            "system_us_per_request": in_kernel,
            "rps": seen.answered / seen.seconds,
            "rss_mb": rss_megabytes(target.pid),
            **{figure: latency.pop(figure) for figure in ("p50_ms", "p95_ms", "p99_ms")},
        }
        extra: dict[str, Any] = {"rate": RATE, "seconds": seconds, "sent": seen.sent, "answered": seen.answered}
        extra |= {figure: round(value, 3) for figure, value in latency.items()}
        extra["waited"] = seen.waited
        extra["generator_cpu_percent"] = round(seen.generator_cpu_seconds / seen.seconds * 100, 1)
        say(
            f"  {name}: {seen.answered:,} answered at {RATE:,}/s, p50 {figures['p50_ms']:.1f}, p95 "
            f"{figures['p95_ms']:.1f}, p99 {figures['p99_ms']:.1f}, most {extra['max_ms']:.1f} ms, {seen.errors} errors"
        )
        spreads = {figure: Spread.of([value]) for figure, value in figures.items()}
        return Row(name, seen.errors, spreads, extra), seen

    # --- a million keys ------------------------------------------------------------------------

    def with_a_million_keys(self) -> None:
        """Start with a million keys from the snapshot and from PostgreSQL; compare a call with few keys."""
        large, small = self.work / "million", self.work / "few"
        say(f"  making {million.KEYS:,} keys and {million.SUBSCRIPTIONS:,} subscriptions")
        few = million.build(small, self.up, large=False)
        many = million.build(large, self.up, large=True)
        with (
            million.started("haat-few-keys", small, few.keys[0]) as one,
            million.started("haat-million-keys", large, many.keys[0]) as other,
        ):
            weight = million.bytes_per_key(other, one)
            say(f"  started in {other.seconds:.1f} s ({one.seconds:.1f} s with few keys), {weight:.0f} bytes a key")
            for target in (one.target, other.target):
                load.run_wrk(target, self.effort.warm_seconds)
            bases, samples = in_pairs(
                lambda: load.measure(one.target, self.effort.seconds),
                lambda: load.measure(other.target, self.effort.seconds),
                self.effort.rounds,
                lambda number, few, many: say(
                    f"  million-keys {number + 1}/{self.effort.rounds}: {many.cpu_us_per_request:.1f} µs, with few "
                    f"keys {few.cpu_us_per_request:.1f} µs"
                ),
            )
        slower = ratios(bases, samples)
        self.rows.append(row_of("haat-few-keys", bases, keys=million.USED, start_seconds=round(one.seconds, 2)))
        extra: dict[str, Any] = {
            "keys": million.KEYS,
            "subscriptions": million.SUBSCRIPTIONS,
            "start_seconds": round(other.seconds, 2),
            "bytes_per_key": round(weight),
            "ratio_to_few_keys": round(slower.median, 3),
            **self._start_from_postgresql(),
        }
        self.rows.append(row_of("haat-million-keys", samples, **extra))

    def _start_from_postgresql(self) -> dict[str, Any]:
        data_dir, share = self.work / "postgresql", self.effort.postgresql_share
        made = million.build(data_dir, self.up, large=True, share=share)
        (data_dir / "gateway" / "snapshot.bin").unlink()
        say(f"  filling PostgreSQL with {million.KEYS // share:,} keys")
        with (
            million.database(data_dir, made),
            million.started("haat-from-postgresql", data_dir, made.keys[0]) as found,
        ):
            say(f"  started in {found.seconds:.1f} s from PostgreSQL")
        return {"postgresql_keys": million.KEYS // share, "start_from_postgresql_seconds": round(found.seconds, 2)}


def _tell_door(name: str, number: int, native: Sample, door: Sample) -> None:
    say(
        f"  {name} {number + 1}: {door.cpu_us_per_request:.1f} µs, natively {native.cpu_us_per_request:.1f} µs, "
        f"{door.cpu_us_per_request / native.cpu_us_per_request:.2f} ×, {door.errors + native.errors} errors"
    )


def _median_cpu(samples: Sequence[Sample]) -> float:
    return Spread.of([sample.cpu_us_per_request for sample in samples]).median


def measure(effort: Effort, wanted: Sequence[str]) -> tuple[Bench, conditions.Conditions]:
    """Run the rows that are wanted."""
    seen = conditions.look()
    seen.versions |= {"nginx": conditions.version_of(["nginx", "-v"]), "wrk": conditions.version_of(["wrk", "-v"])}
    began, stolen = time.monotonic(), conditions.stolen_seconds()
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(working_folder())
        up = stack.enter_context(servers.upstreams(work))
        bench = Bench(effort, work, up, stack.enter_context(servers.nginx_proxy(work, up)))
        load.run_wrk(bench.proxy, effort.warm_seconds)
        measures: dict[str, Callable[[], None]] = {
            "haat-bare": lambda: bench.gateway("haat-bare", bare=True),
            "haat-full": bench.full,
            "haat-full-2w": lambda: bench.gateway("haat-full-2w", workers=2),
            "haat-sse": bench.streams,
            "doors": bench.doors,
            **{peer.name: partial(bench.peer, peer) for peer in PEERS},
            "open-loop": bench.by_the_clock,
            "million-keys": bench.with_a_million_keys,
        }
        for name in ROWS:
            if name in wanted:
                say(f"{name}, {time.monotonic() - began:.0f} s since the beginning")
                bench.measured(name, measures[name])
    if bench.nginx_sse:
        bench.rows.insert(0, row_of("nginx-sse", bench.nginx_sse, bench.nginx_sse))
    if bench.nginx:
        bench.rows.insert(0, row_of("nginx", bench.nginx, bench.nginx))
    for row in bench.rows:
        seen.versions |= row.extra.get("versions", {})
    conditions.finish(seen, began, stolen)
    return bench, seen


@contextlib.contextmanager
def working_folder() -> Iterator[Path]:
    """Make a folder on the disk of the checkout: a journal in memory would cost less than a real one."""
    folder = ENVIRONMENTS / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def profile(path: Path) -> None:
    """Load the full gateway for some seconds under cProfile, interpreted, and write its profile."""
    os.environ["HAAT_COMPILED"] = "0"
    with working_folder() as work, servers.upstreams(work) as up:
        key = servers.prepare(work / "profile", up).keys[0]
        with servers.gateway("haat-full", work / "profile", key, profile=path.absolute()) as target:
            seen = load.run_wrk(target, PROFILE_SECONDS)
    say(f"{seen.requests:,} calls are profiled in {path}: python -m pstats {path}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gateway", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds and seconds; docs/performance.md stays")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"only these, of: {', '.join(ROWS)}")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/performance.md as it is")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="write a cProfile of the full gateway instead")
    options = parser.parse_args()
    wanted = options.rows.split(",")
    if unknown := set(wanted) - set(ROWS):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    for program in ("nginx", "wrk"):
        if shutil.which(program) is None:
            parser.exit(1, f"{program} is missing: `make bench-gateway` installs it\n")
    end_in_order()
    forget_settings()
    if options.profile:
        profile(options.profile)
        return
    try:
        bench, seen = measure(QUICK if options.quick else FULL, wanted)
    except KeyboardInterrupt:
        parser.exit(130, "stopped: nothing is written\n")
    save_json(bench.rows, options.results)
    left_out = bench.skipped | bench.failed
    folder: Path = options.results.parent
    (folder / f"{options.results.stem}-conditions.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(asdict(seen) | {"quick": options.quick, "left_out": left_out})) + b"\n"
    )
    text = words.describe(bench.rows, seen, left_out, quick=options.quick)
    print(text)
    if not (options.quick or options.no_docs):
        DOCUMENT.write_text(put_between_markers(DOCUMENT.read_text(), text))
    sys.exit(1 if bench.failed else 0)


if __name__ == "__main__":
    main()
