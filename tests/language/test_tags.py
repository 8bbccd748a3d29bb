import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.language import LANGUAGES, SCRIPTS, Tag, parse_tag


def test_the_eighth_schedule_and_english_are_there() -> None:
    assert len(LANGUAGES) == 23
    assert all(script in SCRIPTS for language in LANGUAGES.values() for script in language.scripts)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("hi", "hi-Deva"),
        ("HI_deva", "hi-Deva"),
        ("hi-IN", "hi-Deva"),
        ("hi-Latn-IN", "hi-Latn"),
        ("en", "en-Latn"),
        ("sd-deva", "sd-Deva"),
        (" mni-Beng ", "mni-Beng"),
    ],
)
def test_a_tag_is_completed_to_language_and_script(written: str, canonical: str) -> None:
    assert str(parse_tag(written)) == canonical


@pytest.mark.parametrize("written", ["", "xx", "hi-Taml", "hi-Deva-Deva", "hi-Deva-x-y", "hi--", "हिन्दी", "english"])
def test_what_is_no_tag_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="not"):
        parse_tag(written)


@given(st.text(max_size=12))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        tag = parse_tag(text)
    except ValueError:
        return
    assert parse_tag(str(tag)) == tag


@pytest.mark.parametrize(
    ("tag", "direction"), [("ur", "rtl"), ("sd-Arab", "rtl"), ("sd-Deva", "ltr"), ("ks-Deva", "ltr"), ("hi", "ltr")]
)
def test_direction_follows_the_script(tag: str, direction: str) -> None:
    assert parse_tag(tag).direction == direction


def test_an_unusual_script_is_part_of_the_name() -> None:
    assert Tag("sd", "Deva").name == "Sindhi (Devanagari)"
    assert Tag("sd", "Arab").name == "Sindhi"


@pytest.mark.parametrize(
    ("tag", "own"),
    [
        ("hi", "हिन्दी"),
        ("ks", "کٲشُر"),
        ("ks-Deva", "कॉशुर"),
        ("sd-Deva", "सिन्धी"),
        ("mni", "ꯃꯩꯇꯩꯂꯣꯟ"),
        ("mni-Beng", "মৈতৈলোন্"),
        ("ta-Latn", "Tamil"),
    ],
)
def test_a_language_is_named_in_the_script_it_is_written_in(tag: str, own: str) -> None:
    assert parse_tag(tag).own_name == own
