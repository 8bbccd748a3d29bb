"""The parts of a usage row that recur from call to call, each encoded for COPY: who called what, how much, the rest.

An event says all three of them; a piece of an event's JSON may say one (see `haat.usage.glance`). Each part has usual
columns and others in which most calls say nothing: where a part says nothing in them, the table's defaults do.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from functools import lru_cache
from uuid import UUID

from haat.usage.cells import (
    MICRO,
    NULL,
    boolean_cell,
    cell,
    json_cell,
    numeric_cell,
    smallint_cell,
    uuid_cell,
)
from haat.usage.event import LIVE, SHADOW, TEST, Outcome, UsageEvent
from haat.usage.model import MAX_QUANTITY, QUANTITY_STEP, UNITS, Misfit

CALLER_COLUMNS = (
    "org_id",
    "application_id",
    "subscription_id",
    "service_id",
    "provider_org",
    "plan",
    "outcome",
    "credential_id",
    "provider",
    "service_slug",
    "version",
    "method",
    "path_template",
)
CALLER_OTHERS = ("end_user", "tags", "caller_request_id", "variant")
COUNTED_COLUMNS = ("error_code", *UNITS, "units_source")
COUNTED_OTHERS = ("other_units", "raw_usage")
REST_COLUMNS = ("cache", "region", "language_pair", "attempts", "gateway")
REST_OTHERS = ("cached", "cached_share", "executed_by", "trace", "mode", "rollout", "arm", "agreed")

_FROM_CACHE = ("hit", "partial")
_SHARE_STEP = Decimal("0.001")
_WIDE = Context(prec=60, rounding=ROUND_HALF_UP)


class Part:
    """A part's columns for COPY: the usual ones, and ``data`` with the others behind them.

    ``usual`` is None where the others say something.
    """

    __slots__ = ("data", "usual")

    def __init__(self, usual: bytes, others: bytes, defaults: bytes) -> None:
        self.data = usual + others
        self.usual = usual if others == defaults else None


class Caller(Part):
    """Who called what, and what became of it.

    ``key`` are the first seven columns, by which customers' rollups are kept; ``seller``, ``service`` and ``outcome``
    are what sellers' are kept by.
    """

    __slots__ = ("key", "outcome", "seller", "service")

    def __init__(self, usual: bytes, others: bytes, key: bytes, seller: bytes, service: bytes, outcome: bytes) -> None:
        super().__init__(usual, others, _NOBODY)
        self.key, self.seller, self.service, self.outcome = key, seller, service, outcome


class Amounts:
    """Quantities in millionths, one for each of `UNITS`."""

    __slots__ = UNITS

    def __init__(self) -> None:
        self.requests = self.characters = self.graphemes = self.tokens = self.audio_seconds = 0
        self.pages = self.images = self.bytes = self.compute_seconds = 0

    def add(self, other: Amounts) -> None:
        self.requests += other.requests
        self.characters += other.characters
        self.graphemes += other.graphemes
        self.tokens += other.tokens
        self.audio_seconds += other.audio_seconds
        self.pages += other.pages
        self.images += other.images
        self.bytes += other.bytes
        self.compute_seconds += other.compute_seconds


class Counted(Part):
    """How much; ``amounts`` are those of the units that have columns."""

    __slots__ = ("amounts",)

    def __init__(self, usual: bytes, others: bytes, amounts: Amounts) -> None:
        super().__init__(usual, others, _NO_MORE)
        self.amounts = amounts


class Rest(Part):
    """What else was seen; rollups are kept by the language ``pair``, and count only what is ``live``."""

    __slots__ = ("live", "pair")

    def __init__(self, usual: bytes, others: bytes, live: bool, pair: bytes) -> None:
        super().__init__(usual, others, _NOTHING_ELSE)
        self.live, self.pair = live, pair


def caller_of(event: UsageEvent) -> Caller:
    """Return who called what; raise Misfit for an id that is none."""
    seller, service = _reference(event.provider_org), _reference(event.service)
    outcome = cell(event.outcome.value)
    key = b"".join(
        (
            _reference(event.org),
            _reference(event.application),
            _reference(event.subscription),
            service,
            seller,
            cell(event.plan) if event.plan else NULL,
            outcome,
        )
    )
    return Caller(
        b"".join(
            (
                key,
                _reference(event.credential),
                cell(event.provider),
                cell(event.service_slug),
                cell(event.version),
                cell(event.method),
                cell(event.path_template),
            )
        ),
        _asked_for(event),
        key,
        seller,
        service,
        outcome,
    )


def counted_of(event: UsageEvent) -> Counted:
    """Return how much; raise Misfit for a quantity that can't be counted."""
    amounts = Amounts()
    cells = dict.fromkeys(UNITS, NULL)
    others: dict[str, str] = {}
    for unit, text in event.units.items():
        micros = _micros(unit, text)
        if unit in cells:
            setattr(amounts, unit, micros)
            cells[unit] = numeric_cell(micros)
        else:
            others[unit] = _decimal_text(micros)
    return Counted(
        b"".join(
            (
                cell(event.error_code),
                *cells.values(),
                cell(event.units_source),
            )
        ),
        _more(others, event.raw_usage),
        amounts,
    )


def rest_of(event: UsageEvent) -> Rest:
    """Return the rest; raise Misfit for a cached part that can't be and for an id that is none."""
    mode = event.mode if event.mode in (LIVE, SHADOW) else TEST
    pair = cell(event.language_pair)
    return Rest(
        b"".join(
            (
                cell(event.cache),
                cell(event.region),
                pair,
                smallint_cell(event.attempts),
                cell(event.gateway),
            )
        ),
        _else(event, mode),
        mode == LIVE,
        pair,
    )


def _asked_for(event: UsageEvent) -> bytes:
    return b"".join((cell(event.user), json_cell(event.tags), cell(event.caller_request_id), cell(event.variant)))


def _more(others: Mapping[str, str], raw_usage: str) -> bytes:
    return json_cell(others) + cell(raw_usage)


def _else(event: UsageEvent, mode: str) -> bytes:
    return b"".join(
        (
            *_cached(event),
            _reference(event.executed_by),
            cell(event.trace),
            cell(mode),
            _reference(event.rollout),
            cell(event.arm),
            boolean_cell(event.agreed),
        )
    )


def id_bytes(text: str) -> bytes:
    """Return an id's 16 bytes; raise ValueError for what is none. Four times as quick as a UUID on the usual form."""
    if len(text) == 36:
        found = bytes.fromhex(text.replace("-", ""))
        if len(found) == 16:
            return found
    return UUID(text).bytes


def _cached(event: UsageEvent) -> tuple[bytes, bytes]:
    """Return how much of the unit that its service is sold by came out of the cache, and what part of it that costs."""
    cached = 0
    if event.cached_units:
        [(unit, text), *others] = event.cached_units.items()
        cached = _micros(unit, text)
        whole = _micros(unit, event.units[unit]) if unit in UNITS and unit in event.units else 0
        if others or event.cache not in _FROM_CACHE or cached > whole:
            raise Misfit("more of it came out of the cache than there was")
    if event.cache not in _FROM_CACHE:
        return numeric_cell(cached), NULL
    try:
        share = Decimal(event.cached_share or "1")
        if not 0 <= share <= 1 or share != share.quantize(_SHARE_STEP):
            raise Misfit(f"its cached part can't cost {event.cached_share[:20]} of the price")
    except InvalidOperation as error:
        raise Misfit("the share of the price for its cached part is not a number") from error
    return numeric_cell(cached), numeric_cell(int(share * MICRO))


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
def _reference(text: str) -> bytes:
    """Return the cell of an id; organisations and services recur from row to row."""
    if not text:
        return NULL
    try:
        return uuid_cell(id_bytes(text))
    except ValueError as error:
        raise Misfit("it names an organisation, service or credential by something that is not a UUID") from error


_BLANK = UsageEvent(id="", at=0, outcome=Outcome.COMPLETED)
_NOBODY = _asked_for(_BLANK)
_NO_MORE = _more({}, "")
_NOTHING_ELSE = _else(_BLANK, LIVE)
"""The table's defaults of the others of each part."""
