"""The split of a listing: a share on each version of its rate cards, changed from a time on and never before it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.kernel.clock import Clock, check_ahead
from haat.kernel.errors import Conflict, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _
from haat.settlement import share_store
from haat.settlement.withholding import check_rate


@dataclass(frozen=True, slots=True)
class ShareVersion:
    """The provider's part of the net charges of calls from ``effective_from`` on. ``plan`` None: every other plan."""

    plan: str | None
    version: int
    share: Decimal
    effective_from: datetime


class Shares:
    """Reads and changes the split of listings."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db, self._clock = db, clock

    async def of(self, actor: Actor, service: UUID) -> list[ShareVersion]:
        """Return every version of a listing's split, newest first, for its provider and the operator."""
        actor.require(Permission.SETTLEMENTS_READ)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            provider = await share_store.provider_of(connection, service)
            if provider is None or not (actor.may(Permission.SETTLEMENTS_RUN) or provider == actor.org_id):
                raise NotFound(_("There is no such listing of yours."))
            return [ShareVersion(**row) for row in await share_store.shares(connection, service)]

    async def change(
        self, actor: Actor, service: UUID, share: Decimal, effective_from: datetime | None = None
    ) -> list[ShareVersion]:
        """Give a provider another share of a listing from a time on, now if none is given (operator).

        Each card in force then has a further version that differs in nothing else, so calls before keep the split that
        they were made under, whenever they are billed. Return those versions, none where the share is the same already.
        Raise Conflict when a further price is announced for later: it would bring its own share back.
        """
        actor.require(Permission.SETTLEMENTS_RUN)
        try:
            share = check_rate(share)
        except ValueError as error:
            message = _("Enter a fraction between 0 and 1 with at most five decimals, such as 0.7.")
            raise ValidationFailed(errors=[{"field": "share", "message": message}]) from error
        now = self._clock.now()
        at = now if effective_from is None else check_ahead(effective_from, now, "effective_from")
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            provider = await share_store.provider_of(connection, service)
            if provider is None:
                raise NotFound(_("There is no such listing."))
            await share_store.lock_cards(connection, service)
            if later := await share_store.later_card(connection, service, at):
                raise Conflict(
                    _("A card of this listing begins at %(later)s: choose a time after that.", later=later.isoformat())
                )
            identifiers = [new_id() for _ in range(await share_store.cards(connection, service))]
            rows = await share_store.add_share(connection, service, share, at, now, identifiers)
            if rows:
                await events.append(
                    connection,
                    stream=f"service/{service}",
                    type="service.share_changed",
                    data={"share": str(share), "effective_from": at.isoformat(), "cards": len(rows)},
                    actor=actor.label,
                    org=provider,
                    at=now,
                )
        return [ShareVersion(**row) for row in rows]
