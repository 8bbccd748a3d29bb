"""Without a connection: the service worker that keeps pages, and the page for those that it has not kept."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter
from starlette.responses import Response

from haat.portal.visit import VisitOf

router = APIRouter()

_WORKER = resources.files("haat.portal").joinpath("static", "worker.js").read_bytes()


@router.get("/worker.js")
async def worker() -> Response:
    """Return the worker from the root of the portal: it looks after the pages that lie below its own address."""
    return Response(_WORKER, media_type="text/javascript", headers={"Cache-Control": "no-cache"})


@router.get("/offline")
async def offline(visit: VisitOf) -> Response:
    return visit.render("offline.html")
