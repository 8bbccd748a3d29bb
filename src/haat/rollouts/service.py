"""Use cases of rollouts: from one version to the next in steps, and back by itself when that one is worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.catalog.model import Listing, Version
from haat.infra.postgres import PLATFORM_SCOPE, Connection
from haat.kernel.errors import Conflict, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM, Actor
from haat.kernel.text import check_name
from haat.language.messages import _, gettext
from haat.rollouts import store
from haat.rollouts.access import Divided, default_of
from haat.rollouts.model import (
    CANDIDATE,
    CONTROL,
    Rollout,
    RolloutDraft,
    check_candidate,
    check_listing,
    policy_of_rollout,
    unfit,
)
from haat.rollouts.rule import NOTHING, Figures, Rule, Verdict, judge
from haat.usage.model import quantile
from haat.usage.variants import VariantUsage

WINDOW = timedelta(minutes=5)
"""What the control plane judges a candidate by; gateways look at the last one to two minutes by themselves."""


@dataclass(frozen=True, slots=True)
class VariantFigures:
    """What a variant did since the rollout began; ``agreed`` of ``compared`` answers of shadow calls were equal."""

    variant: str
    calls: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None
    agreed: int = 0
    compared: int = 0


@dataclass(frozen=True, slots=True)
class RolloutReport:
    rollout: Rollout
    variants: list[VariantFigures]


class Rollouts(Divided):
    """Starts, moves and ends rollouts."""

    async def start(self, actor: Actor, service_id: UUID, draft: RolloutDraft) -> Rollout:
        """Begin to move a service's calls from its default version to a candidate.

        Raise ValidationFailed for a candidate that can't answer what the control is asked, Conflict while another
        rollout or an experiment runs.
        """
        scope, now = await self._scope(actor), self._clock.now()
        async with self._db.transaction(scope) as connection:
            listing, versions = await self._held(connection, scope, service_id)
            check_listing(listing)
            control = default_of(versions)
            check_candidate(versions, control, draft.candidate, "candidate", now)
            if draft.shadow is not None:
                await self._check_shadow(connection, listing, draft, now)
            steps = draft.steps
            rollout = Rollout(
                id=new_id(),
                org_id=listing.org_id,
                service_id=listing.id,
                control=control.version,
                candidate=draft.candidate,
                status="running",
                percent=steps[0].percent if steps else draft.percent,
                plan=draft.model_dump(mode="json"),
                step=0 if steps else -1,
                step_since=now,
                reason="",
                figures={},
                started_at=now,
                ended_at=None,
            )
            await store.divide(
                connection, listing.id, listing.org_id, policy_of_rollout(rollout, listing.provider_slug)
            )
            await store.add_rollout(connection, rollout)
            await self._tell(connection, actor, listing, rollout, "rollout.started")
        return rollout

    async def set_percent(self, actor: Actor, rollout_id: UUID, percent: Decimal) -> Rollout:
        """Give the candidate another share; a rollout with steps doesn't go on by itself any more."""
        async with self._db.transaction(await self._scope(actor)) as connection:
            rollout, listing = await self._active(connection, actor, rollout_id)
            changed = replace(rollout, percent=percent, step=-1, step_since=self._clock.now())
            return await self._move(connection, actor, listing, changed, "rollout.percent_set")

    async def pause(self, actor: Actor, rollout_id: UUID) -> Rollout:
        """Keep the share as it is until `resume`; a candidate that is worse goes back all the same."""
        return await self._switch(actor, rollout_id, "running", "paused")

    async def resume(self, actor: Actor, rollout_id: UUID) -> Rollout:
        """Go on; the present step begins anew."""
        return await self._switch(actor, rollout_id, "paused", "running")

    async def promote(self, actor: Actor, rollout_id: UUID) -> Rollout:
        """Make the candidate the default version, and end the rollout."""
        async with self._db.transaction(await self._scope(actor)) as connection:
            rollout, listing = await self._active(connection, actor, rollout_id)
            return await self._promote(connection, actor, listing, rollout)

    async def roll_back(self, actor: Actor, rollout_id: UUID, reason: str = "") -> Rollout:
        """Give the control all calls again, and end the rollout."""
        reason = check_name(reason, "reason", 500) if reason.strip() else ""
        async with self._db.transaction(await self._scope(actor)) as connection:
            rollout, listing = await self._active(connection, actor, rollout_id)
            return await self._roll_back(connection, actor, listing, rollout, Verdict(reason, {}))

    async def of_service(self, actor: Actor, service_id: UUID) -> list[Rollout]:
        """Return a service's rollouts, the newest first; at most 50."""
        scope = self._reading(actor)
        async with self._db.transaction(scope) as connection:
            await self._held(connection, scope, service_id)
            return await store.rollouts_of(connection, service_id)

    async def report(self, actor: Actor, rollout_id: UUID) -> RolloutReport:
        """Return a rollout and what its versions have done."""
        async with self._db.transaction(self._reading(actor)) as connection:
            rollout = await store.rollout(connection, rollout_id)
        found = await self._variants.usage(rollout.id, rollout.started_at, self._until(rollout))
        names = [CONTROL, CANDIDATE, *(name for name in found if name not in (CONTROL, CANDIDATE))]
        return RolloutReport(rollout, [_figures(name, found.get(name, VariantUsage())) for name in names])

    # --- by itself --------------------------------------------------------------------------------

    async def tripped(self, rollout_id: UUID, reason: str, figures: Mapping[str, Any]) -> bool:
        """Make it last that a gateway has left the candidate; return whether there was such a rollout to end."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            try:
                rollout = await store.rollout(connection, rollout_id)
            except NotFound:
                return False
            listing, _versions = await self._catalog.versions.held(connection, rollout.service_id)
            rollout = await store.rollout(connection, rollout_id)
            if rollout.active:
                await self._roll_back(connection, PLATFORM, listing, rollout, Verdict(reason, figures))
        return True

    async def review(self) -> int:
        """Look at every rollout: send back what is worse, go on where a step is over; return how many changed."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            active = await store.active_rollouts(connection)
        return sum([await self._review(rollout) for rollout in active])

    async def _review(self, rollout: Rollout) -> bool:
        now = self._clock.now()
        verdict = await self._judge(rollout, now)
        due = rollout.next_step_at
        if verdict is None and (due is None or due > now):
            return False
        enough = verdict is not None or await self._tried(rollout, now)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            listing, versions = await self._catalog.versions.held(connection, rollout.service_id)
            present = await store.rollout(connection, rollout.id)
            if present != rollout:
                return False  # somebody decided meanwhile
            if verdict is None:
                verdict = _lost(rollout, listing, versions, now)
            if verdict is not None:
                await self._roll_back(connection, PLATFORM, listing, rollout, verdict)
                return True
            if not enough:
                return False  # silence isn't health
            steps = rollout.draft.steps
            if rollout.step == len(steps) - 1:
                await self._promote(connection, PLATFORM, listing, rollout)
            else:
                step = rollout.step + 1
                changed = replace(rollout, step=step, percent=steps[step].percent, step_since=now)
                await self._move(connection, PLATFORM, listing, changed, "rollout.advanced")
        return True

    async def _judge(self, rollout: Rollout, now: datetime) -> Verdict | None:
        rule = Rule(**rollout.draft.rule.model_dump())
        lately = await self._variants.usage(rollout.id, max(rollout.started_at, now - WINDOW), now)
        control = figures_of(lately.get(CONTROL))
        if control.calls < rule.min_calls:
            ever = await self._variants.usage(rollout.id, rollout.started_at, now)
            control = figures_of(ever.get(CONTROL))
        return judge(control, figures_of(lately.get(CANDIDATE)), rule)

    async def _tried(self, rollout: Rollout, now: datetime) -> bool:
        """Tell whether the candidate had enough calls in this step to be trusted with more."""
        found = await self._variants.usage(rollout.id, rollout.step_since, now)
        return figures_of(found.get(CANDIDATE)).calls >= rollout.draft.rule.min_calls

    # --- within -----------------------------------------------------------------------------------

    async def _active(self, connection: Connection, actor: Actor, rollout_id: UUID) -> tuple[Rollout, Listing]:
        """Return a rollout that hasn't ended and its listing, locked; raise NotFound or Conflict."""
        rollout = await store.rollout(connection, rollout_id)
        listing, _candidate = await self._held(connection, await self._scope(actor), rollout.service_id)
        rollout = await store.rollout(connection, rollout_id)  # as it is now that nobody else can change it
        rollout.require_active()
        return rollout, listing

    async def _switch(self, actor: Actor, rollout_id: UUID, present: str, wanted: Any) -> Rollout:
        async with self._db.transaction(await self._scope(actor)) as connection:
            rollout, listing = await self._active(connection, actor, rollout_id)
            if rollout.status != present:
                raise Conflict(_("The rollout is %(status)s.", status=gettext(rollout.status)))
            changed = replace(rollout, status=wanted, step_since=self._clock.now())
            kind = "rollout.paused" if wanted == "paused" else "rollout.resumed"
            return await self._move(connection, actor, listing, changed, kind)

    async def _move(
        self, connection: Connection, actor: Actor, listing: Listing, rollout: Rollout, kind: str
    ) -> Rollout:
        await store.keep_rollout(connection, rollout)
        await store.redivide(connection, listing.id, policy_of_rollout(rollout, listing.provider_slug))
        await self._tell(connection, actor, listing, rollout, kind)
        return rollout

    async def _promote(self, connection: Connection, actor: Actor, listing: Listing, rollout: Rollout) -> Rollout:
        now = self._clock.now()
        _listing, versions = await self._catalog.versions.held(connection, listing.id)
        control = next((one for one in versions if one.version == rollout.control), None)
        if control is None:
            raise Conflict(_("The control is gone."))
        candidate = check_candidate(versions, control, rollout.candidate, "candidate", now)
        ended = replace(rollout, status="promoted", percent=Decimal(100), ended_at=now)
        await store.keep_rollout(connection, ended)
        await store.unite(connection, listing.id)
        await self._catalog.versions.make_default(connection, actor, listing, candidate)
        await self._tell(connection, actor, listing, ended, "rollout.promoted")
        return ended

    async def _roll_back(
        self, connection: Connection, actor: Actor, listing: Listing, rollout: Rollout, verdict: Verdict
    ) -> Rollout:
        ended = replace(
            rollout,
            status="rolled_back",
            reason=verdict.reason,
            figures={**verdict.figures, "percent": str(rollout.percent)},
            percent=Decimal(0),
            ended_at=self._clock.now(),
        )
        await store.keep_rollout(connection, ended)
        await store.unite(connection, listing.id)
        await self._tell(connection, actor, listing, ended, "rollout.rolled_back")
        return ended

    async def _tell(self, connection: Connection, actor: Actor, listing: Listing, rollout: Rollout, kind: str) -> None:
        data: dict[str, Any] = {
            "rollout": str(rollout.id),
            "control": rollout.control,
            "candidate": rollout.candidate,
            "percent": str(rollout.percent),
        }
        if kind == "rollout.rolled_back":
            data |= {"reason": rollout.reason, "figures": dict(rollout.figures)}
        await self._record(connection, actor, listing, kind, data)

    async def _check_shadow(self, connection: Connection, listing: Listing, draft: RolloutDraft, now: datetime) -> None:
        """Refuse copies to what can't be asked the same; raise ValidationFailed."""
        shadow = draft.shadow
        assert shadow is not None
        _listing, versions = await self._catalog.versions.held(connection, listing.id)
        control = default_of(versions)
        if not shadow.service:
            check_candidate(versions, control, shadow.version or draft.candidate, "shadow.version", now)
            return
        try:
            other, others = await self._catalog.versions.named(connection, listing.provider_slug, shadow.service)
        except NotFound as error:
            raise _wrong("shadow.service", "you have no such service") from error
        version = next((one for one in others if one.version == shadow.version), None)
        if version is None:
            raise _wrong("shadow.version", "name a version of that service")
        if other.unit != listing.unit:
            raise _wrong("shadow.service", f"it is sold by {other.unit}, this one by {listing.unit}")
        if other.status not in ("published", "deprecated"):
            raise _wrong("shadow.service", f"it is {other.status}")
        problem = unfit(version, control, now)
        if problem:
            raise _wrong("shadow.version", problem)

    def _until(self, rollout: Rollout) -> datetime:
        return rollout.ended_at or self._clock.now()


def _lost(rollout: Rollout, listing: Listing, versions: list[Version], now: datetime) -> Verdict | None:
    """Return why the candidate can't serve any more, if it can't."""
    control = next((one for one in versions if one.version == rollout.control), None)
    candidate = next((one for one in versions if one.version == rollout.candidate), None)
    if listing.status == "retired":
        return Verdict("The listing is retired.", {})
    if control is None or candidate is None:
        return Verdict("One of the two versions is gone.", {})
    problem = unfit(candidate, control, now)
    return Verdict(f"The candidate can't serve any more: {problem}.", {}) if problem else None


def _wrong(field: str, message: str) -> ValidationFailed:
    return ValidationFailed(errors=[{"field": field, "message": message}])


def figures_of(usage: VariantUsage | None) -> Figures:
    """Return a variant's calls as the rule takes them."""
    return NOTHING if usage is None else Figures(usage.calls, usage.errors, usage.latency)


def _figures(name: str, usage: VariantUsage) -> VariantFigures:
    p50, p95 = quantile(usage.latency, 0.5), quantile(usage.latency, 0.95)
    return VariantFigures(name, usage.calls, usage.errors, p50, p95, usage.agreed, usage.compared)
