"""WebSocket sessions: admitted, passed on, metered, bounded, and ended when what admitted them is gone."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from gateway.http.test_tls import Authority, put
from gateway.rig import PROVIDER_ORG, Client, MakeMarket, Market
from gateway.test_process import keep_snapshot, running
from haat.gateway.http.tls import Certificate
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import CachePolicy, ServicePolicy, VersionPolicy
from haat.gateway.market.snapshot import Credential, Service, Version
from haat.gateway.websocket import process
from haat.gateway.workers.place import open_listeners
from haat.infra.keyring import Keyring
from haat.settings import Settings
from haat.usage.intake import Record
from haat.usage.journal import START, JournalReader, JournalWriter, Kind
from haat.usage.shipper import Tail

PATH = "/v1/services/acme/talk/live"
Behaviour = Callable[[ServerConnection], Awaitable[None]]


class Talker:
    """A provider that speaks WebSocket and does as told."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = echo
        self.sessions: list[ServerConnection] = []
        self.codes: list[int | None] = []
        self._server: Server

    async def start(self) -> Talker:
        self._server = await serve(
            self._talk, "127.0.0.1", 0, select_subprotocol=self._agree, process_request=self._look
        )
        self.port: int = next(iter(self._server.sockets)).getsockname()[1]
        return self

    def _agree(self, session: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return Subprotocol("speech.v1") if "speech.v1" in offered else None

    def _look(self, session: ServerConnection, request: Any) -> Any:
        return session.respond(403, "no") if request.path.endswith("/closed") else None

    async def _talk(self, session: ServerConnection) -> None:
        self.sessions.append(session)
        try:
            await self.behaviour(session)
        finally:
            await session.wait_closed()
            self.codes.append(session.close_code)

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()


async def echo(session: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in session:
            await session.send(message)


class Hall:
    """A market with a service that speaks WebSocket, ``acme/talk``, and the process that speaks it for the gateway."""

    def __init__(self, market: Market, talker: Talker) -> None:
        self.market, self.talker = market, talker
        self.once = ""

    def open(self, path: str = PATH, *, key: str | None = None, units: str = "", **options: Any) -> connect:
        headers = {"X-API-Key": self.market.key if key is None else key}
        if units:
            headers["X-Haat-Max-Units"] = units
        if self.once:
            headers["Idempotency-Key"] = f'"{self.once}"'
        return connect(
            f"ws://127.0.0.1:{self.market.port}{path}",
            additional_headers=headers,
            proxy=None,
            compression=None,
            **options,
        )

    def offer(self, slug: str = "talk", unit: str = "requests", port: int | None = None) -> None:
        service = offered(self.market.keyring, port or self.talker.port, slug, unit)
        self.market.gateway.directory.put_service(service.id, service)


def offered(keyring: Keyring, port: int, slug: str = "talk", unit: str = "requests") -> Service:
    """Return a service of a provider that speaks WebSocket on this port."""
    version = Version("1", f"http://127.0.0.1:{port}/base", 5000, 1 << 16, "", "http", VersionPolicy(websocket=True))
    return Service(
        f"service-{slug}", "acme", PROVIDER_ORG, slug, "published", "", unit, "IN", ("127.0.0.0/8",),
        "X-Provider-Key", keyring.encrypt("secret", f"service-{slug}"), (version,), "1",
    )  # fmt: skip


@pytest.fixture
async def hall(make_market: MakeMarket, tmp_path: Path) -> AsyncIterator[Hall]:
    market = await make_market()
    stop = asyncio.Event()
    speaking = asyncio.create_task(process.run(market.gateway.settings, stop))
    talker = await Talker().start()
    made = Hall(market, talker)
    made.offer()
    market.subscribe("acme/talk", PlanLimits(max_concurrent=2, quota_per_month=1000))
    await market.until(lambda: market.gateway.rendezvous.socket.exists())
    yield made
    stop.set()
    await speaking
    await talker.stop()


async def closed_with(session: ClientConnection) -> int:
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionClosed):
            async for _ in session:
                pass
        await session.wait_closed()
    assert session.close_code is not None
    return session.close_code


async def test_messages_go_both_ways_and_the_session_is_metered(hall: Hall) -> None:
    async with hall.open() as session:
        await session.send("नमस्ते")
        assert await session.recv() == "नमस्ते"
        await session.send(b"\x00" * 50_000)
        assert await session.recv() == b"\x00" * 50_000
        assert session.response is not None and session.response.headers["X-Request-ID"]
        identifier = session.response.headers["X-Request-ID"]
    event = await hall.market.settled_event()
    assert (event.id, event.status, event.outcome, event.units) == (identifier, 101, "completed", {"requests": "1"})
    assert event.bytes_in > 50_000 and event.bytes_out > 50_000
    assert Kind.OPEN in {frame.kind for frame in hall.market.frames()}
    allowance = next(iter(hall.market.gateway.limits._allowances.values()))
    assert (allowance.in_flight, allowance.reserved) == (0, 0)


async def test_the_provider_gets_its_own_credential_and_none_of_the_callers(hall: Hall) -> None:
    async with hall.open(f"{PATH}?language=hi"):
        pass
    request = hall.talker.sessions[0].request
    assert request is not None
    assert request.path == "/base/live?language=hi"
    assert request.headers["X-Provider-Key"] == "secret"
    assert "X-API-Key" not in request.headers
    assert not [name for name in request.headers if name.lower().startswith("x-haat-admission")]


async def test_a_subprotocol_is_agreed_between_client_and_provider(hall: Hall) -> None:
    async with hall.open(subprotocols=[Subprotocol("other"), Subprotocol("speech.v1")]) as session:
        assert session.subprotocol == "speech.v1"


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        (PATH, "haat_live_wrong", 401),
        ("/v1/services/acme/nothing/live", None, 404),
        ("/v1/services/acme/closed-shop/live", None, 403),
        ("/v1/services/acme/echo/live", None, 400),
        (f"{PATH}/closed", None, 502),
        ("/v1/services/acme/gone/live", None, 503),
    ],
)
async def test_who_may_not_have_a_session_is_refused(hall: Hall, path: str, key: str | None, status: int) -> None:
    hall.offer("closed-shop")
    hall.offer("gone", port=1)
    hall.market.subscribe("acme/gone", PlanLimits())
    with pytest.raises(InvalidStatus) as refused:
        await hall.open(path, key=key)
    assert refused.value.response.status_code == status


async def test_a_handshake_of_another_version_is_told_which_one_is_spoken(hall: Hall) -> None:
    client = await hall.market.connect()
    lines = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 8")
    await client.send(hall.market.raw("GET", PATH, b"", *lines))
    response = await client.receive("GET")
    assert response is not None and response.status == 426
    assert response.json()["code"] == "UPGRADE_REQUIRED"


async def test_a_session_holds_its_place_among_the_calls_at_the_same_time(hall: Hall) -> None:
    async with hall.open(), hall.open():
        with pytest.raises(InvalidStatus) as refused:
            await hall.open()
        assert refused.value.response.status_code == 429
    await hall.market.until(lambda: not hall.market.gateway.tunnels)
    async with hall.open():
        pass


async def test_a_client_that_vanishes_ends_the_providers_side(hall: Hall) -> None:
    session = await hall.open()
    await session.send("one")
    await session.recv()
    session.transport.abort()
    await hall.market.until(lambda: hall.talker.codes == [1001])
    event = await hall.market.settled_event()
    assert (event.outcome, event.units) == ("client_left", {"requests": "1"})


async def test_a_provider_that_vanishes_is_told_to_the_client_and_not_billed(hall: Hall) -> None:
    async def vanish(session: ServerConnection) -> None:
        await session.recv()
        session.transport.abort()

    hall.talker.behaviour = vanish
    session = await hall.open()
    await session.send("one")
    assert await closed_with(session) == 1014
    event = await hall.market.settled_event()
    assert (event.outcome, event.units, event.error_code) == ("provider_failed", {}, "PROVIDER_FAILED")


async def test_the_providers_own_close_code_reaches_the_client(hall: Hall) -> None:
    async def say_goodbye(session: ServerConnection) -> None:
        await session.close(4001, "enough")

    hall.talker.behaviour = say_goodbye
    session = await hall.open()
    assert await closed_with(session) == 4001
    assert session.close_reason == "enough"


async def test_a_message_that_is_too_large_ends_the_session(hall: Hall) -> None:
    session = await hall.open()
    await session.send(b"\x00" * (1 << 17))
    assert await closed_with(session) == 1009


async def test_a_session_nobody_uses_ends(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "IDLE_SECONDS", 0.2)
    assert await closed_with(await hall.open()) == 1001


@pytest.mark.parametrize("cause", ["revoked", "cancelled", "suspended"])
async def test_sessions_end_within_a_second_when_what_admitted_them_is_gone(hall: Hall, cause: str) -> None:
    session = await hall.open()
    directory, keyring = hall.market.gateway.directory, hall.market.keyring
    if cause == "revoked":
        key_hash = keyring.hash_key(hall.market.key)
        old = directory.credentials[key_hash]
        directory.put_credential(old.id, Credential(old.id, old.org, old.application, key_hash, 0, 1))
    elif cause == "cancelled":
        directory.put_subscription(
            next(s.id for s in directory.subscriptions.values() if s.service == "service-talk"), None
        )
    else:
        directory.put_service("service-talk", None)
    async with asyncio.timeout(1):
        assert await closed_with(session) == 1008
    await hall.market.until(lambda: hall.talker.codes == [1008])


async def test_bytes_are_sold_both_ways(hall: Hall) -> None:
    hall.offer(unit="bytes")
    async with hall.open() as session:
        await session.send(b"\x00" * 1000)
        await session.recv()
    event = await hall.market.settled_event()
    assert int(event.units["bytes"]) == event.bytes_in + event.bytes_out > 2000


async def test_a_quota_in_bytes_ends_the_session_that_has_used_what_it_reserved(hall: Hall) -> None:
    hall.market.subscribe("acme/talk", PlanLimits(quota_per_month=30_000, quota_unit="bytes"))
    with pytest.raises(InvalidStatus) as refused:
        await hall.open()
    assert refused.value.response.status_code == 429
    session = await hall.open(units="bytes=20000")
    with contextlib.suppress(ConnectionClosed):
        while True:
            await session.send(b"\x00" * 1000)
            await session.recv()
    assert session.close_code == 1008
    await hall.market.until(lambda: len(hall.market.events()) == 2)
    assert {event.units.get("bytes") for event in hall.market.events()} == {None, "20000"}
    with pytest.raises(InvalidStatus):
        await hall.open(units="bytes=20000")
    async with hall.open(units="bytes=10000"):
        pass


async def test_nothing_of_a_session_is_kept_and_given_again(hall: Hall) -> None:
    service = offered(hall.market.keyring, hall.talker.port)
    kept = structs.replace(service, policy=ServicePolicy(cache=CachePolicy()))
    hall.market.gateway.directory.put_service(service.id, kept)
    hall.once = "the same"
    for number in range(2):
        async with hall.open() as session:
            await session.send(f"message {number}")
            assert await session.recv() == f"message {number}"
    assert len(hall.talker.sessions) == 2


async def test_a_long_session_leaves_checkpoints(hall: Hall) -> None:
    async with hall.open() as session:
        for _ in range(10):
            await session.send(b"\x00" * 50_000)
            await session.recv()
        assert Kind.CHECKPOINT in {frame.kind for frame in hall.market.frames()}


async def test_a_gateway_that_stops_says_so(hall: Hall) -> None:
    session = await hall.open()
    stopping = asyncio.create_task(hall.market.gateway.stop(5))
    assert await closed_with(session) == 1001
    await stopping
    [event] = hall.market.events()
    assert event.outcome == "completed"


async def test_without_the_process_that_speaks_it_calls_are_refused(make_market: MakeMarket) -> None:
    market = await make_market()
    hall = Hall(market, Talker())
    hall.offer(port=1)
    market.subscribe("acme/talk", PlanLimits())
    with pytest.raises(InvalidStatus) as refused:
        await hall.open()
    assert refused.value.response.status_code == 503


async def test_a_session_behind_pipelined_calls_gets_what_its_client_sent_early(hall: Hall) -> None:
    client = await Client.connect(hall.market.port)
    lines = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    handshake = hall.market.raw("GET", PATH, b"", *lines, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    frame = b"\x81\x82\x00\x00\x00\x00hi"
    await client.send(hall.market.raw(body=b"{}") + handshake + frame)
    first = await client.receive()
    assert first is not None and first.status == 200
    async with asyncio.timeout(5):
        rest = client._left
        while b"\r\n\r\n" not in rest or not rest.endswith(b"\x81\x02hi"):
            rest += await client.reader.read(1000)
    assert rest.startswith(b"HTTP/1.1 101 ")
    client.close()


async def test_a_session_of_a_killed_gateway_is_interrupted_and_not_billed(tmp_path: Path) -> None:
    talker = await Talker().start()
    service = offered(Keyring.load(tmp_path), talker.port)
    key = keep_snapshot(tmp_path, Keyring.load(tmp_path), talker.port, PlanLimits(), service)
    stop = asyncio.Event()
    speaking = asyncio.create_task(process.run(Settings(data_dir=tmp_path), stop))
    async with running(tmp_path) as (child, port):
        session = await connect(
            f"ws://127.0.0.1:{port}/v1/services/acme/talk/live", additional_headers={"X-API-Key": key}, proxy=None
        )
        await session.send("one")
        await session.recv()
        child.kill()
        await session.wait_closed()
    async with asyncio.timeout(10):
        while not talker.codes:  # noqa: ASYNC110  # the other process notices
            await asyncio.sleep(0.01)
    assert talker.codes == [1001]
    stop.set()
    await speaking
    await talker.stop()
    JournalWriter(tmp_path / "journal", "gateway-0", 1 << 20, 1000).close()  # the successor seals what was left
    tail = Tail(JournalReader(tmp_path / "journal", "gateway-0"), START, START)
    records: list[Record] = []
    while frames := tail.reader.read(tail.position):
        records += tail.feed(frames)
    [record] = records
    assert record.event is not None
    assert (record.event.outcome, record.event.units) == ("interrupted", {})


async def test_sessions_go_over_tls_as_well(hall: Hall, tmp_path: Path) -> None:
    authority = Authority()
    put(tmp_path, *authority.issue())
    gateway = hall.market.gateway
    gateway.certificate = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    [listener] = open_listeners("127.0.0.1", 0, 1)
    port = listener.getsockname()[1]
    server = await gateway.accept(listener)
    headers = {"X-API-Key": hall.market.key}
    url = f"wss://127.0.0.1:{port}{PATH}"
    async with connect(url, additional_headers=headers, proxy=None, ssl=authority.client()) as session:
        await session.send("over TLS")
        assert await session.recv() == "over TLS"
    server.close()


async def test_a_client_that_does_not_read_holds_its_provider_back(hall: Hall) -> None:
    sent = 0

    async def flood(session: ServerConnection) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionClosed):
            while True:
                await session.send(b"\x00" * 50_000)
                sent += 50_000

    hall.talker.behaviour = flood
    session = await hall.open(max_queue=1)
    [tunnel] = hall.market.gateway.tunnels
    assert tunnel.near is not None
    before, most = -1, 0
    while sent != before:  # until nothing moves any more
        before = sent
        for _ in range(20):
            await asyncio.sleep(0.01)
            most = max(most, tunnel.near.get_write_buffer_size())
    assert sent < 32 * 1024 * 1024
    assert most < 1024 * 1024
    session.transport.abort()
    await hall.market.until(lambda: bool(hall.talker.codes))


async def test_sessions_of_a_killed_websocket_process_are_not_billed_and_calls_go_on(
    make_market: MakeMarket,
) -> None:
    market = await make_market()
    talker = await Talker().start()
    hall = Hall(market, talker)
    hall.offer()
    market.subscribe("acme/talk", PlanLimits())
    command = [sys.executable, "-m", "haat.cli.main", "websocket", "--data-dir", str(market.gateway.settings.data_dir)]
    child = await asyncio.create_subprocess_exec(*command)
    async with asyncio.timeout(30):
        while not market.gateway.rendezvous.socket.exists():  # noqa: ASYNC110  # the process makes it
            await asyncio.sleep(0.02)
    session = await hall.open()
    await session.send("one")
    assert await session.recv() == "one"
    child.kill()
    await child.wait()
    assert await closed_with(session) == 1006
    event = await market.settled_event()
    assert (event.outcome, event.units) == ("interrupted", {})
    assert (await market.call(body=b"{}")).status == 200
    await talker.stop()
