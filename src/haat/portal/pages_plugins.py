"""Plugins as the operator sees them: in the order in which calls meet them, how they do, and their switches."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from haat.gateway.steps import STAGES, SUMMARIES
from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.errors import HaatError, NotFound
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import N_
from haat.plugins import overview
from haat.portal.visit import Fields, Visit, VisitOf, messages

router = APIRouter(prefix="/operator/plugins")

PASSES = {
    "authenticate": N_("Who calls"),
    "request": N_("Requests, and answers the other way round"),
    "upstream": N_("Which endpoint"),
    "usage": N_("What is recorded"),
}
STATES = {
    "running": ("active", N_("running")),
    "on": ("active", N_("switched on")),
    "off": ("off", N_("switched off")),
    "left out": ("failed", N_("left out")),
    "refusing": ("failed", N_("refuses all calls")),
}
CHANGES = {"on": "plugin.switched_on", "off": "plugin.switched_off", "reload": "plugin.reloaded"}
"""The event that each change leaves."""
SOURCES = {"built in": N_("comes with the house"), "package": N_("installed package"), "folder": N_("file of ours")}


def _operator(visit: Visit) -> Actor:
    actor = visit.require_actor()
    actor.require(Permission.PLUGINS_SWITCH)
    return actor


async def _page(visit: Visit, status: int = 200, errors: Fields | None = None) -> Response:
    _operator(visit)
    settings = visit.platform.settings
    # Plugins are loaded to see what they say of themselves, and files may be slow to read.
    seen = await asyncio.to_thread(overview.overview, settings.data_dir, settings.plugins, STAGES)
    return visit.render(
        "plugins.html",
        status,
        seen=seen,
        passes=PASSES,
        states=STATES,
        sources=SOURCES,
        summaries=SUMMARIES,
        late=visit.request.query_params.get("late", "") == "yes",
        errors=errors or Fields(),
    )


@router.get("")
async def show(visit: VisitOf) -> Response:
    return await _page(visit)


@router.post("/{change}")
async def switch(visit: VisitOf, change: str) -> Response:
    """Switch a plugin on or off, or have the gateways look again; the audit log keeps who did it."""
    actor, settings, name = _operator(visit), visit.platform.settings, visit.text("name")
    if change not in CHANGES:
        raise NotFound
    try:
        async with visit.platform.db.transaction(PLATFORM_SCOPE) as connection:
            await events.append(  # before the switch: none is in force that nobody is told of
                connection,
                stream=f"plugin/{name if change != 'reload' else 'all'}",
                type=CHANGES[change],
                data={},
                actor=actor.label,
                org=None,
                at=visit.platform.clock.now(),
            )
            if change == "on":
                revision = await asyncio.to_thread(overview.switch_on, settings.data_dir, settings.plugins, name)
            elif change == "off":
                revision = await asyncio.to_thread(overview.switch_off, settings.data_dir, name)
            else:
                revision = await asyncio.to_thread(overview.reload, settings.data_dir)
    except HaatError as error:
        return await _page(visit, 422 if isinstance(error, NotFound) else error.status, messages(error))
    _reports, late = await overview.taken_over(settings.data_dir, revision)
    return visit.redirect("/operator/plugins", **({"late": "yes"} if late else {"done": f"plugin-{change}"}))
