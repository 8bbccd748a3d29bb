"""Use cases of disputes: somebody's own log is held against ours, contested lines are held back, and it is decided."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.infra.projections import record
from haat.invoices.credits import CreditItem
from haat.invoices.evidence import batches_of_calls
from haat.kernel.clock import Clock
from haat.kernel.errors import Conflict, InvalidRequest, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.money import PAISA
from haat.kernel.pages import MAX_PAGE, Page, decode_cursor, decode_id_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.kernel.text import check_name
from haat.language.messages import N_, _, gettext
from haat.ledger.model import Operation
from haat.ledger.service import post
from haat.settlement import dispute_store, payout_store, steps, store
from haat.settlement.dispute_model import ContestedLine, Dispute, LogForm, LogReader, Metered
from haat.settlement.model import Fault
from haat.settlement.ports import Credit
from haat.settlement.projection import SETTLEMENTS
from haat.settlement.service import Settlements
from haat.settlement.spool import Reconciled, Spool

_BATCH = 5000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a decision gives a customer back of a line, in rupees before tax, and who bears it."""

    credit: Decimal
    fault: Fault = "provider"


@dataclass(frozen=True, slots=True)
class DisputedCall:
    request_id: UUID
    unit: str
    kind: str
    ours: Decimal | None
    theirs: Decimal | None


@dataclass(frozen=True, slots=True)
class DisputeStory:
    dispute: Dispute
    lines: Sequence[ContestedLine]


class Disputes:
    """Contests statements and invoices by request id.

    ``credit`` is the port to credit notes; without it a dispute can be decided for the provider only. ``days`` is how
    long after its issue something can be contested.
    """

    def __init__(
        self, db: Database, clock: Clock, settlements: Settlements, *, days: int, credit: Credit | None = None
    ) -> None:
        self._db, self._clock, self._settlements = db, clock, settlements
        self._days, self._credit = days, credit

    async def open(
        self, actor: Actor, subject: str, log: AsyncIterable[bytes], form: LogForm, reason: str = ""
    ) -> Dispute:
        """Hold a log against ``settlement/{id}`` or ``invoice/{id}``, and contest the lines of which we count more.

        What the providers earned by those lines is held out of their payouts until it is decided. Logs without a
        difference are recorded as ``agreed``. Nothing is stored when the log can't be read, when its time is over, or
        while another dispute about the same thing is open.
        """
        kind, identifier = _subject(subject)
        side = "provider" if kind == "settlement" else "consumer"
        reason = check_name(reason, "reason", 300) if reason.strip() else ""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            about = await self._about(connection, actor, kind, identifier)
            await self._check_free(connection, subject)
            lines = await (
                dispute_store.lines_of_statement(connection, identifier)
                if kind == "settlement"
                else dispute_store.lines_of_invoice(connection, identifier)
            )
        with Spool() as spool:
            digest, by_unit = await _read(spool, log, form)
            for line in lines:
                async for calls in batches_of_calls(self._db, line["id"]):
                    counted = [one for one in calls if not one.voided]  # those take off what an earlier line has
                    await spool.add_ours([Metered(one.id, line["unit"], one.quantity, line["id"]) for one in counted])
            found = await spool.reconcile(by_unit=by_unit)
            return await self._record(
                actor,
                about,
                side,
                subject,
                reason,
                digest,
                found,
                {one["id"]: one["provider_org"] for one in lines},
                spool,
            )

    async def decide(self, actor: Actor, identifier: UUID, verdicts: Mapping[UUID, Verdict], note: str) -> Dispute:
        """Decide a dispute (operator). A line with a verdict goes for the customer, every other one for the provider.

        What is given back becomes a credit note, and is settled at once where its line is, so that no payout carries it
        away; then all that the dispute holds is released. All of it happens, or nothing.
        """
        actor.require(Permission.SETTLEMENTS_RUN)
        note, now = check_name(note, "note", 300), self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            dispute = await self._lock(connection, identifier)
            contested = {row["invoice_line_id"]: row for row in await dispute_store.lines(connection, identifier)}
            _check_verdicts(verdicts, contested)
            credit_note: UUID | None = None
            if verdicts:
                if self._credit is None:
                    raise Conflict(_("This platform issues no credit notes: it can be decided for the provider only."))
                items = [CreditItem(line, verdict.credit, verdict.fault) for line, verdict in sorted(verdicts.items())]
                about = f"dispute/{identifier}"
                issued = await self._credit(
                    connection, actor, items, key=about, reason="dispute", reference=about, at=now
                )
                credit_note = issued.id
            operations = await self._end(connection, actor, dispute, "decided", note, credit_note, verdicts)
            for provider in await dispute_store.providers(connection, identifier):
                if verdicts:
                    operations += await self._settlements.settle(connection, actor, dispute["period"], provider)
            await post(connection, operations)
            row = await dispute_store.dispute(connection, identifier)
        assert row is not None
        return Dispute(**row)

    async def withdraw(self, actor: Actor, identifier: UUID, note: str = "") -> Dispute:
        """Give a dispute up (who opened it, or the operator): what it holds is released."""
        note = check_name(note, "note", 300) if note.strip() else ""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await self._readable(connection, actor, identifier)
            dispute = await self._lock(connection, identifier)
            await post(connection, await self._end(connection, actor, dispute, "withdrawn", note, None, {}))
            row = await dispute_store.dispute(connection, identifier)
        assert row is not None
        return Dispute(**row)

    async def page(
        self, actor: Actor, *, status: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[Dispute]:
        """Return disputes, newest first: those one opened oneself, or for the operator all."""
        actor.require(Permission.INVOICES_READ)
        whose = None if actor.may(Permission.SETTLEMENTS_RUN) else actor.org_id
        side = None if actor.may(Permission.SETTLEMENTS_READ) else "consumer"
        limit = max(1, min(limit, MAX_PAGE))
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await dispute_store.page(connection, whose, status, side, decode_id_cursor(cursor), limit + 1)
        return page_of([Dispute(**row) for row in rows], limit, lambda dispute: (dispute.id,))

    async def story(self, actor: Actor, identifier: UUID) -> DisputeStory:
        """Return a dispute with the lines it contests; raise NotFound for another's."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = await self._readable(connection, actor, identifier)
            lines = await dispute_store.lines(connection, identifier)
        return DisputeStory(Dispute(**row), [ContestedLine(**line) for line in lines])

    async def differences(
        self, actor: Actor, identifier: UUID, *, cursor: str | None = None, limit: int = 100
    ) -> Page[DisputedCall]:
        """Return the calls on which the logs differ, by request id."""
        after = None
        if cursor is not None:
            request, unit = decode_cursor(cursor, 2, str, str)
            try:
                after = UUID(request), unit
            except ValueError as error:
                raise InvalidRequest(
                    _("The cursor is not one of ours: take it from the previous page's `next`.")
                ) from error
        limit = max(1, min(limit, MAX_PAGE))
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await self._readable(connection, actor, identifier)
            rows = await dispute_store.differences(connection, identifier, after, limit + 1)
        return page_of([DisputedCall(**row) for row in rows], limit, lambda call: (str(call.request_id), call.unit))

    # --- within ---------------------------------------------------------------------------------

    async def _about(self, connection: Connection, actor: Actor, kind: str, identifier: UUID) -> Mapping[str, Any]:
        actor.require(Permission.SETTLEMENTS_READ if kind == "settlement" else Permission.INVOICES_READ)
        look = dispute_store.statement if kind == "settlement" else dispute_store.invoice
        row = await look(connection, identifier)
        if row is None or (row["org_id"] != actor.org_id and not actor.may(Permission.SETTLEMENTS_RUN)):
            missing = (
                _("There is no such settlement, or it is not yours.")
                if kind == "settlement"
                else _("There is no such invoice, or it is not yours.")
            )
            raise NotFound(missing)
        if self._clock.now() > row["at"] + timedelta(days=self._days):
            raise Conflict(
                _("It can be contested for %(days)s days after its issue, and these are over.", days=self._days)
            )
        return row

    async def _check_free(self, connection: Connection, subject: str) -> None:
        if present := await dispute_store.open_about(connection, subject):
            raise Conflict(
                _(
                    "The dispute %(present)s about it is open: it is decided or withdrawn first.",
                    present=present,
                )
            )

    async def _record(
        self,
        actor: Actor,
        about: Mapping[str, Any],
        side: str,
        subject: str,
        reason: str,
        digest: str,
        found: Reconciled,
        providers: Mapping[UUID, UUID],
        spool: Spool,
    ) -> Dispute:
        identifier, now, org = new_id(), self._clock.now(), about["org_id"]
        contested = [
            [str(line), str(providers[line]), calls, str(quantity)]
            for line, (calls, quantity) in sorted(found.lines.items())
        ]
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock(connection, _subject(subject)[1], *providers.values())
            await self._check_free(connection, subject)
            await record(
                connection,
                SETTLEMENTS,
                stream=f"dispute/{identifier}",
                type="dispute.opened",
                data={
                    "side": side,
                    "subject": subject,
                    "period": about["period"],
                    "open": bool(found.only_ours or found.only_theirs or found.different),
                    "log_hash": digest,
                    "ours": found.ours,
                    "theirs": found.theirs,
                    "only_ours": found.only_ours,
                    "only_theirs": found.only_theirs,
                    "different": found.different,
                    "reason": reason,
                    "lines": contested,
                },
                actor=actor.label,
                org=org,
                at=now,
            )
            after = 0
            while rows := await spool.differences(after, _BATCH):
                await dispute_store.add_differences(connection, identifier, org, rows)
                after += len(rows)
            operations: list[Operation] = []
            for part in await dispute_store.to_hold(connection, identifier):
                if part["amount"] > 0:
                    _placed, held = await steps.place_hold(
                        connection,
                        actor.label,
                        part["org_id"],
                        part["amount"],
                        reason=N_("Contested"),
                        at=now,
                        settlement=part["settlement_id"],
                        dispute=identifier,
                    )
                    operations += held
            row = await dispute_store.dispute(connection, identifier)
            await post(connection, operations)
        assert row is not None
        return Dispute(**row)

    async def _lock(self, connection: Connection, identifier: UUID) -> Mapping[str, Any]:
        """Return an open dispute with its providers locked; raise NotFound or Conflict."""
        row = await dispute_store.dispute(connection, identifier)
        if row is None:
            raise NotFound(_("There is no such dispute."))
        await store.lock(
            connection, _subject(row["subject"])[1], *await dispute_store.providers(connection, identifier)
        )
        row = await dispute_store.dispute(connection, identifier)
        assert row is not None
        if row["status"] != "open":
            status: str = row["status"]
            raise Conflict(_("This dispute is %(status)s already.", status=gettext(status)))
        return row

    async def _end(
        self,
        connection: Connection,
        actor: Actor,
        dispute: Mapping[str, Any],
        status: str,
        note: str,
        credit_note: UUID | None,
        verdicts: Mapping[UUID, Verdict],
    ) -> list[Operation]:
        identifier, now = dispute["id"], self._clock.now()
        await record(
            connection,
            SETTLEMENTS,
            stream=f"dispute/{identifier}",
            type=f"dispute.{status}",
            data={
                "status": status,
                "note": note,
                "credit_note": str(credit_note) if credit_note else None,
                "credits": [[str(line), str(one.credit), one.fault] for line, one in sorted(verdicts.items())],
            },
            actor=actor.label,
            org=dispute["org_id"],
            at=now,
        )
        operations: list[Operation] = []
        for hold in await payout_store.open_holds(connection, dispute=identifier, limit=1_000_000):
            operations += await steps.release_hold(connection, actor.label, hold, f"The dispute is {status}", now)
        return operations

    async def _readable(self, connection: Connection, actor: Actor, identifier: UUID) -> Mapping[str, Any]:
        actor.require(Permission.INVOICES_READ)
        row = await dispute_store.dispute(connection, identifier)
        mine = row is not None and (actor.may(Permission.SETTLEMENTS_RUN) or row["org_id"] == actor.org_id)
        if row is None or not mine or (row["side"] == "provider" and not actor.may(Permission.SETTLEMENTS_READ)):
            raise NotFound(_("There is no such dispute, or it is not yours."))
        return row


async def _read(spool: Spool, log: AsyncIterable[bytes], form: LogForm) -> tuple[str, bool]:
    """Put a log on disk; return its SHA-256, and whether it names units."""
    reader, digest = LogReader(form), hashlib.sha256()
    async for piece in log:
        digest.update(piece)
        if claims := reader.feed(piece):
            await spool.add_theirs(claims)
    if claims := reader.end():
        await spool.add_theirs(claims)
    return digest.hexdigest(), bool(reader.has_units)


def _subject(subject: str) -> tuple[str, UUID]:
    kind, _slash, identifier = subject.partition("/")
    try:
        if kind in ("settlement", "invoice"):
            return kind, UUID(identifier)
    except ValueError:
        pass
    raise InvalidRequest(_("What is contested is settlement/{id} or invoice/{id}."))


def _check_verdicts(verdicts: Mapping[UUID, Verdict], contested: Mapping[UUID, Mapping[str, Any]]) -> None:
    wrong = []
    for line, verdict in verdicts.items():
        if line not in contested:
            wrong.append({"field": f"verdicts.{line}", "message": _("This line is not contested.")})
        elif not 0 < verdict.credit <= contested[line]["taxable"] or verdict.credit != verdict.credit.quantize(PAISA):
            most = f"{contested[line]['taxable']:.2f}"
            wrong.append(
                {
                    "field": f"verdicts.{line}",
                    "message": _("Enter rupees with two decimals, at most %(most)s.", most=most),
                }
            )
    if wrong:
        raise ValidationFailed(errors=wrong)
