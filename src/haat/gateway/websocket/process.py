"""The WebSocket process: speaks the protocol on both sides of a session that the gateway has admitted.

Here are frames, pings, close codes and the sizes of messages; the gateway passes bytes. So what a broken
or hostile peer makes of WebSocket costs no other call anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import Server, ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.typing import Subprotocol

from haat.gateway.websocket.session import HEADER, Admission, Ended, read_admission
from haat.infra.net import parse_networks, resolve
from haat.infra.rendezvous import WEBSOCKET, Rendezvous
from haat.kernel.errors import AddressForbidden
from haat.settings import Settings
from haat.usage.event import Outcome

log = logging.getLogger(__name__)

IDLE_SECONDS = 300.0
PING_SECONDS = 20.0
CLOSE_SECONDS = 3.0
MOST_MESSAGE_BYTES = 64 * 1024 * 1024
UNCLAIMED_SECONDS = 30.0
GOING_AWAY, TOO_BIG, INTERNAL_ERROR, BAD_GATEWAY = 1001, 1009, 1011, 1014
_FAILURES = frozenset({INTERNAL_ERROR, 1012, 1013, BAD_GATEWAY})
_KEPT = 10_000


class _Dial(connect):
    """Never goes where a provider sends it: only the address that was looked at is dialled."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Session:
    """A client and its provider."""

    def __init__(self, admission: Admission, provider: ClientConnection) -> None:
        self.admission, self.provider = admission, provider
        self._moved = time.monotonic()
        self._told: tuple[int, str] | None = None
        self._ending = asyncio.Event()
        self._reason = ""
        self.known = asyncio.Event()
        """How it has ended is known."""

    async def run(self, client: ServerConnection) -> Ended:
        """Pass messages both ways until one side ends it, and tell how."""
        pumps = {
            asyncio.create_task(self._pump(client, self.provider)),
            asyncio.create_task(self._pump(self.provider, client)),
            asyncio.create_task(self._watch()),
        }
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        ended = self._verdict(client)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        return ended

    async def close(self, client: ServerConnection, ended: Ended) -> None:
        """End both sides in order."""
        await asyncio.gather(client.close(ended.code, self._reason), self.provider.close(ended.code, self._reason))

    def end(self, code: int, reason: str) -> None:
        """Have it ended by us, with a code for both sides."""
        if self._told is None:
            self._told = (code, reason)
            self._ending.set()

    def _verdict(self, client: ServerConnection) -> Ended:
        if self._told is not None:
            code, self._reason = self._told
            return Ended(Outcome.COMPLETED, code)
        said = self.provider.protocol.close_rcvd
        if said is not None:
            self._reason = said.reason
            return Ended(Outcome.PROVIDER_FAILED if said.code in _FAILURES else Outcome.COMPLETED, _sendable(said.code))
        if self.provider.state is not State.OPEN:
            self._reason = "the provider broke off"
            return Ended(Outcome.PROVIDER_FAILED, BAD_GATEWAY)
        said = client.protocol.close_rcvd
        if said is not None:
            self._reason = said.reason
            return Ended(Outcome.COMPLETED, _sendable(said.code))
        return Ended(Outcome.CLIENT_LEFT, GOING_AWAY)

    async def _pump(self, source: Connection, target: Connection) -> None:
        longest = self.admission.max_message_bytes
        with contextlib.suppress(ConnectionClosed):
            async for message in source:
                self._moved = time.monotonic()
                if len(message) > longest:
                    self.end(TOO_BIG, f"messages have at most {longest} bytes here")
                    return
                await target.send(message)

    async def _watch(self) -> None:
        """End what nobody uses any more, and what we were told to end."""
        while not self._ending.is_set():
            left = self._moved + IDLE_SECONDS - time.monotonic()
            if left <= 0:
                self.end(GOING_AWAY, f"nothing was said for {IDLE_SECONDS:g} seconds")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), left)


def _sendable(code: int) -> int:
    """Return a close code that may stand in a frame: 1005 and the like are only for programs."""
    return code if 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999 else 1000


class Sessions:
    """All sessions of this machine's gateway."""

    def __init__(self) -> None:
        self._dialled: dict[ServerConnection, Session] = {}
        self._running: dict[str, Session] = {}
        self._ended: OrderedDict[str, Ended] = OrderedDict()

    async def serve(self, path: str) -> Server:
        return await unix_serve(
            self._run,
            path,
            process_request=self._open,
            select_subprotocol=self._agree,
            compression=None,
            server_header=None,
            max_size=MOST_MESSAGE_BYTES,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS,
            close_timeout=CLOSE_SECONDS,
        )

    async def _open(self, client: ServerConnection, request: Request) -> Response | None:
        """Dial the provider before the client is told that its session is open."""
        parts = urlsplit(request.path)
        if parts.path.startswith("/sessions/"):
            return await self._about(client, parts.path.removeprefix("/sessions/"), parts.query)
        try:
            admission = read_admission(request.headers.get_all(HEADER))
        except (msgspec.MsgspecError, ValueError):
            return client.respond(HTTPStatus.BAD_REQUEST, "no admission")
        offered = [
            Subprotocol(name.strip())
            for line in request.headers.get_all("Sec-WebSocket-Protocol")
            for name in line.split(",")
        ]
        try:
            provider = await _dial(admission, offered)
        except TimeoutError:
            return client.respond(HTTPStatus.GATEWAY_TIMEOUT, "it did not answer in time")
        except AddressForbidden as error:
            return client.respond(HTTPStatus.SERVICE_UNAVAILABLE, error.detail)
        except InvalidStatus as error:
            return client.respond(HTTPStatus.BAD_GATEWAY, f"it refused the session with {error.response.status_code}")
        except (InvalidHandshake, EOFError):
            return client.respond(HTTPStatus.BAD_GATEWAY, "it does not speak WebSocket")
        except OSError as error:
            log.info("no session with %s: %s", urlsplit(admission.url).netloc, error)
            return client.respond(HTTPStatus.SERVICE_UNAVAILABLE, "it can't be reached")
        session = self._dialled[client] = Session(admission, provider)
        asyncio.get_running_loop().call_later(UNCLAIMED_SECONDS, self._forget, client, session)
        return None

    def _forget(self, client: ServerConnection, session: Session) -> None:
        """Let a provider go whose client left before it was told."""
        if self._dialled.pop(client, None) is not None:
            session.provider.transport.abort()

    def _agree(self, client: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return self._dialled[client].provider.subprotocol

    async def _run(self, client: ServerConnection) -> None:
        session = self._dialled.pop(client)
        name = session.admission.session
        self._running[name] = session
        try:
            ended = self._ended[name] = await session.run(client)
            session.known.set()
            await session.close(client, ended)
        finally:
            session.known.set()
            del self._running[name]
            if len(self._ended) > _KEPT:
                self._ended.popitem(last=False)

    async def _about(self, client: ServerConnection, rest: str, query: str) -> Response:
        name, _, verb = rest.partition("/")
        if verb == "end":
            if name in self._running:
                asked = parse_qs(query)
                self._running[name].end(int(asked["code"][0]), asked["reason"][0])
            return client.respond(HTTPStatus.OK, "")
        if name in self._running:  # its connection is closed a moment before we know why
            await self._running[name].known.wait()
        ended = self._ended.pop(name, None)
        if ended is None:
            return client.respond(HTTPStatus.NOT_FOUND, "")
        return client.respond(HTTPStatus.OK, msgspec.json.encode(ended).decode("ascii"))


async def _dial(admission: Admission, offered: Sequence[Subprotocol]) -> ClientConnection:
    """Open the provider's side; raise TimeoutError, AddressForbidden, OSError or websockets' InvalidHandshake."""
    parts = urlsplit(admission.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
    async with asyncio.timeout(admission.connect_seconds):
        address = await resolve(host, port, parse_networks(admission.networks))
        secured: dict[str, Any] = {"server_hostname": host} if parts.scheme == "wss" else {}
        return await _Dial(
            admission.url,
            host=str(address),  # the very address that was looked at
            port=port,
            additional_headers=admission.headers,
            subprotocols=offered or None,
            user_agent_header=None,
            compression=None,
            proxy=None,
            max_size=admission.max_message_bytes,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS,
            close_timeout=CLOSE_SECONDS,
            open_timeout=None,
            **secured,
        )


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve sessions until ``stop`` is set, then end those that are open with 1001."""
    meeting = Rendezvous(settings.data_dir, WEBSOCKET)
    meeting.socket.unlink(missing_ok=True)
    before = os.umask(0o077)
    try:
        server = await Sessions().serve(meeting.path)
    finally:
        os.umask(before)
    log.info("WebSocket sessions are served at %s", meeting.socket)
    try:
        await stop.wait()
    finally:
        server.close()
        await server.wait_closed()
        meeting.socket.unlink(missing_ok=True)
        meeting.close()
