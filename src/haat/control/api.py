"""The FastAPI application: every domain's router under ``/api/v1``, health, and the portal."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES as _PACKED
from starlette.middleware.gzip import GZipMiddleware

import haat
from haat.app import Platform
from haat.catalog.api import router as catalog
from haat.content.api import router as content
from haat.control import problems
from haat.control.context import PlatformOf
from haat.feedback.api import router as feedback
from haat.flags import ofrep
from haat.flags.api import router as flags
from haat.identity.api import router as identity
from haat.identity.people_api import router as people
from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE
from haat.invoices.api import router as invoices
from haat.invoices.papers_api import router as invoice_papers
from haat.invoices.payments_api import router as payments
from haat.jobs.api import router as jobs
from haat.ledger.api import router as ledger
from haat.partners.api import router as partners
from haat.portal import pages as portal
from haat.rating.api import router as rating
from haat.registry.api import router as registry
from haat.reviews.api import router as reviews
from haat.rollouts.api import router as rollouts
from haat.settlement.api import router as settlement
from haat.sla.api import router as sla
from haat.subscriptions.api import router as subscriptions
from haat.usage.api import router as usage
from haat.wallet.api import router as wallet

API = "/api/v1"


def build_app(platform: Platform) -> FastAPI:
    """Return the application on an open platform."""
    app = FastAPI(
        title="Haat control API",
        version=haat.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{API}/openapi.json",
    )
    app.state.platform = platform
    problem = {"model": problems.Problem, "description": "A refusal, as `application/problem+json`"}
    api = APIRouter(prefix=API, responses={"4XX": problem, "5XX": problem})
    domains = (
        identity,
        people,
        partners,
        catalog,
        rollouts,
        subscriptions,
        usage,
        rating,
        invoice_papers,
        invoices,
        payments,
        settlement,
        sla,
        ledger,
        wallet,
        registry,
        flags,
        feedback,
        content,
        reviews,
        jobs,
    )
    for router in domains:
        api.include_router(router)
    app.include_router(api)
    app.include_router(ofrep.router)
    _add_health(app)
    app.add_middleware(
        GZipMiddleware, minimum_size=1000, compresslevel=5, exclude_content_types=(*_PACKED, "application/pdf")
    )
    portal.install(app)
    problems.install(app, portal.error_page)
    return app


def _add_health(app: FastAPI) -> None:
    @app.get("/health/live", include_in_schema=False)
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/health", include_in_schema=False)
    @app.get("/health/ready", include_in_schema=False)
    async def ready(platform: PlatformOf) -> JSONResponse:
        try:
            async with platform.db.transaction(PLATFORM_SCOPE) as connection:
                position = await events.newest_position(connection)
        except Exception as error:  # whatever it is, the answer is the same: no facts, no control plane
            return JSONResponse({"status": "unhealthy", "postgresql": type(error).__name__}, 503)
        return JSONResponse({"status": "ok", "postgresql": "ok", "position": str(position)})
