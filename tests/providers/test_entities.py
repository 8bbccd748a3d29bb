import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.cli.sentences import PARAGRAPHS, SENTENCES
from haat.models.hosted import Item
from haat.providers.akshara import entities


def found(text: str) -> list[tuple[str, str]]:
    return [(one["text"], one["label"]) for one in entities.recognise(text)["entities"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Call on 5 March 2024 or 5th of May", [("5 March 2024", "DATE"), ("5th of May", "DATE")]),
        ("Oct. 12, 2023 and 2024-01-05", [("Oct. 12, 2023", "DATE"), ("2024-01-05", "DATE")]),
        ("12/10/2024 is a day, 45/45/2024 is none", [("12/10/2024", "DATE")]),
        ("He may march on Monday.", [("Monday", "DATE")]),
        ("५ जनवरी २०२४ को सोमवार था", [("५ जनवरी २०२४", "DATE"), ("सोमवार", "DATE")]),
        ("at 5:30 pm, 17:05 or six o'clock", [("5:30 pm", "TIME"), ("17:05", "TIME"), ("six o'clock", "TIME")]),
        ("कल शाम साढ़े पाँच बजे", [("कल", "DATE"), ("शाम साढ़े पाँच बजे", "TIME")]),
        ("Rs. 1,23,456.50 and 3 crore rupees", [("Rs. 1,23,456.50", "MONEY"), ("3 crore rupees", "MONEY")]),
        ("₹2.5 लाख या ३० रुपये", [("₹2.5 लाख", "MONEY"), ("३० रुपये", "MONEY")]),
        ("5kg of rice, 20 km, 50% off", [("5kg", "QUANTITY"), ("20 km", "QUANTITY"), ("50%", "QUANTITY")]),
        ("१२ किलो आलू", [("१२ किलो", "QUANTITY")]),
        ("mail asha.rao+x@mail.example.in.", [("asha.rao+x@mail.example.in", "EMAIL")]),
        ("see https://haat.example/a?b=1, now", [("https://haat.example/a?b=1", "URL")]),
        ("+91 98765 43210 or 022-12345678", [("+91 98765 43210", "PHONE"), ("022-12345678", "PHONE")]),
        ("Dr. A. P. Rao met Smt. Sunita Devi", [("Dr. A. P. Rao", "PERSON"), ("Smt. Sunita Devi", "PERSON")]),
        ("श्रीमती सुनीता शर्मा ने श्री मोहन को बुलाया", [("श्रीमती सुनीता शर्मा", "PERSON"), ("श्री मोहन", "PERSON")]),
        ("From New Delhi to Goa", [("New Delhi", "LOCATION"), ("Goa", "LOCATION")]),
        ("छत्तीसगढ़ से उत्तर प्रदेश तक", [("छत्तीसगढ़", "LOCATION"), ("उत्तर प्रदेश", "LOCATION")]),
        ("छत्तीसग\u095d", [("छत्तीसग\u095d", "LOCATION")]),
        ("1234 people", [("1234", "NUMBER")]),
        ("My brother works at the post office.", []),
        ("श्री ने कहा", []),
        ("goa and delhi in small letters", []),
        ("version 1.2.3.4", []),
    ],
)
def test_entities_are_found_by_their_shape_and_by_lists(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text) == expected


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            ["Dr. ", "Asha ", "₹", "5", " kg", "श्री ", "दिल्ली", "2024-01-05", "@", "a.in", " बजे", "\n", "March "]
        ),
        st.sampled_from([*SENTENCES["en-Latn"], *SENTENCES["hi-Deva"], *PARAGRAPHS["hi-Deva"]]),
        st.text(max_size=8),
    ),
    max_size=12,
).map("".join)


@given(TEXTS)
def test_positions_are_those_of_the_text_and_tags_follow_entities(text: str) -> None:
    answer = entities.recognise(text)
    at = 0
    for entity in answer["entities"]:
        assert at <= entity["start"] < entity["end"] <= len(text)
        assert text[entity["start"] : entity["end"]] == entity["text"]
        at = entity["end"]
    at = 0
    rebuilt = []
    for token in answer["tokens"]:
        assert not text[at : token["start"]].strip()
        assert text[token["start"] : token["end"]] == token["token"]
        at = token["end"]
        if token["tag"].startswith("B-"):
            rebuilt.append([token["tag"][2:], token["start"], token["end"]])
        elif token["tag"].startswith("I-"):
            assert rebuilt[-1][0] == token["tag"][2:]
            rebuilt[-1][2] = token["end"]
    assert not text[at:].strip()
    assert rebuilt == [[one["label"], one["start"], one["end"]] for one in answer["entities"]]


def test_units_are_the_characters_of_all_texts() -> None:
    outputs, units = entities.invoke([Item(text="नमस्ते"), Item(text="Goa")], {})
    assert (len(outputs), units) == (2, {"characters": 9})
