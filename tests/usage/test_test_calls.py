"""Calls of test keys in the store: seen one by one, and in nothing that counts, costs or is earned."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from bazaar import Bazaar, Subscription, consumer, partner
from haat.gateway.limits import store
from haat.gateway.limits.recovery import COUNTED
from haat.infra.postgres import PLATFORM_SCOPE
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM
from haat.rating.service import Rating
from haat.settings import Settings
from haat.settlement.service import Settlements
from haat.usage.event import Outcome, UsageEvent
from haat.usage.model import CallFilter, Pseudonyms
from haat.usage.service import Usage

MONTH = "2026-11"


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def usage(database: Any, clock: SetClock) -> Usage:
    return Usage(database.app, clock, Pseudonyms(bytes(32)))


@pytest.fixture
async def subscription(bazaar: Bazaar) -> Subscription:
    return await bazaar.subscribe(await bazaar.organisation(), await bazaar.service(price="1"))


def written(event: UsageEvent) -> UsageEvent:
    """Return a test call as the gateway writes it."""
    return msgspec.structs.replace(event, mode="test", subscription="", provider_org="")


def careless(event: UsageEvent) -> UsageEvent:
    """Return one that names its subscription and who earns: its mode alone must do."""
    return msgspec.structs.replace(event, mode="test")


def unknown(event: UsageEvent) -> UsageEvent:
    """Return a call of a mode that a newer release invented."""
    return msgspec.structs.replace(event, mode="rehearsal")


FORMS = [written, careless, unknown]


async def test_the_call_is_found_with_its_units_and_costs_nothing(
    bazaar: Bazaar, usage: Usage, subscription: Subscription
) -> None:
    events = [form(bazaar.event(subscription, "7")) for form in FORMS]
    assert (await bazaar.take(events)).rows == 3
    asha = consumer(subscription.org)
    page = await usage.calls(asha, CallFilter(mode="test"))
    assert {str(row["id"]) for row in page.items} == {event.id for event in events}
    assert {row["mode"] for row in page.items} == {"test"}
    assert (await usage.calls(asha, CallFilter(mode="live"))).items == []
    for row in page.items:
        story = await usage.call(asha, row["id"])
        assert story.units["characters"] == 7
        assert (story.billed, story.list_charge, story.invoice, story.settlement) == (False, None, None, None)


@pytest.mark.parametrize("form", FORMS)
async def test_rollups_know_nothing_of_it(bazaar: Bazaar, usage: Usage, subscription: Subscription, form: Any) -> None:
    await bazaar.take([form(bazaar.event(subscription)), bazaar.event(subscription), form(bazaar.event(subscription))])
    asha, period = consumer(subscription.org), await usage.month(PLATFORM, MONTH)
    [service] = await usage.summary(asha, period)
    assert (service.counts.calls, service.units["characters"]) == (1, 10)
    assert [hour.counts.calls for hour in await usage.hourly(asha, period)] == [1]
    earned = await usage.provider_summary(partner(subscription.service.org), period)
    assert [one.counts.calls for one in (*earned.services, *earned.customers)] == [1, 1]


async def test_the_provider_sees_no_call_that_never_reached_it(
    bazaar: Bazaar, usage: Usage, subscription: Subscription
) -> None:
    event = written(bazaar.event(subscription))
    await bazaar.take([event])
    rows = await bazaar.rows("SELECT provider_org, subscription_id, mode FROM usage")
    assert rows == [{"provider_org": None, "subscription_id": None, "mode": "test"}]


@pytest.mark.parametrize("form", FORMS)
async def test_it_is_on_no_invoice_and_in_no_settlement(
    bazaar: Bazaar, subscription: Subscription, clock: SetClock, database: Any, form: Any
) -> None:
    invoices = Invoices(database.app, clock, Settings())
    settlements = Settlements(database.app, clock, Pseudonyms(bytes(32)), invoices)
    live = bazaar.event(subscription, "10")
    await bazaar.take([form(bazaar.event(subscription, "1000")), live, form(bazaar.event(subscription, "1000"))])
    asha = consumer(subscription.org)
    assert (await Rating(database.app, clock).live(asha)).total == 10
    assert (await invoices.preview(asha, MONTH)).draft.net == 10
    clock.advance(seconds=(datetime(2026, 12, 1, 12, tzinfo=UTC) - clock.now()).total_seconds())
    [invoice] = (await invoices.issue_all(PLATFORM, MONTH)).issued
    assert invoice.net == 10
    [line] = await invoices.lines(PLATFORM, invoice.id)
    assert (line["calls"], line["quantity"]) == (1, 10)
    assert [str(call.id) for call in (await invoices.calls(asha, line["id"])).items] == [live.id]
    [settlement] = await settlements.close_all(PLATFORM, MONTH)
    assert (settlement.gross, settlement.provider) == (10, 7)


@pytest.mark.parametrize("form", FORMS)
async def test_who_only_tests_gets_no_invoice_at_all(
    bazaar: Bazaar, subscription: Subscription, clock: SetClock, database: Any, form: Any
) -> None:
    await bazaar.take(
        [form(bazaar.event(subscription, outcome=one)) for one in (Outcome.COMPLETED, Outcome.CLIENT_LEFT)]
    )
    clock.advance(seconds=(datetime(2026, 12, 1, 12, tzinfo=UTC) - clock.now()).total_seconds())
    run = await Invoices(database.app, clock, Settings()).issue_all(PLATFORM, MONTH)
    assert (run.issued, run.failed) == ([], [])


async def test_what_was_used_of_quotas_and_rates_before_a_restart_leaves_it_out(
    bazaar: Bazaar, subscription: Subscription, clock: SetClock, database: Any
) -> None:
    await bazaar.take([bazaar.event(subscription), *[form(bazaar.event(subscription)) for form in FORMS]])
    since = clock.now() - timedelta(hours=1)
    async with database.service.transaction(PLATFORM_SCOPE) as connection:
        [used] = await store.used_since(connection, since, COUNTED, ["characters"])
        [admitted] = await store.admitted_since(connection, since, 60)
    assert (used.calls, used.units["characters"], admitted.calls) == (1, "10.000000", 1)
