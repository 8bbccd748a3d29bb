"""A streamed answer, event by event. Its connection is given back at the end, at a failure, and at ``close``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import TracebackType

import httpx

from haat_client.errors import StreamBroken, read_problem
from haat_client.events import DONE, Event, EventReader
from haat_client.results import Meta, lower
from haat_client.sending import connection_failed


class _Reading:
    """What both kinds of stream share: which events are given, and which one is an error."""

    def __init__(self, response: httpx.Response) -> None:
        headers = lower(response.headers)
        self.meta = Meta.of(response.status_code, headers)
        self._response = response
        self._reader = EventReader()
        self._is_events = headers.get("content-type", "").partition(";")[0].strip() == "text/event-stream"

    def _read(self, data: bytes) -> Iterator[Event]:
        """Yield the events that these bytes complete, but not the word that ends a stream; raise StreamBroken."""
        try:
            for event in self._reader.feed(data):
                yield from self._look(event)
        except ValueError as error:
            raise self._broken(str(error)) from error

    def _end(self) -> Iterator[Event]:
        for event in self._reader.close():
            yield from self._look(event)

    def _look(self, event: Event) -> Iterator[Event]:
        if event.name == "error" or (event.name == "message" and event.data.startswith('{"error"')):
            problem = read_problem(event.data.encode())
            raise StreamBroken(self.meta.status, problem, self.meta.request_id)
        if event.data != DONE:
            yield event

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Raise our own errors for those of the connection."""
        try:
            yield
        except httpx.TimeoutException as error:
            connection_failed(error)
        except httpx.TransportError as error:
            raise self._broken(str(error) or type(error).__name__) from error

    def _broken(self, detail: str) -> StreamBroken:
        problem = {"code": "STREAM_BROKEN", "detail": f"The stream broke off: {detail}."}
        return StreamBroken(self.meta.status, problem, self.meta.request_id)


def _whole(content: bytes) -> Event:
    """Return the one event that an answer is which is no stream: its data is the body."""
    return Event("message", content.decode("utf-8", "replace"))


class Stream(_Reading):
    """Iterate over it for the events; use it in a ``with`` statement, or close it."""

    def __iter__(self) -> Iterator[Event]:
        try:
            with self._connected():
                if not self._is_events:
                    yield _whole(self._response.read())
                    return
                for data in self._response.iter_bytes():
                    yield from self._read(data)
                yield from self._end()
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


class AsyncStream(_Reading):
    """The same for ``async for`` and ``async with``."""

    async def __aiter__(self) -> AsyncIterator[Event]:
        try:
            with self._connected():
                if not self._is_events:
                    yield _whole(await self._response.aread())
                    return
                async for data in self._response.aiter_bytes():
                    for event in self._read(data):
                        yield event
                for event in self._end():
                    yield event
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
