import pytest
import regex  # type: ignore[import-untyped]  # the package ships no types
from hypothesis import given
from hypothesis import strategies as st

from haat.cli.sentences import SENTENCES
from haat.kernel.errors import ValidationFailed
from haat.models.hosted import Item
from haat.providers.akshara.transliterate import LANGUAGES, SCRIPTS, invoke, service, transliterate


@pytest.mark.parametrize(
    ("source", "target", "text", "expected"),
    [
        ("Deva", "Gujr", "नमस्ते, बाज़ार में ऑफ़िस", "નમસ્તે, બાઝાર મેં ઑફિસ"),
        ("Deva", "Guru", "अच्छा लड़का दिल्ली में ऋषि", "ਅੱਛਾ ਲੜਕਾ ਦਿੱਲੀ ਮੇਂ ਰਿਸ਼ਿ"),
        ("Deva", "Orya", "दुनिया और यादव", "ଦୁନିୟା ଔର ଯାଦୱ"),
        ("Deva", "Telu", "डॉक्टर बड़ा है", "డాక్టర బడా హై"),
        ("Deva", "Knda", "नमस्ते दुनिया", "ನಮಸ್ತೇ ದುನಿಯಾ"),
        ("Deva", "Mlym", "नमस्ते दुनिया", "നമസ്തേ ദുനിയാ"),
        ("Guru", "Deva", "ਪੰਜਾਬ ਇੱਕ ਸੋਹਣਾ ਰਾਜ ਹੈ", "पंजाब इक्क सोहणा राज है"),
        ("Orya", "Deva", "ଓଡ଼ିଶା ରାଜ୍ୟ", "ओड़िशा राज्य"),
        ("Telu", "Deva", "తెలుగు ఒక భాష", "तेलुगु ओक भाष"),
        ("Knda", "Guru", "ಕನ್ನಡ", "ਕੰਨਡ"),
        ("Mlym", "Deva", "അവൻ കോഴിക്കോട്", "अवन् कोळिक्कोट्"),
        ("Telu", "Knda", "ఒక పేరు", "ಒಕ ಪೇರು"),
        ("Deva", "Latn", "नमस्ते दुनिया।", "namastē duniyā."),
        ("Mlym", "Latn", "ഒരു കേരളം", "oru kēraḷaṁ"),
        ("Latn", "Knda", "Kannaḍa bhāṣe", "ಕನ್ನಡ ಭಾಷೆ"),
        ("Deva", "Gujr", "Google पर १२ और 34", "Google પર ૧૨ ઔર 34"),
    ],
)
def test_letters_are_written_in_the_other_script(source: str, target: str, text: str, expected: str) -> None:
    assert transliterate(text, source, target) == expected


def test_itrans_is_what_people_type() -> None:
    assert transliterate("Apa kaise haiM? ThIka 5.", "Latn", "Deva", "itrans") == "आप कैसे हैं? ठीक 5."
    assert transliterate("बाज़ार में लड़का", "Deva", "Latn", "itrans") == "bAzAra meM la.DakA"


def test_itrans_is_refused_where_it_can_not_tell_vowels_apart() -> None:
    config = {"source": "te-Telu", "target": "te-Latn", "scheme": "itrans"}
    with pytest.raises(ValidationFailed) as refusal:
        invoke([Item(text="తెలుగు")], config)
    assert refusal.value.extensions["errors"][0]["field"] == "config.scheme"


@pytest.mark.parametrize("source", LANGUAGES)
@pytest.mark.parametrize("target", SCRIPTS)
def test_no_letter_of_a_sentence_stays_behind(source: str, target: str) -> None:
    script = source[-4:]
    if script == target:
        return
    for sentence in SENTENCES[source]:
        written = transliterate(sentence, script, target)
        letters = set(regex.findall(r"\p{L}", written))
        assert all(regex.match(rf"\p{{Script={target}}}", letter) for letter in letters), written


@pytest.mark.parametrize("tag", LANGUAGES)
def test_iso_15919_leads_back_to_where_it_came_from(tag: str) -> None:
    for sentence in SENTENCES[tag]:
        words = sentence.replace("।", ".")
        assert transliterate(transliterate(words, tag[-4:], "Latn"), "Latn", tag[-4:]) == words


@given(st.text(max_size=60), st.sampled_from([*SCRIPTS, "Latn"]), st.sampled_from([*SCRIPTS, "Latn"]))
def test_any_text_goes_through(text: str, source: str, target: str) -> None:
    if source != target:
        transliterate(text, source, target)
        transliterate(text, source, target, "itrans")


def test_pairs_go_from_each_script_to_each_other_and_to_latin_and_back() -> None:
    pairs = service().language_pairs
    assert len(pairs) == len(set(pairs)) == 70
    assert "hi-Deva>mr-Deva" not in pairs
    assert not any("bn" in pair or "ta-" in pair or "as-" in pair for pair in pairs)
