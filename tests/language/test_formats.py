"""Numbers, money and days by CLDR, grouped by lakh in every language."""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.language import (
    LANGUAGES,
    Tag,
    detect_script,
    format_currency,
    format_date,
    format_number,
    format_percent,
    parse_tag,
)

TAGS = [
    Tag(code, script) for code, language in LANGUAGES.items() for script in dict.fromkeys((*language.scripts, "Latn"))
]
NUMBER = Decimal("1234567.5")
DAY = date(2026, 11, 21)


def plain(text: str) -> str:
    return text.replace("\xa0", " ").replace("\u202f", " ")


@pytest.mark.parametrize("tag", TAGS, ids=str)
def test_every_language_groups_by_lakh_and_crore(tag: Tag) -> None:
    for written in (format_number(NUMBER, tag), format_currency(NUMBER, tag)):
        assert re.search(r"12[,،]34[,،]567\.5", written), written


@pytest.mark.parametrize(
    ("tag", "written"),
    [
        ("en", "12,34,567.5"),
        ("hi", "१२,३४,५६७.५"),
        ("bn", "১২,৩৪,৫৬৭.৫"),
        ("ta", "௧௨,௩௪,௫௬௭.௫"),
        ("sat", "᱑᱒,᱓᱔,᱕᱖᱗.᱕"),
        ("mni", "꯱꯲,꯳꯴,꯵꯶꯷.꯵"),
        ("ur", "۱۲٬۳۴٬۵۶۷٫۵"),
        ("sd", "١٢٬٣٤٬٥٦٧٫٥"),
        ("sd-Deva", "१२,३४,५६७.५"),
    ],
)
def test_a_number_can_be_written_in_the_scripts_own_digits(tag: str, written: str) -> None:
    assert format_number(NUMBER, parse_tag(tag), "native") == written


@given(st.integers(-(10**15), 10**15), st.sampled_from(TAGS), st.sampled_from(["latn", "native"]))
def test_no_digit_is_lost(value: int, tag: Tag, digits: str) -> None:
    written = format_number(value, tag, digits)  # type: ignore[arg-type]  # these two there are
    figures = "".join(str(unicodedata.decimal(letter)) for letter in written if letter.isdecimal())
    assert figures == str(abs(value))


@pytest.mark.parametrize(
    ("tag", "written"),
    [("en", "₹12,34,567.50"), ("as", "₹ 12,34,567.50"), ("ml", "₹12,34,567.50"), ("ur", "₹12,34,567.50")],
)
def test_the_sign_of_a_currency_stands_where_cldr_puts_it(tag: str, written: str) -> None:
    assert plain(format_currency(NUMBER, parse_tag(tag))) == written


def test_a_currency_has_its_own_decimals_and_an_unknown_one_its_code() -> None:
    assert plain(format_currency(Decimal("1234567"), parse_tag("en"), "JPY")) == "JP¥12,34,567"
    assert plain(format_currency(Decimal("1"), parse_tag("en"), "XQQ")) == "XQQ 1.00"


def test_a_share_is_written_in_per_cent() -> None:
    assert format_percent(Decimal("0.125"), parse_tag("hi")) == "12%"
    assert format_percent(Decimal("0.5"), parse_tag("mr"), "native") == "५०%"


@pytest.mark.parametrize(
    ("tag", "written"),
    [
        ("en", "21 November 2026"),
        ("hi", "21 नवंबर 2026"),
        ("ta", "21 நவம்பர், 2026"),
        ("ur", "21 نومبر، 2026"),
        ("sat", "21 ᱱᱟᱣᱟᱢᱵᱟᱨ 2026"),
        ("ks-Deva", "21 नवमबर 2026"),
        ("hi-Latn", "21 November, 2026"),
        ("bn-Latn", "21 November 2026"),
    ],
)
def test_a_day_is_written_in_the_languages_words(tag: str, written: str) -> None:
    assert format_date(DAY, parse_tag(tag), "long") == written


@pytest.mark.parametrize("tag", TAGS, ids=str)
def test_a_full_date_is_in_the_tags_script_but_for_meetei_mayek(tag: Tag) -> None:
    expected = "Beng" if tag.script == "Mtei" else tag.script  # CLDR has no names of months in Meetei Mayek
    assert detect_script(format_date(DAY, tag, "full")) == expected


def test_a_day_can_be_written_in_the_scripts_own_digits() -> None:
    assert format_date(DAY, parse_tag("mr"), "long", "native") == "२१ नोव्हेंबर, २०२६"
