"""Text of one direction keeps its order inside the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.language import balance, base_direction, is_balanced, isolate, parse_tag

LRI, RLI, FSI, PDI = "\u2066", "\u2067", "\u2068", "\u2069"
isolated_texts = st.text(st.sampled_from("aا1 \n\u2029" + LRI + RLI + FSI + PDI), max_size=20) | st.text(
    st.characters()
)


@pytest.mark.parametrize(
    ("text", "direction"),
    [
        ("हाट", "ltr"),
        ("بازار Haat", "rtl"),
        ("Haat بازار", "ltr"),
        ("12: بازار", "rtl"),
        ("\u200f12", "rtl"),
        (f"{LRI}Haat{PDI} بازار", "rtl"),
        (f"{RLI}بازار", None),
        (f"{RLI}بازار\nHaat", "ltr"),
        ("12 + 30", None),
        ("", None),
    ],
)
def test_the_first_strong_character_outside_isolates_decides(text: str, direction: str | None) -> None:
    assert base_direction(text) == direction


def test_an_isolate_says_its_direction_or_lets_the_text_decide() -> None:
    assert isolate("بازار", parse_tag("ur").direction) == f"{RLI}بازار{PDI}"
    assert isolate("C++", "ltr") == f"{LRI}C++{PDI}"
    assert isolate("?") == f"{FSI}?{PDI}"


def test_each_paragraph_is_isolated_by_itself() -> None:
    assert isolate("a\n\nb") == f"{FSI}a{PDI}\n\n{FSI}b{PDI}"


def test_what_is_isolated_cannot_end_the_isolate() -> None:
    assert isolate(f"a{PDI}b") == f"{FSI}ab{PDI}"
    assert isolate(f"a{RLI}b") == f"{FSI}a{RLI}b{PDI}{PDI}"


def test_an_isolate_is_closed_before_its_paragraph_ends() -> None:
    assert balance(f"{RLI}a\nb{PDI}") == f"{RLI}a{PDI}\nb"


@given(isolated_texts, st.sampled_from(["ltr", "rtl", None]))
def test_isolates_are_balanced(text: str, direction: str | None) -> None:
    assert is_balanced(isolate(text, direction))  # type: ignore[arg-type]  # the three directions are these
    assert is_balanced(balance(text))


@given(isolated_texts)
def test_balancing_leaves_a_balanced_text_alone(text: str) -> None:
    assert balance(balance(text)) == balance(text)


@given(st.text(st.characters(exclude_characters=LRI + RLI + FSI + PDI)), st.sampled_from([LRI, RLI, FSI]))
def test_what_is_isolated_gives_no_direction(text: str, opening: str) -> None:
    direction = {LRI: "ltr", RLI: "rtl", FSI: None}[opening]
    assert base_direction(isolate(text, direction)) is None  # type: ignore[arg-type]  # as above
