"""The application that answers callers whom the gateway hands on: their jobs, files and batches, their feedback."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

import haat
from haat.app import Platform
from haat.control.problems import reason_of
from haat.feedback.front import router as feedback
from haat.infra.introduction import Introductions
from haat.jobs.front import router as jobs
from haat.kernel.errors import HaatError, MethodNotAllowed, NotFound, ValidationFailed
from haat.kernel.ids import new_id

log = logging.getLogger(__name__)

_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def build_front(platform: Platform) -> FastAPI:
    """Return the application on an open platform. It is served on a socket that only the gateway reaches."""
    app = FastAPI(title="Haat front", version=haat.__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.platform = platform
    app.state.introductions = Introductions(platform.keyring) if platform is not None else None
    app.include_router(jobs)
    app.include_router(feedback)

    async def refuse(request: Request, error: Exception) -> Response:
        reason = _reason(error)
        if reason.status >= 500:
            log.error("a request handed on failed", exc_info=error)
        return refusal(request, reason)

    kinds: tuple[Any, ...] = (HaatError, RequestValidationError, HTTPException, Exception)
    for kind in kinds:
        app.add_exception_handler(kind, refuse)
    return app


def _reason(error: Exception) -> HaatError:
    match error:
        case RequestValidationError():
            return ValidationFailed(
                errors=[{"field": str(item["loc"][-1]), "message": item["msg"]} for item in error.errors()]
            )
        case HTTPException(status_code=404):
            return NotFound()
        case HTTPException(status_code=405):
            return MethodNotAllowed()
        case _:
            return reason_of(error)


def refusal(request: Request, error: HaatError) -> Response:
    """Return a refusal in the shape of the protocol that is spoken at its address."""
    path = request.scope["path"]
    request_id = getattr(request.state, "request_id", "") or str(new_id())
    headers = {"Cache-Control": "no-store"}
    pause = error.extensions.get("reset_seconds") or error.extensions.get("retry_after")
    if pause or error.status == 503:
        headers["Retry-After"] = str(pause or 1)
    errors = error.extensions.get("errors")
    sentence = "; ".join(f"{one['field']}: {one['message']}" for one in errors) if errors else error.detail
    if path.startswith(("/v1/files", "/v1/batches")):
        status = 400 if error.status == 422 else error.status
        kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
        field = errors[0]["field"] if errors else error.extensions.get("field")
        said = {"message": sentence, "type": kind, "param": field, "code": error.code, "request_id": request_id}
        return JSONResponse({"error": said}, status, headers)
    if path.startswith("/services/"):
        detail = {**error.extensions, "message": sentence, "code": error.code}
        ulca = {"code": error.code, "message": sentence, "detail": detail, "request_id": request_id}
        return JSONResponse(ulca, error.status, headers)
    return JSONResponse(error.problem(request_id, path), error.status, headers, media_type="application/problem+json")
