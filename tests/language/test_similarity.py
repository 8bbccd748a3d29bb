"""Likeness counts what a reader sees: graphemes and words, whatever the spelling and case."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.language import (
    SIMILARITIES,
    Weights,
    edit_similarity,
    ngram_similarity,
    weighted_similarity,
    word_similarity,
)

measures = st.sampled_from(list(SIMILARITIES.values()))
short_texts = st.text(max_size=12) | st.text(st.sampled_from("अबक\u093f\u094da A!"), max_size=12)


def test_an_edit_is_of_a_grapheme_not_of_a_code_point() -> None:
    assert edit_similarity("नमस्ते जी", "नमस्ते जा") == pytest.approx(1 - 1 / 5)


def test_words_count_once_and_in_any_order() -> None:
    assert word_similarity("कमल नयन कमल", "नयन कमल") == 1
    assert word_similarity("कमल नयन", "कमल लोचन") == pytest.approx(1 / 3)


def test_texts_without_words_share_none() -> None:
    assert (word_similarity("!!", "!!"), word_similarity("!!", "??")) == (1, 0)


def test_runs_of_graphemes_count_with_their_repeats() -> None:
    assert ngram_similarity("abc", "abd") == pytest.approx(1 / 2)
    assert ngram_similarity("aaaa", "aa") == pytest.approx(2 * 1 / 4)
    assert ngram_similarity("abcd", "abce", size=3) == pytest.approx(1 / 2)
    assert ngram_similarity("a", "a") == 1


def test_a_run_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ngram_similarity("a", "b", size=0)


def test_the_weighted_measure_is_the_mean_of_the_others() -> None:
    pair = ("मेरा नाम राजेश है", "मेरा नाम राकेश है")
    expected = 0.5 * edit_similarity(*pair) + 0.25 * ngram_similarity(*pair) + 0.25 * word_similarity(*pair)
    assert weighted_similarity(*pair) == pytest.approx(expected)
    assert weighted_similarity(*pair, Weights(edit=0, ngram=0, words=3)) == pytest.approx(word_similarity(*pair))


@pytest.mark.parametrize("weights", [(0, 0, 0), (-1, 1, 1)])
def test_weights_that_weigh_nothing_are_refused(weights: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="negative"):
        Weights(*weights)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("क़लम", "क\u093cलम"),
        ("അവന\u0d4d\u200d", "അവ\u0d7b"),
        ("STRASSE", "straße"),
        ("sa\u00adme", "same"),
        ("", "\ufeff"),
    ],
)
@pytest.mark.parametrize("measure", SIMILARITIES.values(), ids=SIMILARITIES)
def test_texts_that_read_the_same_are_the_same(measure: Callable[[str, str], float], first: str, second: str) -> None:
    assert measure(first, second) == 1


@given(measures, short_texts, short_texts)
def test_likeness_is_symmetric_and_between_none_and_all(
    measure: Callable[[str, str], float], first: str, second: str
) -> None:
    assert 0 <= measure(first, second) <= 1
    assert measure(first, second) == pytest.approx(measure(second, first))


@given(measures, st.text())
def test_a_text_is_like_itself(measure: Callable[[str, str], float], text: str) -> None:
    assert measure(text, text) == 1


@given(short_texts, st.floats(0, 9), st.floats(0.1, 9), st.floats(0, 9))
def test_no_weights_lead_beyond_one(text: str, edit: float, ngram: float, words: float) -> None:
    weights = Weights(edit, ngram, words)
    assert weighted_similarity(text, text, weights) == 1
    assert 0 <= weighted_similarity(text, text[1:], weights) <= 1
