"""A language is named on evidence, and no surer than the evidence is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.language import LANGUAGES, SCRIPTS, Span, detect


class Guesses:
    """A model that always says the same, and remembers what it was asked."""

    def __init__(self, *ranked: tuple[str, float]) -> None:
        self.ranked = ranked
        self.asked: list[str] = []

    def rank(self, text: str) -> Sequence[tuple[str, float]]:
        self.asked.append(text)
        return self.ranked


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("ᱥᱟᱱᱛᱟᱲᱤ", "sat-Olck"),
        ("ꯃꯩꯇꯩꯂꯣꯟ", "mni-Mtei"),
        ("ਪੰਜਾਬੀ", "pa-Guru"),
        ("ગુજરાતી", "gu-Gujr"),
        ("ଓଡ଼ିଆ", "or-Orya"),
        ("த", "ta-Taml"),
        ("తెలుగు", "te-Telu"),
        ("ಕನ್ನಡ", "kn-Knda"),
        ("മലയാളം", "ml-Mlym"),
    ],
)
def test_a_script_of_one_language_decides_alone(text: str, tag: str) -> None:
    model = Guesses(("fa", 1.0))
    found = detect(text, model)
    assert (found.language, found.candidates[0].confidence, found.candidates[0].evidence) == (tag, 1.0, "script")
    assert not model.asked


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("মই আজি ঘৰলৈ যাম।", "as-Beng"),
        ("প্রুভ আর ৱাফম", "mni-Beng"),
        ("هم اهو ڪم سڀاڻي ڪنداسين", "sd-Arab"),
        ("کٲشُر زبان چھِ واریاہ خوبصورت", "ks-Arab"),
        ("हीउ ॿार सुठो आहे", "sd-Deva"),
        ("कॉशुर छु ॴस", "ks-Deva"),
    ],
)
def test_a_letter_of_one_language_is_evidence_before_the_model(text: str, tag: str) -> None:
    model = Guesses(("hi", 1.0), ("bn", 1.0), ("ur", 1.0))
    found = detect(text, model)
    assert (found.language, found.candidates[0].evidence) == (tag, "letters")
    assert not model.asked


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("हमर नाम सुनीता अछि आ हम दरभंगा मे रहैत छी।", "mai-Deva"),
        ("तुजें नांव कितें?", "kok-Deva"),
        ("म नेपालमा बस्छु, तपाईंलाई कस्तो छ?", "ne-Deva"),
        ("अहं गृहं गच्छामि।", "sa-Deva"),
        ("बेनि बागै मिथिना लानि फै", "brx-Deva"),
        ("जम्मू-कश्मीर दे दिल च विरासत दा खजाना ऐ", "doi-Deva"),
        ("মহাক্না হায়, খুভম অসি নুমিদাংগী মৈরা", "mni-Beng"),
    ],
)
def test_words_of_one_language_are_evidence_before_the_model(text: str, tag: str) -> None:
    found = detect(text, Guesses(("hi", 1.0), ("bn", 1.0)))
    assert (found.language, found.candidates[0].evidence) == (tag, "words")


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("मेरा भाई दिल्ली में रहता है।", "hi-Deva"),
        ("तुमचे नाव काय आहे?", "mr-Deva"),
        ("کیا آپ میری مدد کر سکتے ہیں؟", "ur-Arab"),
        ("আমি এক কাপ চা চাই।", "bn-Beng"),
        ("The weather is lovely today.", "en-Latn"),
    ],
)
def test_everyday_sentences_are_told_without_a_model(text: str, tag: str) -> None:
    assert detect(text).language == tag


def test_a_quoted_letter_does_not_make_a_text_of_another_language() -> None:
    text = "এই ভাষায় ৰ অক্ষরটি লেখা হয়, কিন্তু আমাদের ভাষায় র অক্ষরটি অন্য রকম করে লেখা হয়।"
    assert detect(text, Guesses(("bn", 0.9))).language == "bn-Beng"


def test_a_model_is_asked_for_the_part_in_the_main_script_only() -> None:
    model = Guesses(("hi", 0.9))
    detect("आज हमने Kiran को अद्भुत बाज़ार दिखाया", model)
    assert "Kiran" not in model.asked[0]


def test_a_models_confidence_shrinks_with_the_text() -> None:
    model = Guesses(("hi", 1.0))
    short, long = detect("अद्भुत बाज़ार", model), detect("अद्भुत बाज़ार " * 5, model)
    assert short.candidates[0].confidence == pytest.approx(6 / 7)
    assert long.candidates[0].confidence == pytest.approx(30 / 31)


def test_a_models_doubt_is_kept() -> None:
    found = detect("अद्भुत बाज़ार", Guesses(("new", 0.5), ("hi", 0.4)))
    assert (found.language, found.reason, str(found.candidates[0].tag)) == ("und", "no evidence", "hi-Deva")


def test_a_language_of_another_script_is_no_candidate() -> None:
    assert detect("अद्भुत बाज़ार", Guesses(("fa", 0.9), ("ta", 0.1))).candidates == ()


def test_a_model_that_names_a_language_twice_adds_up() -> None:
    found = detect("अद्भुत बाज़ार", Guesses(("mai", 0.5), ("mai", 0.4)))
    assert found.candidates[0].confidence == pytest.approx(0.9 * 6 / 7)


def test_words_of_a_language_that_the_model_does_not_know_make_it_less_sure() -> None:
    text = "इस बेजोड़ भाषा दे प्रति गहरे अपनेपन ते श्रद्धा कन्नै गूंजदा ऐ"
    found = detect(text, Guesses(("hi", 0.8)))
    assert found.language == "und"
    assert {str(each.tag) for each in found.candidates} == {"doi-Deva", "hi-Deva"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no letters"),
        ("12 + 30 👍", "no letters"),
        ("Привет, как дела?", "unknown script"),
        ("राम", "too short"),
        ("ok", "too short"),
        ("மழை today", "mixed scripts"),
        ("बाज़ारभाव", "no evidence"),
    ],
)
def test_what_cannot_be_told_says_why(text: str, reason: str) -> None:
    found = detect(text, Guesses(("en", 0.9)))
    assert (found.language, found.best, found.reason) == ("und", None, reason)


def test_each_script_of_a_mixed_text_is_a_span_with_its_language() -> None:
    assert detect("மழை ਮੀਂਹ вода").spans == (
        Span(0, 4, "Taml", "ta-Taml"),
        Span(4, 9, "Guru", "pa-Guru"),
        Span(9, 13, "Zzzz", "und"),
    )


def test_another_scripts_words_take_from_the_confidence() -> None:
    found = detect("தமிழ் மொழி Tamil")
    assert found.language == "ta-Taml"
    assert found.candidates[0].confidence == pytest.approx(9 / 14)


@given(
    st.text(st.characters()) | st.text(st.sampled_from("अआहै ৰৱর ڪٲہے theand தꯃ д1")),
    st.none() | st.lists(st.tuples(st.sampled_from([*LANGUAGES, "fr"]), st.floats(-0.1, 1.1)), max_size=4),
)
def test_any_text_has_an_answer(text: str, guesses: list[tuple[str, float]] | None) -> None:
    found = detect(text, None if guesses is None else Guesses(*guesses))
    assert all(0 <= each.confidence <= 1 and each.tag.script == found.script for each in found.candidates)
    confidences = [each.confidence for each in found.candidates]
    assert confidences == sorted(confidences, reverse=True)
    assert (found.language == "und") == (found.reason is not None)
    assert found.best is None or (found.best.confidence >= 0.5 and found.script in SCRIPTS)
    assert "".join(text[span.start : span.end] for span in found.spans) in (text, "")
