"""Payments: transfers that the operator found on the bank's list, or what a payment provider tells of, both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Database, Scope, tenant
from haat.invoices import notices, payment_store, store
from haat.invoices.booking import Payment, Returned, begin_return, check_amount, take
from haat.invoices.messages import verify
from haat.invoices.ports import PaymentProvider
from haat.invoices.states import Standing
from haat.kernel.clock import Clock
from haat.kernel.errors import Conflict, HaatError, IdempotencyMismatch, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.money import total
from haat.kernel.pages import MAX_PAGE, Page, decode_id_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _, gettext

TRANSFER = "transfer"
"""A bank transfer, recorded by hand."""

KEEP_MESSAGES = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class PaymentOrder:
    """A payment that was begun at a provider; ``url`` is where it is made."""

    id: UUID
    org_id: UUID
    invoice_id: UUID | None
    provider: str
    reference: str
    amount: Decimal
    state: str
    url: str
    at: datetime
    version: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A provider's message, rightly signed, that could not be booked: why, and its body as it came."""

    provider: str
    message_id: str
    reason: str
    body: str
    attempts: int
    first_at: datetime
    last_at: datetime


class Payments:
    """Books what is paid and what goes back, and puts it to invoices."""

    def __init__(
        self, db: Database, clock: Clock, providers: Callable[[], Mapping[str, PaymentProvider]] | None = None
    ) -> None:
        self._db, self._clock = db, clock
        self._find = providers or dict

    async def record(
        self,
        actor: Actor,
        org: UUID,
        amount: Decimal,
        reference: str,
        *,
        received_at: datetime | None = None,
        invoice: UUID | None = None,
    ) -> Payment:
        """Record a bank transfer (operator). The same reference again returns the same payment.

        It pays ``invoice`` first, then what is due first; what is left stays as the organisation's credit and pays its
        next invoice. Raise IdempotencyMismatch for a known reference with another amount or organisation.
        """
        actor.require(Permission.INVOICES_RUN)
        now = self._clock.now()
        reference = _check_reference(reference)
        when = received_at or now
        if when > now + timedelta(minutes=5):
            raise ValidationFailed(errors=[{"field": "received_at", "message": _("Money came in the past.")}])
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await take(connection, actor, org, check_amount(amount), TRANSFER, reference, when, invoice, now)

    async def record_for(self, actor: Actor, serial: str, amount: Decimal, reference: str) -> Payment:
        """Record a bank transfer for the invoice of a number (operator), as `record` does; raise ValidationFailed."""
        actor.require(Permission.INVOICES_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            found = await payment_store.invoice_named(connection, serial.strip())
        if found is None:
            message = _("There is no invoice %(serial)s.", serial=serial.strip()[:40] or "–")
            raise ValidationFailed(errors=[{"field": "serial", "message": message}])
        return await self.record(actor, found["org_id"], amount, reference, invoice=found["id"])

    async def refund(self, actor: Actor, payment: UUID, amount: Decimal, reference: str) -> Returned:
        """Record that some of a payment was sent back by bank transfer (operator), or came back from the bank.

        The same reference again returns the same refund. What it had paid is due again. Raise NotFound for a payment
        that isn't here, Conflict for more than is left of it, IdempotencyMismatch for a known reference with another
        amount or payment.
        """
        actor.require(Permission.INVOICES_RUN)
        amount, reference = check_amount(amount), _check_reference(reference)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = await payment_store.payment(connection, payment)
            if row is None:
                raise NotFound(_("There is no such payment."))
            await store.lock_key(connection, f"refund/{reference}")
            await store.lock(connection, row["org_id"])
            if known := await payment_store.return_of(connection, TRANSFER, "refund", reference):
                if (known["payment_key"], known["amount"]) != (row["key"], amount):
                    raise IdempotencyMismatch(
                        _("A refund %(reference)s was recorded with another amount or payment.", reference=reference)
                    )
                return Returned(**known)
            row = await payment_store.payment(connection, payment)
            assert row is not None
            left = total((row["amount"], -row["returned"]))
            if amount > left:
                raise Conflict(
                    _(
                        "%(left)s is left of the payment %(key)s: %(amount)s can't go back.",
                        left=left,
                        key=row["key"],
                        amount=amount,
                    )
                )
            return await begin_return(
                connection,
                actor,
                row["org_id"],
                row["key"],
                "refund",
                TRANSFER,
                reference,
                amount,
                "gone",
                None,
                self._clock.now(),
            )

    async def begin(self, actor: Actor, invoice: UUID, provider: str) -> PaymentOrder:
        """Have a provider ask for what an invoice still owes; the order says where to pay.

        Raise Conflict for an invoice that owes nothing, NotFound for another's or a provider that isn't here.
        """
        actor.require(Permission.INVOICES_READ)
        one = self._provider(provider)
        scope: Scope = PLATFORM_SCOPE if actor.may(Permission.INVOICES_RUN) else tenant(actor.org_id)
        async with self._db.transaction(scope) as connection:
            standing = await store.standing(connection, invoice)
        if standing is None or (not actor.may(Permission.INVOICES_RUN) and standing["org_id"] != actor.org_id):
            raise NotFound(_("There is no such invoice, or it is not yours."))
        present = Standing(**standing)
        if not (owed := present.owed):
            raise Conflict(
                _(
                    "Invoice %(serial)s is %(state)s: there is nothing to pay.",
                    serial=present.serial,
                    state=gettext(present.state),
                )
            )
        identifier, now = new_id(), self._clock.now()
        checkout = await one.begin(order=identifier, amount=owed, description=f"Invoice {standing['serial']}")
        data = {
            "id": str(identifier),
            "org_id": str(standing["org_id"]),
            "invoice_id": str(invoice),
            "provider": provider,
            "reference": checkout.reference,
            "amount": str(owed),
            "state": "begun",
            "url": checkout.url,
            "at": now.isoformat(),
        }
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await notices.order_event(connection, actor, data, "payment_order.begun", now)
            row = await payment_store.order(connection, identifier)
        assert row is not None
        return PaymentOrder(**row)

    async def hear(self, provider: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Take a provider's message; return False for one that changes nothing: known, about something else, or late.

        Raise NotTheirs when its signature doesn't fit, NotFound for a provider or a payment that isn't here. A message
        that can't be booked is refused, so that the provider sends it again, and kept with the reason until it is
        booked or the operator has dealt with it.
        """
        one, now = self._provider(provider), self._clock.now()
        message = verify(one.secrets(), headers, body, now)
        try:
            notice = notices.read(one, body)
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                if not await payment_store.note_message(connection, provider, message, now) or notice is None:
                    return False
                await payment_store.drop_refused(connection, provider, message)
                return await notices.heed(connection, provider, notice, now)
        except HaatError as refusal:
            text = body.decode("utf-8", "replace").replace("\x00", "\ufffd")
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                await payment_store.keep_refused(connection, provider, message, refusal.reason, text, now)
            raise

    async def page(
        self, actor: Actor, *, org: UUID | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[Payment]:
        """Return payments with what of each is not spent, newest first: one's own, or for the operator anybody's."""
        actor.require(Permission.INVOICES_READ)
        whose, scope = (org, PLATFORM_SCOPE) if actor.may(Permission.INVOICES_RUN) else (actor.org_id, None)
        if org not in (None, whose):
            raise NotFound
        limit = max(1, min(limit, MAX_PAGE))
        async with self._db.transaction(scope or tenant(actor.org_id)) as connection:
            rows = await payment_store.payments(connection, whose, decode_id_cursor(cursor), limit + 1)
        return page_of([Payment(**row) for row in rows], limit, lambda payment: (payment.id,))

    async def get(self, actor: Actor, payment: UUID) -> Payment:
        """Return a payment (operator); raise NotFound."""
        actor.require(Permission.INVOICES_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = await payment_store.payment(connection, payment)
        if row is None:
            raise NotFound(_("There is no such payment."))
        return Payment(**row)

    async def paid_with(self, actor: Actor, payment: UUID) -> list[Mapping[str, Any]]:
        """Return the invoices that a payment pays: ``serial``, ``state`` and ``amount`` of each (operator)."""
        actor.require(Permission.INVOICES_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            amounts = dict(await payment_store.paid_with(connection, payment))
            rows = await store.standings(connection, sorted(amounts))
        return [
            {"serial": row["serial"], "state": row["state"], "amount": amounts[row["invoice_id"]]}
            for row in sorted(rows, key=lambda row: str(row["serial"]))
        ]

    async def returns(self, actor: Actor, payment: UUID) -> list[Returned]:
        """Return the refunds and chargebacks of a payment, oldest first; raise NotFound for another's."""
        actor.require(Permission.INVOICES_READ)
        runs = actor.may(Permission.INVOICES_RUN)
        async with self._db.transaction(PLATFORM_SCOPE if runs else tenant(actor.org_id)) as connection:
            row = await payment_store.payment(connection, payment)
            if row is None or (not runs and row["org_id"] != actor.org_id):
                raise NotFound(_("There is no such payment, or it is not yours."))
            return [Returned(**one) for one in await payment_store.returns_of(connection, row["key"])]

    async def refused(self, actor: Actor, limit: int = MAX_PAGE) -> list[Refused]:
        """Return providers' messages that could not be booked and wait for the operator, oldest first."""
        actor.require(Permission.INVOICES_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return [Refused(**row) for row in await payment_store.refused(connection, limit)]

    async def deal_with(self, actor: Actor, provider: str, message: str, note: str) -> None:
        """Note how a refused message was dealt with (operator): it is kept, and not listed any more."""
        actor.require(Permission.INVOICES_RUN)
        if not 1 <= len(note.strip()) <= 500:
            raise ValidationFailed(
                errors=[{"field": "note", "message": _("Say in 1 to 500 characters what was done.")}]
            )
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            now = self._clock.now()
            if not await payment_store.deal_with_refused(connection, provider, message, note.strip(), actor.label, now):
                raise NotFound(
                    _(
                        "No message %(message)s of %(provider)s waits to be dealt with.",
                        message=message[:100],
                        provider=provider[:40],
                    )
                )

    @property
    def providers(self) -> list[str]:
        """The names of the providers that are here."""
        return sorted(self._find())

    def _provider(self, name: str) -> PaymentProvider:
        found = self._find().get(name)
        if found is None:
            raise NotFound(_("There is no payment provider %(name)s.", name=name[:40]))
        return found


def _check_reference(reference: str) -> str:
    reference = reference.strip()
    if not 1 <= len(reference) <= 100 or not reference.isprintable():
        message = _("Give the transfer's reference (such as its UTR), at most 100 characters.")
        raise ValidationFailed(errors=[{"field": "reference", "message": message}])
    return reference
