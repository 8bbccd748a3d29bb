"""Use cases of experiments: registered before there is anything to see, run as registered, looked at at any time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from haat.catalog.model import Listing
from haat.catalog.service import Catalog
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.clock import Clock, check_ahead
from haat.kernel.errors import Conflict, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM, Actor
from haat.kernel.text import check_name
from haat.language.messages import _, gettext
from haat.partners.service import Partners
from haat.rollouts import sequential, store
from haat.rollouts.access import Divided, default_of
from haat.rollouts.model import (
    CONTROL,
    Experiment,
    ExperimentDraft,
    check_candidate,
    check_listing,
    policy_of_experiment,
)
from haat.rollouts.outcomes import NO_OUTCOME, Outcomes, UsageOutcomes, outcomes_for
from haat.usage.variants import Variants

SUSPICIOUS = 0.001
"""Below it the ratio test says that the division itself is wrong."""


@dataclass(frozen=True, slots=True)
class VariantResult:
    """One variant. ``difference`` to the control lies between ``low`` and ``high``; None while subjects are few, and
    for the control. ``seen`` counts subjects, ``subjects`` those whose value is settled."""

    name: str
    version: str
    share: float
    seen: int
    subjects: int
    estimate: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    decided: bool


@dataclass(frozen=True, slots=True)
class Results:
    """``alpha`` is what each p-value is compared with: the experiment's, divided by the number of variants.

    ``ratio_p_value`` below 0.001 (``ratio_is_wrong``) says that subjects did not come in the planned shares: then
    believe nothing else here.
    """

    experiment: Experiment
    alpha: float
    variants: list[VariantResult]
    ratio_p_value: float
    ratio_is_wrong: bool


class Experiments(Divided):
    """Registers and runs experiments. ``sources`` measure metrics besides those of calls."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        catalog: Catalog,
        partners: Partners,
        variants: Variants,
        sources: Sequence[Outcomes] = (),
    ) -> None:
        super().__init__(db, clock, catalog, partners, variants)
        self._sources: tuple[Outcomes, ...] = (UsageOutcomes(variants), *sources)

    async def register(self, actor: Actor, service_id: UUID, draft: ExperimentDraft) -> Experiment:
        """Register an experiment; it begins at ``starts_at``, or within a minute when that is left out.

        Nothing of it is changed afterwards. Raise ValidationFailed for variants that can't be tried.
        """
        scope, now = await self._scope(actor), self._clock.now()
        outcomes_for(self._sources, draft.metric)
        draft = draft.model_copy(update={"name": check_name(draft.name)})
        starts = now if draft.starts_at is None else check_ahead(draft.starts_at, now, "starts_at")
        ends = check_ahead(draft.ends_at, now, "ends_at")
        if ends <= starts:
            raise ValidationFailed(errors=[{"field": "ends_at", "message": _("It ends after it starts.")}])
        async with self._db.transaction(scope) as connection:
            listing, versions = await self._held(connection, scope, service_id)
            check_listing(listing)
            control = default_of(versions)
            for place, variant in enumerate(draft.variants):
                check_candidate(versions, control, variant.version, f"variants.{place}.version", now)
            experiment = Experiment(
                id=new_id(),
                org_id=listing.org_id,
                service_id=listing.id,
                control=control.version,
                plan=draft.model_dump(mode="json"),
                status="registered",
                reason="",
                registered_at=now,
                starts_at=starts,
                ends_at=ends,
                started_at=None,
                ended_at=None,
            )
            await store.add_experiment(connection, experiment)
            data = {"experiment": str(experiment.id), "plan": dict(experiment.plan)}
            await self._record(connection, actor, listing, "experiment.registered", data)
        return experiment

    async def withdraw(self, actor: Actor, experiment_id: UUID) -> Experiment:
        """Take back an experiment that hasn't begun."""
        async with self._db.transaction(await self._scope(actor)) as connection:
            experiment, listing = await self._found(connection, actor, experiment_id)
            if experiment.status != "registered":
                raise Conflict(
                    _(
                        "The experiment is %(status)s: only one that hasn't begun is withdrawn.",
                        status=gettext(experiment.status),
                    )
                )
            return await self._end(connection, actor, listing, experiment, "withdrawn", "")

    async def stop(self, actor: Actor, experiment_id: UUID, reason: str) -> Experiment:
        """End a running experiment before its time; the results say why."""
        reason = check_name(reason, "reason", 500)
        async with self._db.transaction(await self._scope(actor)) as connection:
            experiment, listing = await self._found(connection, actor, experiment_id)
            if experiment.status != "running":
                raise Conflict(
                    _("The experiment is %(status)s: only a running one is stopped.", status=gettext(experiment.status))
                )
            return await self._end(connection, actor, listing, experiment, "stopped", reason)

    async def of_service(self, actor: Actor, service_id: UUID) -> list[Experiment]:
        """Return a service's experiments, the newest first; at most 50."""
        scope = self._reading(actor)
        async with self._db.transaction(scope) as connection:
            await self._held(connection, scope, service_id)
            return await store.experiments_of(connection, service_id)

    async def results(self, actor: Actor, experiment_id: UUID) -> Results:
        """Return what an experiment says so far; it may be asked at any time, as often as one likes."""
        async with self._db.transaction(self._reading(actor)) as connection:
            experiment = await store.experiment(connection, experiment_id)
        source = outcomes_for(self._sources, experiment.draft.metric)
        found = await source.of(experiment, self._clock.now())
        draft, shares = experiment.draft, experiment.shares
        control = found.get(CONTROL, NO_OUTCOME)
        alpha = draft.alpha / len(draft.variants)
        versions = {CONTROL: experiment.control, **{one.name: one.version for one in draft.variants}}
        results = []
        for name, share in shares.items():
            one = found.get(name, NO_OUTCOME)
            against = sequential.UNKNOWN
            if name != CONTROL:
                against = sequential.compare(
                    control.sample,
                    one.sample,
                    alpha=alpha,
                    effect=draft.minimum_effect,
                    most=source.most(draft.metric),
                )
            results.append(
                VariantResult(
                    name=name,
                    version=versions[name],
                    share=share,
                    seen=one.seen,
                    subjects=one.sample.subjects,
                    estimate=one.sample.mean,
                    difference=against.difference,
                    low=against.low,
                    high=against.high,
                    p_value=None if name == CONTROL else against.p_value,
                    decided=against.decided,
                )
            )
        ratio = sequential.ratio_p_value([found.get(name, NO_OUTCOME).seen for name in shares], list(shares.values()))
        return Results(experiment, alpha, results, ratio, ratio < SUSPICIOUS)

    # --- by itself --------------------------------------------------------------------------------

    async def review(self) -> int:
        """Begin and end what is due; return how many experiments that were."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            due = await store.due_experiments(connection, self._clock.now())
        return sum([await self._review(experiment.id) for experiment in due])

    async def _review(self, experiment_id: UUID) -> bool:
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            experiment, listing = await self._found(connection, PLATFORM, experiment_id)
            if experiment.status == "running" and experiment.ends_at <= now:
                await self._end(connection, PLATFORM, listing, experiment, "ended", "")
                return True
            if experiment.status != "registered" or experiment.starts_at > now:
                return False
            problem = await self._problem(connection, experiment, now)
            if problem:
                await self._end(connection, PLATFORM, listing, experiment, "withdrawn", problem)
                return True
            running = replace(experiment, status="running", started_at=now)
            try:
                await store.divide(connection, listing.id, listing.org_id, policy_of_experiment(running))
            except Conflict:
                return False  # it waits until the service's calls are divided no longer
            await store.keep_experiment(connection, running)
            data = {"experiment": str(running.id)}
            await self._record(connection, PLATFORM, listing, "experiment.started", data)
        return True

    async def _problem(self, connection: Connection, experiment: Experiment, now: datetime) -> str:
        """Return why an experiment can't begin as it was registered."""
        listing, versions = await self._catalog.versions.held(connection, experiment.service_id)
        if experiment.ends_at <= now:
            return "Its time was over before it could begin."
        control = next((one for one in versions if one.is_default), None)
        if control is None or control.version != experiment.control:
            return "Another version is the default one since it was registered."
        try:
            check_listing(listing)
            for variant in experiment.draft.variants:
                check_candidate(versions, control, variant.version, "variants", now)
        except Conflict as error:
            return error.detail
        except ValidationFailed as error:
            return str(error.extensions["errors"][0]["message"]).capitalize() + "."
        return ""

    async def tripped(self, experiment_id: UUID, reason: str, figures: Mapping[str, Any]) -> bool:
        """Stop an experiment of which a gateway has left a variant; return whether there was one."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            try:
                experiment, listing = await self._found(connection, PLATFORM, experiment_id)
            except NotFound:
                return False
            if experiment.status == "running":
                await self._end(connection, PLATFORM, listing, experiment, "stopped", reason, figures)
        return True

    # --- within -----------------------------------------------------------------------------------

    async def _found(self, connection: Connection, actor: Actor, experiment_id: UUID) -> tuple[Experiment, Listing]:
        """Return an experiment and its listing, locked; raise NotFound."""
        experiment = await store.experiment(connection, experiment_id)
        listing, _ = await self._held(connection, await self._scope(actor), experiment.service_id)
        return await store.experiment(connection, experiment_id), listing

    async def _end(
        self,
        connection: Connection,
        actor: Actor,
        listing: Listing,
        experiment: Experiment,
        status: Any,
        reason: str,
        figures: Mapping[str, Any] | None = None,
    ) -> Experiment:
        ended = replace(experiment, status=status, reason=reason, ended_at=self._clock.now())
        await store.keep_experiment(connection, ended)
        if experiment.status == "running":
            await store.unite(connection, listing.id)
        data: dict[str, Any] = {"experiment": str(ended.id), "reason": reason}
        if figures:
            data["figures"] = dict(figures)
        await self._record(connection, actor, listing, f"experiment.{status}", data)
        return ended
