"""What settlement asks of others: credit notes, which invoices issue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from haat.infra.postgres import Connection
from haat.invoices.credits import CreditItem
from haat.kernel.permissions import Actor


class Note(Protocol):
    """A credit note that was issued."""

    @property
    def id(self) -> UUID: ...


class Credit(Protocol):
    """The port to credit notes: `haat.invoices.credits.credit`."""

    async def __call__(
        self,
        connection: Connection,
        actor: Actor,
        items: Sequence[CreditItem],
        *,
        key: str,
        reason: str,
        reference: str,
        at: datetime,
    ) -> Note:
        """Issue a credit note within the caller's transaction; the same key gives the same one.

        Raise ValidationFailed or Conflict for more than is left of a line.
        """
        ...
