"""What a plan allows, and how limits speak about it: the words that limits are written in."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple

import msgspec
from msgspec import structs

MICRO = 1_000_000
"""Quantities are whole millionths of a unit: one request is 1,000,000."""


def to_micro(quantity: str) -> int:
    """Return decimal text in millionths, rounded up."""
    return int((Decimal(quantity) * MICRO).to_integral_value(ROUND_CEILING))


class PlanLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a plan allows; None is unlimited. Rates, burst and concurrency are in requests, quotas in ``quota_unit``.

    ``burst`` many may come at once, further ones at the pace of ``per_minute``. ``quota_reset`` is
    ``calendar`` or ``anniversary``. With ``overage`` a quota is counted and stated, and stops nobody.
    """

    per_minute: int | None = None
    per_hour: int | None = None
    per_day: int | None = None
    quota_per_month: int | None = None
    max_concurrent: int | None = None
    burst: int | None = None
    quota_per_day: int | None = None
    quota_unit: str = "requests"
    quota_reset: str = "calendar"
    overage: bool = False


def without_quota(limits: PlanLimits) -> PlanLimits:
    """Return the rates of a plan alone."""
    return structs.replace(limits, quota_per_month=None, quota_per_day=None, quota_unit="requests", overage=False)


class Refusal(NamedTuple):
    """Why a call is not admitted."""

    limit: str
    """``burst``, ``minute``, ``hour``, ``day``, ``month``, ``day-quota``, ``concurrent`` or ``provider``."""
    quota: int
    remaining: int
    """Whole units; of a quota it may be more than nothing, and less than the call would reserve."""
    reset_seconds: int
    """Whole seconds, rounded up, until a further call may pass."""
    unit: str = "requests"


class Standing(NamedTuple):
    """The tightest limit after an admission."""

    limit: str
    quota: int
    remaining: int
    reset_seconds: int
    unit: str = "requests"


class Kept(msgspec.Struct, frozen=True, gc=False):
    """What of an allowance is kept on disk against a restart of the machine without PostgreSQL.

    Quantities are millionths by unit, ends are microseconds since the epoch; ``sizes`` is how many calls
    were admitted in the last minute, hour and day, as far as the plan asks.
    """

    application: str
    service: str
    month_end: int
    month: dict[str, int]
    day_end: int
    day: dict[str, int]
    sizes: dict[str, int]
