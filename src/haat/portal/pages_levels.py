"""The operator's board of service levels: what is in trouble first, then all that promise something."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.responses import Response

from haat.portal.pages_level import INCIDENTS
from haat.portal.visit import VisitOf

router = APIRouter(prefix="/operator/levels")


@router.get("")
async def board(visit: VisitOf, cursor: str = "") -> Response:
    actor = visit.require_actor()
    page = await visit.platform.sla_board.page(actor, cursor=cursor or None)
    return visit.render(
        "levels.html",
        trouble=await visit.platform.sla_board.trouble(actor),
        promising=page.items,
        first=not cursor,
        alerts=INCIDENTS,
        next_href=f"{visit.request.url.path}?{urlencode({'cursor': page.next})}" if page.next else None,
    )
