"""What is held is never less than what rating charges: for any card, any usage, billed in any parts."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import pytest

from haat.kernel.clock import Period
from haat.kernel.money import total
from haat.kernel.prices import REPORTED_UNITS, UNIT_METERS, Component, Meter, Tier
from haat.rating.charge import Held, Measured, RateCard
from haat.rating.model import rate
from haat.wallet.prices import CALLS, Most, Used, asked, cost, most_of
from rating import cases

D = Decimal
CHARACTERS = UNIT_METERS["characters"]
PERIOD = cases.PERIOD


def used(calls: list[Measured], billed: list[Measured] | None = None) -> list[Used]:
    """Return usage as the stores sum it up: by subscription and plan, without what only rating looks at."""
    whose = sorted({(one.subscription, one.service, one.plan) for one in calls}, key=str)
    return [Used(*who, _sums(who, calls), _sums(who, billed or [])) for who in whose]


def _sums(who: tuple[UUID, UUID, str | None], calls: list[Measured]) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for one in calls:
        if (one.subscription, one.service, one.plan) == who:
            # A row of usage has the whole unit, of which a meter may take another off.
            units = {key.partition("-")[0]: value for key, value in one.units.items()} | {CALLS: D(one.calls)}
            for unit, quantity in units.items():
                found[unit] = total((found.get(unit, D(0)), quantity))
    return found


def charged(calls: list[Measured], cards: list[RateCard], held: list[Held], *, final: bool) -> dict[UUID, Decimal]:
    found: dict[UUID, Decimal] = {}
    for charge in rate(calls, cards, PERIOD, None, held, final=final).charges:
        found[charge.subscription] = total((found.get(charge.subscription, D(0)), charge.amount))
    return found


def a_month(chance: random.Random) -> tuple[list[RateCard], list[Measured], list[Held]]:
    """Return cards, calls and subscriptions as they come out of the stores.

    A subscription is to one service, users are told apart by a name or have none, and the cache's answers cost the
    same share of the price all month.
    """
    one = cases.case(chance)
    share = chance.choice(cases.SHARES[3:])
    calls = []
    for call in one.usage * chance.choice((1, 1, 3)):
        cached = share if call.cached_share is not None else None
        call = replace(call, service=cases.SERVICES[0], before=False, cached_share=cached, counted=None)
        calls.append(replace(call, distinct={"end_user": frozenset(sorted((call.distinct or {})["end_user"])[:1])}))
    held = [replace(span, service=cases.SERVICES[0]) for span in one.held]
    return one.cards, calls, held


def test_what_is_held_of_a_month_is_never_less_than_what_it_costs() -> None:
    chance, tight = random.Random(5), 0
    for _ in range(3000):
        cards, calls, held = a_month(chance)
        most = cost(used(calls), cards, PERIOD, held)
        for subscription, amount in charged(calls, cards, held, final=True).items():
            assert amount <= most.get(subscription, D(0)), (cards, calls, held)
            tight += amount == most.get(subscription)
    assert tight > 300, "it isn't everything that is held either"


def test_what_is_held_covers_what_comes_after_an_invoice_of_a_part() -> None:
    chance = random.Random(6)
    for _ in range(3000):
        cards, calls, held = a_month(chance)
        before = calls[: len(calls) // 2]
        paid = charged(before, cards, [], final=False)
        most = cost(used(calls, before), cards, PERIOD, held, paid)
        for subscription, amount in charged(calls, cards, held, final=True).items():
            due = total((amount, paid.get(subscription, D(0)).copy_negate()))  # a minus rounds to 28 digits
            assert due <= most.get(subscription, D(0)), (cards, before, calls, held)


def test_what_each_call_holds_covers_what_the_bill_grows_by_it() -> None:
    """A gateway holds of one call alone; all of them together must cover all that can be billed."""
    chance = random.Random(7)
    for _ in range(2000):
        cards, calls, _ = a_month(chance)
        card = replace(cards[0], service=cases.SERVICES[0], plan=None, effective_from=PERIOD.start, minimum=D(0))
        calls = [replace(call, subscription=cases.SUBSCRIPTIONS[0]) for call in calls]
        held = D(0)
        for call in calls:
            held += total(one.cost(_sums((call.subscription, call.service, call.plan), [call]).get(one.unit, D(0)))
                          for one in asked(card.parts))  # fmt: skip
        assert charged(calls, [card], [], final=False).get(cases.SUBSCRIPTIONS[0], D(0)) <= held, (card, calls)


@pytest.mark.parametrize(
    ("component", "most", "quantity", "amount"),
    [
        (Component("unit", "characters", CHARACTERS, D(2), D(100)), Most("characters", D(2)), "5", "10"),
        (Component("package", "characters", CHARACTERS, D(50), size=D(100)),
         Most("characters", D(50), D(100)), "1", "50"),
        (Component("package", "characters", CHARACTERS, D(50), size=D(100)),
         Most("characters", D(50), D(100)), "200", "100"),
        (Component("graduated", "characters", CHARACTERS, tiers=(Tier(D(10), D(1), D(4)), Tier(None, D(3), D(5)))),
         Most("characters", D(3), begun=D(9)), "2", "15"),
        (Component("volume", "characters", CHARACTERS, tiers=(Tier(D(10), D(3), D(4)), Tier(None, D(1), D(5)))),
         Most("characters", D(3), begun=D(5)), "2", "11"),
        (Component("unit", "calls", Meter("calls", "count"), D(2)), Most(CALLS, D(2)), "1", "2"),
        (Component("unit", "users", Meter("users", "unique", "end_user"), D(7)), Most(CALLS, D(7)), "1", "7"),
        (Component("unit", "new", Meter("new", "sum", "input_tokens", ("cached_tokens",)), D(2)),
         Most("input_tokens", D(2)), "0", "0"),
    ],
)  # fmt: skip
def test_the_dearest_tier_a_whole_package_and_no_free_units_are_held(
    component: Component, most: Most, quantity: str, amount: str
) -> None:
    assert most_of(component) == most and most.cost(D(quantity)) == D(amount)
    assert most.unit in (*UNIT_METERS, *REPORTED_UNITS, CALLS)


def test_free_units_are_not_given_twice_to_who_changed_its_plan() -> None:
    card = RateCard(UUID(int=1), UUID(int=2), 1, None, "characters", D(1), D(100), D("0.7"), PERIOD.start)
    other = replace(card, id=UUID(int=3), plan="pro")
    rows = [Used(UUID(int=9), UUID(int=2), plan, {"characters": D(100)}) for plan in ("basic", "pro")]
    assert cost(rows, [card], PERIOD) == {UUID(int=9): D(100)}
    assert cost(rows, [card, other], PERIOD) == {UUID(int=9): D(200)}


def test_a_fee_is_held_from_its_first_day_and_a_minimum_until_usage_reaches_it() -> None:
    fee = Component("flat", "fee", None, D(300))
    parts = (fee, Component("unit", "characters", CHARACTERS, D(1)))
    card = RateCard(UUID(int=1), UUID(int=2), 1, None, "characters", D(1), D(0), D("0.7"), PERIOD.start, parts, D(500))
    whole = Held(UUID(int=9), UUID(int=2), "basic", UUID(int=4), PERIOD.start, PERIOD.end)

    def held(characters: int, period: Period = PERIOD) -> Decimal:
        rows = [Used(UUID(int=9), UUID(int=2), "basic", {"characters": D(characters)})] if characters else []
        return cost(rows, [card], period, [whole])[UUID(int=9)]

    assert [held(0), held(150), held(200), held(201)] == [500, 500, 500, 501]
    assert cost([], [card], PERIOD, [whole], {UUID(int=9): D(150)}) == {UUID(int=9): D(350)}
