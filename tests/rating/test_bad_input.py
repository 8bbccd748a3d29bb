"""What can't be charged is refused where it comes in, with a reason, and nothing of it is kept."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from msgspec import structs

from bazaar import Bazaar
from haat.catalog.drafts import PriceDraft
from haat.catalog.pricing import MeterDraft
from haat.infra.postgres import PLATFORM_SCOPE
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.kernel.errors import ValidationFailed
from haat.kernel.permissions import PLATFORM
from haat.kernel.prices import UNIT_METERS, Component
from haat.rating import service as rating
from haat.rating.charge import Held, Issued, Measured, RateCard
from haat.rating.model import rate
from haat.settings import Settings
from haat.usage.model import Pseudonyms
from haat.usage.service import Usage
from rating.cases import PERIOD
from rating.stalls import price

D = Decimal
SUBSCRIPTION, SERVICE, PROVIDER = UUID(int=11), UUID(int=1), UUID(int=21)


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def invoices(database: Any, clock: SetClock) -> Invoices:
    return Invoices(database.app, clock, Settings())


def tiers(*given: tuple[str | None, str]) -> dict[str, Any]:
    found = [{"up_to": end, "unit_price": amount} for end, amount in given]
    return {"components": [{"model": "graduated", "meter": "characters", "tiers": found}]}


CARDS: list[tuple[dict[str, Any], str]] = [
    ({}, "name a `unit_price`, or `components`"),
    ({"unit_price": "-0.01"}, "greater than or equal to 0"),
    ({"unit_price": "9999999"}, "digits"),
    ({"unit_price": "0.0000000000001"}, "12 decimal places"),
    ({"unit_price": "NaN"}, "finite"),
    ({"unit_price": 0.1}, "binary fractions"),
    ({"unit_price": "1", "free_units": "-5"}, "greater than or equal to 0"),
    ({"unit_price": "1", "free_units": "1e30"}, "digits"),
    ({"unit_price": "1", "minimum": "-1"}, "greater than or equal to 0"),
    ({"unit_price": "1", "currency": "USD"}, "two currencies"),
    ({"unit_price": "1", "currency": "rupees"}, "pattern"),
    ({"unit_price": "1", **tiers((None, "1"))}, "not both"),
    ({"components": [{"model": "barter", "meter": "characters"}]}, "does not match any of the expected tags"),
    ({"components": [{"model": "unit", "meter": "characters", "unit_price": "1"}] * 2}, "two prices on characters"),
    ({"components": [{"model": "package", "meter": "characters", "package_size": "-1", "package_price": "1"}]},
     "greater than or equal to 0"),
    (tiers(("100", "1")), "the last tier has no end"),
    (tiers(("100", "1"), ("200", "0.5")), "the last tier has no end"),
    (tiers(("100", "1"), ("100", "0.5"), (None, "0.1")), "overlap"),
    (tiers(("100", "1"), ("50", "0.5"), (None, "0.1")), "overlap"),
    (tiers((None, "1"), ("50", "0.5"), (None, "0.1")), "overlap"),
    (tiers(("0", "1"), (None, "0.1")), "overlap"),
    (tiers(("-5", "1"), (None, "0.1")), "greater than or equal to 0"),
]  # fmt: skip


@pytest.mark.parametrize(("card", "reason"), CARDS)
def test_a_card_that_can_not_be_charged_is_refused_with_its_field(card: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        PriceDraft.parse(card)
    errors = refused.value.extensions["errors"]
    assert errors and all("field" in one for one in errors)
    assert any(reason in one["message"] for one in errors), errors


@pytest.mark.parametrize(
    ("component", "reason"),
    [
        ({"model": "unit", "meter": "words", "unit_price": "1"}, "no meter called 'words'"),
        ({"model": "package", "meter": "characters", "package_size": "0", "package_price": "1"}, "holds something"),
        ({"model": "flat", "name": "minimum", "amount": "1"}, "a name of its own"),
    ],
)
async def test_a_card_that_does_not_fit_its_listing_is_refused_and_leaves_no_price(
    bazaar: Bazaar, component: dict[str, Any], reason: str
) -> None:
    service = await bazaar.service(price=None)
    with pytest.raises(ValidationFailed) as refused:
        await price(bazaar, service, component)
    assert reason in refused.value.extensions["errors"][0]["message"]
    assert await bazaar.rows("SELECT id FROM rate_cards") == []


@pytest.mark.parametrize(
    ("meter", "reason"),
    [
        ({"name": "words", "measure": "words"}, "no unit"),
        ({"name": "net", "measure": "tokens", "less": ["words"]}, "no unit"),
        ({"name": "people", "aggregation": "unique", "measure": "tokens"}, "unique counts"),
        ({"name": "tokens", "measure": "pages"}, "already"),
    ],
)
def test_a_meter_of_an_unknown_unit_is_refused(meter: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        MeterDraft.model_validate(meter)


def card(**members: Any) -> RateCard:
    about = {"id": UUID(int=5), "service": SERVICE, "version": 1, "plan": None, "unit": "characters",
             "unit_price": D(1), "free_units": D(0), "provider_share": D("0.7"),
             "effective_from": PERIOD.start}  # fmt: skip
    return RateCard(**(about | members))


def call(quantity: str = "1", **members: Any) -> Measured:
    about = {"subscription": SUBSCRIPTION, "service": SERVICE, "plan": None, "provider_org": PROVIDER,
             "at": PERIOD.start, "units": {"characters": D(quantity)}}  # fmt: skip
    return Measured(**(about | members))


FEE = Component("flat", "fee", None, D("999999999999"))
USERS = Component("unit", "characters", UNIT_METERS["characters"], D(1))


@pytest.mark.parametrize(
    ("usage", "cards", "reason"),
    [
        ([call("-1")], [card()], "never negative"),
        ([call("NaN")], [card()], "never NaN"),
        ([call("Infinity")], [card()], "never Infinity"),
        ([call("1e17")], [card(unit_price=D(10))], "too large to be billed"),
        ([call("1e24")], [card(unit_price=D(0))], "too large to be billed"),
        ([call("6e23"), call("6e23")], [card(unit_price=D(0))], "too large to be billed"),
        ([call(at=PERIOD.end)], [card()], "outside of 2026-11"),
        ([call(at=PERIOD.start - timedelta(microseconds=1))], [card()], "outside of 2026-11"),
        ([call()], [card(), card(id=UUID(int=6), version=2)], "begin at"),
        ([call()], [card(), card(id=UUID(int=6), version=2, plan="pro", currency="USD")], "can't be added up"),
    ],
)
def test_usage_and_cards_that_make_no_bill_are_refused_whole(
    usage: list[Measured], cards: list[RateCard], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        rate([call(), *usage], cards, PERIOD)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"unit_price": D(-1)}, "negative price"),
        ({"free_units": D(-1)}, "negative free units"),
        ({"unit": "words"}, "no unit"),
        ({"minimum": D(-1)}, "the minimum"),
        ({"minimum": D(10) ** 12}, "the minimum"),
        ({"components": (USERS, USERS)}, "two prices"),
    ],
)
def test_a_card_that_says_what_none_can_is_none(members: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        card(**members)


def test_the_largest_fee_fits_on_a_line_and_what_was_charged_before_may_make_it_too_large() -> None:
    held = [Held(SUBSCRIPTION, SERVICE, None, PROVIDER, PERIOD.start, PERIOD.end)]
    (charge,) = rate([], [card(components=(FEE,))], PERIOD, None, held).charges
    assert charge.amount == D("999999999999")
    line = Issued(SUBSCRIPTION, "fee", UUID(int=5), None, PROVIDER, D(1), D(0), D(10) ** 19, "fee")
    with pytest.raises(ValueError, match="too large to be billed"):
        rate([], [card(components=(FEE,))], PERIOD, [line], held)


@pytest.mark.parametrize(
    ("units", "reason"),
    [
        ({"characters": "-1"}, "its quantity of characters is -1"),
        ({"characters": "1000000000000000000"}, "its quantity of characters is 1000000000000000000"),
        ({"characters": "1e400"}, "its quantity of characters is 1e400"),
        ({"characters": "NaN"}, "its quantity of characters is NaN"),
        ({"characters": "many"}, "its quantity of characters is not a number"),
        ({"characters": "1", "words": "-7"}, "its quantity of words is -7"),
    ],
)
async def test_a_call_with_an_impossible_quantity_is_set_aside_and_the_others_are_billed(
    bazaar: Bazaar, database: Any, clock: SetClock, units: dict[str, str], reason: str
) -> None:
    subscription = await bazaar.subscribe(await bazaar.organisation(), await bazaar.service(price="1"))
    bad = structs.replace(bazaar.event(subscription), units=units)
    taken = await bazaar.take([bazaar.event(subscription, "3"), bad, bazaar.event(subscription, "4")])
    assert (taken.rows, taken.quarantined) == (2, 1)
    (aside,) = await Usage(database.app, clock, Pseudonyms(bytes(32))).quarantined(PLATFORM)
    assert aside.reason == reason
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        (charge,) = (await rating.charges(connection, subscription.org, PERIOD, (0, taken.batch))).charges
    assert (charge.calls, charge.amount) == (2, 7)


async def test_a_unit_that_nobody_knows_is_kept_with_its_call_and_costs_nothing(bazaar: Bazaar, database: Any) -> None:
    subscription = await bazaar.subscribe(await bazaar.organisation(), await bazaar.service(price="1"))
    taken = await bazaar.take([structs.replace(bazaar.event(subscription), units={"characters": "2", "words": "9"})])
    assert [row["other_units"] for row in await bazaar.rows("SELECT other_units FROM usage")] == [{"words": "9"}]
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        rated = await rating.charges(connection, subscription.org, PERIOD, (0, taken.batch))
    assert [charge.amount for charge in rated.charges] == [2]


@pytest.mark.parametrize(
    ("units", "reason"),
    [
        ({}, "Say which"),
        ({"words": D(1)}, "no unit words"),
        ({"characters": D(-1)}, "characters can't be -1"),
        ({"characters": D(10) ** 18}, "can't be"),
        ({"characters": D("NaN")}, "can't be NaN"),
    ],
)
async def test_a_correction_to_what_no_call_can_have_is_refused(
    bazaar: Bazaar, invoices: Invoices, units: dict[str, Decimal], reason: str
) -> None:
    subscription = await bazaar.subscribe(await bazaar.organisation(), await bazaar.service(price="1"))
    event = bazaar.event(subscription)
    await bazaar.take([event])
    with pytest.raises(ValidationFailed) as refused:
        await invoices.correct_call(PLATFORM, UUID(event.id), units=units, reason="a test of ours")
    assert reason in refused.value.extensions["errors"][0]["message"]
    assert await bazaar.rows("SELECT call_id FROM usage_corrections") == []
