"""Runs of settlement: at once, broken off anywhere, killed, again; each provider is settled once and whole."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from decimal import Decimal
from typing import Any

import pytest

from bazaar import Service
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM
from haat.ledger.model import Operation, account, moved
from haat.ledger.service import Ledger, post
from haat.settlement import service, store

from .counting_house import MONTH, House


async def a_street(house: House, providers: int) -> list[Service]:
    """Return the listings of so many providers; a customer used each, and its month is invoiced but not settled."""
    customer = await house.bazaar.organisation()
    listings = [await house.bazaar.service(f"s{n}", f"p{n}", price="0.37") for n in range(providers)]
    subscriptions = [await house.bazaar.subscribe(customer, one) for one in listings]
    await house.bazaar.take([house.bazaar.event(one, str(n + 1)) for n, one in enumerate(subscriptions)])
    house.close_month()
    await house.invoices.issue_all(PLATFORM, MONTH)
    return listings


async def check_whole(house: House, providers: int) -> None:
    """Each provider has one statement with its line, event and posting, and running again changes nothing."""
    found = await house.settlements.close_all(PLATFORM, MONTH)
    assert len(found) == len({one.org_id for one in found}) == providers
    assert {one.part for one in found} == {1}
    for table in ("settlement_lines", "earnings"):
        assert len(await house.bazaar.rows(f"SELECT id FROM {table}")) == providers
    for kind in ("settlement.closed", "settlement.lines"):
        assert len(await house.bazaar.rows("SELECT id FROM events WHERE type = %s", kind)) == providers
    posted = await house.bazaar.rows("SELECT id FROM ledger_operations WHERE kind = 'settlement'")
    assert len(posted) == providers
    await house.check_sums()
    await house.check_rebuild()


async def test_runs_at_once_settle_each_provider_once(house: House) -> None:
    await a_street(house, 4)
    await asyncio.gather(*(house.settlements.close_all(PLATFORM, MONTH) for _ in range(4)))
    await check_whole(house, 4)


STEPS = [
    (store, "lock"),
    (store, "unsettled"),
    (store, "unsettled_credits"),
    (store, "movements"),
    (service, "record"),
    (store, "contested"),
    (service, "post"),
]


@pytest.mark.parametrize(("module", "step"), STEPS, ids=[name for _, name in STEPS])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_run_that_is_broken_off_at_any_step_leaves_nothing_of_that_provider(
    house: House, monkeypatch: pytest.MonkeyPatch, module: Any, step: str, after: bool
) -> None:
    """The second provider's close ends at a step: the first one's stands, of the second there is nothing."""
    await a_street(house, 2)
    real, second = getattr(module, step), False

    async def broken(*given: Any, **more: Any) -> Any:
        if second and not after:
            raise asyncio.CancelledError
        found = await real(*given, **more)
        if second:
            raise asyncio.CancelledError
        return found

    with monkeypatch.context() as patch:
        patch.setattr(module, step, broken)
        one, two = await house.bazaar.rows("SELECT DISTINCT provider_org AS org FROM invoice_lines ORDER BY 1")
        assert await house.settlements.close(PLATFORM, MONTH, one["org"])
        second = True
        with pytest.raises(asyncio.CancelledError):
            await house.settlements.close(PLATFORM, MONTH, two["org"])
    for table in ("settlements", "settlement_lines", "earnings"):
        assert await house.bazaar.rows(f"SELECT DISTINCT org_id AS org FROM {table}") == [one]
    await house.check_sums()
    await check_whole(house, 2)


_WORKER = """
import asyncio, sys
from datetime import datetime
from haat.infra.postgres import Database
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.settlement.service import Settlements
from haat.usage.model import Pseudonyms

async def main() -> None:
    clock = SetClock(datetime.fromisoformat(sys.argv[2]))
    async with Database(sys.argv[1]) as app:
        settlements = Settlements(app, clock, Pseudonyms(bytes(32)), Invoices(app, clock, Settings()))
        await settlements.close_all(PLATFORM, sys.argv[3])

asyncio.run(main())
"""


async def test_a_process_killed_in_the_middle_of_a_run_leaves_whole_statements_for_the_next_one(house: House) -> None:
    providers = 60
    await a_street(house, providers)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WORKER, house.database.app.dsn, house.clock.now().isoformat(), MONTH
    )

    async def settled() -> int:
        return len(await house.bazaar.rows("SELECT id FROM settlements"))

    try:
        deadline = time.monotonic() + 120
        while await settled() < 3:
            assert process.returncode is None and time.monotonic() < deadline
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert 3 <= await settled() < providers
    await check_whole(house, providers)


async def test_an_invoice_that_waits_for_its_number_is_settled_once_it_is_issued(house: House) -> None:
    """The projection has no lines of it before; were there any, nobody would owe them yet."""
    await a_street(house, 1)
    await house.bazaar.run("UPDATE invoice_states SET state = 'registering'")
    assert await house.settlements.close_all(PLATFORM, MONTH) == []
    await house.bazaar.run("UPDATE invoice_states SET state = 'issued'")
    await check_whole(house, 1)


async def test_another_currency_on_a_providers_account_is_never_taken_for_rupees(house: House) -> None:
    (listing,) = await a_street(house, 1)
    payable = account("payable", listing.org)
    dollars = Operation(
        f"foreign/{new_id()}", "foreign", house.clock.now(), moved("bank", payable, Decimal("9.00")), currency="USD"
    )
    async with house.database.app.transaction(PLATFORM_SCOPE) as connection:
        await post(connection, [dollars])
    (done,) = await house.settlements.close_all(PLATFORM, MONTH)
    assert (done.adjusted, done.payable) == (0, Decimal("0.26"))
    assert (await house.payouts.balance(PLATFORM, listing.org)).settled == Decimal("0.26")
    trial = await Ledger(house.database.app).trial_balance(PLATFORM)
    assert trial.sums == {"INR": 0, "USD": 0}
    on_it = {(one.currency, one.amount) for one in trial.balances if one.account == payable}
    assert on_it == {("INR", Decimal("-0.26")), ("USD", Decimal("-9.00"))}
