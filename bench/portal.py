"""How quick the portal is with 100,000 listings: finding, completing, pages with visitors on them, a slow phone.

    python -m bench.portal [--quick] [--listings N] [--no-docs]

The catalog lies in a database of its own, an embedded PostgreSQL as an installation has it. The results go to
bench/results/portal.json, the table to standard output and, after a full run, into docs/performance.md. `--quick` takes
a fifth of the listings and under two minutes on a quiet machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench import conditions, visitors
from bench.catalog_market import PROVIDERS, catalog
from bench.finding import Seen, find
from bench.gateway import DOCUMENT, working_folder
from bench.money import Row, as_json, describe
from bench.processes import end_in_order, forget_settings, say
from bench.report import put_between_markers
from bench.servers import ROOT
from bench.visitors import Street, walk

RESULTS = ROOT / "bench" / "results" / "portal.json"
MARKERS = ("<!-- bench-portal: begin -->", "<!-- bench-portal: end -->")
MOST_SEARCH_MS, MOST_COMPLETION_MS, MOST_PAGE_MS = 50.0, 5.0, 100.0
MOST_USABLE_MS, MOST_FIRST_KB, MOST_FURTHER_KB = 3000.0, 60.0, 30.0


@dataclass(frozen=True, slots=True)
class Effort:
    listings: int
    questions: int
    visitors: int
    seconds: float
    loads: int


FULL = Effort(listings=100_000, questions=200, visitors=50, seconds=120.0, loads=5)
QUICK = Effort(listings=20_000, questions=40, visitors=50, seconds=15.0, loads=1)


def finding_rows(seen: Seen, fill_seconds: float, listings: int) -> Iterator[Row]:
    for group, most in ((seen.searches, MOST_SEARCH_MS), (seen.completions, MOST_COMPLETION_MS)):
        for one in group:
            name = "search" if group is seen.searches else "autocomplete"
            what = f"p95 of {one.asked}"
            yield Row(f"{name}, {one.kind}", what, one.p95_ms, "ms", f"< {most:.0f}", one.p95_ms < most, asdict(one))
    yield Row(
        "start", "the vocabulary and the counts are read", seen.warm_up_seconds, "s", "", None,
        {"vocabulary": seen.vocabulary, "counts_seconds": seen.facets_seconds, "fill_seconds": fill_seconds},
        [
            f"{listings:,} listings of {PROVIDERS} providers in six scripts; {seen.vocabulary:,} words in the "
            f"vocabulary. Searches are asked in the process, one after the other, through the application's own role; "
            "the mean of what one costs in CPU, ours and PostgreSQL's: "
            + ", ".join(f"{one.kind} {one.cpu_ms:.1f} ms" for one in seen.searches) + ".",
            "Words of a search are chosen as in texts, where the n-th most frequent one comes one n-th as often as the "
            "first, or among the thirty most frequent (common), or beyond the five thousandth (rare). "
            f"Counting all listings anew takes {seen.facets_seconds * 1000:.0f} ms; that is done when the catalog has "
            "changed and takes at most two percent of the time.",
        ],
    )  # fmt: skip


def street_rows(street: Street) -> Iterator[Row]:
    for one in sorted(street.pages, key=lambda page: page.name):
        most = MOST_PAGE_MS
        what = f"p95 of {one.asked}, {one.bytes_sent / 1000:.1f} KB"
        yield Row(f"page, {one.name}", what, one.p95_ms, "ms", f"< {most:.0f}", one.p95_ms < most, asdict(one))
    first, further = street.first_visit_bytes / 1000, max(one.bytes_sent for one in street.pages) / 1000
    members = {name: value for name, value in asdict(street).items() if name not in ("pages", "phone")}
    yield Row(
        "weight, first page", "landing page with styles and scripts, as sent", first, "KB", f"≤ {MOST_FIRST_KB:.0f}",
        first <= MOST_FIRST_KB, members,
        [
            f"{street.visitors} visitors at once for {street.seconds:.0f} s, each reading for "
            f"{visitors.LEAST_PAUSE:.0f} to {visitors.MOST_PAUSE:.0f} s before the next page, together "
            f"{street.pages_a_second:.1f} pages a second over loopback; {street.failed} failed. A page is timed from "
            f"its request to its last byte, by a client on the same cores; it costs the control process "
            f"{street.cpu_ms:.1f} ms of CPU. The process holds {street.rss_mb:.0f} MB.",
        ],
    )  # fmt: skip
    yield Row(
        "weight, further pages", "the heaviest of them, as sent", further, "KB", f"≤ {MOST_FURTHER_KB:.0f}",
        further <= MOST_FURTHER_KB,
    )  # fmt: skip
    if (phone := street.phone) is not None:
        yield Row(
            "slow phone, first paint", f"median of {phone.loads}", phone.first_paint_ms, "ms", "", None, asdict(phone)
        )
        yield Row(
            "slow phone, usable", "DOM complete and scripts run, forms can be sent", phone.usable_ms, "ms",
            f"< {MOST_USABLE_MS:,.0f}", phone.usable_ms < MOST_USABLE_MS, {},
            [
                f"The slow phone is Chromium with an empty cache, {visitors.RTT_MS} ms from the server, "
                f"{visitors.BYTES_A_SECOND * 8 // 1000} kbit/s, its processor slowed down {visitors.SLOWER} times, on "
                f"the landing page: {phone.bytes_sent / 1000:.1f} KB with headers.",
            ],
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.portal", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer of all; docs/performance.md stays")
    parser.add_argument("--listings", type=int, help="another number of listings than the effort's")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/performance.md as it is")
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    if options.listings:
        effort = replace(effort, listings=options.listings)
    end_in_order()
    forget_settings()
    seen = conditions.look()
    began, stolen = time.monotonic(), conditions.stolen_seconds()
    rows: list[Row] = []
    try:
        with working_folder() as work, catalog(work / "catalog", effort.listings) as made:
            say("searches:")
            rows += finding_rows(find(made, effort.questions), made.fill_seconds, made.listings)
            say("visitors:")
            rows += street_rows(walk(made, work, effort.visitors, effort.seconds, effort.loads))
    except KeyboardInterrupt:
        parser.exit(130, "stopped: nothing is written\n")
    conditions.finish(seen, began, stolen)
    seen.compiled = None
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(as_json(rows, seen, quick=options.quick))
    text = describe(rows, seen, quick=options.quick)
    print(text)
    if not (options.quick or options.no_docs):
        DOCUMENT.write_text(put_between_markers(DOCUMENT.read_text(), text, MARKERS))
    sys.exit(0)


if __name__ == "__main__":
    main()
