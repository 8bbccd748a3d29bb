import itertools
from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.providers.akshara import chat
from haat.providers.akshara.ngram import NgramModel

TEXT = "the cat sat on the mat. बिल्ली चटाई पर बैठी।\n" * 2
MODEL = NgramModel(TEXT, 4)


def said(model: NgramModel, length: int, context: str = "", **more: float | int | None) -> str:
    options = {"seed": 1, "temperature": 1.0, "top_p": 1.0, **more}
    return "".join(itertools.islice(model.continue_text(context, **options), length))  # type: ignore[arg-type]


@given(st.text(max_size=8) | st.integers(0, 80).map(lambda at: TEXT[:at]))
def test_what_may_follow_is_certain_to_and_nothing_is_impossible(context: str) -> None:
    shares = MODEL.probabilities(context)
    assert shares.keys() == set(TEXT)
    assert fsum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0


def test_what_was_read_is_likeliest() -> None:
    assert max((shares := MODEL.probabilities("the ca")), key=lambda one: shares[one]) == "t"
    assert said(MODEL, 10, "the cat sa", temperature=0).startswith("t on the ")


def test_the_smoothing_is_witten_and_bells() -> None:
    model = NgramModel("aab", 1)
    # After "a" came a and b, once each: half is left to the shorter context, where a was seen twice and b once.
    shorter = {"a": 2 / 5 + 2 / 5 / 2, "b": 1 / 5 + 2 / 5 / 2}
    found = model.probabilities("a")
    for character, share in found.items():
        assert share == pytest.approx(1 / 4 + shorter[character] / 2)


@given(st.integers(), st.floats(0, 2), st.floats(0, 1))
def test_a_seed_says_the_same_again(seed: int, temperature: float, top_p: float) -> None:
    first, again = (said(MODEL, 40, "c", seed=seed, temperature=temperature, top_p=top_p) for _ in range(2))
    assert first == again and set(first) <= set(TEXT)


def test_without_a_seed_it_is_left_to_chance() -> None:
    assert len({said(MODEL, 30, seed=None, temperature=2) for _ in range(5)}) > 1


def test_a_small_nucleus_is_the_likeliest() -> None:
    assert said(MODEL, 30, "c", top_p=0.0) == said(MODEL, 30, "c", temperature=0)


@pytest.mark.parametrize(("text", "reach"), [("", 2), ("a", -1)])
def test_a_model_of_nothing_is_none(text: str, reach: int) -> None:
    with pytest.raises(ValueError, match="a model needs a text"):
        NgramModel(text, reach)


def test_the_model_of_the_house_has_read_english_and_hindi() -> None:
    assert {"t", "क", "।", "."} <= chat.model().probabilities("").keys()
    assert said(chat.model(), 12, "the mark", temperature=0).startswith("et")
