"""Tax that is withheld from providers: rules with rates and the dates from which they hold. Pure.

Which taxes an operator withholds depends on how it sells (CGST Act, section 52: TCS on what it sells as another's
agent; Income-tax Act, section 194-O: TDS of an e-commerce operator), so none is built in: the operator names them with
their rates in the setting ``withholdings``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from haat.kernel.money import exact, multiply, to_paisa

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,19}")
_FIELDS = {"name", "section", "rate", "base", "day", "starts", "ends"}


@dataclass(frozen=True, slots=True)
class Rule:
    """A tax and its rate in a span of days, both ends included.

    ``base``: ``gross`` for the net value of what was supplied (before tax, less credits), ``provider`` for the
    provider's part of it. ``day`` decides which rule holds: the one on which the statement is ``closed``, or the last
    of its ``period``.
    """

    name: str
    section: str
    rate: Decimal
    base: Literal["gross", "provider"]
    day: Literal["closed", "period"]
    starts: date
    ends: date | None

    def holds_on(self, day: date) -> bool:
        return self.starts <= day and (self.ends is None or day <= self.ends)


@dataclass(frozen=True, slots=True)
class Withheld:
    """A tax on a statement: ``base × rate``, rounded half-up to the paisa."""

    name: str
    section: str
    base: Decimal
    rate: Decimal
    amount: Decimal


def parse(given: Sequence[Mapping[str, Any]]) -> list[Rule]:
    """Return the rules that a setting gives; raise ValueError that names what is wrong with it."""
    rules: list[Rule] = []
    for place, one in enumerate(given, 1):
        try:
            rules.append(_rule(one))
        except (TypeError, ValueError) as error:
            raise ValueError(f"withholdings, entry {place}: {error}") from error
    for rule in rules:
        others = [other for other in rules if other is not rule and other.name == rule.name]
        if any(other.starts == rule.starts for other in others):
            raise ValueError(f"withholdings: two rates of {rule.name} start on {rule.starts}")
    return sorted(rules, key=lambda rule: (rule.name, rule.starts))


def _rule(one: Mapping[str, Any]) -> Rule:
    if unknown := set(one) - _FIELDS:
        raise ValueError(f"there is no {sorted(unknown)[0]}: it has {', '.join(sorted(_FIELDS))}")
    if missing := {"name", "rate", "starts"} - set(one):
        raise ValueError(f"it needs {', '.join(sorted(missing))}")
    if not _NAME.fullmatch(str(one["name"])):
        raise ValueError("name has 1 to 20 letters, digits, dots and dashes")
    base, day = one.get("base", "gross"), one.get("day", "closed")
    if base not in ("gross", "provider"):
        raise ValueError("base is gross or provider")
    if day not in ("closed", "period"):
        raise ValueError("day is closed or period")
    starts, ends = _day(one["starts"]), _day(one["ends"]) if one.get("ends") else None
    if ends is not None and ends < starts:
        raise ValueError("ends lies before starts")
    return Rule(str(one["name"]), str(one.get("section", "")), check_rate(one["rate"]), base, day, starts, ends)


def check_rate(given: Any) -> Decimal:
    """Return a rate as a fraction with at most five decimals; raise ValueError for what can't be one."""
    if isinstance(given, float):
        raise ValueError('write the rate as text, such as "0.001": a binary fraction is not exact')
    rate = exact(given)
    if not 0 <= rate <= 1 or rate != rate.quantize(Decimal("0.00001")):
        raise ValueError("rate is a fraction between 0 and 1 with at most five decimals")
    return rate


def _day(given: Any) -> date:
    return given if type(given) is date else date.fromisoformat(str(given))


def rates_of(overrides: Mapping[str, Any]) -> dict[str, Decimal]:
    """Return a provider's own rates by the tax's name, such as one without PAN, or 0 for one who is exempt."""
    return {name: check_rate(rate) for name, rate in overrides.items()}


def withhold(
    rules: Sequence[Rule],
    *,
    closed: date,
    period_end: date,
    gross: Decimal,
    provider: Decimal,
    rates: Mapping[str, Decimal],
) -> list[Withheld]:
    """Return the taxes on a statement; ``gross`` and ``provider`` are less what it credits.

    Of a tax's rates the newest counts that holds on its day. Nothing is withheld from a statement that gives back more
    than it earns, and nothing is given back: that is the State's to do.
    """
    found: dict[str, Withheld] = {}
    for rule in rules:  # in the order of starts, so a later one replaces an earlier one
        if not rule.holds_on(closed if rule.day == "closed" else period_end):
            continue
        found.pop(rule.name, None)
        base = gross if rule.base == "gross" else provider
        rate = rates.get(rule.name, rule.rate)
        amount = to_paisa(multiply(base, rate))
        if amount > 0:
            found[rule.name] = Withheld(rule.name, rule.section, base, rate, amount)
    return [found[name] for name in sorted(found)]
