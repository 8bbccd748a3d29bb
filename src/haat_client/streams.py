"""A streamed answer, event by event. Its connection is given back at the end, at a failure, and at ``close``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType

import httpx

from haat_client.asking import connection_failed
from haat_client.errors import StreamBroken, read_problem
from haat_client.events import DONE, Event, EventReader
from haat_client.results import Meta, lower


class _Reading:
    """What both kinds of stream share: which events are given, and which one is an error."""

    def __init__(self, response: httpx.Response) -> None:
        headers = lower(response.headers)
        self.meta = Meta.of(response.status_code, headers)
        self._reader = EventReader()
        self.is_events = headers.get("content-type", "").partition(";")[0].strip() == "text/event-stream"

    def read(self, data: bytes) -> Iterator[Event]:
        """Yield the events that these bytes complete, but not the word that ends a stream; raise StreamBroken."""
        try:
            for event in self._reader.feed(data):
                yield from self._look(event)
        except ValueError as error:
            raise self.broken(str(error)) from error

    def end(self) -> Iterator[Event]:
        for event in self._reader.close():
            yield from self._look(event)

    def _look(self, event: Event) -> Iterator[Event]:
        if event.name == "error" or (event.name == "message" and event.data.startswith('{"error"')):
            problem = read_problem(event.data.encode())
            raise StreamBroken(self.meta.status, problem, self.meta.request_id)
        if event.data != DONE:
            yield event

    def broken(self, detail: str) -> StreamBroken:
        problem = {"code": "STREAM_BROKEN", "detail": f"The stream broke off: {detail}."}
        return StreamBroken(self.meta.status, problem, self.meta.request_id)


class Stream:
    """Iterate over it for the events; use it in a ``with`` statement, or close it."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._reading = _Reading(response)
        self.meta = self._reading.meta

    def __iter__(self) -> Iterator[Event]:
        """Yield events. An answer that is no stream is one event, whose data is its body."""
        try:
            if not self._reading.is_events:
                yield Event("message", self._response.read().decode("utf-8", "replace"))
                return
            for data in self._response.iter_bytes():
                yield from self._reading.read(data)
            yield from self._reading.end()
        except httpx.TimeoutException as error:
            connection_failed(error)
        except httpx.TransportError as error:
            raise self._reading.broken(str(error) or type(error).__name__) from error
        finally:
            self.close()

    def close(self) -> None:
        self._response.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream:
    """The same for ``async for`` and ``async with``."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._reading = _Reading(response)
        self.meta = self._reading.meta

    async def __aiter__(self) -> AsyncIterator[Event]:
        try:
            if not self._reading.is_events:
                yield Event("message", (await self._response.aread()).decode("utf-8", "replace"))
                return
            async for data in self._response.aiter_bytes():
                for event in self._reading.read(data):
                    yield event
            for event in self._reading.end():
                yield event
        except httpx.TimeoutException as error:
            connection_failed(error)
        except httpx.TransportError as error:
            raise self._reading.broken(str(error) or type(error).__name__) from error
        finally:
            await self.close()

    async def close(self) -> None:
        await self._response.aclose()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
