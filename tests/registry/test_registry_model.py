"""Which model is chosen, by what can be seen of all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from haat.kernel.errors import Conflict
from haat.models.engines.port import State, Status
from haat.models.manifest import Manifest
from haat.registry.model import ModelVersion, by_load, check_transition, health_of, matching

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ID = UUID(int=1)


def version(name: str, *, stage: Any = "published", number: str = "1", **fields: Any) -> ModelVersion:
    manifest = Manifest(name=name, runtime="python", entry="a:b", version=number, **fields)
    return ModelVersion(ID, ID, ID, "bhasha", name, number, manifest, "d", 1, "k", stage, None, NOW, NOW, None)


SHELF = [
    version("pairs", category="translation", language_pairs=("hi-Deva>ur-Arab", "hi-Deva>ta-Taml")),
    version("covers", category="nlp", languages=("hi-Deva", "mni-Mtei")),
    version("covers", number="2", category="nlp", languages=("hi-Deva",)),
    version("hidden", stage="deployed", category="nlp", languages=("hi-Deva",)),
    version("any", category="nlp"),
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["pairs@1", "covers@1", "covers@2", "any@1"]),
        ({"category": "translation", "source": "hi-Deva", "target": "ur-Arab"}, ["pairs@1"]),
        ({"source": "hi", "target": "ta"}, ["pairs@1"]),
        ({"target": "ur-Deva"}, []),
        ({"source": "ur-Arab", "target": "hi-Deva"}, []),
        ({"category": "nlp", "source": "hi"}, ["covers@1", "covers@2"]),
        ({"source": "mni-Mtei", "version": "1"}, ["covers@1"]),
        ({"version": "2"}, ["covers@2"]),
        ({"category": "ocr"}, []),
    ],
)
def test_capabilities_are_matched(wanted: dict[str, str], found: list[str]) -> None:
    assert [one.key.removeprefix("bhasha/") for one in matching(SHELF, **wanted)] == found


def test_the_healthiest_and_least_loaded_comes_first_and_failing_ones_only_alone() -> None:
    shelf = [version(name) for name in "abcde"]
    states = {
        "bhasha/a@1": State(Status.ERROR, error="x"),
        "bhasha/b@1": State(Status.BUSY, workers=1, queued=4),
        "bhasha/c@1": State(Status.BUSY, workers=4, queued=4),
        "bhasha/d@1": State(Status.UNLOADED),
    }
    assert [one.name for one in by_load(shelf, states)] == ["c", "b", "d", "e"]
    assert [one.name for one in by_load(shelf[:1], states)] == ["a"]


@pytest.mark.parametrize(
    ("status", "health"),
    [("ready", "ready"), ("busy", "ready"), ("unloaded", "asleep"), ("unloading", "asleep"), ("loading", "starting"),
     ("error", "failing")],
)  # fmt: skip
def test_health_follows_from_what_was_told_lately(status: str, health: str) -> None:
    assert health_of(State(Status(status)), 1) == health
    assert health_of(State(Status(status)), 60) == "unknown"
    assert health_of(None, 0) == "unknown"


def test_a_retired_version_stays_so() -> None:
    check_transition("uploaded", "deployed")
    for present, wanted in (("retired", "deployed"), ("retired", "published"), ("uploaded", "published")):
        with pytest.raises(Conflict, match="can't become"):
            check_transition(present, wanted)  # type: ignore[arg-type]
