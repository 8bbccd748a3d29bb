"""The page of a service's rollout and its experiments: where its calls go, what that shows, and the buttons."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.responses import Response

from haat.catalog.model import Listing, Version
from haat.kernel.errors import HaatError, NotFound, ValidationFailed
from haat.language.messages import N_, _
from haat.portal import formats
from haat.portal.visit import Fields, Visit, VisitOf, messages, parse_id
from haat.rollouts.experiments import Results, VariantResult
from haat.rollouts.model import Rollout, RolloutDraft, unfit
from haat.rollouts.outcomes import LATENCY, SUCCESS_RATE
from haat.rollouts.service import RolloutReport

router = APIRouter(prefix="/partner/services/{service}/rollout")

PACES: dict[str, tuple[str, list[dict[str, int]]]] = {
    "hours": (
        N_("1, 5, 25, 50 and 100 %% of the users, an hour each"),
        [{"percent": percent, "minutes": 60} for percent in (1, 5, 25, 50, 100)],
    ),
    "minutes": (
        N_("1, 5, 25, 50 and 100 %% of the users, ten minutes each"),
        [{"percent": percent, "minutes": 10} for percent in (1, 5, 25, 50, 100)],
    ),
    "days": (
        N_("5, 25, 50 and 100 %% of the users, a day each"),
        [{"percent": percent, "minutes": 24 * 60} for percent in (5, 25, 50, 100)],
    ),
    "hand": (N_("by hand, beginning with nobody"), []),
}
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One variant of an experiment, in words."""

    name: str
    version: str
    subjects: str
    estimate: str
    difference: str
    interval: str
    verdict: str
    state: str
    p_value: str


async def _own(visit: Visit, service: str) -> Listing:
    identifier = parse_id(service)
    for listing in await visit.platform.catalog.own(visit.require_actor()):
        if listing.id == identifier:
            return listing
    raise NotFound


async def _page(visit: Visit, service: str, status: int = 200, errors: Fields | None = None) -> Response:
    listing, actor = await _own(visit, service), visit.require_actor()
    versions = await visit.platform.discovery.versions(actor, listing.id)
    found = await visit.platform.rollouts.of_service(actor, listing.id)
    active = next((one for one in found if one.active), None)
    report: RolloutReport | None = None
    if active is not None:
        report = await visit.platform.rollouts.report(actor, active.id)
    experiments = (await visit.platform.experiments.of_service(actor, listing.id))[:_SHOWN]
    results = [await visit.platform.experiments.results(actor, one.id) for one in experiments]
    return visit.render(
        "rollout.html",
        status,
        listing=listing,
        report=report,
        candidates=[
            (one.version, _("Version %(version)s", version=one.version)) for one in _candidates(versions, visit)
        ],
        paces=[(name, _(words)) for name, (words, steps) in PACES.items()],
        past=[one for one in found if not one.active][:_SHOWN],
        experiments=[(one, rows_of(one)) for one in results],
        busy=any(one.experiment.status == "running" for one in results),
        errors=errors or Fields(),
        typed=visit.typed if errors else Fields(),
    )


def _candidates(versions: list[Version], visit: Visit) -> list[Version]:
    control = next((one for one in versions if one.is_default), None)
    if control is None:
        return []
    now = visit.platform.clock.now()
    return [one for one in versions if one.id != control.id and not unfit(one, control, now)]


@router.get("")
async def rollout(visit: VisitOf, service: str) -> Response:
    return await _page(visit, service)


@router.post("/start")
async def start(visit: VisitOf, service: str) -> Response:
    listing = await _own(visit, service)
    steps = PACES.get(visit.text("pace"), PACES["hand"])[1]
    try:
        try:
            draft = RolloutDraft.model_validate({"candidate": visit.text("candidate"), "steps": steps})
        except ValidationError as error:
            wrong = [{"field": "candidate", "message": _("Choose the version to move to.")}]
            raise ValidationFailed(errors=wrong) from error
        await visit.platform.rollouts.start(visit.require_actor(), listing.id, draft)
    except HaatError as error:
        return await _page(visit, service, error.status, messages(error))
    return visit.redirect(_address(listing), done="rollout-started")


@router.post("/percent")
async def set_percent(visit: VisitOf, service: str) -> Response:
    try:
        percent = Decimal(visit.text("percent"))
        if not 0 <= percent <= 100 or percent != round(percent, 2):
            raise InvalidOperation
    except InvalidOperation:
        return await _page(visit, service, 422, Fields(percent=_("Enter 0 to 100, with at most two decimals.")))

    async def change(active: Rollout) -> Any:
        await visit.platform.rollouts.set_percent(visit.require_actor(), active.id, percent)

    return await _change(visit, service, "rollout-percent", change)


@router.post("/pause")
async def pause(visit: VisitOf, service: str) -> Response:
    rollouts, actor = visit.platform.rollouts, visit.require_actor()
    return await _change(visit, service, "rollout-paused", lambda active: rollouts.pause(actor, active.id))


@router.post("/resume")
async def resume(visit: VisitOf, service: str) -> Response:
    rollouts, actor = visit.platform.rollouts, visit.require_actor()
    return await _change(visit, service, "rollout-resumed", lambda active: rollouts.resume(actor, active.id))


@router.post("/promote")
async def promote(visit: VisitOf, service: str) -> Response:
    rollouts, actor = visit.platform.rollouts, visit.require_actor()
    return await _change(visit, service, "rollout-promoted", lambda active: rollouts.promote(actor, active.id))


@router.post("/back")
async def roll_back(visit: VisitOf, service: str) -> Response:
    rollouts, actor, reason = visit.platform.rollouts, visit.require_actor(), visit.text("reason")
    return await _change(visit, service, "rollout-back", lambda active: rollouts.roll_back(actor, active.id, reason))


async def _change(visit: Visit, service: str, done: str, change: Callable[[Rollout], Awaitable[Any]]) -> Response:
    """Change the rollout that runs, and show the page again."""
    listing = await _own(visit, service)
    found = await visit.platform.rollouts.of_service(visit.require_actor(), listing.id)
    active = next((one for one in found if one.active), None)
    if active is None:
        return await _page(visit, service, 409, Fields({"": _("No rollout is running any more.")}))
    try:
        await change(active)
    except HaatError as error:
        return await _page(visit, service, error.status, messages(error))
    return visit.redirect(_address(listing), done=done)


def _address(listing: Listing) -> str:
    return f"/partner/services/{listing.id}/rollout"


# --- experiments in words -----------------------------------------------------------------------------


def rows_of(results: Results) -> list[Row]:
    """Return an experiment's variants as the page shows them."""
    metric = results.experiment.draft.metric
    return [_row(metric, one) for one in results.variants]


def _row(metric: str, one: VariantResult) -> Row:
    subjects = formats.number(one.subjects)
    if one.seen > one.subjects:
        subjects = _("%(part)s of %(whole)s", part=subjects, whole=formats.number(one.seen))
    interval = difference = "–"
    verdict, state, p_value = _("baseline"), "off", ""
    if one.p_value is not None:
        verdict, state = _("too few yet"), "off"
        if one.difference is not None and one.low is not None and one.high is not None:
            difference = _signed(metric, one.difference)
            low, high = _signed(metric, one.low, unit=False), _signed(metric, one.high)
            interval = _("%(low)s to %(high)s", low=low, high=high)
            verdict, state = _("undecided"), "pending"
            if one.decided:
                better = (one.difference < 0) is (metric == LATENCY)
                verdict, state = (_("better"), "approved") if better else (_("worse"), "failed")
            p_value = f"p {one.p_value:.3f}" if one.p_value >= 0.001 else "p < 0.001"
    estimate = "–" if one.estimate is None else _plain(metric, one.estimate)
    return Row(one.name, one.version, subjects, estimate, difference, interval, verdict, state, p_value)


def _plain(metric: str, value: float) -> str:
    if metric == SUCCESS_RATE:
        return formats.percent(value)
    return formats.milliseconds(value) if metric == LATENCY else formats.number(round(value, 3))


def _signed(metric: str, value: float, *, unit: bool = True) -> str:
    """Write a difference with its sign; of an interval only the second end needs the unit."""
    sign = "−" if value < 0 else "+"
    if metric == SUCCESS_RATE:
        points = f"{sign}{abs(value) * 100:.2f}"
        return _("%(number)s points", number=points) if unit else points
    if metric == LATENCY:
        return f"{sign}{formats.milliseconds(abs(value))}"
    return f"{sign}{formats.number(round(abs(value), 3))}"
