"""The control plane as the gateway asks it: over HTTP, off the path of calls, in the caller's own name.

The gateway holds no facts of the past. What needs them is asked where they are, with the key that came with the
request; while the control plane does not answer, only this is refused.
"""

from __future__ import annotations

import asyncio
import logging

import httpx

from haat.kernel.errors import Overloaded

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
MOST_AT_ONCE = 64
"""Requests on their way to the control plane; further ones are told to come again."""


class ControlPlane:
    """``address`` is the control process's, without ``/api``."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._http: httpx.AsyncClient | None = None
        self._waiting: set[asyncio.Task[None]] = set()

    @property
    def is_busy(self) -> bool:
        return len(self._waiting) >= MOST_AT_ONCE

    def keep(self, task: asyncio.Task[None]) -> None:
        """Hold on to a task until it is over: asyncio itself does not."""
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def post(self, path: str, body: bytes, key: str) -> httpx.Response:
        """Send JSON with a caller's key and return the answer, whatever it is; raise Overloaded without one."""
        if self._http is None:
            self._http = httpx.AsyncClient(base_url=self._address, timeout=TIMEOUT_SECONDS, trust_env=False)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        try:
            return await self._http.post(f"/api/v1{path}", content=body, headers=headers)
        except httpx.HTTPError as error:
            log.warning("the control plane at %s does not answer: %s", self._address, type(error).__name__)
            raise Overloaded(
                "The control plane does not answer right now: try again shortly.", retry_after=2
            ) from error

    async def close(self) -> None:
        for task in list(self._waiting):
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()
