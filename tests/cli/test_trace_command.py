"""`haat trace`: from a request id to the last paisa, for a person and for a program."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bazaar import Bazaar, Subscription
from desk import MONTH, Desk
from haat.cli import trace as module
from haat.cli.main import haat
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.usage.event import Outcome
from haat.usage.model import Pseudonyms
from haat.usage.service import Usage
from rating.stalls import price

PARTS: tuple[dict[str, Any], ...] = (
    {"model": "package", "meter": "characters", "package_size": "7", "package_price": "1.01"},
    {"model": "unit", "meter": "requests", "unit_price": "0.25"},
)


@pytest.fixture
def desk(database: Any, clock: SetClock) -> Desk:
    return Desk(database, Bazaar(database.service, clock), Invoices(database.app, clock, Settings()), clock)


@pytest.fixture
def run(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    platform = SimpleNamespace(db=desk.database.app, usage=Usage(desk.database.app, desk.clock, Pseudonyms(bytes(32))))
    loop = asyncio.get_event_loop()

    def on_platform(_: Any, use: Callable[[Any], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(use(platform), loop).result()

    monkeypatch.setattr(module, "on_platform", on_platform)

    async def asked(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, haat, ["trace", *arguments])

    return asked


async def a_subscription(desk: Desk) -> Subscription:
    service = await desk.bazaar.service(price=None)
    await price(desk.bazaar, service, *PARTS)
    return await desk.bazaar.subscribe(await desk.bazaar.organisation(), service)


async def test_it_says_what_a_call_used_and_what_it_bears_of_each_line(desk: Desk, run: Callable[..., Any]) -> None:
    subscription = await a_subscription(desk)
    first, second = desk.bazaar.event(subscription, "10"), desk.bazaar.event(subscription, "4.5")
    await desk.bazaar.take([first, second])
    assert "It is on no invoice yet." in (await run(first.id)).output
    desk.close_month()
    await desk.invoices.issue(PLATFORM, MONTH, subscription.org)
    said = (await run(first.id)).output
    assert "vani/speak, basic: completed, 200" in said and "Used: 1 request, 10 characters" in said
    assert "2026-11 requests: 1 request, ₹0.25 of the line's ₹0.50: HT/2627/000001 line " in said
    assert "2026-11 characters: 10 characters, ₹2.0896" in said and "line's ₹3.03" in said
    assert "Together ₹2.3396" in said
    told = json.loads((await run(second.id, "--json")).output)
    assert {one["meter"] for one in told["portions"]} == {"characters", "requests"} and told["billed"]


async def test_a_call_that_is_not_billed_and_one_that_there_is_not(desk: Desk, run: Callable[..., Any]) -> None:
    subscription = await a_subscription(desk)
    event = desk.bazaar.event(subscription, outcome=Outcome.PROVIDER_FAILED, status=502)
    await desk.bazaar.take([event])
    assert "It is not billed." in (await run(event.id)).output
    missing = await run(str(subscription.id))
    assert missing.exit_code == 1 and "There is no such call" in missing.output
