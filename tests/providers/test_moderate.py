import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.cli.sentences import PARAGRAPHS, SENTENCES
from haat.providers.akshara import moderate


@pytest.mark.parametrize(
    ("text", "where", "language"),
    [
        ("This is bullshit!", "bullshit", "en"),
        ("what a b1tch", "b1tch", "en"),
        ("he is an a$$hole!", "a$$hole", "en"),
        ("Sh!t happens", "Sh!t", "en"),
        ("a son of a bitch", "son of a bitch", "en"),
        ("तू कमीना है", "कमीना", "hi"),
    ],
)
def test_a_listed_word_is_found_in_its_disguises(text: str, where: str, language: str) -> None:
    answer = moderate.moderate(text)
    assert answer["flagged"] and answer["categories"] == {"profanity": True}
    [found] = answer["found"]
    assert (text[found["start"] : found["end"]], found["language"]) == (where, language)
    assert 0 < answer["scores"]["profanity"] <= 1


@pytest.mark.parametrize(
    "text",
    [
        "The pen is on the table as soon as it is hot.",
        "455 people from Scunthorpe had an assessment and a cocktail",
        "My gay uncle sells rum, weed killer and fat screws",
        *(text for texts in (*SENTENCES.values(), *PARAGRAPHS.values()) for text in texts),
    ],
)
def test_ordinary_words_are_let_be(text: str) -> None:
    answer = moderate.moderate(text)
    assert answer == {"flagged": False, "categories": {"profanity": False}, "scores": {"profanity": 0.0}, "found": []}


@given(
    st.lists(st.sampled_from(["shit", "कमीना", "day", "...", " ", "f.u.c.k", "p.u.s.s.y."]) | st.text(max_size=5)).map(
        " ".join
    )
)
def test_the_score_is_a_share_and_finds_lie_apart(text: str) -> None:
    answer = moderate.moderate(text)
    assert 0 <= answer["scores"]["profanity"] <= 1
    assert answer["flagged"] == bool(answer["found"]) == (answer["scores"]["profanity"] > 0)
    at = 0
    for one in answer["found"]:
        assert at <= one["start"] < one["end"] <= len(text)
        at = one["end"]
