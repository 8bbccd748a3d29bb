"""A long mixed load on one gateway process: its memory has to stay flat, its books right.

    python -m bench.soak [--minutes 20] [--rate 2000]

Plain and slow JSON calls, event streams, refusals, connections for one call, clients that leave before
and in the midst of an answer. Once a minute a line is printed; the table and the verdict come at the end.
Memory is judged by the medians of two windows: the one that begins when a fifth of the time is over,
and the last; each is a tenth of the time. Each answer is looked up in the usage journal.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import uvloop

from bench import market, servers
from bench.bodies import TASK
from bench.load import Target
from bench.measure import percentile, rss_megabytes
from bench.metered import Follower
from bench.mix import Kind, Mix, Seen
from bench.open_loop import wire
from bench.processes import (
    LOOPBACK,
    Request,
    await_answer,
    end_in_order,
    forget_settings,
    free_port,
    process_tree,
    running,
    say,
)
from bench.servers import JSON, ROOT
from bench.upstream import ANSWER
from haat.gateway.limits.registry import PlanLimits
from haat.identity.model import make_key
from haat.infra.keyring import Keyring

MOST_GROWTH_PERCENT = 5.0
APPLICATIONS = 50
FEW = PlanLimits(per_minute=60)
_LOOKS, _LONGEST_PAUSE = 100, 5.0


@dataclass(slots=True)
class Books:
    """Holds answers and journal against each other; whichever comes first waits for the other."""

    answered: dict[UUID, str] = field(default_factory=dict)
    booked: dict[UUID, str] = field(default_factory=dict)
    """Confirmed records nobody has an answer for: of those who left, in the end."""
    unconfirmed: dict[UUID, str] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    def add(self, seen: Seen, follower: Follower) -> None:
        self.answered |= seen.ids
        found = follower.read()
        self.unconfirmed |= found.outcomes
        for identifier in found.confirmed:
            outcome = self.unconfirmed.pop(identifier, "confirmed twice, or without a record")
            self.outcomes[outcome] += 1
            self.booked[identifier] = outcome
        for identifier in self.answered.keys() & self.booked.keys():
            expected, outcome = self.answered.pop(identifier), self.booked.pop(identifier)
            if expected != outcome:
                self.wrong[f"{expected} in the answer, {outcome} in the journal"] += 1
        follower.delete_read()


@dataclass(slots=True)
class Soak:
    """The run: a sample of memory every few seconds, a line a minute, the sums."""

    minutes: float
    rate: int
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the beginning and MB."""
    lines: list[str] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    good: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    """Of the present minute."""
    books: Books = field(default_factory=Books)

    def add(self, seen: Seen, follower: Follower) -> None:
        for total, part in (
            (self.asked, seen.asked),
            (self.good, seen.good),
            (self.left, seen.left),
            (self.wrong, seen.wrong),
        ):
            total.update(part)
        self.latencies += seen.latencies
        self.books.add(seen, follower)

    def growth_percent(self) -> float:
        """Return how much more memory the last window has than the first after the warm-up."""
        return growth_percent(self.memory, self.minutes * 60)

    def end_minute(self, pid: int, seconds: float) -> None:
        ordered = sorted(self.latencies)
        self.latencies = []
        files = sum(process.num_fds() for process in process_tree(pid))
        cells = (
            f"{seconds / 60:.1f}",
            f"{sum(self.asked.values()):,}",
            f"{percentile(ordered, 0.5):.1f}",
            f"{percentile(ordered, 0.99):.1f}",
            f"{sum(self.wrong.values()):,}",
            f"{self.memory[-1][1]:.1f}",
            str(files),
        )
        self.lines.append(f"| {' | '.join(cells)} |")
        say(
            f"{cells[0]} min: {cells[1]} asked, p50 {cells[2]} ms, p99 {cells[3]} ms, {cells[4]} wrong, "
            f"{cells[5]} MB, {cells[6]} files"
        )


def growth_percent(memory: list[tuple[float, float]], seconds: float) -> float:
    """Compare the medians of two windows, each a tenth of the time: after a fifth of it, and at its end."""
    early = [held for at, held in memory if 0.2 * seconds <= at < 0.3 * seconds]
    late = [held for at, held in memory if at >= 0.9 * seconds]
    if not early or not late:
        raise ValueError("the run was too short to judge memory by")
    return (statistics.median(late) / statistics.median(early) - 1) * 100


def kinds(port: int, keys: list[str], limited: str) -> list[Kind]:
    """Return the mix. The shares are percent."""

    def calls(path: str, *keys: str, close: bool = False, stream: bool = False) -> list[bytes]:
        extra = {"Connection": "close"} if close else {}
        extra |= {"Accept": "text/event-stream"} if stream else {}
        return [wire(port, path, {**servers.authorised(key), **extra}, TASK) for key in keys]

    def at(slug: str, path: str) -> str:
        return f"{servers.SERVICES}/{slug}/{path}"

    def refused(name: str, share: int, status: int, requests: list[bytes], outcome: str = "refused") -> Kind:
        return Kind(name, share, requests, frozenset({status}), outcome)

    return [
        Kind("answered", 66, calls(at("mixed", "invoke"), *keys), timed=True),
        Kind("answered slowly", 6, calls(at("mixed", "slow"), *keys)),
        Kind("on a connection of its own", 5, calls(at("mixed", "invoke"), *keys, close=True), fresh=True),
        Kind("streamed", 5, calls(at("mixed", "stream"), *keys, stream=True)),
        refused("refused, unknown key", 3, 401, calls(at("mixed", "invoke"), make_key()), outcome=""),
        refused("refused, not subscribed", 3, 403, calls(at("unsold", "invoke"), *keys)),
        refused("refused, no such service", 3, 404, calls(at("nothing", "invoke"), *keys)),
        Kind("refused, over its limit", 4, calls(at("mixed", "invoke"), limited), frozenset({200, 429}), "refused"),
        Kind("left before the answer", 3, calls(at("mixed", "late"), *keys), leaves_after_seconds=0.02),
        Kind("left in a stream", 2, calls(at("mixed", "stream"), *keys, stream=True), leaves_after_bytes=300),
    ]


def make_market(data_dir: Path, upstream: int) -> tuple[list[str], str]:
    """Lay down the data directory; return the keys of the large plan, and one of a small plan."""
    keyring = Keyring.load(data_dir)
    endpoint = f"http://{LOOPBACK}:{upstream}"
    mixed = [market.service("mixed", endpoint)]
    many = market.make_market(keyring, mixed, applications=APPLICATIONS, usable=APPLICATIONS)
    few = market.make_market(keyring, mixed, limits=FEW)
    many.snapshot.credentials += few.snapshot.credentials
    many.snapshot.subscriptions += few.snapshot.subscriptions
    many.snapshot.services.append(market.service("unsold", endpoint))
    market.keep(many, keyring, data_dir)
    return many.keys, few.keys[0]


async def load(soak: Soak, target: Target, mix: Mix, follower: Follower) -> None:
    """Run the mix and look at memory and books every few seconds."""
    began = time.monotonic()
    running_mix = asyncio.create_task(mix.run(soak.minutes * 60))
    next_minute, pause = 60.0, min(_LONGEST_PAUSE, soak.minutes * 60 / _LOOKS)
    while not running_mix.done():
        await asyncio.wait({running_mix}, timeout=pause)
        passed = time.monotonic() - began
        soak.memory.append((passed, rss_megabytes(target.pid)))
        soak.add(mix.take(), follower)
        if passed >= next_minute or running_mix.done():
            soak.end_minute(target.pid, passed)
            next_minute += 60.0
    await running_mix
    await mix.settle()


def run(minutes: float, rate: int) -> Soak:
    """Start everything, load it, and return what was found."""
    soak = Soak(minutes, rate)
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haat-soak-")))
        port, log = free_port(), work / "upstream.log"
        command = [sys.executable, "-m", "bench.upstream", str(port)]
        upstream = stack.enter_context(running(command, log, folder=ROOT))
        await_answer(upstream, port, Request("/", TASK, JSON), log)
        keys, limited = make_market(work / "data", port)
        follower = Follower(work / "data" / "journal")
        with servers.gateway(
            "soak", work / "data", keys[0], path=f"{servers.SERVICES}/mixed/invoke", answer=ANSWER
        ) as target:
            say(f"{soak.minutes:g} minutes at {soak.rate:,} calls a second")
            mix = Mix(target.port, kinds(target.port, keys, limited), soak.rate)
            soak.books.add(Seen(), follower)  # the first call, which only asked whether it serves
            uvloop.run(load(soak, target, mix, follower))
        soak.add(mix.take(), follower)  # the gateway has ended: whatever it will ever write is there
    return soak


def describe(soak: Soak) -> str:
    """Return the tables and the verdict as Markdown."""
    kinds_table = ["| kind | asked | as it should | left | otherwise |", "|---|---|---|---|---|"]
    for name in sorted(soak.asked):
        wrong = sum(count for what, count in soak.wrong.items() if what.startswith(f"{name}: "))
        kinds_table.append(f"| {name} | {soak.asked[name]:,} | {soak.good[name]:,} | {soak.left[name]:,} | {wrong:,} |")
    books = soak.books
    lines = [
        "| minute | asked so far | p50 ms | p99 ms | wrong so far | RSS MB | open files |",
        "|---|---|---|---|---|---|---|",
        *soak.lines,
        "",
        *kinds_table,
        "",
        f"- In the journal: {', '.join(f'{count:,} {outcome}' for outcome, count in sorted(books.outcomes.items()))}.",
        f"- Answered and not in the journal: {len(books.answered)}. In the journal otherwise than answered: "
        f"{sum(books.wrong.values())}. Recorded and never confirmed: {len(books.unconfirmed)}.",
        f"- Memory grew by {soak.growth_percent():.1f} %; allowed are {MOST_GROWTH_PERCENT:.0f} %.",
    ]
    lines += [f"- {what}: {count:,}" for what, count in (soak.wrong + books.wrong).items()]
    return "\n".join(lines)


def is_good(soak: Soak) -> bool:
    books = soak.books
    return soak.growth_percent() <= MOST_GROWTH_PERCENT and not (soak.wrong or books.wrong or books.answered)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=int, default=2000, help="calls a second")
    options = parser.parse_args()
    if options.minutes < 0.5:
        parser.error("half a minute is the least to judge memory by")
    end_in_order()
    forget_settings()
    try:
        soak = run(options.minutes, options.rate)
    except KeyboardInterrupt:
        parser.exit(130, "stopped\n")
    print(describe(soak))
    good = is_good(soak)
    print("met" if good else "missed")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
