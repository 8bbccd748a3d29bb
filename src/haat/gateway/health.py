"""What the gateway says about itself. Degraded is not dead: it serves as long as it can meter."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from haat.usage.disk import DiskState

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway

_PATHS = frozenset({b"/health", b"/health/live", b"/health/ready", b"/health/startup"})


def is_asked(target: bytes) -> bool:
    return target in _PATHS


def report(gateway: Gateway, target: bytes) -> tuple[int, bytes]:
    """Return (status, JSON body) for one of the health paths.

    ``position`` is the place in the event log up to which every change is in force here. Of several workers
    any one answers: for itself, and with the number of those that are away.
    """
    if target == b"/health/live":
        return 200, b'{"status":"live"}'
    ready = gateway.directory.loaded and not gateway.draining and not gateway.meter.failing
    if target != b"/health":
        return (200, b'{"status":"ready"}') if ready else (503, b'{"status":"not ready"}')
    fresh = gateway.feed_connected
    components = {
        "snapshot": {
            "status": "healthy" if fresh else "degraded",
            "connected": fresh,
            "credentials": len(gateway.directory.credentials),
            "subscriptions": len(gateway.directory.subscriptions),
            "services": len(gateway.directory.services),
        },
        "journal": _journal(gateway),
        "upstreams": {
            "status": "healthy",
            "busy": gateway.pools.each(lambda pool: pool.busy),
            "waiting": gateway.pools.each(lambda pool: pool.waiting),
            "broken": sum(bool(endpoint.breaker.open_until) for endpoint, _ in gateway.endpoints.every()),
        },
        "clients": {
            "status": "healthy",
            "connections": len(gateway.clients),
            "calls": len(gateway.calls),
            "turned_away": gateway.turned_away,
            "sessions": len(gateway.tunnels),
        },
    }
    if gateway.purses.number:
        components["wallets"] = {
            "status": "healthy" if gateway.purses.answered_lately else "degraded",
            "purses": gateway.purses.number,
            "waiting": gateway.purses.waiting,
        }
    if gateway.certificate is not None:
        components["certificate"] = {
            "status": "degraded" if gateway.certificate.expires_soon(datetime.now(UTC)) else "healthy",
            "expires": gateway.certificate.expires.isoformat(),
        }
    away = gateway.neighbours.away if gateway.neighbours is not None else 0
    if gateway.place.workers > 1:
        components["workers"] = {
            "status": "degraded" if away else "healthy",
            "expected": gateway.place.workers,
            "away": away,
        }
    whole = all(component["status"] == "healthy" for component in components.values())
    status = "unhealthy" if not ready else "healthy" if whole else "degraded"
    position = f"{gateway.directory.position.xid}:{gateway.directory.position.seq}"
    body = {"status": status, "worker": gateway.place.worker, "position": position, "components": components}
    return 200 if ready else 503, msgspec.json.encode(body)


def _journal(gateway: Gateway) -> dict[str, Any]:
    meter, disk = gateway.meter, gateway.meter.disk
    status = "healthy" if disk.state in (DiskState.HEALTHY, DiskState.WARNING) else "degraded"
    return {
        "status": "unhealthy" if meter.failing else status,
        "recorded": meter.recorded,
        "unrecorded_refusals": meter.unrecorded,
        "disk": {"state": disk.state.value, "used": round(disk.used, 4), "available_bytes": disk.available},
    }
