"""A record of the journal on its way into the store."""

from __future__ import annotations

from typing import NamedTuple

from haat.usage.event import UsageEvent


class Record(NamedTuple):
    """An event and where in the journal it stood; ``unreadable`` says why there is only a payload."""

    event: UsageEvent | None
    worker: str
    segment: int
    offset: int
    payload: bytes = b""
    unreadable: str = ""
