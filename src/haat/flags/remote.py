"""Flags of another service, by OpenFeature's Remote Evaluation Protocol (OFREP), in place of our own.

All flags of a context are asked for at once and kept for a while; then the service is asked whether they have
changed (ETag). When it does not answer, what was kept goes on being served, as ``STALE``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from haat.flags.model import ErrorCode, Evaluation, Reason, failed
from haat.flags.provider import ResolvingProvider

log = logging.getLogger(__name__)

MOST_CONTEXTS = 1000
TIMEOUT_SECONDS = 2.0
RETRY_SECONDS = 5.0
"""How long a service that failed is left alone, unless it says otherwise."""
MOST_RETRY_SECONDS = 300.0
MOST_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class _Kept:
    """What the service said of one context; ``flags`` is None before it has said anything."""

    flags: Mapping[str, Evaluation] | None = None
    etag: str = ""
    fresh_until: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class _Unavailable(Exception):
    """The service gave no usable answer."""


class RemoteFlags(ResolvingProvider):
    """``address`` is the service's, without ``/ofrep``; ``keep_seconds`` how long an answer is not asked for again."""

    name = "ofrep"

    def __init__(
        self,
        address: str,
        *,
        token: str = "",
        keep_seconds: float = 10,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._url = address.rstrip("/") + "/ofrep/v1/evaluate/flags"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._keep_seconds, self._clock = keep_seconds, clock
        self._contexts: OrderedDict[str, _Kept] = OrderedDict()
        self._quiet_until = 0.0
        self._http = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False, transport=transport)

    async def close(self) -> None:
        await self._http.aclose()

    def known(self, key: str, context: Mapping[str, Any]) -> Evaluation | None:
        kept = self._contexts.get(_name(context))
        return _chosen(kept.flags, key) if kept is not None and kept.flags is not None else None

    async def found(self, key: str, context: Mapping[str, Any]) -> Evaluation:
        kept = self._place(context)
        trouble = ""
        async with kept.lock:  # one question at a time for each context
            if self._clock() >= kept.fresh_until:
                try:
                    await self._ask(kept, context)
                except _Unavailable as error:
                    trouble = str(error)
        if kept.flags is None:
            return failed(key, ErrorCode.GENERAL, f"The flag service gives nothing: {trouble}.")
        evaluation = _chosen(kept.flags, key)
        return replace(evaluation, reason=Reason.STALE) if trouble and evaluation.error is None else evaluation

    def _place(self, context: Mapping[str, Any]) -> _Kept:
        name = _name(context)
        kept = self._contexts.setdefault(name, _Kept())
        self._contexts.move_to_end(name)
        while len(self._contexts) > MOST_CONTEXTS:
            self._contexts.popitem(last=False)
        return kept

    async def _ask(self, kept: _Kept, context: Mapping[str, Any]) -> None:
        if self._clock() < self._quiet_until:
            raise _Unavailable("it failed a moment ago")
        headers = {**self._headers, **({"If-None-Match": kept.etag} if kept.etag else {})}
        try:
            answer = await self._http.post(self._url, json={"context": dict(context)}, headers=headers)
        except (httpx.HTTPError, ValueError) as error:
            raise self._leave_alone(RETRY_SECONDS, type(error).__name__) from error
        if answer.status_code not in (200, 304):
            pause = answer.headers.get("retry-after", "")
            seconds = float(pause) if pause.isdecimal() else RETRY_SECONDS
            raise self._leave_alone(min(seconds, MOST_RETRY_SECONDS), f"status {answer.status_code}")
        if answer.status_code == 200:
            try:
                kept.flags = _read(answer.content)
            except (ValueError, RecursionError) as error:
                raise self._leave_alone(RETRY_SECONDS, "its answer is not of the protocol") from error
            kept.etag = answer.headers.get("etag", "")
        kept.fresh_until = self._clock() + self._keep_seconds

    def _leave_alone(self, seconds: float, why: str) -> _Unavailable:
        self._quiet_until = self._clock() + seconds
        log.warning("the flag service at %s is left alone for %.0f s: %s", self._url, seconds, why)
        return _Unavailable(why)


def _name(context: Mapping[str, Any]) -> str:
    return json.dumps(context, sort_keys=True, default=str)


def _chosen(flags: Mapping[str, Evaluation], key: str) -> Evaluation:
    return flags.get(key) or failed(key, ErrorCode.FLAG_NOT_FOUND, f"The flag service has no flag {key}.")


def _read(content: bytes) -> dict[str, Evaluation]:
    """Return the flags in a bulk answer; raise ValueError for what is none."""
    if len(content) > MOST_BYTES:
        raise ValueError("too large")
    said = json.loads(content)
    if not isinstance(said, dict) or not isinstance(said.get("flags"), list):
        raise ValueError("no list of flags")
    return {one["key"]: _one(one) for one in said["flags"] if isinstance(one, dict) and isinstance(one.get("key"), str)}


def _one(said: Mapping[str, Any]) -> Evaluation:
    key, code = said["key"], said.get("errorCode")
    if code is not None or "value" not in said:
        error = ErrorCode.__members__.get(str(code), ErrorCode.GENERAL)
        return failed(key, error, str(said.get("errorDetails", "")))
    reason = Reason.__members__.get(str(said.get("reason")), Reason.UNKNOWN)
    return Evaluation(key, reason, said["value"], str(said.get("variant") or ""))
