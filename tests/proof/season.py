"""A season: months of calls, closes, refunds and disputes, in which whoever does something may die over it.

The same season is gone through in one process, where exceptions strike, and by processes that are killed; what is
looked at, and when, is the same.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from bazaar import Bazaar
from haat.infra.postgres import Connection
from haat.settings import Settings

from . import journals, traffic
from .audit import Audit, Facts, Failed, Finding, calls_of, fingerprint
from .deeds import Refused
from .hands import Hands
from .market import MONTHS, OPENS, Market, after, furnish, moment
from .traffic import Arrival

CLOSES_AFTER = timedelta(hours=12)
"""How long after a month's end in India it is closed: then it is over in every zone, its hour of grace included."""
WORKERS, DOOMED = ("g0", "g1", "g2"), "doomed"


@dataclass
class Tally:
    """What a season came to, for the report."""

    calls: int = 0
    records: int = 0
    again: int = 0
    late: int = 0
    longest: timedelta = timedelta(0)
    refused: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add another season's."""
        self.calls += other.calls
        self.records += other.records
        self.again += other.again
        self.late += other.late
        self.longest = max(self.longest, other.longest)
        self.refused += other.refused
        self.done += other.done


@dataclass
class Season:
    """One season on a database of its own. ``calls`` is how many there are in a month, about."""

    bazaar: Bazaar
    owner_dsn: str
    hands: Hands
    folder: Path
    chance: random.Random
    calls: int = 100
    customers: int = 5
    tally: Tally = field(default_factory=Tally)
    findings: list[Finding] = field(default_factory=list)

    async def run(self) -> list[Finding]:
        """Go through the season and return what the last audit found; raise Failed as soon as something is wrong."""
        await self._open()
        for label in MONTHS:
            await self._month(label)
            await self._close(label)
            await self._afterwards(label)
        await self._end()
        await self.check("the end of the season", final=True)
        return self.findings

    # --- a month -----------------------------------------------------------------------------------

    async def _open(self) -> None:
        settings = Settings()
        self.market: Market = await furnish(self.bazaar, self.chance, self.customers)
        self.facts = Facts(self.market, Fraction(settings.gst_rate), settings.operator_state)
        self.now = OPENS
        self.seen: set[tuple[str, int, int]] = set()
        self.coming: list[Arrival] = []
        await self.do("promise", service=self.market.services[0].id)
        for org in sorted({service.org for service in self.market.services}):
            await self.do("bank_account", org=org)
        rich, poor = self.market.customers[0], self.market.customers[1]
        await self._grant(rich.org, Decimal("100000.00"), free=False)
        await self._grant(poor.org, Decimal("25.50"), free=True)

    async def _month(self, label: str) -> None:
        """Let a month's calls come, a week at a time; halfway something changes, and a part of it is billed."""
        self.coming += traffic.of_month(self.market, self.bazaar, label, self.calls if label != MONTHS[-1] else 20)
        for week in (7, 14, 21, 27):
            await self._ship(moment(label, "Asia/Kolkata", week))
            if week == 14:
                await self._bill_part(label)
                await self._correct(2)
            if week == 21 and label == MONTHS[0]:
                await self._change_plan()

    async def _close(self, label: str) -> None:
        await self._ship(moment(after(label), "Asia/Kolkata") + CLOSES_AFTER)
        if await self.do("close_by_jobs" if self.hands.works and label in MONTHS[1::2] else "close", period=label):
            self.facts.closed.append(label)
        await self.do("judge", period=label)
        await self.do("settle", period=label)
        await self.check(f"the close of {label}")
        before = await self._fingerprint()
        await self.hands.at_once("close", self.now, period=label)
        await self.do("close", period=label, again=True)
        now = await self._fingerprint()
        again = Finding("closing again, and twice at once, changes nothing")
        for table, was in before.items():
            again.require(now[table] == was, f"{table} is another after {label} was closed again")
        self._conclude([again], f"closing {label} again", keep=True)

    async def _afterwards(self, label: str) -> None:
        """Days later: payments, refunds, disputes, an invoice that is withdrawn, corrections of what is billed."""
        self.now += timedelta(days=1)
        if label != MONTHS[-1]:
            await self._withdraw()
        await self._refund()
        await self._pay()
        if label == MONTHS[1]:
            await self._contest()
        if label != MONTHS[-1]:
            await self._correct(3)
        await self.do("settle", period=label)
        await self.do("pay_out")

    async def _end(self) -> None:
        """Settle what is left, and pay it out when its days are over."""
        for label in MONTHS:
            await self.do("settle", period=label)
        self.now += timedelta(days=8)
        await self.do("pay_out")

    # --- deeds -------------------------------------------------------------------------------------

    async def do(self, name: str, **arguments: Any) -> Any:
        """Do a deed; return None where it was refused, which is written down."""
        try:
            result = await self.hands.do(name, self.now, **arguments)
        except Refused as refusal:
            self.tally.refused[str(refusal)[:120]] += 1
            return None
        self.tally.done[name] += 1
        return True if result is None else result

    async def _ship(self, now: datetime) -> None:
        """Let records come that are there by now: in any order, some of them twice, then ship them."""
        self.now = now
        due = [one for one in self.coming if one.at <= now]
        self.coming = [one for one in self.coming if one.at > now]
        self.chance.shuffle(due)
        again = self.chance.sample(due, len(due) // 4)
        self._let_one_die(due)
        shares = [(worker, False, due[place :: len(WORKERS)]) for place, worker in enumerate(WORKERS)]
        batches = [*shares, (DOOMED, False, []), ("backup", True, again)]
        await self.do(
            "meter", batches=[(who, twice, [(one.id, one.payload) for one in own]) for who, twice, own in batches]
        )
        self.tally.calls += len(due)
        self.tally.again += len(again)
        for one in due:
            delay = now - one.called_at
            self.tally.late += delay > timedelta(days=5)
            self.tally.longest = max(self.tally.longest, delay)
        await self.do("ship")
        records = [one for one in journals.metered(self.folder / "journal") if one.place not in self.seen]
        self.seen |= {one.place for one in records}
        self.tally.records = len(self.seen)
        self.facts.take([one.call for one in sorted(records, key=lambda one: one.place)], now)

    def _let_one_die(self, due: Sequence[Arrival]) -> None:
        """Leave the journal of a worker that confirmed nothing and died in the middle of a record."""
        folder = self.folder / "journal" / DOOMED
        folder.mkdir(parents=True, exist_ok=True)
        number = max((int(one.stem) for one in folder.glob("*.log")), default=0) + 1
        frames = [journals.frame(journals.USAGE, one.like(self.chance)) for one in due[:3]]
        torn = b"".join(frames)[: -self.chance.randint(1, 40)]
        (folder / f"{number:08d}.log").write_bytes(torn)

    async def _bill_part(self, label: str) -> None:
        customer = self.chance.choice(self.market.customers)
        await self.do("bill_part", period=label, org=customer.org)

    async def _correct(self, most: int) -> None:
        """Void calls, or count others in their place."""
        rows = await self.bazaar.rows(
            """
            SELECT id, characters FROM usage WHERE outcome IN ('completed', 'client_left') AND mode = 'live'
              AND cached_share IS NULL AND id NOT IN (SELECT call_id FROM usage_corrections) ORDER BY id
            """
        )
        for row in self.chance.sample(rows, min(most, len(rows))):
            units = None
            if row["characters"] is not None and self.chance.random() < 0.5:
                units = {"characters": Decimal(self.chance.randint(0, 9_000_000)).scaleb(-3)}
            if await self.do("correct", call=row["id"], units=units):
                self.facts.corrected[row["id"]] = units

    async def _refund(self) -> None:
        """Credit a part of some lines, all of another, and add to one."""
        rows = await self.bazaar.rows(
            """
            SELECT line.id, line.taxable - coalesce((SELECT sum(taxable) FROM credit_note_lines AS one
                                                     WHERE one.invoice_line_id = line.id), 0) AS left_of_it
            FROM invoice_lines AS line JOIN invoice_states USING (invoice_id) WHERE state <> 'void' ORDER BY line.id
            """
        )
        rows = [row for row in rows if row["left_of_it"] > 0]
        for number, row in enumerate(self.chance.sample(rows, min(4, len(rows)))):
            left, key = row["left_of_it"], f"refund-{len(self.facts.credited) + number}-{self.now:%m%d}"
            amount = left if number == 0 else Decimal(self.chance.randint(1, int(left * 100))) / 100
            fault = self.chance.choice(["provider", "platform"])
            if number == 3:
                if await self.do("debit", line=row["id"], amount=amount, key=key):
                    self.facts.debited[key] = (row["id"], Fraction(amount))
            elif await self.do("credit", line=row["id"], amount=amount, fault=fault, key=key):
                self.facts.credited[key] = (row["id"], Fraction(amount))

    async def _pay(self) -> None:
        """Let some customers pay: too little, or too much."""
        for customer in self.market.customers[1:3]:
            amount = Decimal(self.chance.randint(1, 900_000)) / 100
            reference = f"UTR {self.now:%m%d} {customer.org}"
            if await self.do("pay", org=customer.org, amount=amount, reference=reference):
                self.facts.paid[reference] = (customer.org, Fraction(amount))

    async def _withdraw(self) -> None:
        """Withdraw an invoice of which nothing was paid, of whatever month, and bill that month again."""
        rows = await self.bazaar.rows(
            """
            SELECT invoice_id, period FROM invoice_states WHERE state IN ('issued', 'overdue') AND paid = 0
              AND credited = 0 AND kind = 'invoice' ORDER BY invoice_id
            """
        )
        if rows:
            row = self.chance.choice(rows)
            if await self.do("void", invoice=row["invoice_id"]):
                await self.do("close", period=row["period"], again=True)

    async def _contest(self) -> None:
        """Hold a customer's log, which knows nothing of some calls, against its newest invoice."""
        (row, *_) = await self.bazaar.rows(
            "SELECT id, org_id FROM invoices WHERE kind = 'invoice' AND net > 0 ORDER BY id DESC LIMIT 1"
        )
        log: dict[tuple[UUID, str], Decimal] = {}
        async with self.owner() as connection:
            lines = await (
                await connection.execute("SELECT * FROM invoice_lines WHERE invoice_id = %s", (row["id"],))
            ).fetchall()
            for line in lines:
                for identifier, voided, quantity in await calls_of(connection, line):
                    if not voided and self.chance.random() < 0.9:
                        key = identifier, line["unit"]
                        log[key] = log.get(key, Decimal(0)) + quantity
        text = "request_id,unit,quantity\n" + "".join(f"{one},{unit},{value}\n" for (one, unit), value in log.items())
        await self.do("contest", invoice=row["id"], org=row["org_id"], log=text.encode())

    async def _change_plan(self) -> None:
        """Move a subscription to another plan in the middle of a month."""
        stay = next(one for one in self.market.stays if one.subscription.service.slug == "speak")
        plan = "professional" if stay.subscription.plan == "basic" else "basic"
        subscription = stay.subscription
        if await self.do("change_plan", org=subscription.org, subscription=subscription.id, plan=plan):
            traffic.moved(self.market, stay, plan, self.now)

    async def _grant(self, org: UUID, amount: Decimal, *, free: bool) -> None:
        key = f"grant-{len(self.facts.granted)}"
        if await self.do("top_up", org=org, amount=amount, free=free, key=key):
            self.facts.granted[key] = (org, Fraction(amount))

    # --- audits ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[Connection]:
        connection: Connection
        async with await AsyncConnection.connect(self.owner_dsn, row_factory=dict_row) as connection:
            yield connection

    async def check(self, when: str, *, final: bool = False) -> None:
        """Audit, and take note of what was issued since the last audit; raise Failed."""
        async with self.owner() as connection:
            found = await Audit(connection, self.facts, final).run()
            await self._remember(connection)
        self._conclude(found, when)

    def _conclude(self, found: list[Finding], when: str, *, keep: bool = False) -> None:
        if wrong := [one for one in found if not one.holds]:
            raise Failed(f"At {when}: " + "\n".join(hint(one) for one in wrong))
        kept = [one for one in self.findings if one.name not in {new.name for new in found}]
        if keep:
            for one in found:
                same = next((old for old in self.findings if old.name == one.name), None)
                one.checked += same.checked if same else 0
        self.findings = [*kept, *found]

    async def _remember(self, connection: Connection) -> None:
        """Keep documents as they are when they are new, and which calls are behind new lines."""
        for table in ("invoices", "credit_notes"):
            rows = await connection.execute(
                f"SELECT id, document FROM {table} JOIN invoice_documents USING (content_hash)"
            )
            async for row in rows:
                self.facts.documents.setdefault(row["id"], row["document"])
        lines = await (await connection.execute("SELECT * FROM invoice_lines")).fetchall()
        for line in lines:
            if line["id"] not in self.facts.members:
                self.facts.members[line["id"]] = await calls_of(connection, line)

    async def _fingerprint(self) -> dict[str, str]:
        async with self.owner() as connection:
            return await fingerprint(connection)


def hint(finding: Finding) -> str:
    """Say in a few lines where an equation does not hold."""
    lines = [f"{finding.name}: {len(finding.wrong)} of {finding.checked}, difference {finding.difference}"]
    return "\n".join([*lines, *(f"    {one}" for one in finding.wrong[:3])])
