"""Money in, money out: posted once, never below zero, the same after making the tables anew."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from msgspec import structs
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from bazaar import Bazaar, consumer
from haat.infra.postgres import PLATFORM_SCOPE, Connection
from haat.infra.projections import past, rebuild
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.kernel.errors import Conflict, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.permissions import PLATFORM
from haat.ledger.model import account
from haat.ledger.service import Ledger
from haat.settings import Settings
from haat.wallet import leases
from haat.wallet.holds import WALLET
from haat.wallet.leases import Ask
from haat.wallet.model import GrantKind, Mode
from haat.wallet.projection import WALLETS
from haat.wallet.service import Payer, Wallets, pay
from rating.stalls import price

TAX = Decimal("0.18")
RUPEES = Decimal("100.00")


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def wallets(database: Any, clock: SetClock) -> Wallets:
    return Wallets(database.app, clock, TAX)


async def paid(database: Any, org: UUID, amount: str, at: datetime, invoice: UUID | None = None) -> Decimal:
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        return await pay(connection, org, invoice=invoice or uuid4(), amount=Decimal(amount), at=at)


async def books(database: Any) -> dict[str, Decimal]:
    found = await Ledger(database.app).trial_balance(PLATFORM)
    assert found.sums in ({}, {"INR": Decimal(0)})
    return {one.account: one.amount for one in found.balances}


async def test_a_top_up_is_in_the_wallet_and_in_the_books_once(database: Any, bazaar: Bazaar, wallets: Wallets) -> None:
    org = await bazaar.organisation()
    first = await wallets.top_up(PLATFORM, org, RUPEES, key="neft-1", note="NEFT 1")
    assert await wallets.top_up(PLATFORM, org, RUPEES, key="neft-1") == first
    standing = await wallets.standing(consumer(org))
    assert (standing.balance, standing.available, standing.mode) == (RUPEES, RUPEES, Mode.POSTPAID)
    assert await books(database) == {"bank": RUPEES, account("wallet", org): -RUPEES}
    with pytest.raises(Conflict):
        await wallets.top_up(PLATFORM, org, Decimal("99.00"), key="neft-1")
    with pytest.raises(Conflict):
        await wallets.credit(PLATFORM, org, RUPEES, key="neft-1")


async def test_top_ups_at_once_with_one_key_are_one(database: Any, bazaar: Bazaar, wallets: Wallets) -> None:
    org = await bazaar.organisation()
    made = await asyncio.gather(*(wallets.top_up(PLATFORM, org, RUPEES, key="neft") for _ in range(12)))
    assert len({one.id for one in made}) == 1
    assert (await wallets.standing(PLATFORM, org)).balance == RUPEES


@pytest.mark.parametrize("amount", ["0", "-1", "0.001", "100000000.01"])
async def test_amounts_that_are_no_money_are_refused(bazaar: Bazaar, wallets: Wallets, amount: str) -> None:
    org = await bazaar.organisation()
    with pytest.raises(ValidationFailed):
        await wallets.top_up(PLATFORM, org, Decimal(amount), key="k")
    with pytest.raises(ValidationFailed):
        await wallets.top_up(PLATFORM, org, RUPEES, key="with space", priority=2000)


async def test_only_the_operator_puts_money_in_and_everybody_sees_only_its_own(
    bazaar: Bazaar, wallets: Wallets
) -> None:
    org, other = await bazaar.organisation(), await bazaar.organisation("Other")
    for refused in (
        wallets.top_up(consumer(org), org, RUPEES, key="k"),
        wallets.set_mode(consumer(org), org, Mode.POSTPAID),
        wallets.leases(consumer(org)),
    ):
        with pytest.raises(PermissionDenied):
            await refused
    with pytest.raises(NotFound):
        await wallets.standing(consumer(org), other)
    with pytest.raises(NotFound):
        await wallets.top_up(PLATFORM, uuid4(), RUPEES, key="k")
    with pytest.raises(NotFound):
        await wallets.set_mode(PLATFORM, org, Mode.PREPAID, uuid4())


async def test_only_wallets_with_something_left_of_a_grant_are_filled(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    full, spent, none = [await bazaar.organisation() for _ in range(3)]
    for org in (full, spent):
        await wallets.top_up(PLATFORM, org, RUPEES, key="a")
    assert await paid(database, spent, "200.00", clock.now()) == RUPEES
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        assert await Payer(Decimal("0.18")).filled(connection, [full, spent, none]) == {full}


async def test_an_invoice_is_paid_from_the_grants_in_their_order(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    org, invoice = await bazaar.organisation(), uuid4()
    late = await wallets.top_up(PLATFORM, org, RUPEES, key="a")
    soon = await wallets.credit(
        PLATFORM, org, Decimal("30.00"), key="b", expires_at=clock.now() + timedelta(days=9), note="Welcome"
    )
    assert await paid(database, org, "118.00", clock.now(), invoice) == Decimal("118.00")
    left = (await wallets.standing(PLATFORM, org)).grants
    assert [(one.id, one.remaining) for one in left] == [(late.id, Decimal("12.00"))]
    assert soon.kind is GrantKind.FREE
    found = await books(database)
    assert found[account("wallet", org)] == Decimal("-12.00")
    assert found[account("receivable", org)] == Decimal("-118.00")
    assert found["promotions"] == Decimal("30.00")
    moves = (await wallets.movements(consumer(org))).items
    assert [(one.kind, one.amount, one.balance) for one in moves] == [
        ("invoice", Decimal("-118.00"), Decimal("12.00")),
        ("free", Decimal("30.00"), Decimal("130.00")),
        ("paid", RUPEES, RUPEES),
    ]
    assert moves[0].reference == f"invoice/{invoice}"


async def test_a_wallet_pays_what_it_has_and_no_more(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    org = await bazaar.organisation()
    assert await paid(database, org, "5.00", clock.now()) == 0
    assert await books(database) == {}
    await wallets.top_up(PLATFORM, org, RUPEES, key="a")
    assert await paid(database, org, "0.00", clock.now()) == 0
    drawn = await asyncio.gather(*(paid(database, org, "30.00", clock.now()) for _ in range(6)))
    assert sorted(drawn) == [0, 0, Decimal("10.00"), Decimal("30.00"), Decimal("30.00"), Decimal("30.00")]
    assert (await wallets.standing(PLATFORM, org)).balance == 0


async def test_what_gateways_have_leased_pays_no_invoice(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    org = await bazaar.organisation()
    await wallets.top_up(PLATFORM, org, RUPEES, key="a")
    async with database.service.transaction(PLATFORM_SCOPE) as connection:
        ask = Ask(org, WALLET, 0, 0, 0, need=40_000_000_000, want=40_000_000_000)
        [answer] = await leases.sync(connection, "g", [ask], {}, seconds=30, tax=TAX, at=clock.now())
    assert answer.limit == 40_000_000_000
    assert await paid(database, org, "90.00", clock.now()) == Decimal("60.00")
    assert (await wallets.standing(PLATFORM, org)).available == 0


async def test_an_expired_grant_goes_back_the_way_it_came(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    org, soon = await bazaar.organisation(), clock.now() + timedelta(days=3)
    await wallets.top_up(PLATFORM, org, RUPEES, key="a", expires_at=soon)
    await wallets.credit(PLATFORM, org, Decimal("20.00"), key="b", expires_at=soon)
    await wallets.credit(PLATFORM, org, Decimal("7.00"), key="c")
    assert await wallets.expire() == []
    clock.advance(days=3)
    assert len(await wallets.expire()) == 2
    assert await wallets.expire() == []
    assert await books(database) == {
        "bank": RUPEES,
        "revenue": -RUPEES,
        "promotions": Decimal("7.00"),
        account("wallet", org): Decimal("-7.00"),
    }
    with pytest.raises(ValidationFailed):
        await wallets.credit(PLATFORM, org, RUPEES, key="d", expires_at=clock.now())


async def test_what_calls_have_used_of_a_grant_survives_its_expiry_until_the_invoice(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    org = await bazaar.organisation()
    subscription = await bazaar.subscribe(org, await bazaar.service(unit="characters", price="0.50"))
    await wallets.set_mode(PLATFORM, org, Mode.PREPAID)
    await wallets.credit(PLATFORM, org, RUPEES, key="a", expires_at=datetime(2026, 11, 30, 12, tzinfo=UTC))
    await bazaar.take([bazaar.event(subscription, "100")])  # 50.00 and 9.00 of GST
    standing = await wallets.standing(PLATFORM, org)
    assert (standing.unbilled, standing.available) == (Decimal("59.00"), Decimal("41.00"))
    clock.advance(days=11)  # 2 December
    await wallets.expire()
    assert (await wallets.standing(PLATFORM, org)).balance == Decimal("59.00")
    assert (await wallets.standing(PLATFORM, org)).available == 0
    invoice = await Invoices(database.app, clock, Settings()).issue(PLATFORM, "2026-11", org)
    assert invoice is not None and invoice.total == Decimal("59.00")
    assert await paid(database, org, "59.00", clock.now(), invoice.id) == Decimal("59.00")
    standing = await wallets.standing(PLATFORM, org)
    assert (standing.balance, standing.unbilled, standing.available) == (0, 0, 0)


async def test_usage_is_held_until_it_is_billed_and_late_usage_again(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    org = await bazaar.organisation()
    service = await bazaar.service(unit="characters", price="0.10", free="50")
    subscription = await bazaar.subscribe(org, service)
    other = await bazaar.subscribe(org, await bazaar.service("other", price="9"))
    await wallets.set_mode(PLATFORM, org, Mode.PREPAID)
    await wallets.set_mode(PLATFORM, org, Mode.POSTPAID, other.id)
    await wallets.top_up(PLATFORM, org, RUPEES, key="a")
    used = datetime(2026, 11, 21, tzinfo=UTC)
    await bazaar.take([bazaar.event(subscription, "150", at=used), bazaar.event(other, "5", at=used)])
    assert (await wallets.standing(PLATFORM, org)).unbilled == Decimal("11.80")  # 50 of 150 are free
    clock.advance(days=12)
    issued = await Invoices(database.app, clock, Settings()).issue(PLATFORM, "2026-11", org)
    assert issued is not None
    assert (await wallets.standing(PLATFORM, org)).unbilled == 0
    await bazaar.take([bazaar.event(subscription, "10", at=used)])
    assert (await wallets.standing(PLATFORM, org)).unbilled == Decimal("1.18")


async def test_the_tables_are_made_anew_to_the_byte_and_nobody_edits_them(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    orgs = [await bazaar.organisation(f"Org {number}") for number in range(3)]
    chance = random.Random(5)
    for number in range(12):
        org = chance.choice(orgs)
        await wallets.top_up(
            PLATFORM, org, Decimal(chance.randrange(1, 9999)) / 100, key=f"k{number}", priority=chance.randrange(3)
        )
        await wallets.credit(
            PLATFORM, org, RUPEES, key=f"c{number}", expires_at=clock.now() + timedelta(days=number + 1)
        )
        await paid(database, chance.choice(orgs), str(chance.randrange(50)), clock.now())
        await wallets.set_mode(PLATFORM, org, chance.choice(list(Mode)))
        clock.advance(days=1)
        await wallets.expire()
    connection: Connection
    for broken in (None, "TRUNCATE wallet_burns, wallet_grants, wallets"):
        async with await AsyncConnection.connect(database.owner_dsn, row_factory=dict_row) as connection:
            if broken:
                await connection.execute(broken)
            differences = await rebuild(connection, [WALLETS], repair=True)
        assert any(one.missing for one in differences) is bool(broken)
        assert not any(one.surplus for one in differences)
    async with await AsyncConnection.connect(database.owner_dsn, row_factory=dict_row) as connection:
        assert not any(one.missing or one.surplus for one in await rebuild(connection, [WALLETS], repair=False))
        then = [table async for table, _ in past(connection, WALLETS, clock.now() - timedelta(days=10))]
    assert 0 < then.count("wallet_grants") < 24
    for statement in ("UPDATE wallet_grants SET amount = 1", "DELETE FROM wallet_burns"):
        with pytest.raises(psycopg.Error):
            async with database.app.transaction(PLATFORM_SCOPE) as connection:
                await connection.execute(statement)


async def test_the_books_say_what_the_wallets_say_whatever_happens(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    org, chance = await bazaar.organisation(), random.Random(11)

    async def something(number: int) -> None:
        match chance.randrange(4):
            case 0:
                await wallets.top_up(PLATFORM, org, Decimal(chance.randrange(1, 5000)) / 100, key=f"k{number}")
            case 1:
                await wallets.credit(
                    PLATFORM,
                    org,
                    Decimal(chance.randrange(1, 5000)) / 100,
                    key=f"k{number}",
                    expires_at=clock.now() + timedelta(hours=chance.randrange(1, 48)),
                )
            case 2:
                await paid(database, org, str(Decimal(chance.randrange(1, 9000)) / 100), clock.now())
            case _:
                await wallets.expire()

    for start in range(0, 60, 6):
        await asyncio.gather(*(something(number) for number in range(start, start + 6)))
        clock.advance(hours=5)
    standing = await wallets.standing(PLATFORM, org)
    assert standing.balance >= 0
    assert (await books(database)).get(account("wallet", org), Decimal(0)) == -standing.balance


async def test_prices_of_several_parts_are_held_at_their_dearest_and_fees_from_the_first_day(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    org = await bazaar.organisation()
    service = await bazaar.service(unit="tokens", price=None)
    await price(
        bazaar, service,
        {"model": "package", "meter": "tokens", "package_size": "100", "package_price": "50"},
        {"model": "unit", "meter": "output_tokens", "unit_price": "0.50", "free_units": "1000"},
        {"model": "flat", "amount": "30", "prorated": False},
    )  # fmt: skip
    subscription = await bazaar.subscribe(org, service)
    await wallets.set_mode(PLATFORM, org, Mode.PREPAID)
    assert (await wallets.standing(PLATFORM, org)).unbilled == Decimal("35.40")
    event = bazaar.event(subscription, "101", at=clock.now())
    await bazaar.take([structs.replace(event, units={**event.units, "output_tokens": "10"})])
    assert (await wallets.standing(PLATFORM, org)).unbilled == Decimal("159.30")  # 30 + 2 x 50 + 5, and tax


async def test_what_is_held_follows_corrections_upwards_and_invoices_that_are_issued_and_stand(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    org = await bazaar.organisation()
    subscription = await bazaar.subscribe(org, await bazaar.service(unit="characters", price="1"))
    await wallets.set_mode(PLATFORM, org, Mode.PREPAID)
    event = bazaar.event(subscription, "100", at=clock.now())
    await bazaar.take([event])
    invoices = Invoices(database.app, clock, Settings())
    clock.advance(days=13)

    async def held() -> Decimal:
        return (await wallets.standing(PLATFORM, org)).unbilled

    issued = await invoices.issue(PLATFORM, "2026-11", org)
    assert issued is not None and await held() == 0
    for state, amount in (("registering", 118), ("issued", 0)):
        await bazaar.run("UPDATE invoice_states SET state = %s WHERE invoice_id = %s", state, issued.id)
        assert await held() == amount, state
    await invoices.correct_call(PLATFORM, UUID(event.id), units={"characters": Decimal(150)}, reason="counted short")
    assert await held() == 177, "the call that is counted in its place; that the other one is void is for the invoice"
    await invoices.void(PLATFORM, issued.id, "a test of ours")
    assert await held() == 295, "both of them until the usage is billed again"


async def test_the_fee_of_a_month_that_waited_is_not_held_any_more_when_a_later_invoice_has_it(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    org = await bazaar.organisation()
    service = await bazaar.service(unit="characters", price=None)
    await price(
        bazaar, service,
        {"model": "unit", "meter": "characters", "unit_price": "1"},
        {"model": "flat", "amount": "30", "prorated": False},
    )  # fmt: skip
    subscription = await bazaar.subscribe(org, service)
    await wallets.set_mode(PLATFORM, org, Mode.PREPAID)
    event = bazaar.event(subscription, "100", at=clock.now())
    taken = await bazaar.take([event])
    invoices = Invoices(database.app, clock, Settings())
    part = await invoices.issue(PLATFORM, "2026-11", org, until=taken.batch)
    await invoices.correct_call(PLATFORM, UUID(event.id), units=None, reason="a mistake")
    clock.advance(days=13)
    assert part == await invoices.issue(PLATFORM, "2026-11", org), "a fee of 30, less 100: it waits"
    await bazaar.take([bazaar.event(subscription, "200", at=clock.now())])
    clock.advance(days=31)
    later = await invoices.issue(PLATFORM, "2026-12", org)
    assert later is not None and later.net == 30 + 200 + 30 - 100
    assert (await wallets.standing(PLATFORM, org)).unbilled == Decimal("35.40"), "the fee of January"
