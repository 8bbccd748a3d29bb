"""The design system on a living page: what the stylesheet and `parts.html` hold, shown with nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from fastapi import APIRouter
from starlette.responses import Response

from haat.language.messages import INTERFACE
from haat.portal import language_names, palette
from haat.portal.charts import Point, bar_chart
from haat.portal.proofs import Proof
from haat.portal.visit import VisitOf
from haat.reviews.model import Standing

router = APIRouter()

STEPS = ("-1", "0", "1", "2", "3", "4", "5", "6")
STATES = ("published", "pending", "suspended", "withdrawn")
_CALLS = (120, 180, 90, 240, 310, 150, 60)


@dataclass(frozen=True, slots=True)
class Swatch:
    """A colour of a theme."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A colour written on another one, and their contrast."""

    text: Swatch
    ground: Swatch
    ratio: float


@dataclass(frozen=True, slots=True)
class Theme:
    name: str
    swatches: list[Swatch]
    pairs: list[Pair]


def _themes() -> list[Theme]:
    found = []
    for name in palette.THEMES:
        values = {token: value for token, value in palette.tokens(name).items() if value.startswith("#")}
        swatches = {token: Swatch(token, value) for token, value in values.items()}
        pairs = [
            Pair(swatches[text], swatches[ground], palette.contrast(values[text], values[ground]))
            for text, ground in palette.TEXTS
        ]
        found.append(Theme(name, list(swatches.values()), pairs))
    return found


@router.get("/_design")
async def design(visit: VisitOf) -> Response:
    days = [Point(f"{day} Nov", Decimal(calls)) for day, calls in enumerate(_CALLS, 1)]
    return visit.render(
        "design.html",
        themes=_themes(),
        steps=STEPS,
        states=STATES,
        languages=[language_names.language(str(tag)) for tag in INTERFACE],
        drawing=bar_chart("Calls", "requests", days),
        proof=Proof(1234, 187.0, Decimal("0.9991")),
        standing=Standing(12, Decimal("4.6")),
        now=datetime(2026, 11, 21, 9, 30, tzinfo=UTC),
        price=Decimal("0.0002"),
    )
