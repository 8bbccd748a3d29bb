import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.language.validation import MOST_FINDINGS, Finding, Findings, Rules, validate

HINDI = "आज बाज़ार बंद है।"


def texts(*given: str) -> dict[str, Any]:
    return {"input": [{"text": text} for text in given], "config": {"source": "hi", "target": "ur"}}


def fields(found: Findings) -> list[str]:
    return [error.field for error in found.errors]


def is_profane(text: str) -> bool:
    return "villain" in text


STRICT = Rules(
    items=20, total=5_000, least=2, most=40, repeats=4, duplicates="refuse", language=True, profanity="refuse"
)


@pytest.mark.parametrize(
    ("bad", "rules", "message"),
    [
        ("", Rules(), "must be a text that is not empty"),
        (" \u200d\n\ufe0f", Rules(), "must be a text that is not empty"),
        (HINDI * 3, Rules(most=40), "has 51 characters; at most 40 are taken"),
        ("क", Rules(least=2), "has 1 characters; at least 2 are needed"),
        ("नमस्ते aaaaaaa", Rules(repeats=6), "repeats 'a' more than 6 times"),
        ("किकिकिकि", Rules(repeats=3), "repeats 'कि' more than 3 times"),
        ("The market is closed.", Rules(language=True), "is written in Latin, but config.source says Devanagari"),
        ("ঐ বাজার", Rules(language=True), "is written in Bengali, but config.source says Devanagari"),
        ("Привет", Rules(language=True), "is written in another script, but config.source says Devanagari"),
        ("you villain", Rules(profanity="refuse"), "holds a word that is not let through here"),
        (HINDI, Rules(duplicates="refuse"), "is the same as input[0].text"),
        (HINDI.replace("ज़", "\u095b"), Rules(duplicates="refuse"), "is the same as input[0].text"),
    ],
)
def test_a_text_that_is_unfit_is_named_by_its_place(bad: str, rules: Rules, message: str) -> None:
    assert validate(texts(HINDI, "कल आइए", bad), rules, is_profane).errors == (Finding("input[2].text", message),)


@pytest.mark.parametrize(
    ("fine", "rules"),
    [
        (HINDI, STRICT),
        ("GST की दर ५% है", STRICT),
        ("12345 !!", Rules(language=True)),
        ("a    b", Rules(repeats=3)),
        ("aaa", Rules(repeats=3)),
        ("", Rules(empty=True, least=5, repeats=1, language=True)),
        (HINDI * 100, Rules()),
    ],
)
def test_a_text_that_is_fit_passes(fine: str, rules: Rules) -> None:
    assert validate(texts(fine), rules, is_profane) == Findings()


def test_a_flag_is_no_error() -> None:
    found = validate(texts(HINDI, "you villain"), Rules(profanity="flag"), is_profane)
    assert (found.errors, [flag.field for flag in found.flags]) == ((), ["input[1].text"])


@pytest.mark.parametrize("call", [None, [], {}, {"input": []}, {"input": "a"}, {"input": {"text": "a"}}, "text", 5])
def test_what_is_no_batch_is_said_to_be_none(call: Any) -> None:
    assert fields(validate(call, STRICT)) == ["input"]


def test_the_batch_has_limits_of_its_own() -> None:
    assert fields(validate(texts("a", "b", "c"), Rules(items=2))) == ["input"]
    assert fields(validate(texts("abc", "def"), Rules(total=5))) == ["input"]


def test_texts_are_found_at_any_depth_and_content_is_none() -> None:
    call = {
        "input": [
            {"pages": [{"lines": ["fine", ""]}], "other": "x"},
            {"audio": {"content": "", "format": "wav"}},
            "",
            7,
        ]
    }
    assert fields(validate(call, Rules())) == ["input[0].pages[0].lines[1]", "input[2]"]


def test_what_is_nested_too_deep_to_look_into_is_refused() -> None:
    deep: Any = "text"
    for _ in range(100):
        deep = [deep]
    [field] = fields(validate({"input": [{"text": "a"}, deep]}, Rules()))
    assert field.startswith("input[1][0]")


def test_pairs_are_the_same_only_together() -> None:
    call = {"input": [{"text": "a", "other": "b"}, {"text": "a", "other": "c"}, {"text": "A", "other": "b"}]}
    assert fields(validate(call, Rules(duplicates="refuse"))) == ["input[2].text"]


# --- properties -----------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.sampled_from(["", " ", "aaaaaaaa", HINDI, "a villain", "The market", "x", "ঐ বাজার", HINDI * 5]),
    st.text(st.characters(codec="utf-8"), max_size=60),
)
RULES = st.builds(
    Rules,
    least=st.integers(0, 5),
    most=st.integers(0, 50),
    repeats=st.integers(0, 5),
    empty=st.booleans(),
    language=st.booleans(),
    profanity=st.sampled_from(["allow", "flag", "refuse"]),
)


def alone(text: str, rules: Rules) -> Findings:
    return validate(texts(text), rules, is_profane)


@given(st.lists(TEXTS, min_size=1, max_size=8), RULES)
def test_each_index_is_that_of_a_text_that_is_unfit_by_itself(batch: list[str], rules: Rules) -> None:
    found = validate(texts(*batch), rules, is_profane)
    expected = [
        Finding(f"input[{index}].text", error.message)
        for index, text in enumerate(batch)
        for error in alone(text, rules).errors
    ]
    assert list(found.errors) == expected


@given(st.lists(TEXTS, min_size=1, max_size=8), RULES, st.randoms(use_true_random=False))
def test_another_order_of_the_items_finds_the_same(batch: list[str], rules: Rules, chance: random.Random) -> None:
    def said(order: list[str]) -> Counter[tuple[str, str]]:
        found = validate(texts(*order), rules, is_profane)
        return Counter((order[int(one.field[6:-6])], one.message) for one in (*found.errors, *found.flags))

    shuffled = batch.copy()
    chance.shuffle(shuffled)
    assert said(batch) == said(shuffled)


@given(st.lists(st.sampled_from(["a", "A", "b", "c "]), min_size=1, max_size=8))
def test_of_texts_that_are_alike_all_but_the_first_are_named(batch: list[str]) -> None:
    found = validate(texts(*batch), Rules(duplicates="refuse"))
    later = [index for index, text in enumerate(batch) if text.lower() in [one.lower() for one in batch[:index]]]
    assert fields(found) == [f"input[{index}].text" for index in later]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("half \ud800 a pair"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(JSON | st.fixed_dictionaries({"input": JSON, "config": JSON}))
def test_nothing_raises(call: Any) -> None:
    found = validate(call, STRICT, is_profane)
    assert len(found.errors) <= MOST_FINDINGS
