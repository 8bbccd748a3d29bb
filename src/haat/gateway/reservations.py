"""How much of a quota a call reserves before it is made, and what is said when that is not to be had."""

from __future__ import annotations

from haat.gateway.call import Call
from haat.gateway.plan import MICRO, Refusal
from haat.gateway.windows import FAR
from haat.kernel.errors import HaatError, ProviderBusy, QuotaExhausted, RateLimited


def bound(call: Call, unit: str) -> int:
    """Return the most that this call can use, in millionths of the unit. It is enforced: more is not counted.

    In this order: of the body's bytes, what is declared or the limit; what the version says is its most;
    for compute time, the time it has; else one unit for each byte of the body, because no text has more
    characters, graphemes or tokens than bytes, and no recording or document more seconds or pages.
    """
    grant = call.grant
    assert grant is not None
    body = call.content_length if call.content_length >= 0 and not call.chunked else 0
    if call.chunked:
        body = grant.body_limit
    if unit == "bytes":
        return body * MICRO
    route = grant.route
    if unit == route.service.unit and route.max_micro_units:
        return route.max_micro_units
    if unit == "compute_seconds":
        return route.version.timeout_ms * (MICRO // 1000)
    return max(1, body) * MICRO


def most_of(call: Call, unit: str) -> int:
    """Return the most of a unit that a provider's report counts for, in millionths."""
    most, route, allowance = FAR, call.route, call.allowance
    if route is not None and unit == route.service.unit and route.max_micro_units:
        most = route.max_micro_units
    if allowance is not None and call.admitted and unit == allowance.unit and allowance.is_hard:
        most = min(most, call.reserved)
    return most


_QUOTAS = {"month": "this month", "day-quota": "today"}


def refused(refusal: Refusal) -> HaatError:
    """Return the problem that tells a caller which limit forbids the call, what remains and when it resets."""
    members = refusal._asdict()
    quota, wait = refusal.quota, refusal.reset_seconds
    if refusal.limit in _QUOTAS:
        rest = f"{refusal.remaining} are left and this call might need more" if refusal.remaining else "none is left"
        return QuotaExhausted(
            f"The plan has {quota} {refusal.unit.replace('_', ' ')} for {_QUOTAS[refusal.limit]}: {rest}. "
            f"The quota resets in {wait} seconds. Wait, or move to a larger plan.",
            **members,
        )
    if refusal.limit == "provider":
        return ProviderBusy(
            f"The provider takes {quota} requests a second from all callers together: try again in {wait} seconds.",
            **members,
        )
    if refusal.limit == "concurrent":
        return RateLimited(
            f"The plan allows {quota} calls at the same time: wait until one of them has ended.", **members
        )
    if refusal.limit == "burst":
        return RateLimited(
            f"The plan allows {quota} requests at once, further ones at its pace a minute: wait {wait} seconds.",
            **members,
        )
    return RateLimited(
        f"The plan allows {quota} requests a {refusal.limit}: wait {wait} seconds, or move to a larger plan.", **members
    )
