"""Balances, as the projection of entries that they are."""

from __future__ import annotations

from datetime import datetime

from haat.infra.postgres import Connection
from haat.infra.projections import Projection
from haat.ledger import store


class Balances(Projection):
    """What stands on each account."""

    __slots__ = ()

    async def fill(self, connection: Connection, until: datetime | None) -> None:
        await store.fill_balances(connection, until)


BALANCES = Balances("balances", ("ledger_balances",))
