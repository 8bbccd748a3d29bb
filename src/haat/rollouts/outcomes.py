"""Where an experiment's metric comes from: a port, and its implementation on what calls leave behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from haat.kernel.errors import ValidationFailed
from haat.rollouts.model import Experiment
from haat.rollouts.sequential import Sample
from haat.usage.variants import Variants

SUCCESS_RATE, LATENCY = "success_rate", "latency_ms"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of one variant: ``seen`` counts every subject, ``sample`` those whose value is settled."""

    seen: int
    sample: Sample


NO_OUTCOME = Outcome(0, Sample())


class Outcomes(Protocol):
    """Measures metrics. A subject must count once, with a value that doesn't change any more: only then do the
    intervals hold (`haat.rollouts.sequential`). Calls carry the experiment's id as ``rollout``, the variant as
    ``arm``; feedback finds them by their request id."""

    def knows(self, metric: str) -> bool:
        """Tell whether this measures a metric."""
        ...

    def most(self, metric: str) -> float | None:
        """Return the largest value that a subject can have, None for no bound; the smallest is 0."""
        ...

    async def of(self, experiment: Experiment, now: datetime) -> Mapping[str, Outcome]:
        """Return what is known of each variant by its name; of a variant without subjects nothing."""
        ...


class UsageOutcomes:
    """The success rate and the latency of calls, out of the usage store."""

    def __init__(self, variants: Variants) -> None:
        self._variants = variants

    def knows(self, metric: str) -> bool:
        return metric in (SUCCESS_RATE, LATENCY)

    def most(self, metric: str) -> float | None:
        return 1.0 if metric == SUCCESS_RATE else None

    async def of(self, experiment: Experiment, now: datetime) -> Mapping[str, Outcome]:
        if experiment.started_at is None:
            return {}
        draft = experiment.draft
        # A subject that had not settled by the end is left out: its time was cut short.
        until = min(now, experiment.ended_at) if experiment.ended_at is not None else now
        found = await self._variants.subjects(
            experiment.id, experiment.started_at, until, draft.settle_minutes * 60, latency=draft.metric == LATENCY
        )
        return {name: Outcome(one.seen, Sample(one.subjects, one.total, one.squares)) for name, one in found.items()}


def outcomes_for(sources: Sequence[Outcomes], metric: str) -> Outcomes:
    """Return what measures a metric; raise ValidationFailed when nothing does."""
    for source in sources:
        if source.knows(metric):
            return source
    message = f"nothing measures this: {SUCCESS_RATE} and {LATENCY} are always there"
    raise ValidationFailed(errors=[{"field": "metric", "message": message}])
