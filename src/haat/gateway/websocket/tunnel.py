"""WebSocket sessions as the gateway sees them: admitted like any call, then bytes both ways until one side ends it.

The protocol itself is spoken by a process of its own (`haat.gateway.websocket.process`), to which each session is
handed over a socket of this machine. A session keeps its place among the calls at the same time, an open
record and checkpoints in the journal, and ends within a second when what admitted it is gone.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

import msgspec

from haat.gateway import relay
from haat.gateway.call import Call
from haat.gateway.http import answers
from haat.gateway.limits.plan import MICRO
from haat.gateway.metering import CHECKPOINT_BYTES
from haat.gateway.upstreams.endpoints import Endpoint, choose
from haat.gateway.websocket.asking import CONNECT_SECONDS, MAX_HEAD, ask_of, opening
from haat.gateway.websocket.session import Ended
from haat.kernel.errors import (
    HaatError,
    InvalidRequest,
    ProviderFailed,
    ProviderTimeout,
    ProviderUnavailable,
    UpgradeRequired,
)
from haat.usage.event import Outcome
from haat.usage.journal import JournalError

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.connection import ClientConnection
    from haat.gateway.market.routes import Route

log = logging.getLogger(__name__)

CHECKPOINT_US = 10_000_000
GOING_AWAY, POLICY_VIOLATION = 1001, 1008


def is_wanted(call: Call, wish: bytes) -> bool:
    """Tell whether a request to change protocols asks for WebSocket in the form that RFC 6455 gives it."""
    return wish == b"websocket" and call.method == b"GET" and call.minor_version == 1 and call.content_length <= 0


def begin(gateway: Gateway, call: Call) -> None:
    """Open the session of an admitted call; raise HaatError when it can't have one."""
    route = call.route
    assert route is not None
    if not route.executing.policy.websocket:
        raise InvalidRequest("This service does not speak WebSocket: call it without Upgrade.")
    asked = {line.partition(b":")[0].lower(): line.partition(b":")[2].strip() for line in call.lines}
    if asked.get(b"sec-websocket-version") != b"13" or not asked.get(b"sec-websocket-key"):
        raise UpgradeRequired
    now = gateway.clock.now_us()
    endpoint = choose(route.in_turn(), now)
    if endpoint is None or not endpoint.breaker.admit(now, call):
        raise ProviderUnavailable("The provider has failed repeatedly and is left alone for a while.")
    call.endpoint = endpoint
    try:
        if not call.opened:
            gateway.meter.open(call)
    except JournalError as error:
        raise gateway.meter.trouble() from error
    Tunnel(gateway, call, route, endpoint).open()


def review(gateway: Gateway) -> None:
    """End the sessions whose key, subscription or service is gone; write down how far the others have come."""
    now = gateway.clock.now_us()
    for tunnel in list(gateway.tunnels):
        reason = tunnel.objection(now)
        if reason:
            tunnel.end(POLICY_VIOLATION, reason)
        else:
            tunnel.checkpoint(now)


class Tunnel:
    """One session."""

    def __init__(self, gateway: Gateway, call: Call, route: Route, endpoint: Endpoint) -> None:
        self.gateway, self.call, self.route, self.endpoint = gateway, call, route, endpoint
        self.near: asyncio.Transport | None = None
        self.far: asyncio.Transport | None = None
        self._head = b""
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._unwritten = 0
        """Bytes since the last checkpoint."""
        self._written_at = call.started
        self._generation = gateway.directory.generation
        allowance = call.allowance
        capped = allowance is not None and allowance.is_hard and allowance.unit == "bytes"
        self._most = call.reserved // MICRO if capped else 0
        """Bytes that are reserved of a quota with a hard cap, 0 when that isn't in bytes: the session ends there."""
        self._over = False
        self._asked_to_end = False

    # --- opening --------------------------------------------------------------------------------

    def open(self) -> None:
        self._spawn(self._open())

    async def _open(self) -> None:
        gateway, call = self.gateway, self.call
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS + 1):
                await loop.create_unix_connection(lambda: _Far(self), gateway.rendezvous.path)
                assert self.far is not None
                self.far.write(opening(call, self.route, self.endpoint))
                head = await self._answer
        except TimeoutError:
            self._refuse(ProviderTimeout())
        except OSError as error:
            log.error("the WebSocket process does not answer: %s", error)
            self._refuse(ProviderUnavailable("WebSocket is not served at the moment: try again shortly."), ours=True)
        else:
            status = int(head[9:12]) if head[9:12].isdigit() else 0
            if call.answered:
                self._drop()  # the client has left meanwhile
            elif status == 101:
                self._join(head)
            else:
                self._refuse(_error_for(status))

    def _join(self, head: bytes) -> None:
        """Tell the client, and leave its connection to the session."""
        gateway, call = self.gateway, self.call
        now = gateway.clock.now_us()
        self.endpoint.succeeded(now, call)
        if call.on_answer:
            relay.missed(call)
        call.status, call.headed, call.head_flushed, call.streaming, call.deadline = 101, True, True, True, 0
        call.first_byte = now - call.started
        lines = [
            line + b"\r\n"
            for line in head.split(b"\r\n")[1:]
            if line.partition(b":")[0].lower() in (b"sec-websocket-accept", b"sec-websocket-protocol")
        ]
        extras = call.extras
        assert extras is not None
        self.near = _connection(call).hand_over(cast(Any, _Near(self)))
        self.near.write(
            b"".join(
                (
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
                    *lines,
                    call.id_line,
                    answers.limit_headers(call, now),
                    b"\r\n",
                )
            )
        )
        gateway.tunnels.add(self)
        rest, self._head = self._head, b""
        if extras.early:
            self.from_client(extras.early)
        if rest:
            self.from_provider(rest)
        if gateway.draining:
            self.end(GOING_AWAY, "the gateway is being stopped")

    def _refuse(self, error: HaatError, *, ours: bool = False) -> None:
        call = self.call
        self._over = True
        self._drop()
        if ours:
            self.endpoint.breaker.released(call)
        else:
            self.endpoint.failed(self.gateway.clock.now_us(), call)
        relay.fail(call, error)

    def _drop(self) -> None:
        if self.far is not None:
            self.far.abort()

    # --- bytes ----------------------------------------------------------------------------------

    def head_received(self, data: bytes) -> None:
        """Take the answer of the WebSocket process to the opening handshake."""
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > MAX_HEAD:
                self.far_lost()
            return
        head, self._head = self._head[: end + 2], self._head[end + 4 :]
        if not self._answer.done():
            self._answer.set_result(head)

    @property
    def joined(self) -> bool:
        return self.near is not None

    def from_client(self, data: bytes) -> None:
        self.call.body_size += len(data)
        if self._count(len(data)) and self.far is not None:
            self.far.write(data)

    def from_provider(self, data: bytes) -> None:
        self.call.bytes_out += len(data)
        if self._count(len(data)) and self.near is not None:
            self.near.write(data)

    def _count(self, size: int) -> bool:
        """Write a checkpoint before each further part is forwarded; what can't be metered isn't."""
        if self._most and self.call.body_size + self.call.bytes_out > self._most and not self._asked_to_end:
            self.end(POLICY_VIOLATION, f"the {self._most} bytes reserved for this session are used up")
        self._unwritten += size
        return self._unwritten < CHECKPOINT_BYTES or self._write_checkpoint()

    def checkpoint(self, now: int) -> None:
        if self._unwritten and now - self._written_at >= CHECKPOINT_US:
            self._written_at = now
            self._write_checkpoint()

    def _write_checkpoint(self) -> bool:
        self._tally()
        try:
            self.gateway.meter.checkpoint(self.call)
        except JournalError:
            self._drop()
            return False
        self._unwritten = 0
        return True

    def _tally(self) -> None:
        """Count what was carried both ways, where that is what the service sells or the plan's quota is in."""
        call = self.call
        if self.route.service.unit == "bytes" or (call.allowance is not None and call.allowance.unit == "bytes"):
            carried = call.body_size + call.bytes_out
            call.units = {"requests": "1", "bytes": str(min(carried, self._most) if self._most else carried)}

    # --- the end --------------------------------------------------------------------------------

    def objection(self, now: int) -> str:
        """Return why the session may not go on, empty when it may."""
        directory, credential, service = self.gateway.directory, self.call.credential, self.route.service
        assert credential is not None
        if 0 < credential.expires_at <= now:
            return "the key has expired"
        if self._generation == directory.generation:
            return ""
        present = directory.credentials.get(credential.key_hash)
        if present is None or 0 < present.revoked_at <= now or 0 < present.expires_at <= now:
            return "the key was revoked"
        if (credential.application, service.id) not in directory.subscriptions:
            return "the subscription has ended"
        listing = directory.services.get(service.path)
        if listing is None or listing.status not in ("published", "deprecated"):
            return "the service is not offered any more"
        if self.route.version.version not in {version.version for version in listing.versions}:
            return "the version was retired"
        self._generation = directory.generation
        return ""

    def end(self, code: int, reason: str) -> None:
        """Have both sides closed in order."""
        if not self._asked_to_end:
            self._asked_to_end = True
            self._spawn(ask_of(self.call, f"/end?{urlencode({'code': code, 'reason': reason})}"))

    def far_lost(self) -> None:
        """The WebSocket process has ended the session, or itself."""
        if not self._answer.done():
            self._answer.set_exception(ConnectionResetError("it closed the connection"))
        elif self.joined and not self._over:
            self._over = True
            self._spawn(self._close())

    def near_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        if not self._over:
            self._over = True
            if self.far is not None:
                self.far.close()
            self._record(Outcome.CLIENT_LEFT)
        client = _connection(self.call)
        client.active = None
        client.connection_lost(exc)

    async def _close(self) -> None:
        content = await ask_of(self.call)
        try:
            ended = msgspec.json.decode(content, type=Ended)
        except msgspec.MsgspecError:
            self._record(Outcome.INTERRUPTED)  # nobody knows what became of it: not billed
        else:
            outcome = Outcome(ended.outcome)
            self._record(outcome, "PROVIDER_FAILED" if outcome is Outcome.PROVIDER_FAILED else "")
        assert self.near is not None
        self.near.close()

    def _record(self, outcome: Outcome, error_code: str = "") -> None:
        gateway, call = self.gateway, self.call
        self._tally()
        call.answered = True
        gateway.tunnels.discard(self)
        gateway.calls.discard(call)
        try:
            gateway.meter.record(call, outcome, 101, error_code)
            gateway.meter.confirm(call)
        except JournalError:
            pass  # the open record stays: recovery reports the session as interrupted

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.gateway.tunnel_work.add(task)
        task.add_done_callback(self.gateway.tunnel_work.discard)


def _connection(call: Call) -> ClientConnection:
    """Return the connection of a call that asks for a session: no inner call does."""
    return cast("ClientConnection", call.client)


def _error_for(status: int) -> HaatError:
    if status == 504:
        return ProviderTimeout()
    if status == 503:
        return ProviderUnavailable("The provider can't be reached for a session; the call is not billed.")
    return ProviderFailed("The provider did not open the session; the call is not billed.")


class _Far(asyncio.Protocol):
    """The connection to the WebSocket process."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tunnel.far = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._tunnel.joined:
            self._tunnel.from_provider(data)
        else:
            self._tunnel.head_received(data)

    def pause_writing(self) -> None:
        near = self._tunnel.near
        if near is not None and not near.is_closing():
            near.pause_reading()

    def resume_writing(self) -> None:
        near = self._tunnel.near
        if near is not None and not near.is_closing():
            near.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tunnel.far_lost()


class _Near(asyncio.Protocol):
    """The client's connection, once it is a session's."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def data_received(self, data: bytes) -> None:
        self._tunnel.from_client(data)

    def pause_writing(self) -> None:
        far = self._tunnel.far
        if far is not None and not far.is_closing():
            far.pause_reading()

    def resume_writing(self) -> None:
        far = self._tunnel.far
        if far is not None and not far.is_closing():
            far.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tunnel.near_lost(exc)
