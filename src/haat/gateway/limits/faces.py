"""What the headers of answers say about limits (draft-ietf-httpapi-ratelimit-headers-11), made ahead of the calls."""

from __future__ import annotations

from typing import Final

from haat.gateway.limits.plan import PlanLimits


class Face:
    """What the headers say about one limit. ``head`` takes remaining, seconds, remaining, seconds."""

    __slots__ = ("head", "name", "policy", "quota", "unit")

    def __init__(self, name: str, quota: int, seconds: int, unit: str = "requests") -> None:
        self.name, self.quota, self.unit = name, quota, unit
        self.policy = f'"{name}";q={quota};w={seconds}{_UNIT_PARAMETER.get(unit, f";qu={chr(34)}{unit}{chr(34)}")}'
        self.head = b""

    def write(self, policy_line: bytes) -> None:
        self.head = (
            policy_line
            + f'RateLimit: "{self.name}";r=%d;t=%d\r\nX-RateLimit-Limit: {self.quota}\r\n'
            "X-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n".encode("ascii")
        )


_UNIT_PARAMETER: Final = {"requests": "", "bytes": ';qu="content-bytes"'}
"""The draft's own words for what a quota counts; others are ours."""


NO_FACE: Final = Face("", 0, 0)


class Faces:
    """What the headers of all allowances under one plan say, as long as the month is as long."""

    __slots__ = ("all", "burst", "day", "month", "policy_line", "rates")

    def __init__(self, limits: PlanLimits, month_seconds: int, day_seconds: int) -> None:
        unit = limits.quota_unit
        named = (("minute", 60, limits.per_minute), ("hour", 3600, limits.per_hour), ("day", 86_400, limits.per_day))
        self.rates: list[Face] = [Face(name, limit, span) for name, span, limit in named if limit is not None]
        self.burst: Face | None = None
        self.day: Face | None = None
        self.month: Face | None = None
        self.all: list[Face] = []
        if limits.burst is not None and limits.per_minute is not None:
            self.burst = Face("burst", limits.burst, -(-60 * limits.burst // limits.per_minute))
            self.all.append(self.burst)
        self.all += self.rates
        if limits.quota_per_day is not None:
            self.day = Face("day-quota", limits.quota_per_day, day_seconds, unit)
            self.all.append(self.day)
        if limits.quota_per_month is not None:
            self.month = Face("month", limits.quota_per_month, month_seconds, unit)
            self.all.append(self.month)
        policy = ", ".join([face.policy for face in self.all])
        self.policy_line: bytes = f"RateLimit-Policy: {policy}\r\n".encode("ascii") if self.all else b""
        for face in self.all:
            face.write(self.policy_line)


_MOST_FACES: Final = 4096
_FACES: dict[tuple[PlanLimits, int, int], Faces] = {}


def faces_of(limits: PlanLimits, month_seconds: int, day_seconds: int) -> Faces:
    key = (limits, month_seconds, day_seconds)
    found = _FACES.get(key)
    if found is None:
        if len(_FACES) >= _MOST_FACES:
            _FACES.clear()
        found = _FACES[key] = Faces(limits, month_seconds, day_seconds)
    return found
