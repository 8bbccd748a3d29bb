"""A request on its way: where it goes, with which secret, and whether it is sent again. All but the I/O."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
from datetime import datetime
from typing import Any, Generic, NoReturn, TypeVar
from urllib.parse import urlsplit

import httpx

from haat_client.asking import VERSION, Asking
from haat_client.errors import ApiError, ConnectionFailed, NotConfigured, TimedOut, error_of
from haat_client.etags import ETags, Kept
from haat_client.operations import INVOKE, Operation
from haat_client.results import Meta, lower
from haat_client.retries import Retries, is_worth_it, retry_after

BASE_URL, CONTROL_URL = "http://127.0.0.1:8080", "http://127.0.0.1:8000"
TIMEOUT = 60.0
T = TypeVar("T")

log = logging.getLogger("haat_client")


class Front:
    """Addresses and secrets of one market, and what is known of its answers."""

    def __init__(
        self,
        api_key: str | None,
        base_url: str | None,
        control_url: str | None,
        token: str | None,
        timeout: float,
        retries: Retries,
        cached: int,
    ) -> None:
        environment = os.environ
        self.api_key = api_key or environment.get("HAAT_API_KEY") or environment.get("HAAT_KEY") or ""
        self.token = token or environment.get("HAAT_TOKEN") or ""
        self.base_url = _address(base_url or environment.get("HAAT_BASE_URL") or BASE_URL)
        self.control_url = _address(control_url or environment.get("HAAT_CONTROL_URL") or CONTROL_URL)
        self.timeout, self.retries = timeout, retries
        self.etags = ETags(cached) if cached else None

    def url(self, asking: Asking[Any]) -> str:
        if asking.operation.side == "gateway":
            return self.base_url + asking.path
        return f"{self.control_url}/api/v1{asking.path}"

    def credential(self, operation: Operation) -> dict[str, str]:
        """Return the header with the secret that an operation needs; raise NotConfigured where it is missing."""
        if operation.side == "gateway":
            if not self.api_key:
                raise NotConfigured("No API key: give `api_key`, or set HAAT_API_KEY.")
            return {"Authorization": f"Bearer {self.api_key}"}
        if operation.signed and not self.token:
            raise NotConfigured("No session: give `token`, or set HAAT_TOKEN (POST /api/v1/sessions makes one).")
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def place(self, asking: Asking[Any]) -> str:
        """Return under which name an answer is kept, empty for one that isn't: by address, caller and what it takes."""
        if self.etags is None or asking.verb != "GET":
            return ""
        parts = (self.url(asking), sorted((name, _text(value)) for name, value in asking.query.items()),
                 sorted(asking.headers.items()), self.credential(asking.operation))  # fmt: skip
        return hashlib.sha256(repr(parts).encode()).hexdigest()


class Attempts(Generic[T]):
    """The tries of one request.

    Who does the I/O sends `request`, gives what came of it to `pause_after` or `pause_without`, which raise when
    nothing more is to be hoped for, waits that long and goes on; a good answer's result is `result`'s.
    """

    def __init__(self, front: Front, asking: Asking[T], *, streams: bool = False) -> None:
        self._front, self._sent = front, 0
        self._place = "" if streams else front.place(asking)
        self._kept = front.etags.find(self._place) if self._place and front.etags is not None else None
        safe_by_key = asking.operation.keyed and asking.verb not in ("GET", "HEAD")
        self._asking = asking.with_key() if safe_by_key and not asking.has_key else asking

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Return the next request; raise NotConfigured."""
        front, asking = self._front, self._asking
        self._sent += 1
        headers = dict(asking.headers)
        if self._kept is not None:
            headers["If-None-Match"] = self._kept.tag
        content = asking.content
        if asking.body is not None:
            content = json.dumps(asking.body, ensure_ascii=False).encode()
            headers.setdefault("Content-Type", "application/json")
        return http.build_request(
            asking.verb,
            front.url(asking),
            params={name: _text(value) for name, value in asking.query.items() if value is not None} or None,
            content=content,
            headers={**front.credential(asking.operation), "User-Agent": f"haat-client/{VERSION}", **headers},
            timeout=front.timeout if asking.timeout is None else asking.timeout,
        )

    def pause_after(self, response: httpx.Response) -> float:
        """Return after how many seconds a refused request, whose answer has been read, is sent again; else raise it."""
        headers = lower(response.headers)
        after = retry_after(headers)
        error = error_of(response.status_code, response.content, headers.get("x-request-id", ""), after)
        # What failed in a stage for good is kept under the request's key, and would be given again.
        in_vain = "stage" in error.problem and response.status_code in (502, 504)
        worth_it = is_worth_it(response.status_code, headers, error.code) and not in_vain
        pause = self._policy.wait(self._sent, after, _chance()) if worth_it else None
        if pause is None:
            raise error
        asking = self._asking
        if response.status_code in (502, 504) and asking.own_key and asking.operation is INVOKE:
            # A provider's failure is kept under its key and would only be given again. It is not billed, and a task
            # has no effect but its answer: so it may be executed anew, under a key that the caller did not choose.
            self._asking = asking.with_key()
        self._say(error, pause)
        return pause

    def pause_without(self, error: httpx.TransportError) -> float:
        """Return after how many seconds a request is sent again whose connection failed; else raise our own error."""
        asking = self._asking
        unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        slow = isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout)
        safe = asking.verb in ("GET", "HEAD") or (asking.operation.keyed and asking.has_key)
        in_vain = isinstance(error, httpx.UnsupportedProtocol | httpx.ProxyError)
        worth_it = not in_vain and (unsent or (safe and not slow))
        pause = self._policy.wait(self._sent, None, _chance()) if worth_it else None
        if pause is None:
            connection_failed(error)
        self._say(error, pause)
        return pause

    def result(self, response: httpx.Response) -> T:
        """Return what a good answer says, out of what is kept when nothing has changed; raise UnreadableAnswer."""
        headers, etags, kept = lower(response.headers), self._front.etags, self._kept
        if response.status_code == 304 and kept is not None:
            return self._asking.read(_unchanged(kept, headers), kept.body)
        if self._place and etags is not None and response.status_code == 200:
            etags.keep(self._place, headers, response.content)
        return self._asking.read(Meta.of(response.status_code, headers), response.content)

    @property
    def _policy(self) -> Retries:
        return self._front.retries if self._asking.retries is None else self._asking.retries

    def _say(self, reason: ApiError | httpx.TransportError, pause: float) -> None:
        said = str(reason) or type(reason).__name__
        log.info("%s %s: %s; sent again in %.1f s", self._asking.verb, self._asking.path, said, pause)


def is_good(response: httpx.Response) -> bool:
    """Tell whether an answer is one: nothing was refused."""
    return response.is_success or response.status_code == 304


def connection_failed(error: httpx.TransportError) -> NoReturn:
    """Raise our own error for one of httpx's."""
    if isinstance(error, httpx.TimeoutException):
        raise TimedOut(f"No answer in time ({type(error).__name__}).") from error
    if isinstance(error, httpx.UnsupportedProtocol):
        raise NotConfigured(f"{error}: an address begins with http:// or https://.") from error
    raise ConnectionFailed(f"The market can't be reached: {error or type(error).__name__}.") from error


def _unchanged(kept: Kept, headers: dict[str, str]) -> Meta:
    return Meta.of(200, {**kept.headers, **headers}, from_cache=True)


def _chance() -> float:
    return random.random()  # noqa: S311  # jitter, no secret


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise NotConfigured(f"{text!r} is no address: one begins with http:// or https://.")
    return text.rstrip("/")


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else str(value)
