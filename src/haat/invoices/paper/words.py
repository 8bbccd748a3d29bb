"""Amounts in words, in 23 languages, counted in lakh and crore."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from indic_numtowords import num2words

from haat.invoices.paper.labels import Labels, labels_for
from haat.language import ENGLISH, Tag

CRORE, LAKH = 10**7, 10**5
MOST = 10**9
"""From here on (a hundred crore) the lists of most languages end, and English takes over."""

# The library's Kannada says 82 for 83 and nothing for what follows some hundreds, its Manipuri says 89 for 99, and its
# Sindhi is in Devanagari alone. Where a labels' file has `numbers`, they are those from 0 to 99.
_SINDHI, _KANNADA = Tag("sd", "Arab"), Tag("kn", "Knda")
_SINDHI_STEPS = ((CRORE, "ڪروڙ"), (LAKH, "لک"), (1000, "هزار"), (100, "سو"))
_KANNADA_HUNDREDS = ("ನೂರ", "ಇನ್ನೂರ", "ಮುನ್ನೂರ", "ನಾನೂರ", "ಐನೂರ", "ಆರುನೂರ", "ಏಳುನೂರ", "ಎಂಟುನೂರ", "ಒಂಬೈನೂರ")
_KANNADA_STEPS = ((CRORE, "ಕೋಟಿ", "ಕೋಟಿಯ"), (LAKH, "ಲಕ್ಷ", "ಲಕ್ಷದ"), (1000, "ಸಾವಿರ", "ಸಾವಿರದ"))
_MANIPURI_STEPS = ((CRORE, "ꯀ꯭ꯔꯣꯔ"), (LAKH, "ꯂꯥꯛ"), (1000, "ꯂꯤꯁꯤꯡ"))
_MANIPURI_99 = "ꯃꯧꯗ꯭ꯔꯥ ꯃꯥꯄꯟ"


def amount_in_words(amount: Decimal, labels: Labels) -> str:
    """Return an amount of rupees and whole paise, at least 0, in the language of its labels.

    From a hundred crore on the number is in English: no list goes further in every language.
    """
    rupees, paise = divmod(int(amount.scaleb(2)), 100)
    form = "both" if rupees and paise else "paise" if paise else "rupees"
    said = labels.money[form].format(
        rupees=number_in_words(rupees, labels.tag), paise=number_in_words(paise, labels.tag)
    )
    return said[:1].upper() + said[1:] if labels.tag.script == "Latn" else said


def number_in_words(number: int, tag: Tag) -> str:
    """Return a cardinal number, at least 0, in words."""
    if number >= MOST:
        crores, rest = divmod(number, CRORE)
        said = f"{number_in_words(crores, ENGLISH)} crore"
        return f"{said} {number_in_words(rest, ENGLISH)}" if rest else said
    own = _OWN.get(str(tag))
    return own(number) if own else " ".join(str(num2words(number, lang=tag.language)).split())


def _sindhi(number: int) -> str:
    for step, name in _SINDHI_STEPS:
        if number >= step:
            many, rest = divmod(number, step)
            return f"{_sindhi(many)} {name}" + (f" {_sindhi(rest)}" if rest else "")
    return labels_for(_SINDHI).numbers[number]


def _kannada(number: int) -> str:
    for step, alone, before in _KANNADA_STEPS:
        if number >= step:
            many, rest = divmod(number, step)
            return f"{_kannada(many)} {before} {_kannada(rest)}" if rest else f"{_kannada(many)} {alone}"
    if number >= 100:
        many, rest = divmod(number, 100)
        hundreds = _KANNADA_HUNDREDS[many - 1]
        return f"{hundreds} {_kannada(rest)}" if rest else f"{hundreds}\u0cc1"
    return labels_for(_KANNADA).numbers[number]


def _manipuri(number: int) -> str:
    for step, name in _MANIPURI_STEPS:
        if number >= step:
            many, rest = divmod(number, step)
            return f"{name} {_manipuri(many)}" + (f" ꯒ {_manipuri(rest)}" if rest else "")
    if number >= 100 and number % 100:
        return f"{_manipuri(number - number % 100)} ꯒ {_manipuri(number % 100)}"
    return _MANIPURI_99 if number == 99 else str(num2words(number, lang="mni"))


_OWN: dict[str, Callable[[int], str]] = {str(_KANNADA): _kannada, "mni-Mtei": _manipuri, str(_SINDHI): _sindhi}
