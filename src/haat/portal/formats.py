"""How numbers, money, times and languages are written on a page: always with unit and window."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from babel.dates import format_date, format_datetime
from babel.numbers import format_decimal
from markupsafe import Markup, escape

from haat.language import formats as language_formats
from haat.language import isolate
from haat.language.formats import date_locale, number_locale
from haat.language.messages import N_, NN_, _, gettext, ngettext, spoken, told
from haat.portal.language_names import language, languages_of
from haat.portal.tongue import code_of
from haat.portal.words import signal_names, state_name, verdict_name
from haat.subscriptions.model import Terms

NO_BREAK = "\N{NO-BREAK SPACE}"
NARROW_NO_BREAK = "\N{NARROW NO-BREAK SPACE}"

CATEGORIES = {
    "translation": N_("Translation"),
    "transliteration": N_("Transliteration"),
    "speech_to_text": N_("Speech to text"),
    "text_to_speech": N_("Text to speech"),
    "ocr": N_("Reading images"),
    "nlp": N_("Text analysis"),
    "llm": N_("Language model"),
    "embedding": N_("Embedding"),
    "custom": N_("Other"),
}


@dataclass(frozen=True, slots=True)
class Unit:
    """How a unit is called: one of it, many of it, a number of it, and the amount its price is quoted for."""

    one: str
    many: str
    counted: tuple[str, str]
    quoted: int = 1


_UNITS = {
    "calls": Unit(N_("call"), N_("calls"), NN_("%(amount)s call", "%(amount)s calls")),
    "requests": Unit(N_("request"), N_("requests"), NN_("%(amount)s request", "%(amount)s requests")),
    "characters": Unit(
        N_("character"), N_("characters"), NN_("%(amount)s character", "%(amount)s characters"), quoted=1000
    ),
    "graphemes": Unit(N_("grapheme"), N_("graphemes"), NN_("%(amount)s grapheme", "%(amount)s graphemes"), quoted=1000),
    "tokens": Unit(N_("token"), N_("tokens"), NN_("%(amount)s token", "%(amount)s tokens"), quoted=1000),
    "audio_seconds": Unit(
        N_("second of audio"),
        N_("seconds of audio"),
        NN_("%(amount)s second of audio", "%(amount)s seconds of audio"),
        quoted=60,
    ),
    "pages": Unit(N_("page"), N_("pages"), NN_("%(amount)s page", "%(amount)s pages")),
    "images": Unit(N_("image"), N_("images"), NN_("%(amount)s image", "%(amount)s images")),
    "bytes": Unit(N_("byte"), N_("bytes"), NN_("%(amount)s byte", "%(amount)s bytes"), quoted=1_000_000),
    "compute_seconds": Unit(
        N_("second of computing"),
        N_("seconds of computing"),
        NN_("%(amount)s second of computing", "%(amount)s seconds of computing"),
    ),
    "input_tokens": Unit(
        N_("input token"), N_("input tokens"), NN_("%(amount)s input token", "%(amount)s input tokens"), quoted=1000
    ),
    "output_tokens": Unit(
        N_("output token"), N_("output tokens"), NN_("%(amount)s output token", "%(amount)s output tokens"), quoted=1000
    ),
    "cached_tokens": Unit(
        N_("cached token"), N_("cached tokens"), NN_("%(amount)s cached token", "%(amount)s cached tokens"), quoted=1000
    ),
    "cache_write_tokens": Unit(
        N_("token written to a cache"),
        N_("tokens written to a cache"),
        NN_("%(amount)s token written to a cache", "%(amount)s tokens written to a cache"),
        quoted=1000,
    ),
    "reasoning_tokens": Unit(
        N_("reasoning token"),
        N_("reasoning tokens"),
        NN_("%(amount)s reasoning token", "%(amount)s reasoning tokens"),
        quoted=1000,
    ),
    "input_audio_tokens": Unit(
        N_("audio token heard"),
        N_("audio tokens heard"),
        NN_("%(amount)s audio token heard", "%(amount)s audio tokens heard"),
        quoted=1000,
    ),
    "output_audio_tokens": Unit(
        N_("audio token spoken"),
        N_("audio tokens spoken"),
        NN_("%(amount)s audio token spoken", "%(amount)s audio tokens spoken"),
        quoted=1000,
    ),
    "end_users": Unit(N_("user"), N_("users"), NN_("%(amount)s user", "%(amount)s users")),
    "applications": Unit(
        N_("application"), N_("applications"), NN_("%(amount)s application", "%(amount)s applications")
    ),
    "language_pairs": Unit(
        N_("language pair"), N_("language pairs"), NN_("%(amount)s language pair", "%(amount)s language pairs")
    ),
    "months": Unit(N_("month"), N_("months"), NN_("%(amount)s month", "%(amount)s months")),
}
_QUOTED = {"audio_seconds": N_("minute of audio"), "bytes": N_("MB")}

OUTCOMES = {
    "completed": N_("completed"),
    "client_left": N_("caller left"),
    "provider_failed": N_("provider failed"),
    "refused": N_("refused"),
    "interrupted": N_("interrupted"),
    "unconfirmed": N_("unconfirmed"),
}

_HOURS = NN_("%(amount)s hour", "%(amount)s hours")
_CHARGE_STEPS = {
    "unit": N_("unit"),
    "overage": N_("above what is included"),
    "package": N_("package"),
    "month": N_("month"),
    "part of a month": N_("part of a month"),
    "minimum": N_("minimum"),
    "come to": N_("what was used comes to"),
    "charged before": N_("charged before"),
}
_TIER = re.compile(r"tier (?P<number>[0-9]+)(?P<begins> begins)?")

_SPANS = (
    (86_400, NN_("%(amount)s day", "%(amount)s days")),
    (3600, _HOURS),
    (60, NN_("%(amount)s minute", "%(amount)s minutes")),
    (1, NN_("%(amount)s second", "%(amount)s seconds")),
)


def _unit(name: str) -> Unit:
    return _UNITS.get(name) or Unit(name, name, (f"%(amount)s {name}", f"%(amount)s {name}"))


def _counted(forms: tuple[str, str], value: Decimal | float) -> str:
    """Write a number with what is counted; a number with decimals takes the form of many."""
    whole = int(value) if value == int(value) else 2
    return (ngettext(*forms, whole) % {"amount": number(value)}).replace(" ", NO_BREAK, 1)


def money(amount: Decimal) -> str:
    """Write rupees to the paisa with Indian grouping: ₹1,00,000.00."""
    return language_formats.format_currency(amount, spoken())


def exact_money(amount: Decimal) -> str:
    """Write rupees with every decimal that counts, two at least: prices are never rounded on a page."""
    decimals = max(2, -int(amount.normalize().as_tuple().exponent))
    return language_formats.format_currency(amount, spoken(), decimals=decimals)


def price_amount(unit_price: Decimal, unit: str) -> str:
    """Write the price of the quoted amount of a unit: ₹0.20 for 0.0002 a character."""
    return _("Free") if unit_price == 0 else exact_money(unit_price * _unit(unit).quoted)


def price_words(component: Mapping[str, Any]) -> str:
    """Write what a component of a rate card asks for: "₹499.00 a month", "₹0.20 per 1,000 characters"."""
    model = component["model"]
    if model == "flat":
        amount = exact_money(Decimal(component["amount"]))
        return (
            _("%(amount)s a month", amount=amount)
            if component["prorated"]
            else _("%(amount)s a month, in full", amount=amount)
        )
    meter = component["meter"]
    words = _metered_words(component, model, meter)
    free = Decimal(component.get("included", component.get("free_units", "0")))
    if not free:
        return words
    if model == "overage":
        return _("%(units)s included, then %(price)s", units=units(free, meter), price=words)
    return _("%(units)s free, then %(price)s", units=units(free, meter), price=words)


def _metered_words(component: Mapping[str, Any], model: str, meter: str) -> str:
    def each(price: str) -> str:
        return f"{price_amount(Decimal(price), meter)} {price_measure(meter)}"

    if model == "package":
        size = units(Decimal(component["package_size"]), meter)
        return _(
            "%(price)s per package of %(units)s", price=exact_money(Decimal(component["package_price"])), units=size
        )
    if model not in ("graduated", "volume"):
        return each(component["unit_price"])
    tiers: list[str] = []
    for tier in component["tiers"]:
        flat = Decimal(tier["flat"])
        price = "" if flat and not Decimal(tier["unit_price"]) else each(tier["unit_price"])
        once = _("%(amount)s once", amount=exact_money(flat)) if flat else ""
        asked = _("%(price)s and %(once)s", price=price, once=once) if price and once else price or once
        if tier["up_to"] is not None:
            asked = _("%(price)s up to %(amount)s", price=asked, amount=number(Decimal(tier["up_to"])))
        elif tiers:
            asked = _("%(price)s beyond", price=asked)
        tiers.append(asked)
    steps = "; ".join(tiers)
    return _("all at %(steps)s", steps=steps) if model == "volume" else steps


def price_measure(unit: str) -> str:
    """Write what a quoted price buys: "per 1,000 characters"."""
    if unit in _QUOTED:
        what = gettext(_QUOTED[unit])
    else:
        named = _unit(unit)
        what = gettext(named.one) if named.quoted == 1 else units(named.quoted, unit)
    return _("per %(what)s", what=what)


def number(value: Decimal | int | float) -> str:
    """Write a number with Indian grouping and at most three decimals."""
    return language_formats.format_number(value, spoken())


def plain(value: Decimal) -> str:
    """Write a number as a field of a form takes it: 99.500 as 99.5, without grouping."""
    return f"{value.normalize():f}"


def units(value: Decimal | int, unit: str) -> str:
    """Write an amount with its unit: "12,450 characters"."""
    return _counted(_unit(unit).counted, value)


def unit_name(unit: str) -> str:
    """Write a unit's name in the plural."""
    return gettext(_unit(unit).many)


def plan_rates(plan: Terms) -> str:
    """Write how fast a plan lets one call: "60 a minute, 10 of them at once"."""
    rates = []
    if plan.per_minute is not None:
        rates.append(_("%(amount)s a minute", amount=number(plan.per_minute)))
    if plan.per_hour is not None:
        rates.append(_("%(amount)s an hour", amount=number(plan.per_hour)))
    if plan.per_day is not None:
        rates.append(_("%(amount)s a day", amount=number(plan.per_day)))
    if plan.burst is not None:
        rates.append(_("%(amount)s of them at once", amount=number(plan.burst)))
    return ", ".join(rates) or _("no rate limit")


def plan_quota(plan: Terms) -> str:
    """Write how much a plan lets one call: "1,000 requests a month, more at a price"."""
    quotas = []
    if plan.quota_per_month is not None:
        quotas.append(_("%(units)s a month", units=units(plan.quota_per_month, plan.quota_unit)))
    if plan.quota_per_day is not None:
        quotas.append(_("%(units)s a day", units=units(plan.quota_per_day, plan.quota_unit)))
    if plan.overage:
        quotas.append(_("more at a price"))
    return ", ".join(quotas) or _("no quota")


def milliseconds(value: Decimal | float | int) -> str:
    """Write a duration in ms, or in s from ten seconds on; one decimal below ten."""
    if value >= 10_000:
        return _measured(number(round(float(value) / 1000, 1)), "s")
    return _measured(number(round(float(value), 1) if value < 10 else round(value)), "ms")


def _measured(figure: str, unit: str) -> str:
    """Write a figure with a unit in Latin letters: on a line from right to left it would stand behind its unit."""
    text = f"{figure}{NO_BREAK}{unit}"
    return isolate(text, "ltr") if spoken().direction == "rtl" else text


def duration(seconds: int) -> str:
    """Write a time in the largest unit that leaves no rest: 90 seconds, 2 hours."""
    forms, count = next((forms, seconds // of) for of, forms in _SPANS if seconds % of == 0)
    return _counted(forms, count)


def hours(value: float) -> str:
    """Write a number of hours: 1 hour, 48 hours, 1.5 hours."""
    return _counted(_HOURS, value)


def microseconds(value: int) -> str:
    """Write a duration given in µs as milliseconds with two decimals."""
    return _measured(format_decimal(Decimal(value) / 1000, "0.00", locale=number_locale(spoken())), "ms")


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
    text = format_datetime(local, f"d MMM y, {clock} '{local.tzname()}'", locale=date_locale(spoken()))
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(timespec="seconds"), text)


def instant(at: datetime, zone: str) -> Markup:
    """Write an instant to the second, as calls want it that follow one another: 21 Nov 2026, 14:05:09 IST."""
    return moment(at, zone, "HH:mm:ss")


def day(at: date | datetime, zone: str = "UTC") -> Markup:
    """Write a day, of an instant as seen in ``zone``: 21 Nov 2026."""
    on = at.astimezone(ZoneInfo(zone)).date() if isinstance(at, datetime) else at
    text = format_date(on, "d MMM y", locale=date_locale(spoken()))
    return Markup('<time datetime="{}">{}</time>').format(on.isoformat(), text)


def short_day(on: date) -> str:
    """Write a day where its year is known, such as under the axis of a chart: 21 Nov."""
    return format_date(on, "d MMM", locale=date_locale(spoken()))


def month(label: str) -> str:
    """Write a period such as ``2026-11`` as "November 2026"."""
    year, _, number_ = label.partition("-")
    return format_date(date(int(year), int(number_), 1), "LLLL y", locale=date_locale(spoken()))


def month_part(label: str, part: int) -> str:
    """Write a period, and which of its statements when it has several: "November 2026, part 2"."""
    return month(label) if part == 1 else _("%(month)s, part %(part)s", month=month(label), part=part)


def category_name(category: str) -> str:
    return gettext(CATEGORIES[category]) if category in CATEGORIES else category.replace("_", " ")


def outcome_name(outcome: str) -> str:
    return gettext(OUTCOMES[outcome]) if outcome in OUTCOMES else outcome


def charge_step(label: str) -> str:
    """Write what a step of a charge is, as `haat.rating` names it: "tier 2 begins"."""
    known = label.removesuffix(", again")
    if tier := _TIER.fullmatch(known):
        words = (
            _("tier %(number)s begins", number=tier["number"])
            if tier["begins"]
            else _("tier %(number)s", number=tier["number"])
        )
    else:
        words = gettext(_CHARGE_STEPS[known]) if known in _CHARGE_STEPS else known
    return words if known == label else _("%(step)s, again", step=words)


def coded(text: str) -> Markup:
    """Write a message whose `backticks` mark code, as our errors do; everything else is escaped."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if place % 2 else escape(piece) for place, piece in enumerate(pieces)
    )


FILTERS = {
    "translated": gettext,
    "told": told,
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
    "hours": hours,
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
    "state_name": state_name,
    "signal_names": signal_names,
    "verdict_name": verdict_name,
    "language": language,
    "languages_of": languages_of,
    "code_of": code_of,
    "month_part": month_part,
    "charge_step": charge_step,
}
