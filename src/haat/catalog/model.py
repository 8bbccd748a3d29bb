"""Listings as the market knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from haat.kernel.errors import Conflict
from haat.language.messages import _, gettext

Category = Literal[
    "translation", "transliteration", "speech_to_text", "text_to_speech", "ocr", "nlp", "llm", "embedding", "custom"
]
Unit = Literal[
    "requests", "characters", "graphemes", "tokens", "audio_seconds", "pages", "images", "bytes", "compute_seconds"
]
Status = Literal["draft", "published", "deprecated", "retired", "suspended"]
Visibility = Literal["public", "members", "invited"]
Dialect = Literal["task", "http", "openai", "anthropic", "inference", "ulca"]
Order = Literal["best", "cheapest", "fastest", "newest"]
AudioFormat = Literal["wav", "mp3", "opus", "aac", "flac", "pcm"]

SPOKEN_DIALECTS: tuple[Dialect, ...] = ("task", "ulca")
"""Those in which an endpoint can be told the format of its sound."""
CATEGORIES: tuple[Category, ...] = Category.__args__  # type: ignore[attr-defined]  # typing's own tuple of values
TASK_DIALECTS: tuple[Dialect, ...] = ("task", "inference", "ulca")
"""Those that are called in the task schema, whatever their endpoints are then asked in."""
UNITS: tuple[Unit, ...] = Unit.__args__  # type: ignore[attr-defined]
ORDERS: tuple[Order, ...] = Order.__args__  # type: ignore[attr-defined]
DIALECTS: tuple[Dialect, ...] = Dialect.__args__  # type: ignore[attr-defined]

_TRANSITIONS: dict[Status, frozenset[Status]] = {
    "draft": frozenset({"published", "retired"}),
    "published": frozenset({"deprecated", "suspended", "retired"}),
    "deprecated": frozenset({"published", "retired", "suspended"}),
    "suspended": frozenset({"published", "deprecated", "retired"}),
    "retired": frozenset(),
}


def check_transition(present: Status, wanted: Status) -> None:
    """Raise Conflict when a listing can't go from one state to the other."""
    if wanted not in _TRANSITIONS[present]:
        raise Conflict(
            _(
                "A listing that is %(present)s can't become %(wanted)s.",
                present=gettext(present),
                wanted=gettext(wanted),
            )
        )


@dataclass(frozen=True, slots=True)
class Price:
    """A rate card in force: rupees per unit after the month's free units, or what its ``components`` say.

    With components ``unit_price`` is the most that one of the listing's units costs by them.
    """

    id: UUID
    version: int
    plan_code: str | None
    unit: str
    unit_price: Decimal
    free_units: Decimal
    provider_share: Decimal
    effective_from: datetime
    components: Sequence[Mapping[str, Any]] = ()
    minimum: Decimal = Decimal(0)


def _instant(microseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC) if microseconds else None


@dataclass(frozen=True, slots=True)
class Version:
    id: UUID
    version: str
    endpoint: str
    dialect: Dialect
    languages: tuple[str, ...]
    language_pairs: tuple[str, ...]
    sample: Mapping[str, Any]
    openapi: Mapping[str, Any] | None
    timeout_ms: int
    warm_up_seconds: int
    health_path: str
    max_body_bytes: int
    is_default: bool
    accepted_at: datetime | None
    retired_at: datetime | None
    created_at: datetime
    policy: Mapping[str, Any] = field(default_factory=dict)

    @property
    def serves(self) -> str:
        """The version whose shape this one adapts its own to; empty when it is executed itself."""
        return str(self.policy.get("serves", ""))

    @property
    def successor(self) -> str:
        return str(self.policy.get("successor", ""))

    @property
    def deprecated_at(self) -> datetime | None:
        return _instant(self.policy.get("deprecated_at"))

    @property
    def sunset_at(self) -> datetime | None:
        """When it ends, once that was announced."""
        return _instant(self.policy.get("sunset_at"))

    @property
    def quality(self) -> tuple[Mapping[str, str], ...]:
        """What its provider says of its quality, by pair; see `QualityDraft`."""
        return tuple(self.policy.get("quality", ()))

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Every endpoint that may get a call, the first one first."""
        return (self.endpoint, *self.policy.get("endpoints", ()))


@dataclass(frozen=True, slots=True)
class Listing:
    """A service as the catalog shows it. ``languages`` and ``language_pairs`` are its default version's."""

    id: UUID
    org_id: UUID
    provider_slug: str
    provider_name: str
    slug: str
    name: str
    summary: str
    description: str
    category: Category
    visibility: Visibility
    status: Status
    status_reason: str
    status_at: datetime
    sunset_at: datetime | None
    pricing_model: str
    unit: str
    region: str
    retains_inputs: bool
    trains: bool
    max_requests_per_second: int
    typical_latency_ms: int
    uptime_sla: Decimal
    docs_url: str
    created_at: datetime
    languages: tuple[str, ...]
    language_pairs: tuple[str, ...]
    unit_price: Decimal | None
    free_units: Decimal | None
    policy: Mapping[str, Any] = field(default_factory=dict)
    components: Sequence[Mapping[str, Any]] = ()
    """What its common price asks for when that is more than a unit's price: ``unit_price`` is the most a unit costs."""
    minimum: Decimal = Decimal(0)

    @property
    def path(self) -> str:
        """The listing's name in addresses: ``provider/service``."""
        return f"{self.provider_slug}/{self.slug}"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A word that visitors can complete to, in any script, and the listing it stands in."""

    text: str
    path: str
