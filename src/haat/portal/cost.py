"""The cost calculator of a listing: quantities typed into the address, and what a month of them costs on each plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from haat.catalog.model import Listing
from haat.kernel.money import exact
from haat.language.messages import _
from haat.portal import formats
from haat.portal.visit import Fields, Visit
from haat.rating.estimate import Estimate, units_asked
from haat.subscriptions.model import Plan

MOST = Decimal(10) ** 15
"""Calls or units a month: more is a slip of the finger."""
CALLS = "calls"
_LONGEST_MONTH = 31
_USUAL_CALLS = 1000
_USUAL_OF_A_CALL = {"characters": 200, "graphemes": 200, "tokens": 500, "audio_seconds": 10, "bytes": 10_000}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A field of the calculator."""

    name: str
    label: str
    value: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A plan with what the month costs on it. ``over``: the plan's quota ends before the quantities do."""

    plan: Plan
    estimate: Estimate
    over: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """The calculator as it stands on the page; ``rows`` are empty while a field needs correcting."""

    quantities: Sequence[Quantity]
    rows: Sequence[Row]
    problem: str = ""

    @property
    def left_out(self) -> list[str]:
        return sorted({name for row in self.rows for name in row.estimate.left_out})


async def cost_of(visit: Visit, listing: Listing, plans: Sequence[Plan]) -> Cost | None:
    """Return the calculator of a listing, filled in from the address; None when it has no price at all."""
    estimator = visit.platform.estimator
    cards = await estimator.cards(listing.id)
    if not cards:
        return None
    units = units_asked(cards, listing.unit)
    typed = Fields((name, value.strip()) for name, value in visit.request.query_params.items())
    errors: dict[str, str] = {}
    calls = _read(typed[CALLS] or str(_USUAL_CALLS), errors, CALLS)
    if calls != calls.to_integral_value():
        errors[CALLS] = _("A call is a whole one.")
    amounts = {
        unit: _read(typed[unit], errors, unit) if typed[unit] else min(MOST, calls * _USUAL_OF_A_CALL.get(unit, 1))
        for unit in units
    }
    written = {CALLS: calls, **amounts}
    quantities = [
        Quantity(
            name,
            formats.unit_name("calls" if name == CALLS else name),
            typed[name] if name in errors else f"{written[name].normalize():f}",
            errors.get(name, ""),
        )
        for name in (CALLS, *units)
    ]
    if errors:
        return Cost(quantities, ())
    try:
        found = estimator.estimates(cards, [plan.code for plan in plans], int(calls), amounts)
    except ValueError:
        return Cost(quantities, (), _("That is more than a bill can hold. Enter less."))
    counted = {"requests": calls, **amounts}
    rows = [Row(plan, one, _is_over(plan, counted)) for plan, one in zip(plans, found, strict=True)]
    return Cost(quantities, rows)


def _read(text: str, errors: dict[str, str], name: str) -> Decimal:
    """Return a quantity that was typed, 0 with an entry in ``errors`` for what is none."""
    try:
        value = exact(text.replace(",", "").replace("\u00a0", "").replace(" ", "")[:40])
    except ValueError:
        errors[name] = _("Enter a number.")
        return Decimal(0)
    if not 0 <= value <= MOST or value != round(value, 6):
        errors[name] = _("Enter a number from 0 to %(most)s.", most=formats.number(MOST))
        return Decimal(0)
    return value


def _is_over(plan: Plan, counted: Mapping[str, Decimal]) -> bool:
    quotas = [plan.quota_per_month, None if plan.quota_per_day is None else plan.quota_per_day * _LONGEST_MONTH]
    most = min((quota for quota in quotas if quota is not None), default=None)
    return not plan.overage and most is not None and counted.get(plan.quota_unit, Decimal(0)) > most
