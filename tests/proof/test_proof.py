"""Σ of everything is the same on both sides, whatever came twice, late or in disorder, and whoever died over it."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

from bazaar import Bazaar
from haat.app import build_platform
from haat.infra.keyring import Keyring
from haat.kernel.clock import SetClock
from haat.settings import Settings
from haat.usage.event import encode

from .hands import NoMail, Raising
from .market import MONTHS, OPENS, moment
from .season import Season
from .traffic import Arrival, stays_at

SEED = int(os.environ.get("SEED") or 20_270_401)


async def test_every_paisa_traces_to_a_call_whoever_dies_over_it(
    database: Any, tmp_path: Path, keyring: Keyring
) -> None:
    chance, clock = random.Random(SEED), SetClock(OPENS)
    platform = build_platform(Settings(data_dir=tmp_path), database.app, database.service, keyring, clock, NoMail())
    hands = Raising(platform, clock)
    bazaar = Bazaar(database.service, clock, chance)
    season = Season(bazaar, database.owner_dsn, hands, tmp_path, chance, calls=30, customers=4)
    try:
        found = {one.name: one for one in await season.run()}
    except BaseException as failure:
        failure.add_note(f"SEED={SEED} repeats it; {season.tally}")
        raise
    assert all(one.holds and one.checked for one in found.values())
    assert found["Σ charges = Σ net of invoice lines and adjustments"].left > 0
    assert found["Σ minimums = Σ lines of minimums"].left > 0
    dead = Counter(deed for deed, _ in hands.crashes.elements())
    assert {"ship", "bill_part", "close", "judge", "settle", "correct", "credit", "debit", "void", "pay_out"} <= set(
        dead
    )
    assert all(one.startswith("void: ") for one in season.tally.refused), season.tally.refused


class Waiting(Season):
    """A season without chance calls before its last month. The part that is billed of the first one has a call so large
    that the month is below zero when that is voided."""

    async def _month(self, label: str) -> None:
        if label == MONTHS[0]:
            self.buyer = self.market.customers[0].org
            at = moment(label, "Asia/Kolkata", 13)
            stay = next(
                one for one in stays_at(self.market, at)
                if one.subscription.org == self.buyer and one.subscription.service.slug == "speak"
            )  # fmt: skip
            self.large = self.bazaar.event(stay.subscription, "9000000", at=at)
            self.coming.append(Arrival(at, self.large.id, encode(self.large)))
        await super()._month(label)

    async def _bill_part(self, label: str) -> None:
        await self.do("bill_part", period=label, org=self.buyer)
        if label == MONTHS[0]:
            call = UUID(self.large.id)
            assert await self.do("correct", call=call, units=None)
            self.facts.corrected[call] = None


async def test_a_month_that_waits_below_zero_when_it_is_closed_comes_to_its_charges_on_later_invoices(
    database: Any, tmp_path: Path, keyring: Keyring
) -> None:
    chance, clock = random.Random(SEED), SetClock(OPENS)
    platform = build_platform(Settings(data_dir=tmp_path), database.app, database.service, keyring, clock, NoMail())
    bazaar = Bazaar(database.service, clock, chance)
    season = Waiting(bazaar, database.owner_dsn, Raising(platform, clock, careful=True), tmp_path, chance, 0, 2)
    assert all(one.holds for one in await season.run())
    own = await bazaar.rows(
        "SELECT closes FROM invoices WHERE kind = 'invoice' AND period = %s AND org_id = %s", MONTHS[0], season.buyer
    )
    later = await bazaar.rows(
        "SELECT sum(line.taxable) AS net FROM invoice_lines AS line JOIN invoices ON invoices.id = invoice_id"
        " WHERE line.period = %s AND invoices.period > %s AND line.org_id = %s",
        *(MONTHS[0], MONTHS[0], season.buyer),
    )
    assert [row["closes"] for row in own] == [False] and later[0]["net"] < 0, "the part alone, and what it had too much"
