"""Requests before they are sent, and answers after they have come: all that the two clients share. No I/O."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, NoReturn
from urllib.parse import quote, urlsplit

import httpx

from haat_client.errors import ApiError, ConnectionFailed, NotConfigured, TimedOut, UnreadableAnswer, error_of
from haat_client.etags import ETags, Kept
from haat_client.operations import INVOKE, Operation
from haat_client.results import (
    Answer,
    Invocation,
    Items,
    Meta,
    PipelineRun,
    StageReport,
    Translation,
    lower,
)
from haat_client.retries import NEVER, Retries, is_worth_it, retry_after

BASE_URL, CONTROL_URL = "http://127.0.0.1:8080", "http://127.0.0.1:8000"
TIMEOUT = 60.0
VERSION = "0.1.0"
Simulate = Literal["quota", "slow", "midstream", "overload", "timeout"]


@dataclass(frozen=True, slots=True)
class Asking:
    """One request. ``retries`` None means the client's own."""

    operation: Operation
    path: str
    method: str = ""
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    retries: Retries | None = None
    own_key: bool = False
    """Its Idempotency-Key is of this client's making."""

    @property
    def verb(self) -> str:
        return self.method or self.operation.method


class Front:
    """Addresses and secrets of one market: makes requests of askings, and results of answers."""

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

    # --- the request ------------------------------------------------------------------------------

    def request(self, http: httpx.Client | httpx.AsyncClient, asking: Asking, kept: Kept | None) -> httpx.Request:
        """Return the request of an asking; raise NotConfigured. ``kept`` is what is known of its answer."""
        headers = dict(asking.headers)
        if kept is not None:
            headers["If-None-Match"] = kept.tag
        content = asking.content
        if asking.body is not None:
            content = json.dumps(asking.body, ensure_ascii=False).encode()
            headers.setdefault("Content-Type", "application/json")
        return http.build_request(
            asking.verb,
            self._url(asking),
            params={name: _text(value) for name, value in asking.query.items() if value is not None} or None,
            content=content,
            headers={**self._credential(asking.operation), "User-Agent": f"haat-client/{VERSION}", **headers},
            timeout=self.timeout if asking.timeout is None else asking.timeout,
        )

    def keyed(self, asking: Asking) -> Asking:
        """Return an asking that may be sent again, where a key makes that safe: the same one each time."""
        wants = asking.operation.keyed and asking.verb not in ("GET", "HEAD")
        if not wants or _has_key(asking):
            return asking
        return _with_key(asking)

    def again(self, asking: Asking, response: httpx.Response) -> Asking:
        """Return an asking as it is sent again after a refusal.

        A provider's failure is kept under its key and would only be given again. It is not billed, and a task has no
        effect but its answer: so it may be executed anew, under another key, unless the caller chose the key.
        """
        failed = response.status_code in (502, 504)
        return _with_key(asking) if failed and asking.own_key and asking.operation is INVOKE else asking

    def _url(self, asking: Asking) -> str:
        if asking.operation.side == "gateway":
            return self.base_url + asking.path
        return f"{self.control_url}/api/v1{asking.path}"

    def _credential(self, operation: Operation) -> dict[str, str]:
        if operation.side == "gateway":
            if not self.api_key:
                raise NotConfigured("No API key: give `api_key`, or set HAAT_API_KEY.")
            return {"Authorization": f"Bearer {self.api_key}"}
        if operation.signed and not self.token:
            raise NotConfigured("No session: give `token`, or set HAAT_TOKEN (POST /api/v1/sessions makes one).")
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def place(self, asking: Asking) -> str:
        """Return under which name an answer is kept, empty for one that isn't: by address, caller and what it takes."""
        if self.etags is None or asking.verb != "GET":
            return ""
        parts = (self._url(asking), sorted((name, _text(value)) for name, value in asking.query.items()),
                 sorted(asking.headers.items()), self._credential(asking.operation))  # fmt: skip
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    # --- what came --------------------------------------------------------------------------------

    def pause(self, asking: Asking, response: httpx.Response, sent: int, random: float) -> float | None:
        """Return after how many seconds a refused request is sent again; None when it isn't."""
        headers = lower(response.headers)
        after = retry_after(headers)
        error = error_of(response.status_code, response.content, "", after)
        if not is_worth_it(response.status_code, headers, error.code):
            return None
        if "stage" in error.problem and response.status_code in (502, 504):
            return None  # what failed so is given again under its key
        return self._policy(asking).wait(sent, after, random)

    def pause_after(self, asking: Asking, error: httpx.TransportError, sent: int, random: float) -> float | None:
        """Return after how many seconds a request is sent again whose connection failed; None when it isn't."""
        unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        slow = isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout)
        safe = asking.verb in ("GET", "HEAD") or (asking.operation.keyed and _has_key(asking))
        if isinstance(error, httpx.UnsupportedProtocol | httpx.ProxyError) or not (unsent or (safe and not slow)):
            return None
        return self._policy(asking).wait(sent, None, random)

    def _policy(self, asking: Asking) -> Retries:
        return self.retries if asking.retries is None else asking.retries

    def take(self, place: str, kept: Kept | None, response: httpx.Response) -> tuple[Meta, bytes]:
        """Return what a good answer says, out of what is kept when nothing has changed."""
        headers = lower(response.headers)
        if response.status_code == 304 and kept is not None:
            return Meta.of(200, {**kept.headers, **headers}, from_cache=True), kept.body
        if place and self.etags is not None and response.status_code == 200:
            self.etags.keep(place, headers, response.content)
        return Meta.of(response.status_code, headers), response.content


def refusal(response: httpx.Response) -> ApiError:
    """Return the error that an answer is."""
    headers = lower(response.headers)
    return error_of(response.status_code, response.content, headers.get("x-request-id", ""), retry_after(headers))


def connection_failed(error: httpx.TransportError) -> NoReturn:
    """Raise our own error for one of httpx's."""
    if isinstance(error, httpx.TimeoutException):
        raise TimedOut(f"No answer in time ({type(error).__name__}).") from error
    if isinstance(error, httpx.UnsupportedProtocol):
        raise NotConfigured(f"{error}: an address begins with http:// or https://.") from error
    raise ConnectionFailed(f"The market can't be reached: {error or type(error).__name__}.") from error


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise NotConfigured(f"{text!r} is no address: one begins with http:// or https://.")
    return text.rstrip("/")


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _has_key(asking: Asking) -> bool:
    return any(name.lower() == "idempotency-key" for name in asking.headers)


def _with_key(asking: Asking) -> Asking:
    return replace(asking, headers={**asking.headers, "Idempotency-Key": uuid.uuid4().hex}, own_key=True)


# --- paths and headers ----------------------------------------------------------------------------


def part(name: str) -> str:
    """Return one part of a path."""
    if not name or name in (".", ".."):
        raise ValueError(f"{name!r} can't be a part of an address")
    return quote(name, safe="@~:")


def service_path(service: str) -> str:
    """Return ``provider/service`` or ``provider/service@version`` as addresses have it; raise ValueError."""
    provider, slash, name = service.partition("/")
    if not slash or not provider or not name or "/" in name:
        raise ValueError(f"{service!r} is no service: one is named provider/service, or provider/service@version")
    return f"/v1/services/{part(provider)}/{part(name)}"


def call_headers(
    user: str | None,
    tags: Mapping[str, str] | None,
    idempotency_key: str | None,
    simulate: Simulate | None,
    headers: Mapping[str, str] | None,
) -> dict[str, str]:
    """Return the headers of a call to a service."""
    made = dict(headers or {})
    if user:
        made["X-Haat-User"] = user
    if tags:
        made["X-Haat-Tags"] = ", ".join(f"{name}={value}" for name, value in tags.items())
    if idempotency_key:
        made["Idempotency-Key"] = idempotency_key
    if simulate:
        made["X-Haat-Simulate"] = simulate
    return made


def members(**given: Any) -> dict[str, Any]:
    """Return the members that were given a value."""
    return {name: value for name, value in given.items() if value is not None}


# --- results --------------------------------------------------------------------------------------

Input = Sequence[Mapping[str, Any] | str]


def inputs(given: Input | str) -> list[dict[str, Any]]:
    """Return the items of a task call: a text alone stands for ``{"text": …}``."""
    listed = [given] if isinstance(given, str) else given
    return [{"text": one} if isinstance(one, str) else dict(one) for one in listed]


def read(meta: Meta, content: bytes, *wanted: str) -> dict[str, Any]:
    """Return the JSON object of an answer with the members wanted; raise UnreadableAnswer."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict) or any(name not in found for name in wanted):
        sentence = f"The answer is no JSON object with {', '.join(wanted) or 'any member'}."
        raise UnreadableAnswer(sentence, meta.request_id)
    return found


def answer_of(meta: Meta, content: bytes) -> Answer:
    try:
        data = json.loads(content) if "json" in meta.headers.get("content-type", "") else None
    except ValueError:
        data = None
    return Answer(meta, data, content)


def invocation_of(meta: Meta, content: bytes) -> Invocation:
    found = read(meta, content, "output")
    return Invocation(meta, list(found["output"]), dict(found.get("usage") or {}))


def pipeline_of(meta: Meta, content: bytes) -> PipelineRun:
    found = read(meta, content, "output", "stages")
    return PipelineRun(meta, [StageReport.of(one) for one in found["stages"]], list(found["output"]))


def translation_of(meta: Meta, content: bytes) -> Translation:
    found = read(meta, content, "translations", "source", "target", "stages")
    detected = found.get("detected")
    return Translation(
        meta,
        [StageReport.of(one) for one in found["stages"]],
        list(found["translations"]),
        str(found["source"]),
        str(found["target"]),
        list(found.get("pivot") or []),
        float(detected["confidence"]) if isinstance(detected, dict) else None,
    )


def items_of(meta: Meta, content: bytes, name: str = "items") -> Items:
    """Return a page, or a whole list."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if isinstance(found, dict) and isinstance(found.get(name), list):
        return Items(meta, found[name], found.get("next"))
    if isinstance(found, list):
        return Items(meta, found, None)
    raise UnreadableAnswer("The answer is no list.", meta.request_id)


__all__ = [
    "NEVER", "TIMEOUT", "Asking", "Front", "Input", "Simulate", "answer_of", "call_headers", "connection_failed",
    "inputs", "invocation_of", "items_of", "members", "part", "pipeline_of", "read", "refusal", "service_path",
    "translation_of",
]  # fmt: skip
