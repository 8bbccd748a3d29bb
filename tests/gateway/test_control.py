"""Control without restart, end to end: two workers on a real PostgreSQL, which goes away for a while."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from gateway.market.test_feed import Facts
from gateway.rig import Client, Provider
from gateway.workers.test_workers import Family, family, until
from haat.identity.model import make_key
from haat.infra.dsn import dsn_for
from haat.infra.embedded import EmbeddedPostgres
from haat.infra.keyring import Keyring
from haat.infra.migrate import migrate
from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.infra.prepare import set_passwords
from haat.kernel.clock import SetClock
from haat.kernel.ids import new_id
from haat.settings import Settings

WORKERS = 2
A_SECOND = 1.0


class Databases(NamedTuple):
    app: Database


class Town:
    """A market in a PostgreSQL of its own, a provider, and how to call it through either worker."""

    def __init__(self, data_dir: Path, facts: Facts, server: EmbeddedPostgres, provider: Provider) -> None:
        self.data_dir, self.facts, self.server, self.provider = data_dir, facts, server, provider

    async def open_stall(self) -> str:
        """Publish the provider's service and subscribe; return a key."""
        key = make_key()
        await self.facts.market()
        await self.version("1")
        await self.facts.key(key)
        return key

    async def version(self, name: str) -> None:
        facts = self.facts
        await facts.run("UPDATE service_versions SET is_default = false")
        await facts.run(
            "INSERT INTO service_versions (id, service_id, version, endpoint, dialect, is_default, accepted_at,"
            " created_at) VALUES (%s, %s, %s, %s, 'http', true, %s, %s)"
            " ON CONFLICT (service_id, version) DO UPDATE SET endpoint = excluded.endpoint, is_default = true",
            new_id(),
            facts.service,
            name,
            f"http://127.0.0.1:{self.provider.port}/{name}",
            facts.clock.now(),
            facts.clock.now(),
            event=(f"service/{facts.service}", "service.version_added"),
        )

    def family(self) -> Any:
        return family(self.data_dir, WORKERS, database=True)


@pytest.fixture
async def town(data_dir: Path, clock: SetClock) -> AsyncIterator[Town]:
    settings = Settings(data_dir=data_dir)
    keyring = Keyring.load(data_dir)
    server = EmbeddedPostgres(data_dir, keyring, settings.postgres_account, options={"fsync": "off"})
    await asyncio.to_thread(server.start)
    provider = await Provider().start()
    try:
        owner = dsn_for(settings, keyring, "owner")
        await asyncio.to_thread(migrate, owner)
        await asyncio.to_thread(set_passwords, owner, keyring)
        async with Database(dsn_for(settings, keyring, "app"), max_size=2) as app:
            yield Town(data_dir, Facts(Databases(app), keyring, clock), server, provider)
    finally:
        await provider.stop()
        await asyncio.to_thread(server.stop, 3)


@contextlib.asynccontextmanager
async def one_of_each(running: Family) -> AsyncIterator[list[Client]]:
    """Give a connection to each worker, closed at the end whatever happens."""
    found: dict[str, Client] = {}
    port = running.present(0).port
    try:
        async with asyncio.timeout(30):
            while len(found) < WORKERS:
                client = await Client.connect(port)
                worker = (await health(client))["worker"]
                if worker in found:
                    client.close()
                else:
                    found[worker] = client
        yield list(found.values())
    finally:
        for client in found.values():
            client.close()


async def health(client: Client) -> Any:
    await client.send(b"GET /health HTTP/1.1\r\nHost: g\r\n\r\n")
    answer = await client.receive()
    assert answer is not None
    return answer.json()


async def call(client: Client, key: str) -> tuple[int, str]:
    """Return the status and the error code."""
    await client.send(
        f"POST /v1/services/acme/echo/x HTTP/1.1\r\nHost: g\r\nX-API-Key: {key}\r\nContent-Length: 2\r\n\r\nhi".encode()
    )
    answer = await client.receive()
    assert answer is not None
    return answer.status, answer.json().get("code", "")


async def everywhere(clients: list[Client], key: str, expected: tuple[int, str], since: float) -> None:
    """Wait until every worker answers so, and see that it took less than a second."""
    for client in clients:
        async with asyncio.timeout(20):
            while await call(client, key) != expected:  # noqa: ASYNC110  # the feed works meanwhile
                await asyncio.sleep(0.005)
    assert time.monotonic() - since < A_SECOND


async def test_what_control_decides_is_in_force_at_every_worker_within_a_second(town: Town) -> None:
    facts, key = town.facts, await town.open_stall()
    await facts.run("UPDATE plans SET per_minute = NULL WHERE code = 'free'")  # waiting below is asking again and again
    async with town.family() as running, one_of_each(running) as clients:
        await everywhere(clients, key, (403, "NOT_SUBSCRIBED"), time.monotonic())

        since = time.monotonic()
        subscription = await facts.subscribe("free")
        await everywhere(clients, key, (200, ""), since)

        since = time.monotonic()
        await town.version("2")
        for client in clients:
            async with asyncio.timeout(20):
                await call(client, key)
                while town.provider.requests[-1].target != "/2/x":
                    await call(client, key)
        assert time.monotonic() - since < A_SECOND

        since = time.monotonic()
        await facts.run(
            "UPDATE plans SET quota_per_month = 1 WHERE code = 'free'",
            event=(f"plan/{(await plan_id(facts))}", "plan.changed"),
        )
        await everywhere(clients, key, (429, "QUOTA_EXHAUSTED"), since)
        since = time.monotonic()
        await facts.run(
            "UPDATE subscriptions SET plan_id = (SELECT id FROM plans WHERE code = 'enterprise') WHERE id = %s",
            subscription,
            event=(f"subscription/{subscription}", "subscription.plan_changed"),
        )
        await everywhere(clients, key, (200, ""), since)

        since = time.monotonic()
        await facts.run(
            "UPDATE services SET status = 'suspended', status_reason = 'abuse' WHERE id = %s",
            facts.service,
            event=(f"service/{facts.service}", "service.suspended"),
        )
        await everywhere(clients, key, (403, "SERVICE_SUSPENDED"), since)
        await facts.run(
            "UPDATE services SET status = 'published' WHERE id = %s",
            facts.service,
            event=(f"service/{facts.service}", "service.published"),
        )
        since = time.monotonic()
        await everywhere(clients, key, (200, ""), since)

        since = time.monotonic()
        await revoke(facts)
        await everywhere(clients, key, (401, "REVOKED_CREDENTIAL"), since)


async def test_without_postgres_both_workers_serve_on_and_so_do_their_successors(town: Town) -> None:
    facts, revoked = town.facts, await town.open_stall()
    await facts.subscribe("enterprise")
    await revoke(facts)
    good = make_key()
    await facts.key(good)
    async with town.family() as running, one_of_each(running) as clients:
        await everywhere(clients, good, (200, ""), time.monotonic())
        snapshot = town.data_dir / "gateway" / "snapshot.bin"
        await until(lambda: snapshot.exists())

        await asyncio.to_thread(town.server.stop, 3)
        for client in clients:
            assert await call(client, good) == (200, "")
        async with asyncio.timeout(30):
            while (await health(clients[0]))["status"] != "degraded":  # noqa: ASYNC110  # it notices by itself
                await asyncio.sleep(0.01)

        victims = [running.present(slot).pid for slot in range(WORKERS)]
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        await until(lambda: all(running.is_back(slot, but=victims[slot]) for slot in range(WORKERS)))
        async with one_of_each(running) as successors:
            for client in successors:
                assert await call(client, good) == (200, "")
                assert await call(client, revoked) == (401, "REVOKED_CREDENTIAL")

        await asyncio.to_thread(town.server.start)
        late = make_key()
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(psycopg.OperationalError):  # of the pool's connections, which are broken
                    await facts.key(late)
                    break
        async with one_of_each(running) as again, asyncio.timeout(30):
            for client in again:
                while await call(client, late) != (200, ""):  # noqa: ASYNC110  # its next attempt to connect
                    await asyncio.sleep(0.02)


async def plan_id(facts: Facts) -> str:
    async with facts.database.app.transaction(PLATFORM_SCOPE) as connection:
        row = await (await connection.execute("SELECT id::text AS id FROM plans WHERE code = 'free'")).fetchone()
        return str(row["id"])


async def revoke(facts: Facts) -> None:
    """Revoke the oldest key."""
    async with facts.database.app.transaction(PLATFORM_SCOPE) as connection:
        row = await (await connection.execute("SELECT id FROM credentials ORDER BY id LIMIT 1")).fetchone()
    await facts.run(
        "UPDATE credentials SET revoked_at = %s WHERE id = %s",
        facts.clock.now(),
        row["id"],
        event=(f"credential/{row['id']}", "credential.revoked"),
    )
