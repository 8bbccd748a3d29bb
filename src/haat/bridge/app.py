"""The bridge as a web application (ASGI): the protocol's addresses, each of them asked at the server a request names.

| address | asks |
|---|---|
| ``GET /v2``, ``/v2/health/live``, ``/v2/health/ready`` | ServerMetadata, ServerLive, ServerReady |
| ``POST /v2/repository/index`` | RepositoryIndex |
| ``GET /v2/models/{model}[/versions/{version}]`` | ModelMetadata, and ModelConfig for ``decoupled`` |
| ``GET …/ready`` | ModelReady |
| ``POST …/infer`` | ModelInfer |
| ``POST …/infer_stream`` | ModelStreamInfer: each part is an event, ``data:`` and an infer response in JSON |

A refusal is ``{"error": "…"}`` with the status that the gRPC status stands for. Before the first part of a stream it
is an answer like any other; after it, an event ``{"error": "…", "status": …}``. Who leaves has the call cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from haat.bridge import open_inference_pb2 as pb
from haat.bridge.calls import Metadata, Server
from haat.bridge.channels import MOST_MESSAGE_BYTES, Channels
from haat.bridge.messages import ASKS_FOR_FINAL, is_final, read_request, write_event, write_response
from haat.bridge.status import Refused
from haat.infra.inference.tensors import SIZE_HEADER, Unfit
from haat.infra.inference.upstream import DEADLINE, UPSTREAM, read_header
from haat.kernel.errors import AddressForbidden

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PATIENCE = 60.0
"""Seconds for a request that doesn't say until when it waits."""
GRACE = 1.0
"""So much longer than its gateway waits has a server, so that it is the gateway who says that time is over."""
_PLACE = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<what>[a-z_]+))?")
_UPSTREAM, _DEADLINE, _SIZE = (name.lower().encode("ascii") for name in (UPSTREAM, DEADLINE, SIZE_HEADER))
_PASSED_ON = ("traceparent", "tracestate", "x-request-id")
"""Of a caller's headers a model's server is sent these, and no others."""
_NAME = re.compile(r"[a-z0-9_.-]+")
_encode = msgspec.json.Encoder().encode


class _Left(Exception):
    """Whoever asked is gone."""


class Bridge:
    """The application."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await _Exchange(self._channels, scope, send).run(receive)


class _Exchange:
    """One request and its answer."""

    def __init__(self, channels: Channels, scope: Scope, send: Send) -> None:
        self._channels, self._scope, self._send = channels, scope, send
        self._headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            self._headers.setdefault(name.lower(), []).append(value)
        self._begun = False

    async def run(self, receive: Receive) -> None:
        """Answer, unless whoever asked leaves before: then what was asked of the server is cancelled."""
        try:
            body = await _body(receive)
        except _Left:
            return
        except Refused as error:
            await self._refuse(error)
            return
        work = asyncio.create_task(self._answer(body))
        gone = asyncio.create_task(_left(receive))
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not work.done():
            work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work

    async def _answer(self, body: bytes) -> None:
        try:
            await self._ask(body)
        except Refused as error:
            await self._refuse(error)
        except Unfit as error:
            await self._refuse(Refused(400, f"{error}"))
        except AddressForbidden as error:
            log.warning("a server is not called: %s", error.detail)
            await self._refuse(Refused(503, "The address of the model's server may not be called."))
        except Exception:
            log.exception("a request met an error that should not happen")
            await self._refuse(Refused(500, "The request could not be passed on."))

    async def _ask(self, body: bytes) -> None:
        server = await self._server()
        method = self._scope["method"]
        path = self._scope.get("raw_path", b"").decode("latin-1").partition("?")[0]
        if (method, path) in _OF_A_SERVER:
            request, write = _OF_A_SERVER[method, path]
            await self._give(*write(await server.ask(request())))
            return
        place = _PLACE.fullmatch(path)
        if place is None:
            raise Refused(404, "Nothing is asked at this address.")
        model, version = _plain(place["model"]), _plain(place["version"] or "")
        what = (method, place["what"] or "")
        if what == ("GET", ""):
            await self._give(200, await _metadata(server, model, version))
        elif what == ("GET", "ready"):
            ready = (await server.ask(pb.ModelReadyRequest(name=model, version=version))).ready
            await self._give(200 if ready else 503, {"name": model, "ready": ready})
        elif what == ("POST", "infer"):
            asked = read_request(model, version, body, self._one(_SIZE))
            content, json_size = write_response(await server.ask(asked.message))
            await self._give(200, content, json_size, server.usage)
        elif what == ("POST", "infer_stream"):
            await self._stream(server, model, version, body)
        else:
            raise Refused(404, "Nothing is asked at this address.")

    async def _server(self) -> Server:
        """Return the server that the request is for; raise Refused or AddressForbidden."""
        given = self._headers.get(_UPSTREAM, [])
        try:
            [value] = given
            upstream = read_header(value.decode("ascii"))
        except (ValueError, msgspec.MsgspecError) as error:
            raise Refused(400, "The request doesn't say which server it is for.") from error
        metadata: list[tuple[str, str]] = [(name.lower(), value) for name, value in upstream.metadata]
        for name, _ in metadata:
            if _NAME.fullmatch(name) is None or name.startswith("grpc-") or name.endswith("-bin"):
                raise Refused(400, f"The credential's header {name} can't be sent over gRPC: choose another one.")
        for passed in _PASSED_ON:
            for header in self._headers.get(passed.encode("ascii"), [])[:1]:
                if header.isascii() and header.decode("ascii").isprintable():
                    metadata.append((passed, header.decode("ascii")))
        sent: Metadata = tuple(metadata)
        return Server(await self._channels.to(upstream), sent, self._seconds())

    def _seconds(self) -> float:
        until = self._one(_DEADLINE)
        if until is None or not until.isdigit() or len(until) > 18:
            return PATIENCE
        return max(0.001, int(until) / 1_000_000 - time.monotonic() + GRACE)

    def _one(self, name: bytes) -> bytes | None:
        values = self._headers.get(name)
        return values[0] if values else None

    # --- answers ----------------------------------------------------------------------------------

    async def _stream(self, server: Server, model: str, version: str, body: bytes) -> None:
        asked = read_request(model, version, body, self._one(_SIZE))
        asked.message.parameters[ASKS_FOR_FINAL].bool_param = True
        parts = server.stream(asked.message)
        async with contextlib.aclosing(parts):
            async for part in parts:
                if part.outputs:
                    try:
                        event = write_event(part, asked.binary)
                    except Unfit as error:
                        raise Refused(500, f"The model's answer can't be used: {error}.") from error
                    await self._begin(server.usage)
                    await self._event(event)
                if is_final(part):
                    break
        await self._begin(server.usage)
        await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self, usage: str) -> None:
        if self._begun:
            return
        self._begun = True
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        if usage:
            headers.append((b"x-haat-usage", usage.encode("ascii")))
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _event(self, document: bytes) -> None:
        await self._send({"type": "http.response.body", "body": b"data: %b\n\n" % document, "more_body": True})

    async def _refuse(self, error: Refused) -> None:
        if not self._begun:
            await self._give(error.status, {"error": error.sentence})
            return
        await self._event(_encode({"error": error.sentence, "status": error.status}))
        await self._send({"type": "http.response.body", "body": b""})

    async def _give(self, status: int, content: Any, json_size: int = -1, usage: str = "") -> None:
        """Answer with a document, or with bytes that are one."""
        body = content if isinstance(content, bytes) else _encode(content)
        kind = b"application/json" if json_size < 0 else b"application/octet-stream"
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode("ascii"))]
        if json_size >= 0:
            headers.append((_SIZE, str(json_size).encode("ascii")))
        if usage:
            headers.append((b"x-haat-usage", usage.encode("ascii")))
        self._begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


async def _body(receive: Receive) -> bytes:
    """Return the request's body; raise Refused for one that is too large."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Left
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_MESSAGE_BYTES:
            raise Refused(413, f"A request over gRPC has at most {MOST_MESSAGE_BYTES} bytes.")
        if not message.get("more_body"):
            return b"".join(parts)


async def _left(receive: Receive) -> None:
    """Return when whoever asked is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _plain(raw: str) -> str:
    return unquote_to_bytes(raw).decode("utf-8", "replace")


# --- what is told of servers and models -----------------------------------------------------------


def _live(answer: Any) -> tuple[int, Any]:
    return 200 if answer.live else 503, {"live": answer.live}


def _ready(answer: Any) -> tuple[int, Any]:
    return 200 if answer.ready else 503, {"ready": answer.ready}


def _card(answer: Any) -> tuple[int, Any]:
    return 200, {"name": answer.name, "version": answer.version, "extensions": list(answer.extensions)}


def _index(answer: Any) -> tuple[int, Any]:
    members = ("name", "version", "state", "reason")
    return 200, [{member: getattr(model, member) for member in members} for model in answer.models]


_OF_A_SERVER: dict[tuple[str, str], tuple[Callable[[], Any], Callable[[Any], tuple[int, Any]]]] = {
    ("GET", "/v2"): (pb.ServerMetadataRequest, _card),
    ("GET", "/v2/health/live"): (pb.ServerLiveRequest, _live),
    ("GET", "/v2/health/ready"): (pb.ServerReadyRequest, _ready),
    ("POST", "/v2/repository/index"): (pb.RepositoryIndexRequest, _index),
}


async def _metadata(server: Server, model: str, version: str) -> dict[str, Any]:
    """Return a model's metadata, and whether it answers in several parts where its server knows of such models."""
    found = await server.ask(pb.ModelMetadataRequest(name=model, version=version))
    try:
        config = (await server.ask(pb.ModelConfigRequest(name=model, version=version))).config
        decoupled = config.model_transaction_policy.decoupled
    except Refused:
        decoupled = False

    def tensors(entries: Any) -> list[dict[str, Any]]:
        return [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in entries]

    return {
        "name": found.name,
        "versions": list(found.versions),
        "platform": found.platform,
        "inputs": tensors(found.inputs),
        "outputs": tensors(found.outputs),
        "decoupled": decoupled,
    }
