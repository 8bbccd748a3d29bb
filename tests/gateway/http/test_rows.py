"""Random rows of the corpus' cases on one connection, cut at random: each is answered as if it were alone."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http.case import Case, Sent
from gateway.http.corpus import CASES
from gateway.http.wire import Seen, Wire

SHORT = [case for case in CASES if len(case.raw) < 2500 and len(case.answers) <= 4 and not case.patience]
GOES_ON = [case for case in SHORT if case.kept and case.answers and not case.unfinished]
"""Behind these the connection takes another request."""
ENDS = [case for case in SHORT if not case.kept or case not in GOES_ON]


@st.composite
def rows(draw: st.DrawFn) -> tuple[list[Case], list[int], bool]:
    """Draw a row of cases, where to cut it, and whether the provider is slow."""
    row = draw(st.lists(st.sampled_from(GOES_ON), min_size=1, max_size=10))
    row += draw(st.lists(st.sampled_from(ENDS), max_size=1))
    length = sum(len(case.raw) for case in row)
    cuts = draw(st.lists(st.integers(0, length), max_size=12))
    return row, sorted(cuts), draw(st.booleans())


@settings(max_examples=120, deadline=None)
@given(rows())
def test_a_row(wire: Wire, row: tuple[list[Case], list[int], bool]) -> None:
    cases, cuts, late = row
    seen = wire.run(b"".join(case.raw for case in cases), cuts, late=late)
    check(cases, seen)


def check(cases: list[Case], seen: Seen) -> None:
    methods = [
        method for case in cases for method in [*case.methods, *["POST"] * len(case.answers)][: len(case.answers)]
    ]
    answers = [answer.status for answer in seen.answers(methods)]
    assert answers == [status for case in cases for status in case.answers]
    assert [Sent(request.body, request.method, request.target) for request in seen.requests] == [
        sent._replace(has={}, lacks=()) for case in cases for sent in case.upstream
    ]
    assert seen.violations == ()
    if cases[-1] in GOES_ON:
        assert seen.kept
