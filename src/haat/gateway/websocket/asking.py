"""What the gateway asks the WebSocket process: to open a session, how one has ended, to end one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from haat.gateway.call import ID_AT, ID_END, Call
from haat.gateway.http.headers import without
from haat.gateway.websocket.session import Admission, header_lines

if TYPE_CHECKING:
    from haat.gateway.market.routes import Route
    from haat.gateway.upstreams.endpoints import Endpoint

CONNECT_SECONDS = 10.0
ASK_SECONDS = 2.0
MAX_HEAD = 32 * 1024
_HANDSHAKE = (
    b"sec-websocket-key",
    b"sec-websocket-version",
    b"sec-websocket-protocol",
    b"sec-websocket-extensions",
    b"sec-websocket-accept",
)


def opening(call: Call, route: Route, endpoint: Endpoint) -> bytes:
    """Return the opening handshake for a call's session with an endpoint."""
    handshake = [line for line in call.lines if line.partition(b":")[0].lower() in _HANDSHAKE[:3]]
    own = [line for line in endpoint.lines.split(b"\r\n") if line and not line.lower().startswith(b"host:")]
    others = without(call.lines, (*_HANDSHAKE, endpoint.credential_name))
    headers = [_pair(line) for line in (*own, *others, call.id_line)]
    scheme, _, rest = endpoint.url.partition("://")
    authority = rest.partition("/")[0]
    path = (endpoint.prefix + call.tail or b"/").decode("latin-1")
    admission = Admission(
        call.id,
        f"{'wss' if scheme == 'https' else 'ws'}://{authority}{path}",
        headers,
        [str(network) for network in endpoint.pool.networks],
        min(route.version.max_body_bytes, call.client.gateway.settings.max_body_bytes),
        CONNECT_SECONDS,
    )
    return b"".join(
        (
            b"GET / HTTP/1.1\r\nHost: websocket\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
            *handshake,
            header_lines(admission),
            b"\r\n",
        )
    )


async def ask_of(call: Call, what: str = "") -> bytes:
    """Ask about a call's session; return the body of the answer, empty for none."""
    name = call.id_line[ID_AT:ID_END].decode("ascii")
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(ASK_SECONDS):
            reader, writer = await asyncio.open_unix_connection(call.client.gateway.rendezvous.path)
            writer.write(f"GET /sessions/{name}{what} HTTP/1.1\r\nHost: websocket\r\n\r\n".encode("ascii"))
            head, _, body = (await reader.read(MAX_HEAD)).partition(b"\r\n\r\n")
            while more := await reader.read(MAX_HEAD):
                body += more
            return body if head[9:12] == b"200" else b""
    except (OSError, TimeoutError):
        return b""
    finally:
        if writer is not None:
            writer.close()


def _pair(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode("latin-1").partition(":")
    return name, value.strip()
