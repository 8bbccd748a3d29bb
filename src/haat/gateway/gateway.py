"""The gateway as one object: what all connections share, and the ticks that keep time for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import cast

from haat.gateway import relay, status
from haat.gateway.cache.memory import Cache
from haat.gateway.call import Call
from haat.gateway.clock import CallIds, GatewayClock
from haat.gateway.doors.handing import Office
from haat.gateway.doors.names import Names
from haat.gateway.doors.passage import Passage
from haat.gateway.doors.table import Doors
from haat.gateway.doors.ulca.settled import SettledTasks
from haat.gateway.http import answers
from haat.gateway.http.connection import ClientConnection
from haat.gateway.http.cors import Origins
from haat.gateway.http.outbox import Outbox
from haat.gateway.http.surplus import Surplus
from haat.gateway.http.tls import HANDSHAKE_SECONDS, Certificate
from haat.gateway.http.trace import Tracer
from haat.gateway.idempotency.attempts import Attempts
from haat.gateway.limits.registry import Limits
from haat.gateway.market.grants import Grants
from haat.gateway.market.routes import Route, RouteTable
from haat.gateway.market.snapshot import Directory
from haat.gateway.metering import Meter
from haat.gateway.plugins.hooks import Hooks
from haat.gateway.rollout.copies import Shadows
from haat.gateway.rollout.division import Watches
from haat.gateway.steps import prepare
from haat.gateway.upstreams import dispatch
from haat.gateway.upstreams.endpoints import Endpoints
from haat.gateway.upstreams.pool import Pools
from haat.gateway.wallets.purses import Purses
from haat.gateway.websocket import tunnel
from haat.gateway.websocket.tunnel import Tunnel
from haat.gateway.workers.neighbours import Neighbours
from haat.gateway.workers.place import ALONE, BACKLOG, Place, open_listeners
from haat.infra.keyring import Keyring
from haat.infra.rendezvous import BRIDGE, SPEECH, WEBSOCKET, Rendezvous
from haat.plugins.running import Hook
from haat.settings import Settings
from haat.usage.event import Outcome
from haat.usage.journal import JournalError, JournalWriter

log = logging.getLogger(__name__)

TICK_SECONDS = 0.02
_PUBLISH_TICKS = int(status.PUBLISH_SECONDS / TICK_SECONDS)
_KNOWN_KEYS = 65_536


class Gateway:
    """Made by `haat.gateway.process`, or by a test with a directory of its own."""

    def __init__(
        self, settings: Settings, keyring: Keyring, journal: JournalWriter, directory: Directory, place: Place = ALONE
    ) -> None:
        self.settings, self.keyring, self.directory, self.place = settings, keyring, directory, place
        self.neighbours: Neighbours | None = None
        self.certificate: Certificate | None = None
        """With one, connections are encrypted."""
        self.stream_max_us = int(settings.stream_max_seconds * 1_000_000)
        self.clock = GatewayClock()
        self.ids = CallIds()
        self.outbox = Outbox()
        self.limits = Limits()
        self.purses = Purses(self)
        """What wallets and budgets have given for calls that they must cover."""
        self.meter = Meter(journal, self.clock, self.ids)
        self.outbox.before = self.meter.write_turn
        self.bridge_rendezvous = Rendezvous(settings.data_dir, BRIDGE)
        self.pools = Pools(
            settings.upstream_connections,
            settings.upstream_wait_seconds,
            self.clock,
            self.outbox,
            self.bridge_rendezvous.path,
        )
        self.endpoints = Endpoints(directory, self.pools, self.clock)
        self.cache = Cache(settings.cache_bytes)
        self.security_lines = answers.security_lines(settings.gateway_address)
        self.tracer = Tracer(settings.trace_sample_ratio)
        self.origins = Origins(directory)
        self.hooks = Hooks(self)
        self.authenticators: tuple[Hook, ...] = ()
        """Plugins that may know a caller by something else than its key."""
        self.routes = RouteTable(
            directory,
            keyring,
            self.endpoints,
            tuple(settings.allowed_networks),
            self.prepare,
            settings.models_address,
            Watches(self.clock, self.endpoints.notices),
        )
        self.shadows = Shadows(self)
        self.attempts = Attempts(
            settings.data_dir / "gateway" / "idempotency.db",
            journal.worker,
            keyring.derive("idempotency-answers"),
            durable=settings.journal_sync_ms == 0,
            keep_seconds=settings.idempotency_keep_hours * 3600,
        )
        self.clients: set[ClientConnection] = set()
        self.surplus: set[Surplus] = set()
        """Connections beyond the cap, which are being told so."""
        self.turned_away = 0
        """How many there have been of them."""
        self.calls: set[Call] = set()
        """Admitted and not yet ended."""
        self.tunnels: set[Tunnel] = set()
        """Open WebSocket sessions."""
        self.tunnel_work: set[asyncio.Task[None]] = set()
        self.rendezvous = Rendezvous(settings.data_dir, WEBSOCKET)
        self.passages: set[Passage] = set()
        """Connections of those who speak while they are answered."""
        self.speech_rendezvous = Rendezvous(settings.data_dir, SPEECH)
        self.office = Office(self)
        """The way to callers' jobs."""
        self.grants = Grants()
        self.doors = Doors()
        self.names = Names()
        """What clients call the services, at the front doors."""
        self.settled_tasks = SettledTasks()
        self.key_hashes: dict[bytes, bytes] = {}
        """Keys that were used lately and their hashes, so that a key is hashed once and not each time."""
        self.feed_connected = False
        self.draining = False
        self._emptied = asyncio.Event()
        self._journal = journal
        self._server: asyncio.Server | None = None
        self._ticking: asyncio.Task[None] | None = None

    def prepare(self, route: Route) -> None:
        """Give a new route its steps."""
        prepare(self, route)

    def remember_key(self, key: bytes, key_hash: bytes) -> None:
        if len(self.key_hashes) >= _KNOWN_KEYS:
            self.key_hashes.clear()
        self.key_hashes[key] = key_hash

    def set_feed_connected(self, connected: bool) -> None:
        self.feed_connected = connected

    def forget(self, client: ClientConnection) -> None:
        """A client connection is gone."""
        self.clients.discard(client)
        if self.draining and not self.clients:
            self._emptied.set()

    async def listen(self, host: str, port: int) -> int:
        """Take connections; return the port, which matters when 0 was asked for."""
        [listener] = open_listeners(host, port, 1)
        return await self.listen_on(listener)

    async def listen_on(self, listener: socket.socket) -> int:
        """Take connections from a listening socket; return its port."""
        port: int = listener.getsockname()[1]
        self._server = await self.accept(listener)
        self.attempts.recover()
        self._ticking = asyncio.create_task(self._tick())
        return port

    async def accept(self, listener: socket.socket) -> asyncio.Server:
        """Take connections from one more listening socket, until what is returned is closed."""
        # The backlog is given here because uvloop sets it to 100 otherwise.
        return await asyncio.get_running_loop().create_server(
            lambda: cast(asyncio.Protocol, self._welcome()),
            sock=listener,
            backlog=BACKLOG,
            ssl=self.certificate.context if self.certificate is not None else None,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if self.certificate is not None else None,
        )

    def _welcome(self) -> ClientConnection | Surplus:
        most = self.settings.max_client_connections
        return ClientConnection(self) if len(self.clients) < most else Surplus(self)

    async def stop(self, patience_seconds: float) -> None:
        """Take no more, finish what is in flight within the time given, confirm and seal the journal."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for session in self.tunnels:
            session.end(tunnel.GOING_AWAY, "the gateway is being stopped")
        for passage in list(self.passages):
            passage.end()
        for client in list(self.clients):
            client.close_when_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_seconds):
                if self.clients:
                    await self._emptied.wait()
                while self.calls:  # noqa: ASYNC110  # whose clients have left, and will ask again for their answers
                    await asyncio.sleep(TICK_SECONDS)
        for call in list(self.calls):
            self._interrupt(call)
        for client in list(self.clients):
            client.abort()
        for late in list(self.surplus):
            late.abort()
        await asyncio.sleep(0)  # connection_lost of those just aborted
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        for work in list(self.tunnel_work):
            work.cancel()
        await asyncio.gather(*self.tunnel_work, return_exceptions=True)
        self.rendezvous.close()
        self.speech_rendezvous.close()
        self.bridge_rendezvous.close()
        self.office.rendezvous.close()
        await self.endpoints.close()
        await self.shadows.close()
        await self.pools.close()
        self.meter.flush()
        self._journal.close()
        self.attempts.close()

    def _interrupt(self, call: Call) -> None:
        try:
            self.meter.record(call, Outcome.INTERRUPTED, call.status)
            self.meter.confirm(call)
        except JournalError as error:
            log.error("call %s was cut off and not recorded: %s", call.id, error)

    async def _tick(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            ticks += 1
            self.clock.tick()
            try:
                self.meter.flush()
                if self.purses.waiting:
                    self.purses.look()
                if ticks % 3 == 0:
                    self._expire_calls()
                    self.cache.sweep(self.directory)
                if ticks % 10 == 0 and self.tunnels:
                    tunnel.review(self)
                if ticks % 50 == 0:
                    self._expire_clients()
                if ticks % _PUBLISH_TICKS == 0:
                    status.publish(self)
            except Exception:  # the clock of everybody must not stop over one connection
                log.exception("a tick failed")

    def _expire_calls(self) -> None:
        now = self.clock.now_us()
        for call in [call for call in self.calls if 0 < call.deadline <= now]:
            if call.head_flushed and call.client.write_paused:
                relay.client_left(call)  # the client took the answer too slowly, not the provider gave it
                call.client.abort()
            else:
                dispatch.timed_out(call)
        self.pools.expire(now)
        self.shadows.expire(now)

    def _expire_clients(self) -> None:
        now = self.clock.now_us()
        self.meter.probe()
        self.endpoints.look(now)
        for client in list(self.clients):
            client.expire(now)
