"""`Haat`: the client that waits. Here is only its I/O: what its methods ask for is in `haat_client.calls`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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
from haat_client.streams import Stream

P = ParamSpec("P")
T = TypeVar("T")


class _Sender(Protocol):
    def _send(self, asking: Asking[T]) -> T: ...

    def _stream(self, asking: Asking[Any]) -> Stream: ...


def _waits(say: Callable[P, Asking[T]]) -> Callable[Concatenate[_Sender, P], T]:
    """Return the method that sends a request and waits for its result."""

    def method(self: _Sender, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._send(say(*args, **kwargs))

    return ask.as_method(method, say)


def _streams(say: Callable[P, Asking[Any]]) -> Callable[Concatenate[_Sender, P], Stream]:
    """Return the method that sends a request and gives its answer as it comes."""

    def method(self: _Sender, /, *args: P.args, **kwargs: P.kwargs) -> Stream:
        return self._stream(say(*args, **kwargs))

    return ask.as_method(method, say)


class Haat:
    """A client of one market. Threads may share it; close it, or use it in a ``with`` statement.

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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._front = Front(api_key, base_url, control_url, token, timeout, retries, cached)
        self._http = httpx.Client(transport=transport)
        self._sleep: Callable[[float], None] = time.sleep
        self.services = Services(self)
        self.pipelines = Pipelines(self)
        self.models = Models(self)
        self.jobs = Jobs(self)
        self.catalog = Catalog(self)
        self.usage = Usage(self)

    translate = _waits(ask.translate)
    feedback = _waits(ask.feedback)

    def every(self, page: Callable[..., Items], **query: Any) -> Iterator[dict[str, Any]]:
        """Yield the items of all pages of a method that gives pages: ``market.every(market.usage.calls)``."""
        while True:
            found = page(**query)
            yield from found.items
            if not found.next:
                return
            query["cursor"] = found.next

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Haat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- sending --------------------------------------------------------------------------------

    def _send(self, asking: Asking[T]) -> T:
        attempts = Attempts(self._front, asking)
        return attempts.result(self._open(attempts, stream=False))

    def _stream(self, asking: Asking[Any]) -> Stream:
        return Stream(self._open(Attempts(self._front, asking, streams=True), stream=True))

    def _open(self, attempts: Attempts[Any], stream: bool) -> httpx.Response:
        """Send until there is a good answer; raise when nothing more is to be hoped for."""
        while True:
            try:
                response = self._http.send(attempts.request(self._http), stream=stream)
                if is_good(response):
                    return response
                try:
                    response.read()
                finally:
                    response.close()
                pause = attempts.pause_after(response)
            except httpx.TransportError as error:
                pause = attempts.pause_without(error)
            self._sleep(pause)


class _Part:
    def __init__(self, client: Haat) -> None:
        self._client = client

    def _send(self, asking: Asking[T]) -> T:
        return self._client._send(asking)

    def _stream(self, asking: Asking[Any]) -> Stream:
        return self._client._stream(asking)


class Services(_Part):
    """Calls of services."""

    invoke = _waits(ask.invoke)
    stream = _streams(ask.stream)
    request = _waits(ask.request)


class Pipelines(_Part):
    """Several services in a row."""

    run = _waits(ask.run_pipeline)
    stream = _streams(ask.stream_pipeline)


class Models(_Part):
    """What the application may call, by the names that programs know."""

    list = _waits(ask.list_models)
    get = _waits(ask.get_model)


class Jobs(_Part):
    """Many calls handed in at once."""

    submit = _waits(ask.submit_job)
    list = _waits(ask.list_jobs)
    get = _waits(ask.get_job)
    results = _waits(ask.job_results)
    cancel = _waits(ask.cancel_job)
    retry = _waits(ask.retry_job)

    @performs(JOB)
    def wait(self, job_id: str, *, timeout: float | None = None) -> Answer:
        """Return a job once it has ended; raise TimedOut after ``timeout`` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            found = self.get(job_id)
            if found.data["status"] in ask.JOB_ENDS:
                return found
            if until is not None and time.monotonic() > until:
                raise TimedOut(f"The job {job_id} has not ended in {timeout} seconds.")
            self._client._sleep(ask.JOB_LOOK_SECONDS)


class Catalog(_Part):
    """What the market has. It needs no key."""

    search = _waits(ask.search_catalog)
    autocomplete = _waits(ask.autocomplete)
    get = _waits(ask.get_listing)


class Usage(_Part):
    """What was used. It needs a session token."""

    summary = _waits(ask.usage_summary)
    hours = _waits(ask.usage_hours)
    calls = _waits(ask.usage_calls)
    call = _waits(ask.usage_call)
