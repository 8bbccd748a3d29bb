"""The most telling sentences of a text, chosen by sumy; sentences and words are found by ourselves.

sumy's own tokeniser would download data from the network and does not know the danda.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from haat.language import normalise, search_words, sentences
from haat.models.hosted import HostedService, Item, Option, Output, Units
from haat.providers.companies import AKSHARA

_ENGLISH = """
    a an and are as at be been but by can did do does for from had has have he her his i if in into is it its
    more my no not of on or our she so than that the their them then there these they this to was we were what
    when which who will with would you your
    """
_HINDI = """
    अपना अपनी अपने अब आप इन इस इसका इसकी इसके इसे उन उनका उनकी उनके उस उसका उसकी उसके उसे एक ऐसा ऐसे और कई कर
    करता करती करते करना करने का कि किया की कुछ के को कोई गई गए गया जब जाता जाती जाते जाना जो तक तब तो था थी थे
    दिया दो न नहीं ने पर फिर बहुत भी मगर मैं में यह यहाँ या ये रहा रही रहे लिए लेकिन व वह वहाँ वाला वाली वाले
    वे से हम ही हुआ हुई हुए हूँ है हैं हो होता होती होते होना
    """
_STOP_WORDS = {"en": frozenset(_ENGLISH.split()), "hi": frozenset(_HINDI.split())}


class _Tokenizer:
    """What sumy asks of a tokeniser."""

    def to_sentences(self, text: str) -> tuple[str, ...]:
        return tuple(sentences(normalise(text)))

    def to_words(self, text: str) -> tuple[str, ...]:
        return tuple(search_words(text))


def summarise(text: str, language: str, count: int, method: str) -> list[str]:
    """Return at most ``count`` sentences in the order of the text; ``method`` is ``luhn`` or ``reduction``."""
    from sumy.models.dom import ObjectDocumentModel, Paragraph, Sentence  # type: ignore[import-untyped]  # no types
    from sumy.summarizers.luhn import LuhnSummarizer  # type: ignore[import-untyped]  # no types
    from sumy.summarizers.reduction import ReductionSummarizer  # type: ignore[import-untyped]  # no types

    tokenizer = _Tokenizer()
    document = ObjectDocumentModel([Paragraph([Sentence(one, tokenizer) for one in sentences(normalise(text))])])
    summarizer = LuhnSummarizer() if method == "luhn" else ReductionSummarizer()
    summarizer.stop_words = _STOP_WORDS[language]
    return [str(sentence) for sentence in summarizer(document, count)]


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return ``{"text", "sentences"}`` an item; units are the characters of the input."""
    language = config["language"].partition("-")[0]
    outputs: list[Output] = []
    for item in items:
        chosen = summarise(item.text, language, config["sentences"], config["method"])
        outputs.append({"text": " ".join(chosen), "sentences": chosen})
    return outputs, {"characters": Decimal(sum(len(item.text) for item in items))}


def service() -> HostedService:
    return HostedService(
        company=AKSHARA,
        slug="summarise",
        name="Summarise",
        summary="Picks the sentences that say most of an English or Hindi text.",
        description="Extractive: it chooses sentences and writes none. Luhn's method looks for clusters of frequent "
        "words, reduction for sentences that share most with all the others. Three sentences or more give it "
        "something to choose from.",
        category="nlp",
        unit="characters",
        kind="text",
        languages=("en-Latn", "hi-Deva"),
        options=(
            Option("sentences", "integer", "Most sentences of the summary.", 2, least=1, most=20),
            Option("method", "choice", "How sentences are rated.", "luhn", choices=("luhn", "reduction")),
        ),
        sample={
            "input": [
                {
                    "text": "The weekly market opens at six in the morning. Farmers bring vegetables and fruit to the "
                    "market from twenty villages. Some people come only for tea. By noon most vegetables are sold, "
                    "and the farmers return to their villages with cloth, seeds and tools."
                }
            ],
            "config": {"language": "en", "sentences": 2},
        },
        unit_price=Decimal("0.0008"),
        free_units=500,
        max_inputs=20,
        max_characters=20_000,
        typical_latency_ms=10,
        timeout_seconds=20,
        runtime="process",
        license_note="Engine: sumy (Apache-2.0).",
        invoke=invoke,
    )
