"""The order in which grants burn, and what of them is left for new calls, against naive references."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haat.kernel.money import PAISA
from haat.wallet.model import Budget, Grant, GrantKind, burn, from_nano, lapsed, reached, spendable, to_nano

AT = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)
ORG = UUID(int=1)
PAISE = st.integers(0, 500_000).map(lambda paise: Decimal(paise) / 100)


def grant(
    number: int, remaining: str | Decimal, *, priority: int = 100, expires: int | None = None, age: int = 0
) -> Grant:
    return Grant(
        UUID(int=number),
        ORG,
        GrantKind.PAID,
        Decimal(remaining),
        Decimal(remaining),
        priority,
        AT - timedelta(days=age),
        None if expires is None else AT + timedelta(days=expires),
        f"k{number}",
    )


GRANTS = st.lists(
    st.builds(
        lambda remaining, priority, expires, age: (remaining, priority, expires, age),
        PAISE.filter(bool),
        st.integers(0, 3),
        st.none() | st.integers(-3, 3),
        st.integers(0, 3),
    ),
    max_size=8,
).map(
    lambda rows: [
        grant(number, remaining, priority=priority, expires=expires, age=age)
        for number, (remaining, priority, expires, age) in enumerate(rows)
    ]
)


def naive_order(grants: list[Grant]) -> list[Grant]:
    """Pick the one that burns next again and again, rule by rule."""
    left, found = list(grants), []
    while left:
        lowest = min(one.priority for one in left)
        rest = [one for one in left if one.priority == lowest]
        ends = [one.expires_at for one in rest if one.expires_at is not None]
        if ends:
            rest = [one for one in rest if one.expires_at == min(ends)]
        oldest = min(one.granted_at for one in rest)
        rest = [one for one in rest if one.granted_at == oldest]
        first = min(rest, key=lambda one: one.id.int)
        left.remove(first)
        found.append(first)
    return found


def naive_burn(grants: list[Grant], paise: int) -> dict[UUID, int]:
    """Take one paisa after the other from the first grant that has one."""
    left = {one.id: int(one.remaining * 100) for one in grants}
    taken: dict[UUID, int] = {}
    order = naive_order(grants)
    for _ in range(paise):
        first = next(one.id for one in order if left[one.id])
        left[first] -= 1
        taken[first] = taken.get(first, 0) + 1
    return taken


@settings(deadline=None)  # the machine may be busy
@given(GRANTS, st.integers(0, 3000))
def test_money_burns_by_priority_then_expiry_then_age_paisa_by_paisa(grants: list[Grant], paise: int) -> None:
    there = sum(int(one.remaining * 100) for one in grants)
    paise = min(paise, there)
    assert {one.id: int(part * 100) for one, part in burn(grants, Decimal(paise) / 100)} == naive_burn(grants, paise)


@settings(deadline=None)
@given(GRANTS, PAISE)
def test_what_burns_is_what_was_asked_for_or_nothing(grants: list[Grant], amount: Decimal) -> None:
    there = sum((one.remaining for one in grants), Decimal(0))
    if amount > there:
        with pytest.raises(ValueError, match="lacks"):
            burn(grants, amount)
        return
    parts = burn(grants, amount)
    assert sum((part for _, part in parts), Decimal(0)) == amount
    assert all(0 < part <= one.remaining for one, part in parts)


@settings(deadline=None)
@given(GRANTS, PAISE, st.randoms())
def test_the_order_in_which_grants_are_given_does_not_matter(
    grants: list[Grant], amount: Decimal, chance: object
) -> None:
    mixed = list(grants)
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    amount = min(amount, sum((one.remaining for one in grants), Decimal(0)))
    assert burn(mixed, amount) == burn(grants, amount)
    assert spendable(mixed, amount, AT) == spendable(grants, amount, AT)


@settings(deadline=None)
@given(GRANTS, PAISE)
def test_what_is_held_is_neither_spent_again_nor_expires(grants: list[Grant], held: Decimal) -> None:
    there = sum((one.remaining for one in grants), Decimal(0))
    gone = sum((part for _, part in lapsed(grants, held, AT)), Decimal(0))
    free = spendable(grants, held, AT)
    if held > there:
        assert free == there - held < 0
        assert gone == 0
    else:
        assert free >= 0
        assert held + free + gone == there


@settings(deadline=None)
@given(st.integers(0, 10**15))
def test_billionths_come_back_as_they_were(nano: int) -> None:
    assert to_nano(from_nano(nano)) == nano
    assert to_nano(from_nano(nano) + Decimal("1e-12")) == nano


def test_nobody_burns_less_than_nothing() -> None:
    with pytest.raises(ValueError):
        burn([grant(1, "5")], Decimal(-1))


def test_a_part_of_a_paisa_stays_when_a_grant_expires() -> None:
    [(_, rest)] = lapsed([grant(1, "1.00", expires=-1)], Decimal("0.0001"), AT)
    assert rest == Decimal("0.99") == rest.quantize(PAISA)


def test_each_threshold_is_told_once() -> None:
    budget = Budget(UUID(int=1), ORG, None, None, Decimal("100.00"), False, AT)
    assert reached(budget, Decimal("49.99"), []) == []
    assert reached(budget, Decimal("80"), []) == [50, 80]
    assert reached(budget, Decimal("250"), [50, 80]) == [100]
    assert reached(budget, Decimal("250"), [50, 80, 100]) == []
