"""The way to models over HTTP, as bare ASGI: it is on the path of every call, and a framework costs more than a batch.

A small call that is here whole goes past ASGI as well: `haat.models.http` asks `ModelDoor.called` itself.

``POST /{provider}/{name}/invoke`` and ``/{provider}/{name}@{version}/invoke`` take the task schema. With ``Accept:
text/event-stream`` the answer is events: ``place`` while the call waits, ``output`` for each part or output, and
``done`` with the use, or ``error``. ``GET /{provider}/{name}/health`` says how a model is doing, ``GET /metrics`` how
all are. What is no model's goes on to the application behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, MutableMapping
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec

from haat.kernel.errors import (
    BodyTooLarge,
    EngineFailed,
    HaatError,
    InvalidCredential,
    Unauthenticated,
    ValidationFailed,
)
from haat.kernel.ids import new_id_text
from haat.models import costs
from haat.models.directory import Directory
from haat.models.engines.port import PRIORITIES, Engine, Model, Status, Ticket
from haat.models.hosted import Output, Units
from haat.models.runtimes.port import Input
from haat.models.task import max_body_bytes, parse_inputs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]
"""Status, headers, and the body."""
Called = Callable[[Mapping[bytes, bytes], bytes], Coroutine[Any, Any, Answer]]
"""Answers a call by its headers, whose names are in small letters, and its body."""

MOST_TIMEOUT_MS = 600_000
WATCH_SECONDS = 0.05
_encoder = msgspec.json.Encoder(decimal_format="number")
_JSON = (b"content-type", b"application/json")
_PROBLEM = (b"content-type", b"application/problem+json")
_EVENTS: Headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
_METRICS = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")

log = logging.getLogger(__name__)


class ModelDoor:
    """An ASGI application in front of another.

    ``opens`` tells whether an ``Authorization`` header opens the models of a provider; without it all are open.
    """

    def __init__(
        self,
        engine: Engine,
        opens: Callable[[str, bytes], bool] | None,
        behind: Application,
        metrics: Callable[[], str],
    ) -> None:
        self._engine = engine
        self._opens = opens
        self._behind = behind
        self._metrics = metrics
        self._directory = Directory(engine)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._behind(scope, receive, send)
        path: str = scope["path"]
        if path == "/metrics" and scope["method"] == "GET":
            return await _answer(send, 200, [_METRICS], self._metrics().encode())
        address, _, what = path[1:].rpartition("/")
        method = {"invoke": "POST", "health": "GET"}.get(what)
        model = self._directory.find(address) if method == scope["method"] else None
        if model is None:
            return await self._behind(scope, receive, send)
        request = _Request(scope, receive, send)
        try:
            await (self._invoke if what == "invoke" else self._health)(model, request)
        except HaatError as error:
            await request.refuse(error)
        except _ClientLeft:
            pass  # nobody reads an answer
        except Exception:
            log.exception("%s failed", path)
            await request.refuse(EngineFailed())

    def called(self, path: str) -> Called | None:
        """Return what answers a POST to a path that is here whole and wants no events, if it calls a model."""
        address, _, what = path[1:].rpartition("/")
        model = self._directory.find(address) if what == "invoke" else None
        return None if model is None else partial(self._answer, model, path)

    async def _answer(self, model: Model, path: str, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        name = _id_of(headers)
        try:
            self._authenticate(model, headers.get(b"authorization"))
            if len(body) > (limit := max_body_bytes(model.manifest)):
                raise BodyTooLarge(limit_bytes=limit)
            ticket = _ticket(name, headers)
            return await self._run(model, parse_inputs(model.manifest, body), ticket)
        except HaatError as error:
            return _refusal(error, name, path)
        except Exception:
            log.exception("%s failed", path)
            return _refusal(EngineFailed(), name, path)

    async def _run(self, model: Model, inputs: list[Input], ticket: Ticket) -> Answer:
        outputs = await self._engine.run(model.key, inputs, ticket)
        used = costs.used(model.manifest, inputs, outputs, ticket.ran)
        body = _encoder.encode({"output": outputs, "usage": _numbers(used)})
        return 200, [_JSON, (b"x-request-id", ticket.request_id.encode()), *_meters(ticket, used)], body

    async def _health(self, model: Model, request: _Request) -> None:
        state = self._engine.state(model.key)
        if state.status is Status.ERROR:
            raise EngineFailed(state.error or None)
        headers = [_JSON, (b"x-request-id", request.id.encode())]
        await request.answer((200, headers, _encoder.encode({"status": "ok", "model": state.status})))

    async def _invoke(self, model: Model, request: _Request) -> None:
        self._authenticate(model, request.headers.get(b"authorization"))
        ticket = _ticket(request.id, request.headers)
        inputs = parse_inputs(model.manifest, await request.body(max_body_bytes(model.manifest)))
        if b"text/event-stream" in request.headers.get(b"accept", b""):
            return await self._tell(model, inputs, ticket, request)
        with request.watched():
            answer = await self._run(model, inputs, ticket)
        await request.answer(answer)

    def _authenticate(self, model: Model, given: bytes | None) -> None:
        if self._opens is None:
            return
        if given is None:
            raise Unauthenticated("Calls come through the gateway, which knows this module's credential.")
        if not self._opens(model.provider, given):
            raise InvalidCredential("This is not the credential that the platform gave to its hosted services.")

    # --- events -------------------------------------------------------------------------------------

    async def _tell(self, model: Model, inputs: list[Input], ticket: Ticket, request: _Request) -> None:
        events: asyncio.Queue[tuple[str, Any] | None] = asyncio.Queue(maxsize=64)

        def place(number: int) -> None:
            with contextlib.suppress(asyncio.QueueFull):  # who reads slowly is told a later one
                events.put_nowait(("place", {"place": number}))

        manifest = model.manifest

        async def work() -> None:
            try:
                outputs: list[Output] = []
                so_far = costs.used(manifest, inputs, (), 0.0)
                by_inputs = any(so_far.values())
                async for index, output in self._outputs(model, inputs, ticket):
                    outputs.append(output)
                    if not by_inputs:
                        part = costs.used(manifest, inputs, [output], 0.0)
                        so_far = {unit: count + part[unit] for unit, count in so_far.items()}
                    await events.put(("output", {"input": index, "output": output, "usage": _numbers(so_far)}))
                used = costs.used(manifest, inputs, outputs, ticket.ran)
                await events.put(("done", {"usage": _numbers(used), **_timing(ticket), **ticket.notes}))
            except HaatError as error:
                await events.put(("error", error))
            except Exception:
                log.exception("%s failed", model.key)
                await events.put(("error", EngineFailed()))
            await events.put(None)

        ticket.on_place = place
        with request.watched():
            working = asyncio.create_task(work())
            try:
                while (event := await events.get()) is not None:
                    name, data = event
                    if isinstance(data, HaatError):
                        if not request.begun:
                            raise data  # a refusal like any other
                        data = data.problem(request.id, request.path)
                    await request.event(name, data)
                await request.end()
            finally:
                working.cancel()
                await asyncio.wait([working])

    async def _outputs(self, model: Model, inputs: list[Input], ticket: Ticket) -> AsyncIterator[tuple[int, Output]]:
        if not model.manifest.streams:
            for index, output in enumerate(await self._engine.run(model.key, inputs, ticket)):
                yield index, output
            return
        for index, given in enumerate(inputs):
            async with contextlib.aclosing(self._engine.stream(model.key, given, ticket)) as parts:  # type: ignore[type-var]
                async for part in parts:
                    yield index, part


class _ClientLeft(Exception):
    pass


class _Request:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.path: str = scope["path"]
        self.begun = False
        self._receive = receive
        self._send = send
        self.id = _id_of(self.headers)

    async def body(self, limit: int) -> bytes:
        """Return the body; raise BodyTooLarge."""
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body") and len(message["body"]) <= limit:
            return bytes(message["body"])
        parts, size = [], 0
        while True:
            if message["type"] != "http.request":
                raise _ClientLeft
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise BodyTooLarge(limit_bytes=limit)
            if not message.get("more_body"):
                return b"".join(parts)
            message = await self._receive()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Give up what is done in the block when the client leaves."""
        working = asyncio.current_task()
        assert working is not None
        watching: asyncio.Task[None] | None = None
        left = False

        async def watch() -> None:
            nonlocal left
            while (await self._receive())["type"] != "http.disconnect":
                pass
            left = True
            working.cancel()

        def begin() -> None:
            nonlocal watching
            watching = asyncio.create_task(watch())

        # Most calls are over before it is worth a task to look after them.
        later = asyncio.get_running_loop().call_later(WATCH_SECONDS, begin)
        try:
            yield
        except asyncio.CancelledError:
            if left and working.uncancel() == 0:
                raise _ClientLeft from None
            raise
        finally:
            later.cancel()
            if watching is not None:
                watching.cancel()

    async def answer(self, answer: Answer) -> None:
        """Send an answer."""
        await _answer(self._send, *answer)

    async def refuse(self, error: HaatError) -> None:
        """Answer with a problem; end a stream that has begun with the event that has it."""
        if self.begun:
            await self.event("error", error.problem(self.id, self.path))
            return await self.end()
        await self.answer(_refusal(error, self.id, self.path))

    async def event(self, name: str, data: Any) -> None:
        """Send an event; the first one opens the stream."""
        if not self.begun:
            self.begun = True
            headers = [*_EVENTS, (b"x-request-id", self.id.encode())]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        body = b"event: %b\ndata: %b\n\n" % (name.encode(), _encoder.encode(data))
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self) -> None:
        """End a stream."""
        await self._send({"type": "http.response.body", "body": b""})


async def _answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _id_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the request's id, a new one for one that has none or none that can be repeated."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if 0 < len(given) <= 128 and given.isascii() and given.isprintable() else new_id_text()


def _refusal(error: HaatError, name: str, path: str) -> Answer:
    headers = [_PROBLEM, (b"x-request-id", name.encode())]
    if isinstance(seconds := error.extensions.get("retry_after"), int):  # a model may say anything
        headers.append((b"retry-after", b"%d" % seconds))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return error.status, headers, _encoder.encode(error.problem(name, path))


def _ticket(name: str, headers: Mapping[bytes, bytes]) -> Ticket:
    ticket = Ticket(request_id=name, trace=headers.get(b"traceparent", b"").decode("latin-1"))
    priority, timeout = headers.get(b"x-haat-priority"), headers.get(b"x-haat-timeout-ms")
    if priority is not None:
        ticket.priority = _number(priority, "X-Haat-Priority", PRIORITIES.start, PRIORITIES.stop - 1)
    if timeout is not None:
        ticket.deadline = time.monotonic() + _number(timeout, "X-Haat-Timeout-Ms", 1, MOST_TIMEOUT_MS) / 1000
    return ticket


def _number(given: bytes, header: str, least: int, most: int) -> int:
    if not (given.isdigit() and len(given) < 10 and least <= int(given) <= most):
        raise ValidationFailed(
            errors=[
                {"field": header, "message": f"must be a whole number from {least} to {most}; it is usually left out"}
            ]
        )
    return int(given)


def _meters(ticket: Ticket, used: Units) -> Headers:
    headers = [
        (b"x-haat-usage", "; ".join(f"{unit}={count:f}" for unit, count in used.items()).encode()),
        (b"x-haat-batch", b"%d" % ticket.batch),
        (
            b"server-timing",
            b"queue;dur=%.1f, run;dur=%.1f, load;dur=%.1f"
            % (ticket.queued * 1000, ticket.ran * 1000, ticket.loaded * 1000),
        ),
    ]
    headers += [(b"x-haat-" + name.encode(), text.encode("latin-1", "replace")) for name, text in ticket.notes.items()]
    return headers


def _timing(ticket: Ticket) -> dict[str, Any]:
    return {"batch": ticket.batch, "queue_ms": round(ticket.queued * 1000, 1), "run_ms": round(ticket.ran * 1000, 1)}


def _numbers(used: Units) -> dict[str, Decimal | int]:
    return {
        unit: int(count) if count == count.to_integral_value() else count.normalize() for unit, count in used.items()
    }
