"""Where an experiment's metric comes from: a port, and what measures calls and the feedback on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from haat.feedback.model import MOST_OF
from haat.feedback.service import Feedback
from haat.kernel.errors import ValidationFailed
from haat.rollouts.model import Experiment
from haat.rollouts.sequential import Sample
from haat.usage.variants import SubjectValues, Variants

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
        found = await self._variants.subjects(
            experiment.id,
            experiment.started_at,
            _until(experiment, now),
            draft.settle_minutes * 60,
            latency=draft.metric == LATENCY,
        )
        return _outcomes(found)


class FeedbackOutcomes:
    """What callers say of answers: ``thumbs`` (up is 1, down 0), ``rating`` (1 to 5), ``closeness`` (0 to 1)."""

    def __init__(self, feedback: Feedback) -> None:
        self._feedback = feedback

    def knows(self, metric: str) -> bool:
        return metric in MOST_OF

    def most(self, metric: str) -> float | None:
        return MOST_OF[metric]

    async def of(self, experiment: Experiment, now: datetime) -> Mapping[str, Outcome]:
        if experiment.started_at is None:
            return {}
        draft = experiment.draft
        found = await self._feedback.subjects(
            draft.metric,
            experiment.id,
            experiment.started_at,
            _until(experiment, now),
            now,
            timedelta(minutes=draft.settle_minutes),
        )
        return _outcomes(found)


def _until(experiment: Experiment, now: datetime) -> datetime:
    """Return when the last calls were made: a subject that had not settled by the end had its time cut short."""
    return min(now, experiment.ended_at) if experiment.ended_at is not None else now


def _outcomes(found: Mapping[str, SubjectValues]) -> dict[str, Outcome]:
    return {name: Outcome(one.seen, Sample(one.subjects, one.total, one.squares)) for name, one in found.items()}


def outcomes_for(sources: Sequence[Outcomes], metric: str) -> Outcomes:
    """Return what measures a metric; raise ValidationFailed when nothing does."""
    for source in sources:
        if source.knows(metric):
            return source
    message = f"nothing measures this: {SUCCESS_RATE}, {LATENCY}, {', '.join(MOST_OF)} are always there"
    raise ValidationFailed(errors=[{"field": "metric", "message": message}])
