"""A call by its request id, for the operator's help desk: whose it was, and why it ended as it did."""

from __future__ import annotations

from functools import cache
from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from haat.invoices.evidence import portions
from haat.kernel.errors import HaatError, NotFound
from haat.kernel.money import total
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import N_, _
from haat.portal.charts import time_line
from haat.portal.visit import Fields, Visit, VisitOf, parse_id

router = APIRouter(prefix="/operator/calls")

REASONS = {
    "completed": N_("The provider answered, and the call is billed."),
    "client_left": N_("The caller went before the end. What was delivered until then is billed."),
    "provider_failed": N_("The provider gave an error, nothing usable, or nothing in time. The call is not billed."),
    "refused": N_("The gateway turned it away before the provider was asked. The call is not billed."),
    "interrupted": N_("The gateway's worker died while the answer was streaming. The call is not billed."),
    "unconfirmed": N_("It was recorded, but nobody can say that it was answered. The call is not billed."),
}
"""What an outcome means to whoever asks."""


@cache
def _kinds() -> dict[str, type[HaatError]]:
    """Return every refusal of ours by its code."""
    waiting, found = [HaatError], {}
    while waiting:
        kind = waiting.pop()
        found[kind.code] = kind
        waiting += kind.__subclasses__()
    return found


def _operator(visit: Visit) -> Actor:
    actor = visit.require_actor()
    actor.require(Permission.PLATFORM_WATCH)
    return actor


@router.get("")
async def ask(visit: VisitOf, id: str = "") -> Response:
    _operator(visit)
    wanted = id.strip()
    if not wanted:
        return visit.render("call_lookup.html", wanted="", error="")
    try:
        return visit.redirect(f"/operator/calls/{UUID(wanted)}")
    except ValueError:
        error = _("This is no request id. It stands in the answer's X-Request-ID, and looks like 0199f0c2-….")
    return visit.render("call_lookup.html", 422, wanted=wanted, error=error)


@router.get("/{identifier}")
async def tell(visit: VisitOf, identifier: str) -> Response:
    """Tell why a call ended as it did, whosoever it was."""
    actor, wanted = _operator(visit), parse_id(identifier)
    try:
        story = await visit.platform.usage.call(actor, wanted)
    except NotFound:
        error = _(
            "There is no call with this id. A call shows up seconds after its answer; "
            "one whose key was not valid never does."
        )
        return visit.render("call_lookup.html", 404, wanted=str(wanted), error=error)
    call = story.call
    borne = await portions(visit.platform.db, actor, wanted) if story.lines else []
    return visit.render(
        "call_answer.html",
        story=story,
        call=call,
        names=await _names(visit, call["org_id"], call["provider_org"]),
        reason=REASONS.get(call["outcome"], ""),
        refusal=_kinds().get(call["error_code"]),
        borne=borne,
        charge=total(one.amount for one in borne if not one.voided) if borne else None,
        stages=time_line(
            admission=call["admission_us"],
            queue=call["queue_us"],
            connect=call["connect_us"],
            first_byte=call["first_byte_us"],
            total=call["total_us"],
        ),
    )


async def _names(visit: Visit, *organisations: UUID | None) -> Fields:
    names = await visit.platform.identity.names(org for org in organisations if org is not None)
    return Fields({str(org): name for org, name in names.items()})
