"""Steps that several use cases take, each within the caller's transaction and under the provider's lock.

Nothing is posted here: each step returns its operations, which the use case posts together, late and once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.postgres import Connection
from haat.infra.projections import record
from haat.kernel.ids import new_id
from haat.ledger.model import Operation, account, moved
from haat.settlement import payout_store
from haat.settlement.payout_model import STEP_EVENTS, Status, next_status
from haat.settlement.projection import SETTLEMENTS


async def place_hold(
    connection: Connection,
    by: str,
    org: UUID,
    amount: Decimal,
    *,
    reason: str,
    at: datetime,
    settlement: UUID | None = None,
    dispute: UUID | None = None,
) -> tuple[UUID, list[Operation]]:
    """Keep an amount out of a provider's payouts.

    What is held of a settlement counts when that does: at once if a payout settles it already. Payouts that nobody has
    sent are reversed first where they would carry the money away.
    """
    earning = await payout_store.earning_of(connection, "settlement", settlement) if settlement else None
    if earning is None or not earning["free"]:
        await withdraw(connection, by, org, f"Something is held since: {reason}", at)
        earning = await payout_store.earning_of(connection, "settlement", settlement) if settlement else None
    since = earning["since"] if earning is not None and earning["free"] else None
    identifier = new_id()
    await record(
        connection,
        SETTLEMENTS,
        stream=f"hold/{identifier}",
        type="hold.placed",
        data={
            "amount": str(amount),
            "settlement": str(settlement) if settlement else None,
            "dispute": str(dispute) if dispute else None,
            "reason": reason,
            "since": since.isoformat() if since else None,
            "earning": str(new_id()),
        },
        actor=by,
        org=org,
        at=at,
    )
    entries = moved(account("payable", org), account("held", org), amount)
    return identifier, [Operation(f"hold/{identifier}", "hold", at, entries, f"hold/{identifier}")]


async def release_hold(
    connection: Connection, by: str, hold: Mapping[str, Any], reason: str, at: datetime
) -> list[Operation]:
    """Give an amount back to a provider's payouts; it counts when what was held of would."""
    identifier, org = hold["id"], hold["org_id"]
    placed = await payout_store.earning_of(connection, "hold", identifier)
    assert placed is not None, "a hold makes a row"
    await record(
        connection,
        SETTLEMENTS,
        stream=f"hold/{identifier}",
        type="hold.released",
        data={
            "amount": str(hold["amount"]),
            "reason": reason,
            "since": placed["since"].isoformat() if placed["since"] else None,
            "earning": str(new_id()),
        },
        actor=by,
        org=org,
        at=at,
    )
    entries = moved(account("held", org), account("payable", org), hold["amount"])
    return [Operation(f"release/{identifier}", "release", at, entries, f"hold/{identifier}")]


async def withdraw(connection: Connection, by: str, org: UUID, reason: str, at: datetime) -> None:
    """Reverse a provider's payouts that nobody has sent or held: the next draft counts anew."""
    for payout in await payout_store.unsent(connection, org):
        await move_payout(connection, by, payout, "reverse", at, reason=reason)


async def move_payout(
    connection: Connection, by: str, payout: Mapping[str, Any], step: str, at: datetime, **data: str
) -> list[Operation]:
    """Take a step with a payout and return what it posts; raise Conflict when it can't be taken."""
    was, to = Status(payout["status"]), next_status(payout["status"], step)
    identifier, org, amount = payout["id"], payout["org_id"], payout["amount"]
    event = await record(
        connection,
        SETTLEMENTS,
        stream=f"payout/{identifier}",
        type=STEP_EVENTS[step],
        data={**data, "was": was.value, "status": to.value, "amount": str(amount)},
        actor=by,
        org=org,
        at=at,
    )
    about, payable, held = f"payout/{identifier}", account("payable", org), account("held", org)
    once = f"{identifier}.{event.version}"  # a payout may be held more than once
    operations = []
    if to is Status.HELD:
        operations.append(Operation(f"hold/{once}", "hold", at, moved(payable, held, amount), about))
    if was is Status.HELD:
        operations.append(Operation(f"release/{once}", "release", at, moved(held, payable, amount), about))
    if to is Status.PAID:
        operations.append(Operation(about, "payout", at, moved(payable, "bank", amount), about))
    if was is Status.PAID:
        entries = moved("bank", payable, amount)
        operations.append(Operation(f"payout-reversal/{identifier}", "payout-reversal", at, entries, about))
    return operations
