"""Domain events: what happened, written in the same transaction as the change itself.

Events are chained per stream: each row's hash covers the row before it, so that a rewritten past
shows. Personal data stays in its own tables and is only referenced from here, so that it can be
erased without breaking a chain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the event log: commit-safe order is (transaction, sequence), see `infra.events`."""

    xid: int = 0
    seq: int = 0

    def __str__(self) -> str:
        return f"{self.xid}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        xid, _, seq = text.partition(":")
        return cls(int(xid), int(seq))


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """One fact. ``stream`` is ``kind/id``; ``version`` counts up from 1 within the stream."""

    id: UUID
    stream: str
    version: int
    type: str
    data: Mapping[str, Any]
    actor: str
    org: UUID | None
    at: datetime
    prev_hash: bytes
    hash: bytes
    position: Position = Position()


GENESIS = bytes(32)


def chain_hash(
    prev_hash: bytes,
    *,
    id: UUID,
    stream: str,
    version: int,
    type: str,
    data: Mapping[str, Any],
    actor: str,
    org: UUID | None,
    at: datetime,
) -> bytes:
    """Return SHA-256 over the previous hash and the canonical JSON of the event's members."""
    body = json.dumps(
        [str(id), stream, version, type, data, actor, str(org) if org else None, at.astimezone(UTC).isoformat()],
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    )
    return hashlib.sha256(prev_hash + body.encode()).digest()


@dataclass(frozen=True, slots=True)
class EventHandler:
    """Something to be done after an event, as a durable job keyed by (event, handler name).

    ``run`` gets the platform (see `haat.app.Platform`) and the event. It may run more than once:
    it must leave the same result each time.
    """

    name: str
    types: frozenset[str]
    run: Callable[[Any, DomainEvent], Awaitable[None]]
    max_attempts: int = 8
