"""Numbers, money, shares and dates as a language writes them, by CLDR's data (through Babel) for India.

Where CLDR's data for a language in India groups by thousands, the digits are grouped by lakh and crore all the
same, as ``en-IN`` and ``hi-IN`` have it: one page must not write one amount in two ways. Everything else (symbols,
signs, order, names) is CLDR's. A tag for which CLDR has no data at all, or no names of months, takes the data of
the next one in its `fallback_chain`.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from haat.language.fallback import fallback_chain
from haat.language.tags import LANGUAGES, Tag

if TYPE_CHECKING:
    from babel import Locale

Digits = Literal["latn", "native"]
DateLength = Literal["medium", "long", "full"]

# Zero of each script's own digits; the other nine follow it (Unicode, general category Nd).
_ZEROS = {
    "Arab": "\u06f0",
    "Beng": "\u09e6",
    "Deva": "\u0966",
    "Gujr": "\u0ae6",
    "Guru": "\u0a66",
    "Knda": "\u0ce6",
    "Latn": "0",
    "Mlym": "\u0d66",
    "Mtei": "\uabf0",
    "Olck": "\u1c50",
    "Orya": "\u0b66",
    "Taml": "\u0be6",
    "Telu": "\u0c66",
}
_SINDHI_ZERO = "\u0660"  # CLDR: Sindhi counts with Arabic digits, Urdu and Kashmiri with the eastern forms
_SYMBOLS = {"\u06f0": "arabext", "\u0660": "arab"}  # systems with a decimal and a grouping sign of their own
_GROUPED = re.compile(r"#[#,]*0")
_BY_LAKH = "#,##,##0"


def format_number(value: Decimal | int | float, tag: Tag, digits: Digits = "latn") -> str:
    """Return a number with at most three decimals, rounded half to even: ``12,34,567.5``, ``१२,३४,५६७.५``."""
    from babel.numbers import format_decimal

    locale = number_locale(tag)
    pattern = _grouped_by_lakh(locale.decimal_formats[None].pattern)
    written = format_decimal(value, pattern, locale, numbering_system=_system(tag, digits))
    return _in_digits(written, tag, digits)


def format_currency(
    amount: Decimal, tag: Tag, currency: str = "INR", digits: Digits = "latn", decimals: int | None = None
) -> str:
    """Return an amount of money with its sign and its usual decimals, or with ``decimals``: ``₹12,34,567.50``.

    ``currency`` is an ISO 4217 code; one that CLDR doesn't know stands for itself.
    """
    from babel.numbers import format_currency as babel_format_currency
    from babel.numbers import get_currency_symbol

    locale = number_locale(tag)
    pattern = _grouped_by_lakh(locale.currency_formats["standard"].pattern)
    if get_currency_symbol(currency, locale)[-1:].isalpha():
        pattern = pattern.replace("¤#", "¤\xa0#")  # CLDR's currencySpacing, which Babel leaves out
    if decimals is not None:
        pattern = pattern.replace("0.00", f"0.{'0' * decimals}" if decimals else "0")
    written = babel_format_currency(
        amount, currency, pattern, locale, currency_digits=decimals is None, numbering_system=_system(tag, digits)
    )
    return _in_digits(written, tag, digits)


def format_percent(share: Decimal | float, tag: Tag, digits: Digits = "latn") -> str:
    """Return a share of 0..1 in whole per cent, rounded half to even: ``12%`` for 0.125."""
    from babel.numbers import format_percent as babel_format_percent

    locale = number_locale(tag)
    pattern = _grouped_by_lakh(locale.percent_formats[None].pattern)
    written = babel_format_percent(share, pattern, locale, numbering_system=_system(tag, digits))
    return _in_digits(written, tag, digits)


def format_date(on: date, tag: Tag, length: DateLength = "medium", digits: Digits = "latn") -> str:
    """Return a day of the Gregorian calendar: ``21 नव॰ 2026``; ``full`` names the day of the week.

    There is no short form: CLDR puts the day first in most of our languages and the month first in Odia, Kashmiri
    and Sindhi, so that 3/2/26 could be read both ways.
    """
    from babel.dates import format_date as babel_format_date

    return _in_digits(babel_format_date(on, length, date_locale(tag)), tag, digits)


@lru_cache(maxsize=128)
def number_locale(tag: Tag) -> Locale:
    """Return the CLDR locale that gives a tag its number formats."""
    return next(locale for locale in map(_locale, fallback_chain(tag)) if locale is not None)


@lru_cache(maxsize=128)
def date_locale(tag: Tag) -> Locale:
    """Return the CLDR locale that gives a tag its date formats: the first of its chain with names of months."""
    return next(
        locale
        for locale in map(_locale, fallback_chain(tag))
        if locale is not None and not locale.months["format"]["wide"][1].startswith("M0")  # CLDR's root has M01 to M12
    )


def _locale(tag: Tag) -> Locale | None:
    """Return CLDR's locale of exactly this language and script, for India where it has one.

    Babel is imported at the first use: the gateway imports this package and writes no numbers.
    """
    from babel import Locale, localedata

    script = tag.script
    names = [f"{tag.language}_{script}_IN", f"{tag.language}_{script}"]
    if script == LANGUAGES[tag.language].scripts[0]:
        names[1:1] = [f"{tag.language}_IN"]
    # Babel would guess at likely subtags, and answer `as-Latn` with Bengali letters.
    found = next((name for name in names if localedata.exists(name)), None)
    return None if found is None else Locale.parse(found, resolve_likely_subtags=False)


def _grouped_by_lakh(pattern: str) -> str:
    return _GROUPED.sub(_BY_LAKH, pattern)


def _system(tag: Tag, digits: Digits) -> str:
    return "latn" if digits == "latn" else _SYMBOLS.get(_zero(tag), "latn")


def _zero(tag: Tag) -> str:
    return _SINDHI_ZERO if (tag.language, tag.script) == ("sd", "Arab") else _ZEROS[tag.script]


def _in_digits(written: str, tag: Tag, digits: Digits) -> str:
    if digits == "latn":
        return written
    zero = ord(_zero(tag))
    return written.translate({ord("0") + value: zero + value for value in range(10)})
