"""Models and their versions, and which of several can do what is wanted. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from haat.kernel.errors import Conflict
from haat.models.engines.port import State, Status
from haat.models.manifest import Manifest

Stage = Literal["uploaded", "deployed", "published", "retired"]
Health = Literal["ready", "asleep", "starting", "failing", "unknown"]

STATES_SECONDS = 15.0
"""What the models process told longer ago than this says nothing any more."""

_TRANSITIONS: dict[Stage, frozenset[Stage]] = {
    "uploaded": frozenset({"deployed", "retired"}),
    "deployed": frozenset({"published", "uploaded", "deployed", "retired"}),
    "published": frozenset({"deployed", "published", "retired"}),
    "retired": frozenset(),
}


def check_transition(present: Stage, wanted: Stage) -> None:
    """Raise Conflict when a version can't go from one stage to the other."""
    if wanted not in _TRANSITIONS[present]:
        raise Conflict(f"A version of a model that is {present} can't become {wanted}.")


@dataclass(frozen=True, slots=True)
class ModelKey:
    """A key whose signature on bundles counts until it is revoked."""

    key_id: str
    public_key: bytes
    name: str
    added_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a model: what its file says, its bundle, and how far it has come."""

    id: UUID
    model_id: UUID
    org_id: UUID
    provider: str
    name: str
    version: str
    manifest: Manifest
    digest: str
    size_bytes: int
    key_id: str
    stage: Stage
    service_id: UUID | None
    created_at: datetime
    published_at: datetime | None
    retired_at: datetime | None

    @property
    def key(self) -> str:
        """Its name for engines: ``provider/name@version``."""
        return f"{self.provider}/{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model with its versions, the newest last."""

    id: UUID
    org_id: UUID
    provider: str
    name: str
    category: str
    created_at: datetime
    versions: tuple[ModelVersion, ...] = ()


def matching(
    versions: Iterable[ModelVersion],
    *,
    category: str = "",
    source: str = "",
    target: str = "",
    version: str = "",
) -> list[ModelVersion]:
    """Return the published versions that can do what is wanted; empty fields want nothing.

    ``source`` alone is a language that is covered. A tag without a script (``hi``) stands for all of its scripts.
    """
    return [
        one
        for one in versions
        if one.stage == "published"
        and category in ("", one.manifest.category)
        and version in ("", one.version)
        and _covers(one.manifest, source, target)
    ]


def _covers(manifest: Manifest, source: str, target: str) -> bool:
    if not source and not target:
        return True
    pairs = [pair.partition(">")[::2] for pair in manifest.language_pairs]
    if target:
        return any(_is(source, a) and _is(target, b) for a, b in pairs)
    return any(_is(source, one) for one in (*manifest.languages, *(a for a, _ in pairs)))


def _is(wanted: str, given: str) -> bool:
    return not wanted or wanted == given or ("-" not in wanted and given.partition("-")[0] == wanted)


def health_of(state: State | None, age_seconds: float) -> Health:
    """Return how a version is doing by what its engine said ``age_seconds`` ago."""
    if state is None or age_seconds > STATES_SECONDS:
        return "unknown"
    match state.status:
        case Status.READY | Status.BUSY:
            return "ready"
        case Status.UNLOADED | Status.UNLOADING:
            return "asleep"
        case Status.LOADING:
            return "starting"
        case Status.ERROR:
            return "failing"


_ORDER: dict[Health, int] = {"ready": 0, "asleep": 1, "starting": 2, "unknown": 3, "failing": 4}


def by_load(
    versions: Iterable[ModelVersion], states: Mapping[str, State], age_seconds: float = 0.0
) -> list[ModelVersion]:
    """Return versions in the order in which they should be tried: healthy ones first, then the least loaded.

    The load is what waits and runs for each worker; failing ones are left out unless there are no others.
    """

    def rank(one: ModelVersion) -> tuple[int, float, float, str]:
        state = states.get(one.key)
        health = health_of(state, age_seconds)
        if state is None:
            return (_ORDER[health], 0.0, 0.0, one.key)
        load = (state.queued + state.in_flight) / max(1, state.workers)
        return (_ORDER[health], load, state.utilisation, one.key)

    ordered = sorted(versions, key=rank)
    sound = [one for one in ordered if health_of(states.get(one.key), age_seconds) != "failing"]
    return sound or ordered
