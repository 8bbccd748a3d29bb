"""Connections to one origin: so many and no more, and a bounded queue of calls that wait for one.

The bound is also the concurrency limit of a provider: no endpoint ever has more of our calls at once
than its pool has connections, and none of them waits longer than it may.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

from haat.gateway.call import Call
from haat.gateway.clock import SECOND, GatewayClock
from haat.gateway.http.outbox import Outbox
from haat.gateway.upstreams import dispatch
from haat.gateway.upstreams.connection import UpstreamConnection
from haat.gateway.upstreams.origin import Origin
from haat.infra.net import IPNetwork, resolve
from haat.kernel.errors import AddressForbidden, HaatError, Overloaded, ProviderTimeout, ProviderUnavailable

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
REUSE_IDLE_SECONDS = 4.0
"""Servers commonly close after 5 idle seconds: a connection is not reused when that may be happening."""
_WAITERS_PER_CONNECTION = 8


class Pool:
    """At most ``size`` connections to one origin; a call waits at most ``wait_us`` for one."""

    def __init__(
        self,
        origin: Origin,
        networks: tuple[IPNetwork, ...],
        size: int,
        wait_us: int,
        clock: GatewayClock,
        outbox: Outbox,
        bridge: str = "",
    ) -> None:
        self.origin, self.networks, self.size = origin, networks, size
        self.bridge = bridge if origin.over_grpc else ""
        """The socket on which it is asked instead; empty for an origin that speaks HTTP itself."""
        self.outbox = outbox
        self.reuse_seconds = REUSE_IDLE_SECONDS
        self.tls = ssl.create_default_context() if origin.scheme == "https" else None
        self._wait_us, self._clock = wait_us, clock
        self._open: set[UpstreamConnection] = set()
        self._idle: list[UpstreamConnection] = []
        self._waiting: deque[Call] = deque()
        self._connecting: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """Connections with a call on them."""
        return len(self._open) - len(self._idle)

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Calls that wait for a connection, those counted whose callers have gone meanwhile."""
        return len(self._waiting)

    @property
    def stalled(self) -> bool:
        """Calls wait although there may be more connections: it is the connecting that doesn't come to an end."""
        return bool(self._waiting) and self.busy < self.size

    @property
    def load(self) -> int:
        """Calls in flight and waiting."""
        return len(self._open) - len(self._idle) + len(self._waiting)

    def acquire(self, call: Call, fresh: bool = False) -> None:
        """Send a call over a free connection, or queue it; a full queue refuses it as overloaded."""
        while self._idle and not fresh:
            connection = self._idle.pop()
            if call.started < connection.reuse_until and not connection.lost:
                connection.send(call)
                return
            connection.close()
        if len(self._waiting) >= self.size * _WAITERS_PER_CONNECTION:
            dispatch.failed(call, Overloaded("Too many calls wait for this provider: try again shortly."), sent=False)
            return
        call.wait_deadline = self._clock.tick() + self._wait_us
        self._waiting.append(call)
        self._connect_for_waiting()

    def release(self, connection: UpstreamConnection) -> None:
        """Take a connection back: the longest waiting call gets it."""
        while self._waiting:
            call = self._waiting.popleft()
            if not call.answered:
                call.queue = self._clock.now_us() - call.started - call.admission
                connection.send(call)
                return
        now = self._clock.lately
        connection.reuse_until = now + int(self.reuse_seconds * SECOND)
        self._idle.append(connection)

    def dropped(self, connection: UpstreamConnection) -> None:
        """Forget a connection that is gone; what waits may have a new one instead."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._connect_for_waiting()

    def expire(self, now: int) -> None:
        """Refuse what has waited too long, and close connections that won't be reused."""
        while self._waiting and (self._waiting[0].wait_deadline <= now or self._waiting[0].answered):
            call = self._waiting.popleft()
            if not call.answered:
                busy = self.busy >= self.size
                error = Overloaded("All connections to this provider are busy.") if busy else ProviderTimeout()
                dispatch.failed(call, error, sent=False)
        if self._idle and self._idle[0].reuse_until <= now:
            for connection in [idle for idle in self._idle if idle.reuse_until <= now]:
                connection.close()
            self._idle = [idle for idle in self._idle if idle.reuse_until > now]

    def close(self) -> None:
        """Give up every connection, those being made too."""
        for task in list(self._connecting):
            task.cancel()
        for connection in list(self._open):
            connection.abort()

    async def closed(self) -> None:
        """Wait until nothing of it is left to run."""
        await asyncio.gather(*self._connecting, return_exceptions=True)

    def _connect_for_waiting(self) -> None:
        """Make one more connection when calls wait for more than are being made, within the bound."""
        connecting = len(self._connecting)
        if connecting < len(self._waiting) and len(self._open) + connecting < self.size:
            task = asyncio.get_running_loop().create_task(self._make_connection())
            self._connecting.add(task)
            task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        if not task.cancelled():
            self._connect_for_waiting()

    async def _make_connection(self) -> None:
        began = self._clock.now_us()
        loop, origin = asyncio.get_running_loop(), self.origin
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = UpstreamConnection(self)
                if self.bridge:
                    await loop.create_unix_connection(lambda: cast(asyncio.Protocol, connection), self.bridge)
                else:
                    address = await resolve(origin.host, origin.port, self.networks)
                    await loop.create_connection(
                        lambda: cast(asyncio.Protocol, connection),
                        str(address),  # the very address that was looked at
                        origin.port,
                        ssl=self.tls,
                        server_hostname=origin.host if self.tls else None,
                    )
        except TimeoutError:
            self._fail_one(ProviderTimeout("No connection to the provider within 5 seconds."))
        except AddressForbidden as error:
            log.warning("%s is not dialled: %s", origin.host, error.detail)
            self._fail_one(ProviderUnavailable("The provider's address may not be called; the call is not billed."))
        except OSError as error:
            if self.bridge:
                log.error("the bridge to models that are asked over gRPC does not answer: %s", error)
                self._fail_one(Overloaded("Models over gRPC can't be asked at the moment: try again shortly."))
                return
            log.info("no connection to %s:%s: %s", origin.host, origin.port, error)
            self._fail_one(ProviderUnavailable())
        else:
            if connection.usable:
                self._open.add(connection)
                if self._waiting:
                    self._waiting[0].connect = self._clock.now_us() - began
                self.release(connection)

    def _fail_one(self, error: HaatError) -> None:
        """One attempt to connect has failed: so has the call that has waited longest."""
        while self._waiting:
            call = self._waiting.popleft()
            if not call.answered:
                dispatch.failed(call, error, sent=False)
                return


class Pools:
    """All pools, by origin and the networks it may lie in: services on one host share its bound."""

    def __init__(self, size: int, wait_seconds: float, clock: GatewayClock, outbox: Outbox, bridge: str = "") -> None:
        self._outbox, self._bridge = outbox, bridge
        self._size, self._wait_us, self._clock = size, int(wait_seconds * SECOND), clock
        self._pools: dict[tuple[Origin, tuple[IPNetwork, ...]], Pool] = {}

    def of(self, origin: Origin, networks: tuple[IPNetwork, ...]) -> Pool:
        key = (origin, networks)
        if key not in self._pools:
            self._pools[key] = Pool(
                origin, networks, self._size, self._wait_us, self._clock, self._outbox, self._bridge
            )
        return self._pools[key]

    def keep(self, used: set[Pool]) -> None:
        """Close the pools that nobody can ask any more, once they carry no call."""
        for key, pool in list(self._pools.items()):
            if pool not in used and not pool.load:
                pool.close()
                del self._pools[key]

    def expire(self, now: int) -> None:
        for pool in list(self._pools.values()):
            pool.expire(now)

    def each(self, look: Callable[[Pool], int]) -> int:
        """Return the sum of a figure over all pools."""
        return sum(look(pool) for pool in self._pools.values())

    async def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        for pool in self._pools.values():
            await pool.closed()
