"""Words that are said alike have one key, whatever script or spelling they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.language.sound import sound

ALIKE = [
    ["अनुवाद", "anuvad", "anuvaad", "Anuvaad"],
    ["दिल्ली", "दिली", "dilli", "ਦਿੱਲੀ", "દિલ્લી"],
    ["समाचार", "samachar", "samaachaar", "সমাচার"],
    ["தமிழ்", "tamil", "tamizh", "तमिल"],
    ["हिन्दी", "हिंदी", "hindi", "hindee", "ഹിന്ദി"],
    ["संपर्क", "सम्पर्क", "sampark"],
    ["मण्डी", "मंडी", "mandi"],
    ["करना", "karna"],
    ["आवाज़", "awaaz", "aavaj"],
    ["चेन्नई", "சென்னை", "chennai"],
    ["కేరళం", "keralam"],
]


@pytest.mark.parametrize("words", ALIKE, ids=lambda words: words[1])
def test_spellings_of_a_word_sound_the_same(words: list[str]) -> None:
    assert {word: sound(word) for word in words} == dict.fromkeys(words, sound(words[0]))


@pytest.mark.parametrize("pair", [("nai", "nahi"), ("दिल", "दाल"), ("tamil", "telugu"), ("kal", "kul")])
def test_other_words_sound_otherwise(pair: tuple[str, str]) -> None:
    assert sound(pair[0]) != sound(pair[1])


@pytest.mark.parametrize("word", ["اردو", "ᱥᱟᱱᱛᱟᱲᱤ", "123", "日本", "हिन्दीx", "۱۲"])
def test_what_is_not_read_is_its_own_key(word: str) -> None:
    assert sound(word) == word


@given(st.text())
def test_every_text_has_a_key(text: str) -> None:
    assert isinstance(sound(text), str)
