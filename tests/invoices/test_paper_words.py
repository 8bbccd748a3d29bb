"""Labels and amounts in words: complete in each language, and no two numbers said alike."""

from __future__ import annotations

import string
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.invoices.paper.labels import Labels, labels_for
from haat.invoices.paper.words import MOST, amount_in_words, number_in_words
from haat.language import LANGUAGES, parse_tag, script_counts

TAGS = [parse_tag(code) for code in LANGUAGES]
ENGLISH = labels_for(parse_tag("en"))
AMOUNTS = [
    ("en", "1234567.50", "Twelve lakh thirty four thousand five hundred and sixty seven rupees and fifty paise only"),
    ("en", "0.00", "Zero rupees only"),
    ("en", "0.05", "Five paise only"),
    ("hi", "100001.00", "एक लाख एक रुपये मात्र"),
    ("bn", "1200.25", "এক হাজার দুশো টাকা পঁচিশ পয়সা মাত্র"),
    ("ta", "147.00", "நூற்று நாற்பத்து ஏழு ரூபாய் மட்டும்"),
    ("kn", "120.83", "ನೂರ ಇಪ್ಪತ್ತು ರೂಪಾಯಿ ಎಂಬತ್ತಮೂರು ಪೈಸೆ ಮಾತ್ರ"),
    ("ur", "100.00", "صرف ایک سو روپے"),
    ("sd", "345.00", "فقط ٽي سو پنجيتاليهه رپيا"),
]


@pytest.mark.parametrize(("tag", "amount", "said"), AMOUNTS)
def test_an_amount_is_said_in_lakh_and_crore(tag: str, amount: str, said: str) -> None:
    assert amount_in_words(Decimal(amount), labels_for(parse_tag(tag))) == said


@pytest.mark.parametrize("code", LANGUAGES)
def test_no_two_numbers_are_said_alike(code: str) -> None:
    tag = parse_tag(code)
    small = range(1200)
    round_ones = [step * many for step in (1000, 100_000, 10**7) for many in range(1, 100)]
    ragged = [many * 37_123_457 % MOST for many in range(500)]
    numbers = list(dict.fromkeys([*small, *round_ones, *ragged, MOST, MOST + 1, 10**18]))
    said = [number_in_words(number, tag) for number in numbers]
    assert len(set(said)) == len(said)
    assert all(words == " ".join(words.split()) and words for words in said)


@given(st.decimals(min_value=0, max_value=10**18, places=2, allow_nan=False), st.sampled_from(TAGS))
def test_every_amount_an_invoice_can_have_is_said_in_some_words(amount: Decimal, tag: object) -> None:
    assert amount_in_words(amount, labels_for(tag))  # type: ignore[arg-type]  # hypothesis types no tags


@pytest.mark.parametrize("tag", TAGS, ids=str)
def test_every_language_has_every_label_with_the_same_places_to_fill(tag: object) -> None:
    labels = labels_for(tag)  # type: ignore[arg-type]  # pytest types no tags
    assert labels.tag == tag
    for part in ("paper", "money", "units", "mail"):
        own, english = getattr(labels, part), getattr(ENGLISH, part)
        assert own.keys() == english.keys()
        for name, text in own.items():
            assert _places(text) == _places(english[name]), (part, name)
            assert text == " ".join(text.split()) and text, (part, name)
    assert len(labels.numbers) in (0, 100)


@pytest.mark.parametrize("tag", TAGS, ids=str)
def test_labels_are_in_the_script_of_their_language(tag: object) -> None:
    labels = labels_for(tag)  # type: ignore[arg-type]  # pytest types no tags
    for text in (*labels.paper.values(), *labels.units.values(), *labels.money.values(), *labels.numbers):
        scripts = script_counts("".join(piece for piece, *_ in string.Formatter().parse(text)).replace("SHA", ""))
        assert set(scripts) <= {labels.tag.script}, text


def test_a_unit_that_no_file_knows_is_named_as_its_meter_names_it() -> None:
    assert labels_for(parse_tag("hi")).unit("cached_tokens") == "cached tokens"
    assert isinstance(labels_for(parse_tag("hi")), Labels)


def _places(text: str) -> set[str]:
    return {name for _, name, *_ in string.Formatter().parse(text) if name}
