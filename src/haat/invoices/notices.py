"""What payment providers' messages say: read, held against what is known, booked within the caller's transaction."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.events import NewEvent
from haat.infra.postgres import Connection
from haat.invoices import payment_store, store
from haat.invoices.booking import RETURN_RANK, Returned, begin_return, check_amount, move_return, take
from haat.invoices.ports import Notice, PaymentProvider, Return
from haat.invoices.projection import record_all
from haat.kernel.errors import Conflict, InvalidRequest, NotFound, ValidationFailed
from haat.kernel.permissions import PLATFORM, Actor

log = logging.getLogger(__name__)

RANK = {"begun": 0, "failed": 1, "pending": 2, "succeeded": 3}
"""Messages come in any order: one that says less than is known already changes nothing.

A payment may fail and be tried again, so that it is pending, or succeeds, after it failed; what succeeded stays so.
"""


def read(provider: PaymentProvider, body: bytes) -> Notice | Return | None:
    """Return what a message says, or None for one about something else; raise InvalidRequest for what can't be read."""
    try:
        content = json.loads(body)
    except ValueError as error:
        raise InvalidRequest("The message is not JSON.") from error
    if not isinstance(content, dict):
        return None
    try:
        return provider.read(content)
    except Exception as error:  # a plugin's own: whatever it stumbles over, the message is kept
        log.exception("%s could not read a message of its provider", provider.name)
        raise InvalidRequest(f"The plugin {provider.name} can't read this message ({type(error).__name__}).") from error


async def heed(connection: Connection, provider: str, notice: Notice | Return, now: datetime) -> bool:
    """Book what a message says; return False when it says nothing new.

    Raise NotFound for a payment that was not begun here, ValidationFailed for another currency or parts of a paisa,
    Conflict for another amount than was booked.
    """
    reference = notice.payment if isinstance(notice, Return) else notice.reference
    await store.lock_key(connection, f"payment-order/{provider}/{reference}")
    order = await payment_store.order_of(connection, provider, reference)
    if order is None:
        raise NotFound(f"No payment {reference[:100]} was begun here.")
    if isinstance(notice, Return):
        return await _heed_return(connection, order, notice, now)
    return await _heed_payment(connection, order, notice, now)


async def _heed_payment(connection: Connection, order: Mapping[str, Any], notice: Notice, now: datetime) -> bool:
    provider, reference = order["provider"], order["reference"]
    succeeded = _rank(RANK, notice.state) == RANK["succeeded"]
    if succeeded:
        amount = _rupees(notice)
        booked = await payment_store.payment_by_key(connection, f"{provider}/{reference}")
        if booked is not None:
            _same(f"{provider}/{reference}", booked["amount"], amount)
    if RANK[notice.state] <= RANK[order["state"]]:
        return False
    if succeeded:
        await take(connection, PLATFORM, order["org_id"], amount, provider, reference, now, order["invoice_id"], now)
        if amount != order["amount"]:
            log.warning("%s paid %s of the %s that %s asked for", provider, amount, order["amount"], order["id"])
    data = {name: value for name, value in order.items() if name != "version"} | {"state": notice.state, "at": now}
    told = {name: _told(value) for name, value in data.items()}
    await order_event(connection, PLATFORM, told, f"payment_order.{notice.state}", now)
    return True


async def _heed_return(connection: Connection, order: Mapping[str, Any], notice: Return, now: datetime) -> bool:
    rank, amount = _rank(RETURN_RANK, notice.state), _rupees(notice)
    provider, key, first = order["provider"], f"{order['provider']}/{order['reference']}", order["invoice_id"]
    row = await payment_store.return_of(connection, provider, notice.kind, notice.reference)
    if row is None:
        await begin_return(
            connection,
            PLATFORM,
            order["org_id"],
            key,
            notice.kind,
            provider,
            notice.reference,
            amount,
            notice.state,
            first,
            now,
        )
        return True
    known = Returned(**row)
    if known.payment_key != key:
        raise Conflict(f"The {known.kind} {known.reference} is known as one of {known.payment_key}, not of {key}.")
    _same(f"The {known.kind} {known.reference}", known.amount, amount)
    if rank <= RETURN_RANK[known.state]:
        return False
    await move_return(connection, PLATFORM, known, notice.state, first, now)
    return True


async def order_event(connection: Connection, actor: Actor, data: Mapping[str, Any], type_: str, at: datetime) -> None:
    """Record what became of a payment that was begun at a provider."""
    event = NewEvent(f"payment-order/{data['id']}", type_, data, UUID(data["org_id"]))
    await record_all(connection, [event], actor=actor.label, at=at)


def _rank(ranks: Mapping[str, int], state: str) -> int:
    if state not in ranks:
        message = f"{state} is none of {', '.join(ranks)}."
        raise ValidationFailed(errors=[{"field": "state", "message": message}])
    return ranks[state]


def _rupees(notice: Notice | Return) -> Decimal:
    if notice.currency != "INR":
        message = f"Only rupees are booked, not {notice.currency[:10]}."
        raise ValidationFailed(errors=[{"field": "currency", "message": message}])
    return check_amount(notice.amount)


def _same(what: str, known: Decimal, told: Decimal) -> None:
    if known != told:
        raise Conflict(f"{what} is known with {known}, not with {told}.")


def _told(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else None if value is None else str(value)
