"""What services, their versions and applications say about how the gateway treats their calls.

Stored as JSON with the row they belong to, validated by the control plane when it is written, and
read here leniently: an older gateway ignores members it doesn't know.
"""

from __future__ import annotations

from typing import Any

import msgspec

from haat.infra.inference.mapping import TensorMap
from haat.rollouts.rule import Rule


class CachePolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """The service is deterministic: an answer may be given again for ``ttl_seconds``.

    ``items`` tells that a task call's inputs are independent, so that those known are answered from
    the cache and only the others are asked for. ``headers`` select the answer beside ``Accept``,
    ``Accept-Language`` and ``Content-Type``; no others reach the provider.
    """

    ttl_seconds: int = 3600
    items: bool = False
    headers: tuple[str, ...] = ()


class ServicePolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Said by a listing.

    ``repeatable``: a call may be executed twice without harm, so that it may be retried. ``capability``:
    a name for what the service does; those of one name can stand in for each other. ``aliases``: names under
    which programs know the service as a model.
    """

    repeatable: bool = False
    capability: str = ""
    aliases: tuple[str, ...] = ()
    cache: CachePolicy | None = None
    cache_generation: int = 0
    """Counts how often the provider had everything forgotten."""


class Share(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version that gets a part of the calls: ``buckets`` of 10,000. Answers call it ``name``."""

    name: str
    version: str
    buckets: int


class ShadowPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Calls are copied to another version: ``buckets`` of 10,000. ``service`` is another service's path, or empty."""

    version: str
    buckets: int
    service: str = ""


class DivisionPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the calls of a service that name no version are divided. What ``shares`` leave goes to ``control``.

    Users are told by what the caller says in ``X-Haat-User``, applications by their ids. Who is blocked gets the
    control, who is allowed the first share, whatever their bucket; blocked goes before allowed. ``rule`` sends a
    version back that is worse than the control.
    """

    id: str
    control: str
    shares: tuple[Share, ...] = ()
    allow_users: tuple[str, ...] = ()
    allow_applications: tuple[str, ...] = ()
    block_users: tuple[str, ...] = ()
    block_applications: tuple[str, ...] = ()
    rule: Rule = Rule()
    shadow: ShadowPolicy | None = None


class Transform(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change to a request or an answer.

    ``do`` is ``set_header``, ``remove_header``, ``rename``, ``set``, ``remove`` or ``move``; the last four
    act on a JSON body, where ``path`` and ``to`` are dotted (``config.source``).
    """

    do: str
    path: str = ""
    to: str = ""
    value: Any = None


class Bounds(msgspec.Struct, frozen=True, omit_defaults=True):
    """Limits of one plan that take the place of the version's; 0 leaves the version's."""

    items: int = 0
    total: int = 0
    most: int = 0


class ValidationPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task version's batches are looked at before they go to it; see `haat.language.validation.Rules`.

    ``plans`` has other limits for callers on them, by the plan's code.
    """

    items: int = 0
    total: int = 0
    least: int = 0
    most: int = 0
    repeats: int = 0
    empty: bool = False
    duplicates: str = "allow"
    language: bool = False
    profanity: str = "allow"
    plans: dict[str, Bounds] = {}


class Quality(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a provider says of how well a version translates a pair: nobody here has measured it.

    ``score`` is decimal text from 0 to 100 by ``metric``, on ``test_set``, measured on ``date`` (ISO 8601).
    """

    pair: str
    score: str
    test_set: str
    date: str
    metric: str = "chrF"


class VersionPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Said by one version.

    ``endpoints`` serve the same as its first endpoint. ``websocket``: the version's endpoint speaks
    WebSocket. ``serves``: this version only adapts the shape of another one, whose endpoint answers.
    ``model``: what the provider calls its model, empty when callers name it as it does. ``tensors`` says in which
    tensors an endpoint of the dialect ``inference`` is asked. ``audio_formats`` are those of the sound that a
    version which speaks gives when ``config.format`` names one; empty for WAV, whatever is asked.
    Times are microseconds since the epoch, 0 for never.
    """

    endpoints: tuple[str, ...] = ()
    websocket: bool = False
    serves: str = ""
    model: str = ""
    request: tuple[Transform, ...] = ()
    answer: tuple[Transform, ...] = ()
    tensors: TensorMap | None = None
    audio_formats: tuple[str, ...] = ()
    deprecated_at: int = 0
    sunset_at: int = 0
    successor: str = ""
    validation: ValidationPolicy | None = None
    """What the batches that it is sent are held against."""
    quality: tuple[Quality, ...] = ()
    """At most one a pair."""


class Cors(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which web pages may call with this application's keys. An origin is ``https://shop.example`` or ``*``."""

    origins: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int = 3600


class DataPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an application demands of whoever executes its calls.

    ``regions`` are listings' regions (``IN``, ``IN-KA``; a country covers its parts), empty for any.
    ``retains_inputs`` False refuses services that keep what they are sent.
    """

    regions: tuple[str, ...] = ()
    retains_inputs: bool = True


class ApplicationPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Said by an application."""

    cors: Cors | None = None
    data: DataPolicy | None = None
    fallback: bool = True
    """Whether another provider may answer, where the plan allows it."""


NO_SERVICE_POLICY = ServicePolicy()
NO_VERSION_POLICY = VersionPolicy()
NO_APPLICATION_POLICY = ApplicationPolicy()
