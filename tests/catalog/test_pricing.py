"""A card with components is known by the most that one of the listing's units costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from haat.catalog.drafts import PriceDraft
from haat.catalog.pricing import MeterDraft, component_of, headline

TIERS = [{"up_to": "10", "unit_price": "0.2"}, {"unit_price": "0.5", "flat": "3"}]
URDU = MeterDraft.model_validate(
    {"name": "urdu", "measure": "characters", "filter": {"language_pairs": ["hi>ur"]}}
).meter()


def unit(meter: str, price: str, **more: str) -> dict[str, Any]:
    return {"model": "unit", "meter": meter, "unit_price": price, **more}


@pytest.mark.parametrize(
    ("components", "sold_by", "price", "free"),
    [
        ([unit("characters", "0.2", free_units="5"), {"model": "flat", "amount": "9"}], "characters", "0.2", "5"),
        ([unit("characters", "0.2"), unit("urdu", "0.1")], "characters", "0.3", "0"),
        ([unit("pages", "7"), unit("characters", "0.2")], "characters", "0.2", "0"),
        ([unit("input_tokens", "0.1"), unit("output_tokens", "0.4")], "tokens", "0.5", "0"),
        ([unit("pages", "7"), unit("images", "8")], "characters", "7", "0"),
        ([{"model": "flat", "amount": "9"}], "characters", "0", "0"),
        ([{"model": "graduated", "meter": "characters", "tiers": TIERS}], "characters", "0.5", "0"),
        (
            [{"model": "package", "meter": "characters", "package_size": "3", "package_price": "1"}],
            "characters", "0.333333333334", "0",
        ),
    ],
)  # fmt: skip
def test_the_most_that_a_unit_costs(components: list[dict[str, Any]], sold_by: str, price: str, free: str) -> None:
    draft: PriceDraft = PriceDraft.parse({"components": components})
    parts = tuple(component_of(one, {"urdu": URDU}) for one in draft.components)
    assert headline(parts, sold_by) == (Decimal(price), Decimal(free))
