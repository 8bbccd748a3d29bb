"""Payments: a transfer that the operator found on the bank's list, or one that a payment provider tells of."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.events import NewEvent
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database, Scope, tenant
from haat.invoices import receivables, store
from haat.invoices.messages import verify
from haat.invoices.ports import Notice, PaymentProvider
from haat.invoices.projection import record_all
from haat.invoices.states import Standing
from haat.kernel.clock import Clock
from haat.kernel.errors import Conflict, IdempotencyMismatch, InvalidRequest, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.money import exact, to_paisa
from haat.kernel.pages import MAX_PAGE, Page, decode_id_cursor, page_of
from haat.kernel.permissions import PLATFORM, Actor, Permission
from haat.ledger import service as ledger
from haat.ledger.model import Operation, account, moved

log = logging.getLogger(__name__)

TRANSFER = "transfer"
"""A bank transfer, recorded by hand."""

RANK = {"begun": 0, "failed": 1, "pending": 2, "succeeded": 3}
"""Messages come in any order: one that says less than is known already changes nothing.

A payment may fail and be tried again, so that it is pending, or succeeds, after it failed; what succeeded stays so.
"""

MOST = Decimal(10) ** 15
KEEP_MESSAGES = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Payment:
    """Money that came in. ``key`` is ``{method}/{reference}``: the same one is never booked twice."""

    id: UUID
    org_id: UUID
    key: str
    method: str
    reference: str
    amount: Decimal
    received_at: datetime
    unspent: Decimal | None = None


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


class Payments:
    """Books what is paid, and puts it to invoices."""

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
            raise ValidationFailed(errors=[{"field": "received_at", "message": "Money came in the past."}])
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await self._take(connection, actor, org, _check_amount(amount), TRANSFER, reference, when, invoice)

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
            raise NotFound("There is no such invoice, or it is not yours.")
        owed = Standing(**standing).owed
        if not owed:
            raise Conflict(f"Invoice {standing['serial']} is {standing['state']}: there is nothing to pay.")
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
            await self._order_event(connection, actor, data, "payment_order.begun", now)
            row = await store.order(connection, identifier)
        assert row is not None
        return PaymentOrder(**row)

    async def hear(self, provider: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Take a provider's message; return False for one that changes nothing: known, about something else, or late.

        Raise NotTheirs when its signature doesn't fit, NotFound for a provider or an order that isn't here. A message
        that can't be booked isn't remembered, so that the provider's next attempt is looked at again.
        """
        one, now = self._provider(provider), self._clock.now()
        message = verify(one.secrets(), headers, body, now)
        try:
            content = json.loads(body)
        except ValueError as error:
            raise InvalidRequest("The message is not JSON.") from error
        notice = one.read(content) if isinstance(content, dict) else None
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            if not await store.note_message(connection, provider, message, now) or notice is None:
                return False
            return await self._heed(connection, provider, notice, now)

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
            rows = await store.payments(connection, whose, decode_id_cursor(cursor), limit + 1)
        return page_of([Payment(**row) for row in rows], limit, lambda payment: (payment.id,))

    @property
    def providers(self) -> list[str]:
        """The names of the providers that are here."""
        return sorted(self._find())

    # --- within a transaction --------------------------------------------------------------------

    async def _heed(self, connection: Connection, provider: str, notice: Notice, now: datetime) -> bool:
        await store.lock_key(connection, f"payment-order/{provider}/{notice.reference}")
        row = await store.order_of(connection, provider, notice.reference)
        if row is None:
            raise NotFound("No payment of that reference was begun here.")
        if RANK[notice.state] <= RANK[row["state"]]:
            return False
        if notice.state == "succeeded":
            if notice.currency != "INR":
                raise ValidationFailed(errors=[{"field": "currency", "message": "Only rupees are taken."}])
            amount = _check_amount(notice.amount)
            await self._take(
                connection, PLATFORM, row["org_id"], amount, provider, notice.reference, now, row["invoice_id"]
            )
            if amount != row["amount"]:
                log.warning("%s paid %s of the %s that %s asked for", provider, amount, row["amount"], row["id"])
        data = {name: value for name, value in row.items() if name != "version"} | {"state": notice.state, "at": now}
        told = {name: _told(value) for name, value in data.items()}
        await self._order_event(connection, PLATFORM, told, f"payment_order.{notice.state}", now)
        return True

    async def _order_event(
        self, connection: Connection, actor: Actor, data: Mapping[str, Any], type_: str, at: datetime
    ) -> None:
        event = NewEvent(f"payment-order/{data['id']}", type_, data, UUID(data["org_id"]))
        await record_all(connection, [event], actor=actor.label, at=at)

    async def _take(
        self,
        connection: Connection,
        actor: Actor,
        org: UUID,
        amount: Decimal,
        method: str,
        reference: str,
        received_at: datetime,
        invoice: UUID | None,
    ) -> Payment:
        key, now = f"{method}/{reference}", self._clock.now()
        await store.lock_key(connection, f"payment/{key}")
        if present := await store.payment_by_key(connection, key):
            if (present["org_id"], present["amount"]) != (org, amount):
                raise IdempotencyMismatch(f"{key} was recorded before with another amount or organisation.")
            return Payment(**present)
        if not await store.organisation_exists(connection, org):
            raise NotFound("There is no such organisation.")
        await store.lock(connection, org)
        if invoice is not None:
            standing = await store.standing(connection, invoice)
            if standing is None or standing["org_id"] != org:
                raise NotFound("The organisation has no such invoice.")
        identifier = new_id()
        data = {
            "id": str(identifier),
            "org_id": str(org),
            "key": key,
            "method": method,
            "reference": reference,
            "amount": str(amount),
            "received_at": received_at.isoformat(),
        }
        event = NewEvent(f"payment/{identifier}", "payment.recorded", data, org)
        await record_all(connection, [event], actor=actor.label, at=now)
        first = [invoice] if invoice else []
        await receivables.spend_on_open(connection, actor, org, now, first)
        entries = moved("bank", account("receivable", org), amount)
        operation = Operation(f"payment/{identifier}", "payment", now, entries, f"payment/{identifier}")
        await ledger.post(connection, [operation])
        return Payment(identifier, org, key, method, reference, amount, received_at)

    def _provider(self, name: str) -> PaymentProvider:
        found = self._find().get(name)
        if found is None:
            raise NotFound(f"There is no payment provider {name[:40]}.")
        return found


def _check_amount(amount: Decimal) -> Decimal:
    if not 0 < exact(amount) < MOST or amount != to_paisa(amount):
        message = "Give rupees above 0, with whole paise, and not more money than there is."
        raise ValidationFailed(errors=[{"field": "amount", "message": message}])
    return to_paisa(amount)


def _check_reference(reference: str) -> str:
    reference = reference.strip()
    if not 1 <= len(reference) <= 100 or not reference.isprintable():
        message = "Give the transfer's reference (such as its UTR), at most 100 characters."
        raise ValidationFailed(errors=[{"field": "reference", "message": message}])
    return reference


def _told(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else None if value is None else str(value)
