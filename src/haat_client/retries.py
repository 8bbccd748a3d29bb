"""When a request is sent again, and after how long: pure, so that it can be held against a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Retries:
    """How often, and how long between: ``first`` seconds, doubled each time up to ``most``, with full jitter.

    A ``Retry-After`` is waited out instead, unless it is longer than ``patience`` seconds: then the refusal is
    raised at once, and says itself when to come back.
    """

    times: int = 3
    first: float = 0.5
    most: float = 8.0
    patience: float = 60.0

    def wait(self, sent: int, retry_after: float | None, random: float) -> float | None:
        """Return the seconds to wait after a request was sent ``sent`` times; None for no more.

        ``random`` is from 0 up to 1.
        """
        if sent > self.times:
            return None
        pause = min(self.most, self.first * 2.0 ** (sent - 1)) * (0.5 + random / 2)
        if retry_after is None:
            return pause
        if retry_after > self.patience:
            return None
        return retry_after + min(pause, 1.0) * random  # not all who were told the same at the same time


NEVER = Retries(times=0)


def is_worth_it(status: int, headers: Mapping[str, str], code: str) -> bool:
    """Tell whether an answer may be another one next time."""
    wish = headers.get("x-should-retry", "").lower()
    if wish in ("false", "true"):
        return wish == "true"
    return status in STATUSES or code == "IDEMPOTENCY_IN_PROGRESS"


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, a number or a date (RFC 9110, 10.2.3); None for neither."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())
