"""Numbers carry their unit, prices lose nothing, languages stand in their own script."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from haat.catalog.model import UNITS
from haat.language import LANGUAGES
from haat.language.messages import speaking
from haat.portal import formats, language_names
from haat.subscriptions.model import Terms


def plain(text: str) -> str:
    return text.replace("\xa0", " ").replace("\u202f", " ")


def test_money_has_indian_grouping_and_two_decimals() -> None:
    assert formats.money(Decimal("100000")) == "₹1,00,000.00"


@pytest.mark.parametrize(
    ("price", "unit", "written"),
    [
        ("0.000200000000", "characters", "₹0.20 per 1,000 characters"),
        ("0.000012345678", "tokens", "₹0.012345678 per 1,000 tokens"),
        ("0.01", "requests", "₹0.01 per request"),
        ("0.002", "audio_seconds", "₹0.12 per minute of audio"),
        ("0.0000015", "bytes", "₹1.50 per MB"),
        ("0", "pages", "Free per page"),
    ],
)
def test_a_price_is_quoted_for_an_amount_that_compares(price: str, unit: str, written: str) -> None:
    assert plain(f"{formats.price_amount(Decimal(price), unit)} {formats.price_measure(unit)}") == written


@given(st.decimals(min_value=0, max_value=10**9, places=12), st.sampled_from(UNITS))
def test_no_price_is_rounded_on_its_way_to_the_page(price: Decimal, unit: str) -> None:
    written = formats.price_amount(price, unit)
    quoted = {"characters": 1000, "graphemes": 1000, "tokens": 1000, "audio_seconds": 60, "bytes": 10**6}.get(unit, 1)
    shown = Decimal(0) if written == "Free" else Decimal(written.lstrip("₹").replace(",", ""))
    assert shown == price * quoted


def test_a_share_is_rounded_down_so_that_almost_all_is_not_all() -> None:
    assert plain(formats.percent(Decimal("0.99999"))) == "99.99 %"
    assert plain(formats.percent(Decimal(1))) == "100 %"


@pytest.mark.parametrize(("value", "written"), [(0.25, "0.2 ms"), (9.96, "10 ms"), (41.4, "41 ms"), (12_345, "12.3 s")])
def test_a_duration_has_the_digits_it_deserves(value: float, written: str) -> None:
    assert plain(formats.milliseconds(value)) == written


def test_a_figure_stands_before_its_unit_on_lines_from_right_to_left() -> None:
    with speaking(LANGUAGES["ur"].tag):
        assert plain(formats.microseconds(41_300)) == "\u206641.30 ms\u2069"
        assert plain(formats.milliseconds(12_000)) == "\u206612 s\u2069"


def test_one_is_singular_and_many_are_grouped() -> None:
    assert plain(formats.units(1, "characters")) == "1 character"
    assert plain(formats.units(Decimal("1234567"), "characters")) == "12,34,567 characters"


def test_a_moment_is_written_in_the_readers_zone_and_marked_for_machines() -> None:
    at = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)
    assert formats.moment(at, "Asia/Kolkata") == (
        '<time datetime="2026-11-21T20:00:00+00:00">22 Nov 2026, 01:30 IST</time>'
    )
    assert "22 Nov 2026" in formats.day(at, "Asia/Kolkata")


def test_an_instant_has_its_seconds() -> None:
    at = datetime(2026, 11, 21, 8, 35, 9, tzinfo=UTC)
    assert formats.instant(at, "Asia/Kolkata").endswith(">21 Nov 2026, 14:05:09 IST</time>")


@pytest.mark.parametrize(("value", "written"), [("99.500", "99.5"), ("10", "10"), ("1000.0", "1000"), ("0.05", "0.05")])
def test_a_number_in_a_field_is_as_short_as_it_can_be(value: str, written: str) -> None:
    assert formats.plain(Decimal(value)) == written


@pytest.mark.parametrize(
    ("tag", "own", "direction"),
    [
        ("ur-Arab", "اردو", "rtl"),
        ("sd-Arab", "سنڌي", "rtl"),
        ("sd-Deva", "सिन्धी", "ltr"),
        ("hi", "हिन्दी", "ltr"),
        ("hi-Latn", "Hindi in Latin letters", "ltr"),
        ("xx-Xxxx", "xx-Xxxx", "ltr"),
    ],
)
def test_a_languages_direction_comes_from_its_script(tag: str, own: str, direction: str) -> None:
    name = language_names.language(tag)
    assert (name.own, name.direction) == (own, direction)


def test_backticks_mark_code_and_nothing_else_becomes_markup() -> None:
    assert formats.coded("use `a<b>` now") == Markup("use <code>a&lt;b&gt;</code> now")
    assert formats.coded("a ` alone <i>") == "a ` alone &lt;i&gt;"


@pytest.mark.parametrize(
    ("terms", "rates", "quota"),
    [
        (Terms(per_minute=60, quota_per_month=1000), "60 a minute", "1,000 requests a month"),
        (Terms(per_minute=60, per_hour=1000, burst=5), "60 a minute, 1,000 an hour, 5 of them at once", "no quota"),
        (Terms(quota_per_day=1, overage=True), "no rate limit", "1 request a day, more at a price"),
        (Terms(quota_per_month=5000, quota_unit="tokens"), "no rate limit", "5,000 tokens a month"),
    ],
)
def test_a_plan_says_what_it_allows(terms: Terms, rates: str, quota: str) -> None:
    assert (plain(formats.plan_rates(terms)), plain(formats.plan_quota(terms))) == (rates, quota)


@pytest.mark.parametrize(
    ("label", "written"),
    [
        ("unit", "unit"),
        ("overage", "above what is included"),
        ("tier 2", "tier 2"),
        ("tier 12 begins", "tier 12 begins"),
        ("tier 1, again", "tier 1, again"),
        ("come to", "what was used comes to"),
        ("a plugin's own", "a plugin's own"),
    ],
)
def test_a_step_of_a_charge_is_written_in_words(label: str, written: str) -> None:
    assert formats.charge_step(label) == written


def test_a_short_day_is_written_as_its_reader_does() -> None:
    assert formats.short_day(date(2026, 11, 1)) == "1 Nov"
    with speaking(LANGUAGES["hi"].tag):
        assert formats.short_day(date(2026, 11, 1)) == "1 नव॰"


def test_a_month_names_its_part_when_it_has_several() -> None:
    assert (formats.month_part("2026-11", 1), formats.month_part("2026-11", 2)) == (
        "November 2026",
        "November 2026, part 2",
    )
