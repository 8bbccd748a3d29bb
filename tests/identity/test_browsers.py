"""Families of browsers and systems, as their texts name themselves."""

from __future__ import annotations

import pytest

from haat.identity.browsers import family_of

_MOZILLA = "Mozilla/5.0"


@pytest.mark.parametrize(
    ("user_agent", "family"),
    [
        (f"{_MOZILLA} (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", ("Firefox", "Linux")),
        (
            f"{_MOZILLA} (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
            "Safari/537.36 Edg/140.0.0.0",
            ("Edge", "Windows"),
        ),
        (
            f"{_MOZILLA} (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile "
            "Safari/537.36",
            ("Chrome", "Android"),
        ),
        (
            f"{_MOZILLA} (Linux; Android 13; SM-S911B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/27.0 "
            "Chrome/125.0.0.0 Mobile Safari/537.36",
            ("Samsung Internet", "Android"),
        ),
        (
            f"{_MOZILLA} (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 "
            "Safari/605.1.15",
            ("Safari", "macOS"),
        ),
        (
            f"{_MOZILLA} (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "CriOS/140.0.0.0 Mobile/15E148 Safari/604.1",
            ("Chrome", "iOS"),
        ),
        ("python-httpx/0.28.1", ("", "")),
        ("curl/8.5.0 (x86_64-pc-linux-gnu) Linux", ("", "")),
        ("", ("", "")),
        ("x" * 5000 + "Firefox/1 Linux", ("", "")),
    ],
)
def test_a_browser_is_known_by_its_family_and_nothing_else(user_agent: str, family: tuple[str, str]) -> None:
    assert family_of(user_agent) == family
