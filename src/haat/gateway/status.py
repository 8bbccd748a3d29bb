"""What an operator may see of a gateway: the state of every endpoint, and counts for Prometheus.

Both name customers' services and providers' addresses, so they are only there for callers on this very
machine and in the networks that the operator names; for all others there is nothing at these paths. A
request that a proxy has forwarded comes from wherever the proxy's client is, not from the proxy.

Of several workers any one answers, for all: each leaves its figures where its siblings find them.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.call import Call
from haat.gateway.upstreams.endpoints import Endpoint
from haat.gateway.upstreams.traffic import Traffic
from haat.infra.net import parse_networks

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway

log = logging.getLogger(__name__)

PUBLISH_SECONDS = 5.0
_LATE_US = 30_000_000
"""Figures older than that are those of a worker that is away."""
JSON, TEXT = b"application/json", b"text/plain; version=0.0.4; charset=utf-8"
_PATHS = frozenset({b"/status", b"/metrics"})
_FORWARDED = (b"forwarded:", b"x-forwarded-for:", b"x-real-ip:", b"via:")
_STATES = {"closed": 0, "half_open": 1, "open": 2}
_BUCKETS = frozenset(range(8, 35, 2))
"""Of the buckets every second one is shown: 256, 1024, 4096 … microseconds, to almost five hours."""


def is_asked(gateway: Gateway, call: Call, peer: str) -> bool:
    """Tell whether a call asks for one of these paths from where that is allowed; ``peer`` is its address."""
    if call.target not in _PATHS or call.method not in (b"GET", b"HEAD"):
        return False
    if any(line.lower().startswith(_FORWARDED) for line in call.lines):
        return False
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    networks = parse_networks(gateway.settings.status_networks)
    return address.is_loopback or any(address in network for network in networks if network.version == address.version)


class Figures(msgspec.Struct):
    """What one worker says: its state, and its samples by the metric they belong to."""

    at_us: int
    status: dict[str, Any]
    samples: dict[str, list[str]]


def report(gateway: Gateway, target: bytes) -> tuple[bytes, bytes]:
    """Return (content type, body) for one of the paths, of this worker and its siblings."""
    everyone = [_figures(gateway), *_of_siblings(gateway)]
    if target == b"/status":
        return JSON, msgspec.json.encode({"workers": [figures.status for figures in everyone]})
    return TEXT, ("\n".join(_lines([figures.samples for figures in everyone])) + "\n").encode()


def publish(gateway: Gateway) -> None:
    """Leave this worker's figures to its siblings, when it has any."""
    if gateway.place.workers > 1:
        path = _path(gateway, gateway.place.slot)
        try:
            path.with_suffix(".new").write_bytes(msgspec.json.encode(_figures(gateway)))
            path.with_suffix(".new").replace(path)
        except OSError as error:
            log.warning("the figures of this worker can't be left to its siblings: %s", error)


_decoder = msgspec.json.Decoder(Figures)


def _of_siblings(gateway: Gateway) -> Iterator[Figures]:
    place, now = gateway.place, gateway.clock.now_us()
    for slot in range(place.workers):
        if slot == place.slot:
            continue
        try:
            figures = _decoder.decode(_path(gateway, slot).read_bytes())
        except (OSError, msgspec.MsgspecError):
            continue
        if now - figures.at_us < _LATE_US:
            yield figures


def _path(gateway: Gateway, slot: int) -> Path:
    return gateway.settings.data_dir / "gateway" / f"figures-{slot}.json"


def _figures(gateway: Gateway) -> Figures:
    return Figures(gateway.clock.now_us(), _status(gateway), _samples(gateway))


def _status(gateway: Gateway) -> dict[str, Any]:
    now = gateway.clock.now_us()
    services: dict[tuple[str, str], dict[str, Any]] = {}
    for endpoint, traffic in gateway.endpoints.every():
        key = (endpoint.service.path, endpoint.version.version)
        entry = services.setdefault(
            key,
            {
                "service": key[0],
                "version": key[1],
                "calls": traffic.calls,
                "retries": traffic.budget.spent,
                "retries_left": traffic.budget.left(now, traffic.calls),
                "stood_in": traffic.stood_in,
                "endpoints": [],
            },
        )
        entry["endpoints"].append(_endpoint(endpoint, now))
    return {
        "gateway": gateway.meter.worker,
        "active": len(gateway.calls),
        "connections": len(gateway.clients),
        "services": list(services.values()),
        "cache": gateway.cache.stats(),
    }


def _endpoint(endpoint: Endpoint, now: int) -> dict[str, Any]:
    breaker, health, pool = endpoint.breaker, endpoint.health, endpoint.pool
    return {
        "endpoint": endpoint.url,
        "breaker": breaker.state(now),
        "failures_in_a_row": breaker.failures,
        "failures": endpoint.failures,
        "opened": breaker.opened,
        "opens_again_in": breaker.retry_after(now) if breaker.open_until > now else 0,
        "ejected": bool(health.ejected_until),
        "in_flight": pool.busy,
        "waiting": pool.waiting,
        "idle": pool.idle,
        "most": pool.size,
    }


# --- Prometheus ---------------------------------------------------------------------------------

METRICS: dict[str, tuple[str, str]] = {
    "api_requests_total": ("counter", "Answers to callers; the endpoint is a route's template."),
    "api_request_duration_seconds": ("histogram", "From a request's head to its answer's end."),
    "api_active_requests": ("gauge", "Calls admitted and not yet ended."),
    "gateway_connections": ("gauge", "Connections of callers."),
    "gateway_retries_total": ("counter", "Calls sent again to the same service after a wait."),
    "gateway_retries_left": ("gauge", "Retries that the service's budget has room for."),
    "gateway_stood_in_total": ("counter", "Calls that another service has answered."),
    "gateway_breaker_state": ("gauge", "0 closed, 1 half open, 2 open."),
    "gateway_breaker_opened_total": ("counter", "How often the breaker has opened."),
    "gateway_endpoint_failures_total": ("counter", "Calls that an endpoint has failed."),
    "gateway_endpoint_ejected": ("gauge", "1 while an endpoint gets no calls because others do better."),
    "gateway_pool_busy": ("gauge", "Connections to an endpoint's host with a call on them."),
    "gateway_pool_idle": ("gauge", "Connections to an endpoint's host without a call."),
    "gateway_pool_waiting": ("gauge", "Calls that wait for a connection to an endpoint's host."),
    "gateway_cache_calls_total": ("counter", "Calls of services whose answers are kept, by what the cache did."),
    "gateway_cache_evicted_total": ("counter", "Answers that made room for others."),
    "gateway_cache_bytes": ("gauge", "Memory that kept answers take."),
    "gateway_replays_total": ("counter", "Answers given again for an idempotency key."),
    "gateway_shadow_sent_total": ("counter", "Copies of calls that were sent to another version."),
    "gateway_shadow_dropped_total": ("counter", "Copies that were not sent: too many under way, or nobody to ask."),
    "gateway_journal_used_ratio": ("gauge", "How much of the journal's room is used, 0 to 1."),
    "gateway_journal_full": ("gauge", "1 while calls are refused because the journal has no space."),
    "gateway_journal_unrecorded_total": ("counter", "Refusals of which a full disk kept no record."),
}


def _samples(gateway: Gateway) -> dict[str, list[str]]:
    """Return this worker's samples in Prometheus' text format, by metric."""
    samples: dict[str, list[str]] = {name: [] for name in METRICS}
    worker = gateway.meter.worker

    def add(name: str, value: float, suffix: str = "", **labels: str) -> None:
        text = ",".join(f'{label}="{_escape(value)}"' for label, value in {**labels, "worker": worker}.items())
        samples[name].append(
            f"{name}{suffix}{{{text}}} {value:g}" if value % 1 else f"{name}{suffix}{{{text}}} {value:.0f}"
        )

    add("api_active_requests", len(gateway.calls))
    add("gateway_connections", len(gateway.clients))
    cache = gateway.cache
    for did, calls in (
        ("hit", cache.hits),
        ("partial", cache.partial),
        ("miss", cache.misses),
        ("bypass", cache.bypassed),
    ):
        add("gateway_cache_calls_total", calls, cache=did)
    add("gateway_cache_evicted_total", cache.evicted)
    add("gateway_cache_bytes", cache.bytes)
    add("gateway_replays_total", gateway.attempts.replayed)
    add("gateway_shadow_sent_total", gateway.shadows.sent)
    add("gateway_shadow_dropped_total", gateway.shadows.dropped)
    add("gateway_journal_used_ratio", round(gateway.meter.disk.used, 4))
    add("gateway_journal_full", int(gateway.meter.full))
    add("gateway_journal_unrecorded_total", gateway.meter.unrecorded)
    seen: set[str] = set()
    now = gateway.clock.now_us()
    _traffic(add, gateway.meter.elsewhere, "")
    for endpoint, traffic in gateway.endpoints.every():
        template = f"/v1/services/{endpoint.service.path}/{{path}}"
        if template not in seen:
            seen.add(template)
            _traffic(add, traffic, template)
            add("gateway_retries_total", traffic.budget.spent, endpoint=template)
            add("gateway_retries_left", traffic.budget.left(now, traffic.calls), endpoint=template)
            add("gateway_stood_in_total", traffic.stood_in, endpoint=template)
        labels = {
            "service": endpoint.service.path,
            "version": endpoint.version.version,
            "upstream": endpoint.url,
        }
        add("gateway_breaker_state", _STATES[endpoint.breaker.state(now)], **labels)
        add("gateway_breaker_opened_total", endpoint.breaker.opened, **labels)
        add("gateway_endpoint_failures_total", endpoint.failures, **labels)
        add("gateway_endpoint_ejected", int(bool(endpoint.health.ejected_until)), **labels)
        add("gateway_pool_busy", endpoint.pool.busy, **labels)
        add("gateway_pool_idle", endpoint.pool.idle, **labels)
        add("gateway_pool_waiting", endpoint.pool.waiting, **labels)
    return samples


def _traffic(add: Any, traffic: Traffic, template: str) -> None:
    for (method, status), count in sorted(traffic.answers.items()):
        name = method.decode("ascii", "replace")
        add("api_requests_total", count, method=name, endpoint=template, status_code=str(status))
    total = 0
    for bits, count in enumerate(traffic.buckets):
        total += count
        if bits in _BUCKETS:
            edge = f"{(1 << bits) / 1_000_000:g}"
            add("api_request_duration_seconds", total, "_bucket", endpoint=template, le=edge)
    add("api_request_duration_seconds", total, "_bucket", endpoint=template, le="+Inf")
    add("api_request_duration_seconds", traffic.microseconds / 1_000_000, "_sum", endpoint=template)
    add("api_request_duration_seconds", total, "_count", endpoint=template)


def _lines(workers: list[dict[str, list[str]]]) -> Iterator[str]:
    """Yield the text of all samples: those of one metric stand together, whoever said them."""
    for name, (kind, meaning) in METRICS.items():
        yield f"# HELP {name} {meaning}"
        yield f"# TYPE {name} {kind}"
        for samples in workers:
            yield from samples.get(name, ())


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
