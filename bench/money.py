"""What the way of a rupee costs: from the journal to rows, to dashboards, to charges, to a month that is closed.

    python -m bench.money [--quick] [--rows ingest,close,…] [--no-docs]

Each row is measured in a database of its own, an embedded PostgreSQL as an installation has it. The results go to
bench/results/money.json, the table to standard output and, after a full run, into docs/performance.md. `--quick` takes
under two minutes on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from bench import conditions
from bench.close import Closed, close
from bench.dashboards import dashboards
from bench.gateway import DOCUMENT, working_folder
from bench.ingest import Ingested, ingest
from bench.processes import end_in_order, forget_settings, say
from bench.rating import ratings
from bench.report import put_between_markers
from bench.servers import ROOT

RESULTS = ROOT / "bench" / "results" / "money.json"
MARKERS = ("<!-- bench-money: begin -->", "<!-- bench-money: end -->")
LEAST_INGESTED, MOST_DASHBOARD_MS = 100_000, 100.0
MOST_CLOSE_SECONDS, MOST_AGAIN_SECONDS, MOST_CLOSE_MB = 90, 10, 1024


@dataclass(frozen=True, slots=True)
class Effort:
    ingest_rounds: int
    ingest_events: int
    dashboard_events: int
    dashboard_times: int
    close_events: int
    close_subscriptions: int
    rating_events: int


FULL = Effort(
    ingest_rounds=3,
    ingest_events=1_000_000,
    dashboard_events=10_000_000,
    dashboard_times=25,
    close_events=10_000_000,
    close_subscriptions=10_000,
    rating_events=1_000_000,
)
QUICK = Effort(
    ingest_rounds=1,
    ingest_events=100_000,
    dashboard_events=200_000,
    dashboard_times=5,
    close_events=200_000,
    close_subscriptions=2_000,
    rating_events=100_000,
)


@dataclass(slots=True)
class Row:
    """One line of the results: a figure, what is wanted of it if anything is, and what else was seen."""

    name: str
    what: str
    figure: float
    unit: str
    wanted: str
    met: bool | None
    members: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def ingest_row(effort: Effort, work: Path) -> list[Row]:
    """Measure both kinds in turn, so that what the machine does meanwhile is theirs alike."""
    within: list[Ingested] = []
    astride: list[Ingested] = []
    for number in range(effort.ingest_rounds):
        for rounds, across in ((within, False), (astride, True)):
            folder = work / f"round-{number}-{across}"
            folder.mkdir()
            rounds.append(ingest(folder, effort.ingest_events, astride=across))
            say(f"  {rounds[-1].per_second:,.0f} events/s{' astride of an hour' if across else ''}")
    return [
        _ingested("ingest", "", effort, within),
        _ingested("ingest, astride", ", where an hour ends among the calls", effort, astride),
    ]


def _ingested(name: str, where: str, effort: Effort, rounds: list[Ingested]) -> Row:
    median = statistics.median(one.per_second for one in rounds)
    shipper, server = (
        statistics.median(seconds / one.events * 1e6 for seconds, one in zip(used, rounds, strict=True))
        for used in ([one.shipper_cpu_seconds for one in rounds], [one.postgres_cpu_seconds for one in rounds])
    )
    return Row(
        name,
        f"from journal files to deduplicated rows and their rollups{where}",
        median,
        "events/s",
        f"≥ {LEAST_INGESTED:,}",
        median >= LEAST_INGESTED,
        {
            "rounds": [asdict(one) | {"per_second": one.per_second} for one in rounds],
            "shipper_cpu_us_per_event": shipper,
            "postgres_cpu_us_per_event": server,
        },
        [
            f"Ingest of {effort.ingest_events:,} events of twenty minutes and 10,000 subscriptions from two gateways' "
            f"journals, with fsync{where}: {rounds[-1].rollup_rows:,} rollup rows; an event costs the shipper "
            f"{shipper:.1f} µs of CPU and PostgreSQL {server:.1f} µs, side by side. The slower of the two bounds the "
            "rate, and their sum on two cores that others use as well."
        ],
    )


def dashboard_rows(effort: Effort, work: Path) -> list[Row]:
    seen = dashboards(work, effort.dashboard_events, effort.dashboard_times)
    rows = [
        Row(
            f"dashboard, {one.view}",
            f"all queries of the page, p95 of {one.asked}",
            one.p95_ms,
            "ms",
            f"< {MOST_DASHBOARD_MS:.0f}",
            one.p95_ms < MOST_DASHBOARD_MS,
            {"events": seen.events, **asdict(one)},
        )
        for one in seen.views
    ]
    rows[0].members |= {name: value for name, value in asdict(seen).items() if name != "views"}
    rows[0].notes.append(
        f"Dashboards over {seen.events:,} calls of thirty days: {seen.hourly_rows:,} hourly and {seen.daily_rows:,} "
        f"daily rollups of customers, {seen.market_rows:,} of sellers, made of the calls in {seen.rebuild_seconds:.0f} "
        "s. Each view is asked for 24 hours, 7 and 30 days and the running month, by the largest customer and by "
        "others chosen by how much they call. Half of the pages take less than, and a page costs in CPU on average: "
        + ", ".join(f"{one.view} {one.p50_ms:.0f} ms, {one.cpu_ms:.0f} ms" for one in seen.views)
        + "."
    )
    return rows


def rating_rows(effort: Effort, work: Path) -> list[Row]:
    seen = ratings(effort.rating_events)
    return [
        Row(
            f"rating, {one.card}",
            "calls rated one by one, in memory",
            one.per_second,
            "events/s",
            "",
            None,
            asdict(one) | {"per_second": one.per_second},
            [],
        )
        for one in seen
    ]


def close_rows(effort: Effort, work: Path) -> list[Row]:
    seen = close(work, effort.close_events, effort.close_subscriptions)
    whole = f"{seen.events:,} calls of {seen.subscriptions:,} subscriptions"
    found = [
        ("close", f"a month of {whole}", seen.first.seconds, "s", MOST_CLOSE_SECONDS),
        ("close, memory", "of Haat's processes together, at most", seen.first.haat_most_mb, "MB", MOST_CLOSE_MB),
        ("close again", "a second pass over everybody", seen.again.seconds, "s", MOST_AGAIN_SECONDS),
    ]
    rows = [Row(name, what, figure, unit, f"< {most:,}", figure < most) for name, what, figure, unit, most in found]
    rows[0].members |= asdict(seen)
    rows[0].notes.append(_said_of_close(seen))
    return rows


def _said_of_close(seen: Closed) -> str:
    first = seen.first
    return (
        f"Closing: `haat billing run` with `--wait`, from its start to its end, beside one worker: {seen.lines:,} "
        f"lines on {first.issued:,} invoices of ₹{Decimal(seen.net):,} are rated from single calls, issued, posted and "
        f"settled, which SQL that shares no code with rating finds right to the paisa. Haat used "
        f"{first.haat_cpu_seconds:.0f} s of CPU, PostgreSQL {first.postgres_cpu_seconds:.0f} s and at most "
        f"{first.postgres_most_mb:.0f} MB; the second pass {seen.again.haat_cpu_seconds:.1f} s and "
        f"{seen.again.postgres_cpu_seconds:.1f} s. PDFs are not among it."
    )


MEASURES: dict[str, Callable[[Effort, Path], list[Row]]] = {
    "ingest": ingest_row,
    "dashboards": dashboard_rows,
    "rating": rating_rows,
    "close": close_rows,
}
"""What is measured, by the name that ``--rows`` takes; a further figure is one more entry and its part of `Effort`."""


_MET = {True: "yes", False: "no", None: ""}


def _rounded(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}"


def as_json(rows: list[Row], seen: conditions.Conditions, *, quick: bool) -> str:
    members = {"rows": [asdict(row) for row in rows], "conditions": asdict(seen) | {"quick": quick}}
    return json.dumps(members, indent=2, ensure_ascii=False) + "\n"


def describe(rows: list[Row], seen: conditions.Conditions, *, quick: bool) -> str:
    """Return Markdown of all that was found."""
    lines = ["| | what | figure | wanted | met |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.name} | {row.what} | {_rounded(row.figure)} {row.unit} | {row.wanted} | {_MET[row.met]} |"
        for row in rows
    ]
    notes = [note for row in rows for note in row.notes] + list(seen.sentences())
    head = ["A quick run."] if quick else []
    return "\n\n".join([*head, "\n".join(lines), "\n".join(f"- {note}" for note in notes)])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.money", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one small round; docs/performance.md stays")
    parser.add_argument("--rows", default=",".join(MEASURES), help=f"only these, of: {', '.join(MEASURES)}")
    parser.add_argument("--events", type=int, help="another number of events than the effort's")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/performance.md as it is")
    options = parser.parse_args()
    wanted = options.rows.split(",")
    if unknown := set(wanted) - set(MEASURES):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    effort = QUICK if options.quick else FULL
    if options.events:
        names = ("ingest_events", "dashboard_events", "close_events", "rating_events")
        effort = replace(effort, **dict.fromkeys(names, options.events))
    end_in_order()
    forget_settings()
    seen = conditions.look()
    began, stolen = time.monotonic(), conditions.stolen_seconds()
    rows: list[Row] = []
    try:
        with working_folder() as work:
            for name in wanted:
                say(f"{name}:")
                rows += MEASURES[name](effort, work)
    except KeyboardInterrupt:
        parser.exit(130, "stopped: nothing is written\n")
    conditions.finish(seen, began, stolen)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(as_json(rows, seen, quick=options.quick))
    text = describe(rows, seen, quick=options.quick)
    print(text)
    if not (options.quick or options.no_docs):
        DOCUMENT.write_text(put_between_markers(DOCUMENT.read_text(), text, MARKERS))
    sys.exit(0)


if __name__ == "__main__":
    main()
