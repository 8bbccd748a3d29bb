"""What comes back: the data, and what the market says about the call."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class Meta:
    """What the headers of an answer say."""

    request_id: str
    status: int
    units: Mapping[str, Decimal]
    """What the call is metered by: ``{"characters": Decimal(13)}``; empty where that is not known with the head."""
    charge: Decimal | None
    """What it costs, in rupees and before tax; None where that can't be said of a call alone."""
    served_by: str
    mode: str
    """``live``, or ``test`` for a test key."""
    replayed: bool
    """It is the answer that was given before for the same Idempotency-Key."""
    from_cache: bool
    """The market had nothing newer than what this client keeps."""
    headers: Mapping[str, str]

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], from_cache: bool = False) -> Meta:
        said = (one.strip().partition("=") for one in headers.get("x-haat-units", "").split(","))
        units = {unit: decimal(quantity) for unit, _, quantity in said}
        return cls(
            request_id=headers.get("x-request-id", ""),
            status=status,
            units={unit: amount for unit, amount in units.items() if amount is not None},
            charge=decimal(headers.get("x-haat-charge", "").partition(" ")[0]),
            served_by=headers.get("x-haat-served-by", ""),
            mode=headers.get("x-haat-mode", "live"),
            replayed=headers.get("idempotency-replayed") == "true",
            from_cache=from_cache,
            headers=headers,
        )


def decimal(text: str) -> Decimal | None:
    """Return a number, None for a text that is none."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


@dataclass(frozen=True, slots=True)
class Result:
    """``meta`` is about the call; what is asked for most is here as well."""

    meta: Meta

    @property
    def request_id(self) -> str:
        return self.meta.request_id

    @property
    def units(self) -> Mapping[str, Decimal]:
        return self.meta.units

    @property
    def charge(self) -> Decimal | None:
        return self.meta.charge


@dataclass(frozen=True, slots=True)
class Answer(Result):
    """An answer as it came. ``data`` is what its JSON says, None when it is none."""

    data: Any
    content: bytes


@dataclass(frozen=True, slots=True)
class Invocation(Result):
    """What a task service answered: one output for each input, in order."""

    output: list[dict[str, Any]]
    usage: dict[str, float]

    @property
    def texts(self) -> list[str]:
        """The texts of the outputs, empty where one has none."""
        return [str(one.get("text", "")) for one in self.output]

    @property
    def sounds(self) -> list[bytes]:
        """The sounds of the outputs, as files; empty where one has none."""
        found = [one.get("audio") for one in self.output]
        return [base64.b64decode(one.get("content") or "") if isinstance(one, dict) else b"" for one in found]


@dataclass(frozen=True, slots=True)
class StageReport:
    """One stage of a pipeline: a call of its own, with an id of its own."""

    name: str
    service: str
    request_id: str
    units: Mapping[str, Decimal]
    charge: Decimal | None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> StageReport:
        units = {str(unit): decimal(str(quantity)) for unit, quantity in dict(said.get("units") or {}).items()}
        return cls(
            str(said.get("name", "")),
            str(said.get("service", "")),
            str(said.get("request_id", "")),
            {unit: quantity for unit, quantity in units.items() if quantity is not None},
            decimal(str(said.get("charge", "")).partition(" ")[0]),
        )


@dataclass(frozen=True, slots=True)
class _Staged(Result):
    stages: list[StageReport]

    @property
    def charge(self) -> Decimal | None:
        """What all stages cost together; None when that can't be said of one of them."""
        if self.meta.charge is not None:
            return self.meta.charge
        charges = [stage.charge for stage in self.stages]
        known = [charge for charge in charges if charge is not None]
        return sum(known, Decimal(0)) if known and len(known) == len(charges) else None


@dataclass(frozen=True, slots=True)
class PipelineRun(_Staged):
    """What the last stage answered."""

    output: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Translation(_Staged):
    """Translations in the order of the texts. ``confidence`` is how sure the source is, None when it was given."""

    translations: list[str]
    source: str
    target: str
    pivot: list[str]
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Items(Result):
    """A page. ``next`` is the cursor of the one behind it, None at the end."""

    items: list[dict[str, Any]]
    next: str | None


def lower(headers: httpx.Headers) -> dict[str, str]:
    """Return headers by their names in small letters."""
    return {name.lower(): value for name, value in headers.items()}
