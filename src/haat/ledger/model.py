"""Double entry: operations whose entries sum to zero, on accounts named by a path. Pure.

A debit is positive, a credit negative. What an account says when it is positive depends on its kind: ``receivable/…``
is what a customer owes, ``payable/…`` (credited, so negative) what is owed to a provider.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from haat.kernel.money import PAISA, exact, total

MOST_ENTRIES = 200
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_ACCOUNT = re.compile(r"[a-z]+(?:/[A-Za-z0-9._-]{1,80})?")
_CURRENCY = re.compile(r"[A-Z]{3}")


class Kind(StrEnum):
    """What an account is in the books; it says which side is its usual one."""

    ASSET = "asset"
    LIABILITY = "liability"
    INCOME = "income"
    EXPENSE = "expense"


KINDS: dict[str, Kind] = {
    "bank": Kind.ASSET,
    "receivable": Kind.ASSET,
    "wallet": Kind.LIABILITY,
    "payable": Kind.LIABILITY,
    "held": Kind.LIABILITY,
    "tax": Kind.LIABILITY,
    "withheld": Kind.LIABILITY,
    "supplies": Kind.LIABILITY,
    "revenue": Kind.INCOME,
    "shares": Kind.EXPENSE,
    "promotions": Kind.EXPENSE,
    "credits": Kind.EXPENSE,
}
"""The first part of an account's name, and what that makes it.

``bank`` is money here; ``receivable/{org}`` what an organisation owes; ``wallet/{org}`` what it has paid ahead;
``payable/{org}`` what a provider is owed, ``held/{org}`` what of that is kept back; ``tax/{name}`` what is owed to the
State, ``withheld/{name}`` what was deducted for it; ``supplies`` what an agent has billed for others; ``revenue`` what
was sold, ``shares`` what providers have of it, ``promotions`` credits that were given, ``credits`` what an SLA costs.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """Rupees and whole paise on one account: a debit above zero, a credit below."""

    account: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Operation:
    """What is posted together, once. ``key`` names it: posting the same again does nothing.

    ``reference`` is what it is about, such as ``invoice/{id}``. Raises ValueError for what isn't double entry: a sum
    that isn't zero, parts of a paisa, an entry of nothing, an account of no kind that `KINDS` has.
    """

    key: str
    kind: str
    at: datetime
    entries: tuple[Entry, ...]
    reference: str = ""
    currency: str = "INR"

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise ValueError("an operation's key has 1 to 200 printable ASCII characters and no spaces")
        if not _CURRENCY.fullmatch(self.currency):
            raise ValueError(f"{self.currency!r} is no currency: three capital letters are")
        if self.at.tzinfo is None:
            raise ValueError("an operation's time has a zone")
        if not 2 <= len(self.entries) <= MOST_ENTRIES:
            raise ValueError(f"an operation has 2 to {MOST_ENTRIES} entries, not {len(self.entries)}")
        for entry in self.entries:
            kind_of(entry.account)
            amount = exact(entry.amount)
            if not amount or amount != amount.quantize(PAISA):
                raise ValueError(f"{entry.account} gets {amount}: it must be whole paise, and not nothing")
        if rest := total(entry.amount for entry in self.entries):
            raise ValueError(f"the entries of {self.key} sum to {rest}, not to zero")

    @property
    def digest(self) -> bytes:
        """What tells whether an operation of the same key is the same one."""
        lines = [self.kind, self.reference, self.currency, *(f"{one.account} {one.amount:.2f}" for one in self.entries)]
        return hashlib.sha256("\n".join(lines).encode()).digest()


@dataclass(frozen=True, slots=True)
class Balance:
    """What stands on an account: debits less credits."""

    account: str
    currency: str
    amount: Decimal
    entries: int


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """All accounts. The books are right when each currency's sum is zero."""

    at: datetime | None
    balances: Sequence[Balance]

    @property
    def sums(self) -> dict[str, Decimal]:
        """The sum of each currency; any that isn't zero is an error in the books."""
        currencies = {balance.currency for balance in self.balances}
        return {
            currency: total(balance.amount for balance in self.balances if balance.currency == currency)
            for currency in sorted(currencies)
        }


def account(kind: str, whose: UUID | str = "") -> str:
    """Return an account's name: ``receivable/{org}``, ``tax/IGST``, ``revenue``."""
    name = f"{kind}/{whose}" if whose else kind
    kind_of(name)
    return name


def kind_of(name: str) -> Kind:
    """Return what an account is; raise ValueError for one that can't be."""
    kind = name.partition("/")[0]
    if kind not in KINDS or not _ACCOUNT.fullmatch(name):
        raise ValueError(f"{name!r} is no account")
    return KINDS[kind]


def owner_of(name: str) -> UUID | None:
    """Return the organisation whose account it is, None for the platform's own."""
    try:
        return UUID(name.partition("/")[2])
    except ValueError:
        return None


def moved(debit: str, credit: str, amount: Decimal) -> tuple[Entry, ...]:
    """Return the entries that move an amount from one account to another; none for nothing."""
    return (Entry(debit, amount), Entry(credit, -amount)) if amount else ()


def joined(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return entries with those of one account made one, in the order of accounts, without those that cancel out."""
    sums: dict[str, list[Decimal]] = {}
    for entry in entries:
        sums.setdefault(entry.account, []).append(entry.amount)
    added = {name: total(amounts) for name, amounts in sums.items()}
    return tuple(Entry(name, added[name]) for name in sorted(added) if added[name])
