"""`AsyncHaat`: the client for asyncio. Every method is that of `haat_client.blocking`, awaited."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Literal

import httpx

from haat_client import asking as ask
from haat_client.asking import Asking, Front, Input, Simulate
from haat_client.operations import (
    CALL,
    CALLS,
    COMPLETE,
    HOURS,
    INVOKE,
    LISTING,
    MODEL,
    MODELS,
    PIPELINE,
    PIPELINE_STREAM,
    REQUEST,
    SEARCH,
    TRANSLATE,
    USAGE,
    performs,
)
from haat_client.results import Answer, Invocation, Items, Meta, PipelineRun, Translation
from haat_client.retries import Retries
from haat_client.streams import AsyncStream


class AsyncHaat:
    """A client of one market, for one event loop. Close it, or use it in an ``async with`` statement.

    What isn't given comes from ``HAAT_API_KEY``, ``HAAT_BASE_URL`` (the gateway), ``HAAT_CONTROL_URL`` (the
    portal's address, for the catalog and usage) and ``HAAT_TOKEN`` (a session, for usage). ``timeout`` is in seconds
    for one try; ``cached`` is how many answers with an ETag are kept, 0 for none.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        control_url: str | None = None,
        token: str | None = None,
        timeout: float = ask.TIMEOUT,
        retries: Retries = Retries(),  # noqa: B008  # frozen
        cached: int = 256,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._front = Front(api_key, base_url, control_url, token, timeout, retries, cached)
        self._http = httpx.AsyncClient(transport=transport)
        self._sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self.services = Services(self)
        self.pipelines = Pipelines(self)
        self.models = Models(self)
        self.catalog = Catalog(self)
        self.usage = Usage(self)

    @performs(TRANSLATE)
    async def translate(
        self,
        text: str | Sequence[str],
        target: str,
        *,
        source: str | None = None,
        policy: Literal["price", "latency", "quality"] | None = None,
        pivot: Literal["never", "allow"] | None = None,
        via: str | None = None,
        timeout_ms: int | None = None,
        user: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        simulate: Simulate | None = None,
    ) -> Translation:
        """Translate texts of one language with the service that suits best; without ``source`` it is told from them."""
        texts = text if isinstance(text, str) else list(text)
        body = ask.members(
            text=texts, target=target, source=source, policy=policy, pivot=pivot, via=via, timeout_ms=timeout_ms
        )
        headers = ask.call_headers(user, tags, idempotency_key, simulate, None)
        return ask.translation_of(*await self._send(Asking(TRANSLATE, TRANSLATE.path, body=body, headers=headers)))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncHaat:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- sending --------------------------------------------------------------------------------

    async def _send(self, asking: Asking) -> tuple[Meta, bytes]:
        place = self._front.place(asking)
        kept = self._front.etags.find(place) if place and self._front.etags is not None else None
        response = await self._open(asking, kept, stream=False)
        return self._front.take(place, kept, response)

    async def _stream(self, asking: Asking) -> AsyncStream:
        return AsyncStream(await self._open(asking, None, stream=True))

    async def _open(self, asking: Asking, kept: Any, stream: bool) -> httpx.Response:
        """Send until there is a good answer, or nothing more to be hoped for: then raise."""
        front, sent = self._front, 0
        asking = front.keyed(asking)
        while True:
            sent += 1
            chance = random.random()  # noqa: S311  # jitter, no secret
            try:
                response = await self._http.send(front.request(self._http, asking, kept), stream=stream)
                if response.is_success or response.status_code == 304:
                    return response
                try:
                    await response.aread()
                finally:
                    await response.aclose()
                pause = front.pause(asking, response, sent, chance)
                if pause is None:
                    raise ask.refusal(response)
                asking = front.again(asking, response)
            except httpx.TransportError as error:
                pause = front.pause_after(asking, error, sent, chance)
                if pause is None:
                    ask.connection_failed(error)
            await self._sleep(pause)


class _Part:
    def __init__(self, client: AsyncHaat) -> None:
        self._client = client


class Services(_Part):
    """Calls of services."""

    @performs(INVOKE)
    async def invoke(
        self,
        service: str,
        input: Input | str,
        config: Mapping[str, Any] | None = None,
        *,
        user: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        simulate: Simulate | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # of one try: httpx keeps to it
        retries: Retries | None = None,
    ) -> Invocation:
        """Call a service of the task schema. A text alone stands for ``{"text": …}``."""
        return ask.invocation_of(
            *await self._client._send(
                Asking(
                    INVOKE,
                    ask.service_path(service) + "/invoke",
                    body={"input": ask.inputs(input), "config": dict(config or {})},
                    headers=ask.call_headers(user, tags, idempotency_key, simulate, headers),
                    timeout=timeout,
                    retries=retries,
                )
            )
        )

    @performs(INVOKE)
    async def stream(
        self,
        service: str,
        input: Input | str,
        config: Mapping[str, Any] | None = None,
        *,
        user: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        simulate: Simulate | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # of one try: httpx keeps to it
        retries: Retries | None = None,
    ) -> AsyncStream:
        """Call a service and take its answer event by event; what has begun is not sent again."""
        made = ask.call_headers(user, tags, idempotency_key, simulate, headers)
        return await self._client._stream(
            Asking(
                INVOKE,
                ask.service_path(service) + "/invoke",
                body={"input": ask.inputs(input), "config": dict(config or {})},
                headers={"Accept": "text/event-stream", **made},
                timeout=timeout,
                retries=retries,
            )
        )

    @performs(REQUEST)
    async def request(
        self,
        service: str,
        path: str = "",
        *,
        method: str = "POST",
        query: Mapping[str, Any] | None = None,
        json: Any = None,
        content: bytes | None = None,
        user: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        simulate: Simulate | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # of one try: httpx keeps to it
        retries: Retries | None = None,
    ) -> Answer:
        """Call a service with an API of its own; ``path`` is below the service and begins with a slash."""
        return ask.answer_of(
            *await self._client._send(
                Asking(
                    REQUEST,
                    ask.service_path(service) + path,
                    method.upper(),
                    query or {},
                    json,
                    content,
                    ask.call_headers(user, tags, idempotency_key, simulate, headers),
                    timeout,
                    retries,
                )
            )
        )


class Pipelines(_Part):
    """Several services in a row."""

    @performs(PIPELINE)
    async def run(
        self,
        stages: Sequence[Mapping[str, Any]],
        input: Input | str,
        *,
        timeout_ms: int | None = None,
        user: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        simulate: Simulate | None = None,
    ) -> PipelineRun:
        """Run stages, each ``{"service", "config"?, "name"?}``. Sent again, it goes on where it stopped."""
        body = ask.members(stages=[dict(one) for one in stages], input=ask.inputs(input), timeout_ms=timeout_ms)
        headers = ask.call_headers(user, tags, idempotency_key, simulate, None)
        return ask.pipeline_of(*await self._client._send(Asking(PIPELINE, PIPELINE.path, body=body, headers=headers)))

    @performs(PIPELINE_STREAM)
    async def stream(
        self,
        stages: Sequence[Mapping[str, Any]],
        input: Input | str,
        *,
        timeout_ms: int | None = None,
        split: Literal["none", "sentences"] | None = None,
        user: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        simulate: Simulate | None = None,
    ) -> AsyncStream:
        """Run stages item by item, and take what each makes of each item as soon as it is there."""
        body = ask.members(
            stages=[dict(one) for one in stages], input=ask.inputs(input), timeout_ms=timeout_ms, split=split
        )
        headers = ask.call_headers(user, tags, idempotency_key, simulate, {"Accept": "text/event-stream"})
        return await self._client._stream(Asking(PIPELINE_STREAM, PIPELINE_STREAM.path, body=body, headers=headers))


class Models(_Part):
    """What the application may call, by the names that programs know."""

    @performs(MODELS)
    async def list(self) -> Items:
        return ask.items_of(*await self._client._send(Asking(MODELS, MODELS.path)), name="data")

    @performs(MODEL)
    async def get(self, name: str) -> Answer:
        path = "/".join(ask.part(one) for one in name.split("/"))
        return ask.answer_of(*await self._client._send(Asking(MODEL, f"/v1/models/{path}")))


class Catalog(_Part):
    """What the market has. It needs no key."""

    @performs(SEARCH)
    async def search(
        self,
        q: str | None = None,
        *,
        category: str | None = None,
        language: str | None = None,
        provider: str | None = None,
        max_price: Decimal | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Items:
        """Search in any script; ``next`` of the answer is the cursor of the page behind it."""
        query = {"q": q, "category": category, "language": language, "provider": provider, "max_price": max_price,
                 "cursor": cursor, "limit": limit}  # fmt: skip
        return ask.items_of(*await self._client._send(Asking(SEARCH, SEARCH.path, query=query)))

    @performs(COMPLETE)
    async def autocomplete(self, prefix: str) -> Items:
        """Complete the last word that is being typed."""
        return ask.items_of(*await self._client._send(Asking(COMPLETE, COMPLETE.path, query={"prefix": prefix})))

    @performs(LISTING)
    async def get(self, provider: str, service: str) -> Answer:
        """Return a listing with its versions and prices."""
        path = f"/listings/{ask.part(provider)}/{ask.part(service)}"
        return ask.answer_of(*await self._client._send(Asking(LISTING, path)))


class Usage(_Part):
    """What was used. It needs a session token."""

    @performs(USAGE)
    async def summary(self, month: str | None = None) -> Items:
        """Return a month by service, the running one if none is named."""
        return ask.items_of(*await self._client._send(Asking(USAGE, USAGE.path, query={"month": month})))

    @performs(HOURS)
    async def hours(self, month: str | None = None, service_id: str | None = None) -> Items:
        """Return the hours of a month that had calls."""
        query = {"month": month, "service_id": service_id}
        return ask.items_of(*await self._client._send(Asking(HOURS, HOURS.path, query=query)))

    @performs(CALLS)
    async def calls(
        self,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        service_id: str | None = None,
        application_id: str | None = None,
        outcome: str | None = None,
        status_class: int | None = None,
        user: str | None = None,
        mode: Literal["live", "test"] | None = None,
        tag: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Items:
        """Return calls, newest first; ``tag`` is ``name=value``."""
        query = {"start": start, "end": end, "service_id": service_id, "application_id": application_id,
                 "outcome": outcome, "status_class": status_class, "user": user, "mode": mode, "tag": tag,
                 "cursor": cursor, "limit": limit}  # fmt: skip
        return ask.items_of(*await self._client._send(Asking(CALLS, CALLS.path, query=query)))

    @performs(CALL)
    async def call(self, request_id: str) -> Answer:
        """Return one call's story by its request id: its units, its price, the lines it lies on."""
        return ask.answer_of(*await self._client._send(Asking(CALL, f"/usage/calls/{ask.part(request_id)}")))
