"""How numbers, money, times and languages are written on a page: always with unit and window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_datetime
from babel.numbers import format_currency, format_decimal
from markupsafe import Markup, escape

from haat.catalog.model import Listing, Version
from haat.language import ENGLISH, LANGUAGES, parse_tag
from haat.language import formats as language_formats
from haat.subscriptions.model import Terms

LOCALE = Locale("en", "IN")
NO_BREAK = "\N{NO-BREAK SPACE}"
NARROW_NO_BREAK = "\N{NARROW NO-BREAK SPACE}"

CATEGORIES = {
    "translation": "Translation",
    "transliteration": "Transliteration",
    "speech_to_text": "Speech to text",
    "text_to_speech": "Text to speech",
    "ocr": "Reading images",
    "nlp": "Text analysis",
    "llm": "Language model",
    "embedding": "Embedding",
    "custom": "Other",
}

# One of a unit, many of it, and the amount its price is quoted for so that stalls can be compared.
_UNITS = {
    "calls": ("call", "calls", 1),
    "requests": ("request", "requests", 1),
    "characters": ("character", "characters", 1000),
    "graphemes": ("grapheme", "graphemes", 1000),
    "tokens": ("token", "tokens", 1000),
    "audio_seconds": ("second of audio", "seconds of audio", 60),
    "pages": ("page", "pages", 1),
    "images": ("image", "images", 1),
    "bytes": ("byte", "bytes", 1_000_000),
    "compute_seconds": ("second of computing", "seconds of computing", 1),
    "input_tokens": ("input token", "input tokens", 1000),
    "output_tokens": ("output token", "output tokens", 1000),
    "cached_tokens": ("cached token", "cached tokens", 1000),
    "cache_write_tokens": ("token written to a cache", "tokens written to a cache", 1000),
    "reasoning_tokens": ("reasoning token", "reasoning tokens", 1000),
    "input_audio_tokens": ("audio token heard", "audio tokens heard", 1000),
    "output_audio_tokens": ("audio token spoken", "audio tokens spoken", 1000),
    "end_users": ("user", "users", 1),
    "applications": ("application", "applications", 1),
    "language_pairs": ("language pair", "language pairs", 1),
    "months": ("month", "months", 1),
}
_QUOTED = {"audio_seconds": "minute of audio", "bytes": "MB"}

OUTCOMES = {
    "completed": "completed",
    "client_left": "caller left",
    "provider_failed": "provider failed",
    "refused": "refused",
    "interrupted": "interrupted",
    "unconfirmed": "unconfirmed",
}


_SPANS = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


def money(amount: Decimal) -> str:
    """Write rupees to the paisa with Indian grouping: ₹1,00,000.00."""
    return language_formats.format_currency(amount, ENGLISH)


def exact_money(amount: Decimal) -> str:
    """Write rupees with every decimal that counts, two at least: prices are never rounded on a page."""
    decimals = max(2, -int(amount.normalize().as_tuple().exponent))
    return format_currency(amount, "INR", f"¤#,##,##0.{'0' * decimals}", locale=LOCALE, currency_digits=False)


def price_amount(unit_price: Decimal, unit: str) -> str:
    """Write the price of the quoted amount of a unit: ₹0.20 for 0.0002 a character."""
    return "Free" if unit_price == 0 else exact_money(unit_price * _UNITS.get(unit, (unit, unit, 1))[2])


def price_words(component: Mapping[str, Any]) -> str:
    """Write what a component of a rate card asks for: "₹499.00 a month", "₹0.20 per 1,000 characters"."""
    model = component["model"]
    if model == "flat":
        return f"{exact_money(Decimal(component['amount']))} a month{'' if component['prorated'] else ', in full'}"
    meter = component["meter"]

    def each(price: str) -> str:
        return f"{price_amount(Decimal(price), meter)} {price_measure(meter)}"

    free = Decimal(component.get("included", component.get("free_units", "0")))
    words = f"{units(free, meter)} {'included' if model == 'overage' else 'free'}, then " if free else ""
    if model == "package":
        price = exact_money(Decimal(component["package_price"]))
        return f"{words}{price} per package of {units(Decimal(component['package_size']), meter)}"
    if model not in ("graduated", "volume"):
        return words + each(component["unit_price"])
    tiers = []
    for tier in component["tiers"]:
        flat = Decimal(tier["flat"])
        price = "" if flat and not Decimal(tier["unit_price"]) else each(tier["unit_price"])
        asked = " and ".join(filter(None, (price, f"{exact_money(flat)} once" if flat else "")))
        tiers.append(asked if tier["up_to"] is None else f"{asked} up to {number(Decimal(tier['up_to']))}")
    last = tiers.pop()
    beyond = f"; {last} beyond" if tiers else last
    return f"{words}{'all at ' if model == 'volume' else ''}{'; '.join(tiers)}{beyond}"


def price_measure(unit: str) -> str:
    """Write what a quoted price buys: "per 1,000 characters"."""
    one, many, quoted = _UNITS.get(unit, (unit, unit, 1))
    if unit in _QUOTED:
        return f"per {_QUOTED[unit]}"
    return f"per {one}" if quoted == 1 else f"per {number(quoted)}{NO_BREAK}{many}"


def number(value: Decimal | int | float) -> str:
    """Write a number with Indian grouping and at most three decimals."""
    return language_formats.format_number(value, ENGLISH)


def plain(value: Decimal) -> str:
    """Write a number as a field of a form takes it: 99.500 as 99.5, without grouping."""
    return f"{value.normalize():f}"


def units(value: Decimal | int, unit: str) -> str:
    """Write an amount with its unit: "12,450 characters"."""
    one, many, _ = _UNITS.get(unit, (unit, unit, 1))
    return f"{number(value)}{NO_BREAK}{one if value == 1 else many}"


def unit_name(unit: str) -> str:
    """Write a unit's name in the plural."""
    return _UNITS.get(unit, (unit, unit, 1))[1]


def plan_rates(plan: Terms) -> str:
    """Write how fast a plan lets one call: "60 a minute, 10 of them at once"."""
    named = ((plan.per_minute, "minute"), (plan.per_hour, "hour"), (plan.per_day, "day"))
    rates = [f"{number(limit)} {'an' if span == 'hour' else 'a'} {span}" for limit, span in named if limit is not None]
    if plan.burst is not None:
        rates.append(f"{number(plan.burst)} of them at once")
    return ", ".join(rates) or "no rate limit"


def plan_quota(plan: Terms) -> str:
    """Write how much a plan lets one call: "1,000 requests a month, more at a price"."""
    named = ((plan.quota_per_month, "month"), (plan.quota_per_day, "day"))
    quotas = [f"{units(limit, plan.quota_unit)} a {span}" for limit, span in named if limit is not None]
    if plan.overage:
        quotas.append("more at a price")
    return ", ".join(quotas) or "no quota"


def milliseconds(value: Decimal | float | int) -> str:
    """Write a duration in ms, or in s from ten seconds on; one decimal below ten."""
    if value >= 10_000:
        return f"{number(round(float(value) / 1000, 1))}{NO_BREAK}s"
    return f"{number(round(float(value), 1) if value < 10 else round(value))}{NO_BREAK}ms"


def duration(seconds: int) -> str:
    """Write a time in the largest unit that leaves no rest: 90 seconds, 2 hours."""
    unit, count = next((unit, seconds // of) for unit, of in _SPANS if seconds % of == 0)
    return f"{number(count)}{NO_BREAK}{unit}" + ("" if count == 1 else "s")


def microseconds(value: int) -> str:
    """Write a duration given in µs as milliseconds with two decimals."""
    return f"{format_decimal(Decimal(value) / 1000, '0.00', locale=LOCALE)}{NO_BREAK}ms"


def percent(share: Decimal | float, decimals: int = 2) -> str:
    """Write a share of 0..1 as a percentage, trailing zeros gone, rounded down: 99.999 % is not 100 %."""
    step = Decimal(1).scaleb(-decimals)
    value = (Decimal(str(share)) * 100).quantize(step, rounding="ROUND_DOWN").normalize()
    return f"{value:f}{NARROW_NO_BREAK}%"


def size(value: int) -> str:
    """Write a size in B, kB or MB (powers of ten)."""
    for divisor, unit in ((1_000_000, "MB"), (1000, "kB")):
        if value >= divisor:
            return f"{number(round(value / divisor, 1))}{NO_BREAK}{unit}"
    return f"{number(value)}{NO_BREAK}B"


def moment(at: datetime, zone: str, clock: str = "HH:mm") -> Markup:
    """Write an instant in a zone as a `time` element: 21 Nov 2026, 14:05 IST."""
    local = at.astimezone(ZoneInfo(zone))
    text = format_datetime(local, f"d MMM y, {clock} '{local.tzname()}'", locale=LOCALE)
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(timespec="seconds"), text)


def instant(at: datetime, zone: str) -> Markup:
    """Write an instant to the second, as calls want it that follow one another: 21 Nov 2026, 14:05:09 IST."""
    return moment(at, zone, "HH:mm:ss")


def day(at: date | datetime, zone: str = "UTC") -> Markup:
    """Write a day, of an instant as seen in ``zone``: 21 Nov 2026."""
    on = at.astimezone(ZoneInfo(zone)).date() if isinstance(at, datetime) else at
    return Markup('<time datetime="{}">{}</time>').format(on.isoformat(), format_date(on, "d MMM y", locale=LOCALE))


def month(label: str) -> str:
    """Write a period such as ``2026-11`` as "November 2026"."""
    year, _, number_ = label.partition("-")
    return format_date(date(int(year), int(number_), 1), "MMMM y", locale=LOCALE)


def category_name(category: str) -> str:
    return CATEGORIES.get(category, category.replace("_", " "))


def outcome_name(outcome: str) -> str:
    return OUTCOMES.get(outcome, outcome)


def coded(text: str) -> Markup:
    """Write a message whose `backticks` mark code, as our errors do; everything else is escaped."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if place % 2 else escape(piece) for place, piece in enumerate(pieces)
    )


@dataclass(frozen=True, slots=True)
class LanguageName:
    """A language in its own script, how to mark it up, and its English name for everybody else."""

    tag: str
    own: str
    english: str
    direction: str

    @property
    def romanised(self) -> bool:
        """Whether an Indian language is written in Latin letters here."""
        return self.tag.endswith("-Latn") and not self.tag.startswith("en")


@lru_cache(maxsize=512)
def language(text: str) -> LanguageName:
    """Return how to show a BCP-47 tag; one outside the market's languages is shown as it is."""
    try:
        tag = parse_tag(text)
    except ValueError:
        return LanguageName(text, text, text, "ltr")
    if tag.script == "Latn" and tag.language != "en":
        plain = f"{LANGUAGES[tag.language].name} in Latin letters"
        return LanguageName(str(tag), plain, plain, tag.direction)
    return LanguageName(str(tag), tag.own_name, tag.name, tag.direction)


def spoken(listing: Listing | Version) -> list[LanguageName]:
    """Return every language of a listing or version once, pairs taken apart, in the provider's order."""
    tags = [*listing.languages, *(tag for pair in listing.language_pairs for tag in pair.split(">"))]
    return [language(tag) for tag in dict.fromkeys(tags)]


FILTERS = {
    "money": money,
    "exact_money": exact_money,
    "price_amount": price_amount,
    "plan_quota": plan_quota,
    "plan_rates": plan_rates,
    "price_measure": price_measure,
    "price_words": price_words,
    "number": number,
    "plain": plain,
    "units": units,
    "unit_name": unit_name,
    "duration": duration,
    "milliseconds": milliseconds,
    "microseconds": microseconds,
    "percent": percent,
    "size": size,
    "moment": moment,
    "instant": instant,
    "day": day,
    "month": month,
    "coded": coded,
    "category_name": category_name,
    "outcome_name": outcome_name,
    "language": language,
    "spoken": spoken,
}
