"""What usage is: its units, what is billed, whose it is, how a latency is kept. No I/O."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from haat.kernel.clock import Period, month_period
from haat.kernel.errors import InvalidRequest
from haat.kernel.ids import id_at
from haat.language.messages import _
from haat.usage.event import Outcome

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
MAX_QUANTITY = Decimal(10) ** 18
QUANTITY_STEP = Decimal("0.000001")


class Misfit(ValueError):
    """A record that can't be counted as it is; the reason is kept with it for the operator."""


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


def month_named(label: str, zone: str) -> Period:
    """Return the month that a label such as ``2026-11`` names in a zone; raise InvalidRequest for anything else."""
    if not re.fullmatch(r"(19[7-9][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])", label):
        raise InvalidRequest(_("A period is a month such as 2026-11."))
    return month_period(int(label[:4]), int(label[5:]), zone)


# --- latency: a mergeable sketch -----------------------------------------------------------------

GROWTH = 1.04
"""Each bucket of the sketch ends 4 % above the one before, so a quantile is right to within 2 %."""


SKETCH_DIGITS = 12
"""A stored sketch is one number: so many of its decimal digits, from the right, are the calls of bucket 0, so many
those of bucket 1, and on. Adding such numbers merges sketches (``latency_sketch`` in migration 0029)."""
SUMMED = "numeric_send(sum(latency))"
"""Merges sketches in SQL, and hands the sum out as `histogram_of` takes it: as text it would take longer to write
and to read than to make."""


def quantile(histogram: Mapping[int, int], q: float) -> float | None:
    """Return the ``q`` quantile in milliseconds of bucket counts (see `quantiles`)."""
    return quantiles(histogram, (q,))[0]


def quantiles(histogram: Mapping[int, int], shares: Sequence[float]) -> list[float | None]:
    """Return quantiles, in rising order, in milliseconds of bucket counts (see `latency_bucket` in migration 0003).

    Bucket ``b`` holds durations in (GROWTH^(b-1), GROWTH^b] microseconds; histograms merge by adding.
    """
    calls = sum(histogram.values())
    if not calls:
        return [None] * len(shares)
    ordered = iter(sorted(histogram.items()))
    found: list[float | None] = []
    seen = bucket = 0
    for share in shares:
        rank = max(1, math.ceil(share * calls))
        while seen < rank:
            bucket, more = next(ordered)
            seen += more
        found.append(2 * GROWTH**bucket / (GROWTH + 1) / 1000)
    return found


def merged(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Merge histograms by adding."""
    whole: dict[int, int] = {}
    for histogram in histograms:
        for bucket, calls in histogram.items():
            whole[bucket] = whole.get(bucket, 0) + calls
    return whole


def histogram_of(sketch: bytes | None) -> dict[int, int]:
    """Return the calls by bucket of a sketch in a numeric's binary form (see `SUMMED`); None is that of no calls.

    That form is the count of digits in base 10,000, the first one's power, sign and scale, and the digits: three of
    them are a bucket.
    """
    if sketch is None:
        return {}
    count, power = _NUMERIC.unpack_from(sketch)
    highest, place = divmod(power, 3)
    digits = bytes(2 * (2 - place)) + sketch[8 : 8 + 2 * count]
    digits += bytes(-len(digits) % _BUCKET.size)
    buckets = zip(range(highest, -1, -1), _BUCKET.iter_unpack(digits), strict=False)
    return {bucket: a * 10**8 + b * 10**4 + c for bucket, (a, b, c) in buckets if a or b or c}


_NUMERIC = struct.Struct("!hh")
_BUCKET = struct.Struct("!3h")


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
