"""Whose fault a call is: the one table that objectives, uptime, breaches and docs/sla.md read.

A call counts for the service that executed it. It is *answered*, *failed* (its provider's fault), or *down*: failed,
and the failure speaks for the endpoint and not for what one caller sent it (docs/decisions/0011). Everything that is
not in the table is *not counted*: in doubt, for the provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from haat.usage.event import LIVE, Outcome


class Verdict(StrEnum):
    """What a call says of the service that executed it."""

    ANSWERED = "answered"
    FAILED = "failed"
    DOWN = "down"
    NOT_COUNTED = "not_counted"


AGAINST = (Verdict.FAILED, Verdict.DOWN)
"""The verdicts that use up an error budget."""

FROM_MEMORY = ("hit", "replay")
"""What the cache says of answers for which no provider was asked."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table: of these outcomes, with a status from ``least`` to ``most``, and one of these codes.

    ``codes`` None is any code, an empty text among them the provider's own answer, passed on.
    """

    verdict: Verdict
    outcome: Outcome
    least: int
    most: int
    codes: tuple[str, ...] | None
    why: str

    def fits(self, outcome: str, status: int, code: str) -> bool:
        return (
            outcome == self.outcome and self.least <= status <= self.most and (self.codes is None or code in self.codes)
        )


_ANY = (0, 999)

RULES: tuple[Rule, ...] = (
    Rule(Verdict.ANSWERED, Outcome.COMPLETED, *_ANY, None, "it was answered with success"),
    Rule(Verdict.DOWN, Outcome.PROVIDER_FAILED, *_ANY, ("PROVIDER_UNAVAILABLE",), "no connection to the provider"),
    Rule(Verdict.DOWN, Outcome.PROVIDER_FAILED, *_ANY, ("PROVIDER_TIMEOUT",), "the provider did not answer in time"),
    Rule(Verdict.DOWN, Outcome.PROVIDER_FAILED, *_ANY, ("PROVIDER_FAILED",), "it broke off, or nobody could use it"),
    Rule(Verdict.DOWN, Outcome.PROVIDER_FAILED, 502, 504, ("",), "the provider's own word that it can't serve"),
    Rule(Verdict.FAILED, Outcome.PROVIDER_FAILED, 500, 599, ("",), "the provider's own error, maybe at one input"),
)
"""The first that fits decides. Status and code as the usage event has them."""


def verdict(*, mode: str, cache: str, outcome: str, status: int, code: str, rules: Sequence[Rule] = RULES) -> Verdict:
    """Return what a call says; the SQL of `condition` says the same of a row."""
    if mode != LIVE or cache in FROM_MEMORY:
        return Verdict.NOT_COUNTED
    return next((rule.verdict for rule in rules if rule.fits(outcome, status, code)), Verdict.NOT_COUNTED)


def condition(rules: Sequence[Rule] = RULES) -> tuple[str, dict[str, Any]]:
    """Return the verdict of a row of ``usage`` as SQL, and the values it binds."""
    cases = ["WHEN mode <> 'live' OR cache = ANY(%(from_memory)s) THEN 'not_counted'"]
    values: dict[str, Any] = {"from_memory": list(FROM_MEMORY)}
    for place, rule in enumerate(rules):
        name = f"rule_{place}"
        values |= {f"{name}_outcome": rule.outcome.value, f"{name}_least": rule.least, f"{name}_most": rule.most}
        case = f"outcome = %({name}_outcome)s AND status BETWEEN %({name}_least)s AND %({name}_most)s"
        if rule.codes is not None:
            case += f" AND error_code = ANY(%({name}_codes)s)"
            values[f"{name}_codes"] = list(rule.codes)
        cases.append(f"WHEN {case} THEN '{Verdict(rule.verdict).value}'")
    return f"CASE {' '.join(cases)} ELSE 'not_counted' END", values


SPENT = "greatest(CASE WHEN first_byte_us > 0 THEN first_byte_us ELSE total_us END - admission_us - queue_us, 0)"
"""SQL for the microseconds that a provider took until its first byte: without our admission and our queue."""


def as_data(rules: Iterable[Rule] = RULES) -> list[dict[str, Any]]:
    """Return rules as plain data, to be kept with what was judged by them."""
    return [asdict(rule) for rule in rules]


def from_data(kept: Iterable[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """Return the rules that `as_data` kept."""
    return tuple(
        Rule(
            Verdict(one["verdict"]),
            Outcome(one["outcome"]),
            one["least"],
            one["most"],
            None if one["codes"] is None else tuple(one["codes"]),
            one["why"],
        )
        for one in kept
    )
