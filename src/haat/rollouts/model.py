"""Rollouts and experiments: what is asked for, what is kept, and what gateways are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from haat.catalog.model import Listing, Version
from haat.kernel.errors import Conflict, ValidationFailed
from haat.kernel.text import is_storable
from haat.language.messages import _, gettext

Status = Literal["running", "paused", "promoted", "rolled_back"]
ExperimentStatus = Literal["registered", "running", "ended", "stopped", "withdrawn"]
Percent = Annotated[Decimal, Field(ge=0, le=100, decimal_places=2)]
VersionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
User = Annotated[str, Field(min_length=1, max_length=256)]
CONTROL, CANDIDATE = "control", "candidate"


class Draft(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        if not is_storable(value):
            raise ValueError("holds characters or numbers that can't be stored")
        return value


class RuleDraft(Draft):
    """When a candidate goes back: see `haat.rollouts.rule.Rule`."""

    min_calls: int = Field(default=50, ge=20, le=1_000_000)
    error_margin: float = Field(default=0.02, ge=0, le=1)
    latency_ratio: float = Field(default=1.5, ge=0, le=100)
    latency_quantile: float = Field(default=0.95, ge=0.5, le=0.999)

    @field_validator("latency_ratio")
    @classmethod
    def _slower(cls, value: float) -> float:
        if 0 < value < 1:
            raise ValueError("1 or more, or 0 for no look at the latency")
        return value


class People(Draft):
    """Users as callers name them in ``X-Haat-User``, applications by their ids."""

    users: list[User] = Field(default=[], max_length=1000)
    applications: list[UUID] = Field(default=[], max_length=1000)


class ShadowDraft(Draft):
    """``percent`` of the calls are copied: to ``version``, of ``service`` (a slug of the same provider) or this one."""

    percent: Percent
    version: VersionName = ""
    service: str = Field(default="", max_length=40)


class StepDraft(Draft):
    """``percent`` of the users for ``minutes``, if all is well."""

    percent: Percent = Field(gt=0)
    minutes: int = Field(ge=1, le=60 * 24 * 30)


class RolloutDraft(Draft):
    """A rollout as it is asked for. With ``steps`` it goes on by itself; ``promote`` then ends it."""

    candidate: VersionName
    percent: Percent = Decimal(0)
    steps: list[StepDraft] = Field(default=[], max_length=20)
    promote: bool = False
    allow: People = People()
    block: People = People()
    rule: RuleDraft = RuleDraft()
    shadow: ShadowDraft | None = None

    @model_validator(mode="after")
    def _fits(self) -> RolloutDraft:
        shares = [step.percent for step in self.steps]
        if shares != sorted(set(shares)):
            raise ValueError("each step has more percent than the one before")
        if self.steps and self.percent:
            raise ValueError("give either a percent or steps, which begin with the first one's")
        if self.promote and (not shares or shares[-1] != 100):
            raise ValueError("promote needs steps of which the last is 100 percent")
        if set(self.allow.users) & set(self.block.users) or set(self.allow.applications) & set(self.block.applications):
            raise ValueError("somebody is allowed and blocked at once")
        return self


class VariantDraft(Draft):
    """One version that is tried against the control."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")
    version: VersionName
    percent: Percent = Field(gt=0)


class ExperimentDraft(Draft):
    """An experiment as it is registered; nothing of it is changed afterwards.

    ``metric`` is ``success_rate`` (0 to 1), ``latency_ms``, or what callers say: ``thumbs``, ``rating``, ``closeness``.
    ``minimum_effect`` is the smallest difference worth finding, in the metric's unit. A subject (a user, or an
    application that names none) counts once, with the mean of its first ``settle_minutes``.
    """

    name: str = Field(min_length=1, max_length=120)
    metric: str = Field(min_length=1, max_length=80)
    minimum_effect: float = Field(gt=0, le=1e9)
    variants: list[VariantDraft] = Field(min_length=1, max_length=5)
    alpha: float = Field(default=0.05, ge=0.001, le=0.2)
    settle_minutes: int = Field(default=60, ge=1, le=60 * 24 * 7)
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime
    rule: RuleDraft = RuleDraft()

    @model_validator(mode="after")
    def _fits(self) -> ExperimentDraft:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names) or CONTROL in names or "shadow" in names:
            raise ValueError("variants have different names, none of them control or shadow")
        if sum(variant.percent for variant in self.variants) >= 100:
            raise ValueError("the control needs a share, too: the variants' percents add up to less than 100")
        return self


@dataclass(frozen=True, slots=True)
class Rollout:
    """``plan`` is the draft as JSON, ``step`` the place among its steps (-1 without), ``figures`` those of the end."""

    id: UUID
    org_id: UUID
    service_id: UUID
    control: str
    candidate: str
    status: Status
    percent: Decimal
    plan: Mapping[str, Any]
    step: int
    step_since: datetime
    reason: str
    figures: Mapping[str, Any]
    started_at: datetime
    ended_at: datetime | None

    @property
    def draft(self) -> RolloutDraft:
        return RolloutDraft.model_validate(self.plan)

    @property
    def active(self) -> bool:
        return self.ended_at is None

    @property
    def next_step_at(self) -> datetime | None:
        """When the next step is due; None when there is none, or the rollout doesn't go on by itself."""
        if self.status != "running" or self.step < 0:
            return None
        steps, promotes = self.draft.steps, self.draft.promote
        if self.step >= len(steps) or (self.step == len(steps) - 1 and not promotes):
            return None
        return self.step_since + timedelta(minutes=steps[self.step].minutes)

    def require_active(self) -> None:
        """Raise Conflict after its end."""
        if not self.active:
            raise Conflict(
                _("The rollout is %(status)s: start another one.", status=gettext(self.status.replace("_", " ")))
            )


@dataclass(frozen=True, slots=True)
class Experiment:
    """``plan`` is the draft as JSON. ``reason`` says why it ended before its time."""

    id: UUID
    org_id: UUID
    service_id: UUID
    control: str
    plan: Mapping[str, Any]
    status: ExperimentStatus
    reason: str
    registered_at: datetime
    starts_at: datetime
    ends_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def draft(self) -> ExperimentDraft:
        return ExperimentDraft.model_validate(self.plan)

    @property
    def shares(self) -> dict[str, float]:
        """The planned shares of the subjects by variant, the control first; together 1."""
        shares = {variant.name: float(variant.percent) / 100 for variant in self.draft.variants}
        return {CONTROL: 1 - sum(shares.values()), **shares}


def buckets(percent: Decimal) -> int:
    """Return a percentage in buckets of a hundredth of a percent."""
    return int(percent * 100)


def policy_of_rollout(rollout: Rollout, provider: str) -> dict[str, Any]:
    """Return what gateways are told of a rollout: a `haat.gateway.market.policy.DivisionPolicy` as JSON."""
    draft = rollout.draft
    share = {"name": CANDIDATE, "version": rollout.candidate, "buckets": buckets(rollout.percent)}
    policy: dict[str, Any] = {
        "id": str(rollout.id),
        "control": rollout.control,
        "shares": [share],
        "allow_users": draft.allow.users,
        "allow_applications": [str(one) for one in draft.allow.applications],
        "block_users": draft.block.users,
        "block_applications": [str(one) for one in draft.block.applications],
        "rule": draft.rule.model_dump(),
    }
    if draft.shadow is not None and draft.shadow.percent:
        policy["shadow"] = {
            "version": draft.shadow.version or rollout.candidate,
            "buckets": buckets(draft.shadow.percent),
            "service": f"{provider}/{draft.shadow.service}" if draft.shadow.service else "",
        }
    return policy


def policy_of_experiment(experiment: Experiment) -> dict[str, Any]:
    """Return what gateways are told of an experiment."""
    draft = experiment.draft
    return {
        "id": str(experiment.id),
        "control": experiment.control,
        "shares": [
            {"name": one.name, "version": one.version, "buckets": buckets(one.percent)} for one in draft.variants
        ],
        "rule": draft.rule.model_dump(),
    }


def check_candidate(versions: Sequence[Version], control: Version, name: str, field: str, now: datetime) -> Version:
    """Return the version that may get the control's calls; raise ValidationFailed with what speaks against it."""
    found = next((one for one in versions if one.version == name), None)
    if found is None:
        problem = "the service has no such version"
    elif found.id == control.id:
        problem = f"version {name} is the control"
    else:
        problem = unfit(found, control, now)
    if problem or found is None:
        raise ValidationFailed(errors=[{"field": field, "message": problem}])
    return found


def unfit(version: Version, control: Version, now: datetime) -> str:
    """Return why a version can't answer what the control is asked, empty when it can."""
    if version.accepted_at is None:
        return f"version {version.version} has not passed its acceptance call"
    if version.retired_at is not None or (version.sunset_at is not None and version.sunset_at <= now):
        return f"version {version.version} is over"
    if version.serves:
        return f"version {version.version} only adapts another one"
    if version.dialect != control.dialect:
        return f"version {version.version} speaks {version.dialect}, the control {control.dialect}"
    if bool(version.policy.get("websocket")) != bool(control.policy.get("websocket")):
        return "one of the two versions speaks WebSocket"
    for mine, theirs in ((version.languages, control.languages), (version.language_pairs, control.language_pairs)):
        missing = sorted(set(theirs) - set(mine)) if mine else []
        if missing:
            return f"version {version.version} lacks {', '.join(missing[:3])}"
    return ""


def check_listing(listing: Listing) -> None:
    """Raise Conflict unless a listing takes calls."""
    if listing.status not in ("published", "deprecated"):
        raise Conflict(
            _("The listing is %(status)s: only one that is open has calls to divide.", status=gettext(listing.status))
        )
