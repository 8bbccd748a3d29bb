"""A market of the money path's, whose services promise something, and weeks of synthetic traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from bazaar import Bazaar, Service, Subscription
from haat.catalog.service import Catalog
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.kernel.errors import Conflict
from haat.kernel.events import DomainEvent
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM, Actor
from haat.partners.service import Partners
from haat.settings import Settings
from haat.sla.closing import Closing, CreditItem
from haat.sla.model import Objective, ObjectiveDraft
from haat.sla.probing import Prober
from haat.sla.service import Sla
from haat.sla.watching import Watch
from haat.usage.event import Outcome, Timings, UsageEvent
from haat.usage.model import Pseudonyms

# As `haat.invoices` has them, in a schema of their own: what is tested here is the port, not who stands behind it.
CREDIT_NOTE_LINES = """
    CREATE SCHEMA port;
    CREATE TABLE port.credit_notes (id uuid PRIMARY KEY, key text NOT NULL UNIQUE, reason text NOT NULL);
    CREATE TABLE port.credit_note_lines (
        id uuid PRIMARY KEY, credit_note_id uuid NOT NULL, invoice_line_id uuid NOT NULL, org_id uuid NOT NULL,
        provider_org uuid NOT NULL, taxable numeric(20, 2) NOT NULL, provider_share numeric(6, 5) NOT NULL,
        fault text NOT NULL CHECK (fault IN ('provider', 'platform')));
    GRANT USAGE ON SCHEMA port TO haat_app, haat_service;
    GRANT SELECT, INSERT, UPDATE, DELETE ON port.credit_notes, port.credit_note_lines TO haat_app, haat_service;
"""


@dataclass(frozen=True)
class WrittenNote:
    id: UUID


@dataclass
class Notes:
    """Credit notes in a real table: the same key is the same note, and never more than a line's remaining value."""

    refused: str = ""
    calls: int = 0

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
    ) -> WrittenNote:
        self.calls += 1
        if self.refused:
            raise Conflict(self.refused)
        found = await (await connection.execute("SELECT id FROM port.credit_notes WHERE key = %s", (key,))).fetchone()
        if found is not None:
            return WrittenNote(found["id"])
        note = new_id()
        await connection.execute("INSERT INTO port.credit_notes VALUES (%s, %s, %s)", (note, key, reason))
        for item in items:
            row = await (
                await connection.execute(
                    """
                    INSERT INTO port.credit_note_lines
                    SELECT %(id)s, %(note)s, line.id, line.org_id, line.provider_org, %(taxable)s, line.provider_share,
                           %(fault)s
                    FROM invoice_lines AS line WHERE line.id = %(line)s AND %(taxable)s <= line.taxable - (
                        SELECT coalesce(sum(taxable), 0) FROM port.credit_note_lines WHERE invoice_line_id = line.id)
                    RETURNING id
                    """,
                    {
                        "id": new_id(),
                        "note": note,
                        "taxable": item.taxable,
                        "fault": item.fault,
                        "line": item.invoice_line,
                    },
                )
            ).fetchone()
            if row is None:
                raise Conflict("More than the line's remaining value.")
        return WrittenNote(note)


@dataclass
class Level:
    """Everything that a service level needs, on a fresh database with a clock that stands still."""

    db: Database
    bazaar: Bazaar
    clock: SetClock
    settings: Settings
    sla: Sla
    watch: Watch
    closing: Closing
    prober: Prober
    invoices: Invoices
    notes: Notes
    made: dict[str, Any] = field(default_factory=dict)

    async def promise(self, service: Service, **changes: Any) -> Objective:
        """Let the operator set an objective."""
        return await self.sla.promise(PLATFORM, service.id, ObjectiveDraft.model_validate(changes))

    def calls(
        self,
        subscription: Subscription,
        count: int,
        *,
        failed: int = 0,
        status: int = 503,
        code: str = "",
        over: timedelta = timedelta(minutes=1),
        until: datetime | None = None,
        ms: float = 40,
        **members: Any,
    ) -> list[UsageEvent]:
        """Return calls spread evenly over the time before now, the failed ones spread among them."""
        end = until or self.clock.now()
        found = []
        for number in range(count):
            at = end - over + over * (number + 0.5) / count
            bad = number * failed // count != (number + 1) * failed // count
            event = self.bazaar.event(
                subscription,
                at=at,
                outcome=Outcome.PROVIDER_FAILED if bad else Outcome.COMPLETED,
                status=status if bad else 200,
                **{"error_code": code if bad else "", **members},
            )
            event.timings_us = Timings(first_byte=int(ms * 1000), total=int(ms * 1000) + 500)
            found.append(event)
        return found

    async def use(self, subscription: Subscription, count: int, **how: Any) -> list[UsageEvent]:
        """Bring calls into the usage store."""
        made = self.calls(subscription, count, **how)
        taken = await self.bazaar.take(made)
        assert (taken.rows, taken.quarantined) == (count, 0)
        return made

    async def probed(self, service: Service, good: bool, *, times: int = 1, every: float = 60) -> None:
        """Keep probes as the prober does, the last of them now."""
        from haat.sla import counts

        now = self.clock.now()
        rows = [
            {
                "id": new_id(),
                "service_id": service.id,
                "at": now - timedelta(seconds=every * back),
                "kind": "health",
                "good": good,
                "counted": True,
                "ms": 5,
                "detail": "",
            }
            for back in reversed(range(times))
        ]
        async with self.db.transaction(PLATFORM_SCOPE) as connection:
            await counts.add_probes(connection, rows)

    async def told(self, service: Service) -> list[DomainEvent]:
        """Return what happened to a listing's level."""
        async with self.db.transaction(PLATFORM_SCOPE) as connection:
            return await events.read_stream(connection, f"sla/{service.id}")

    async def kinds(self, service: Service) -> list[str]:
        """Return what happened to a listing's level in a word each, its promises left out."""
        kinds = [event.type.removeprefix("sla.") for event in await self.told(service)]
        return [kind for kind in kinds if kind != "promised"]

    async def status(self, service: Service) -> tuple[str, str]:
        [row] = await self.bazaar.rows("SELECT status, status_reason FROM services WHERE id = %s", service.id)
        return row["status"], row["status_reason"]

    def to(self, at: datetime) -> None:
        """Move the clock to a moment."""
        self.clock.advance(seconds=(at - self.clock.now()).total_seconds())


def open_level(database: Any, clock: SetClock, keyring: Keyring, **changes: Any) -> Level:
    settings = Settings(allowed_networks=["127.0.0.0/8"], **changes)
    partners = Partners(database.app, clock)
    catalog = Catalog(
        database.app,
        clock,
        keyring,
        partners,
        allowed_networks=[],
        https_only=False,
        provider_share=Decimal("0.70"),
    )
    parts = (database.app, clock, settings)
    watch, notes = Watch(*parts, catalog=catalog), Notes()
    return Level(
        database.app,
        Bazaar(database.service, clock),
        clock,
        settings,
        Sla(*parts, pseudonyms=Pseudonyms(bytes(32))),
        watch,
        Closing(*parts, watch=watch, credit=notes),
        Prober(*parts, keyring=keyring),
        Invoices(database.app, clock, settings),
        notes,
    )
