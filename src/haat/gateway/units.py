"""What a call has used: as its provider reports it, as its quota is settled, as its answer says it."""

from __future__ import annotations

import re

from haat.gateway.call import Call
from haat.gateway.charge import charge_line
from haat.gateway.limits.plan import MICRO, to_micro
from haat.gateway.limits.reservations import most_of
from haat.gateway.limits.windows import FAR
from haat.gateway.market.routes import Route
from haat.usage.event import Outcome

ONE_REQUEST = b"X-Haat-Units: requests=1\r\n"
REPORTED = re.compile(r"\s*([a-z_]{1,32})\s*=\s*([0-9]{1,18})(?:\.([0-9]{1,6}))?\s*")
_USED_OUTCOMES = (Outcome.COMPLETED, Outcome.CLIENT_LEFT, Outcome.INTERRUPTED)


def settle(call: Call, outcome: Outcome) -> bool:
    """Turn the call's reservation into what it used of the quota: one request, its units, or nothing."""
    allowance = call.allowance
    if not call.admitted or allowance is None:
        return False
    reserved, used = call.reserved, 0
    if call.dispatched and (outcome is Outcome.COMPLETED or outcome in _USED_OUTCOMES):
        used = reserved if allowance.in_requests else _micro_units(call, allowance.unit)
    allowance.settle(call.period, reserved, used)
    call.reserved = used
    call.admitted = False
    return True


def _micro_units(call: Call, unit: str) -> int:
    """Return what a call used of its quota's unit; what nobody has counted is what was reserved."""
    if unit == "bytes" and (call.extras is None or not call.extras.websocket):
        return call.body_size * MICRO
    quantity = call.units.get(unit)
    return call.reserved if quantity is None else to_micro(quantity)


def counted_units(call: Call) -> dict[str, str]:
    """Return what a call used where its provider has reported nothing."""
    if call.route is not None and call.route.service.unit == "bytes":
        return {"requests": "1", "bytes": str(call.body_size)}
    return {"requests": "1"}


def read_usage(call: Call, route: Route, reported: bytes) -> None:
    """Take over what the provider reports in ``X-Haat-Usage``: ``characters=120; graphemes=100``.

    The text is kept as it came. Units are capped at what the version allows, and at what the call has
    reserved of a quota with a hard cap.
    """
    text = reported[:512].decode("ascii", "replace")
    call.raw_usage = text
    units = {"requests": "1"}
    for part in text.split(";"):
        match = REPORTED.fullmatch(part)
        if match is None:
            continue
        name, whole, fraction = match.groups()
        most = most_of(call, name)
        if most < FAR:
            micro = int(whole) * MICRO + int((fraction or "").ljust(6, "0"))
            if micro > most:
                whole, rest = str(most // MICRO), most % MICRO
                fraction = f"{rest:06d}".rstrip("0")
        units[name] = f"{whole}.{fraction}" if fraction else whole
    if len(units) > 1 or "requests=" in text:
        call.units = units


def unit_header(call: Call, route: Route) -> bytes:
    """Return the ``X-Haat-Units`` line, and what that costs: as far as it is known with the head."""
    unit = route.service.unit
    quantity = call.units.get(unit)
    if quantity is None:
        if unit == "bytes":
            quantity = str(call.body_size)
        elif unit == "requests":
            quantity = "1"
        else:
            return b""
    line = f"X-Haat-Units: {unit}={quantity}\r\n".encode("ascii")
    tariff = call.grant.tariff if call.grant is not None else None
    if tariff is None or (unit == "bytes" and not call.body_complete):
        return line
    return line + charge_line(call, tariff, quantity)
