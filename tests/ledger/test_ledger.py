"""The books: zero in sum, posted once, never edited, readable at any time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from haat.infra.postgres import PLATFORM_SCOPE, Connection, tenant
from haat.infra.projections import rebuild
from haat.kernel.errors import Conflict, NotFound, PermissionDenied
from haat.kernel.permissions import PLATFORM, Actor, Role
from haat.ledger.model import Entry, Kind, Operation, account, joined, kind_of, moved, owner_of
from haat.ledger.projection import BALANCES
from haat.ledger.service import Ledger, balance, post

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
ORG = uuid4()
RUPEE = Decimal("1.00")


def operation(key: str = "invoice/1", amount: str = "118.00", at: datetime = AT, **more: Any) -> Operation:
    entries = moved(account("receivable", ORG), "revenue", Decimal(amount))
    return Operation(key, "invoice", at, entries, **{"reference": "invoice/1", **more})


@pytest.fixture
def ledger(database: Any) -> Ledger:
    return Ledger(database.app)


async def _post(database: Any, *operations: Operation) -> list[bool]:
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        return await post(connection, operations)


# --- the model --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entries",
    [
        (),
        (Entry("revenue", RUPEE),),
        (Entry("revenue", RUPEE), Entry("bank", -RUPEE * 2)),
        (Entry("revenue", Decimal("0.001")), Entry("bank", Decimal("-0.001"))),
        (Entry("revenue", Decimal(0)), Entry("bank", Decimal(0))),
        (Entry("revenue", Decimal("NaN")), Entry("bank", Decimal("NaN"))),
        (Entry("nowhere", RUPEE), Entry("bank", -RUPEE)),
        (Entry("bank", RUPEE), Entry("bank", -RUPEE)) * 101,
    ],
)
def test_what_is_no_double_entry_is_refused(entries: tuple[Entry, ...]) -> None:
    with pytest.raises(ValueError):
        Operation("k", "invoice", AT, entries)


@pytest.mark.parametrize("more", [{"key": ""}, {"key": "a b"}, {"key": "é"}, {"currency": "rs"}])
def test_keys_and_currencies_are_checked(more: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        operation(**more)
    with pytest.raises(ValueError, match="zone"):
        operation(at=datetime(2026, 1, 1))  # noqa: DTZ001  # it is what is wrong with it


@pytest.mark.parametrize("name", ["", "bank/", "bank//", "Bank", "receivable/a b", "bank/" + "x" * 100, "bank\n", "/a"])
def test_accounts_have_a_kind(name: str) -> None:
    with pytest.raises(ValueError):
        kind_of(name)
    assert kind_of("tax/IGST") is Kind.LIABILITY


def test_an_account_tells_whose_it_is() -> None:
    assert owner_of(account("wallet", ORG)) == ORG
    assert owner_of("tax/IGST") is None
    assert owner_of("revenue") is None


@given(st.lists(st.tuples(st.sampled_from(["bank", "revenue", "tax/IGST"]), st.integers(-500, 500)), max_size=12))
def test_joined_entries_say_the_same(given_entries: list[tuple[str, int]]) -> None:
    entries = [Entry(name, Decimal(paise) / 100) for name, paise in given_entries]
    made = joined(entries)
    assert sum(one.amount for one in made) == sum(one.amount for one in entries)
    assert len({one.account for one in made}) == len(made)
    assert all(one.amount for one in made)


# --- the books --------------------------------------------------------------------------------------


async def test_what_is_posted_twice_is_posted_once(database: Any, ledger: Ledger) -> None:
    assert await _post(database, operation()) == [True]
    assert await _post(database, operation(), operation("invoice/2", "2.00")) == [False, True]
    found = await ledger.trial_balance(PLATFORM)
    assert {one.account: (one.amount, one.entries) for one in found.balances} == {
        account("receivable", ORG): (Decimal("120.00"), 2),
        "revenue": (Decimal("-120.00"), 2),
    }
    assert found.sums == {"INR": 0}


async def test_a_key_with_other_entries_is_refused(database: Any, ledger: Ledger) -> None:
    await _post(database, operation())
    with pytest.raises(Conflict):
        await _post(database, operation("invoice/2"), operation(amount="119.00"))
    assert len((await ledger.entries(PLATFORM, "revenue")).items) == 1


async def test_many_at_once_post_each_key_once(database: Any, ledger: Ledger) -> None:
    async def one(number: int) -> list[bool]:
        return await _post(database, *(operation(f"k/{(number + step) % 20}", "1.00") for step in range(10)))

    results = await asyncio.gather(*(one(number) for number in range(20)))
    assert sum(map(sum, results)) == 20
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        assert await balance(connection, "revenue") == Decimal("-20.00")
        assert await balance(connection, "bank") == 0


async def test_nobody_edits_the_books_or_adds_half_an_operation(database: Any) -> None:
    await _post(database, operation())
    for statement in (
        "UPDATE ledger_entries SET amount = 1",
        "DELETE FROM ledger_entries",
        "DELETE FROM ledger_operations",
        "INSERT INTO ledger_entries SELECT operation_id, 9, 'bank', NULL, 'INR', 1 FROM ledger_entries LIMIT 1",
        "INSERT INTO ledger_entries SELECT operation_id, 7 + position, account, NULL, 'INR', 1 FROM ledger_entries",
    ):
        with pytest.raises(psycopg.Error):
            async with database.app.transaction(PLATFORM_SCOPE) as connection:
                await connection.execute(statement)


async def test_the_books_can_be_read_as_they_stood(database: Any, ledger: Ledger) -> None:
    await _post(database, operation(), operation("payment/1", "-18.00", AT + timedelta(days=3)))
    then = await ledger.trial_balance(PLATFORM, AT + timedelta(days=1))
    assert {one.amount for one in then.balances} == {Decimal("118.00"), Decimal("-118.00")}
    assert {one.amount for one in (await ledger.trial_balance(PLATFORM)).balances} == {Decimal(100), Decimal(-100)}
    assert (await ledger.trial_balance(PLATFORM, AT - timedelta(days=1))).balances == []


async def test_balances_are_made_anew_to_the_byte(database: Any) -> None:
    await _post(database, *(operation(f"k/{number}", f"{number + 1}.37") for number in range(7)))
    connection: Connection
    async with await AsyncConnection.connect(database.owner_dsn, row_factory=dict_row) as connection:
        (found,) = await rebuild(connection, [BALANCES], repair=False)
    assert (found.rows, found.missing, found.surplus) == (2, 0, 0)


async def test_an_organisation_sees_its_own_accounts_only(database: Any, ledger: Ledger) -> None:
    await _post(database, operation())
    mine = Actor(uuid4(), ORG, Role.API_CONSUMER)
    (posted,) = (await ledger.entries(mine, account("receivable", ORG))).items
    assert (posted.amount, posted.reference) == (Decimal("118.00"), "invoice/1")
    for name in ("revenue", account("receivable", uuid4())):
        with pytest.raises(NotFound):
            await ledger.entries(mine, name)
    for asked in (ledger.trial_balance(mine), ledger.about(mine, "invoice/1")):
        with pytest.raises(PermissionDenied):
            await asked
    async with database.app.transaction(tenant(ORG)) as connection:
        rows = await (await connection.execute("SELECT account FROM ledger_entries")).fetchall()
    assert [row["account"] for row in rows] == [account("receivable", ORG)]


async def test_what_was_posted_about_a_thing_is_found(database: Any, ledger: Ledger) -> None:
    await _post(database, operation(), operation("payment/1", "-18.00"), operation("k", "5.00", reference="other/1"))
    booked = await ledger.about(PLATFORM, "invoice/1")
    assert [(one.key, one.entries[1].amount) for one in booked] == [
        ("invoice/1", Decimal("-118.00")),
        ("payment/1", Decimal("18.00")),
    ]


async def test_an_accounts_entries_come_in_pages(database: Any, ledger: Ledger) -> None:
    for number in range(5):
        await _post(database, operation(f"k/{number}", f"{number + 1}.00"))
    first = await ledger.entries(PLATFORM, "revenue", limit=3)
    rest = await ledger.entries(PLATFORM, "revenue", cursor=first.next, limit=3)
    assert [one.key for one in (*first.items, *rest.items)] == [f"k/{number}" for number in range(4, -1, -1)]
    assert rest.next is None
