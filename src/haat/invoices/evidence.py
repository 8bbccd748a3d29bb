"""The calls behind an invoice line, all of them: what a statement's evidence and a dispute are made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.invoices import store
from haat.invoices.service import BilledCall

BATCH = 5000
"""Calls that are read at once, so that memory doesn't grow with their number."""


async def batches_of_calls(db: Database, line_id: UUID) -> AsyncIterator[Sequence[BilledCall]]:
    """Yield a line's calls in order of time, some thousand at once, each from a transaction of its own.

    Its predicate is frozen, so nothing changes between one and the next; and no reader, however slow, keeps a
    transaction open. Whether somebody may see them is for the caller to know.
    """
    after: UUID | None = None
    while True:
        async with db.transaction(PLATFORM_SCOPE) as connection:
            line = await store.line(connection, line_id)
            if line is None:
                return
            calls = [BilledCall(**row) for row in await store.calls_of_line(connection, line, after, BATCH)]
        if calls:
            yield calls
        if len(calls) < BATCH:
            return
        after = calls[-1].id
