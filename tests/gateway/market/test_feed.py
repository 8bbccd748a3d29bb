"""The feed on a real PostgreSQL: loading, following, outliving its loss."""

from __future__ import annotations

import asyncio
import stat
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market import feed as feeds
from haat.gateway.market import snapshot_file, store
from haat.gateway.market.feed import Feed
from haat.gateway.market.snapshot import Credential, Directory, Position, Price
from haat.gateway.market.snapshot_file import SnapshotFile
from haat.gateway.upstreams.endpoints import Notice
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.kernel.events import DomainEvent
from haat.kernel.ids import new_id


class Facts:
    """Writes market facts and their events the way the domains do."""

    def __init__(self, database: Any, keyring: Keyring, clock: SetClock) -> None:
        self.database, self.keyring, self.clock = database, keyring, clock
        self.org, self.app, self.service, self.version = new_id(), new_id(), new_id(), new_id()
        self.partner = new_id()

    async def run(self, statement: str, *values: Any, event: tuple[str, str] | None = None) -> None:
        async with self.database.app.transaction(PLATFORM_SCOPE) as connection:
            await connection.execute(statement, values)
            if event is not None:
                stream, type = event
                await events.append(
                    connection, stream=stream, type=type, data={}, actor="test", org=None, at=self.clock.now()
                )

    async def market(self) -> None:
        now = self.clock.now()
        for identifier, kind in ((self.org, "consumer"), (self.partner, "provider")):
            await self.run(
                "INSERT INTO organisations (id, name, kind, created_at) VALUES (%s, %s, %s, %s)",
                identifier,
                kind,
                kind,
                now,
            )
        await self.run(
            "INSERT INTO applications (id, org_id, name, created_at) VALUES (%s, %s, 'app', %s)",
            self.app,
            self.org,
            now,
        )
        await self.run(
            "INSERT INTO partners (org_id, slug, company_name, email, contact_person, business_type, status,"
            " allowed_networks, created_at) VALUES (%s, 'acme', 'Acme', 'a@b.in', 'A', 'x', 'approved', %s, %s)",
            self.partner,
            ["127.0.0.0/8"],
            now,
        )
        await self.run(
            "INSERT INTO services (id, org_id, provider_slug, slug, name, category, status, status_at, unit,"
            " created_at) VALUES (%s, %s, 'acme', 'echo', 'Echo', 'nlp', 'published', %s, 'characters', %s)",
            self.service,
            self.partner,
            now,
            now,
            event=(f"service/{self.service}", "service.published"),
        )
        await self.run(
            "INSERT INTO service_versions (id, service_id, version, endpoint, dialect, max_units, is_default,"
            " accepted_at, created_at) VALUES (%s, %s, '1', 'http://127.0.0.1:9/x', 'http', 12.5, true, %s, %s)",
            self.version,
            self.service,
            now,
            now,
        )
        await self.run(
            "INSERT INTO provider_credentials (service_id, org_id, header, ciphertext, last_four, created_at)"
            " VALUES (%s, %s, 'X-Key', %s, 'cret', %s)",
            self.service,
            self.partner,
            self.keyring.encrypt("secret", str(self.service)),
            now,
        )

    async def key(self, text: str) -> UUID:
        identifier = new_id()
        await self.run(
            "INSERT INTO credentials (id, org_id, application_id, prefix, last_four, key_hash, created_at)"
            " VALUES (%s, %s, %s, 'p', 'four', %s, %s)",
            identifier,
            self.org,
            self.app,
            self.keyring.hash_key(text),
            self.clock.now(),
            event=(f"credential/{identifier}", "credential.created"),
        )
        return identifier

    async def subscribe(self, plan: str) -> UUID:
        identifier = new_id()
        await self.run(
            "INSERT INTO subscriptions (id, org_id, application_id, service_id, plan_id, status, started_at)"
            " VALUES (%s, %s, %s, %s, (SELECT id FROM plans WHERE code = %s), 'active', %s)",
            identifier,
            self.org,
            self.app,
            self.service,
            plan,
            self.clock.now(),
            event=(f"subscription/{identifier}", "subscription.created"),
        )
        return identifier


@pytest.fixture
async def facts(database: Any, keyring: Keyring, clock: SetClock) -> Facts:
    made = Facts(database, keyring, clock)
    await made.market()
    return made


@asynccontextmanager
async def following(
    facts: Facts, path: Path, directory: Directory | None = None
) -> AsyncIterator[tuple[Directory, list[bool]]]:
    directory, states = directory or Directory(), []
    feed = Feed(facts.database.service.dsn, directory, SnapshotFile(path, facts.keyring), states.append)
    task = asyncio.create_task(feed.run())
    try:
        async with asyncio.timeout(5):
            await feed.synced.wait()
        yield directory, states
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 3.0) -> float:
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # it happens in PostgreSQL
            await asyncio.sleep(0.002)
    return time.monotonic() - began


async def test_everything_is_loaded_at_the_start(facts: Facts, tmp_path: Path) -> None:
    await facts.key("k1")
    await facts.subscribe("basic")
    async with following(facts, tmp_path / "snapshot.bin") as (directory, _):
        service = directory.services["acme/echo"]
        assert (service.id, service.unit, service.networks) == (str(facts.service), "characters", ("127.0.0.0/8",))
        assert (service.versions[0].endpoint, service.versions[0].max_units) == ("http://127.0.0.1:9/x", "12.500000")
        assert service.default_version == "1"
        assert facts.keyring.decrypt(service.credential, service.id) == "secret"
        assert directory.credentials[facts.keyring.hash_key("k1")].application == str(facts.app)
        subscription = directory.subscriptions[str(facts.app), str(facts.service)]
        assert (subscription.plan, subscription.zone) == ("basic", "Asia/Kolkata")
        assert subscription.limits == PlanLimits(per_minute=60, quota_per_month=10_000, max_concurrent=16)


async def test_prices_in_force_and_to_come_are_known_and_a_new_one_arrives(facts: Facts, tmp_path: Path) -> None:
    async def set_price(version: int, plan: str | None, amount: str, after: timedelta) -> None:
        await facts.run(
            "INSERT INTO rate_cards (id, service_id, version, plan_code, unit, unit_price, free_units, provider_share,"
            " effective_from, created_at) VALUES (%s, %s, %s, %s, 'characters', %s, 0, 0.7, %s, %s)",
            new_id(),
            facts.service,
            version,
            plan,
            amount,
            facts.clock.now() + after,
            facts.clock.now(),
            event=(f"service/{facts.service}", "service.priced"),
        )

    await set_price(1, None, "0.5", timedelta(days=-9))
    await set_price(2, None, "0.25", timedelta(days=-3))
    async with following(facts, tmp_path / "snapshot.bin") as (directory, _):
        assert [card.unit_price for card in directory.services["acme/echo"].prices] == ["0.250000000000"]
        await set_price(1, "basic", "0.1", timedelta(days=3))
        await until(lambda: len(directory.services["acme/echo"].prices) == 2)
        service, at = directory.services["acme/echo"], int(facts.clock.now().timestamp()) * 1_000_000
        special = next(card for card in service.prices if card.plan == "basic")
        assert special == Price("basic", "characters", "0.100000000000", "0.000000", at + 3 * 86_400_000_000)


async def test_a_card_with_components_says_what_a_call_costs_at_most(facts: Facts, tmp_path: Path) -> None:
    asks = [
        {"model": "package", "meter": "urdu", "package_size": "100", "package_price": "7"},
        {"model": "graduated", "meter": "calls", "tiers": [{"up_to": None, "unit_price": "2", "flat": "3"}]},
        {"model": "flat", "amount": "300", "prorated": True},
    ]
    for name, aggregation, measure in (("urdu", "sum", "characters"), ("calls", "count", "requests")):
        await facts.run(
            "INSERT INTO meters (id, service_id, name, aggregation, measure, created_at)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            *(new_id(), facts.service, name, aggregation, measure, facts.clock.now()),
        )
    await facts.run(
        "INSERT INTO rate_cards (id, service_id, version, unit, unit_price, free_units, provider_share,"
        " effective_from, created_at, components) VALUES (%s, %s, 1, 'characters', 0.07, 0, 0.7, %s, %s, %s)",
        *(new_id(), facts.service, facts.clock.now() - timedelta(days=9), facts.clock.now(), Jsonb(asks)),
        event=(f"service/{facts.service}", "service.priced"),
    )
    async with following(facts, tmp_path / "snapshot.bin") as (directory, _):
        (card,) = directory.services["acme/echo"].prices
        assert not card.plain
        assert card.most == (("characters", "7", "100", "0"), ("calls", "2", "0", "3"))


async def test_a_revocation_is_in_force_within_a_fraction_of_a_second(facts: Facts, tmp_path: Path) -> None:
    async with following(facts, tmp_path / "snapshot.bin") as (directory, _):
        identifier = await facts.key("k1")
        key_hash = facts.keyring.hash_key("k1")
        await until(lambda: key_hash in directory.credentials)
        await facts.run(
            "UPDATE credentials SET revoked_at = %s WHERE id = %s",
            facts.clock.now(),
            identifier,
            event=(f"credential/{identifier}", "credential.revoked"),
        )
        took = await until(lambda: directory.credentials[key_hash].revoked_at > 0)
        assert took < 0.5


async def test_a_revocation_does_not_wait_for_somebodys_long_transaction(facts: Facts, tmp_path: Path) -> None:
    async with following(facts, tmp_path / "snapshot.bin") as (directory, _):
        async with facts.database.app.transaction(PLATFORM_SCOPE) as slow:
            await slow.execute("SELECT pg_current_xact_id()")
            before = directory.position
            identifier = await facts.key("k1")
            took = await until(lambda: facts.keyring.hash_key("k1") in directory.credentials)
            assert took < 0.5
            assert directory.position == before
        await until(lambda: directory.position != before)
        assert str(identifier) == directory.credentials[facts.keyring.hash_key("k1")].id


async def test_all_that_a_plan_allows_arrives_and_so_does_a_change_of_it(facts: Facts, tmp_path: Path) -> None:
    plan, changed = new_id(), PlanLimits(30, 400, 5000, 9000, 8, 5, 70, "tokens", "anniversary", True)
    await facts.run(
        "INSERT INTO plans (id, service_id, code, name, quota_per_day) VALUES (%s, %s, 'own', 'Own', 7)",
        plan,
        facts.service,
    )
    async with following(facts, tmp_path / "snapshot.bin") as (directory, _):
        await facts.subscribe("own")
        key = (str(facts.app), str(facts.service))
        await until(lambda: key in directory.subscriptions)
        assert directory.subscriptions[key].limits == PlanLimits(quota_per_day=7)
        assert directory.subscriptions[key].started_at == int(facts.clock.now().timestamp()) * 1_000_000
        await facts.run(
            "UPDATE plans SET per_minute = 30, per_hour = 400, per_day = 5000, quota_per_month = 9000, burst = 5,"
            " max_concurrent = 8, quota_per_day = 70, quota_unit = 'tokens', quota_reset = 'anniversary',"
            " overage = true WHERE id = %s",
            plan,
            event=(f"plan/{plan}", "plan.redefined"),
        )
        took = await until(lambda: directory.subscriptions[key].limits == changed)
        assert took < 1


async def test_plan_changes_cancellations_and_suspensions_arrive_one_by_one(facts: Facts, tmp_path: Path) -> None:
    async with following(facts, tmp_path / "snapshot.bin") as (directory, _):
        subscription, key = await facts.subscribe("free"), (str(facts.app), str(facts.service))
        await until(lambda: key in directory.subscriptions)
        await facts.run(
            "UPDATE subscriptions SET plan_id = (SELECT id FROM plans WHERE code = 'enterprise') WHERE id = %s",
            subscription,
            event=(f"subscription/{subscription}", "subscription.plan_changed"),
        )
        await until(lambda: directory.subscriptions[key].plan == "enterprise")
        await facts.run(
            "UPDATE subscriptions SET status = 'cancelled' WHERE id = %s",
            subscription,
            event=(f"subscription/{subscription}", "subscription.cancelled"),
        )
        await until(lambda: key not in directory.subscriptions)
        await facts.run(
            "UPDATE services SET status = 'suspended', status_reason = 'abuse' WHERE id = %s",
            facts.service,
            event=(f"service/{facts.service}", "service.suspended"),
        )
        await until(lambda: directory.services["acme/echo"].status == "suspended")
        await facts.run(
            "UPDATE services SET status = 'published' WHERE id = %s",
            facts.service,
            event=(f"service/{facts.service}", "service.published"),
        )
        await until(lambda: directory.services["acme/echo"].status == "published")
        await facts.run(
            "UPDATE partners SET status = 'suspended', reason = 'fraud' WHERE org_id = %s",
            facts.partner,
            event=(f"partner/{facts.partner}", "partner.suspended"),
        )
        await until(lambda: directory.services["acme/echo"].reason == "fraud")


async def test_the_feed_goes_on_after_its_connection_was_cut(
    facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(facts, tmp_path / "snapshot.bin") as (directory, states):
        await until(lambda: states == [True])
        async with await psycopg.AsyncConnection.connect(facts.database.owner_dsn, autocommit=True) as owner:
            await owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'haat-gateway-feed'"
            )
        await until(lambda: False in states)
        assert "acme/echo" in directory.services
        await facts.key("later")
        await until(lambda: facts.keyring.hash_key("later") in directory.credentials)
        assert states[-1] is True


async def test_the_snapshot_on_disk_serves_a_gateway_that_starts_without_postgres(facts: Facts, tmp_path: Path) -> None:
    path = tmp_path / "gateway" / "snapshot.bin"
    await facts.key("k1")
    async with following(facts, path):
        await until(path.exists)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"secret" not in path.read_bytes()
    kept = Directory(snapshot_file.load(path, facts.keyring))
    assert facts.keyring.hash_key("k1") in kept.credentials
    assert kept.services["acme/echo"].versions[0].version == "1"


async def test_a_gateway_that_starts_again_reads_only_what_has_changed(
    facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gateway" / "snapshot.bin"
    revoked = await facts.key("k1")
    async with following(facts, path) as (directory, _):
        await facts.key("k2")
        await until(lambda: facts.keyring.hash_key("k2") in directory.credentials)
        await until(lambda: path.exists() and snapshot_file.load(path, facts.keyring).position == directory.position)
    await facts.run(
        "UPDATE credentials SET revoked_at = %s WHERE id = %s",
        facts.clock.now(),
        revoked,
        event=(f"credential/{revoked}", "credential.revoked"),
    )

    async def everything(*_: Any) -> None:
        raise AssertionError("everything was read anew")

    monkeypatch.setattr(store, "load", everything)
    kept = Directory()
    snapshot_file.read_into(kept, path, facts.keyring)
    assert kept.credentials[facts.keyring.hash_key("k1")].revoked_at == 0
    async with following(facts, tmp_path / "other.bin", kept):
        assert kept.credentials[facts.keyring.hash_key("k1")].revoked_at > 0
        assert facts.keyring.hash_key("k2") in kept.credentials


@pytest.mark.parametrize("strange", ["history", "tables"])
async def test_a_snapshot_of_another_history_or_other_tables_is_read_anew(
    facts: Facts, tmp_path: Path, strange: str
) -> None:
    async with facts.database.service.transaction(PLATFORM_SCOPE) as connection:
        kept = Directory()
        await store.load(connection, kept)
    kept.put_credential("gone", Credential("gone", "o", "a", b"hash", 0, 0))
    if strange == "history":
        kept.position = Position(kept.position.xid, kept.position.seq, str(new_id()))
    else:
        kept.shape = "another"
    async with following(facts, tmp_path / "snapshot.bin", kept):
        assert kept.credentials == {}
        assert "acme/echo" in kept.services


async def test_a_revocation_is_not_lost_behind_thousands_of_unsettled_events(
    facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "READ_AT_ONCE", 10)
    async with following(facts, tmp_path / "snapshot.bin") as (directory, _):
        async with facts.database.app.transaction(PLATFORM_SCOPE) as slow:
            await slow.execute("SELECT pg_current_xact_id()")
            before = directory.position
            for number in range(25):
                await facts.key(f"k{number}")
            took = await until(lambda: facts.keyring.hash_key("k24") in directory.credentials)
            assert took < 0.5
            assert directory.position == before
        await until(lambda: directory.position != before and len(directory.credentials) == 25)


async def test_keys_without_the_scope_to_invoke_open_nothing(facts: Facts, tmp_path: Path) -> None:
    identifier = await facts.key("reader")
    await facts.run("UPDATE credentials SET scopes = '{read}' WHERE id = %s", identifier)
    async with facts.database.service.transaction(PLATFORM_SCOPE) as connection:
        assert await store.credential(connection, identifier) is None


async def test_a_key_is_known_as_a_test_key_by_its_record(facts: Facts, tmp_path: Path) -> None:
    tester, other = await facts.key("tester"), await facts.key("other")
    await facts.run("UPDATE credentials SET prefix = 'haat_test_abcd' WHERE id = %s", tester)
    await facts.run("UPDATE credentials SET prefix = 'haat_live_test' WHERE id = %s", other)
    async with facts.database.service.transaction(PLATFORM_SCOPE) as connection:
        found = [await store.credential(connection, identifier) for identifier in (tester, other)]
    assert [entry is not None and entry.test for entry in found] == [True, False]


async def test_polling_finds_what_no_notification_announced(
    facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(feeds, "CHANNEL", "nobody_speaks_here")
    async with following(facts, tmp_path / "snapshot.bin") as (directory, _):
        await facts.key("k1")
        await until(lambda: facts.keyring.hash_key("k1") in directory.credentials)


async def test_what_happens_to_endpoints_is_written_into_the_event_log_and_refreshes_nothing(
    facts: Facts, tmp_path: Path
) -> None:
    directory = Directory()
    notices: deque[Notice] = deque()
    feed = Feed(facts.database.service.dsn, directory, None, lambda _: None, notices, "gateway-3")
    task = asyncio.create_task(feed.run())
    async with asyncio.timeout(5):
        await feed.synced.wait()
    known = directory.services["acme/echo"]
    for number, what in enumerate(("breaker_opened", "breaker_closed")):
        notices.append(
            Notice(
                what,
                str(facts.service),
                str(facts.partner),
                "1",
                "http://127.0.0.1:9/x",
                1_800_000_000_000_000 + number,
            )
        )
    written: list[DomainEvent] = []
    async with asyncio.timeout(3):
        while len(written) < 2:
            async with facts.database.app.transaction(PLATFORM_SCOPE) as connection:
                written = await events.read_stream(connection, f"endpoint/{facts.service}")
                broken = await events.verify_chain(connection, f"endpoint/{facts.service}")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [event.type for event in written] == ["endpoint.breaker_opened", "endpoint.breaker_closed"]
    assert broken is None
    assert (written[0].actor, written[0].org, written[0].data["endpoint"]) == (
        "gateway-3",
        facts.partner,
        "http://127.0.0.1:9/x",
    )
    assert directory.services["acme/echo"] is known
