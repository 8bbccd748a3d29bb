"""The portal: its pages on the control process, its static files, its error page."""

from __future__ import annotations

import gzip
import logging
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from jinja2 import Environment
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from haat.kernel.errors import HaatError, Unauthenticated
from haat.language.messages import prepare
from haat.portal import (
    pages_account,
    pages_analytics,
    pages_audit,
    pages_content,
    pages_design,
    pages_flags,
    pages_gateways,
    pages_help,
    pages_invoices,
    pages_jobs,
    pages_level,
    pages_levels,
    pages_lookup,
    pages_market,
    pages_offline,
    pages_operator,
    pages_partner,
    pages_payments,
    pages_people,
    pages_plugins,
    pages_prices,
    pages_reference,
    pages_reviews,
    pages_rollout,
    pages_settlement,
    pages_sign,
    pages_usage,
    pages_wallet,
)
from haat.portal.announcements import Announcements
from haat.portal.proofs import Proofs
from haat.portal.tongue import LanguageInPath
from haat.portal.trial import Trials
from haat.portal.trial_visitors import VisitorTrials
from haat.portal.visit import Visitor, begin, look_up_visitor, make_environment

log = logging.getLogger(__name__)

PARTS = tuple(
    part.router
    for part in (
        pages_market,
        pages_reference,
        pages_reviews,
        pages_level,
        pages_sign,
        pages_account,
        pages_people,
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
        pages_lookup,
        pages_audit,
        pages_gateways,
        pages_levels,
        pages_plugins,
        pages_payments,
        pages_content,
        pages_help,
        pages_offline,
        pages_design,
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
    announcements: Announcements = field(default_factory=Announcements)
    visitor_trials: VisitorTrials = field(init=False)

    def __post_init__(self) -> None:
        self.visitor_trials = VisitorTrials(self.trials)


class _CachedFiles(StaticFiles):
    """Static files, compressed once; their addresses change with their content, so browsers keep them for a year."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory=directory)
        self._packed = {
            file.name: gzip.compress(file.read_bytes(), 9)
            for file in Path(directory).iterdir()
            if file.suffix in (".css", ".js", ".svg")
        }

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if response.status_code == 200:
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
            response.headers["Vary"] = "Accept-Encoding"
            packed = self._packed.get(path)
            if packed and scope["method"] == "GET" and "gzip" in Headers(scope=scope).get("accept-encoding", ""):
                kept = {name: response.headers[name] for name in ("cache-control", "content-type", "vary")}
                return Response(packed, headers={**kept, "Content-Encoding": "gzip"})
        return response


def install(app: FastAPI) -> None:
    """Add the portal to the control process's application, whose state holds the platform."""
    app.state.portal = Portal()
    static = str(resources.files("haat.portal").joinpath("static"))
    app.mount("/static", _CachedFiles(directory=static), name="static")
    app.include_router(router)
    app.add_middleware(LanguageInPath)


async def error_page(request: Request, error: HaatError, request_id: str) -> Response:
    """Return the page that tells why a request was refused; who is not signed in is sent to sign in."""
    visitor: Visitor | None = None
    if error.status < 500:  # when facts can't be read, the page must not ask for them again
        try:
            visitor = await look_up_visitor(request, request.app.state.platform)
        except Exception:
            log.exception("request %s: the visitor of an error page is unknown", request_id)
    visit = begin(request, visitor)
    await prepare(visit.tongue)
    if isinstance(error, Unauthenticated):
        back = request.url.path if request.method == "GET" else "/account"
        return visit.redirect("/sign-in", next=back)
    return visit.render("error.html", error.status, error=error, request_id=request_id)
