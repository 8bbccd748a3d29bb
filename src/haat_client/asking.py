"""Requests before they are sent: what is asked for, where, and how its answer is read. No I/O."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

from haat_client.operations import Operation
from haat_client.results import Meta
from haat_client.retries import Retries

VERSION = "0.1.0"
Simulate = Literal["quota", "slow", "midstream", "overload", "timeout"]
Input = Sequence[Mapping[str, Any] | str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asking(Generic[T]):
    """One request. ``read`` makes its result of what came; ``retries`` None means the client's own."""

    operation: Operation
    read: Callable[[Meta, bytes], T]
    path: str
    method: str = ""
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    retries: Retries | None = None
    own_key: bool = False
    """Its Idempotency-Key is of this client's making."""

    @property
    def verb(self) -> str:
        return self.method or self.operation.method

    @property
    def has_key(self) -> bool:
        return any(name.lower() == "idempotency-key" for name in self.headers)

    def with_key(self) -> Asking[T]:
        """Return the same under a fresh Idempotency-Key."""
        return replace(self, headers={**self.headers, "Idempotency-Key": uuid.uuid4().hex}, own_key=True)


# --- paths, headers, bodies -----------------------------------------------------------------------


def part(name: str) -> str:
    """Return one part of a path."""
    if not name or name in (".", ".."):
        raise ValueError(f"{name!r} can't be a part of an address")
    return quote(name, safe="@~:")


def service_path(service: str) -> str:
    """Return ``provider/service`` or ``provider/service@version`` as addresses have it; raise ValueError."""
    provider, slash, name = service.partition("/")
    if not slash or not provider or not name or "/" in name:
        raise ValueError(f"{service!r} is no service: one is named provider/service, or provider/service@version")
    return f"/v1/services/{part(provider)}/{part(name)}"


def call_headers(
    user: str | None,
    tags: Mapping[str, str] | None,
    idempotency_key: str | None,
    simulate: Simulate | None,
    headers: Mapping[str, str] | None,
) -> dict[str, str]:
    """Return the headers of a call to a service."""
    made = dict(headers or {})
    if user:
        made["X-Haat-User"] = user
    if tags:
        made["X-Haat-Tags"] = ", ".join(f"{name}={value}" for name, value in tags.items())
    if idempotency_key:
        made["Idempotency-Key"] = idempotency_key
    if simulate:
        made["X-Haat-Simulate"] = simulate
    return made


def members(**given: Any) -> dict[str, Any]:
    """Return the members that were given a value."""
    return {name: value for name, value in given.items() if value is not None}


def inputs(given: Input | str) -> list[dict[str, Any]]:
    """Return the items of a task call: a text alone stands for ``{"text": …}``."""
    listed = [given] if isinstance(given, str) else given
    return [{"text": one} if isinstance(one, str) else dict(one) for one in listed]
