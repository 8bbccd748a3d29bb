"""Announced maintenance: each gateway itself drains a service that takes no calls for a time, to the microsecond.

The windows come with the market, ahead of their time: a gateway that has lost PostgreSQL keeps to them all the same.
Calls that were sent before a window begins are finished.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from haat.gateway.charge import FOREVER
from haat.gateway.clock import SECOND
from haat.kernel.errors import ServiceInMaintenance

if TYPE_CHECKING:
    from haat.gateway.market.snapshot import Service


def window_at(service: Service, now: int) -> tuple[int, int] | None:
    """Return the window that a moment lies in, None outside of any."""
    for window in service.maintenance:
        if window[0] <= now < window[1]:
            return window
    return None


def next_window(service: Service, now: int) -> int:
    """Return when the next window begins: until then, what was found of a call is good."""
    return min((start for start, _ in service.maintenance if start > now), default=FOREVER)


def check_maintenance(service: Service, now: int) -> None:
    """Raise ServiceInMaintenance within a window."""
    window = window_at(service, now)
    if window is None:
        return
    until = datetime.fromtimestamp(window[1] / SECOND, UTC)
    raise ServiceInMaintenance(
        f"{service.path} is being maintained until {until:%Y-%m-%d %H:%M} UTC, as announced; the call is not billed.",
        until=until.isoformat(),
        reset_seconds=-((now - window[1]) // SECOND),
    )
