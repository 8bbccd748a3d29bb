"""Corrections of calls: a record beside the row, which is never rewritten.

A call is void from an ingest batch on. One that was counted wrongly is void too, and a row like it with the right
quantities is counted in its place: in the same millisecond, so in the same month and at the same price. Rating leaves
out what is void; rollups go on saying what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from haat.infra import events
from haat.infra.postgres import Connection
from haat.kernel.errors import Conflict, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor, Permission
from haat.usage import intake
from haat.usage.model import MAX_QUANTITY, QUANTITY_STEP, UNITS

_QUANTITIES = f"SELECT org_id, cached, {', '.join(UNITS)} FROM usage WHERE id = %s"
_WIDE = Context(prec=60, rounding=ROUND_HALF_UP)


@dataclass(frozen=True, slots=True)
class Correction:
    """A call that is void, and the one counted in its place, if any."""

    call_id: UUID
    org_id: UUID
    batch: int
    replaced_by: UUID | None
    reason: str
    actor: str
    at: datetime


async def correct(
    connection: Connection,
    actor: Actor,
    call: UUID,
    *,
    units: Mapping[str, Decimal] | None,
    reason: str,
    at: datetime,
) -> Correction:
    """Void a call, or with ``units`` count other quantities in its place, within the caller's transaction.

    Units that aren't named stay as they are. The same correction again changes nothing; raise Conflict for a call
    that was corrected otherwise: correct the one that is counted in its place.
    """
    actor.require(Permission.INVOICES_RUN)
    reason = reason.strip()
    if not reason or len(reason) > 500:
        raise ValidationFailed(errors=[{"field": "reason", "message": "Say why, in at most 500 characters."}])
    quantities = _check(units)
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (intake.INTAKE_LOCK,))
    row = await _row(connection, _QUANTITIES, call)
    if row is None or row["org_id"] is None:
        raise NotFound("There is no such call.")
    present = await _row(connection, "SELECT * FROM usage_corrections WHERE call_id = %s", call)
    if present is not None:
        return await _same(connection, present, row, quantities)
    batch, replacement = await intake.watermark(connection) + 1, None
    if quantities is not None:
        replacement = UUID(int=call.int & ~((1 << 62) - 1) | new_id().int & ((1 << 62) - 1))
        changes = {"id": str(replacement), "batch": batch, **{unit: str(value) for unit, value in quantities.items()}}
        cached = row["cached"]
        if cached and any(cached > value for value in quantities.values()):
            raise ValidationFailed(
                errors=[{"field": "units", "message": f"{cached} of it came out of the cache: it can't be less."}]
            )
        await connection.execute(
            """
            INSERT INTO usage SELECT made.* FROM usage, jsonb_populate_record(usage, %s) AS made WHERE usage.id = %s
            """,
            (Jsonb(changes), call),
        )
    await connection.execute(
        """
        INSERT INTO usage_batches (batch, shipped_at, rows, duplicates, quarantined) VALUES (%s, %s, %s, 0, 0)
        """,
        (batch, at, 1 if replacement else 0),
    )
    await connection.execute(
        """
        INSERT INTO usage_corrections (call_id, org_id, batch, replaced_by, reason, actor, at)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        """,
        (call, row["org_id"], batch, replacement, reason, actor.label, at),
    )
    await events.append(
        connection,
        stream=f"usage/{call}",
        type="usage.voided" if replacement is None else "usage.corrected",
        data={
            "batch": batch,
            "replaced_by": str(replacement) if replacement else None,
            "units": {unit: str(value) for unit, value in (quantities or {}).items()},
            "reason": reason,
        },
        actor=actor.label,
        org=row["org_id"],
        at=at,
    )
    return Correction(call, row["org_id"], batch, replacement, reason, actor.label, at)


async def _same(
    connection: Connection, present: Mapping[str, Any], row: Mapping[str, Any], quantities: Mapping[str, Decimal] | None
) -> Correction:
    """Return the correction that there is, if it is this one."""
    found = Correction(**present)
    if (found.replaced_by is None) == (quantities is None):
        if quantities is None:
            return found
        counted = await _row(connection, _QUANTITIES, found.replaced_by)
        assert counted is not None
        if all(counted[unit] == quantities.get(unit, row[unit]) for unit in UNITS):
            return found
    other = found.replaced_by or "nothing"
    raise Conflict(f"This call was corrected before: {other} is counted in its place.")


async def _row(connection: Connection, query: str, value: Any) -> Mapping[str, Any] | None:
    row = await (await connection.execute(query, (value,))).fetchone()
    return row


def _check(units: Mapping[str, Decimal] | None) -> dict[str, Decimal] | None:
    if units is None:
        return None
    if not units:
        raise ValidationFailed(errors=[{"field": "units", "message": "Say which quantities are right."}])
    found = {}
    for unit, quantity in units.items():
        if unit not in UNITS:
            message = f"There is no unit {unit[:40]}: it is one of {', '.join(UNITS)}."
            raise ValidationFailed(errors=[{"field": "units", "message": message}])
        if not quantity.is_finite() or not 0 <= quantity < MAX_QUANTITY:
            raise ValidationFailed(errors=[{"field": "units", "message": f"{unit} can't be {quantity}."}])
        found[unit] = quantity.quantize(QUANTITY_STEP, context=_WIDE)
    return found
