"""What a provider may say of its prices: meters, and the components of a rate card (``docs/pricing.md``)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from haat.kernel.money import spread, total
from haat.kernel.prices import REPORTED_UNITS, Aggregation, Component, Filter, Meter, Tier, check_tiers, component


def no_floats(value: Any) -> Any:
    """Refuse a binary fraction where money or a quantity is wanted: it has already lost some."""
    if isinstance(value, float):
        raise ValueError("write money and quantities as text or whole numbers, not as binary fractions")
    return value


Amount = Annotated[Decimal, BeforeValidator(no_floats), Field(ge=0, max_digits=24, decimal_places=12)]
Quantity = Annotated[Decimal, BeforeValidator(no_floats), Field(ge=0, max_digits=24, decimal_places=6)]
MeterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
_Value = Annotated[str, Field(min_length=1, max_length=80)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TierDraft(_Part):
    """Units beyond the tier before up to ``up_to``, null for all further ones; ``flat`` is due once when it begins."""

    up_to: Quantity | None = None
    unit_price: Amount = Decimal(0)
    flat: Amount = Decimal(0)


class FlatDraft(_Part):
    """A month's fee, for the part of it in which the subscription stood unless ``prorated`` is false."""

    model: Literal["flat"]
    name: MeterName = "fee"
    amount: Amount
    prorated: bool = True


class UnitDraft(_Part):
    model: Literal["unit"]
    meter: MeterName
    unit_price: Amount
    free_units: Quantity = Decimal(0)


class OverageDraft(_Part):
    """What goes beyond the units ``included`` in a month."""

    model: Literal["overage"]
    meter: MeterName
    included: Quantity
    unit_price: Amount


class PackageDraft(_Part):
    """Units by the package; one that was begun counts."""

    model: Literal["package"]
    meter: MeterName
    package_size: Quantity
    package_price: Amount
    free_units: Quantity = Decimal(0)


class TieredDraft(_Part):
    """``graduated``: each unit at its tier's price. ``volume``: all of them at the price of the tier they reach."""

    model: Literal["graduated", "volume"]
    meter: MeterName
    tiers: Annotated[list[TierDraft], Field(min_length=1, max_length=50)]
    free_units: Quantity = Decimal(0)

    @model_validator(mode="after")
    def _tiers_fit(self) -> TieredDraft:
        check_tiers([Tier(one.up_to, one.unit_price, one.flat) for one in self.tiers])
        return self


ComponentDraft = Annotated[
    FlatDraft | UnitDraft | OverageDraft | PackageDraft | TieredDraft, Field(discriminator="model")
]


class FilterDraft(_Part):
    """Which calls a meter sees; what is left out leaves a thing open."""

    language_pairs: Annotated[list[_Value], Field(max_length=100)] = []
    versions: Annotated[list[_Value], Field(max_length=100)] = []
    variants: Annotated[list[Annotated[str, Field(max_length=80)]], Field(max_length=100)] = []
    cached: bool | None = None


class MeterDraft(_Part):
    """One number of a subscription's calls in a month, to put a price on; see `haat.kernel.prices.Meter`."""

    name: MeterName
    aggregation: Aggregation = "sum"
    measure: Annotated[str, Field(max_length=40)] = "requests"
    less: Annotated[list[Annotated[str, Field(max_length=40)]], Field(max_length=4)] = []
    filter: FilterDraft = FilterDraft()

    @model_validator(mode="after")
    def _can_be_read(self) -> MeterDraft:
        self.meter()
        return self

    def meter(self) -> Meter:
        chosen = self.filter
        return Meter(
            self.name,
            self.aggregation,
            self.measure,
            tuple(self.less),
            Filter(tuple(chosen.language_pairs), tuple(chosen.versions), tuple(chosen.variants), chosen.cached),
        )


def component_of(draft: ComponentDraft, meters: Mapping[str, Meter]) -> Component:
    """Return the component that a draft says; raise ValueError for what can't be charged."""
    return component(draft.model_dump(mode="json"), meters)


def headline(components: tuple[Component, ...], unit: str) -> tuple[Decimal, Decimal]:
    """Return the price and the free units that a card with components is known by.

    The price is the most that one of the listing's units costs by them, a package's price spread over its units; of a
    listing sold by tokens, parts of tokens count too. Fixed prices of tiers, fees and minimums are not in it. What puts
    no price on the listing's unit is known by the first one that it puts on something.
    """
    metered = [one for one in components if one.meter is not None]
    own = [one for one in metered if one.meter is not None and one.meter.additive and _is_part(one.unit, unit)]
    free = next((one.free_units for one in own if one.unit == unit), Decimal(0))
    return total(_dearest(one) for one in own or metered[:1]), free


def _is_part(unit: str, whole: str) -> bool:
    return unit == whole or (whole == "tokens" and unit in REPORTED_UNITS)


def _dearest(one: Component) -> Decimal:
    """Return the most that a unit of a component costs."""
    if one.tiers:
        return max(tier.unit_price for tier in one.tiers)
    return spread(one.unit_price, one.size) if one.model == "package" else one.unit_price
