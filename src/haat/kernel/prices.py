"""What a rate card may ask for: meters, and prices on what they measure. Pure; `haat.rating` applies them.

A meter turns a subscription's calls of a period into one number. A component puts a price on a meter, or is a fee.
Numbers are checked where they come in: negative, overflowing, not in order or not known raises ValueError with a
sentence that says which. ``docs/pricing.md`` has the definitions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any, Literal

from haat.kernel.money import PRICE_STEP, exact, holders, multiply, total

Aggregation = Literal["sum", "count", "max", "unique", "last"]
Model = Literal["flat", "unit", "package", "graduated", "volume", "overage"]
Distinct = Literal["end_user", "application", "language_pair"]

COUNTED_UNITS = (
    "requests",
    "characters",
    "graphemes",
    "tokens",
    "audio_seconds",
    "pages",
    "images",
    "bytes",
    "compute_seconds",
)
"""Units that a service can be sold by; each is a column of the usage row."""

REPORTED_UNITS = (
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
)
"""Parts of ``tokens`` that some providers report: they stand in the usage row's ``other_units``."""

MEASURED_UNITS = (*COUNTED_UNITS, *REPORTED_UNITS)
DISTINCTS: tuple[Distinct, ...] = ("end_user", "application", "language_pair")
ADDITIVE: tuple[Aggregation, ...] = ("sum", "count")
"""Aggregations whose parts add up; of the others a period has one value, known when it is over."""

MONTHS = "months"
"""The unit of fees and minimums."""

MAX_PRICE = Decimal(10) ** 12
MAX_QUANTITY = Decimal(10) ** 18
MAX_TIERS = 50
MAX_COMPONENTS = 20
_QUANTITY_STEP = Decimal("0.000001")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_RESERVED = frozenset({"minimum", MONTHS})
_NONE = Decimal(0)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which calls a meter sees; what is empty or None leaves a thing open.

    ``versions`` are those that executed the call, ``variants`` those that a rollout or an adapter chose. ``cached``:
    only what came out of the cache, or only what the provider was asked for.
    """

    language_pairs: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    cached: bool | None = None

    def takes(self, language_pair: str, version: str, variant: str, cached: bool) -> bool:
        return (
            (not self.language_pairs or language_pair in self.language_pairs)
            and (not self.versions or version in self.versions)
            and (not self.variants or variant in self.variants)
            and (self.cached is None or self.cached == cached)
        )

    def data(self) -> dict[str, Any]:
        """Return the members that restrict something, as plain data."""
        lists = {"language_pairs": self.language_pairs, "versions": self.versions, "variants": self.variants}
        found: dict[str, Any] = {name: list(values) for name, values in lists.items() if values}
        return found if self.cached is None else {**found, "cached": self.cached}


@dataclass(frozen=True, slots=True)
class Meter:
    """One number of a subscription's calls in a period.

    ``measure`` is a unit; for ``unique`` what is told apart, for ``count`` it says nothing. ``less`` are units that are
    taken off each call's, never below zero: input tokens less cached ones.
    """

    name: str
    aggregation: Aggregation = "sum"
    measure: str = "requests"
    less: tuple[str, ...] = ()
    filter: Filter = Filter()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in _RESERVED:
            raise ValueError(f"a meter is named by small letters, digits, - and _; {self.name[:40]!r} can't be one")
        if self.aggregation == "unique":
            if self.measure not in DISTINCTS:
                raise ValueError(f"unique counts one of {', '.join(DISTINCTS)}, not {self.measure[:40]!r}")
        elif unknown := [unit for unit in (self.measure, *self.less) if unit not in MEASURED_UNITS]:
            raise ValueError(f"{unknown[0][:40]!r} is no unit; there are {', '.join(MEASURED_UNITS)}")
        if self.less and self.aggregation in ("count", "unique"):
            raise ValueError(f"a {self.aggregation} has nothing that could be taken off")
        if self.measure in self.less or len(set(self.less)) != len(self.less):
            raise ValueError("what is taken off a unit are other units, each once")
        plain = ("sum", self.name, (), Filter())
        if self.name in MEASURED_UNITS and (self.aggregation, self.measure, self.less, self.filter) != plain:
            raise ValueError(f"{self.name} is the sum of that unit already: choose another name")

    @property
    def key(self) -> str:
        """What it reads of a call: ``input_tokens-cached_tokens``."""
        return "-".join((self.measure, *self.less))

    @property
    def unit(self) -> str:
        """What its numbers are counted in, for people."""
        if self.aggregation == "unique":
            return f"{self.measure}s"
        return "requests" if self.aggregation == "count" else self.measure

    @property
    def additive(self) -> bool:
        return self.aggregation in ADDITIVE

    def data(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "aggregation": self.aggregation,
            "measure": self.measure,
            "less": list(self.less),
            "filter": self.filter.data(),
        }


UNIT_METERS: Mapping[str, Meter] = {unit: Meter(unit, "sum", unit) for unit in MEASURED_UNITS}
"""The meters that every listing has: the sum of each unit over all calls."""


@dataclass(frozen=True, slots=True)
class Tier:
    """Units beyond the tier before, up to ``up_to`` (None: all further ones). ``flat`` is due once when it begins."""

    up_to: Decimal | None
    unit_price: Decimal
    flat: Decimal = _NONE


@dataclass(frozen=True, slots=True)
class Step:
    """One term of an amount: ``quantity`` × ``price``, of which answers out of the cache cost ``share``.

    What has a fixed price has the quantity 1; what was charged before is taken off with the quantity -1.
    """

    label: str
    quantity: Decimal
    price: Decimal
    share: Decimal | None = None

    @property
    def amount(self) -> Decimal:
        full = multiply(self.quantity, self.price)
        return full if self.share is None else multiply(full, self.share)


@dataclass(frozen=True, slots=True)
class Component:
    """A price on a meter, or a fee (``meter`` None).

    ``unit_price`` is a unit's, a package's (of ``size`` units) or a month's fee. ``free_units`` come off first in
    each period; tiers and packages count what is left. A fee that is ``prorated`` is due for the part of the period
    in which it stood, any other in full once a period.
    """

    model: Model
    name: str
    meter: Meter | None = None
    unit_price: Decimal = _NONE
    free_units: Decimal = _NONE
    size: Decimal = _NONE
    tiers: tuple[Tier, ...] = ()
    prorated: bool = True

    def __post_init__(self) -> None:
        check_price(self.unit_price, f"the price of {self.name}")
        check_quantity(self.free_units, f"the free units of {self.name}")
        if self.model == "flat":
            if self.meter is not None or not _NAME.fullmatch(self.name) or self.name in _RESERVED:
                raise ValueError("a fee has a name of its own and no meter")
        elif self.meter is None or self.name != self.meter.name:
            raise ValueError(f"a price by {self.model} is put on a meter")
        if self.model == "package":
            check_quantity(self.size, f"the size of a package of {self.name}")
            if not self.size:
                raise ValueError(f"a package of {self.name} holds something")
        if self.model in ("graduated", "volume"):
            check_tiers(self.tiers)
        elif self.tiers:
            raise ValueError(f"a price by {self.model} has no tiers")

    @property
    def headline(self) -> Decimal:
        """The price it is known by: of a unit, a package, a month, or of a unit in the first tier."""
        return self.tiers[0].unit_price if self.tiers else self.unit_price

    @property
    def unit(self) -> str:
        return self.meter.unit if self.meter is not None else MONTHS

    def steps(self, before: Decimal, quantity: Decimal, whole: Decimal) -> list[Step]:
        """Return what ``quantity`` units cost that follow ``before`` others, of ``whole`` in the period.

        All three are without free units. But for ``volume`` the steps of consecutive parts add up to those of all.
        """
        if not quantity:
            return []
        end = total((before, quantity))
        if self.model == "package":
            opened = holders(end, self.size) - holders(before, self.size)
            return [Step("package", opened, self.unit_price)] if opened else []
        if self.model == "graduated":
            found = []
            for number, (low, tier) in enumerate(spans(self.tiers), 1):
                high = end if tier.up_to is None else min(end, tier.up_to)
                inside = total((high, -max(low, before)))
                if inside > 0:
                    found.append(Step(f"tier {number}", inside, tier.unit_price))
                    if tier.flat and before <= low:
                        found.append(Step(f"tier {number} begins", Decimal(1), tier.flat))
            return found
        if self.model == "volume":
            number, tier = self.tier_of(whole)
            found = [Step(f"tier {number}", quantity, tier.unit_price)]
            return [*found, Step(f"tier {number} begins", Decimal(1), tier.flat)] if tier.flat and not before else found
        return [Step("overage" if self.model == "overage" else "unit", quantity, self.unit_price)]

    def tier_of(self, whole: Decimal) -> tuple[int, Tier]:
        """Return the tier, and its number from 1, in which a period's last unit lies."""
        for number, tier in enumerate(self.tiers, 1):
            if tier.up_to is None or whole <= tier.up_to:
                return number, tier
        raise AssertionError("the last tier has no end")

    def data(self) -> dict[str, Any]:
        """Return it as plain data, numbers as text; `component` reads it."""
        found: dict[str, Any] = {"model": self.model}
        if self.meter is None:
            return found | {"name": self.name, "amount": text(self.unit_price), "prorated": self.prorated}
        found["meter"] = self.name
        if self.tiers:
            found["tiers"] = [
                {
                    "up_to": None if tier.up_to is None else text(tier.up_to),
                    "unit_price": text(tier.unit_price),
                    "flat": text(tier.flat),
                }
                for tier in self.tiers
            ]
        elif self.model == "package":
            found |= {"package_size": text(self.size), "package_price": text(self.unit_price)}
        else:
            found["unit_price"] = text(self.unit_price)
        return found | {"included" if self.model == "overage" else "free_units": text(self.free_units)}


def component(data: Mapping[str, Any], meters: Mapping[str, Meter]) -> Component:
    """Return the component that plain data says, as `Component.data` has it; raise ValueError."""
    model = data["model"]
    if model == "flat":
        return Component("flat", data.get("name", "fee"), None, exact(data["amount"]), prorated=data["prorated"])
    meter = meters.get(data["meter"]) or UNIT_METERS.get(data["meter"])
    if meter is None:
        raise ValueError(f"the listing has no meter called {data['meter'][:40]!r}")
    return Component(
        model,
        meter.name,
        meter,
        exact(data.get("unit_price", data.get("package_price", "0"))),
        exact(data.get("included", data.get("free_units", "0"))),
        exact(data.get("package_size", "0")),
        tuple(
            Tier(None if one["up_to"] is None else exact(one["up_to"]), exact(one["unit_price"]), exact(one["flat"]))
            for one in data.get("tiers", ())
        ),
    )


def meter_of(data: Mapping[str, Any]) -> Meter:
    """Return the meter that plain data says, as `Meter.data` has it; raise ValueError."""
    chosen = data["filter"]
    return Meter(
        data["name"],
        data["aggregation"],
        data["measure"],
        tuple(data["less"]),
        Filter(
            tuple(chosen.get("language_pairs", ())),
            tuple(chosen.get("versions", ())),
            tuple(chosen.get("variants", ())),
            chosen.get("cached"),
        ),
    )


def unit_component(unit: str, unit_price: Decimal, free_units: Decimal) -> Component:
    """Return the one component of a card that says no more than a unit's price."""
    return Component("unit", unit, UNIT_METERS[unit], unit_price, free_units)


def check_components(components: Sequence[Component], minimum: Decimal) -> None:
    """Raise ValueError for components that don't make a card together."""
    check_price(minimum, "the minimum")
    names = [one.name for one in components]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"there are two prices on {twice}: put them in one, or on two meters")
    if len(components) > MAX_COMPONENTS:
        raise ValueError(f"a card has at most {MAX_COMPONENTS} components")


def check_tiers(tiers: Sequence[Tier]) -> None:
    """Raise ValueError unless tiers follow each other from zero without gap or overlap, and the last has no end."""
    if not tiers or tiers[-1].up_to is not None:
        raise ValueError("the last tier has no end (`up_to` null): what lies beyond would have no price")
    if len(tiers) > MAX_TIERS:
        raise ValueError(f"there are at most {MAX_TIERS} tiers")
    for tier in tiers:
        check_price(tier.unit_price, "the price of a tier")
        check_price(tier.flat, "the fixed price of a tier")
    ends = [_NONE]
    for tier in tiers[:-1]:
        if tier.up_to is None:
            raise ValueError("only the last tier has no end: the ones after it would overlap it")
        check_quantity(tier.up_to, "the end of a tier")
        ends.append(tier.up_to)
    if any(later <= earlier for earlier, later in pairwise(ends)):
        raise ValueError("each tier ends beyond the one before it: these overlap")


def check_price(price: Decimal, what: str) -> None:
    """Raise ValueError for a price that is negative, too large or finer than twelve decimals."""
    number = exact(price)
    if not 0 <= number < MAX_PRICE or number != number.quantize(PRICE_STEP):
        raise ValueError(f"{what} is at least 0, below {MAX_PRICE:,}, and has at most twelve decimals")


def check_quantity(quantity: Decimal, what: str) -> None:
    """Raise ValueError for a quantity that is negative, too large or finer than six decimals."""
    number = exact(quantity)
    if not 0 <= number < MAX_QUANTITY or number != number.quantize(_QUANTITY_STEP):
        raise ValueError(f"{what} are at least 0, below 10^18, and have at most six decimals")


def spans(tiers: Iterable[Tier]) -> Iterable[tuple[Decimal, Tier]]:
    """Yield each tier with the quantity at which it begins."""
    low = _NONE
    for tier in tiers:
        yield low, tier
        if tier.up_to is not None:
            low = tier.up_to


def text(value: Decimal) -> str:
    """Return a number without exponent and superfluous zeros."""
    written = f"{value:f}"
    return (written.rstrip("0").rstrip(".") or "0") if "." in written else written
