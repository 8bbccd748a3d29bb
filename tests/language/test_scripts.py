"""A text's scripts, and where each begins."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.language import LANGUAGES, Run, detect_script, script_counts, script_runs


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_every_language_writes_its_own_name_in_its_usual_script(code: str) -> None:
    assert detect_script(LANGUAGES[code].own_name) == LANGUAGES[code].scripts[0]


def test_the_script_of_most_letters_wins() -> None:
    assert detect_script("मैं Google पर खोज रहा हूँ") == "Deva"
    assert script_counts("अ a b") == {"Deva": 1, "Latn": 2}


def test_a_foreign_script_is_named_as_unknown_and_digits_have_none() -> None:
    assert detect_script("Привет") == "Zzzz"
    assert detect_script("12 + 30 = ४२।") is None


def test_spaces_and_digits_belong_to_the_run_before_them() -> None:
    assert script_runs("(5) मैं Google 9 पर") == (Run(0, 8, "Deva"), Run(8, 17, "Latn"), Run(17, 19, "Deva"))


def test_a_text_without_letters_has_no_runs() -> None:
    assert script_runs("12 👍") == ()


@given(st.text(st.characters()))
def test_runs_cover_a_text_without_gap_or_overlap(text: str) -> None:
    runs = script_runs(text)
    assert "".join(text[run.start : run.end] for run in runs) == (text if script_counts(text) else "")
    assert {run.script for run in runs} == set(script_counts(text))
    assert all(one.script != following.script for one, following in pairwise(runs))
