"""What a case of the corpus says: raw bytes in, and everything that may be seen of them outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

PATH = "/v1/services/acme/echo/invoke"
TARGET = "/base/invoke"
KEY = "haat_live_OfTheCorpusOfTheCorpus3dgwew"
"""A key that the corpus' gateway knows."""
AUTH = f"Authorization: Bearer {KEY}"


class Sent(NamedTuple):
    """A request as the provider must have received it. Fields are in small letters."""

    body: bytes = b""
    method: str = "POST"
    target: str = TARGET
    has: Mapping[str, str] = {}
    lacks: tuple[str, ...] = ()


class Case(NamedTuple):
    """One connection: what arrives on it, and what must come of it."""

    name: str
    raw: bytes
    answers: tuple[int, ...]
    """The status of every final answer, in order."""
    kept: bool
    """Whether the connection is still open for another request."""
    upstream: tuple[Sent, ...] = ()
    methods: tuple[str, ...] = ()
    """The methods of the requests where one of them is HEAD, whose answers have no body."""
    interim: int | None = 0
    """How many ``100 Continue`` come in between; None where it depends on what has arrived by then."""
    patience: float = 0
    """Seconds that pass after the last byte."""
    unfinished: bool = False
    """What follows would be taken for the rest of the last request."""
    bounded: bool = False
    """More is pipelined than is queued: how many are answered depends on the pieces in which they arrive."""


def head(*lines: str) -> bytes:
    """Return a request head from its lines."""
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def call(
    *fields: str, body: bytes = b"", method: str = "POST", path: str = PATH, version: str = "1.1", key: str = AUTH
) -> bytes:
    """Return a well-formed call with further header fields."""
    return head(f"{method} {path} HTTP/{version}", "Host: gateway", *([key] if key else []), *fields) + body


def get(*fields: str, path: str = PATH, version: str = "1.1") -> bytes:
    return call(*fields, method="GET", path=path, version=version)


def chunked(body: bytes, *fields: str) -> bytes:
    """Return a call whose chunked body is given with its framing."""
    return call("Transfer-Encoding: chunked", *fields, body=body)


def passes(
    name: str,
    raw: bytes,
    body: bytes = b"",
    *,
    method: str = "POST",
    target: str = TARGET,
    has: Mapping[str, str] | None = None,
    lacks: tuple[str, ...] = (),
    kept: bool = True,
    interim: int | None = 0,
) -> Case:
    """Describe a call that reaches the provider and is answered."""
    methods = (method,) if method == "HEAD" else ()
    return Case(name, raw, (200,), kept, (Sent(body, method, target, has or {}, lacks),), methods, interim)


def refuses(name: str, raw: bytes, status: int = 400, *, kept: bool = False, patience: float = 0) -> Case:
    """Describe a call of which the provider sees nothing."""
    return Case(name, raw, (status,), kept, patience=patience)
