"""What the cache says on answers, and what it counts for them."""

from __future__ import annotations

from haat.gateway.cache.batch import Micro, decimal, micro
from haat.gateway.cache.keys import Asking, matches
from haat.gateway.call import NO_UNITS, Call
from haat.gateway.http.answers import REASONS, Whole
from haat.gateway.limits.reservations import most_of
from haat.gateway.limits.windows import FAR
from haat.gateway.units import REPORTED


class Untouched:
    """Says on an answer that the cache had no part in it."""

    def answered(self, call: Call, answer: Whole) -> None:
        answer.lines = labelled(answer.lines, b"BYPASS")

    def missed(self, call: Call) -> None:
        """Nothing to do: nobody waits for it."""


LABELS = {"miss": b"MISS", "partial": b"PARTIAL", "bypass": b"BYPASS"}


def labelled(lines: list[bytes], label: bytes) -> list[bytes]:
    """Return an answer's lines with what the cache did, and no such word of the provider's."""
    return [line for line in lines if line[:8].lower() != b"x-cache:"] + [b"X-Cache: %b\r\n" % label]


def sign(answer: Whole, asking: Asking, tag: bytes, age: int, seconds: int, label: bytes) -> None:
    """Add the cache's own headers; turn the answer into 304 when the caller has it already."""
    said = [
        b"ETag: %b\r\n" % tag,
        b"Cache-Control: private, max-age=%d\r\n" % seconds,
        b"Age: %d\r\n" % age,
        b"X-Cache: %b\r\n" % label,
    ]
    if asking.tags and matches(asking.tags, tag):
        dated = [line for line in answer.lines if line[:5].lower() in (b"date:", b"vary:")]
        answer.status, answer.reason, answer.lines, answer.body = 304, REASONS[304], dated + said, b""
    else:
        answer.lines = answer.lines + said


def reported_units(text: str) -> Micro:
    """Return a provider's report in millionths, before anything is capped, and without its requests."""
    found: Micro = {}
    for part in text.split(";"):
        match = REPORTED.fullmatch(part)
        if match is not None and match[1] != "requests":
            found[match[1]] = micro(f"{match[2]}.{match[3] or ''}")
    return found


def capped(call: Call, units: dict[str, str]) -> dict[str, str]:
    """Return units of which no more is counted than of a provider's report for this very call."""
    for unit, text in units.items():
        most = most_of(call, unit)
        if most < FAR and micro(text) > most:
            units = {**units, unit: decimal(most)}
    return units


def as_units(quantities: Micro) -> dict[str, str]:
    """Return quantities as a record has them; nothing reported stays nothing."""
    if not quantities:
        return NO_UNITS
    return {"requests": "1"} | {unit: decimal(quantity) for unit, quantity in quantities.items()}
