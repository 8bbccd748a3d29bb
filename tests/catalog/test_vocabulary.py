"""Words in the process: completed in the order of use, corrected, and found across scripts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haat.catalog.vocabulary import Entry, Vocabulary, nearest, suggestions

WORDS = Vocabulary(
    (word, Entry(popularity, listings, f"bhasha/{word}"))
    for word, popularity, listings in [
        ("translation", 40, 900),
        ("translate", 40, 900),
        ("transliteration", 12, 950),
        ("transport", 0, 3),
        ("tamil", 20, 300),
        ("अनुवाद", 40, 900),
        ("दिल्ली", 4, 12),
        ("दिल", 0, 1),
        ("delhi", 4, 12),
        ("اردو", 8, 100),
    ]
)


def complete(prefix: str, limit: int = 20) -> list[str]:
    return [one.text for one in suggestions([WORDS], prefix, limit)]


def test_completions_come_in_the_order_of_use_then_of_listings_then_the_shorter_first() -> None:
    assert complete("trans") == ["translate", "translation", "transliteration", "transport"]
    assert complete("trans", 2) == ["translate", "translation"]


def test_completions_begin_with_what_was_typed_in_its_own_script() -> None:
    assert complete("दि") == ["दिल्ली", "दिल"]
    assert complete("ار") == ["اردو"]
    assert complete("zz") == []


def test_several_vocabularies_complete_as_one() -> None:
    own = Vocabulary([("transport", Entry(50, 1, "own/transport")), ("tram", Entry(0, 1, "own/tram"))])
    found = suggestions([WORDS, own], "tra", 3)
    assert [one.text for one in found] == ["transport", "translate", "translation"]
    assert found[0].path == "bhasha/transport"


def test_a_misspelt_word_is_replaced_by_the_nearest() -> None:
    meant = {"translaton": "translation", "tramil": "tamil", "दिली": "दिल्ली", "ardo": None, "اردہ": "اردو", "x": None}
    assert {word: nearest([WORDS], word) for word in meant} == meant


def test_a_word_of_another_script_is_found_by_its_sound() -> None:
    assert nearest([WORDS], "anuvaad") == "अनुवाद"
    assert WORDS.alike("anuvad") == ["अनुवाद"]
    assert WORDS.alike("அனுவாத") == []
    assert WORDS.alike("अनुवाद") == [], "of the same script"
    assert WORDS.alike("dil") == [], "too short to mean one word"


def test_of_two_words_as_near_the_one_of_more_listings_is_meant() -> None:
    words = Vocabulary([("mandi", Entry(0, 2, "")), ("mande", Entry(0, 9, ""))])
    assert nearest([words], "mando") == "mande"


def test_a_word_that_no_listing_holds_any_more_is_forgotten() -> None:
    words = Vocabulary([("mandi", Entry(0, 1, "")), ("mandap", Entry(0, 1, ""))])
    assert [word for word, _ in words.completions("man")] == ["mandi", "mandap"]
    words.put([("mandi", Entry(0, 0, ""))])
    assert [word for word, _ in words.completions("man")] == ["mandap"]
    assert not words.begins("mandi") and nearest([words], "mandi") is None and len(words) == 1


@given(st.lists(st.tuples(st.text("abc", min_size=1, max_size=4), st.integers(0, 3)), max_size=40), st.text("abc"))
def test_it_knows_what_a_list_of_words_knows(changes: list[tuple[str, int]], prefix: str) -> None:
    words = Vocabulary()
    for word, listings in changes:
        words.put([(word, Entry(0, listings, ""))])
    held = {word: listings for word, listings in dict(changes).items() if listings}
    wanted = sorted((-held[word], len(word), word) for word in held if word.startswith(prefix))[:20]
    assert [word for word, _ in words.completions(prefix)] == [word for *_, word in wanted]
    assert words.begins(prefix) == (prefix in held if len(prefix) < 2 else any(w.startswith(prefix) for w in held))
