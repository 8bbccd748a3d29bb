"""What invoices need of others: a wallet to draw on, a registrar of e-invoices, providers who take payments.

Plugins bring registrars and payment providers (`haat_registrars`, `haat_payment_providers`): nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Protocol, runtime_checkable
from uuid import UUID


class Wallets(Protocol):
    """Pays from what an organisation has paid ahead."""

    async def filled(self, connection: Any, orgs: Sequence[UUID]) -> set[UUID]:
        """Return which of these organisations' wallets have something in them: no other one is asked to pay."""
        ...

    async def pay(self, connection: Any, org: UUID, *, invoice: UUID, amount: Decimal, at: datetime) -> Decimal:
        """Draw what the wallet has, at most ``amount``, within the caller's transaction, and return it.

        It posts ``wallet/{org}`` to ``receivable/{org}`` itself.
        """
        ...


class NoWallets:
    """Nobody pays ahead."""

    async def filled(self, connection: Any, orgs: Sequence[UUID]) -> set[UUID]:
        return set()

    async def pay(self, connection: Any, org: UUID, *, invoice: UUID, amount: Decimal, at: datetime) -> Decimal:
        return Decimal(0)


@dataclass(frozen=True, slots=True)
class Registration:
    """What a registrar gives an invoice: its number (IRN, 64 hexadecimal digits) and the text of its signed QR code."""

    irn: str
    qr: str
    at: datetime


class RegistrarRefused(Exception):
    """The registrar will not have this document as it is; the message is for the operator, who corrects the buyer."""


@runtime_checkable
class Registrar(Protocol):
    """Registers invoices before they are issued, such as an e-invoice portal."""

    name: str

    async def register(self, document: Mapping[str, Any]) -> Registration:
        """Register a document and return its number; the same one for a document that was registered before.

        Raise RegistrarRefused for what it will not have; anything else raised is tried again later.
        """
        ...


@dataclass(frozen=True, slots=True)
class Checkout:
    """Where somebody pays, and what the provider calls it."""

    reference: str
    url: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What a provider's message says about a payment that was begun here; rupees and whole paise."""

    reference: str
    state: Literal["pending", "failed", "succeeded"]
    amount: Decimal
    currency: str = "INR"


@dataclass(frozen=True, slots=True)
class Return:
    """What a provider's message says about money of a payment that goes back: to its payer, or to the payer's bank.

    ``payment`` is the `Checkout.reference` of the payment, ``reference`` the provider's name for this refund or
    chargeback. ``state`` says where the money is: ``pending``, still here (it is asked for, or looked into); ``gone``
    (refunded; or taken by a chargeback, lost or still contested); ``back``, here again (the refund failed, the
    chargeback was won). That is its end: what is tried once more has a reference of its own.
    """

    kind: Literal["refund", "chargeback"]
    payment: str
    reference: str
    state: Literal["pending", "gone", "back"]
    amount: Decimal
    currency: str = "INR"


@runtime_checkable
class PaymentProvider(Protocol):
    """Takes payments by card, UPI or otherwise, and tells of them by signed messages (Standard Webhooks 1.0)."""

    name: str

    def secrets(self) -> Sequence[str]:
        """Return the secrets (``whsec_…``) that sign its messages; two while one is being changed."""
        ...

    async def begin(self, *, order: UUID, amount: Decimal, description: str) -> Checkout:
        """Have the provider ask for an amount; the same checkout for the same order."""
        ...

    def read(self, message: Mapping[str, Any]) -> Notice | Return | None:
        """Return what a message, whose signature was right, says; None for one about something else."""
        ...
