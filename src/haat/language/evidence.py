"""Letters and everyday words that tell apart the languages of one script.

Letters are those that the Unicode code charts give to one of our languages only; words are frequent function words
that the others of the script don't have. Both are few on purpose: a list that claims too much does harm.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import regex  # type: ignore[import-untyped]  # the package ships no types

Counts = dict[str, int]

_KASHMIRI_DEVANAGARI = regex.compile(r"[\u093a\u093b\u094f\u0956\u0957\u0973-\u0977]")
_SINDHI_DEVANAGARI = regex.compile(r"[\u097b\u097c\u097e\u097f]")
_KASHMIRI_ARABIC = regex.compile(r"[\u0620\u0655\u065a\u0672\u0673\u06c4]")
_SINDHI_ARABIC = regex.compile(
    r"[\u067a\u067b\u067d\u067f\u0680\u0683\u0684\u0687\u068c\u068d\u068f\u0699\u06aa\u06b1\u06b3\u06bb]"
)
_URDU_NOT_SINDHI = regex.compile(r"[\u0679\u0688\u0691\u06ba\u06d2]")


def _devanagari(text: str) -> Counts:
    return {"ks": len(_KASHMIRI_DEVANAGARI.findall(text)), "sd": len(_SINDHI_DEVANAGARI.findall(text))}


def _bengali(text: str) -> Counts:
    """Assamese writes ra as ৰ and has ৱ; Manipuri has ৱ, but the Bengali র; Bengali has neither ৰ nor ৱ."""
    assamese_ra, wa, ra = text.count("\u09f0"), text.count("\u09f1"), text.count("\u09b0")
    if assamese_ra:
        return {"as": assamese_ra + wa, "bn": ra}
    if wa:
        return {"mni": wa, "as": 0} if ra else {"mni": wa, "as": wa}
    return {}


def _arabic(text: str) -> Counts:
    """Kashmiri has most of Urdu's letters beside its own; Sindhi has others for the same sounds."""
    kashmiri, sindhi = len(_KASHMIRI_ARABIC.findall(text)), len(_SINDHI_ARABIC.findall(text))
    urdu = len(_URDU_NOT_SINDHI.findall(text)) if sindhi else 0
    return {"ks": kashmiri, "sd": sindhi, "ur": urdu}


# Count the letters that speak for a language, by language, in a text of the script.
TELLING_LETTERS: MappingProxyType[str, Callable[[str], Counts]] = MappingProxyType(
    {"Arab": _arabic, "Beng": _bengali, "Deva": _devanagari}
)

_WORDS = {
    "Arab": {
        "ur": "ہے ہیں میں کے کی نہیں اور سے یہ کیا گے تھا تھے",
    },
    "Beng": {
        "bn": "আমি আমার আমাদের আপনি আপনার এই একটি এবং হয় করে থেকে কত কী না ও তার জন্য",
        "mni": "অমসুং অমদি অদু অদুগা অদুবু অদুনা অসি অসী মখোয় ঐখোয় মহাক মহাক্না মহাক্কী নহাক ওইবা অমা অমনি হায়না হায়বা হায়খি লৈরি",
    },
    "Deva": {
        "brx": "आरो थाखाय गासै बे बेनि बेयो आं आंनि नों नोंनि जों जायो मोनसे सासे दं जाबाय",
        "doi": "ऐ गै नेईं कन्नै आस्तै थमां एह् ओह् इक्क किश मिगी बिच च गी दा दियां दियें निं अज्ज जेह्ड़ा जेह्ड़ी होरें",
        "hi": "है हैं हूँ था थी थे और में नहीं को से का की के ने यह वह क्या",
        "kok": "हांव म्हजें तुजें म्हाका तुका आमकां कितें खंय आसा आसात गोंय गोंयांत",
        "mai": "अछि छथि छथिन छलाह छलीह छी अहाँ अहाँक हमर रहैत होइत कतय केर",
        "mr": "आहे आहेत आणि नाही मी मला काय होते होता होती आपण तुमचे माझा माझी या",
        "ne": "छ छन् छु छौं हुन्छ गर्छ पर्छ भयो तपाईं तपाईंलाई धेरै मेरो हाम्रो",
        "sa": "अस्ति सन्ति अहं अहम् त्वं त्वम् मम तव कुत्र अद्य भवति गच्छामि गच्छसि गच्छति",
    },
    "Latn": {
        "en": "the and of is are was were with this that have has what which you your would not to in for my",
    },
}
TELLING_WORDS = MappingProxyType(
    {
        script: MappingProxyType({language: frozenset(words.split()) for language, words in languages.items()})
        for script, languages in _WORDS.items()
    }
)
# What a model knows better than a short list of words does: they speak against others, and for these without a model.
MODEL_KNOWS = frozenset({"bn", "en", "hi", "mr", "ur"})
