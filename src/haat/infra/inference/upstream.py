"""Where a model is that is asked over gRPC, and what those who ask it tell the process that speaks gRPC for them.

The gateway and the catalog send `haat.bridge` ordinary infer requests on a socket of this machine. In headers
of its own a request says which server it is for, and until when an answer is waited for.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote

import msgspec

SCHEMES = frozenset({"grpc", "grpcs"})
"""Of addresses that are asked over gRPC; the second one with TLS."""
UPSTREAM, DEADLINE = "X-Haat-Upstream", "X-Haat-Deadline"
"""The server, once; and microseconds of this machine's steady clock (`time.monotonic`)."""

_MODEL = re.compile(r"(?P<server>grpcs?://[^/?#]+)(?:/(?P<model>[^/?#]+)(?:/versions/(?P<version>[^/?#]+))?)?/?")


class Upstream(msgspec.Struct, frozen=True, array_like=True):
    """A server: its address, the networks it may lie in although they are not public, and what it asks callers for."""

    url: str
    networks: tuple[str, ...]
    metadata: tuple[tuple[str, str], ...] = ()
    """Names and values of the headers that are sent with each call: the provider's credential."""


def is_asked_over_grpc(endpoint: str) -> bool:
    """Tell whether an endpoint's address is of a server that is asked over gRPC."""
    return endpoint.partition("://")[0] in SCHEMES


def header_of(upstream: Upstream) -> str:
    """Return the value of the header `UPSTREAM`."""
    return base64.b64encode(msgspec.msgpack.encode(upstream)).decode("ascii")


def read_header(value: str) -> Upstream:
    """Read the value of the header `UPSTREAM`; raise msgspec.MsgspecError or ValueError."""
    return msgspec.msgpack.decode(base64.b64decode(value, validate=True), type=Upstream)


def read_address(address: str) -> tuple[str, str, str]:
    """Return server, model and version in ``grpc://host:8001/model/versions/3``; what isn't named is empty.

    Raise ValueError for anything else.
    """
    match = _MODEL.fullmatch(address)
    if match is None:
        raise ValueError("write it as grpc://host:port, or grpc://host:port/model/versions/version")
    return match["server"], unquote(match["model"] or ""), unquote(match["version"] or "")
