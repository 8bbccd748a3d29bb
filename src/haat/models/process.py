"""The service execution module: an HTTP server on loopback that runs the hosted services.

To the gateway it is a provider like any other: ``POST /{provider}/{service}/invoke``, or for a language model
``…/chat/completions``, with the credential that the platform derives from its master key. Models of the engine are
met first, at the door (`haat.models.door`).
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from haat.infra.keyring import keyring_of
from haat.kernel.errors import (
    BodyTooLarge,
    EngineFailed,
    EngineMissing,
    HaatError,
    InvalidCredential,
    MethodNotAllowed,
    NotFound,
    ServiceNotFound,
    Unauthenticated,
)
from haat.kernel.ids import new_id
from haat.models import chat as protocol
from haat.models import metrics
from haat.models.autoscaling import Autoscaler
from haat.models.chats import Chats
from haat.models.credentials import Credentials, models_token
from haat.models.deployments import Follower
from haat.models.door import ModelDoor
from haat.models.engines import engine_named
from haat.models.engines.degrading import DegradingEngine
from haat.models.execution import Execution
from haat.models.hosted import Hosted
from haat.models.server import Server
from haat.models.task import parse_call
from haat.plugins.manager import hosted_chats, hosted_services
from haat.settings import Settings

_encoder = msgspec.json.Encoder(decimal_format="number")

log = logging.getLogger(__name__)


def build_app(execution: Execution, token: str, chats: Chats | None = None) -> Starlette:
    """Return the HTTP application; ``token`` is the bearer token that calls must carry."""
    talking = chats or Chats({})
    everything: dict[str, Hosted] = {**execution.services, **talking.chats}

    async def invoke(request: Request) -> Response:
        _authenticate(request, token)
        service = _service(execution.services, request)
        body = await _body(request, service.max_body_bytes)
        items, config = parse_call(service, body)
        outputs, units = await execution.run(service, items, config)
        return Response(
            _encoder.encode({"output": outputs, "usage": {unit: _number(count) for unit, count in units.items()}}),
            media_type="application/json",
            headers={
                "X-Request-ID": request_id(request),
                "X-Haat-Usage": "; ".join(f"{unit}={count:f}" for unit, count in units.items()),
            },
        )

    async def complete(request: Request) -> Response:
        try:
            _authenticate(request, token)
            chat = _service(talking.chats, request)
            asked = protocol.read_request(chat, await _body(request, chat.max_body_bytes))
            headers = {"X-Request-ID": request_id(request)}
            if asked.stream:
                events = await talking.stream(chat, asked)
                return StreamingResponse(events, headers=headers, media_type="text/event-stream")
            answer, tokens = await talking.answer(chat, asked)
        except HaatError as error:
            return _json(protocol.problem(error), error.status, _headers_of(request, error))
        return _json(answer, headers={**headers, "X-Haat-Usage": f"tokens={tokens}"})

    async def service_health(request: Request) -> Response:
        sentence = _service(everything, request).missing()
        if sentence is not None:
            raise EngineMissing(sentence)
        return _json({"status": "ok"})

    async def health(_: Request) -> Response:
        return _json({"status": "ok", "services": {p: s.missing() or "ok" for p, s in everything.items()}})

    return Starlette(
        routes=[
            Route("/{provider}/{service}/invoke", invoke, methods=["POST"]),
            Route("/{provider}/{service}/chat/completions", complete, methods=["POST"]),
            Route("/{provider}/{service}/health", service_health, methods=["GET"]),
            Route("/health", health, methods=["GET"]),
        ],
        exception_handlers={
            HaatError: _problem,
            404: _not_found,
            405: _not_allowed,
            ClientDisconnect: _gone,
            Exception: _unexpected,
        },
    )


def request_id(request: Request) -> str:
    """Return the caller's X-Request-ID when it is one that can be repeated, else a new one."""
    given = request.headers.get("x-request-id", "")
    if not (0 < len(given) <= 128 and given.isascii() and given.isprintable()):
        given = getattr(request.state, "request_id", "") or str(new_id())
        request.state.request_id = given
    return given


def _authenticate(request: Request, token: str) -> None:
    given = request.headers.get("authorization")
    if given is None:
        raise Unauthenticated("Calls come through the gateway, which knows this module's credential.")
    if not hmac.compare_digest(given.encode("utf-8", "replace"), f"Bearer {token}".encode()):
        raise InvalidCredential("This is not the credential that the platform gave to its hosted services.")


_Kind = TypeVar("_Kind", bound=Hosted)


def _service(services: Mapping[str, _Kind], request: Request) -> _Kind:
    path = f"{request.path_params['provider']}/{request.path_params['service']}"
    service = services.get(path)
    if service is None:
        raise ServiceNotFound("No service of that name runs here; check provider and service.")
    return service


async def _body(request: Request, limit: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise BodyTooLarge(limit_bytes=limit)
        parts.append(part)
    return b"".join(parts)


def _number(count: Decimal) -> Decimal | int:
    return int(count) if count == count.to_integral_value() else count.normalize()


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None, kind: str = "json") -> Response:
    return Response(_encoder.encode(body), status, headers, media_type=f"application/{kind}")


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HaatError)
    body = error.problem(request_id(request), request.url.path)
    return _json(body, error.status, _headers_of(request, error), "problem+json")


def _headers_of(request: Request, error: HaatError) -> dict[str, str]:
    headers = {"X-Request-ID": request_id(request)}
    if "retry_after" in error.extensions:
        headers["Retry-After"] = str(error.extensions["retry_after"])
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


async def _not_found(request: Request, _: Exception) -> Response:
    return await _problem(request, NotFound())


async def _not_allowed(request: Request, error: Exception) -> Response:
    response = await _problem(request, MethodNotAllowed())
    response.headers["Allow"] = (getattr(error, "headers", None) or {}).get("Allow", "")
    return response


async def _gone(request: Request, _: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it: the client left while it was sending


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s failed", request.url.path, exc_info=error)
    return await _problem(request, EngineFailed())


async def _warm_up(execution: Execution, chats: Chats) -> None:
    await chats.warm_up()
    await execution.warm_up()


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve on 127.0.0.1 at ``settings.models_port`` until ``stop`` is set, then finish what is in flight."""
    execution, chats = Execution(hosted_services()), Chats(hosted_chats())
    local = engine_named(settings)
    scaler = Autoscaler(local)
    engine = DegradingEngine(local)
    keyring = keyring_of(settings)
    behind: Any = build_app(execution, models_token(keyring), chats)
    follower = Follower(settings, engine)

    def told() -> str:
        return metrics.render(local.metrics()) + scaler.metrics()

    server = Server(
        ModelDoor(engine, Credentials(keyring).opens, behind, told),
        port=settings.models_port,
        log_level=settings.log_level,
        shutdown_seconds=int(settings.shutdown_seconds),
    )
    await engine.start()
    await follower.start()
    scaler.start()
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(stop.wait())
    warming = asyncio.create_task(_warm_up(execution, chats))
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        stopping.cancel()
        warming.cancel()
        await asyncio.wait({serving, warming})
        await follower.stop()
        await scaler.stop()
        await engine.stop()
        await execution.stop()
    await serving
