"""Random markets with refunds, holds, disputes, payouts and reversals in any order: every paisa is somebody's."""

from __future__ import annotations

import asyncio
import contextlib
import random
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from haat.kernel.clock import SetClock
from haat.kernel.errors import HaatError
from haat.kernel.permissions import PLATFORM
from haat.settlement.disputes import Verdict
from haat.settlement.withholding import parse

from .counting_house import ACCOUNT, MONTH, House, consumer, partner, pieces

RULES = [
    {"name": "TDS", "section": "194-O", "rate": "0.001", "starts": "2024-10-01"},
    {"name": "TCS", "section": "52", "rate": "0.005", "starts": "2024-07-10", "base": "gross"},
]


class Market:
    """A market on which a random thing happens at each step; what may not be done is refused, and changes nothing."""

    def __init__(self, house: House, chance: random.Random) -> None:
        self.house, self.chance = house, chance
        self.subscriptions: list[Any] = []
        self.periods = [MONTH]

    async def furnish(self) -> None:
        bazaar, chance = self.house.bazaar, self.chance
        services = [
            await bazaar.service(
                f"s{number}",
                chance.choice(["vani", "akshara", "lipi"]),
                price=str(Decimal(chance.randint(1, 10**6)).scaleb(-5)),
                share=str(Decimal(chance.randint(0, 10**5)).scaleb(-5)),
            )
            for number in range(4)
        ]
        customers = [await bazaar.organisation(f"C{number}") for number in range(3)]
        self.subscriptions = [await bazaar.subscribe(org, one) for org in customers for one in services]
        for org in {one.org for one in services[:-1]}:
            await self.house.payouts.set_account(partner(org), **ACCOUNT)

    async def step(self) -> None:
        deed = self.chance.choice(
            [self.sell, self.sell, self.bill, self.settle, self.refund, self.refund, self.draft, self.draft]
            + [self.move] * 8
            + [self.answer] * 2
            + [self.hold, self.release, self.contest, self.decide, self.wait]
        )
        with contextlib.suppress(HaatError):
            await deed()

    async def sell(self) -> None:
        bazaar, chance = self.house.bazaar, self.chance
        await bazaar.take(
            [
                bazaar.event(
                    chance.choice(self.subscriptions),
                    str(Decimal(chance.randint(0, 10**7)).scaleb(-6)),
                    at=bazaar.clock.now() - timedelta(minutes=chance.randint(0, 2000)),
                )
                for _ in range(8)
            ]
        )

    async def bill(self) -> None:
        batch = (await self.house.bazaar.rows("SELECT max(batch) AS batch FROM usage_batches"))[0]["batch"]
        await self.house.invoices.issue_all(PLATFORM, self.periods[-1], until=batch)

    async def settle(self) -> None:
        await self.house.settlements.close_all(PLATFORM, self.chance.choice(self.periods))

    async def refund(self) -> None:
        rows = await self.house.bazaar.rows(
            """
            SELECT id, taxable - coalesce((SELECT sum(taxable) FROM credit_note_lines AS one
                                           WHERE one.invoice_line_id = line.id), 0) AS remaining
            FROM invoice_lines AS line
            """
        )
        rows = [row for row in rows if row["remaining"] > 0]
        if rows:
            row = self.chance.choice(rows)
            amount = Decimal(self.chance.randint(1, int(row["remaining"] * 100))) / 100
            await self.house.credit(row["id"], str(amount), self.chance.choice(["provider", "provider", "platform"]))

    async def draft(self) -> None:
        await self.house.payouts.draft_all(PLATFORM)

    async def move(self) -> None:
        rows = await self.house.bazaar.rows("SELECT id FROM payouts ORDER BY id DESC LIMIT 6")
        if not rows:
            return
        payouts, identifier = self.house.payouts, self.chance.choice(rows)["id"]
        deed = self.chance.choice(
            ["approve", "approve", "send", "send", "pay", "pay", "hold", "release", "fail", "reverse"]
        )
        if deed == "approve":
            await payouts.approve(PLATFORM, identifier)
        elif deed == "send":
            await payouts.send(PLATFORM)
        elif deed == "pay":
            await payouts.pay(PLATFORM, identifier, "UTR")
        elif deed == "hold":
            await payouts.hold_payout(PLATFORM, identifier, "Why")
        elif deed == "release":
            await payouts.release_payout(PLATFORM, identifier)
        elif deed == "fail":
            await payouts.fail(PLATFORM, identifier, "Why")
        else:
            await payouts.reverse(PLATFORM, identifier, "Why")

    async def answer(self) -> None:
        """Let the bank tell of some payouts what it pleases; what can't be is refused row by row."""
        rows = await self.house.bazaar.rows("SELECT id, amount FROM payouts ORDER BY id DESC LIMIT 6")
        told = [
            f"{row['id']},{self.chance.choice(['paid', 'returned'])},{row['amount']},U{self.chance.randint(1, 2)},Why"
            for row in rows
            if self.chance.random() < 0.5
        ]
        text = "\n".join(["payout_id,status,amount,bank_reference,reason", *told])
        await self.house.bank_answers.take(PLATFORM, text.encode(), skip_refused=True)

    async def hold(self) -> None:
        rows = await self.house.bazaar.rows("SELECT id, org_id, payable FROM settlements")
        if rows:
            row = self.chance.choice(rows)
            amount = Decimal(self.chance.randint(1, 2000)) / 100
            settlement = row["id"] if self.chance.random() < 0.7 else None
            await self.house.payouts.hold(PLATFORM, row["org_id"], amount, "Why", settlement=settlement)

    async def release(self) -> None:
        holds = await self.house.payouts.holds(PLATFORM)
        if holds:
            await self.house.payouts.release_hold(PLATFORM, self.chance.choice(holds).id)

    async def contest(self) -> None:
        rows = await self.house.bazaar.rows("SELECT id, org_id FROM invoices")
        calls = await self.house.bazaar.rows("SELECT id, characters FROM usage")
        if rows:
            row = self.chance.choice(rows)
            log = [b"request_id,quantity\n"] + [
                f"{call['id']},{call['characters']}\n".encode() for call in calls if self.chance.random() < 0.8
            ]
            await self.house.disputes.open(consumer(row["org_id"]), f"invoice/{row['id']}", pieces(*log), "csv")

    async def decide(self) -> None:
        found = (await self.house.disputes.page(PLATFORM, status="open")).items
        if not found:
            return
        dispute = self.chance.choice(found)
        verdicts: dict[UUID, Verdict] = {}
        for line in (await self.house.disputes.story(PLATFORM, dispute.id)).lines:
            credited = (
                await self.house.bazaar.rows(
                    "SELECT coalesce(sum(taxable), 0) AS sum FROM credit_note_lines WHERE invoice_line_id = %s",
                    line.invoice_line_id,
                )
            )[0]["sum"]
            if line.taxable > credited and self.chance.random() < 0.6:
                fault: Any = self.chance.choice(["provider", "platform"])
                verdicts[line.invoice_line_id] = Verdict(line.taxable - credited, fault)
        await self.house.disputes.decide(PLATFORM, dispute.id, verdicts, "Why")

    async def wait(self) -> None:
        self.house.clock.advance(days=self.chance.choice([1, 4, 8]))
        label = self.house.clock.now().strftime("%Y-%m")
        if label not in self.periods:
            self.periods.append(label)


async def check_everything_adds_up(house: House) -> None:
    """Σ provider + Σ platform = Σ net - Σ credits, once all that was invoiced and credited is settled."""
    for period in {row["period"] for row in await house.bazaar.rows("SELECT period FROM invoices")}:
        await house.settlements.close_all(PLATFORM, period)
    for row in await house.bazaar.rows("SELECT period FROM invoices LIMIT 1"):
        await house.settlements.close_all(PLATFORM, row["period"])
    sums = (
        await house.bazaar.rows(
            """
            SELECT (SELECT coalesce(sum(net), 0) FROM invoices)
                       - (SELECT coalesce(sum(taxable), 0) FROM credit_note_lines) AS charged,
                   coalesce(sum(provider_amount - credited_provider), 0) AS provider,
                   coalesce(sum(platform_amount - credited_platform), 0) AS platform
            FROM settlements
            """
        )
    )[0]
    assert sums["provider"] + sums["platform"] == sums["charged"]
    assert await house.books("shares") == sums["provider"]
    await house.check_sums()


@pytest.mark.parametrize("seed", range(3))
async def test_every_paisa_is_somebodys_whatever_happens_in_which_order(
    database: Any, clock: SetClock, seed: int
) -> None:
    chance = random.Random(seed)
    house = House(
        database,
        clock,
        rules=parse(RULES) if seed % 2 else (),
        minimum=Decimal(chance.choice([0, 5])),
        delay_days=chance.choice([0, 7]),
    )
    house.bazaar.chance = chance
    market = Market(house, chance)
    await market.furnish()
    for step in range(60):
        await market.step()
        if step % 4 == 3:
            await house.check_sums()
    await check_everything_adds_up(house)
    before = await house.bazaar.rows("SELECT id FROM settlements")
    await check_everything_adds_up(house)
    assert await house.bazaar.rows("SELECT id FROM settlements") == before, "running twice changes nothing"
    await house.check_rebuild()


async def test_runs_at_once_of_every_kind_leave_the_books_right(database: Any, clock: SetClock) -> None:
    house = House(database, clock)
    chance = house.bazaar.chance
    market = Market(house, chance)
    await market.furnish()
    for _ in range(3):
        await market.sell()
        await market.bill()
    lines = await house.lines()
    await asyncio.gather(
        *(house.settlements.close_all(PLATFORM, MONTH) for _ in range(3)),
        *(house.credit(line["id"], "0.01") for line in lines[:3] if line["taxable"]),
        *(house.payouts.draft_all(PLATFORM) for _ in range(2)),
    )
    await asyncio.gather(
        *(house.settlements.close_all(PLATFORM, MONTH) for _ in range(2)),
        *(house.payouts.draft_all(PLATFORM) for _ in range(3)),
    )
    for payout in (await house.payouts.page(PLATFORM, status="draft")).items:
        await asyncio.gather(
            *(house.payouts.approve(PLATFORM, payout.id) for _ in range(2)),
            house.payouts.hold_payout(PLATFORM, payout.id, "Why"),
            return_exceptions=True,
        )
    await asyncio.gather(*(house.payouts.send(PLATFORM) for _ in range(3)))
    await check_everything_adds_up(house)
    await house.check_rebuild()
