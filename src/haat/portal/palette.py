"""The colours of the stylesheet, by theme, and how well they can be told from each other (WCAG 2.1, 1.4.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

THEMES = {
    "light": (r":root", ""),
    "dark": (r':root\[data-theme="dark"\]', "screen"),
    "high contrast": (r':root\[data-theme="contrast"\]', "screen"),
    "high contrast, dark": (r':root\[data-theme="contrast"\]', "screen and (prefers-color-scheme: dark)"),
}
"""Each theme's selector in the stylesheet, and the media query around it."""
TEXTS = (
    ("ink", "paper"),
    ("ink", "card"),
    ("ink", "wash"),
    ("muted", "paper"),
    ("muted", "card"),
    ("indigo", "paper"),
    ("indigo", "card"),
    ("on-indigo", "indigo"),
    ("on-marigold", "marigold"),
    ("marigold-text", "paper"),
    ("marigold-text", "card"),
    ("madder", "paper"),
    ("madder", "card"),
    ("leaf", "paper"),
    ("leaf", "card"),
)
"""Which colours are written on which."""


@cache
def stylesheet() -> str:
    """Return the portal's stylesheet."""
    return resources.files("haat.portal").joinpath("static", "portal.css").read_text(encoding="utf-8")


@cache
def tokens(theme: str) -> Mapping[str, str]:
    """Return a theme's custom properties by name, without the dashes before it; raise KeyError for no theme."""
    selector, media = THEMES[theme]
    before = rf"@media {re.escape(media)} \{{\n  " if media else r"^"
    found = re.search(before + selector + r" \{(.*?)\}", stylesheet(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"the stylesheet has no theme {theme}"
    return dict(re.findall(r"--([\w-]+):\s*([^;]+);", found[1]))


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours written ``#rrggbb``, 1 to 21."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
