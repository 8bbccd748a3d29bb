import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.errors import ContentRefused
from haat.plugins.builtin.lexicon import LANGUAGES, Lexicon, fold, own_words, read_words
from haat.plugins.builtin.profanity import Profanity, ProfanityConfiguration

LEXICON = Lexicon.of(LANGUAGES)
stars = Profanity(ProfanityConfiguration(action="mask"))


def test_each_language_has_a_list_in_its_normal_form_without_repetitions() -> None:
    for language in LANGUAGES:
        words = own_words(language)
        assert len(words) >= 7
        assert len({fold(word) for word in words}) >= len(words) - 3
        assert all(word == unicodedata.normalize("NFC", word).strip() for word in words)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_listed_word_is_found_as_a_whole(language: str) -> None:
    lexicon = Lexicon.of([language])
    for word in own_words(language):
        [hit] = lexicon.find(f"… {word}, …")
        assert (hit.start, hit.end, hit.language) == (2, 2 + len(word), language)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("What a DAAAAMN day", "What a ******* day"),
        ("तू कमीीीना है", "तू *** है"),
        ("तू कम\u200cीना है", "तू *** है"),
        ("हरामज़ादा, हरामजादा", "*****, *****"),
        ("s\u200bh\u00adit!", "******!"),
        ("Son  of a\nBITCH!", "***************!"),
        ("كمينہ", "*****"),
    ],
)
def test_disguises_are_seen_through(text: str, masked: str) -> None:
    assert stars.change(text) == masked


@pytest.mark.parametrize(
    "text", ["Scunthorpe", "a classic assessment", "crappie fishing", "shiitake", "मुकम्मल", "sheets"]
)
def test_a_word_inside_another_word_is_none(text: str) -> None:
    assert stars.change(text) is text


def test_refusing_names_the_language_and_never_the_word() -> None:
    guard = Profanity(ProfanityConfiguration())
    with pytest.raises(ContentRefused) as refusal:
        guard.change("तू हरामी है")
    assert refusal.value.extensions == {"language": "hi"}
    assert "हरामी" not in refusal.value.detail
    assert refusal.value.status == 422


def test_operators_add_their_own_words_and_let_others_pass(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("# ours\nVogon  # an insult\nblue whale\n", "utf-8")
    guard = Profanity(ProfanityConfiguration(action="mask", languages=("en",), files=(own,), allow=("crap",)))
    assert guard.change("crap, VOGON, blue whale, blue, damn") == "crap, *****, **********, blue, ****"


def test_a_list_that_is_not_there_keeps_the_guard_from_beginning(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Profanity(ProfanityConfiguration(files=(tmp_path / "none.txt",)))


def test_comments_and_empty_lines_are_no_words() -> None:
    assert list(read_words("# a\n\n b # c\n")) == ["b"]


@given(st.text())
def test_whatever_the_text_hits_are_in_order_and_inside(text: str) -> None:
    hits = list(LEXICON.find(text))
    assert all(0 <= hit.start < hit.end <= len(text) for hit in hits)
    assert all(earlier.end <= later.start for earlier, later in pairwise(hits))


@given(st.sampled_from(own_words("en")), st.integers(3, 9), st.data())
def test_a_stretched_word_is_still_found(word: str, times: int, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from([i for i, letter in enumerate(word) if letter.isalpha()]))
    if " " in word:
        return
    stretched = word[:place] + word[place] * times + word[place + 1 :]
    assert list(LEXICON.find(stretched))
