"""What settlements, holds, payouts and disputes come to: a fold of their events, made anew by the same functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from haat.infra.postgres import Connection
from haat.infra.projections import Fold
from haat.kernel.events import DomainEvent
from haat.settlement import dispute_store, payout_store, store

_APPLY: dict[str, Callable[[Connection, DomainEvent], Awaitable[None]]] = {
    "settlement.lines": store.apply_lines,
    "settlement.closed": store.apply_closed,
    "settlement.restated": store.apply_closed,
    "hold.placed": payout_store.apply_placed,
    "hold.released": payout_store.apply_released,
    "payout.drafted": payout_store.apply_drafted,
    "payout.held": payout_store.apply_moved,
    "payout.released": payout_store.apply_moved,
    "payout.approved": payout_store.apply_moved,
    "payout.sent": payout_store.apply_moved,
    "payout.paid": payout_store.apply_moved,
    "payout.failed": payout_store.apply_moved,
    "payout.reversed": payout_store.apply_moved,
    "payout-terms.set": payout_store.apply_terms,
    "dispute.opened": dispute_store.apply_opened,
    "dispute.decided": dispute_store.apply_ended,
    "dispute.withdrawn": dispute_store.apply_ended,
}


async def _apply(connection: Connection, event: DomainEvent) -> None:
    await _APPLY[event.type](connection, event)


SETTLEMENTS = Fold(
    "settlements",
    (
        "settlements",
        "settlement_lines",
        "settlement_credits",
        "settlement_withheld",
        "settlement_adjustments",
        "earnings",
        "holds",
        "payouts",
        "payout_rows",
        "payout_sendings",
        "payout_terms",
        "disputes",
        "dispute_lines",
    ),
    ("settlement", "hold", "payout", "payout-terms", "dispute"),
    _apply,
)
