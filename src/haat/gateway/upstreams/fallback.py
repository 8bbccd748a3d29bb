"""Which other service may answer when the one that was called can't.

Only what a caller has agreed to: its plan lets others answer, its application doesn't forbid it, and
nobody stands in whom the application's data may not reach. What stands in has the same capability,
speaks the same dialect, calls its model by the same name, is sold by the same unit, takes the languages and
the size of this call, and has room for it in what its provider takes a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haat.gateway.call import Call
from haat.gateway.market.data_policy import allows
from haat.gateway.market.maintenance import window_at
from haat.gateway.market.scopes import opens
from haat.gateway.upstreams.endpoints import Endpoint, choose

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.snapshot import Version


def stand_in(gateway: Gateway, call: Call, now: int) -> Endpoint | None:
    """Return the least loaded endpoint that may answer in place of the call's own service, or None."""
    route, subscription = call.route, call.subscription
    if route is None or subscription is None or not subscription.fallback or not route.service.policy.capability:
        return None
    data = None
    application = gateway.directory.applications.get(subscription.application)
    if application is not None:
        if not application.policy.fallback:
            return None
        data = application.policy.data
    size = max(call.body_size, call.content_length)
    found: list[Endpoint] = []
    for other in gateway.routes.of_capability(route):
        if other.service.id == route.service.id or (data is not None and not allows(data, other.service)):
            continue
        if call.credential is not None and not opens(call.credential, other.service):
            continue
        if window_at(other.service, now) is not None:
            continue
        if size > other.version.max_body_bytes or not _speaks(other.version, call.language_pair):
            continue
        endpoint = choose(other.in_turn(), now)
        if endpoint is not None and not endpoint.health.ejected_until:
            found.append(endpoint)
    found.sort(key=lambda endpoint: endpoint.pool.load)
    for endpoint in found:
        service = endpoint.service
        if gateway.limits.takes(service.id, service.max_per_second, now):
            return endpoint
    return None


def _speaks(version: Version, languages: str) -> bool:
    """Tell whether a version takes the languages that a call names (``hi-Deva>ur-Arab`` or one alone).

    A version that names no languages takes all; ``hi`` and ``hi-Deva`` are the same to us.
    """
    if not languages or not (version.languages or version.language_pairs):
        return True
    wanted = languages.split(">")
    for pair in version.language_pairs:
        tags = pair.split(">")
        if len(tags) == len(wanted) and all(map(_same, tags, wanted)):
            return True
    return all(any(_same(tag, one) for one in version.languages) for tag in wanted)


def _same(one: str, other: str) -> bool:
    one, other = one.lower(), other.lower()
    return one == other or one.startswith(other + "-") or other.startswith(one + "-")
