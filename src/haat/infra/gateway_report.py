"""What a gateway says about itself, asked from outside: its `/health`, and its `/status` where it shows that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from haat.kernel.events import Position

SECONDS = 2.0
"""So long is waited for each answer: who asks wants to know when a gateway is slow."""


class Endpoint(msgspec.Struct):
    """One endpoint of a version as one worker knows it; times in seconds."""

    endpoint: str
    breaker: str
    failures_in_a_row: int = 0
    failures: int = 0
    opened: int = 0
    opens_again_in: int = 0
    """Until the open breaker lets a call through to see whether the endpoint is back."""
    ejected: bool = False
    in_flight: int = 0
    waiting: int = 0


class Service(msgspec.Struct):
    """One version of a service that a worker was called for."""

    service: str
    version: str
    calls: int = 0
    endpoints: list[Endpoint] = []


class Kept(msgspec.Struct):
    """What a worker keeps of answers, and how often that was of use since its start."""

    bytes: int = 0
    max_bytes: int = 0
    entries: int = 0
    hits: int = 0
    partial: int = 0
    misses: int = 0


class Worker(msgspec.Struct):
    gateway: str
    active: int = 0
    connections: int = 0
    services: list[Service] = []
    cache: Kept = msgspec.field(default_factory=Kept)


class _Status(msgspec.Struct):
    workers: list[Worker] = []


class Health(msgspec.Struct):
    """``status`` is healthy, degraded or unhealthy. ``components`` hold their own ``status`` beside their figures."""

    status: str
    position: str
    worker: str = ""
    components: dict[str, dict[str, Any]] = {}

    @property
    def degraded(self) -> dict[str, Mapping[str, Any]]:
        """The components that are not healthy."""
        return {name: part for name, part in self.components.items() if part.get("status") != "healthy"}

    @property
    def reached(self) -> Position | None:
        """The place in the event log up to which every change is in force."""
        try:
            return Position.parse(self.position)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """``health`` is None when nobody answered, for the ``reason``; ``workers`` when `/status` is closed to us."""

    address: str
    health: Health | None
    workers: list[Worker] | None
    reason: str = ""


async def ask(address: str) -> GatewayReport:
    """Ask the gateway at an address; that it does not answer is an answer, too."""
    async with httpx.AsyncClient(base_url=address, timeout=SECONDS, trust_env=False) as client:
        try:
            health = msgspec.json.decode((await client.get("/health")).content, type=Health)
        except (httpx.HTTPError, msgspec.DecodeError, UnicodeDecodeError) as error:
            return GatewayReport(address, None, None, type(error).__name__)
        try:
            answer = await client.get("/status")
            workers = msgspec.json.decode(answer.content, type=_Status).workers if answer.is_success else None
        except (httpx.HTTPError, msgspec.DecodeError, UnicodeDecodeError):
            workers = None
    return GatewayReport(address, health, workers)
