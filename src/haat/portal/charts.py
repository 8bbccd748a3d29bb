"""Charts as geometry: the server computes, a template draws SVG, a table stands behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from haat.language.messages import N_

WIDTH, HEIGHT = 720, 190
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 10, 22


@dataclass(frozen=True, slots=True)
class Point:
    """One value on the axis; ``label`` is how the axis and the table call it."""

    label: str
    value: Decimal


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    label: str
    value: Decimal
    marked: bool
    """Whether its label stands under the axis: all of a few, every n-th of many."""


@dataclass(frozen=True, slots=True)
class Line:
    y: float
    value: Decimal


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars from zero, with grid lines at round values. Sizes are in the SVG's own units."""

    title: str
    unit: str
    bars: tuple[Bar, ...]
    lines: tuple[Line, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    floor: int = HEIGHT - BOTTOM

    @property
    def total(self) -> Decimal:
        return sum((bar.value for bar in self.bars), Decimal(0))

    @property
    def peak(self) -> Bar | None:
        return max(self.bars, key=lambda bar: bar.value, default=None)


def round_step(top: Decimal) -> Decimal:
    """Return the smallest of 1, 2, 2.5, 5 × 10ⁿ of which four reach ``top`` (a positive amount)."""
    step = Decimal(1).scaleb(top.adjusted() - 1)
    for factor in ("1", "2", "2.5", "5", "10", "20", "25", "50"):
        if step * Decimal(factor) * 4 >= top:
            return step * Decimal(factor)
    return step * 100


def bar_chart(title: str, unit: str, points: Sequence[Point], *, whole: bool = True) -> Chart:
    """Lay bars out; ``whole`` keeps the grid on whole numbers, for things that are counted."""
    top = max((point.value for point in points), default=Decimal(0))
    step = round_step(top) if top > 0 else Decimal(1)
    if whole:
        step = max(step.to_integral_value("ROUND_CEILING"), Decimal(1))
    ticks = max(int((top / step).to_integral_value("ROUND_CEILING")), 1)
    ceiling = step * ticks
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    slot = inner_width / max(len(points), 1)
    gap = min(slot * 0.25, 8)
    width = min(slot - gap, 48)
    every = -(-len(points) // 8) or 1
    bars = []
    for place, point in enumerate(points):
        height = float(point.value / ceiling) * inner_height
        x = LEFT + place * slot + (slot - width) / 2
        last_first = (len(points) - 1 - place) % every == 0
        bars.append(
            Bar(
                round(x, 1),
                round(TOP + inner_height - height, 1),
                round(width, 1),
                round(height, 1),
                point.label,
                point.value,
                last_first,
            )
        )
    lines = [Line(round(TOP + inner_height * (1 - count / ticks), 1), step * count) for count in range(ticks + 1)]
    return Chart(title, unit, tuple(bars), tuple(lines))


@dataclass(frozen=True, slots=True)
class Stage:
    """A span of one call: where it lies on the call's own time line, in µs and in thousandths.

    ``name`` and ``explanation`` are English, marked for translation.
    """

    name: str
    explanation: str
    microseconds: int
    x: float
    width: float


STAGES = (
    (N_("Admission"), N_("key, subscription and limits were checked")),
    (N_("Queue"), N_("waited for a free connection")),
    (N_("Connect"), N_("connected to the provider")),
    (N_("Provider"), N_("the provider worked until its first byte")),
    (N_("Answer"), N_("the answer was passed on")),
)


def time_line(*, admission: int, queue: int, connect: int, first_byte: int, total: int) -> list[Stage]:
    """Lay a call's stages one after another on a line of 1,000 units.

    All in µs, as `haat.usage.event.Timings` has them: ``queue`` and ``connect`` are durations, the
    others instants since the request arrived, 0 where the call never came that far.
    """
    provider = max(first_byte - admission - queue - connect, 0)
    known = [admission, queue, connect, provider]
    spans = [*known, max(total - sum(known), 0)]
    whole = max(sum(spans), 1)
    stages, spent = [], 0
    for (name, explanation), took in zip(STAGES, spans, strict=True):
        width = max(1000 * took / whole, 2) if took else 0
        stages.append(Stage(name, explanation, took, round(1000 * spent / whole, 1), round(width, 1)))
        spent += took
    return stages
