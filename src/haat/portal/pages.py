"""The portal: its pages on the control process, its static files, its error page."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from importlib import resources

from fastapi import APIRouter, FastAPI, Request
from jinja2 import Environment
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from haat.kernel.errors import HaatError, Unauthenticated
from haat.portal import (
    pages_account,
    pages_analytics,
    pages_flags,
    pages_invoices,
    pages_jobs,
    pages_level,
    pages_market,
    pages_operator,
    pages_partner,
    pages_prices,
    pages_rollout,
    pages_settlement,
    pages_sign,
    pages_usage,
    pages_wallet,
)
from haat.portal.proofs import Proofs
from haat.portal.trial import Trials
from haat.portal.visit import Visitor, begin, look_up_visitor, make_environment

log = logging.getLogger(__name__)

PARTS = tuple(
    part.router
    for part in (
        pages_market,
        pages_level,
        pages_sign,
        pages_account,
        pages_usage,
        pages_analytics,
        pages_jobs,
        pages_invoices,
        pages_wallet,
        pages_partner,
        pages_prices,
        pages_settlement,
        pages_rollout,
        pages_operator,
        pages_flags,
    )
)
router = APIRouter(include_in_schema=False)
for part in PARTS:
    router.include_router(part)


@dataclass(slots=True)
class Portal:
    """What the portal keeps in a process besides the platform."""

    environment: Environment = field(default_factory=make_environment)
    proofs: Proofs = field(default_factory=Proofs)
    trials: Trials = field(default_factory=Trials)


class _CachedFiles(StaticFiles):
    """Static files; their addresses change with their content, so browsers may keep them for a year."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_cached(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                message["headers"] = [*message["headers"], (b"cache-control", b"public, max-age=31536000, immutable")]
            await send(message)

        await super().__call__(scope, receive, send_cached)


def install(app: FastAPI) -> None:
    """Add the portal to the control process's application, whose state holds the platform."""
    app.state.portal = Portal()
    static = str(resources.files("haat.portal").joinpath("static"))
    app.mount("/static", _CachedFiles(directory=static), name="static")
    app.include_router(router)


async def error_page(request: Request, error: HaatError, request_id: str) -> Response:
    """Return the page that tells why a request was refused; who is not signed in is sent to sign in."""
    visitor: Visitor | None = None
    if error.status < 500:  # when facts can't be read, the page must not ask for them again
        try:
            visitor = await look_up_visitor(request, request.app.state.platform)
        except Exception:
            log.exception("request %s: the visitor of an error page is unknown", request_id)
    visit = begin(request, visitor)
    if isinstance(error, Unauthenticated):
        back = request.url.path if request.method == "GET" else "/account"
        return visit.redirect("/sign-in", next=back)
    return visit.render("error.html", error.status, error=error, request_id=request_id)
