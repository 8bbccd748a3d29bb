"""The keeper on a real PostgreSQL: many gateways on one wallet, started anew, killed in the middle of calls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec import structs
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from bazaar import Bazaar, Subscription
from gateway.rig import APP, Client, Market, Provider, answer, close_market, open_market
from gateway.test_process import start
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.wallets.keeper import Keeper
from haat.identity.model import make_key
from haat.infra.keyring import Keyring
from haat.kernel.clock import SystemClock
from haat.kernel.permissions import PLATFORM
from haat.usage.shipper import Shipper
from haat.wallet.budgets import Budgets
from haat.wallet.model import Mode
from haat.wallet.service import Wallets

TAX = Decimal("0.18")
CALL = Decimal("1.18")
PATIENCE = 60.0


@dataclass
class Shop:
    """An organisation that pays ahead, and its wallet."""

    database: Any
    bazaar: Bazaar
    wallets: Wallets
    subscription: Subscription

    @property
    def org(self) -> UUID:
        return self.subscription.org

    async def held(self) -> Decimal:
        standing = await self.wallets.standing(PLATFORM, self.org)
        return standing.leased + standing.unbilled


@pytest.fixture
async def shop(database: Any) -> Shop:
    clock = SystemClock()
    bazaar = Bazaar(database.service, clock)  # type: ignore[arg-type]
    subscription = await bazaar.subscribe(await bazaar.organisation(), await bazaar.service(unit="requests", price="1"))
    wallets = Wallets(database.app, clock, TAX)
    await wallets.set_mode(PLATFORM, subscription.org, Mode.PREPAID)
    return Shop(database, bazaar, wallets, subscription)


@asynccontextmanager
async def kept(market: Market, dsn: str) -> AsyncIterator[Keeper]:
    """Run a gateway's keeper."""
    home = market.gateway.settings.data_dir / "gateway"
    home.mkdir(exist_ok=True)
    keeper = Keeper(dsn, market.gateway, home)
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await keeper.leave()


def sell(market: Market, shop: Shop, *, stops: tuple[str, ...] = (), prepaid: bool = True) -> None:
    """Let a gateway sell to the organisation at a rupee a call."""
    market.add_service("paid", price="1", subscribed=PlanLimits())
    directory = market.gateway.directory
    entry = directory.subscriptions[APP, "service-paid"]
    changed = structs.replace(entry, org=str(shop.org), prepaid=prepaid, stops=stops)
    directory.put_subscription(entry.id, changed)
    market.provider.behaviour = answer()


@pytest.fixture
async def gateways(tmp_path: Path, keyring: Keyring) -> AsyncIterator[Callable[[int], Awaitable[list[Market]]]]:
    """Makes gateways with a directory each, as on machines of their own."""
    made: list[Market] = []

    async def make(number: int) -> list[Market]:
        for one in range(number):
            folder = tmp_path / f"machine-{one}"
            folder.mkdir()
            made.append(await open_market(folder, keyring))
        return made

    yield make
    for market in made:
        await close_market(market)


async def calls(market: Market, number: int) -> list[int]:
    client = await market.connect()
    found = []
    for _ in range(number):
        await client.send(market.raw("POST", "/v1/services/acme/paid/x", b"hello"))
        response = await client.receive("POST")
        assert response is not None
        found.append(response.status)
    client.close()
    return found


async def test_a_first_call_waits_a_moment_and_is_served(
    shop: Shop, gateways: Callable[[int], Awaitable[list[Market]]]
) -> None:
    [market] = await gateways(1)
    sell(market, shop)
    await shop.wallets.top_up(PLATFORM, shop.org, Decimal("100.00"), key="a")
    async with kept(market, shop.database.service.dsn):
        began = time.monotonic()
        assert await calls(market, 1) == [200]
        assert time.monotonic() - began < 3
        assert await calls(market, 30) == [200] * 30
        assert await shop.held() >= 31 * CALL
    assert await shop.held() == 31 * CALL  # what was not drawn came back when the gateway left


async def test_many_gateways_spend_exactly_what_the_wallet_has(
    shop: Shop, gateways: Callable[[int], Awaitable[list[Market]]]
) -> None:
    markets = await gateways(5)
    await shop.wallets.top_up(PLATFORM, shop.org, Decimal("60.00"), key="a")
    async with contextlib.AsyncExitStack() as stack:
        for market in markets:
            sell(market, shop)
            await stack.enter_async_context(kept(market, shop.database.service.dsn))
        rounds = [asyncio.create_task(calls(market, 8)) for market in markets for _ in range(3)]
        found = [status for one in await asyncio.gather(*rounds) for status in one]
        served = found.count(200)
        assert set(found) == {200, 402}
        assert served * CALL <= Decimal(60)
        async with asyncio.timeout(PATIENCE):
            while served < 50:  # what others hold in vain comes back to the one that still serves
                served += (await calls(markets[0], 1)).count(200)
        assert await calls(markets[0], 3) == [402] * 3
    assert served == 50  # 50 × 1.18 = 59: for 51 there is not enough
    assert await shop.held() == 50 * CALL
    await shop.wallets.top_up(PLATFORM, shop.org, Decimal("5.00"), key="b")
    async with kept(markets[1], shop.database.service.dsn):
        await asyncio.sleep(0.6)  # a denial holds for half a second
        assert await calls(markets[1], 7) == [200] * 5 + [402] * 2


async def test_a_hard_budget_holds_at_several_gateways(
    shop: Shop, gateways: Callable[[int], Awaitable[list[Market]]]
) -> None:
    budget = await Budgets(shop.database.app, SystemClock()).set(
        PLATFORM, Decimal("12.00"), hard_stop=True, org=shop.org
    )
    markets = await gateways(2)
    async with contextlib.AsyncExitStack() as stack:
        for market in markets:
            sell(market, shop, stops=(str(budget.id),), prepaid=False)
            await stack.enter_async_context(kept(market, shop.database.service.dsn))
        found = [status for one in await asyncio.gather(*(calls(market, 15) for market in markets)) for status in one]
    assert set(found) == {200, 429}
    assert 10 <= found.count(200) <= 12


async def test_the_successor_of_a_machine_that_lost_its_memory_lets_the_old_lease_be_counted(
    shop: Shop, gateways: Callable[[int], Awaitable[list[Market]]], keyring: Keyring
) -> None:
    [market] = await gateways(1)
    sell(market, shop)
    await shop.wallets.top_up(PLATFORM, shop.org, Decimal("100.00"), key="a")
    folder = market.gateway.settings.data_dir
    home = folder / "gateway"
    home.mkdir(exist_ok=True)
    lost = Keeper(shop.database.service.dsn, market.gateway, home)
    connection: Any
    async with await AsyncConnection.connect(
        shop.database.service.dsn, autocommit=True, row_factory=dict_row
    ) as connection:
        assert lost._is_keeper()
        await lost._begin(connection)
        task = asyncio.create_task(calls(market, 3))
        while not task.done():
            await lost.serve(connection)
            await asyncio.sleep(0.01)
        assert await task == [200] * 3
        await lost.serve(connection)
    os.close(lost._lock)
    await close_market(market)
    assert await shop.held() > 3 * CALL
    again = await open_market(folder, keyring)
    async with kept(again, shop.database.service.dsn) as successor:
        await again.until(lambda: (home / "wallets.gateway").read_text().strip() == successor.name)
    assert await shop.held() > 3 * CALL  # its calls are in a journal that is not shipped
    await close_market(again)
    shipper = Shipper(shop.database.service, folder / "journal", SystemClock())
    while await shipper.ship_once():
        pass
    assert (await shop.wallets.standing(PLATFORM, shop.org)).leased == 0


async def test_a_gateway_killed_in_the_middle_of_calls_neither_spends_twice_nor_loses_money(
    cluster: Any, shop: Shop, tmp_path: Path
) -> None:
    provider = await Provider().start()
    await shop.wallets.top_up(PLATFORM, shop.org, Decimal("40.00"), key="a")
    (tmp_path / "secrets").mkdir(mode=0o700)
    shutil.copy(cluster.settings.data_dir / "secrets" / "master.key", tmp_path / "secrets" / "master.key")
    await shop.bazaar.run("UPDATE partners SET allowed_networks = '{127.0.0.0/8}'")
    service = shop.subscription.service
    await shop.bazaar.run(
        """INSERT INTO service_versions (id, service_id, version, endpoint, dialect, is_default, accepted_at,
               created_at)
           VALUES (gen_random_uuid(), %s, '1', %s, 'http', true, now(), now())""",
        *(service.id, f"http://127.0.0.1:{provider.port}"),
    )
    key = make_key()
    await shop.bazaar.run(
        """INSERT INTO credentials (id, org_id, application_id, prefix, last_four, key_hash, created_at)
           VALUES (gen_random_uuid(), %s, %s, 'haat_live_', 'four', %s, now())""",
        *(shop.org, shop.subscription.application, cluster.keyring.hash_key(key)),
    )
    target = f"/v1/services/{service.provider}/{service.slug}/x"
    confirmed = 0

    async def caller(port: int, number: int) -> list[int]:
        """Return the statuses of whole answers."""
        found = []
        with contextlib.suppress(ConnectionError):
            client = await Client.connect(port)
            with contextlib.closing(client):
                for _ in range(number):
                    lines = (
                        f"POST {target} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {key}\r\nContent-Length: 0\r\n\r\n"
                    )
                    await client.send(lines.encode())
                    response = await client.receive("POST")
                    if response is None or not response.whole:
                        break
                    found.append(response.status)
        return found

    slow = asyncio.Event()

    async def hang(*_: Any) -> bool:
        await slow.wait()
        return False

    try:
        async with running(tmp_path, shop.database.owner_dsn) as (child, port):
            found = await caller(port, 12)
            assert found == [200] * 12
            confirmed += 12
            provider.behaviour = hang
            hanging = [asyncio.create_task(caller(port, 1)) for _ in range(5)]
            async with asyncio.timeout(PATIENCE):
                while len(provider.requests) < 17:  # noqa: ASYNC110  # until they are in the middle
                    await asyncio.sleep(0.01)
            child.kill()
            await asyncio.to_thread(child.wait)
            assert await asyncio.gather(*hanging) == [[]] * 5
        provider.behaviour = answer()
        async with running(tmp_path, shop.database.owner_dsn) as (child, port):
            found = await caller(port, 40)
            confirmed += found.count(200)
            assert set(found) == {200, 402}
        shipper = Shipper(shop.database.service, tmp_path / "journal", SystemClock())
        while await shipper.ship_once():
            pass
        standing = await shop.wallets.standing(PLATFORM, shop.org)
        assert standing.unbilled == confirmed * CALL <= Decimal(40)
        assert standing.leased == 0
        assert confirmed == 33  # 33 × 1.18 = 38.94
    finally:
        slow.set()
        await provider.stop()


@asynccontextmanager
async def running(data_dir: Path, dsn: str) -> AsyncIterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a gateway process on a database."""
    ready = data_dir / "gateway" / "ready.json"
    ready.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "HAAT_DATA_DIR": str(data_dir),
        "HAAT_GATEWAY_PORT": "0",
        "HAAT_DATABASE_URL": dsn,
    }
    child = start(environment)
    try:
        async with asyncio.timeout(PATIENCE):
            while not ready.exists():  # it happens in another process
                assert child.poll() is None
                await asyncio.sleep(0.02)
        yield child, msgspec.json.decode(ready.read_bytes())["port"]
    finally:
        child.terminate()
        await asyncio.to_thread(child.wait, PATIENCE)
