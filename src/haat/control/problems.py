"""Request ids, security headers, and the one place where errors become answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import fastapi
import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from haat.kernel.errors import (
    BodyTooLarge,
    HaatError,
    InvalidRequest,
    MalformedJson,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    ValidationFailed,
)
from haat.kernel.ids import new_id
from haat.models.bundle import MOST_BUNDLE_BYTES
from haat.portal.content_policy import USUAL
from haat.settlement.dispute_model import MOST_LOG_BYTES

log = logging.getLogger(__name__)

ErrorPage = Callable[[Request, HaatError, str], Awaitable[Response]]
Answer = Callable[[Request, HaatError], Awaitable[Response]]


class FieldProblem(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """A refusal as RFC 9457 describes it. ``code`` is stable; ``docs/errors.md`` lists them all."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    instance: str | None = None
    errors: list[FieldProblem] | None = None


_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"content-security-policy", USUAL.encode()),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(self)"),
]


_NO_STORE = (b"cache-control", b"no-store")  # what the API answers is for the one who asked

BUNDLES = "/api/v1/models"
"""Where models' bundles are sent, which are larger than other bodies."""
DISPUTES = "/api/v1/disputes"
"""Where logs of millions of calls are sent, which are read piece by piece."""
MAX_API_BODY = 1024 * 1024
MAX_BODY = 16 * 1024 * 1024
"""Bytes of a request body that are taken at most: under ``/api/``, and anywhere else (files in forms)."""


class RequestContext:
    """Around each request: an id, a limit on its body, security headers, an answer to any failure.

    Plain ASGI, and outside of everything but Starlette's own last resort, which knows no headers.
    """

    def __init__(self, app: ASGIApp, answer: Answer) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(new_id())
        scope.setdefault("state", {})["request_id"] = request_id
        own_headers = [*_HEADERS, _NO_STORE] if _is_api(scope) else _HEADERS
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    *(header for header in own_headers if header[0] not in given),
                ]
            await send(message)

        try:
            await self._app(scope, _limited(scope, receive), send_with_headers)
        except ClientDisconnect:
            log.info("request %s: the client left", request_id)
        except Exception as error:
            if isinstance(error, psycopg.DataError):  # a caller's doing, and not worth a page of the log
                log.warning("request %s could not be stored: %s", request_id, error.diag.message_primary or error)
            elif not isinstance(error, HaatError):
                log.error("request %s failed", request_id, exc_info=error)
            if started:
                raise  # too late for another answer: the server cuts the connection
            response = await self._answer(Request(scope), reason_of(error))
            await response(scope, receive, send_with_headers)


def _is_api(scope: Scope) -> bool:
    return str(scope["path"]).startswith("/api/")


def _limited(scope: Scope, receive: Receive) -> Receive:
    """Return a ``receive`` that ends a body which grows too large; raise BodyTooLarge for one that says so."""
    limit = MAX_API_BODY if _is_api(scope) else MAX_BODY
    if scope["path"] == BUNDLES and scope["method"] == "POST":
        limit = MOST_BUNDLE_BYTES
    if scope["path"] == DISPUTES and scope["method"] == "POST":
        limit = MOST_LOG_BYTES
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise BodyTooLarge(limit_bytes=limit)
    received = 0

    async def count() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise fastapi.HTTPException(413)  # the one error that FastAPI's reading of a body lets pass
        return message

    return count


def reason_of(error: Exception) -> HaatError:
    """Return how an exception that no use case raised is told to the user."""
    match error:
        case HaatError():
            return error
        case psycopg.DataError():
            return ValidationFailed("Something in the request can't be stored: leave out unusual characters.")
        case psycopg.OperationalError():
            return Overloaded("The database does not answer right now: try again shortly.", retry_after=2)
        case _:
            return HaatError()


def install(app: FastAPI, error_page: ErrorPage) -> None:
    """Render every error as RFC 9457, or as a page for a browser that asked for one."""

    async def answer(request: Request, error: HaatError) -> Response:
        request_id = request.state.request_id
        path = request.scope["path"]  # not request.url, which a strange Host header bends or breaks
        headers = {}
        if error.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="haat"'
        if "retry_after" in error.extensions:
            headers["Retry-After"] = str(error.extensions["retry_after"])
        response: Response
        if not _is_api(request.scope) and "text/html" in request.headers.get("accept", ""):
            response = await error_page(request, error, request_id)
            response.headers.update(headers)
        else:
            body = error.problem(request_id, path)
            response = JSONResponse(body, error.status, headers, media_type="application/problem+json")
        return response

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, HaatError)
        return await answer(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        if any(item["type"] == "json_invalid" for item in error.errors()):
            return await answer(request, MalformedJson())
        fields = [
            {"field": ".".join(str(part) for part in item["loc"][1:]) or str(item["loc"][0]), "message": item["msg"]}
            for item in error.errors()
        ]
        return await answer(request, ValidationFailed(errors=fields))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        reason: HaatError
        match error.status_code:
            case 404:
                reason = NotFound()
            case 405:
                reason = MethodNotAllowed()
            case 413:
                reason = BodyTooLarge(limit_bytes=MAX_API_BODY if _is_api(request.scope) else MAX_BODY)
            case 400 if _is_api(request.scope):
                reason = MalformedJson()
            case status if status < 500:
                reason = InvalidRequest()
            case _:
                reason = HaatError()
        response = await answer(request, reason)
        response.headers.update(error.headers or {})
        return response

    handlers: dict[Any, Any] = {HaatError: ours, RequestValidationError: invalid, HTTPException: http}
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(RequestContext, answer=answer)
