from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.cli.sentences import PARAGRAPHS, SENTENCES
from haat.language import sentences
from haat.models.hosted import Item
from haat.providers.akshara import detect, sentiment, similarity, summarise


@pytest.mark.parametrize("tag", SENTENCES)
def test_the_language_of_everyday_sentences_is_detected(tag: str) -> None:
    assert {detect.detect(sentence)["language"] for sentence in SENTENCES[tag]} == {tag}


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("ᱥᱟᱱᱛᱟᱲᱤ ᱯᱟᱹᱨᱥᱤ", "sat-Olck"),
        ("ꯃꯩꯇꯩꯂꯣꯟ", "mni-Mtei"),
        ("মই আজি ঘৰলৈ যাম।", "as-Beng"),
        ("هم اهو ڪم سڀاڻي ڪنداسين", "sd-Arab"),
        ("کٲشُر زبان چھِ واریاہ خوبصورت", "ks-Arab"),
        ("अहं गृहं गच्छामि।", "sa-Deva"),
        ("तपाईंलाई कस्तो छ? म नेपालमा बस्छु र काम गर्छु।", "ne-Deva"),
        ("यो किताब कति पर्छ?", "ne-Deva"),
        ("तुजें नांव कितें?", "kok-Deva"),
        ("हमर नाम सुनीता अछि आ हम दरभंगा मे रहैत छी।", "mai-Deva"),
        ("वह किसी से छल नहीं करता।", "hi-Deva"),
    ],
)
def test_languages_beyond_the_tour_are_detected(text: str, tag: str) -> None:
    assert detect.detect(text)["language"] == tag


@pytest.mark.parametrize(
    "text", ["Bonjour tout le monde", "Привет, как дела?", "12345 + 6 = ?", "👍👍", "नमस्ते"[:0] + "।"]
)
def test_what_is_none_of_the_languages_is_undetermined(text: str) -> None:
    assert detect.detect(text) | {"script": None} == {"language": "und", "script": None, "confidence": 0.0}


def test_confidence_is_earned_on_pieces_of_everyday_sentences() -> None:
    said: dict[int, list[tuple[float, bool]]] = {}
    for tag in ("hi-Deva", "mr-Deva", "ur-Arab", "bn-Beng", "en-Latn"):
        for sentence in SENTENCES[tag]:
            words = sentence.split()
            for size in range(1, 6):
                for start in range(len(words) - size + 1):
                    found = detect.detect(" ".join(words[start : start + size]))
                    if found["language"] != "und":
                        right = (found["confidence"], found["language"] == tag)
                        said.setdefault(int(found["confidence"] * 10), []).append(right)
    assert sorted(said) == [5, 6, 7, 8, 9]
    for level in said.values():
        assert sum(right for _, right in level) >= sum(confidence for confidence, _ in level)


def test_the_model_answers_with_our_codes_and_takes_half_a_surrogate_pair() -> None:
    codes = {code for code, _ in detect.FastText().rank("तुजें नांव \ud800 कितें?\n")}
    assert codes.isdisjoint({"gom", "bh"})
    assert detect.detect("\ud800 the weather is lovely")["language"] == "en-Latn"


@given(st.text(st.characters(), max_size=80))
def test_every_text_gets_a_language_or_none(text: str) -> None:
    found = detect.detect(text)
    assert 0 <= found["confidence"] <= 1
    assert found["language"] == "und" or found["language"].endswith(found["script"])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I love this shop, the people are so kind!", "positive"),
        ("The food was cold and the waiter was rude.", "negative"),
        ("The bus leaves at nine.", "neutral"),
        ("It was not good at all.", "negative"),
    ],
)
def test_english_feelings_are_told(text: str, label: str) -> None:
    assert sentiment.sentiment(text)["label"] == label


def test_similarity_counts_what_a_reader_sees() -> None:
    # One grapheme of five differs, though three code points do.
    assert similarity.similarity("नमस्ते जी", "नमस्ते जा", "edit") == pytest.approx(1 - 1 / 5)
    assert similarity.similarity("कमल नयन", "नयन कमल", "jaccard") == 1.0
    assert similarity.similarity("abc", "abd", "ngram") == pytest.approx(1 / 2)


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(similarity.METHODS))
def test_similarity_is_symmetric_and_bounded(first: str, second: str, method: str) -> None:
    score = similarity.similarity(first, second, method)
    assert 0 <= score <= 1
    assert score == pytest.approx(similarity.similarity(second, first, method))
    assert similarity.similarity(first, first, method) == 1


def test_a_sentence_ends_at_a_danda_but_not_after_a_title() -> None:
    assert sentences("कल बारिश हुई।आज धूप है? हाँ।") == ["कल बारिश हुई।", "आज धूप है?", "हाँ।"]
    assert sentences('Dr. Rao paid Rs. 3.5 to J. Das. "Yes!" he said.\nEnd') == [
        "Dr. Rao paid Rs. 3.5 to J. Das.",
        '"Yes!"',
        "he said.",
        "End",
    ]


@pytest.mark.parametrize("method", ["luhn", "reduction"])
@pytest.mark.parametrize("tag", PARAGRAPHS)
def test_a_summary_leaves_the_beside_the_point_out(tag: str, method: str) -> None:
    for paragraph, aside in zip(PARAGRAPHS[tag], ASIDES[tag], strict=True):
        chosen = summarise.summarise(paragraph, tag[:2], 2, method)
        assert len(chosen) == 2
        assert all(sentence in paragraph for sentence in chosen)
        assert not any(aside in sentence for sentence in chosen)


ASIDES = {"en-Latn": ("neem tree", "film crew", "Tickets cost"), "hi-Deva": ("बरगद", "झूले", "टिकट")}


def test_a_short_text_is_its_own_summary() -> None:
    config = {"language": "hi-Deva", "sentences": 5, "method": "luhn"}
    outputs, units = summarise.invoke([Item(text="कल बारिश हुई।")], config)
    assert outputs == [{"text": "कल बारिश हुई।", "sentences": ["कल बारिश हुई।"]}]
    assert units == {"characters": Decimal(13)}
