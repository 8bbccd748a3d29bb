"""Where an endpoint is: what one pool of connections leads to."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from haat.infra.inference.upstream import SCHEMES


class Origin(NamedTuple):
    """Scheme, host and port of an endpoint."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, endpoint: str) -> Origin:
        parts = urlsplit(endpoint)
        return cls(parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))

    @property
    def over_grpc(self) -> bool:
        """Whether it is asked over gRPC: then the way there leads to `haat.bridge`."""
        return self.scheme in SCHEMES
