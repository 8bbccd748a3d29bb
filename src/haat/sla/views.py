"""What service levels show: of a listing now, of the months that were judged, of the calls behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.kernel.money import total
from haat.sla.maintenance import Window
from haat.sla.model import Counts, Objective, budget_of, percent_of


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured in a time. ``availability`` is a percentage, None of too small a sample."""

    start: datetime
    end: datetime
    counts: Counts
    availability: Decimal | None
    source: str | None


@dataclass(frozen=True, slots=True)
class BudgetView:
    """An error budget in calls, or in probes where these were judged: whole ones that are allowed, and used."""

    allowed: Decimal
    used: int
    left: Decimal
    spent: Decimal
    """The percentage of the budget that is used; above 100 once the objective is missed."""

    @classmethod
    def of(cls, found: Counts, promised: Decimal) -> BudgetView | None:
        """Return the budget that an availability of so many percent leaves; None of too small a sample."""
        if found.source is None:
            return None
        budget = budget_of(*found.bad_of(found.source), promised)
        return cls(
            percent_of(budget.allowed / 100), budget.bad, percent_of(budget.left / 100), percent_of(budget.spent, 1)
        )


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that went on: an alert or a suspension. ``until`` None while it goes on."""

    kind: str
    since: datetime
    until: datetime | None
    figures: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MonthView:
    """A month as it was judged: for everybody who may see the listing."""

    id: UUID
    service_id: UUID
    period: str
    verdict: str
    availability: Decimal | None
    source: str | None
    missed: Sequence[str]
    credit: Decimal
    judged_at: datetime


@dataclass(frozen=True, slots=True)
class Report:
    """A listing's level at present."""

    service_id: UUID
    at: datetime
    objective: Objective | None
    coming: Objective | None
    window: Measured
    budget: BudgetView | None
    month: Measured
    latency_ms: Mapping[str, float | None]
    """Quantiles of the last 24 hours until the first byte, None without calls."""
    incidents: Sequence[Incident]
    windows: Sequence[Window]
    """Maintenance of the last 30 days and to come, cancelled windows left out."""
    months: Sequence[MonthView]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a listing's own page says of its level: measured over ``days``, and the objective in percent."""

    availability: Decimal | None
    source: str | None
    days: int
    objective: Decimal | None
    maintenance: Window | None
    """The window that goes on, or the next one."""


@dataclass(frozen=True, slots=True)
class AffectedCustomer:
    """A customer whose calls broke a promise: under a pseudonym, unless the operator asks."""

    customer: str
    calls: int


@dataclass(frozen=True, slots=True)
class CreditView:
    """What a breach credited on one invoice, before tax; ``debited`` is the part that the provider bears."""

    customer: str
    invoice_id: UUID | None
    credit_note_id: UUID | None
    taxable: Decimal
    debited: Decimal
    posted_at: datetime


@dataclass(frozen=True, slots=True)
class MonthStory:
    """A judged month with its evidence, as far as it is the asker's."""

    month: MonthView
    fault: str
    evidence: Mapping[str, Any]
    affected: Sequence[AffectedCustomer]
    credits: Sequence[CreditView]

    @property
    def credited(self) -> Decimal:
        return total(one.taxable for one in self.credits)

    @property
    def debited(self) -> Decimal:
        return total(one.debited for one in self.credits)


@dataclass(frozen=True, slots=True)
class BrokenCall:
    """A call that broke a promise; ``ms`` are the milliseconds until its first byte."""

    id: UUID
    at: datetime
    status: int
    outcome: str
    error_code: str
    ms: Decimal


@dataclass(frozen=True, slots=True)
class Probe:
    """One look at a service. One that isn't ``counted`` says more about our own network than about the service."""

    id: UUID
    at: datetime
    kind: str
    good: bool
    counted: bool
    ms: int
    detail: str
