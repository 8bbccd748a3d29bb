"""Control API of rollouts and experiments."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel

from haat.control.context import ActorOf, Body, PlatformOf
from haat.rollouts.experiments import Results, VariantResult
from haat.rollouts.model import Experiment, ExperimentDraft, ExperimentStatus, Percent, Rollout, RolloutDraft, Status
from haat.rollouts.service import RolloutReport, VariantFigures

router = APIRouter(tags=["rollouts"])


class RolloutView(BaseModel):
    """``percent`` is the candidate's share now, ``reason`` and ``figures`` why it ended."""

    id: UUID
    service_id: UUID
    control: str
    candidate: str
    status: Status
    percent: Decimal
    step: int
    next_step_at: datetime | None
    plan: dict[str, Any]
    reason: str
    figures: dict[str, Any]
    started_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, rollout: Rollout) -> RolloutView:
        return cls.model_validate(rollout, from_attributes=True)


class RolloutReportView(BaseModel):
    rollout: RolloutView
    variants: list[VariantFigures]

    @classmethod
    def made_of(cls, report: RolloutReport) -> RolloutReportView:
        return cls(rollout=RolloutView.of(report.rollout), variants=report.variants)


class ExperimentView(BaseModel):
    """``plan`` is what it was registered with."""

    id: UUID
    service_id: UUID
    control: str
    plan: dict[str, Any]
    status: ExperimentStatus
    reason: str
    registered_at: datetime
    starts_at: datetime
    ends_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, experiment: Experiment) -> ExperimentView:
        return cls.model_validate(experiment, from_attributes=True)


class ResultsView(BaseModel):
    """Each p-value may be compared with ``alpha`` at any time; with a wrong ratio believe none of it."""

    experiment: ExperimentView
    alpha: float
    variants: list[VariantResult]
    ratio_p_value: float
    ratio_is_wrong: bool

    @classmethod
    def made_of(cls, results: Results) -> ResultsView:
        return cls(
            experiment=ExperimentView.of(results.experiment),
            alpha=results.alpha,
            variants=results.variants,
            ratio_p_value=results.ratio_p_value,
            ratio_is_wrong=results.ratio_is_wrong,
        )


class Share(Body):
    percent: Percent


class Why(Body):
    reason: str = ""


@router.post("/services/{service_id}/rollouts", status_code=201)
async def start_rollout(service_id: UUID, body: RolloutDraft, actor: ActorOf, platform: PlatformOf) -> RolloutView:
    """Begin to move a service's calls from its default version to a candidate."""
    return RolloutView.of(await platform.rollouts.start(actor, service_id, body))


@router.get("/services/{service_id}/rollouts")
async def rollouts(service_id: UUID, actor: ActorOf, platform: PlatformOf) -> list[RolloutView]:
    """List a service's rollouts, the newest first."""
    return [RolloutView.of(one) for one in await platform.rollouts.of_service(actor, service_id)]


@router.get("/rollouts/{rollout_id}")
async def rollout(rollout_id: UUID, actor: ActorOf, platform: PlatformOf) -> RolloutReportView:
    """Show a rollout and what its versions have done."""
    return RolloutReportView.made_of(await platform.rollouts.report(actor, rollout_id))


@router.put("/rollouts/{rollout_id}/percent")
async def set_percent(rollout_id: UUID, body: Share, actor: ActorOf, platform: PlatformOf) -> RolloutView:
    """Give the candidate another share; steps are not gone on with."""
    return RolloutView.of(await platform.rollouts.set_percent(actor, rollout_id, body.percent))


@router.post("/rollouts/{rollout_id}/pause")
async def pause(rollout_id: UUID, actor: ActorOf, platform: PlatformOf) -> RolloutView:
    """Keep the share as it is."""
    return RolloutView.of(await platform.rollouts.pause(actor, rollout_id))


@router.post("/rollouts/{rollout_id}/resume")
async def resume(rollout_id: UUID, actor: ActorOf, platform: PlatformOf) -> RolloutView:
    """Go on with the steps; the present one begins anew."""
    return RolloutView.of(await platform.rollouts.resume(actor, rollout_id))


@router.post("/rollouts/{rollout_id}/promote")
async def promote(rollout_id: UUID, actor: ActorOf, platform: PlatformOf) -> RolloutView:
    """Make the candidate the default version."""
    return RolloutView.of(await platform.rollouts.promote(actor, rollout_id))


@router.post("/rollouts/{rollout_id}/rollback")
async def roll_back(rollout_id: UUID, body: Why, actor: ActorOf, platform: PlatformOf) -> RolloutView:
    """Give the control all calls again."""
    return RolloutView.of(await platform.rollouts.roll_back(actor, rollout_id, body.reason))


@router.post("/services/{service_id}/experiments", status_code=201)
async def register_experiment(
    service_id: UUID, body: ExperimentDraft, actor: ActorOf, platform: PlatformOf
) -> ExperimentView:
    """Register an experiment; nothing of it is changed afterwards."""
    return ExperimentView.of(await platform.experiments.register(actor, service_id, body))


@router.get("/services/{service_id}/experiments")
async def experiments(service_id: UUID, actor: ActorOf, platform: PlatformOf) -> list[ExperimentView]:
    """List a service's experiments, the newest first."""
    return [ExperimentView.of(one) for one in await platform.experiments.of_service(actor, service_id)]


@router.get("/experiments/{experiment_id}")
async def experiment_results(experiment_id: UUID, actor: ActorOf, platform: PlatformOf) -> ResultsView:
    """Show what an experiment says so far; it may be asked as often as one likes."""
    return ResultsView.made_of(await platform.experiments.results(actor, experiment_id))


@router.post("/experiments/{experiment_id}/withdraw")
async def withdraw(experiment_id: UUID, actor: ActorOf, platform: PlatformOf) -> ExperimentView:
    """Take back an experiment that hasn't begun."""
    return ExperimentView.of(await platform.experiments.withdraw(actor, experiment_id))


@router.post("/experiments/{experiment_id}/stop")
async def stop(experiment_id: UUID, body: Why, actor: ActorOf, platform: PlatformOf) -> ExperimentView:
    """End a running experiment before its time."""
    return ExperimentView.of(await platform.experiments.stop(actor, experiment_id, body.reason))
