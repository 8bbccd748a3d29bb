"""The report of a long run, written into the page that explains it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

from .audit import Finding, text
from .season import Tally

PAGE = Path(__file__).parents[2] / "docs" / "money-proof.md"
BEGIN, END = "<!-- prove: begin -->", "<!-- prove: end -->"


@dataclass
class Report:
    """Sums over the seasons of a run."""

    seed: int
    began: str
    seconds: float = 0.0
    seasons: int = 0
    tally: Tally = field(default_factory=Tally)
    counts: Counter[str] = field(default_factory=Counter)
    """Rows of the database by what they are."""
    crashes: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: dict[str, Finding] = field(default_factory=dict)

    def add(
        self, tally: Tally, counts: Counter[str], crashes: Counter[tuple[str, str]], findings: Sequence[Finding]
    ) -> None:
        self.seasons += 1
        self.tally.add(tally)
        self.counts += counts
        self.crashes += crashes
        for one in findings:
            whole = self.findings.setdefault(one.name, Finding(one.name))
            whole.checked += one.checked
            whole.left, whole.right = whole.left + one.left, whole.right + one.right
            whole.wrong += one.wrong

    @property
    def difference(self) -> Fraction:
        return sum((abs(one.difference) for one in self.findings.values()), Fraction(0))

    def write(self, page: Path = PAGE) -> None:
        """Put the report in its place on the page."""
        before, after = page.read_text().split(BEGIN)[0], page.read_text().split(END)[1]
        page.write_text(f"{before}{BEGIN}\n\n{self.markdown()}\n{END}{after}")

    def markdown(self) -> str:
        minutes = self.seconds / 60
        kills = sum(self.crashes.values())
        steps = len({step for step in self.crashes if step[1] not in ("at any moment", "PostgreSQL was killed")})
        seasons = "1 season" if self.seasons == 1 else f"{self.seasons} seasons"
        lines = [
            f"Run of {self.began}, seed {self.seed}: {minutes:.1f} minutes, {seasons} of four months, {kills:,} "
            f"processes killed at {steps} different steps. Sum of all differences: {text(self.difference)}.",
            "",
            "| what came | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in self._what_came()),
            "",
            "| equation | looked at | left side | right side | difference |",
            "|---|---|---|---|---|",
            *(self._row(one) for one in self.findings.values()),
            "",
            "An equation without sides is a statement about each of what was looked at.",
            "",
            "| deed | done | killed | where, and how often |",
            "|---|---|---|---|",
            *self._killed(),
        ]
        return "\n".join(lines) + "\n"

    def _what_came(self) -> list[tuple[str, str]]:
        tally = self.tally
        return [
            ("calls", f"{tally.calls:,}"),
            ("records in journals", f"{tally.records:,}"),
            ("of them written once more", f"{tally.again:,}"),
            ("more than five days late", f"{tally.late:,}"),
            ("the latest", f"{tally.longest / timedelta(days=1):.1f} days"),
            *((name, f"{count:,}") for name, count in self.counts.items()),
        ]

    @staticmethod
    def _row(one: Finding) -> str:
        sides = (text(one.left), text(one.right), text(one.difference)) if one.left or one.right else ("", "", "")
        return f"| {one.name} | {one.checked:,} | {' | '.join(map(_with_commas, sides))} |"

    def _killed(self) -> list[str]:
        rows = []
        for deed, done in self.tally.done.most_common():
            own = Counter({step: count for (name, step), count in self.crashes.items() if name == deed})
            places = " · ".join(f"{step} {count}" for step, count in own.most_common())
            rows.append(f"| {deed} | {done:,} | {sum(own.values()):,} | {places} |")
        return rows


def _with_commas(number: str) -> str:
    whole, point, rest = number.partition(".")
    return f"{int(whole):,}{point}{rest}" if whole.lstrip("-").isdigit() else number
