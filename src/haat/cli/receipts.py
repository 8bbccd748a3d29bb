"""The end of the tour: the invoices on paper, the provider's statements, and the calls behind every line of both.

Everything is asked for over HTTP, by the two whose papers they are. The files go to `demo/` in the data directory.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from haat.cli.people import checked
from haat.cli.sale import rupees

if TYPE_CHECKING:
    from haat.cli.tour import Tour

_PAGE = 100


@dataclass(slots=True)
class Receipts:
    """What the tour's papers say, and whether the calls behind them are as many."""

    folder: Path
    papers: list[str] = field(default_factory=list)
    """Names of the files, in the order in which they were made."""
    no_pdf: str = ""
    """Why there is no PDF, where the machine lacks the fonts."""
    lines: Counter[str] = field(default_factory=Counter)
    """How many lines the invoices and the statements have."""
    calls: Counter[str] = field(default_factory=Counter)
    """How many calls their lists have."""
    unlike: list[str] = field(default_factory=list)
    """A sentence for each line that says another number of calls than its list has."""
    story: dict[str, Any] = field(default_factory=dict)
    """One call as its customer is told of it; ``settlement`` is the statement's line that its provider is led to."""

    def as_json(self) -> dict[str, Any]:
        """Return the part of the last line of ``haat demo --once`` that is about papers."""
        return {
            "papers": self.papers,
            "invoice_lines": self.lines["invoice"],
            "invoice_calls": self.calls["invoice"],
            "statement_lines": self.lines["statement"],
            "statement_calls": self.calls["statement"],
            "request_id": self.story["call"]["id"] if self.story else None,
        }

    def wrong(self) -> list[str]:
        """Return a sentence for each thing that is not as it must be."""
        found = list(self.unlike)
        if not (self.lines["invoice"] and self.lines["statement"]):
            found.append("an invoice and a statement were to have lines")
        if not self.story or not self.story["invoice"] or not self.story["settlement"]:
            found.append("no call leads to its line on the invoice and on the statement")
        return found


async def fetch_receipts(tour: Tour, folder: Path) -> Receipts:
    """Fetch what the tour's invoices and statements say, and the list of calls behind each line."""
    receipts = Receipts(folder)
    for invoice in tour.issued:
        await _invoice(tour, invoice, receipts)
    for settlement in tour.settled:
        await _statement(tour, settlement, receipts)
    return receipts


async def _invoice(tour: Tour, invoice: dict[str, Any], receipts: Receipts) -> None:
    path = f"/invoices/{invoice['id']}"
    page = await tour.developer.try_("GET", f"{path}.pdf")
    if page.status_code == 503:
        receipts.no_pdf = page.json()["detail"]
    else:
        _keep(receipts, f"{invoice['serial'].replace('/', '-')}.pdf", page)
    for line in await tour.developer.ask("GET", f"{path}/lines"):
        receipts.lines["invoice"] += 1
        calls = await _count(tour, f"/invoice-lines/{line['id']}/calls")
        receipts.calls["invoice"] += calls
        if calls != line["calls"]:
            name = f"line {line['position']} of {invoice['serial']}"
            receipts.unlike.append(f"{name} charges for {line['calls']} calls and lists {calls}")


async def _statement(tour: Tour, settlement: str, receipts: Receipts) -> None:
    """Keep a statement's evidence and count it line by line; the first call of all is the one whose story is told."""
    statement = await tour.provider.ask("GET", f"/settlements/{settlement}")
    head = statement["settlement"]
    evidence = await tour.provider.try_("GET", f"/settlements/{settlement}/evidence")
    _keep(receipts, f"statement-{head['period']}-part-{head['part']}.csv", evidence)
    rows = list(csv.DictReader(io.StringIO(evidence.text)))
    listed = Counter(row["line_id"] for row in rows)
    for line in statement["lines"]:
        receipts.lines["statement"] += 1
        receipts.calls["statement"] += listed[line["id"]]
        if listed[line["id"]] != line["calls"]:
            name = f"{line['description']} on the statement"
            receipts.unlike.append(f"{name} is of {line['calls']} calls and lists {listed[line['id']]}")
    if rows and not receipts.story:
        path = f"/usage/calls/{rows[0]['request_id']}"
        receipts.story = await tour.developer.ask("GET", path)
        led = (await tour.provider.ask("GET", path))["settlement"] or {}
        found = [line for line in statement["lines"] if line["id"] == led.get("settlement_line_id")]
        receipts.story["settlement"] = found[0] if found else None


async def _count(tour: Tour, path: str) -> int:
    calls, cursor = 0, None
    while True:
        page = await tour.developer.ask("GET", path, limit=_PAGE, cursor=cursor)
        calls, cursor = calls + len(page["items"]), page["next"]
        if cursor is None:
            return calls


def _keep(receipts: Receipts, name: str, answer: httpx.Response) -> None:
    """Keep an answer as a file; raise TourFailed for a refusal."""
    if not answer.is_success:
        checked(answer)
    receipts.folder.mkdir(parents=True, exist_ok=True)
    (receipts.folder / name).write_bytes(answer.content)
    receipts.papers.append(name)


def tell(tour: Tour, receipts: Receipts) -> None:
    """Say what was kept, and lead one call from its request id to its paise."""
    for paper in ("invoice", "statement"):
        lines, calls = receipts.lines[paper], receipts.calls[paper]
        tour.say(f"{lines} lines of {paper}s list {calls:,} calls by their request ids, as many as they charge for")
    tour.say(f"{', '.join(receipts.papers)} in {receipts.folder}")
    if receipts.no_pdf:
        tour.say(f"no PDF: {receipts.no_pdf}")
    story = receipts.story
    if not story or not story["invoice"] or not story["settlement"]:
        return
    invoice, shared = story["invoice"], story["settlement"]
    tour.console.print("\n[bold]One call's way[/bold]")
    for what, said in (
        ("call", story["call"]["id"]),
        ("metered", f"{Decimal(story['quantity']).normalize():f} {story['unit'].replace('_', ' ')}"),
        ("priced", f"₹{Decimal(story['list_charge']).normalize():f}, before free units"),
        ("invoiced", f"{invoice['serial']}, line {invoice['position']}"),
        (
            "shared",
            f"that line's {rupees(Decimal(shared['gross']))}: {rupees(Decimal(shared['provider']))} to its "
            f"provider, {rupees(Decimal(shared['platform']))} to the platform",
        ),
        ("look", f"{tour.portal}/account/calls/{story['call']['id']}"),
    ):
        tour.console.print(f"{what:<10} {said}", highlight=False, soft_wrap=True)
    tour.console.print()
