"""Asking a model over gRPC from outside the gateway: by way of the bridge, over HTTP on its socket."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import httpx

from haat.infra.inference.upstream import UPSTREAM, Upstream, header_of
from haat.infra.net import IPNetwork
from haat.infra.rendezvous import BRIDGE, Rendezvous

HOST = "bridge"
"""The host in addresses of the bridge; whom it asks is said in a header."""


class _Transport(httpx.AsyncHTTPTransport):
    """Connections to the socket, however long its name is."""

    def __init__(self, meeting: Rendezvous) -> None:
        super().__init__(uds=meeting.path)
        self._meeting = meeting

    async def aclose(self) -> None:
        await super().aclose()
        self._meeting.close()


def runs(data_dir: Path | None) -> bool:
    """Tell whether there is a bridge, or who starts one, on a data directory."""
    return data_dir is not None and (data_dir / "gateway" / BRIDGE).exists()


def client(data_dir: Path) -> httpx.AsyncClient:
    """Return a client of the bridge that works on a data directory."""
    transport = _Transport(Rendezvous(data_dir, BRIDGE))
    return httpx.AsyncClient(transport=transport, follow_redirects=False, trust_env=False)


def headers_for(
    endpoint: str, allowed: Iterable[IPNetwork] = (), credential: tuple[str, str] | None = None
) -> dict[str, str]:
    """Return what tells the bridge whom to ask."""
    networks = tuple(sorted({str(network) for network in allowed}))
    return {UPSTREAM: header_of(Upstream(endpoint, networks, (credential,) if credential else ()))}


def deadline_in(seconds: float) -> str:
    """Return until when an answer is waited for that is wanted within so many seconds."""
    return str(int((time.monotonic() + seconds) * 1_000_000))
