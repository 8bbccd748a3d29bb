"""Graphemes and words, cut only where a reader would."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from haat.language import (
    count_graphemes,
    graphemes,
    normalise,
    search_words,
    sentences,
    slice_graphemes,
    truncate,
    words,
)

clustered_texts = st.text(st.sampled_from("कष\u094d\u093fta\u0301 ন👩🏽\u200d🌾🇮🇳\r\n\u0600"), max_size=20) | st.text()


@pytest.mark.parametrize(("text", "count"), [("नमस्ते", 3), ("தமிழ்", 3), ("हिन्दी", 2), ("👩🏽‍🌾", 1), ("", 0), ("é", 1)])
def test_graphemes_are_what_a_reader_counts(text: str, count: int) -> None:
    assert count_graphemes(text) == count


def test_a_slice_counts_graphemes() -> None:
    assert slice_graphemes("नमस्ते जी", 1, 3) == "मस्ते"
    assert slice_graphemes("नमस्ते", 2) == "स्ते"
    assert slice_graphemes("नमस्ते", 5, 9) == ""


def test_a_slice_from_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="must be"):
        slice_graphemes("नमस्ते", -1)


@pytest.mark.parametrize(
    ("text", "limit", "cut"),
    [("नमस्ते दुनिया", 4, "नमस्ते…"), ("नमस्ते", 3, "नमस्ते"), ("नमस्ते", 2, "न…"), ("👩🏽‍🌾👩🏽‍🌾", 1, "…"), ("", 1, "")],
)
def test_a_text_is_cut_after_whole_graphemes(text: str, limit: int, cut: str) -> None:
    assert truncate(text, limit) == cut


def test_an_ending_longer_than_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        truncate("नमस्ते", 2, "...")


@example("\u0600 a", 1)  # a cluster that ends in a space
@given(clustered_texts, st.integers(0, 12))
def test_cutting_never_splits_a_cluster(text: str, limit: int) -> None:
    cut = truncate(text, limit, "")
    assert count_graphemes(cut) <= limit
    assert graphemes(cut) == graphemes(text)[: count_graphemes(cut)]


@given(clustered_texts, st.integers(1, 12))
def test_a_cut_text_fits_with_its_ending(text: str, limit: int) -> None:
    assert count_graphemes(truncate(text, limit)) <= limit


@given(clustered_texts, st.integers(0, 12), st.integers(0, 12))
def test_a_slice_is_that_of_the_list(text: str, start: int, stop: int) -> None:
    assert slice_graphemes(text, start, stop) == "".join(graphemes(text)[start:stop])


@given(st.text())
def test_graphemes_lose_nothing(text: str) -> None:
    assert "".join(graphemes(text)) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("हिन्दी से उर्दू अनुवाद।", ["हिन्दी", "से", "उर्दू", "अनुवाद"]),
        ("Don't pay ₹12,34,567.50!", ["Don't", "pay", "12,34,567.50"]),
        ("କ'ଣ? बर’ 'quoted'", ["କ'ଣ", "बर", "quoted"]),
        ("می\u200cخواهم، Text-to-Speech", ["می\u200cخواهم", "Text", "to", "Speech"]),
        ("v1.2.3 3rd १२.५", ["v1", "2.3", "3rd", "१२.५"]),
        ("👍 …", []),
    ],
)
def test_words_are_written_as_in_the_text(text: str, found: list[str]) -> None:
    assert words(text) == found


@given(st.text())
def test_every_word_stands_in_the_text(text: str) -> None:
    at = 0
    for word in words(text):
        at = text.index(word, at) + len(word)


def test_a_matra_does_not_split_a_word() -> None:
    assert search_words("हिन्दी से उर्दू अनुवाद, Text-to-Speech!") == [
        "हिन्दी", "से", "उर्दू", "अनुवाद", "text", "to", "speech",
    ]  # fmt: skip


def test_two_spellings_of_one_word_search_alike() -> None:
    assert search_words("क\u093cलम") == search_words("\u0958लम")
    assert search_words("ര\u200dാമ") == search_words("രാമ")
    assert search_words("അവന\u0d4d\u200d") == search_words("അവ\u0d7b")
    assert search_words("क्\u200dष") == search_words("क्ष")
    assert search_words("Straße") == search_words("STRASSE")


def test_what_an_emoji_is_made_of_is_no_word() -> None:
    assert search_words("❤\ufe0f 👩\u200d🌾 \u200d") == words("❤\ufe0f 👩\u200d🌾 \u200d") == []


@given(clustered_texts)
def test_search_words_are_stable(text: str) -> None:
    found = search_words(text)
    assert search_words(" ".join(found)) == found
    assert all(word == normalise(word) for word in found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("कल बारिश हुई।आज धूप है? हाँ।", ["कल बारिश हुई।", "आज धूप है?", "हाँ।"]),
        ("आप कैसे हैं॥ ठीक", ["आप कैसे हैं॥", "ठीक"]),
        ("آپ کیسے ہیں؟ میں ٹھیک ہوں۔ شکریہ", ["آپ کیسے ہیں؟", "میں ٹھیک ہوں۔", "شکریہ"]),
        ("Dr. Rao paid Rs. 3.5 today. Good!\n\nEnd", ["Dr. Rao paid Rs. 3.5 today.", "Good!", "End"]),
        ("उसने कहा “चलो।” फिर गया।", ["उसने कहा “चलो।”", "फिर गया।"]),
        (" \n ", []),
    ],
)
def test_sentences_end_where_their_script_ends_them(text: str, found: list[str]) -> None:
    assert sentences(text) == found


@given(st.text(st.sampled_from("अaA1।۔؟.?!…”) \n\u2028")) | st.text())
def test_dividing_into_sentences_loses_nothing_but_the_space_between(text: str) -> None:
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())
    assert all(sentence.strip() == sentence != "" for sentence in sentences(text))
