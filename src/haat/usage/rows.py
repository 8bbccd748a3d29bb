"""What a usage event becomes in the store: a row as PostgreSQL's binary COPY takes it, or a reason why not.

Ten microseconds an event are all there are at 100,000 a second, so a row is put together from pieces. What recurs
from call to call (who called what, how it went, how many units) is encoded once and found again by its values; an
event's own numbers are packed in one go. The format is PostgreSQL's: a count of columns, and for each its length and
its value in network order.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from functools import lru_cache
from uuid import UUID

import msgspec

from haat.usage.event import LIVE, SHADOW, TEST, UsageEvent
from haat.usage.model import MAX_AHEAD_MS, MAX_BEHIND_MS, MAX_QUANTITY, QUANTITY_STEP, UNITS, Misfit

_NUMBERS = (
    "id",
    "at",
    "batch",
    "status",
    "admission_us",
    "queue_us",
    "connect_us",
    "first_byte_us",
    "total_us",
    "bytes_in",
    "bytes_out",
)
_WHO = (
    "org_id",
    "application_id",
    "credential_id",
    "subscription_id",
    "plan",
    "provider",
    "provider_org",
    "service_id",
    "service_slug",
    "version",
    "path_template",
    "region",
    "gateway",
)
_HOW = (
    "method",
    "variant",
    "outcome",
    "error_code",
    "units_source",
    "cache",
    "language_pair",
    "attempts",
    "executed_by",
    "mode",
    "rollout",
    "arm",
    "agreed",
)
_COUNTED = (*UNITS, "other_units")
_CACHED = ("cached", "cached_share")
_WORDS = ("end_user", "tags", "caller_request_id", "raw_usage", "trace")
COLUMNS = (*_NUMBERS, *_WHO, *_HOW, *_COUNTED, *_CACHED, *_WORDS)
"""Columns of a usage row in the order of `Row.data`."""

_WIDTH = len(COLUMNS)

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""What stands before the rows of a binary COPY: the signature, no flags, no extension."""
TRAILER = struct.pack("!h", -1)

_LAST_MS = 253_370_764_800_000  # the year 9999, the last one that dates can name
_EPOCH_MS = 946_684_800_000  # PostgreSQL counts from 2000
MICRO = 1_000_000
"""Quantities are counted in millionths: whole numbers, so that sums are exact and quick."""
_SHARE_STEP = Decimal("0.001")
_WIDE = Context(prec=60, rounding=ROUND_HALF_UP)
_FROM_CACHE = ("hit", "partial")
_MAX_SMALLINT = 2**15 - 1
_MAX_INT = 2**31 - 1
_MAX_BIGINT = 2**63 - 1
_NULL = struct.pack("!i", -1)
_numbers = struct.Struct("!h i16s iq iq ih ii ii ii ii ii iq iq").pack
_json = msgspec.json.Encoder(order="sorted")
_UNIT_PLACES = {unit: place for place, unit in enumerate(UNITS)}


class Who:
    """Who called what; ``data`` are the columns, ``key`` those of them that rollups are kept by, encoded."""

    __slots__ = ("data", "key", "seller", "service")

    def __init__(self, data: bytes, key: bytes, seller: bytes | None, service: bytes | None) -> None:
        self.data, self.key, self.seller, self.service = data, key, seller, service


class How:
    """How it went; rollups are kept by ``outcome`` and ``pair``, and count only what is ``live``."""

    __slots__ = ("data", "live", "outcome", "pair")

    def __init__(self, data: bytes, live: bool, outcome: str, pair: str) -> None:
        self.data, self.live, self.outcome, self.pair = data, live, outcome, pair


class Counted:
    """How much: pairs of a unit's place in `UNITS` and millionths of it."""

    __slots__ = ("data", "units")

    def __init__(self, data: bytes, units: list[tuple[int, int]]) -> None:
        self.data, self.units = data, units


class Row:
    """A usage row: ``data`` for COPY, the rest for the rollups."""

    __slots__ = ("bytes_in", "bytes_out", "counted", "data", "how", "id", "status", "time_ms", "total_us", "who")

    def __init__(
        self,
        id: bytes,
        data: bytes,
        time_ms: int,
        who: Who,
        how: How,
        counted: Counted,
        status: int,
        total_us: int,
        bytes_in: int,
        bytes_out: int,
    ) -> None:
        self.id, self.data, self.time_ms, self.who, self.how, self.counted = id, data, time_ms, who, how, counted
        self.status, self.total_us, self.bytes_in, self.bytes_out = status, total_us, bytes_in, bytes_out


def row_of(event: UsageEvent, batch: int, now_ms: int | None) -> Row:
    """Return the row of an event; raise Misfit for one that must be set aside.

    The time of a call is the millisecond in its id: the same number decides partition, period and
    price, so they can't disagree. ``now_ms`` bounds it (−35 days to +5 minutes); None waives that.
    """
    identifier, time_ms = _identity(event, now_ms)
    who = _who(
        event.org,
        event.application,
        event.credential,
        event.subscription,
        event.plan,
        event.provider,
        event.provider_org,
        event.service,
        event.service_slug,
        event.version,
        event.path_template,
        event.region,
        event.gateway,
    )
    how = _how(
        event.method,
        event.variant,
        event.outcome._value_,
        event.error_code,
        event.units_source,
        event.cache,
        event.language_pair,
        event.attempts,
        event.executed_by,
        event.mode,
        event.rollout,
        event.arm,
        event.agreed,
    )
    counted = _counted(tuple(event.units.items()))
    cached = _NOTHING_CACHED if not event.cached_units and event.cache not in _FROM_CACHE else _cached(event)
    if event.user or event.tags or event.caller_request_id or event.raw_usage or event.trace:
        words = _words(event)
    else:
        words = _NO_WORDS
    timings = event.timings_us
    status = event.status if 0 <= event.status <= 999 else 0
    total_us = _bounded(timings.total, _MAX_INT)
    bytes_in, bytes_out = _bounded(event.bytes_in, _MAX_BIGINT), _bounded(event.bytes_out, _MAX_BIGINT)
    numbers = _numbers(
        _WIDTH,
        16,
        identifier,
        8,
        (time_ms - _EPOCH_MS) * 1000,
        8,
        batch,
        2,
        status,
        4,
        _bounded(timings.admission, _MAX_INT),
        4,
        _bounded(timings.queue, _MAX_INT),
        4,
        _bounded(timings.connect, _MAX_INT),
        4,
        _bounded(timings.first_byte, _MAX_INT),
        4,
        total_us,
        8,
        bytes_in,
        8,
        bytes_out,
    )
    data = b"".join((numbers, who.data, how.data, counted.data, cached, words))
    return Row(identifier, data, time_ms, who, how, counted, status, total_us, bytes_in, bytes_out)


# --- pieces --------------------------------------------------------------------------------------


def id_bytes(text: str) -> bytes:
    """Return an id's 16 bytes; raise ValueError for what is none. Four times as quick as a UUID on the usual form."""
    if len(text) == 36:
        found = bytes.fromhex(text.replace("-", ""))
        if len(found) == 16:
            return found
    return UUID(text).bytes


def _identity(event: UsageEvent, now_ms: int | None) -> tuple[bytes, int]:
    try:
        identifier = id_bytes(event.id)
    except ValueError as error:
        raise Misfit("its id is not a UUID") from error
    if identifier[6] >> 4 != 7 or identifier[8] >> 6 != 0b10:
        raise Misfit("its id is not a UUIDv7, which carries the time")
    time_ms = int.from_bytes(identifier[:6])
    if time_ms > _LAST_MS:
        raise Misfit("the time in its id is thousands of years ahead")
    if abs(event.at - time_ms) > MAX_AHEAD_MS:
        raise Misfit("its time and the time in its id are more than five minutes apart")
    if now_ms is not None and time_ms > now_ms + MAX_AHEAD_MS:
        raise Misfit("it lies more than five minutes in the future")
    if now_ms is not None and time_ms < now_ms - MAX_BEHIND_MS:
        raise Misfit("it is older than 35 days")
    return identifier, time_ms


@lru_cache(maxsize=32_768)
def _who(
    org: str,
    application: str,
    credential: str,
    subscription: str,
    plan: str,
    provider: str,
    provider_org: str,
    service: str,
    service_slug: str,
    version: str,
    path_template: str,
    region: str,
    gateway: str,
) -> Who:
    seller, sold = _reference(provider_org), _reference(service)
    whose, used = _reference(org), _reference(application)
    bought = _reference(subscription)
    chosen = cell(plan) if plan else _NULL
    return Who(
        b"".join(
            (
                uuid_cell(whose),
                uuid_cell(used),
                uuid_cell(_reference(credential)),
                uuid_cell(bought),
                chosen,
                cell(provider),
                uuid_cell(seller),
                uuid_cell(sold),
                cell(service_slug),
                cell(version),
                cell(path_template),
                cell(region),
                cell(gateway),
            )
        ),
        b"".join((*map(uuid_cell, (whose, used, bought, sold, seller)), chosen)),
        seller,
        sold,
    )


@lru_cache(maxsize=8_192)
def _how(
    method: str,
    variant: str,
    outcome: str,
    error_code: str,
    units_source: str,
    cache: str,
    language_pair: str,
    attempts: int,
    executed_by: str,
    mode: str,
    rollout: str,
    arm: str,
    agreed: bool | None,
) -> How:
    mode = mode if mode in (LIVE, SHADOW) else TEST
    return How(
        b"".join(
            (
                cell(method),
                cell(variant),
                cell(outcome),
                cell(error_code),
                cell(units_source),
                cell(cache),
                cell(language_pair),
                struct.pack("!ih", 2, _bounded(attempts, _MAX_SMALLINT)),
                uuid_cell(_reference(executed_by)),
                cell(mode),
                uuid_cell(_reference(rollout)),
                cell(arm),
                _NULL if agreed is None else struct.pack("!i?", 1, agreed),
            )
        ),
        mode == LIVE,
        outcome,
        _text(language_pair),
    )


@lru_cache(maxsize=32_768)
def _counted(units: tuple[tuple[str, str], ...]) -> Counted:
    known: dict[int, int] = {}
    others: dict[str, str] = {}
    for unit, text in units:
        micros = _micros(unit, text)
        if unit in _UNIT_PLACES:
            known[_UNIT_PLACES[unit]] = micros
        else:
            others[unit] = _decimal_text(micros)
    cells = [numeric_cell(known[place]) if place in known else _NULL for place in range(len(UNITS))]
    return Counted(b"".join((*cells, _json_cell(others))), list(known.items()))


def _cached(event: UsageEvent) -> bytes:
    """Return how much of the unit that its service is sold by came out of the cache, and what part of it that costs."""
    cached = 0
    if event.cached_units:
        [(unit, text), *others] = event.cached_units.items()
        cached = _micros(unit, text)
        whole = _micros(unit, event.units[unit]) if unit in _UNIT_PLACES and unit in event.units else 0
        if others or event.cache not in _FROM_CACHE or cached > whole:
            raise Misfit("more of it came out of the cache than there was")
    if event.cache not in _FROM_CACHE:
        return numeric_cell(cached) + _NULL
    try:
        share = Decimal(event.cached_share or "1")
        if not 0 <= share <= 1 or share != share.quantize(_SHARE_STEP):
            raise Misfit(f"its cached part can't cost {event.cached_share[:20]} of the price")
    except InvalidOperation as error:
        raise Misfit("the share of the price for its cached part is not a number") from error
    return numeric_cell(cached) + numeric_cell(int(share * MICRO))


def _words(event: UsageEvent) -> bytes:
    """Return what callers and providers said in words of their own."""
    return b"".join(
        (
            cell(event.user),
            _json_cell(event.tags),
            cell(event.caller_request_id),
            cell(event.raw_usage),
            cell(event.trace),
        )
    )


def _micros(unit: str, text: str) -> int:
    """Return a quantity in millionths, rounded half-up."""
    if len(text) <= 18 and text.isascii() and text.isdigit():
        return int(text) * MICRO
    try:
        quantity = Decimal(text)
        if not quantity.is_finite() or not 0 <= quantity < MAX_QUANTITY:
            raise Misfit(f"its quantity of {unit[:40]} is {text[:40]}")
        return int(quantity.quantize(QUANTITY_STEP, context=_WIDE).scaleb(6, context=_WIDE))
    except InvalidOperation as error:
        raise Misfit(f"its quantity of {unit[:40]} is not a number") from error


def _decimal_text(micros: int) -> str:
    whole, rest = divmod(micros, MICRO)
    return f"{whole}.{rest:06d}" if rest else str(whole)


@lru_cache(maxsize=16_384)
def _reference(text: str) -> bytes | None:
    """Return an id's bytes; organisations and services recur from row to row."""
    if not text:
        return None
    try:
        return id_bytes(text)
    except ValueError as error:
        raise Misfit("it names an organisation, service or credential by something that is not a UUID") from error


def _text(value: str) -> str:
    """PostgreSQL keeps no NUL; one sent by a caller must not stop everybody's metering."""
    return value.replace("\0", "\ufffd") if "\0" in value else value


def _bounded(value: int, most: int) -> int:
    return value if 0 <= value <= most else min(max(value, 0), most)


# --- cells ---------------------------------------------------------------------------------------


def cell(value: str) -> bytes:
    """Return a text cell."""
    data = _text(value).encode()
    return len(data).to_bytes(4) + data


def uuid_cell(value: bytes | None) -> bytes:
    return _NULL if value is None else b"\0\0\0\x10" + value


def _json_cell(values: Mapping[str, str]) -> bytes:
    """Return a jsonb cell: a version, then the text."""
    data = _json.encode({_text(name): _text(value) for name, value in values.items()}) if values else b"{}"
    return struct.pack("!iB", len(data) + 1, 1) + data


def numeric_cell(micros: int) -> bytes:
    """Return a numeric cell of a quantity in millionths (not negative): its digits in base 10,000."""
    if micros < _SMALL and not micros % MICRO:
        return _WHOLE[micros // MICRO]
    return _numeric_cell(micros)


def _numeric_cell(micros: int) -> bytes:
    whole, rest = divmod(micros, MICRO)
    digits = [rest // 100, rest % 100 * 100]
    weight = -1
    while whole:
        whole, digit = divmod(whole, 10_000)
        digits.insert(0, digit)
        weight += 1
    while digits and not digits[-1]:
        digits.pop()
    while digits and not digits[0]:
        digits.pop(0)
        weight -= 1
    return struct.pack(f"!i4h{len(digits)}h", 8 + 2 * len(digits), len(digits), weight if digits else 0, 0, 6, *digits)


def bigints_cell(values: list[int]) -> bytes:
    """Return a cell of one-dimensional ``bigint[]``, which is not empty."""
    size = len(values)
    return b"".join((_array(20 + 12 * size, 1, 0, _INT8, size, 1), *[_element(8, value) for value in values]))


_INT8 = 20  # the type's number in every PostgreSQL
_array = struct.Struct("!iiiiii").pack
_element = struct.Struct("!iq").pack
_SMALL = 10_000 * MICRO
_WHOLE = tuple(_numeric_cell(whole * MICRO) for whole in range(10_000))
_NOTHING_CACHED = numeric_cell(0) + _NULL
_NO_WORDS = cell("") + _json_cell({}) + 3 * cell("")
