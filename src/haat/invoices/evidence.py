"""The calls behind an invoice line, all of them, and the lines that a call lies on: evidence, in both directions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.invoices import call_store, store
from haat.invoices.portions import Weight
from haat.invoices.service import BilledCall
from haat.kernel.errors import NotFound
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _

BATCH = 5000
"""Calls that are read at once, so that memory doesn't grow with their number."""


async def batches_of_calls(db: Database, line_id: UUID) -> AsyncIterator[Sequence[BilledCall]]:
    """Yield a line's calls in order of time, some thousand at once, each from a transaction of its own.

    Its predicate is frozen, so nothing changes between one and the next; and no reader, however slow, keeps a
    transaction open. Whether somebody may see them is for the caller to know.
    """
    async with db.transaction(PLATFORM_SCOPE) as connection:
        line = await store.line(connection, line_id)
        if line is None:
            return
        spread = await call_store.spread(connection, line)
    after, before = None, Weight()
    while True:
        async with db.transaction(PLATFORM_SCOPE) as connection:
            rows = await call_store.calls_of_line(connection, line, after, BATCH)
        if rows:
            quantities = [row["quantity"] for row in rows]
            amounts = spread.portions(before, quantities)
            yield [BilledCall(**row, amount=amount) for row, amount in zip(rows, amounts, strict=True)]
            for quantity in quantities:
                before = before.plus(quantity)
        if len(rows) < BATCH:
            return
        after = rows[-1]["id"]


@dataclass(frozen=True, slots=True)
class Portion:
    """What a call bears of one line that it lies on; what a card puts on one meter is told apart from the next.

    ``amount`` is in rupees before tax, to twelve decimals; those of all calls of a line sum to the line's. ``invoice``
    members are the customer's to see, ``settlement_id`` the provider's; None to everybody else.
    """

    meter: str
    unit: str
    kind: str
    period: str
    quantity: Decimal
    cached_share: Decimal | None
    voided: bool
    amount: Decimal
    line_amount: Decimal
    line_calls: int
    invoice_id: UUID | None
    serial: str | None
    line_id: UUID | None
    position: int | None
    settlement_id: UUID | None


async def portions(db: Database, actor: Actor, call: UUID) -> list[Portion]:
    """Return what a call bears of each invoice line that it lies on, oldest first: by its request id.

    For its customer, its provider and the operator; raise NotFound for anybody else. A call that is on no invoice yet,
    or isn't billed, has none.
    """
    operator = actor.may(Permission.INVOICES_RUN)
    found: list[Portion] = []
    async with db.transaction(PLATFORM_SCOPE) as connection:
        customer_org, provider_org = await call_store.parties(connection, call)
        customer = operator or (customer_org == actor.org_id and actor.may(Permission.INVOICES_READ))
        provider = operator or (provider_org == actor.org_id and actor.may(Permission.SETTLEMENTS_READ))
        if (customer_org is None and provider_org is None) or not (customer or provider):
            raise NotFound(_("There is no such call, or it is not yours. A call shows up seconds after its answer."))
        for line in await call_store.lines_about(connection, call):
            on_line = await call_store.on_line(connection, line, call)
            if on_line is None:
                continue
            spread = await call_store.spread(connection, line)
            before = await call_store.weight(connection, line, call)
            (amount,) = spread.portions(before, [on_line["quantity"]])
            found.append(_portion(line, on_line, amount, customer=customer, provider=provider))
    return found


def _portion(
    line: Mapping[str, Any], on_line: Mapping[str, Any], amount: Decimal, *, customer: bool, provider: bool
) -> Portion:
    return Portion(
        line["meter"] or line["unit"],
        line["unit"],
        line["kind"],
        line["period"],
        on_line["quantity"],
        line["cached_share"],
        on_line["voided"],
        amount,
        line["taxable"],
        line["calls"],
        line["invoice_id"] if customer else None,
        line["serial"] if customer else None,
        line["id"] if customer else None,
        line["position"] if customer else None,
        line["settlement_id"] if provider else None,
    )
