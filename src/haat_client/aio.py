"""`AsyncHaat`: the client for asyncio. Here is only its I/O: what its methods ask for is in `haat_client.calls`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import httpx

from haat_client import calls as ask
from haat_client.asking import Asking
from haat_client.errors import TimedOut
from haat_client.operations import JOB, performs
from haat_client.results import Answer, Items
from haat_client.retries import Retries
from haat_client.sending import TIMEOUT, Attempts, Front, is_good
from haat_client.streams import AsyncStream

P = ParamSpec("P")
T = TypeVar("T")


class _Sender(Protocol):
    async def _send(self, asking: Asking[T]) -> T: ...

    async def _stream(self, asking: Asking[Any]) -> AsyncStream: ...


def _awaits(say: Callable[P, Asking[T]]) -> Callable[Concatenate[_Sender, P], Coroutine[Any, Any, T]]:
    """Return the method that sends a request and awaits its result."""

    async def method(self: _Sender, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._send(say(*args, **kwargs))

    return ask.as_method(method, say)


def _streams(say: Callable[P, Asking[Any]]) -> Callable[Concatenate[_Sender, P], Coroutine[Any, Any, AsyncStream]]:
    """Return the method that sends a request and gives its answer as it comes."""

    async def method(self: _Sender, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream:
        return await self._stream(say(*args, **kwargs))

    return ask.as_method(method, say)


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
        timeout: float = TIMEOUT,
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
        self.jobs = Jobs(self)
        self.catalog = Catalog(self)
        self.usage = Usage(self)

    translate = _awaits(ask.translate)
    feedback = _awaits(ask.feedback)

    async def every(self, page: Callable[..., Awaitable[Items]], **query: Any) -> AsyncIterator[dict[str, Any]]:
        """Yield the items of all pages of a method that gives pages: ``market.every(market.usage.calls)``."""
        while True:
            found = await page(**query)
            for item in found.items:
                yield item
            if not found.next:
                return
            query["cursor"] = found.next

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncHaat:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- sending --------------------------------------------------------------------------------

    async def _send(self, asking: Asking[T]) -> T:
        attempts = Attempts(self._front, asking)
        return attempts.result(await self._open(attempts, stream=False))

    async def _stream(self, asking: Asking[Any]) -> AsyncStream:
        return AsyncStream(await self._open(Attempts(self._front, asking, streams=True), stream=True))

    async def _open(self, attempts: Attempts[Any], stream: bool) -> httpx.Response:
        """Send until there is a good answer; raise when nothing more is to be hoped for."""
        while True:
            try:
                response = await self._http.send(attempts.request(self._http), stream=stream)
                if is_good(response):
                    return response
                try:
                    await response.aread()
                finally:
                    await response.aclose()
                pause = attempts.pause_after(response)
            except httpx.TransportError as error:
                pause = attempts.pause_without(error)
            await self._sleep(pause)


class _Part:
    def __init__(self, client: AsyncHaat) -> None:
        self._client = client

    async def _send(self, asking: Asking[T]) -> T:
        return await self._client._send(asking)

    async def _stream(self, asking: Asking[Any]) -> AsyncStream:
        return await self._client._stream(asking)


class Services(_Part):
    """Calls of services."""

    invoke = _awaits(ask.invoke)
    stream = _streams(ask.stream)
    request = _awaits(ask.request)


class Pipelines(_Part):
    """Several services in a row."""

    run = _awaits(ask.run_pipeline)
    stream = _streams(ask.stream_pipeline)


class Models(_Part):
    """What the application may call, by the names that programs know."""

    list = _awaits(ask.list_models)
    get = _awaits(ask.get_model)


class Jobs(_Part):
    """Many calls handed in at once."""

    submit = _awaits(ask.submit_job)
    list = _awaits(ask.list_jobs)
    get = _awaits(ask.get_job)
    results = _awaits(ask.job_results)
    cancel = _awaits(ask.cancel_job)
    retry = _awaits(ask.retry_job)

    @performs(JOB)
    async def wait(self, job_id: str, *, timeout: float | None = None) -> Answer:  # noqa: ASYNC109  # as in the half that waits
        """Return a job once it has ended; raise TimedOut after ``timeout`` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            found = await self.get(job_id)
            if found.data["status"] in ask.JOB_ENDS:
                return found
            if until is not None and time.monotonic() > until:
                raise TimedOut(f"The job {job_id} has not ended in {timeout} seconds.")
            await self._client._sleep(ask.JOB_LOOK_SECONDS)


class Catalog(_Part):
    """What the market has. It needs no key."""

    search = _awaits(ask.search_catalog)
    autocomplete = _awaits(ask.autocomplete)
    get = _awaits(ask.get_listing)


class Usage(_Part):
    """What was used. It needs a session token."""

    summary = _awaits(ask.usage_summary)
    hours = _awaits(ask.usage_hours)
    calls = _awaits(ask.usage_calls)
    call = _awaits(ask.usage_call)
