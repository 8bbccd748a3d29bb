"""Letters of one script written in another, over indic-transliteration's tables.

Everything passes through Devanagari, so that what a script lacks is settled in one place: a short e
becomes a long one where there is no short one, a nukta is dropped where there is none. Then come the
target's own habits (Gurmukhi's tippi and addak, Odia's y and w). Letters without any counterpart,
Latin words, ASCII digits and punctuation stay as they are.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import permutations
from typing import Any

import regex  # type: ignore[import-untyped]  # the package ships no types

from haat.kernel.errors import ValidationFailed
from haat.language import normalise
from haat.models.hosted import HostedService, Item, Option, Output, Units
from haat.providers.companies import AKSHARA

SCRIPTS = {
    "Deva": "devanagari",
    "Gujr": "gujarati",
    "Guru": "gurmukhi",
    "Orya": "oriya",
    "Telu": "telugu",
    "Knda": "kannada",
    "Mlym": "malayalam",
}
LANGUAGES = ("hi-Deva", "mr-Deva", "gu-Gujr", "pa-Guru", "or-Orya", "te-Telu", "kn-Knda", "ml-Mlym")
DRAVIDIAN = ("Telu", "Knda", "Mlym")
_ZERO = {"Deva": 0x966, "Guru": 0xA66, "Gujr": 0xAE6, "Orya": 0xB66, "Telu": 0xC66, "Knda": 0xCE6, "Mlym": 0xD66}

# Consonants with nukta that Unicode never composes (they are composition exclusions): the tables
# know only the composed letters.
_NUKTA = {
    unicodedata.normalize("NFD", chr(code)): chr(code)
    for code in (*range(0x958, 0x960), 0xA33, 0xA36, 0xA59, 0xA5A, 0xA5B, 0xA5E, 0xB5C, 0xB5D)
}

_TO_DEVANAGARI_FIRST: dict[str, dict[str, str]] = {
    "Orya": {"ୟ": "ଯ", "ୱ": "ଵ"},
    "Telu": {"ౘ": "చ", "ౙ": "జ"},
    "Mlym": {"ൺ": "ണ്", "ൻ": "ന്", "ർ": "ര്", "ൽ": "ല്", "ൾ": "ള്", "ൿ": "ക്", "ൎ": "ര്", "ൗ": "ൌ", "ഩ": "ന"},
}
_TO_DEVANAGARI_LAST: dict[str, dict[str, str]] = {"Gujr": {"ઍ": "ऍ", "ઑ": "ऑ", "ૉ": "ॉ"}}

_LONG = {"ऎ": "ए", "ॆ": "े", "ऒ": "ओ", "ॊ": "ो"}
_RARE = {"ऱ": "र", "ऩ": "न", "ऴ": "ळ", "ॲ": "ऍ"}
_NO_NUKTA = {letter: split[0] for split, letter in _NUKTA.items() if letter < "\u0980"} | {"़": ""}
_SOUTHERN = {"ऑ": "आ", "ॉ": "ा", "ऍ": "या", "ॅ": "्या", "ँ": "ं"}
_FROM_DEVANAGARI_FIRST: dict[str, dict[str, str]] = {
    "Deva": _LONG | _RARE,
    "Gujr": _LONG | _RARE | {"ँ": "ं"} | _NO_NUKTA | {"\u095b": "झ"},
    "Guru": _LONG
    | _RARE
    | {"ज्ञ": "ग्य", "ष": "श", "ऋ": "रि", "ॠ": "री", "ृ": "्रि", "ॄ": "्री", "ऽ": "", "ँ": "ं"}
    | {"ऑ": "आ", "ॉ": "ा", "ऍ": "ऐ", "ॅ": "ै", "\u095d": "ड़्ह"},
    "Orya": _LONG | _RARE | {"ऑ": "आ", "ॉ": "ा", "ऍ": "ए", "ॅ": "े"},
    "Telu": _NO_NUKTA | _SOUTHERN | {"ऴ": "ळ", "ऩ": "न", "ॲ": "या"},
    "Knda": _SOUTHERN | _NO_NUKTA | {"ऴ": "ळ", "ऩ": "न", "ऱ": "र", "ॲ": "या"},
    "Mlym": _NO_NUKTA | _SOUTHERN | {"ॲ": "या", "ऩ": "न"},
    "iso": {"ॲ": "ऍ"},
    "itrans": {"ॲ": "ए", "ऍ": "ए", "ॅ": "े", "ऑ": "आ", "ॉ": "ा"},
}
_FROM_DEVANAGARI_LAST: dict[str, dict[str, str]] = {
    "Gujr": {"ऍ": "ઍ", "ऑ": "ઑ", "ॉ": "ૉ"},
    "Orya": {"ଵ": "ୱ"},
}

_GURMUKHI = (
    (regex.compile(r"([ਨਮ])੍\1"), r"ੰ\1"),
    (regex.compile(r"(?<!੍)([ਕ-ਧਪ-ਭਲ-ਸ਼])੍\1"), r"ੱ\1"),  # a doubled consonant is written once, under an addak
    (regex.compile(r"ਕ੍ਖ"), "ੱਖ"),
    (regex.compile(r"ਚ੍ਛ"), "ੱਛ"),
    (regex.compile(r"ਟ੍ਠ"), "ੱਠ"),
    (regex.compile(r"ਤ੍ਥ"), "ੱਥ"),
    (regex.compile(r"ਦ੍ਧ"), "ੱਧ"),
    (regex.compile(r"੍(?![ਰਹਵਯ])"), ""),  # only these four are written below another letter
    (regex.compile(r"(?<=[ਅਇਕ-ਹਖ਼ਗ਼ਜ਼ੜਫ਼ਿੁੂ])ਂ"), "ੰ"),
)
_ODIA_Y = regex.compile(r"(?<=[\p{L}\p{M}])(?<!ର୍)ଯ")

_INDIC_WORD = {code: regex.compile(rf"(?:\p{{Script={code}}}|[\u200c\u200d])+") for code in SCRIPTS}
_LATIN_WORD = {
    "iso": regex.compile(r"[\p{Script=Latin}\p{M}]+"),
    "itrans": regex.compile(r"[A-Za-z~^]+(?:\.(?=[A-Za-z])[A-Za-z~^]+)*"),
}
_DANDA = str.maketrans({"।": ".", "॥": "."})
_JOINERS = str.maketrans("", "", "\u200c\u200d")


def _pairs() -> tuple[str, ...]:
    between = [f"{a}>{b}" for a, b in permutations(LANGUAGES, 2) if a[-4:] != b[-4:]]
    latin = [tag[:-4] + "Latn" for tag in LANGUAGES]
    return (
        *between,
        *(f"{tag}>{roman}" for tag, roman in zip(LANGUAGES, latin, strict=True)),
        *(f"{roman}>{tag}" for tag, roman in zip(LANGUAGES, latin, strict=True)),
    )


def transliterate(text: str, source: str, target: str, scheme: str = "iso") -> str:
    """Return ``text`` rewritten from one script to another (ISO 15924 codes).

    ``scheme`` says how Latin letters are read or written: ``iso`` (ISO 15919) or ``itrans``.
    """
    text = normalise(text)
    if source == "Latn":
        return normalise(_LATIN_WORD[scheme].sub(lambda word: _from_latin(word[0], scheme, target), text))
    text = _INDIC_WORD[source].sub(lambda word: _from_indic(word[0], source, target, scheme), text)
    if target == "Latn":
        text = text.translate(_DANDA)
    return normalise(text)


@lru_cache(maxsize=20_000)  # language repeats itself: most words of a text have been seen before
def _from_indic(word: str, source: str, target: str, scheme: str) -> str:
    zero = 0x30 if target == "Latn" else _ZERO[target]
    word = word.translate(_JOINERS)
    word = word.translate({_ZERO[source] + digit: zero + digit for digit in range(10)})
    return _from_devanagari(_to_devanagari(word, source), target, scheme)


@lru_cache(maxsize=20_000)
def _from_latin(word: str, scheme: str, target: str) -> str:
    from indic_transliteration import sanscript  # type: ignore[import-untyped]  # no types

    if scheme == "iso":
        word = word.lower()  # ISO 15919 knows no capitals; in ITRANS they are other letters
    return _from_devanagari(sanscript.transliterate(word, scheme, "devanagari"), target, scheme)


def _to_devanagari(word: str, source: str) -> str:
    from indic_transliteration import sanscript

    word = _replace(_replace(word, _NUKTA), _TO_DEVANAGARI_FIRST.get(source, {}))
    if source != "Deva":
        word = sanscript.transliterate(word, SCRIPTS[source], "devanagari")
    return _replace(_replace(word, _TO_DEVANAGARI_LAST.get(source, {})), _NUKTA)


def _from_devanagari(word: str, target: str, scheme: str) -> str:
    from indic_transliteration import sanscript

    word = _replace(_replace(word, _NUKTA), _FROM_DEVANAGARI_FIRST[scheme if target == "Latn" else target])
    if target != "Deva":
        # The tables hold ढ़ in two letters, the other nukta consonants in one.
        word = word.replace("\u095d", "\u0922\u093c")
        word = sanscript.transliterate(word, "devanagari", SCRIPTS.get(target, scheme))
    word = _replace(word, _FROM_DEVANAGARI_LAST.get(target, {}))
    if target == "Guru":
        for pattern, replacement in _GURMUKHI:
            word = pattern.sub(replacement, word)
    elif target == "Orya":
        word = _ODIA_Y.sub("ୟ", word)
    return word


def _replace(text: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        text = text.replace(old, new)
    return text


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return ``{"text"}`` an item; units are the characters (code points) of the input."""
    source, target, scheme = config["source"][-4:], config["target"][-4:], config["scheme"]
    if scheme == "itrans" and "Latn" in (source, target) and (source in DRAVIDIAN or target in DRAVIDIAN):
        message = "ITRANS does not tell short e and o from long ones; use `iso` for this language"
        raise ValidationFailed(errors=[{"field": "config.scheme", "message": message}])
    outputs: list[Output] = [{"text": transliterate(item.text, source, target, scheme)} for item in items]
    return outputs, {"characters": Decimal(sum(len(item.text) for item in items))}


def service() -> HostedService:
    return HostedService(
        company=AKSHARA,
        slug="transliterate",
        name="Transliterate",
        summary="Writes the letters of one Indian script in another, or in Latin letters and back.",
        description="Eight languages in seven scripts, each into every other and to and from Latin letters by "
        "ISO 15919 (or ITRANS for Hindi, Marathi, Gujarati, Punjabi and Odia). Letter by letter: the words are not "
        "translated, and a silent a is written. Letters a script lacks become the nearest one it has.",
        category="transliteration",
        unit="characters",
        kind="text",
        language_pairs=_pairs(),
        options=(
            Option("scheme", "choice", "How Latin letters are read or written.", "iso", choices=("iso", "itrans")),
        ),
        sample={
            "input": [{"text": "नमस्ते दुनिया"}],
            "config": {"source": "hi-Deva", "target": "te-Telu"},
        },
        unit_price=Decimal("0.0004"),
        free_units=1_000,
        typical_latency_ms=2,
        runtime="inline",
        license_note="Engine: indic-transliteration (MIT).",
        invoke=invoke,
    )
