"""Settlement: each invoice line's net value, split between the provider and the platform, and split back by credits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal
from uuid import UUID

from haat.kernel.money import share, total
from haat.ledger.model import Entry, account, joined, moved
from haat.settlement.withholding import Withheld

Fault = Literal["provider", "platform"]
"""Who bears a credit: both give back their parts, or for the platform's fault the platform all of it."""

OWN_KINDS = ("settlement", "settlement-credit", "withheld", "hold", "release", "payout", "payout-reversal")
"""Kinds of operations that settlement itself posts to a provider's account; others' appear on the next statement."""


@dataclass(frozen=True, slots=True)
class SettledLine:
    """An invoice line's net value and its split; the provider's part is rounded half-up once.

    ``agent``: its invoice was booked as another's supply, which the operator only sold.
    """

    invoice_line: UUID
    gross: Decimal
    rate: Decimal
    provider: Decimal
    platform: Decimal
    agent: bool = False


@dataclass(frozen=True, slots=True)
class CreditedLine:
    """A credit note's line and how it is borne. ``gross`` is above zero: what the customer gets back, before tax.

    ``guarantee``: it was given for a broken promise (an SLA), and not because less was sold.
    """

    credit_line: UUID
    invoice_line: UUID
    fault: Fault
    gross: Decimal
    rate: Decimal
    provider: Decimal
    platform: Decimal
    agent: bool = False
    guarantee: bool = False


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What somebody else posted to the provider's account; below zero is a debit."""

    operation: UUID
    kind: str
    reference: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Totals:
    gross: Decimal
    provider: Decimal
    platform: Decimal


def settle_line(invoice_line: UUID, gross: Decimal, rate: Decimal, agent: bool = False) -> SettledLine:
    """Split ``gross`` (whole paise, net of tax): what the provider's rounding leaves is the platform's."""
    provider, platform = share(gross, rate)
    return SettledLine(invoice_line, gross, rate, provider, platform, agent)


def reversed_share(gross: Decimal, rate: Decimal, before: Decimal, amount: Decimal) -> tuple[Decimal, Decimal]:
    """Split a credit of ``amount`` on a line of which ``before`` was credited already: (provider's part, platform's).

    The provider keeps its share of what is left of the line. So credits in any pieces take back exactly what was
    earned, and never a paisa more.
    """
    kept, _ = share(total((gross, -before)), rate)
    keeps, _ = share(total((gross, -before, -amount)), rate)
    provider = total((kept, -keeps))
    return provider, total((amount, -provider))


def totals(lines: Iterable[SettledLine | CreditedLine]) -> Totals:
    lines = list(lines)
    return Totals(
        total(line.gross for line in lines),
        total(line.provider for line in lines),
        total(line.platform for line in lines),
    )


@dataclass(frozen=True, slots=True)
class Sums:
    """What a statement comes to, in rupees and whole paise. ``payable`` is what the provider is owed by it."""

    earned: Totals
    credited: Totals
    adjusted: Decimal
    withheld: Decimal

    @property
    def payable(self) -> Decimal:
        return total((self.earned.provider, -self.credited.provider, self.adjusted, -self.withheld))


def earned_entries(provider_org: UUID, lines: Iterable[SettledLine]) -> tuple[Entry, ...]:
    """Return what is posted for lines: a share of the platform's revenue, or of what it sold for the provider."""
    payable = account("payable", provider_org)
    entries: list[Entry] = []
    for line in lines:
        if line.agent:
            entries += (Entry("supplies", line.gross), Entry(payable, -line.provider), Entry("revenue", -line.platform))
        else:
            entries += moved("shares", payable, line.provider)
    return joined(entries)


def credited_entries(provider_org: UUID, credits: Iterable[CreditedLine]) -> tuple[Entry, ...]:
    """Return what is posted for credits: the reverse of `earned_entries`, but of a guarantee's cost for that."""
    payable = account("payable", provider_org)
    entries: list[Entry] = []
    for credit in credits:
        if credit.guarantee:
            entries += moved(payable, "credits", credit.provider)
        elif credit.agent:
            entries += (
                Entry(payable, credit.provider),
                Entry("revenue", credit.platform),
                Entry("supplies", -credit.gross),
            )
        else:
            entries += moved(payable, "shares", credit.provider)
    return joined(entries)


def withheld_entries(provider_org: UUID, withheld: Sequence[Withheld]) -> tuple[Entry, ...]:
    """Return what is posted for tax: owed to the State instead of to the provider."""
    payable = account("payable", provider_org)
    return joined(entry for one in withheld for entry in moved(payable, account("withheld", one.name), one.amount))
