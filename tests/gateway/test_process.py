"""The process: killed under load, restarted, without PostgreSQL; and what recovery makes of the store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from gateway.rig import APP, ORG, PROVIDER_ORG, Client, Provider
from haat.gateway import process
from haat.gateway.clock import GatewayClock
from haat.gateway.limits import recovery
from haat.gateway.limits.registry import MICRO, SECOND, Limits, PlanLimits
from haat.gateway.market import snapshot_file
from haat.gateway.market.snapshot import Credential, Directory, Service, Snapshot, Subscription, Version
from haat.identity.model import make_key
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.ids import new_id
from haat.settings import Settings
from haat.usage import event as usage
from haat.usage import journal
from haat.usage.event import VERSION, Outcome, UsageEvent
from haat.usage.journal import START, JournalReader, JournalWriter, Kind

SERVICE = "00000000-0000-7000-8000-00000000000d"
ZONE = "Asia/Kolkata"
PROGRAM = """
import asyncio, signal, uvloop
from haat.gateway.process import run
from haat.settings import load_settings

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run(load_settings(), stop)

uvloop.run(main())
"""


def keep_snapshot(
    data_dir: Path, keyring: Keyring, port: int, limits: PlanLimits, service: Service | None = None
) -> str:
    """Leave a snapshot of a small market on disk; return the key that opens it."""
    key = make_key()
    service = service or Service(
        SERVICE, "acme", PROVIDER_ORG, "echo", "published", "", "requests", "IN", ("127.0.0.0/8",), "", b"",
        (Version("1", f"http://127.0.0.1:{port}", 5000, 1 << 20, "", "http"),), "1",
    )  # fmt: skip
    market = Snapshot(
        credentials=[Credential("c1", ORG, APP, keyring.hash_key(key), 0, 0)],
        subscriptions=[Subscription("s1", ORG, APP, service.id, "basic", limits, ZONE)],
        services=[service],
    )
    snapshot_file.write(data_dir / "gateway" / "snapshot.bin", market, keyring)
    return key


def start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment)


@asynccontextmanager
async def running(data_dir: Path) -> AsyncIterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a gateway process whose PostgreSQL is not there."""
    ready = data_dir / "gateway" / "ready.json"
    environment = {
        **os.environ,
        "HAAT_DATA_DIR": str(data_dir),
        "HAAT_GATEWAY_PORT": "0",
        "HAAT_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    }
    child = start(environment)
    try:
        async with asyncio.timeout(20):
            while not ready.exists() or told(ready)["pid"] != child.pid:  # another process makes it
                assert child.poll() is None, "the gateway ended"
                await asyncio.sleep(0.02)
        yield child, told(ready)["port"]
    finally:
        child.kill()
        child.wait()


def told(ready: Path) -> dict[str, int]:
    return msgspec.json.decode(ready.read_bytes(), type=dict[str, int])


def raw(key: str) -> bytes:
    return (
        f"POST /v1/services/acme/echo/x HTTP/1.1\r\nHost: g\r\nX-API-Key: {key}\r\nContent-Length: 2\r\n\r\nhi".encode()
    )


def frames(data_dir: Path) -> list[journal.Frame]:
    reader, position, found = JournalReader(data_dir / "journal", "gateway-0"), START, []
    while batch := reader.read(position):
        found += batch
        position = batch[-1].end
    return found


async def test_every_answer_that_left_a_killed_gateway_is_in_its_journal_once(
    tmp_path: Path, provider: Provider
) -> None:
    key = keep_snapshot(tmp_path, Keyring.load(tmp_path), provider.port, PlanLimits())
    answered: set[str] = set()
    in_flight = 16

    async def caller(port: int) -> None:
        client = await Client.connect(port)
        with contextlib.closing(client), contextlib.suppress(ConnectionError):
            while True:
                await client.send(raw(key))
                response = await client.receive()
                if response is None or not response.whole:
                    return
                assert response.status == 200
                identifier = response.header("x-request-id")
                assert identifier is not None and identifier not in answered
                answered.add(identifier)

    for _ in range(2):
        async with running(tmp_path) as (child, port):
            before = len(answered)
            callers = [asyncio.create_task(caller(port)) for _ in range(in_flight)]
            async with asyncio.timeout(20):
                while len(answered) < before + 300:  # noqa: ASYNC110  # calls are being made meanwhile
                    await asyncio.sleep(0.005)
            child.kill()
            await asyncio.gather(*callers)

    JournalWriter(tmp_path / "journal", "gateway-0", 1 << 20, 1000).close()  # the successor cuts the torn tail
    found = frames(tmp_path)
    recorded = [usage.decode(frame.payload).id for frame in found if frame.kind == Kind.USAGE]
    confirmed = {
        str(UUID(bytes=identifier))
        for frame in found
        if frame.kind == Kind.CONFIRM
        for identifier in journal.confirmed_ids(frame.payload)
    }
    assert len(recorded) == len(set(recorded)), "metered twice"
    assert answered <= set(recorded), "answered and not metered"
    assert len(set(recorded) - answered) <= 2 * in_flight, "more surplus than was in flight at the kills"
    assert confirmed <= set(recorded)
    assert len(confirmed) > len(answered) / 2


async def test_a_gateway_restarted_without_postgres_serves_and_remembers_the_quota(
    tmp_path: Path, provider: Provider
) -> None:
    key = keep_snapshot(tmp_path, Keyring.load(tmp_path), provider.port, PlanLimits(per_day=100, quota_per_month=5))

    async def statuses(port: int, calls: int) -> list[int]:
        client, seen = await Client.connect(port), []
        for _ in range(calls):
            await client.send(raw(key))
            response = await client.receive()
            assert response is not None
            seen.append(response.status)
        client.close()
        return seen

    async with running(tmp_path) as (child, port):
        assert await statuses(port, 3) == [200] * 3
        child.kill()
    async with running(tmp_path) as (child, port):
        assert await statuses(port, 1) == [200]
        child.send_signal(signal.SIGTERM)
        child.wait(10)
        assert child.returncode == 0
        assert not (tmp_path / "gateway" / "ready.json").exists()
    async with running(tmp_path) as (child, port):
        assert await statuses(port, 2) == [200, 429]


async def test_the_process_on_postgres_takes_over_its_slot_from_a_predecessor(
    cluster: Any, database_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path, gateway_port=0)
    monkeypatch.setattr(process, "dsn_for", lambda *_: cluster.dsn("service", database_name))
    predecessor = JournalWriter(tmp_path / "journal", "gateway-0", 1 << 20, 1000)
    stop = asyncio.Event()
    serving = asyncio.create_task(process.run(settings, stop))
    ready = tmp_path / "gateway" / "ready.json"
    await asyncio.sleep(0.1)
    assert not ready.exists()
    predecessor.close()
    async with asyncio.timeout(5):
        while not ready.exists():  # noqa: ASYNC110  # written by the task under test in a thread of its own
            await asyncio.sleep(0.01)
    client = await Client.connect(msgspec.json.decode(ready.read_bytes())["port"])
    await client.send(b"GET /health HTTP/1.1\r\nHost: g\r\n\r\n")
    response = await client.receive()
    assert response is not None and response.json()["status"] == "healthy"
    client.close()
    stop.set()
    await serving


# --- recovery from the store -------------------------------------------------------------------


def usage_event(identifier: str, at: datetime, outcome: Outcome, app: str) -> UsageEvent:
    return UsageEvent(
        id=identifier,
        at=int(at.timestamp() * 1000),
        outcome=outcome,
        v=VERSION,
        org=ORG,
        application=app,
        service=SERVICE,
        status=200,
    )


async def test_limits_come_back_from_the_store_and_the_unshipped_tail_each_call_once(
    database: Any, tmp_path: Path
) -> None:
    from haat.usage import intake

    now_us = GatewayClock().now_us()
    now = datetime.fromtimestamp(now_us / SECOND, UTC)
    app = str(uuid4())
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute(
            "INSERT INTO organisations (id, name, kind, zone, created_at) VALUES (%s, 'c', 'consumer', %s, %s)",
            (ORG, ZONE, now),
        )
    outcomes = [Outcome.COMPLETED] * 4 + [Outcome.PROVIDER_FAILED] * 2 + [Outcome.REFUSED] * 3 + [Outcome.UNCONFIRMED]
    shipped = [usage_event(str(new_id()), now, outcome, app) for outcome in outcomes]
    replay = usage_event(str(new_id()), now, Outcome.COMPLETED, app)
    replay.cache = "replay"
    async with database.service.transaction(PLATFORM_SCOPE) as connection:
        await intake.take(
            connection,
            [intake.Record(event, "gateway-0", 1, 0) for event in [*shipped, replay]],
            now,
            any_time=True,
        )
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, 1000)
    tail = [usage_event(str(new_id()), now, Outcome.COMPLETED, app) for _ in range(3)]
    opened = usage_event(str(new_id()), now, Outcome.INTERRUPTED, app)
    left = usage_event(tail[0].id, now, Outcome.CLIENT_LEFT, app)
    writer.append(Kind.OPEN, usage.encode(opened))
    for event in [*shipped[:2], *tail, left]:  # two were shipped although the position lies before them
        writer.append(Kind.USAGE, usage.encode(event))
    writer.close()

    plan = PlanLimits(per_minute=1000, per_hour=1000, per_day=1000, quota_per_month=1000)
    directory = Directory(Snapshot(subscriptions=[Subscription("s", ORG, app, SERVICE, "basic", plan, ZONE)]))
    limits = Limits()
    await recovery.from_store(database.service.dsn, tmp_path, directory, limits, now_us, ZONE)
    allowance = limits.of(app, SERVICE, plan, ZONE, now_us)
    assert allowance.used == 5 + 3 + 1
    requests = 7 + 3 + 1 + 1  # an answer given again is a request all the same
    assert [allowance.admitted(window, now_us) for window in ("minute", "hour", "day")] == [requests] * 3


async def test_records_before_the_shipping_position_are_not_read_again(database: Any, tmp_path: Path) -> None:
    now = GatewayClock().now_us()
    app = str(uuid4())
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, 1000)
    writer.append(Kind.USAGE, usage.encode(usage_event(str(new_id()), datetime.now(UTC), Outcome.COMPLETED, app)))
    position = writer.position
    writer.append(Kind.USAGE, usage.encode(usage_event(str(new_id()), datetime.now(UTC), Outcome.COMPLETED, app)))
    writer.close()
    async with database.service.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute(
            "INSERT INTO ship_positions (worker, segment, byte_offset, moved_at) VALUES ('gateway-0', %s, %s, now())",
            position,
        )
    limits, plan = Limits(), PlanLimits(quota_per_month=10)
    await recovery.from_store(database.service.dsn, tmp_path, Directory(Snapshot()), limits, now, ZONE)
    assert limits.of(app, SERVICE, plan, ZONE, now).used == 1


def test_counters_kept_on_disk_and_the_journal_after_them(tmp_path: Path) -> None:
    now = GatewayClock().now_us()
    plan = PlanLimits(per_minute=10, quota_per_month=100)
    subscribed = [Subscription(app, ORG, app, SERVICE, "basic", plan, ZONE) for app in (APP, "dormant")]
    directory = Directory(Snapshot(subscriptions=subscribed))
    limits = Limits()
    for _ in range(4):
        allowance = limits.of(APP, SERVICE, plan, ZONE, now)
        assert allowance.admit(now) is None
        allowance.settle(allowance.period, MICRO, MICRO)
    limits.restore("dormant", SERVICE, plan, ZONE, now, 0, 9 * MICRO, 0, [[(now, 2)]])
    writer = JournalWriter(tmp_path / "journal", "gateway-0", 1 << 20, 1000)
    allowances = [found for key in limits.counts.keys() if (found := recovery.kept(limits, key, now))]  # noqa: SIM118
    recovery.keep(tmp_path / "limits.bin", allowances, {"gateway-0": writer.position}, now)
    at = datetime.fromtimestamp(now / SECOND, UTC)
    writer.append(Kind.USAGE, usage.encode(usage_event(str(new_id()), at, Outcome.COMPLETED, APP)))
    writer.close()

    again = Limits()
    recovery.from_disk(tmp_path / "limits.bin", tmp_path / "journal", directory, again, now, ZONE)
    allowance = again.of(APP, SERVICE, plan, ZONE, now)
    assert (allowance.used, allowance.admitted("minute", now)) == (5, 5)
    dormant = again.of("dormant", SERVICE, plan, ZONE, now)
    assert (dormant.used, dormant.admitted("minute", now)) == (9, 2)


def test_a_missing_segment_does_not_keep_the_gateway_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recovery.keep(tmp_path / "limits.bin", [], {"gateway-0": (7, 0)}, 0)
    JournalWriter(tmp_path / "journal", "gateway-0", 1 << 20, 1000).close()
    recovery.from_disk(
        tmp_path / "limits.bin", tmp_path / "journal", Directory(), Limits(), time.time_ns() // 1000, ZONE
    )
    assert "without a part of the journal" in caplog.text
