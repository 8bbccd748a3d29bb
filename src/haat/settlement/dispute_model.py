"""Disputes: somebody's own log of calls, held against what we counted, call by call. Pure."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from itertools import groupby
from typing import Any, Literal
from uuid import UUID

from haat.kernel.errors import ValidationFailed
from haat.kernel.money import total
from haat.language.messages import _
from haat.usage.model import MAX_QUANTITY, QUANTITY_STEP

LogForm = Literal["csv", "jsonl"]
MAX_LINE_BYTES = 8192
MOST_LOG_BYTES = 2 * 1024**3
"""The largest log that is taken: some forty million calls."""

_WIDE = Context(prec=60, rounding=ROUND_HALF_UP)


@dataclass(frozen=True, slots=True)
class Claim:
    """A call as somebody's own log has it. ``unit`` is empty where it names none, ``line`` where it isn't ours."""

    request_id: UUID
    unit: str
    quantity: Decimal
    line: str = ""


@dataclass(frozen=True, slots=True)
class Metered:
    """A call as a line of ours has it."""

    request_id: UUID
    unit: str
    quantity: Decimal
    line: UUID


@dataclass(frozen=True, slots=True)
class Difference:
    """A call on which two logs differ; ``more`` says on which lines we have how much more than they."""

    request_id: UUID
    unit: str
    kind: Literal["only_ours", "only_theirs", "different"]
    ours: Decimal | None
    theirs: Decimal | None
    more: Mapping[UUID, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dispute:
    """Two logs held against each other. Counts are of calls; ``log_hash`` is the SHA-256 of the log that was sent."""

    id: UUID
    org_id: UUID
    side: str
    subject: str
    period: str
    status: str
    log_hash: str
    ours: int
    theirs: int
    only_ours: int
    only_theirs: int
    different: int
    reason: str
    note: str
    credit_note_id: UUID | None
    opened_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ContestedLine:
    """A line of which we count more than they do: on how many ``calls``, by what ``quantity``, and what came of it."""

    invoice_line_id: UUID
    description: str
    unit: str
    taxable: Decimal
    calls: int
    quantity: Decimal
    open: bool
    credited: Decimal
    fault: str | None


def wrong_log(message: str) -> ValidationFailed:
    return ValidationFailed(
        _("The log can't be read: nothing was opened."), errors=[{"field": "log", "message": message}]
    )


# --- reading a log --------------------------------------------------------------------------------


class LogReader:
    """Reads a log piece by piece: CSV with a header, or JSON lines; ``request_id``, ``quantity``, and maybe ``unit``.

    Other columns and members are passed over, so that a statement's own evidence can be sent back; so are the rows of
    that (they have a ``line_id``) that take a voided call off again. Raises ValidationFailed that names the line of
    whatever can't be read.
    """

    def __init__(self, form: LogForm) -> None:
        self._form, self._rest, self._number = form, b"", 0
        self._columns: list[str] = []
        self.has_units: bool | None = None

    def feed(self, piece: bytes) -> list[Claim]:
        """Return the calls whose lines are whole now."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise wrong_log(f"line {self._number + len(lines) + 1} is longer than {MAX_LINE_BYTES} bytes")
        return [claim for line in lines if (claim := self._take(line)) is not None]

    def end(self) -> list[Claim]:
        """Return what the last line had, where no line break follows it."""
        claim = self._take(self._rest) if self._rest else None
        if self._form == "csv" and not self._columns:
            raise wrong_log("it is empty: its first line names the columns request_id and quantity")
        return [claim] if claim is not None else []

    def _take(self, line: bytes) -> Claim | None:
        self._number += 1
        if len(line) > MAX_LINE_BYTES:
            raise wrong_log(f"line {self._number} is longer than {MAX_LINE_BYTES} bytes")
        try:
            text = line.decode("utf-8-sig" if self._number == 1 else "utf-8").strip()
            if not text:
                return None
            members = self._members(text)
            return None if members is None else self._claim(members)
        except (ValueError, csv.Error, RecursionError) as error:
            raise wrong_log(f"line {self._number}: {error}") from error

    def _members(self, text: str) -> Mapping[str, Any] | None:
        if self._form == "jsonl":
            members = json.loads(text, parse_float=Decimal)
            if not isinstance(members, dict):
                raise ValueError("it is no JSON object")
            return members
        cells = next(csv.reader([text], strict=True))
        if not self._columns:
            self._columns = [cell.strip().lower() for cell in cells]
            if missing := {"request_id", "quantity"} - set(self._columns):
                raise ValueError(f"the columns have no {' and no '.join(sorted(missing))}")
            return None
        if len(cells) != len(self._columns):
            raise ValueError(f"it has {len(cells)} cells instead of {len(self._columns)}")
        return dict(zip(self._columns, cells, strict=True))

    def _claim(self, members: Mapping[str, Any]) -> Claim | None:
        try:
            identifier = UUID(str(members.get("request_id", "")).strip())
        except ValueError as error:
            raise ValueError("its request_id is none of ours: ours are UUIDs") from error
        given = members.get("quantity")
        if not isinstance(given, str | int | Decimal) or isinstance(given, bool):
            raise ValueError("it has no quantity")
        try:
            quantity = Decimal(given.strip() if isinstance(given, str) else given)
        except InvalidOperation as error:
            raise ValueError("its quantity is not a number") from error
        if quantity.is_finite() and quantity < 0 and members.get("line_id"):
            return None
        if not quantity.is_finite() or not 0 <= quantity < MAX_QUANTITY:
            raise ValueError("its quantity is negative, or too large to be one")
        unit = str(members.get("unit") or "").strip()[:100]
        if self.has_units is None:
            self.has_units = bool(unit)
        elif self.has_units != bool(unit):
            raise ValueError("name the unit on every line, or on none")
        line = str(members.get("line_id") or "").strip()[:100]
        return Claim(identifier, unit, quantity.quantize(QUANTITY_STEP, context=_WIDE), line)


# --- holding logs against each other --------------------------------------------------------------


def reconcile(ours: Iterable[Metered], theirs: Iterable[Claim], *, by_unit: bool) -> Iterator[Difference]:
    """Yield the differences of two logs, each in the order of request id and unit, holding one call at a time.

    A call that is twice in their log with the same quantity counts once; in evidence of ours, where the rows of a call
    name their lines, once a line. Raise ValidationFailed where it is there with different ones, or where a log without
    units meets a call that we bill in several.
    """
    mine = _grouped_ours(ours, by_unit)
    other = _grouped_theirs(theirs)
    one, two = next(mine, None), next(other, None)
    while one is not None or two is not None:
        if two is None or (one is not None and one[0] < two[0]):
            assert one is not None
            (identifier, unit), entries = one
            yield Difference(identifier, unit, "only_ours", _sum(entries), None, _per_line(entries, Decimal(0)))
            one = next(mine, None)
        elif one is None or two[0] < one[0]:
            (identifier, unit), quantity = two
            yield Difference(identifier, unit, "only_theirs", None, quantity)
            two = next(other, None)
        else:
            (identifier, unit), entries = one
            quantity, sum_ = two[1], _sum(entries)
            if sum_ != quantity:
                more = _per_line(entries, quantity)
                yield Difference(identifier, unit, "different", sum_, quantity, more)
            one, two = next(mine, None), next(other, None)


_Key = tuple[UUID, str]


def _grouped_ours(ours: Iterable[Metered], by_unit: bool) -> Iterator[tuple[_Key, list[Metered]]]:
    def key(call: Metered) -> _Key:
        return call.request_id, call.unit if by_unit else ""

    for found, group in groupby(ours, key):
        entries = list(group)
        if len({call.unit for call in entries}) > 1:
            raise wrong_log(f"the call {found[0]} is billed in several units: name the unit on every line")
        yield found, entries


def _grouped_theirs(theirs: Iterable[Claim]) -> Iterator[tuple[_Key, Decimal]]:
    for found, group in groupby(theirs, lambda claim: (claim.request_id, claim.unit)):
        quantities: dict[str, Decimal] = {}
        for claim in group:
            if quantities.setdefault(claim.line, claim.quantity) != claim.quantity:
                raise wrong_log(f"the call {found[0]} is there more than once, with different quantities")
        yield found, total(quantities.values())


def _sum(entries: Iterable[Metered]) -> Decimal:
    return total(call.quantity for call in entries)


def _per_line(entries: Iterable[Metered], theirs: Decimal) -> dict[UUID, Decimal]:
    """Return what we have more than they on each line: what they have is taken to be on the first ones."""
    more: dict[UUID, Decimal] = {}
    for call in entries:
        agreed = min(call.quantity, theirs)
        theirs = total((theirs, -agreed))
        if agreed < call.quantity:
            more[call.line] = total((more.get(call.line, Decimal(0)), call.quantity, -agreed))
    return more
