"""What a session is known by: the family of a browser and of its system, and nothing that tells two of them apart."""

from __future__ import annotations

# In the order in which they are looked for: most browsers name others, too.
_BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("UCBrowser/", "UC Browser"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("iPad", "iPadOS"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "macOS"),
    ("KAIOS", "KaiOS"),
    ("Linux", "Linux"),
)
_LONGEST = 1000


def family_of(user_agent: str) -> tuple[str, str]:
    """Return browser and system of a ``User-Agent``, without versions; both empty for what is no browser."""
    text = user_agent[:_LONGEST]
    browser = next((name for mark, name in _BROWSERS if mark in text), "")
    system = next((name for mark, name in _SYSTEMS if mark in text), "")
    return (browser, system) if browser else ("", "")
