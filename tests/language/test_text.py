import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.language import LANGUAGES, count_graphemes, detect_script, graphemes, normalise, script_counts, search_words


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_every_language_writes_its_own_name_in_its_usual_script(code: str) -> None:
    assert detect_script(LANGUAGES[code].own_name) == LANGUAGES[code].scripts[0]


def test_the_script_of_most_letters_wins() -> None:
    assert detect_script("मैं Google पर खोज रहा हूँ") == "Deva"
    assert script_counts("अ a b") == {"Deva": 1, "Latn": 2}


def test_a_foreign_script_is_named_as_unknown_and_digits_have_none() -> None:
    assert detect_script("Привет") == "Zzzz"
    assert detect_script("12 + 30 = ४२।") is None


@pytest.mark.parametrize(("text", "count"), [("नमस्ते", 3), ("தமிழ்", 3), ("हिन्दी", 2), ("👩🏽‍🌾", 1), ("", 0), ("é", 1)])
def test_graphemes_are_what_a_reader_counts(text: str, count: int) -> None:
    assert count_graphemes(text) == count


def test_a_matra_does_not_split_a_word() -> None:
    assert search_words("हिन्दी से उर्दू अनुवाद, Text-to-Speech!") == [
        "हिन्दी", "से", "उर्दू", "अनुवाद", "text", "to", "speech",
    ]  # fmt: skip


def test_two_spellings_of_one_word_search_alike() -> None:
    assert search_words("क\u093cलम") == search_words("\u0958लम")
    assert search_words("ര\u200dാമ") == search_words("രാമ")
    assert search_words("Straße") == search_words("STRASSE")


@given(st.text())
def test_graphemes_lose_nothing(text: str) -> None:
    assert "".join(graphemes(text)) == text


@given(st.text())
def test_search_words_are_stable(text: str) -> None:
    words = search_words(text)
    assert search_words(" ".join(words)) == words
    assert all(word == normalise(word) for word in words)
