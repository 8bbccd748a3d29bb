"""Charts start at zero, fit their frame and hide no value."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from haat.portal.charts import HEIGHT, WIDTH, Point, bar_chart, time_line

_values = st.lists(st.integers(0, 10**12).map(Decimal), min_size=0, max_size=62)


@given(_values)
def test_every_bar_stands_on_the_floor_and_within_the_frame(values: list[Decimal]) -> None:
    chart = bar_chart("Calls", "calls", [Point(str(place), value) for place, value in enumerate(values)])
    assert len(chart.bars) == len(values) and chart.total == sum(values)
    for bar in chart.bars:
        assert bar.x >= 0 and bar.x + bar.width <= WIDTH and bar.y >= 0 and bar.y + bar.height <= HEIGHT
        assert abs(bar.y + bar.height - chart.floor) < 0.2


@given(_values)
def test_the_grid_has_few_round_lines_from_zero_to_the_peak(values: list[Decimal]) -> None:
    chart = bar_chart("Calls", "calls", [Point("", value) for value in values])
    lines = [line.value for line in chart.lines]
    assert lines[0] == 0 and lines[-1] >= max(values, default=Decimal(0)) and 2 <= len(lines) <= 6
    assert all(value == value.to_integral_value() for value in lines)


@given(
    st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**7), st.integers(0, 10**7)
)
def test_the_stages_of_a_call_follow_each_other(
    admission: int, queue: int, connect: int, worked: int, passed: int
) -> None:
    first_byte = admission + queue + connect + worked
    stages = time_line(
        admission=admission, queue=queue, connect=connect, first_byte=first_byte, total=first_byte + passed
    )
    assert [stage.microseconds for stage in stages] == [admission, queue, connect, worked, passed]
    assert [stage.x for stage in stages] == sorted(stage.x for stage in stages)


def test_a_call_that_was_refused_spent_its_time_in_admission_and_answering() -> None:
    stages = time_line(admission=100, queue=0, connect=0, first_byte=0, total=160)
    assert [stage.microseconds for stage in stages] == [100, 0, 0, 0, 60]
