"""What a model's file says: what it is, how it runs, and how it is listed.

``haat models init`` writes one as ``haat-model.yaml`` beside the model's code or weights.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from haat.models.hosted import Category, InputKind, Option, Unit

Cost = Literal["items", "characters", "audio_seconds"]
Group = Literal["language", "length"]

MOST_WORKERS = 20


class Batching(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How inputs of several calls become one batch.

    A batch holds at most ``max_items``, and of what ``cost`` counts at most ``max_cost`` (0 for no bound). It leaves
    when it is full, or when a worker is free and its first input has waited ``max_wait_ms``. Inputs of other languages,
    or of much different lengths, go into batches of their own where ``group_by`` says so.
    """

    max_items: int = 32
    max_wait_ms: float = 5.0
    cost: Cost = "items"
    max_cost: float = 0.0
    group_by: tuple[Group, ...] = ()


class Workers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How many processes run the model, and whether it shares one with other small models."""

    least: int = 1
    most: int = 1
    shared: bool = False


class Degraded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What answers when the model is overloaded; the answer says that it is such a one.

    Answers of the last ``cached_seconds`` are given again to the same inputs; for others the model whose key is
    ``instead`` is asked: a cheaper one of the same provider.
    """

    instead: str = ""
    cached_seconds: float = 0.0


class Listing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the market says of it. ``unit_price`` is decimal text, in rupees."""

    name: str = ""
    summary: str = ""
    description: str = ""
    unit: Unit = "characters"
    unit_price: str = "0"
    free_units: int = 0
    license_note: str = ""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One version of one model.

    ``runtime`` names who runs it (`haat.models.runtimes`) and ``entry`` what that is given: ``module:Class``, a file of
    weights, a command line, an address. ``settings`` are the runtime's own. ``languages``, ``language_pairs`` and
    ``kind`` are as in `haat.models.hosted.HostedService`. ``memory_mb`` is what one worker may use; ``network`` lets
    it reach other machines. ``streams`` says that an input may be answered in parts. ``preload`` keeps it loaded.
    """

    name: str
    runtime: str
    entry: str
    category: Category = "nlp"
    kind: InputKind = "text"
    version: str = "1.0.0"
    languages: tuple[str, ...] = ()
    language_pairs: tuple[str, ...] = ()
    takes_language: bool = True
    options: tuple[Option, ...] = ()
    formats: tuple[str, ...] = ()
    max_inputs: int = 100
    max_characters: int = 5_000
    max_bytes: int = 0
    timeout_seconds: float = 30.0
    memory_mb: int = 512
    network: bool = False
    gpu: bool = False
    streams: bool = False
    preload: bool = False
    batching: Batching = Batching()
    workers: Workers = Workers()
    degraded: Degraded = Degraded()
    settings: dict[str, Any] = {}
    environment: dict[str, str] = {}
    requirements: tuple[str, ...] = ()
    """Distributions of its own, each pinned: ``regex==2026.1.15``."""
    sample: dict[str, Any] = {}
    listing: Listing = Listing()
