"""Request ids, security headers, and the one place where errors become answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from haat.kernel.errors import (
    HaatError,
    MalformedJson,
    MethodNotAllowed,
    NotFound,
    ValidationFailed,
)
from haat.kernel.ids import new_id

log = logging.getLogger(__name__)

ErrorPage = Callable[[Request, HaatError, str], Awaitable[Response]]

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; frame-ancestors 'none'; "
        b"base-uri 'none'; form-action 'self'; object-src 'none'",
    ),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(self)"),
]


class RequestContext:
    """Gives each request an id and each answer that id and the security headers (plain ASGI)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(new_id())
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    *(header for header in _HEADERS if header[0] not in given),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def install(app: FastAPI, error_page: ErrorPage) -> None:
    """Render every error as RFC 9457, or as a page for a browser that asked for one."""

    async def answer(request: Request, error: HaatError) -> Response:
        request_id = request.state.request_id
        if not request.url.path.startswith("/api/") and "text/html" in request.headers.get("accept", ""):
            return await error_page(request, error, request_id)
        headers = {"WWW-Authenticate": 'Bearer realm="haat"'} if error.status == 401 else None
        body = error.problem(request_id, request.url.path)
        return JSONResponse(body, error.status, headers, media_type="application/problem+json")

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
        known: dict[int, type[HaatError]] = {404: NotFound, 405: MethodNotAllowed}
        response = await answer(request, known.get(error.status_code, HaatError)())
        response.headers.update(error.headers or {})
        return response

    async def unexpected(request: Request, error: Exception) -> Response:
        log.error("request %s failed", request.state.request_id, exc_info=error)
        return await answer(request, HaatError())

    handlers: dict[Any, Any] = {
        HaatError: ours,
        RequestValidationError: invalid,
        HTTPException: http,
        Exception: unexpected,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(RequestContext)
