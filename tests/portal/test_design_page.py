"""The living page of the design system, and the colours that it shows."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from importlib import resources

import pytest

from haat.portal import palette

from .conftest import Browser

BrowserFor = Callable[[str | None], Awaitable[Browser]]
AA, AAA, BORDER = 4.5, 7.0, 3.0
APART = {
    "token",
    "account_tabs",
    "partner_tabs",
    "operator_tabs",
    "job_state",
    "listing_state",
    "billing_run",
    "review",
}
"""Pieces that are one page's own matter, or made of others."""


async def test_it_shows_every_colour_every_step_and_every_piece(browser_for: BrowserFor) -> None:
    page = await (await browser_for(None)).get("/_design")
    assert page.status_code == 200
    text = page.text
    for name in palette.tokens("light"):
        assert f"--{name}" in text, name
    parts = resources.files("haat.portal").joinpath("templates", "parts.html").read_text(encoding="utf-8")
    for piece in set(re.findall(r"\{% macro (\w+)\(", parts)) - APART:
        assert f"parts.{piece}(" in text, piece


@pytest.mark.parametrize(
    ("theme", "least"), [("light", AA), ("dark", AA), ("high contrast", AAA), ("high contrast, dark", AAA)]
)
def test_what_is_written_can_be_read(theme: str, least: float) -> None:
    tokens = palette.tokens(theme)
    poor = [
        (text, ground, ratio)
        for text, ground in palette.TEXTS
        if (ratio := palette.contrast(tokens[text], tokens[ground])) < least
    ]
    assert poor == []


@pytest.mark.parametrize("theme", ["high contrast", "high contrast, dark"])
def test_high_contrast_has_borders_that_are_seen(theme: str) -> None:
    tokens = palette.tokens(theme)
    assert palette.contrast(tokens["line"], tokens["paper"]) >= BORDER


def test_black_on_white_is_the_most_there_is() -> None:
    assert palette.contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert palette.contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)


def test_what_the_device_asks_for_is_what_can_be_chosen() -> None:
    """A theme stands twice in the stylesheet: for who has chosen it, and for who has chosen nothing."""
    text = palette.stylesheet()
    for asked, chosen in (
        ("(prefers-color-scheme: dark)", "dark"),
        ("(prefers-contrast: more)", "high contrast"),
        ("(prefers-contrast: more) and (prefers-color-scheme: dark)", "high contrast, dark"),
    ):
        before = re.escape(f"@media screen and {asked} {{\n  :root:not([data-theme]) {{")
        found = re.search(before + r"(.*?)\}", text, re.DOTALL)
        assert found is not None, asked
        assert dict(re.findall(r"--([\w-]+):\s*([^;]+);", found[1])) == palette.tokens(chosen)


async def test_high_contrast_is_chosen_in_the_footer(browser_for: BrowserFor) -> None:
    browser = await browser_for(None)
    page = await browser.send("/theme", page="/", theme="contrast", back="/catalog")
    assert page.url.path == "/catalog" and 'data-theme="contrast"' in page.text
