"""What looks the same is spelled the same, and what means something is kept."""

from __future__ import annotations

import unicodedata
from time import perf_counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from haat.language import fold, normalise

# Every kind of character that the rules speak of, so that random texts meet the rules.
_TELLING = (
    "कषनारा\u093c\u094d\u093f\u0902"
    "কতরয\u09bc\u09cd\u09be"
    "നരണകഷ\u0d4d\u0d3e"
    "بدیھاو\u064b"
    "ab1 .!\n\u2029\u0301"
    "\u200b\u200c\u200d\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff\u00ad"
    "👩🌾🏽\ufe0f"
)
telling_texts = st.text(st.sampled_from(_TELLING), max_size=30)


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("e\u0301", "é"),
        ("க\u0bc6\u0bbe", "க\u0bca"),  # two halves of a vowel sign
        ("\u0958", "क\u093c"),  # qa is excluded from composition
        ("\u09dc", "ড\u09bc"),
        ("\u0a5e", "ਫ\u0a3c"),
        ("\u0b5c", "ଡ\u0b3c"),
        ("न\u093c", "\u0929"),  # nnna is not
        ("र\u093c", "\u0931"),
    ],
)
def test_composition_is_that_of_nfc(written: str, normal: str) -> None:
    assert normalise(written) == normal


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("ज\u093e\u093c", "ज\u093c\u093e"),
        ("ড\u09be\u09bc", "ড\u09bc\u09be"),
        ("ਸ\u0a3e\u0a3c", "ਸ\u0a3c\u0a3e"),
        ("न\u093e\u093c", "\u0929\u093e"),
        ("फ\u093c\u093c", "फ\u093c"),
    ],
)
def test_a_nukta_stands_once_and_before_the_vowel_sign(written: str, normal: str) -> None:
    assert normalise(written) == normal


@pytest.mark.parametrize(
    "text",
    [
        "क्\u200dष",  # half ka, not the ligature
        "क्\u200cष",  # visible virama
        "र्\u200dय",  # eyelash ra
        "आधा क्\u200d",  # a half form on its own
        "ক্\u200cত",
        "র\u200d\u09cdয",  # ra with ya-phalaa, no reph
        "ರ\u200d\u0ccdಕ",
        "க்\u200cஷ",
        "ഫേസ്\u200cബുക്ക്",
        "می\u200cخواهم",
        "کتاب\u200cخانہ",
        "ه\u200d",  # the initial form, an abbreviation
        "👩🏽\u200d🌾",
        "❤\ufe0f\u200d🔥",
    ],
)
def test_a_joiner_that_changes_letters_is_kept(text: str) -> None:
    assert normalise(text) == text


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("a\u200cb\u200dc", "abc"),
        ("\u200dसलाम\u200d", "सलाम"),
        ("\u200cकमल\u200c", "कमल"),
        ("क्\u200c", "क्"),  # a virama at the end of a word shows anyway
        ("क्\u200c कमल", "क् कमल"),
        ("क्\u200dि", "क्ि"),
        ("क्\u200c\u200cष", "क्\u200cष"),
        ("क्\u200d\u200dष", "क्\u200dष"),
        ("अ\u200cब", "अब"),
        ("تمہارا\u200cد", "تمہاراد"),  # alef doesn't join on
        ("می\u200c ", "می "),
        ("می\u200cا\u200c", "می\u200cا"),
        ("بی\u200dن", "بین"),  # they join anyway
        ("1\u200d2", "12"),
        ("👍\u200d", "👍"),
    ],
)
def test_a_joiner_that_changes_nothing_goes(written: str, normal: str) -> None:
    assert normalise(written) == normal


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("അവന\u0d4d\u200d", "അവ\u0d7b"),
        ("അവര\u0d4d\u200d", "അവ\u0d7c"),
        ("ണ\u0d4d\u200d ല\u0d4d\u200d ള\u0d4d\u200d ക\u0d4d\u200d", "ൺ ൽ ൾ ൿ"),
        ("ഇന\u0d4d\u200dഡ്യ", "ഇ\u0d7bഡ്യ"),
        ("উত\u09cd\u200dসব", "উ\u09ceসব"),
    ],
)
def test_a_letter_once_written_with_a_joiner_becomes_its_own_character(written: str, normal: str) -> None:
    assert normalise(written) == normal


def test_a_chillu_is_not_taken_from_a_conjunct() -> None:
    assert normalise("ന\u0d4dമ") == "ന\u0d4dമ"


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("\ufeffनमस्ते", "नमस्ते"),
        ("co\u00adop\u00aderate", "cooperate"),
        ("बाज़ार\u200bभाव", "बाज़ारभाव"),
        ("a\u2060b", "ab"),
    ],
)
def test_advice_to_a_line_breaker_goes(written: str, normal: str) -> None:
    assert normalise(written) == normalise(normal)


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("pay \u202eevil\u202c now", "pay evil now"),
        ("\u202aabc\u202c", "abc"),
        ("\u2069abc", "abc"),
        ("\u2067abc", "abc"),
        ("\u2068a\nb\u2069", "a\nb"),  # a paragraph ends every isolate
        ("\u2066\u2067\u2069\u2069x", "x"),
        ("abc\u200e", "abc"),
        ("हिन्दी\u200f", "हिन्दी"),
        ("हिन्दु\u200f", "हिन्दु"),
        ("اردو\u200f\u200f", "اردو"),
        ("C++ \u200eabc", "C++ abc"),
    ],
)
def test_a_direction_control_that_is_stray_goes(written: str, normal: str) -> None:
    assert normalise(written) == normal


@pytest.mark.parametrize(
    "text",
    [
        "نام \u2066C++\u2069 ہے",
        "اردو C++\u200e ہے",
        "\u200fHaat: بازار",  # makes the paragraph right to left
        "عدد \u061c-5",
    ],
)
def test_a_direction_control_that_orders_something_is_kept(text: str) -> None:
    assert normalise(text) == text


@pytest.mark.parametrize("text", ["", "  two  spaces ", "A B", "line\r\nline", "१२,३४५.५०", "बर'", "\ud800"])
def test_spaces_case_and_digits_are_left_alone(text: str) -> None:
    assert normalise(text) == text


@given(st.text(st.characters()) | telling_texts)
@example("ക\u0d4d\u200d\u200d")
@example("क\u093e\u200d\u093c")
@example("\u2068\u2068\u200d\u2069\u2069")
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)


@given(st.text() | telling_texts)
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text(), st.sampled_from(["NFC", "NFD"]))
def test_canonically_equivalent_texts_are_normalised_alike(text: str, form: str) -> None:
    assert normalise(unicodedata.normalize(form, text)) == normalise(text)


def test_case_and_composition_make_no_difference_when_folded() -> None:
    assert fold("STRASSE") == fold("straße")
    assert fold("É") == fold("e\u0301")


@pytest.mark.parametrize(
    "unit",
    ["\u093e\u093c", "\u2068", "\u2068\u2069", "\u200e\u200f", "\u200d\u200f", "ب\u200d\u200c", "\u200d", "क\u200d्"],
)
def test_time_grows_with_the_length_only(unit: str) -> None:
    began = perf_counter()
    normalise(unit * 20_000)
    assert perf_counter() - began < 5  # seconds: a pass a unit would take minutes
