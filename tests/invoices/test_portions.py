"""What each call bears of each line: found from its request id, and summing to the line to the last decimal."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from bazaar import Subscription, consumer, partner
from desk import MONTH, Desk
from haat.invoices.evidence import Portion, batches_of_calls, portions
from haat.invoices.portions import Spread, Weight
from haat.kernel.errors import NotFound
from haat.kernel.ids import new_id
from haat.kernel.money import PRICE_STEP, total
from haat.kernel.permissions import PLATFORM
from haat.usage.event import UsageEvent
from rating.stalls import meter, price

D = Decimal
AMOUNTS = st.decimals(-(10**9), 10**9, places=2)
QUANTITIES = st.decimals(-(10**9), 10**9, places=6)
PRICES = st.decimals(0, 10**6, places=12)
TIERS = [{"up_to": "60", "unit_price": "0.123456789012"}, {"unit_price": "0.07", "flat": "3"}]
CARDS: dict[str, list[dict[str, Any]]] = {
    "unit": [{"model": "unit", "meter": "characters", "unit_price": "0.0333", "free_units": "7"}],
    "package": [{"model": "package", "meter": "characters", "package_size": "7", "package_price": "1.01"}],
    "graduated": [{"model": "graduated", "meter": "characters", "tiers": TIERS}],
    "volume": [{"model": "volume", "meter": "characters", "tiers": TIERS}],
    "overage": [{"model": "overage", "meter": "characters", "included": "50", "unit_price": "0.77"}],
    "hybrid": [
        {"model": "flat", "amount": "100"},
        {"model": "unit", "meter": "calls", "unit_price": "0.013"},
        {"model": "package", "meter": "urdu", "package_size": "9", "package_price": "1"},
        {"model": "unit", "meter": "people", "unit_price": "1.1"},
        {"model": "unit", "meter": "longest", "unit_price": "0.17"},
    ],
}


def weights(quantities: list[Decimal]) -> list[Weight]:
    """Return what the first calls weigh, for each number of them."""
    found = [Weight()]
    for quantity in quantities:
        found.append(found[-1].plus(quantity))
    return found


@given(AMOUNTS, PRICES, st.lists(QUANTITIES, min_size=1, max_size=40), st.data())
def test_portions_sum_to_the_amount_however_they_are_read(
    amount: Decimal, unit_price: Decimal, quantities: list[Decimal], data: st.DataObject
) -> None:
    before = weights(quantities)
    spread = Spread(amount, before[-1], unit_price)
    whole = list(spread.portions(Weight(), quantities))
    assert total(whole) == amount
    assert all(one == one.quantize(PRICE_STEP) for one in whole)
    cut = data.draw(st.integers(0, len(quantities)))
    assert whole == [
        *spread.portions(Weight(), quantities[:cut]),
        *spread.portions(before[cut], quantities[cut:]),
    ]
    assert [next(spread.portions(before[n], [one])) for n, one in enumerate(quantities)] == whole


@given(st.decimals(0, 10**9, places=2), st.lists(st.decimals(0, 10**9, places=6), min_size=1, max_size=40))
def test_without_voided_calls_a_call_bears_its_part_of_the_quantity_and_none_bears_less_than_nothing(
    amount: Decimal, quantities: list[Decimal]
) -> None:
    whole = weights(quantities)[-1]
    for one, quantity in zip(Spread(amount, whole).portions(Weight(), quantities), quantities, strict=True):
        assert one >= 0
        part = amount * quantity / whole.quantity if whole.quantity else amount / len(quantities)
        assert abs(one - part) <= D("0.000000000002")


def test_a_call_that_was_taken_off_gives_back_its_price_and_the_others_bear_theirs() -> None:
    quantities = [D(10), D(-10), D(4)]
    spread = Spread(D("2.00"), weights(quantities)[-1], D("0.5"))
    assert list(spread.portions(Weight(), quantities)) == [5, -5, 2]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("model", CARDS)
async def test_every_calls_portions_of_every_meter_are_found_and_sum_to_the_lines(
    desk: Desk, model: str, seed: int
) -> None:
    chance, bazaar = random.Random(f"{model} {seed}"), desk.bazaar
    service = await bazaar.service(price=None)
    await meter(bazaar, service, name="calls", aggregation="count")
    await meter(bazaar, service, name="urdu", measure="characters", filter={"language_pairs": ["hi>ur"]})
    await meter(bazaar, service, name="people", aggregation="unique", measure="end_user")
    await meter(bazaar, service, name="longest", aggregation="max", measure="characters")
    await price(bazaar, service, *CARDS[model], minimum="200")
    subscription = await bazaar.subscribe(await bazaar.organisation(), service)

    taken = await bazaar.take([call(desk, subscription, chance) for _ in range(25)])
    await desk.invoices.issue(PLATFORM, MONTH, subscription.org, until=taken.batch)
    first = await _ids(desk)
    await desk.invoices.correct_call(PLATFORM, first[3], units=None, reason="a test of ours")
    await desk.invoices.correct_call(PLATFORM, first[7], units={"characters": D(999)}, reason="counted wrongly")
    await bazaar.take([call(desk, subscription, chance) for _ in range(15)])
    desk.close_month()
    await desk.invoices.issue(PLATFORM, MONTH, subscription.org)
    await bazaar.take([call(desk, subscription, chance, days=12) for _ in range(5)])
    await desk.invoices.correct_call(PLATFORM, first[9], units=None, reason="a test of ours")
    desk.clock.advance(days=31)
    await desk.invoices.issue(PLATFORM, "2026-12", subscription.org)

    of_line: dict[UUID, list[Portion]] = defaultdict(list)
    for one in await _ids(desk):
        for portion in await portions(desk.database.app, PLATFORM, one):
            assert portion.line_id is not None
            of_line[portion.line_id].append(portion)
    for line in await bazaar.rows("SELECT * FROM invoice_lines ORDER BY id"):
        behind = [one async for batch in batches_of_calls(desk.database.app, line["id"]) for one in batch]
        paged = await _paged(desk, line["id"])
        assert [one.amount for one in paged] == [one.amount for one in behind]
        found = of_line[line["id"]]
        assert [(one.amount, one.quantity, one.voided) for one in found] == [
            (one.amount, one.quantity, one.voided) for one in behind
        ]
        if line["unit"] == "months":
            assert not behind, "no call bears a fee or a minimum"
        else:
            assert total(one.amount for one in behind) == line["taxable"]
            assert {one.meter for one in found} == {line["meter"] or line["unit"]}


async def test_a_fee_has_no_calls_though_a_call_of_its_month_was_taken_back(desk: Desk) -> None:
    bazaar = desk.bazaar
    service = await bazaar.service(price=None)
    await price(bazaar, service, {"model": "flat", "amount": "100"}, *CARDS["unit"])
    subscription = await bazaar.subscribe(await bazaar.organisation(), service)
    desk.clock.advance(days=5)
    await bazaar.take([call(desk, subscription, random.Random(number)) for number in range(9)])
    await desk.invoices.correct_call(PLATFORM, (await _ids(desk))[2], units=None, reason="a test of ours")
    desk.close_month()
    await desk.invoices.issue(PLATFORM, MONTH, subscription.org)
    (fee,) = await bazaar.rows("SELECT * FROM invoice_lines WHERE unit = 'months'")
    assert await _paged(desk, fee["id"]) == []
    assert [batch async for batch in batches_of_calls(desk.database.app, fee["id"])] == []


async def test_a_call_of_several_meters_bears_a_portion_of_each_and_who_may_see_what(desk: Desk) -> None:
    bazaar = desk.bazaar
    service = await bazaar.service(price=None)
    await meter(bazaar, service, name="calls", aggregation="count")
    parts = [{"model": "unit", "meter": name, "unit_price": "1"} for name in ("calls", "characters")]
    await price(bazaar, service, *parts)
    subscription = await bazaar.subscribe(await bazaar.organisation(), service)
    event = bazaar.event(
        subscription, "10", cache="partial", cached_units={"characters": "4"}, cached_share="0.25", at=desk.clock.now()
    )
    await bazaar.take([event, bazaar.event(subscription, "6")])
    identifier = UUID(event.id)
    assert await portions(desk.database.app, PLATFORM, identifier) == []
    desk.close_month()
    await desk.invoices.issue(PLATFORM, MONTH, subscription.org)
    mine = await portions(desk.database.app, consumer(subscription.org), identifier)
    assert {(one.meter, one.cached_share): (one.quantity, one.amount) for one in mine} == {
        ("calls", None): (1, 1),
        ("characters", None): (6, 6),
        ("characters", D("0.250")): (4, 1),
        ("calls", D("0.250")): (0, 0),
    }
    assert all(one.serial and one.settlement_id is None for one in mine)
    theirs = await portions(desk.database.app, partner(service.org), identifier)
    assert [one.amount for one in theirs] == [one.amount for one in mine]
    assert {one.serial for one in theirs} == {None}
    for actor, asked in ((consumer(service.org), identifier), (consumer(new_id()), identifier), (PLATFORM, new_id())):
        with pytest.raises(NotFound):
            await portions(desk.database.app, actor, asked)


def call(desk: Desk, subscription: Subscription, chance: random.Random, days: int = 3) -> UsageEvent:
    event = desk.bazaar.event(
        subscription,
        f"{chance.randint(0, 400)}.{chance.randint(0, 999999):06d}",
        at=desk.clock.now() - timedelta(minutes=days * 1440 + chance.randint(0, 1440)),
        cache=chance.choice(["", "miss", "hit"]),
        language_pair=chance.choice(["hi>ur", "hi>ta"]),
        user=chance.choice(["", "asha", "bina"]),
    )
    if event.cache == "hit":
        units = {subscription.service.unit: event.units[subscription.service.unit]}
        return structs.replace(event, cached_units=units, cached_share=chance.choice(["", "0.5"]))
    return event


async def _ids(desk: Desk) -> list[UUID]:
    return [row["id"] for row in await desk.bazaar.rows("SELECT id FROM usage ORDER BY id")]


async def _paged(desk: Desk, line: UUID) -> list[Any]:
    found, cursor = [], None
    while True:
        page = await desk.invoices.calls(PLATFORM, line, cursor=cursor, limit=4)
        found += page.items
        if page.next is None:
            return found
        cursor = page.next
