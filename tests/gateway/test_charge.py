"""``X-Haat-Charge``: what an answer says it costs is what the bill will say, or nothing is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bills import EPOCH, rate_cards
from gateway.rig import APP, ORG, Market, answer
from haat.gateway.charge import Tariff, tariff_of
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.snapshot import Price, Service, Subscription
from haat.kernel.clock import Period
from haat.rating.model import Measured, rate

INVOKE = "/v1/services/acme/{}/invoke"
HOUR = 3600 * 1_000_000
NOW = int(datetime(2026, 11, 15, tzinfo=UTC).timestamp()) * 1_000_000
SERVICE = UUID(int=1)


def listing(prices: list[Price], unit: str = "requests") -> Service:
    return Service(
        str(SERVICE), "acme", ORG, "echo", "published", "", unit, "IN", (), "", b"", (), "1", prices=tuple(prices)
    )  # fmt: skip


def subscription(plan: str = "basic", cached_share: str = "1") -> Subscription:
    return Subscription("s", ORG, APP, str(SERVICE), plan, PlanLimits(), "Asia/Kolkata", cached_share=cached_share)


def price(unit_price: str, at: int = 0, plan: str = "", unit: str = "requests", free_units: str = "0") -> Price:
    return Price(plan, unit, unit_price, free_units, at)


def set_prices(market: Market, slug: str, *prices: Price) -> None:
    service = market.gateway.directory.services[f"acme/{slug}"]
    market.gateway.directory.put_service(service.id, msgspec.structs.replace(service, prices=prices))


@pytest.mark.parametrize(
    ("unit_price", "quantity", "line"),
    [
        ("0.012500000000", "1", b"X-Haat-Charge: 0.0125 INR\r\n"),
        ("0.000000000001", "0.000001", b"X-Haat-Charge: 0 INR\r\n"),
        ("0.000000000001", "0.5", b"X-Haat-Charge: 0.000000000001 INR\r\n"),
        ("100.000000000000", "3", b"X-Haat-Charge: 300 INR\r\n"),
        ("0.100000000000", "12345678.000001", b"X-Haat-Charge: 1234567.8000001 INR\r\n"),
        ("0", "7", b"X-Haat-Charge: 0 INR\r\n"),
    ],
)
def test_amounts_are_exact_to_twelve_decimals(unit_price: str, quantity: str, line: bytes) -> None:
    assert Tariff("requests", Decimal(unit_price), Decimal(1), 0).line(Decimal(quantity)) == line


def test_a_plans_own_price_wins_and_the_newest_that_has_begun_applies() -> None:
    service = listing([price("1"), price("2", NOW - HOUR), price("9", NOW + HOUR), price("5", NOW - 9 * HOUR, "gold")])
    common, special = tariff_of(service, subscription(), NOW), tariff_of(service, subscription("gold"), NOW)
    assert common is not None and (common.unit_price, common.until) == (Decimal(2), NOW + HOUR)
    assert special is not None and special.unit_price == Decimal(5)
    later = tariff_of(service, subscription(), NOW + HOUR)
    assert later is not None and later.unit_price == Decimal(9)


@pytest.mark.parametrize("card", [price("1", free_units="10"), price("1", unit="characters"), price("1", NOW + HOUR)])
def test_nothing_is_said_when_the_cost_of_one_call_is_not_certain(card: Price) -> None:
    tariff = tariff_of(listing([card]), subscription(), NOW)
    assert tariff is not None and tariff.line(Decimal(1)) == b""


def test_nothing_is_said_when_a_card_asks_for_more_than_a_units_price() -> None:
    card = msgspec.structs.replace(price("1"), plain=False)
    tariff = tariff_of(listing([card]), subscription(), NOW)
    assert tariff is not None and tariff.line(Decimal(1)) == b""


def test_without_any_price_there_is_no_tariff() -> None:
    assert tariff_of(listing([]), subscription(), NOW) is None


MOMENTS = st.integers(-48, 48).map(lambda hours: NOW + hours * HOUR)
PRICES = st.lists(
    st.builds(
        price,
        st.decimals(0, 1000, places=12).map(str),
        MOMENTS,
        st.sampled_from(["", "basic", "gold"]),
        free_units=st.sampled_from(["0", "0", "5"]),
    ),
    max_size=6,
    unique_by=lambda card: (card.plan, card.effective_from),
)


@given(PRICES, MOMENTS, st.decimals(0, 10**6, places=6))
def test_what_is_said_is_what_rating_bills(prices: list[Price], at: int, quantity: Decimal) -> None:
    tariff = tariff_of(listing(prices), subscription(), at)
    line = tariff.line(quantity) if tariff is not None else b""
    when = EPOCH + timedelta(microseconds=at)
    usage = Measured(UUID(int=2), SERVICE, "basic", UUID(int=3), when, {"requests": quantity})
    period = Period(when - timedelta(days=9), when + timedelta(days=9), "2026-11")
    bill = rate([usage], rate_cards(prices, SERVICE), period)
    if not line:
        assert bill.unpriced or any(charge.card.free_units for charge in bill.charges)
        return
    [charge] = bill.charges
    said = Decimal(line.split()[1].decode())
    assert abs(said - charge.amount) <= Decimal("0.0000000000005")


async def test_an_answer_says_what_it_costs(market: Market) -> None:
    set_prices(market, "echo", price("0.012500000000"))
    for _ in range(2):
        assert (await market.call("POST", INVOKE.format("echo"))).header("x-haat-charge") == "0.0125 INR"
    market.provider.behaviour = answer(200, b"{}", "X-Haat-Charge: 0 INR")
    assert (await market.call("POST", INVOKE.format("echo"))).header("x-haat-charge") == "0.0125 INR"
    market.provider.behaviour = answer(500)
    assert (await market.call("POST", INVOKE.format("echo"))).header("x-haat-charge") is None


async def test_reported_units_cost_their_number(market: Market) -> None:
    market.add_service("counted", unit="characters", price="0.002", max_units="100")
    market.provider.behaviour = answer(200, b"{}", "X-Haat-Usage: characters=12.5")
    assert (await market.call("POST", INVOKE.format("counted"))).header("x-haat-charge") == "0.025 INR"
    market.provider.behaviour = answer(200, b"{}", "X-Haat-Usage: characters=1000")
    assert (await market.call("POST", INVOKE.format("counted"))).header("x-haat-charge") == "0.2 INR"
    market.provider.behaviour = answer(200, b"{}")
    assert (await market.call("POST", INVOKE.format("counted"))).header("x-haat-charge") is None


async def test_a_price_that_takes_effect_applies_to_the_next_call(market: Market) -> None:
    soon = market.gateway.clock.now_us() + 300_000
    set_prices(market, "echo", price("1"), price("2", soon))
    assert (await market.call("POST", INVOKE.format("echo"))).header("x-haat-charge") == "1 INR"
    await market.until(lambda: market.gateway.clock.now_us() > soon)
    assert (await market.call("POST", INVOKE.format("echo"))).header("x-haat-charge") == "2 INR"


async def test_an_answer_given_again_costs_nothing(market: Market) -> None:
    set_prices(market, "echo", price("3"))
    first = await market.call("POST", INVOKE.format("echo"), b"x", "Idempotency-Key: k")
    again = await market.call("POST", INVOKE.format("echo"), b"x", "Idempotency-Key: k")
    assert (first.header("x-haat-charge"), again.header("x-haat-charge")) == ("3 INR", "0 INR")
