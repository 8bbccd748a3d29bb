"""What a usage event becomes in the store: a row, or a record set aside with a reason."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from functools import lru_cache
from uuid import UUID

import msgspec

from haat.kernel.clock import Period, month_period
from haat.kernel.errors import InvalidRequest
from haat.kernel.ids import id_at, milliseconds_of
from haat.usage.event import LIVE, SHADOW, TEST, Outcome, UsageEvent

UNITS = (
    "requests",
    "characters",
    "graphemes",
    "tokens",
    "audio_seconds",
    "pages",
    "images",
    "bytes",
    "compute_seconds",
)
"""The units a service can be sold by: a column each, so that ten million rows group without opening JSON.

Their order is part of the file in which gateways share counts: only append.
"""

BILLED = (Outcome.COMPLETED, Outcome.CLIENT_LEFT)
"""The outcomes that cost something. Everything else is in doubt or not delivered: for the customer."""

BILLED_VALUES = [outcome.value for outcome in BILLED]
"""The same as the store spells them."""

_FROM_CACHE = ("hit", "partial")
_SHARE_STEP = Decimal("0.001")
ASKED = "usage.cache <> 'hit'"
"""Calls for which the provider was asked for something: SQL, also a part of an invoice line's predicate.

Those of which something came out of the cache have a ``cached_share``. A partial hit is among both, with a
quantity for each.
"""

MEMBER = """
    CASE WHEN line.members ->> 'aggregation' IN ('max', 'unique', 'last')
        THEN line.members -> 'cached' IS NULL OR (line.members -> 'cached' = 'true') = (call.cached_share IS NOT NULL)
        WHEN line.cached_share IS NULL THEN call.cache <> 'hit'
        ELSE line.cached_share = call.cached_share END
    AND (line.members -> 'language_pairs' IS NULL OR line.members -> 'language_pairs' ? call.language_pair)
    AND (line.members -> 'versions' IS NULL OR line.members -> 'versions' ? call.version)
    AND (line.members -> 'variants' IS NULL OR line.members -> 'variants' ? call.variant)
"""
"""Whether a ``call`` (a usage row) lies on a ``line`` of an invoice, once its subscription, plan, service, provider, id
and batch say so: SQL. Lines of a meter that doesn't add up are about all calls it sees, cached or not."""

ANSWERED = (Outcome.COMPLETED, Outcome.CLIENT_LEFT, Outcome.PROVIDER_FAILED)
"""The outcomes whose duration says something about the service."""

MAX_AHEAD_MS = 5 * 60 * 1000
MAX_BEHIND_MS = 35 * 24 * 3600 * 1000
_LAST_MS = 253_370_764_800_000  # the year 9999, the last one that dates can name
MAX_QUANTITY = Decimal(10) ** 18
QUANTITY_STEP = Decimal("0.000001")
_WIDE = Context(prec=60, rounding=ROUND_HALF_UP)


class Misfit(ValueError):
    """A record that can't be counted as it is; the reason is kept with it for the operator."""


COLUMNS = (
    "id",
    "at",
    "org_id",
    "application_id",
    "credential_id",
    "subscription_id",
    "plan",
    "end_user",
    "tags",
    "caller_request_id",
    "provider",
    "provider_org",
    "service_id",
    "service_slug",
    "version",
    "variant",
    "method",
    "path_template",
    "status",
    "outcome",
    "error_code",
    *UNITS,
    "other_units",
    "units_source",
    "raw_usage",
    "admission_us",
    "queue_us",
    "connect_us",
    "first_byte_us",
    "total_us",
    "bytes_in",
    "bytes_out",
    "cache",
    "cached",
    "cached_share",
    "region",
    "language_pair",
    "gateway",
    "attempts",
    "executed_by",
    "trace",
    "mode",
    "rollout",
    "arm",
    "agreed",
)
"""Columns of a usage row in the order of `row_of`; the store adds ``batch``."""

Cell = str | int | None
_MAX_SMALLINT = 2**15 - 1
_MAX_INT = 2**31 - 1
_MAX_BIGINT = 2**63 - 1
_NO_JSON = "{}"
_json = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls; None leaves a member open. ``org`` or ``provider_org`` says whose."""

    org: UUID | None = None
    provider_org: UUID | None = None
    start: datetime | None = None
    end: datetime | None = None
    service_id: UUID | None = None
    application_id: UUID | None = None
    outcome: str | None = None
    status_class: int | None = None
    end_user: str | None = None
    mode: str | None = None
    tag: tuple[str, str] | None = None


def id_bound(at: datetime) -> UUID:
    """Return the smallest id of a call at or after an instant (calls have whole milliseconds)."""
    microseconds = int(at.timestamp()) * 1_000_000 + at.microsecond
    return id_at(max(0, -(-microseconds // 1000)))


def row_of(event: UsageEvent, now_ms: int | None) -> tuple[Cell, ...]:
    """Return the row of an event, as text for COPY; raise Misfit for one that must be set aside.

    The time of a call is the millisecond in its id: the same number decides partition, period and
    price, so they can't disagree. ``now_ms`` bounds it (−35 days to +5 minutes); None waives that.
    """
    identifier, time_ms = _identity(event, now_ms)
    known: dict[str, str] = {}
    others: dict[str, str] = {}
    for unit, quantity in event.units.items():
        (known if unit in _UNIT_SET else others)[unit] = _quantity(unit, quantity)
    timings = event.timings_us
    return (
        identifier,
        f"{_instant(time_ms // 1000)}.{time_ms % 1000:03d}+00",
        _reference(event.org),
        _reference(event.application),
        _reference(event.credential),
        _reference(event.subscription),
        _text(event.plan) or None,
        _text(event.user),
        _mapping(event.tags),
        _text(event.caller_request_id),
        _text(event.provider),
        _reference(event.provider_org),
        _reference(event.service),
        _text(event.service_slug),
        _text(event.version),
        _text(event.variant),
        _text(event.method),
        _text(event.path_template),
        event.status if 0 <= event.status <= 999 else 0,
        event.outcome.value,
        _text(event.error_code),
        *[known.get(unit) for unit in UNITS],
        _mapping(others),
        _text(event.units_source),
        _text(event.raw_usage),
        _bounded(timings.admission, _MAX_INT),
        _bounded(timings.queue, _MAX_INT),
        _bounded(timings.connect, _MAX_INT),
        _bounded(timings.first_byte, _MAX_INT),
        _bounded(timings.total, _MAX_INT),
        _bounded(event.bytes_in, _MAX_BIGINT),
        _bounded(event.bytes_out, _MAX_BIGINT),
        _text(event.cache),
        _cached(event, known),
        _cached_share(event),
        _text(event.region),
        _text(event.language_pair),
        _text(event.gateway),
        _bounded(event.attempts, _MAX_SMALLINT),
        _reference(event.executed_by),
        _text(event.trace),
        _mode(event),
        _reference(event.rollout),
        _text(event.arm),
        None if event.agreed is None else "t" if event.agreed else "f",
    )


_UNIT_SET = frozenset(UNITS)


def _mode(event: UsageEvent) -> str:
    if event.mode == SHADOW:
        return SHADOW
    return TEST if event.is_test else LIVE


def _identity(event: UsageEvent, now_ms: int | None) -> tuple[str, int]:
    try:
        identifier = UUID(event.id)
    except ValueError as error:
        raise Misfit("its id is not a UUID") from error
    if identifier.version != 7:
        raise Misfit("its id is not a UUIDv7, which carries the time")
    time_ms = milliseconds_of(identifier)
    if time_ms > _LAST_MS:
        raise Misfit("the time in its id is thousands of years ahead")
    if abs(event.at - time_ms) > MAX_AHEAD_MS:
        raise Misfit("its time and the time in its id are more than five minutes apart")
    if now_ms is not None and time_ms > now_ms + MAX_AHEAD_MS:
        raise Misfit("it lies more than five minutes in the future")
    if now_ms is not None and time_ms < now_ms - MAX_BEHIND_MS:
        raise Misfit("it is older than 35 days")
    return str(identifier), time_ms


def _quantity(unit: str, text: str) -> str:
    """Return a quantity as decimal text with at most six decimals, rounded half-up."""
    if len(text) <= 18 and text.isascii() and text.isdigit():
        return text
    try:
        quantity = Decimal(text)
        if not quantity.is_finite() or not 0 <= quantity < MAX_QUANTITY:
            raise Misfit(f"its quantity of {unit[:40]} is {text[:40]}")
        return str(quantity.quantize(QUANTITY_STEP, context=_WIDE))
    except InvalidOperation as error:
        raise Misfit(f"its quantity of {unit[:40]} is not a number") from error


def _cached(event: UsageEvent, known: Mapping[str, str]) -> str:
    """Return how much of the unit that its service is sold by came out of the cache."""
    if not event.cached_units:
        return "0"
    [(unit, text), *others] = event.cached_units.items()
    cached = _quantity(unit, text)
    if others or event.cache not in _FROM_CACHE or Decimal(cached) > Decimal(known.get(unit, "0")):
        raise Misfit("more of it came out of the cache than there was")
    return cached


def _cached_share(event: UsageEvent) -> str | None:
    if event.cache not in _FROM_CACHE:
        return None
    try:
        share = Decimal(event.cached_share or "1")
        if not 0 <= share <= 1 or share != share.quantize(_SHARE_STEP):
            raise Misfit(f"its cached part can't cost {event.cached_share[:20]} of the price")
    except InvalidOperation as error:
        raise Misfit("the share of the price for its cached part is not a number") from error
    return str(share)


@lru_cache(maxsize=16384)
def _reference(text: str) -> str | None:
    """Return an id in its canonical form; organisations and services recur from row to row."""
    if not text:
        return None
    try:
        return str(UUID(text))
    except ValueError as error:
        raise Misfit("it names an organisation, service or credential by something that is not a UUID") from error


@lru_cache(maxsize=1024)
def _instant(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    date = datetime.fromordinal(719163 + days).date()  # 719163 is 1 January 1970
    return f"{date.isoformat()} {rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"


def _text(value: str) -> str:
    """PostgreSQL keeps no NUL; one sent by a caller must not stop everybody's metering."""
    return value.replace("\0", "\ufffd") if "\0" in value else value


def _mapping(values: Mapping[str, str]) -> str:
    if not values:
        return _NO_JSON
    return _json.encode({_text(name): _text(value) for name, value in values.items()}).decode()


def _bounded(value: int, most: int) -> int:
    return min(max(value, 0), most)


def month_named(label: str, zone: str) -> Period:
    """Return the month that a label such as ``2026-11`` names in a zone; raise InvalidRequest for anything else."""
    if not re.fullmatch(r"(19[7-9][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])", label):
        raise InvalidRequest("A period is a month such as 2026-11.")
    return month_period(int(label[:4]), int(label[5:]), zone)


# --- latency: a mergeable sketch -----------------------------------------------------------------

GROWTH = 1.04
"""Each bucket of the sketch ends 4 % above the one before, so a quantile is right to within 2 %."""


def quantile(histogram: Mapping[int, int], q: float) -> float | None:
    """Return the ``q`` quantile in milliseconds of bucket counts (see `latency_bucket` in migration 0003).

    Bucket ``b`` holds durations in (GROWTH^(b-1), GROWTH^b] microseconds; histograms merge by adding.
    """
    calls = sum(histogram.values())
    if not calls:
        return None
    rank = max(1, math.ceil(q * calls))
    seen = 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen >= rank:
            return 2 * GROWTH**bucket / (GROWTH + 1) / 1000
    raise AssertionError("a rank lies within its histogram")


def merged(histograms: Iterable[Mapping[str, int]]) -> dict[int, int]:
    """Add histograms as the store keeps them (bucket numbers as text)."""
    result: dict[int, int] = {}
    for histogram in histograms:
        for bucket, calls in histogram.items():
            result[int(bucket)] = result.get(int(bucket), 0) + calls
    return result


# --- what a provider may know of its customers ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Names customers to a provider by a keyed hash: stable for one provider, unlinkable between two."""

    key: bytes

    def of(self, provider_org: UUID, org: UUID) -> str:
        digest = hmac.digest(self.key, provider_org.bytes + org.bytes, hashlib.sha256)
        return f"customer-{digest.hex()[:10]}"


EXPORT_COLUMNS = (
    "id",
    "at",
    "application_id",
    "service",
    "version",
    "plan",
    "method",
    "path_template",
    "status",
    "outcome",
    "error_code",
    *UNITS,
    "cache",
    "cached",
    "total_ms",
    "end_user",
    "tags",
    "caller_request_id",
    "language_pair",
    "mode",
)


def csv_safe(value: object) -> str:
    """Return a cell that no spreadsheet takes for a formula: callers choose users, tags and request ids."""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
