"""The results as rows: JSON for programs, Markdown tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.measure import Sample, Spread, ratios

BEGIN, END = "<!-- bench-gateway: begin -->", "<!-- bench-gateway: end -->"
_FIELDS = ("cpu_us_per_request", "system_us_per_request", "rps", "p50_ms", "p95_ms", "p99_ms", "rss_mb")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the results. ``spreads`` has a `Spread` for each figure measured in several rounds."""

    name: str
    errors: int
    spreads: dict[str, Spread]
    extra: dict[str, Any] = field(default_factory=dict)
    """Members that only this row has, such as counts of an open loop."""

    def as_json(self) -> dict[str, Any]:
        """Return the members every row has, as medians or null, then least and most, then the extra ones."""
        members: dict[str, Any] = {"name": self.name}
        for name in ("cpu_us_per_request", "ratio_to_nginx", "rps", "p50_ms", "p95_ms", "p99_ms", "rss_mb"):
            members[name] = self._median(name)
        members["errors"] = self.errors
        members["system_us_per_request"] = self._median("system_us_per_request")
        members["range"] = {
            name: [round(spread.least, 3), round(spread.most, 3)]
            for name, spread in self.spreads.items()
            if spread.least != spread.most
        }
        return {**members, **self.extra}

    def _median(self, name: str) -> float | None:
        spread = self.spreads.get(name)
        return round(spread.median, 3) if spread else None


def row_of(name: str, samples: Sequence[Sample], bases: Sequence[Sample] = (), **extra: Any) -> Row:
    """Make a row of the samples of several rounds, with the ratio to those of the base, if there are any."""
    spreads = {figure: Spread.of([getattr(sample, figure) for sample in samples]) for figure in _FIELDS}
    if bases:
        spreads["ratio_to_nginx"] = ratios(bases, samples)
    return Row(name, sum(sample.errors for sample in samples), spreads, {"rounds": len(samples), **extra})


def table(rows: Iterable[Row]) -> str:
    """Return the rows as one Markdown table."""
    lines = [
        "| | CPU µs/request | of it kernel | × nginx | requests/s | p50 ms | p95 ms | p99 ms | RSS MB | errors |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    formats = {
        "cpu_us_per_request": ",.1f",
        "system_us_per_request": ",.0f",
        "ratio_to_nginx": ".2f",
        "rps": ",.0f",
        "p50_ms": ",.1f",
        "p95_ms": ",.1f",
        "p99_ms": ",.1f",
        "rss_mb": ",.0f",
    }
    for row in rows:
        cells = [
            format(spread, spec) if (spread := row.spreads.get(name)) is not None else "–"
            for name, spec in formats.items()
        ]
        lines.append(f"| {row.name} | {' | '.join(cells)} | {row.errors:,} |")
    return "\n".join(lines)


def save_json(rows: Iterable[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps([row.as_json() for row in rows], indent=2, ensure_ascii=False)
    path.write_text(text + "\n")


class NoMarkers(Exception):
    """The document does not say where the table belongs."""


def put_between_markers(document: str, text: str, markers: tuple[str, str] = (BEGIN, END)) -> str:
    """Return the document with what stands between the markers replaced; raise NoMarkers."""
    before, begin, rest = document.partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not begin or not end:
        raise NoMarkers(f"the document has no lines {markers[0]} and {markers[1]}")
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"
