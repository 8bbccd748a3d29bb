"""Probes of real sockets on this machine: well, not well, gone, forbidden, and our own network gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from bazaar import Service
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE
from haat.sla import counts
from haat.sla.model import Counts

from .rig import Level, open_level

Told = list[tuple[str, dict[str, str]]]


class Upstream:
    """A provider that answers as told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.status, self.body = 200, b'{"output": [{"text": "x"}]}'
        self.asked: Told = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            writer.close()
            return
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        await reader.readexactly(int(headers.get("content-length", 0)))
        self.asked.append((first, headers))
        writer.write(
            b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (self.status, len(self.body), self.body)
        )
        await writer.drain()
        writer.close()


@pytest.fixture
async def upstream() -> AsyncIterator[tuple[Upstream, int]]:
    told = Upstream()
    server = await asyncio.start_server(told.serve, "127.0.0.1", 0)
    async with server:
        yield told, server.sockets[0].getsockname()[1]


async def listed(
    level: Level,
    endpoint: str,
    *,
    slug: str = "speak",
    provider: str = "vani",
    health: str = "/health",
    more: list[str] | None = None,
    secret: str | None = None,
    keyring: Keyring | None = None,
) -> Service:
    service = await level.bazaar.service(slug, provider)
    await level.bazaar.run(
        """INSERT INTO service_versions (id, service_id, version, endpoint, dialect, health_path, is_default,
               accepted_at, sample, policy, created_at)
           VALUES (gen_random_uuid(), %s, '1', %s, 'task', %s, true, now(), %s, %s, now())""",
        *(service.id, endpoint, health),
        *(Jsonb({"body": {"input": [{"text": "x"}], "config": {}}}), Jsonb({"endpoints": more} if more else {})),
    )
    if secret and keyring:
        await level.bazaar.run(
            """INSERT INTO provider_credentials (service_id, org_id, header, ciphertext, last_four, created_at)
               VALUES (%s, %s, 'X-Key', %s, 'cret', now())""",
            *(service.id, service.org, keyring.encrypt(secret, str(service.id))),
        )
    return service


async def last(level: Level) -> dict[str, Any]:
    return (await level.bazaar.rows("SELECT * FROM sla_probes ORDER BY id DESC LIMIT 1"))[0]


async def seen(level: Level, service: Service) -> Counts:
    now = level.clock.now()
    async with level.db.transaction(PLATFORM_SCOPE) as connection:
        return await counts.counts_of(connection, service.id, now.replace(hour=0), now.replace(hour=23))


async def test_a_health_path_is_asked_with_the_providers_credential(
    level: Level, keyring: Keyring, upstream: tuple[Upstream, int]
) -> None:
    told, port = upstream
    service = await listed(level, f"http://127.0.0.1:{port}/base", secret="s3cret", keyring=keyring)
    assert await level.prober.probe_due() == 1
    [(line, headers)] = told.asked
    assert line == "GET /base/health HTTP/1.1"
    assert (headers["x-key"], headers["host"]) == ("s3cret", f"127.0.0.1:{port}")
    probe = await last(level)
    assert (probe["good"], probe["counted"], probe["kind"]) == (True, True, "health")
    told.status = 503
    level.clock.advance(minutes=1)
    await level.prober.probe_due()
    probe = await last(level)
    assert (probe["good"], probe["detail"]) == (False, "/health answered 503")
    assert await seen(level, service) == Counts(probes_good=1, probes_bad=1)


async def test_a_service_is_probed_once_in_its_time(level: Level, upstream: tuple[Upstream, int]) -> None:
    await listed(level, f"http://127.0.0.1:{upstream[1]}")
    assert [await level.prober.probe_due() for _ in range(3)] == [1, 0, 0]
    level.clock.advance(seconds=55)
    assert await level.prober.probe_due() == 1


async def test_without_a_health_path_a_connection_is_made(level: Level, upstream: tuple[Upstream, int]) -> None:
    await listed(level, f"http://127.0.0.1:{upstream[1]}", health="")
    await level.prober.probe_due()
    assert (await last(level))["good"] and upstream[0].asked == []


async def test_a_service_is_well_while_one_of_its_endpoints_is(level: Level, upstream: tuple[Upstream, int]) -> None:
    await listed(level, "http://127.0.0.1:1", more=[f"http://127.0.0.1:{upstream[1]}"])
    await level.prober.probe_due()
    assert (await last(level))["good"]


async def test_a_sample_call_is_judged_by_its_answer_and_made_once(
    level: Level, upstream: tuple[Upstream, int]
) -> None:
    told, port = upstream
    service = await listed(level, f"http://127.0.0.1:{port}", health="")
    await level.promise(service, probe="sample")
    level.clock.advance(minutes=1)
    await level.prober.probe_due()
    assert (await last(level))["good"]
    told.body = b'{"output": []}'
    level.clock.advance(minutes=1)
    await level.prober.probe_due()
    assert not (await last(level))["good"]
    assert [line.split()[0] for line, _ in told.asked] == ["POST", "POST"]


async def test_nobody_is_probed_who_does_not_want_it_or_is_closed(level: Level, upstream: tuple[Upstream, int]) -> None:
    service = await listed(level, f"http://127.0.0.1:{upstream[1]}")
    await level.promise(service, probe="none")
    level.clock.advance(minutes=1)
    assert await level.prober.probe_due() == 0
    await level.bazaar.run("UPDATE services SET status = 'suspended' WHERE id = %s", service.id)
    assert await level.prober.probe_due() == 0, "the operator has suspended it"
    await level.bazaar.run(
        "INSERT INTO sla_suspensions (id, org_id, service_id, suspended_at, figures)"
        " VALUES (gen_random_uuid(), %s, %s, now(), '{}')",
        *(service.org, service.id),
    )
    assert await level.prober.probe_due() == 1, "it is suspended for its uptime: only probes can bring it back"


async def test_an_address_that_may_not_be_called_is_not_called(
    database: Any, clock: Any, keyring: Keyring, upstream: tuple[Upstream, int]
) -> None:
    level = open_level(database, clock, keyring)
    level.prober._allowed = ()
    await listed(level, f"http://127.0.0.1:{upstream[1]}")
    await level.prober.probe_due()
    probe = await last(level)
    assert not probe["good"] and "not a public address" in probe["detail"]
    assert upstream[0].asked == []


async def test_when_nobody_is_reached_it_is_our_own_network(level: Level) -> None:
    for number, host in enumerate(("127.0.0.1", "127.0.0.2", "127.0.0.3")):
        await listed(level, f"http://{host}:1", slug=f"s{number}")
    await level.prober.probe_due()
    rows = await level.bazaar.rows("SELECT good, counted FROM sla_probes")
    assert rows == [{"good": False, "counted": False}] * 3
    assert await level.bazaar.rows("SELECT FROM sla_slots") == []


async def test_when_one_is_reached_the_others_are_down(level: Level, upstream: tuple[Upstream, int]) -> None:
    for number, host in enumerate(("127.0.0.2", "127.0.0.3", "127.0.0.4")):
        await listed(level, f"http://{host}:1", slug=f"s{number}")
    upstream[0].status = 500
    await listed(level, f"http://127.0.0.1:{upstream[1]}", slug="there")
    await level.prober.probe_due()
    rows = await level.bazaar.rows("SELECT good, counted FROM sla_probes")
    assert rows == [{"good": False, "counted": True}] * 4, "somebody answered, if badly: the network is there"


async def test_probes_can_be_switched_off(database: Any, clock: Any, keyring: Keyring) -> None:
    level = open_level(database, clock, keyring, sla_probe_minutes=0)
    await listed(level, "http://127.0.0.1:1")
    assert await level.prober.probe_due() == 0


async def test_one_service_can_be_probed_at_once(level: Level, upstream: tuple[Upstream, int]) -> None:
    service = await listed(level, f"http://127.0.0.1:{upstream[1]}")
    assert (await level.prober.probe_now(service.id))["good"]
    assert (await level.prober.probe_now(service.id))["good"]
    other = await level.bazaar.service("say", "akshara")
    with pytest.raises(LookupError):
        await level.prober.probe_now(other.id)
