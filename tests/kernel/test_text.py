"""What may be stored, and what a name may look like."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.errors import ValidationFailed
from haat.kernel.text import check_name, is_readable, is_storable, tidy


@pytest.mark.parametrize(
    "value",
    [
        "a\0b",
        "\ud800",
        ["fine", {"deep": ["a\0"]}],
        {"a\0": 1},
        float("nan"),
        {"x": float("-inf")},
        2**63,
        [-(2**63) - 1],
    ],
)
def test_what_postgresql_or_json_refuses_is_not_storable(value: object) -> None:
    assert not is_storable(value)


def test_deep_nesting_is_not_storable_and_does_not_exhaust_the_stack() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    assert not is_storable(value)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63) + 1, 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="ascii", min_codepoint=1)), inner),
        max_leaves=20,
    )
)
def test_ordinary_json_is_storable(value: object) -> None:
    assert is_storable(value) and json.dumps(value, allow_nan=False).encode()


@pytest.mark.parametrize("name", ["Anuvād Labs", "भाषा सेवा", "தமிழ்", "اردو بازار", "A\u200db", "৳100", "C++", "🎉"])
def test_names_in_any_script_are_readable(name: str) -> None:
    assert is_readable(name)


@pytest.mark.parametrize(
    "name", ["", " ", "\u200b", "\u200d\u200c", "\u0301", "a\u202eb", "a\u2066b", "a\x07", "a\x7f", "a\x85b", "a\ud800"]
)
def test_names_that_show_nothing_or_hide_something_are_not(name: str) -> None:
    assert not is_readable(name)


def test_a_line_is_tidied_to_nfc_and_single_spaces() -> None:
    assert tidy("  caf\u0065\u0301 \t\n  \u0928\u093c ") == "caf\u00e9 \u0929"


def test_a_name_is_tidied() -> None:
    assert check_name("  Anuvad \n Labs ") == "Anuvad Labs"


@pytest.mark.parametrize("name", ["", "   ", "x" * 121, "\u200b", "a\0b", "a\u202eb", "\ud800"])
def test_a_name_nobody_can_read_is_refused_at_its_field(name: str) -> None:
    with pytest.raises(ValidationFailed) as refusal:
        check_name(name, "organisation")
    assert refusal.value.extensions["errors"][0]["field"] == "organisation"


@given(st.text(max_size=300))
def test_a_name_that_is_taken_is_taken_again_unchanged(text: str) -> None:
    try:
        taken = check_name(text)
    except ValidationFailed:
        return
    assert check_name(taken) == taken and 1 <= len(taken) <= 120
