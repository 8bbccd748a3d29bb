"""How much of a quota a call reserves before it is made, and what is said when that is not to be had."""

from __future__ import annotations

import re

from haat.gateway.call import Call
from haat.gateway.dialects.asking import asked_tokens
from haat.gateway.limits.plan import MICRO, Refusal
from haat.gateway.limits.windows import FAR
from haat.kernel.errors import HaatError, InvalidRequest, ProviderBusy, QuotaExhausted, RateLimited

GENERATING = ("openai", "anthropic")
"""Dialects in which a caller says how many tokens the answer may have."""
SESSION_BYTES = 4 * 1024 * 1024
"""What a WebSocket session may carry under a quota of bytes when nobody has said otherwise; then it ends."""
DECLARATION = b"x-haat-max-units"
"""The caller's own maximum: ``characters=500``. It is forwarded, so that the provider can keep to it."""
_DECLARED = re.compile(rb"\s*([a-z_]{1,32})\s*=\s*([0-9]{1,12})(?:\.([0-9]{1,6}))?\s*")


def bound(call: Call, unit: str) -> int:
    """Return the most that this call can use, in millionths of the unit. It is enforced: more is not counted.

    In this order: of the body's bytes, the declared length or the limit; what the caller declares and what
    the version says is its most, the smaller one; for compute time, the time it has; else one unit for
    each byte of the body, because no text has more characters, graphemes or tokens than bytes, and no
    recording or document more seconds or pages. Who generates text counts tokens of its own: to those of
    the body come as many as the caller allows. Raise InvalidRequest for a declaration that can't be read.
    """
    grant = call.grant
    assert grant is not None
    body = grant.body_limit if call.chunked else max(0, call.content_length)
    session = call.extras is not None and call.extras.websocket
    if unit == "bytes" and not session:
        return body * MICRO
    route, declared = grant.route, declared_most(call.lines, unit)
    said = route.max_micro_units if unit == route.service.unit and route.max_micro_units else FAR
    if min(said, declared) < FAR:
        return min(said, declared)
    if unit == "bytes":
        return SESSION_BYTES * MICRO
    if unit == "compute_seconds":
        return route.version.timeout_ms * (MICRO // 1000)
    if unit == "tokens" and route.executing.dialect in GENERATING:
        body += asked_tokens(call, grant.tail)
    return max(1, body) * MICRO


def extend(call: Call) -> None:
    """Reserve what a call may use now that its body is here, if that is more than its head let expect."""
    allowance = call.allowance
    if allowance is None or not call.admitted:
        return
    if call.grant is not None and call.grant.cover is not None:
        call.grant.cover.extend(call)
    if allowance.unit != "tokens":
        return
    wanted = bound(call, allowance.unit)
    if wanted <= call.reserved:
        return
    refusal = allowance.extend(call.period, wanted - call.reserved)
    if refusal is not None:
        raise refused(refusal)
    if call.period == allowance.period:
        call.reserved = wanted


def declared_most(lines: list[bytes], unit: str) -> int:
    """Return what the caller says is the most it can use of a unit, in millionths, `FAR` when it says nothing."""
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() != DECLARATION:
            continue
        for part in value.strip().split(b";"):
            match = _DECLARED.fullmatch(part)
            if match is None:
                raise InvalidRequest("X-Haat-Max-Units is a list such as `characters=500; tokens=100`.")
            if match[1] == unit.encode():
                return int(match[2]) * MICRO + int((match[3] or b"").ljust(6, b"0"))
    return FAR


def most_of(call: Call, unit: str) -> int:
    """Return the most of a unit that a provider's report counts for, in millionths."""
    most, route, allowance = FAR, call.route, call.allowance
    if route is not None and unit == route.service.unit and route.max_micro_units:
        most = route.max_micro_units
    if allowance is not None and call.admitted and unit == allowance.unit and allowance.is_hard:
        most = min(most, call.reserved)
    grant = call.grant
    if grant is not None and grant.cover is not None and call.admitted:
        most = min(most, grant.cover.cap(call, unit))
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
