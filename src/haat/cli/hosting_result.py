"""What the second half of the tour has shown, and what of it is not as it must be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

JOB_ITEMS = 10_000


@dataclass(slots=True)
class HostingResult:
    """Figures of the model, its two rollouts, and the job; money in rupees."""

    version: str = ""
    accepted_ms: float = 0.0
    largest_batch: int = 0
    mean_batch: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0

    promoted: str = ""
    shares: dict[str, tuple[int, int]] = field(default_factory=dict)
    """For each percentage of the good rollout: calls, and those that the candidate answered."""
    failed_meanwhile: int = 0
    """Calls that failed while the good version was rolled out."""

    rolled_back: str = ""
    reason: str = ""
    candidate_calls: int = 0
    candidate_failures: int = 0
    failed_after: int = 0
    """Calls that failed after the bad version had gone back."""

    answered: int = 0
    """Calls that were answered well, those of the job apart."""

    items: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    items_twice: int = 0
    """Items whose answer is another one's."""
    characters: int = 0
    """Of all inputs of the job."""
    metered_characters: int = 0
    usage_events: int = 0
    """Those of calls that were executed."""
    repeated: int = 0
    """Calls at no charge: those whose answer was given again, and those whose caller was killed before its answer."""
    killed: list[str] = field(default_factory=list)
    job_seconds: float = 0.0

    billed_calls: int = 0
    net: Decimal = Decimal(0)
    shared_out: Decimal = Decimal(0)

    def as_json(self) -> dict[str, Any]:
        """Its part of the last line of ``haat demo --once``."""
        return {
            "model": {
                "version": self.version,
                "accepted_ms": round(self.accepted_ms),
                "largest_batch": self.largest_batch,
                "mean_batch": round(self.mean_batch, 1),
                "p50_ms": round(self.p50_ms, 1),
                "p95_ms": round(self.p95_ms, 1),
            },
            "rollout": {
                "promoted": self.promoted,
                "shares": {percent: list(share) for percent, share in self.shares.items()},
                "failed": self.failed_meanwhile,
            },
            "rollback": {
                "version": self.rolled_back,
                "reason": self.reason,
                "calls": self.candidate_calls,
                "failures": self.candidate_failures,
                "failed_after": self.failed_after,
            },
            "job": {
                "items": self.items,
                "succeeded": self.statuses["succeeded"],
                "twice": self.items_twice,
                "usage_events": self.usage_events,
                "characters": self.characters,
                "metered_characters": self.metered_characters,
                "repeated": self.repeated,
                "killed": self.killed,
                "seconds": round(self.job_seconds, 1),
            },
            "hosting_billed_calls": self.billed_calls,
            "hosting_invoice_total": str(self.net),
        }

    def wrong(self) -> list[str]:
        """Return a sentence for each thing that is not as it must be."""
        found = []
        if not self.promoted or self.failed_meanwhile:
            found.append(f"{self.failed_meanwhile} calls failed while {self.promoted or 'nothing'} was rolled out")
        if not self.rolled_back or self.failed_after:
            found.append(f"{self.failed_after} calls failed after {self.rolled_back or 'nothing'} went back")
        if (self.items, self.statuses["succeeded"]) != (JOB_ITEMS, JOB_ITEMS):
            found.append(f"of {JOB_ITEMS} items {self.items} came back: {dict(self.statuses)}")
        if self.usage_events != self.items or self.items_twice:
            found.append(f"{self.items} items but {self.usage_events} usage events; {self.items_twice} share an answer")
        if self.metered_characters != self.characters:
            found.append(f"{self.characters} characters sent but {self.metered_characters} metered")
        if self.killed != ["worker", "model"]:
            found.append(f"a worker and a model were to be killed, and these were: {self.killed}")
        if self.billed_calls != self.answered + self.items + self.repeated:
            calls = f"{self.answered} answers, {self.items} items and {self.repeated} calls at no charge"
            found.append(f"{calls} but {self.billed_calls} calls on the invoice")
        if self.net != self.shared_out:
            found.append(f"{self.net} invoiced but {self.shared_out} shared out")
        return found
