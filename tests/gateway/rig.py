"""What the gateway's tests stand on: a gateway with a market of its own, a provider that does as told."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h11
from msgspec.structs import replace

from haat.gateway.gateway import Gateway
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import CachePolicy, ServicePolicy, VersionPolicy
from haat.gateway.market.snapshot import Credential, Directory, Price, Service, Snapshot, Subscription, Version
from haat.identity.model import make_key
from haat.infra.keyring import Keyring
from haat.settings import Settings
from haat.usage import event as usage
from haat.usage import journal
from haat.usage.journal import START, JournalReader, JournalWriter, Kind

ORG = "00000000-0000-7000-8000-00000000000a"
APP = "00000000-0000-7000-8000-00000000000b"
PROVIDER_ORG = "00000000-0000-7000-8000-00000000000c"
PATIENCE = 5.0


@dataclass
class Request:
    """What a provider received."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]


@dataclass
class Response:
    """What a client received."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool = True

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name.lower()), None)

    def json(self) -> Any:
        import json

        return json.loads(self.body)


Behaviour = Callable[[Request, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]


def answer(status: int = 200, body: bytes = b'{"ok":true}', *headers: str, length: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", "Content-Type: application/json", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Provider:
    """An upstream whose behaviour a test sets: bytes to answer, or a coroutine that does anything."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.lost = 0
        self.behaviour: bytes | Behaviour = answer()
        self.arrived = asyncio.Event()
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> Provider:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                request = await read_request(reader)
                if request is None:
                    break
                self.requests.append(request)
                self.arrived.set()
                if isinstance(self.behaviour, bytes):
                    writer.write(self.behaviour)
                    await writer.drain()
                elif not await self.behaviour(request, reader, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.lost += 1
            self._tasks.discard(task)
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    peer = h11.Connection(h11.SERVER)
    request, body = None, b""
    while True:
        event = peer.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(65536)
            peer.receive_data(data)
            if not data and request is None:
                return None
            if not data:
                raise ConnectionResetError
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            headers = [(name.decode(), value.decode("latin-1")) for name, value in request.headers]
            return Request(request.method.decode(), request.target.decode(), headers, body)
        else:
            return None


def reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side gets a reset instead of an end."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Client:
    """A raw client: bytes out, responses in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._left = b""

    @classmethod
    async def connect(cls, port: int, **options: Any) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port, **options))

    async def send(self, raw: bytes, cuts: Iterable[int] = ()) -> None:
        at = 0
        for cut in [*cuts, len(raw)]:
            if raw[at:cut]:
                self.writer.write(raw[at:cut])
                await self.writer.drain()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            at = cut

    async def receive(self, method: str = "GET") -> Response | None:
        """Return the next response, or None when the connection ends before one begins."""
        async with asyncio.timeout(PATIENCE):
            peer = h11.Connection(h11.CLIENT)
            peer.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
            peer.send(h11.EndOfMessage())
            if self._left:
                peer.receive_data(self._left)
                self._left = b""
            head, body = None, b""
            while True:
                try:
                    event = peer.next_event()
                except h11.RemoteProtocolError:
                    return Response(head.status_code, _headers(head), body, whole=False) if head else None
                if event is h11.NEED_DATA:
                    try:
                        peer.receive_data(await self.reader.read(65536))
                    except ConnectionError:
                        return Response(head.status_code, _headers(head), body, whole=False) if head else None
                elif isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    assert head is not None
                    self._left = peer.trailing_data[0]
                    return Response(head.status_code, _headers(head), body)
                elif isinstance(event, h11.ConnectionClosed):
                    return None

    async def ended(self) -> bool:
        """Wait until the gateway ends the connection."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        reset(self.writer)


def _headers(head: h11.Response) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode("latin-1")) for name, value in head.headers]


@dataclass
class Market:
    """A gateway on a loopback port, its journal, and one provider behind ``/acme/echo``."""

    gateway: Gateway
    provider: Provider
    journal_dir: Path
    key: str
    port: int
    keyring: Keyring
    clients: list[Client] = field(default_factory=list)

    async def connect(self, **options: Any) -> Client:
        client = await Client.connect(self.port, **options)
        self.clients.append(client)
        return client

    def raw(
        self,
        method: str = "POST",
        path: str = "/v1/services/acme/echo/invoke",
        body: bytes = b"",
        *headers: str,
        key: str | None = None,
        host: bool = True,
        version: str = "1.1",
    ) -> bytes:
        lines = [f"{method} {path} HTTP/{version}"]
        if host:
            lines.append("Host: gateway")
        lines.append(f"Authorization: Bearer {key or self.key}")
        lines += headers
        if body and not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers):
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def call(self, *args: Any, **options: Any) -> Response:
        client = await self.connect()
        await client.send(self.raw(*args, **options))
        response = await client.receive(args[0] if args else "POST")
        client.close()
        assert response is not None
        return response

    def frames(self) -> list[journal.Frame]:
        reader, position, frames = JournalReader(self.journal_dir, "gateway-0"), START, []
        while batch := reader.read(position):
            frames += batch
            position = batch[-1].end
        return frames

    def events(self) -> list[usage.UsageEvent]:
        """Return the events as a shipper sees them: the last record of each id."""
        found: dict[str, usage.UsageEvent] = {}
        for frame in self.frames():
            if frame.kind == Kind.USAGE:
                event = usage.decode(frame.payload)
                found[event.id] = event
        return list(found.values())

    def confirmed(self) -> set[str]:
        import uuid

        return {
            str(uuid.UUID(bytes=identifier))
            for frame in self.frames()
            if frame.kind == Kind.CONFIRM
            for identifier in journal.confirmed_ids(frame.payload)
        }

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, at most a few seconds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110  # what is waited for happens in another process or on disk
                await asyncio.sleep(0.005)

    async def settled_event(self) -> usage.UsageEvent:
        """Return the one event, once it is confirmed."""
        await self.until(lambda: bool(self.confirmed()))
        [event] = self.events()
        assert self.confirmed() == {event.id}
        return event

    def subscribe(self, service: str, limits: PlanLimits, app: str = APP, plan: str = "basic") -> None:
        identifier = self.gateway.directory.services[service].id
        self.gateway.directory.put_subscription(
            f"sub-{app}-{service}",
            Subscription(f"sub-{app}-{service}", ORG, app, identifier, plan, limits, "Asia/Kolkata"),
        )

    def narrow(self, *paths: str) -> None:
        """Let the market's key open these services only; none, and it opens all again."""
        directory = self.gateway.directory
        credential = directory.credentials[self.keyring.hash_key(self.key)]
        directory.put_credential(credential.id, replace(credential, only=f" {' '.join(paths)} " if paths else ""))

    def add_key(
        self, *, app: str = APP, expires_at: int = 0, revoked_at: int = 0, mode: Literal["live", "test"] = "live"
    ) -> str:
        key = make_key(mode)
        identifier = f"key-{key[-6:]}"
        self.gateway.directory.put_credential(
            identifier,
            Credential(identifier, ORG, app, self.keyring.hash_key(key), expires_at, revoked_at, mode == "test"),
        )
        return key

    def add_service(
        self,
        slug: str,
        *,
        port: int | None = None,
        status: str = "published",
        reason: str = "",
        unit: str = "requests",
        price: str = "",
        timeout_ms: int = 5000,
        max_body_bytes: int = 1 << 20,
        max_units: str = "",
        networks: tuple[str, ...] = ("127.0.0.0/8",),
        base: str = "/base",
        host: str = "127.0.0.1",
        dialect: str = "http",
        category: str = "custom",
        aliases: tuple[str, ...] = (),
        model: str = "",
        cache: CachePolicy | None = None,
        languages: tuple[str, ...] = (),
        language_pairs: tuple[str, ...] = (),
        subscribed: PlanLimits | None = PlanLimits(),  # noqa: B008  # frozen
    ) -> None:
        service = Service(
            id=f"service-{slug}",
            provider="acme",
            provider_org=PROVIDER_ORG,
            slug=slug,
            status=status,
            reason=reason,
            unit=unit,
            region="IN",
            networks=networks,
            credential_header="X-Provider-Key",
            credential=self.keyring.encrypt("provider-secret", f"service-{slug}"),
            versions=(
                Version(
                    "1",
                    f"http://{host}:{port or self.provider.port}{base}",
                    timeout_ms,
                    max_body_bytes,
                    max_units,
                    dialect,
                    VersionPolicy(model=model),
                    languages=languages,
                    language_pairs=language_pairs,
                ),
                Version(
                    "2",
                    f"http://{host}:{port or self.provider.port}/two",
                    timeout_ms,
                    max_body_bytes,
                    max_units,
                    dialect,
                ),
            ),
            default_version="1",
            category=category,
            policy=ServicePolicy(aliases=aliases, cache=cache),
            prices=(Price("", unit, price, "0", 0),) if price else (),
        )
        self.gateway.directory.put_service(service.id, service)
        if subscribed is not None:
            self.subscribe(f"acme/{slug}", subscribed)


MakeMarket = Callable[..., Awaitable[Market]]


async def open_market(tmp_path: Path, keyring: Keyring, **options: Any) -> Market:
    settings = Settings(data_dir=tmp_path, **options)
    provider = await Provider().start()
    writer = JournalWriter(tmp_path / "journal", "gateway-0", 1 << 22, sync_ms=1000, reserve_bytes=1 << 16)
    directory = Directory(Snapshot())
    gateway = Gateway(settings, keyring, writer, directory)
    gateway.feed_connected = True
    port = await gateway.listen("127.0.0.1", 0)
    market = Market(gateway, provider, tmp_path / "journal", "", port, keyring)
    market.key = market.add_key()
    market.add_service("echo", subscribed=PlanLimits(quota_per_month=1000))
    return market


async def close_market(market: Market) -> None:
    for client in market.clients:
        client.close()
    await market.gateway.stop(1.0)
    await market.provider.stop()
