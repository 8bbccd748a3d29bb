"""Budgets: told once at each threshold, whose calls count, and what the portal and the API say of them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from bazaar import Bazaar, Subscription, consumer
from haat.gateway.market import store
from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE
from haat.infra.projections import rebuild
from haat.kernel.clock import SetClock
from haat.kernel.errors import NotFound, ValidationFailed
from haat.kernel.events import DomainEvent
from haat.kernel.permissions import PLATFORM
from haat.wallet.budgets import Budgets
from haat.wallet.jobs import mail_organisation
from haat.wallet.model import Mode
from haat.wallet.projection import WALLETS
from office import Control

HUNDRED, GIVEN = Decimal("100.00"), Decimal("250.50")


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def budgets(database: Any, clock: SetClock) -> Budgets:
    return Budgets(database.app, clock)


async def sold(bazaar: Bazaar, price: str = "1", **more: Any) -> Subscription:
    return await bazaar.subscribe(await bazaar.organisation(), await bazaar.service(price=price, **more))


async def told(database: Any, org: Any) -> list[DomainEvent]:
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        found = await events.read_stream(connection, f"wallet/{org}")
    return [event for event in found if event.type == "budget.reached"]


async def test_each_threshold_is_an_event_once_a_month(
    database: Any, bazaar: Bazaar, budgets: Budgets, clock: SetClock
) -> None:
    subscription = await sold(bazaar)
    me = consumer(subscription.org)
    await budgets.set(me, HUNDRED, hard_stop=False)
    for quantity, thresholds in (("49", []), ("2", [50]), ("49", [50, 80, 100]), ("400", [50, 80, 100])):
        await bazaar.take([bazaar.event(subscription, quantity)])
        await budgets.review()
        assert await budgets.review() == 0
        found = await told(database, subscription.org)
        assert [event.data["threshold"] for event in found] == thresholds
    [standing] = await budgets.standing(me)
    assert (standing.spent, standing.told, standing.name) == (500, [50, 80, 100], "the whole organisation")
    clock.advance(days=12)
    await bazaar.take([bazaar.event(subscription, "60", at=datetime(2026, 12, 2, tzinfo=UTC))])
    assert await budgets.review() == 1
    assert (await told(database, subscription.org))[-1].data["period"] == "2026-12"


async def test_usage_of_a_months_last_minutes_is_noticed_in_the_next(
    bazaar: Bazaar, budgets: Budgets, clock: SetClock
) -> None:
    subscription = await sold(bazaar)
    await budgets.set(consumer(subscription.org), HUNDRED, hard_stop=False)
    clock.advance(days=10)  # 1 December
    await bazaar.take([bazaar.event(subscription, "55", at=datetime(2026, 11, 30, 18, tzinfo=UTC))])
    assert await budgets.review() == 1


async def test_free_units_and_other_peoples_calls_reach_nothing(bazaar: Bazaar, budgets: Budgets) -> None:
    subscription = await sold(bazaar, free="80")
    other = await bazaar.subscribe(subscription.org, subscription.service)
    me = consumer(subscription.org)
    await budgets.set(me, HUNDRED, hard_stop=False, application=subscription.application)
    await budgets.set(me, HUNDRED, hard_stop=False, subscription=other.id)
    await bazaar.take([bazaar.event(subscription, "120")])
    assert await budgets.review() == 0
    assert [one.spent for one in await budgets.standing(me)] == [40, 0]
    await bazaar.take([bazaar.event(other, "135")])
    assert await budgets.review() == 1


async def test_another_amount_begins_anew_and_the_same_one_changes_nothing(
    database: Any, bazaar: Bazaar, budgets: Budgets
) -> None:
    subscription = await sold(bazaar)
    me = consumer(subscription.org)
    first = await budgets.set(me, HUNDRED, hard_stop=False)
    await bazaar.take([bazaar.event(subscription, "60")])
    assert await budgets.review() == 1
    assert await budgets.set(me, HUNDRED, hard_stop=False) == first
    assert await budgets.review() == 0
    second = await budgets.set(me, Decimal("70.00"), hard_stop=True)
    assert second.id == first.id
    assert await budgets.review() == 2
    await budgets.remove(me, first.id)
    assert await budgets.standing(me) == []
    assert await budgets.review() == 0
    connection: Any
    async with await AsyncConnection.connect(database.owner_dsn, row_factory=dict_row) as connection:
        assert not any(one.missing or one.surplus for one in await rebuild(connection, [WALLETS], repair=False))


async def test_what_is_no_budget_is_refused(bazaar: Bazaar, budgets: Budgets) -> None:
    mine, other = await sold(bazaar), await sold(bazaar, slug="other")
    me = consumer(mine.org)
    for amount in ("0", "-5", "0.005"):
        with pytest.raises(ValidationFailed):
            await budgets.set(me, Decimal(amount), hard_stop=True)
    with pytest.raises(ValidationFailed):
        await budgets.set(me, HUNDRED, hard_stop=True, application=mine.application, subscription=mine.id)
    theirs = await budgets.set(consumer(other.org), HUNDRED, hard_stop=True)
    for refused in (
        budgets.set(me, HUNDRED, hard_stop=True, application=other.application),
        budgets.set(me, HUNDRED, hard_stop=True, subscription=other.id),
        budgets.set(me, HUNDRED, hard_stop=True, org=other.org),
        budgets.remove(me, theirs.id),
        budgets.standing(me, other.org),
    ):
        with pytest.raises(NotFound):
            await refused


async def test_the_members_get_a_mail(control: Control) -> None:
    me = await control.market.consumer()
    assert me.org_id is not None
    platform = control.platform
    budget = await platform.budgets.set(me, HUNDRED, hard_stop=True)
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        event = await events.append(
            connection,
            stream=f"wallet/{me.org_id}",
            type="budget.reached",
            data={
                "budget": str(budget.id),
                "period": "2026-11",
                "threshold": 100,
                "spent": "1234.50",
                "amount": "1000.00",
                "hard_stop": True,
                "name": "the whole organisation",
            },
            actor="platform",
            org=me.org_id,
            at=platform.clock.now(),
        )
    await mail_organisation(platform, event)
    [mail] = platform.mail.sent  # type: ignore[attr-defined]
    assert mail["subject"] == "100 % of a budget is spent"
    assert "₹1,234.50" in mail["text"] and "calls are refused" in mail["text"]


async def test_the_api_tops_up_and_tells(control: Control) -> None:
    operator, me = await control.market.operator(), await control.market.consumer()
    grant = {"org": str(me.org_id), "amount": "250.50", "key": "upi-1", "expires_at": "2027-01-01T00:00:00+05:30"}
    first = await control.ask("POST", "/wallet/top-ups", grant, actor=operator)
    again = await control.ask("POST", "/wallet/top-ups", grant, actor=operator)
    assert first.status_code == again.status_code == 201
    assert first.json()["id"] == again.json()["id"]
    changed = await control.ask("POST", "/wallet/top-ups", {**grant, "amount": "1"}, actor=operator)
    assert changed.status_code == 409
    mode = {"org": str(me.org_id), "mode": "prepaid"}
    assert (await control.ask("PUT", "/wallet/mode", mode, actor=operator)).status_code == 204
    seen = (await control.ask("GET", "/wallet", actor=me)).json()
    assert (seen["mode"], Decimal(seen["balance"]), Decimal(seen["available"])) == ("prepaid", GIVEN, GIVEN)
    moves = (await control.ask("GET", "/wallet/movements", actor=me)).json()
    assert [(one["kind"], one["amount"]) for one in moves["items"]] == [("paid", "250.50")]
    made = await control.ask("PUT", "/wallet/budgets", {"amount": "99.00", "hard_stop": True}, actor=me)
    listed = (await control.ask("GET", "/wallet/budgets", actor=me)).json()
    assert [one["budget"]["id"] for one in listed] == [made.json()["id"]]
    gone = await control.ask("DELETE", f"/wallet/budgets/{made.json()['id']}", actor=me)
    assert gone.status_code == 204
    wrong = await control.ask("PUT", "/wallet/budgets", {"amount": "NaN"}, actor=me)
    assert wrong.status_code == 422


async def test_the_gateways_snapshot_knows_who_pays_ahead_and_what_stops(control: Control, database: Any) -> None:
    bazaar = Bazaar(database.service, control.platform.clock)  # type: ignore[arg-type]
    one = await sold(bazaar)
    two = await bazaar.subscribe(one.org, one.service)
    await control.platform.wallets.set_mode(PLATFORM, one.org, Mode.PREPAID)
    await control.platform.wallets.set_mode(PLATFORM, one.org, Mode.POSTPAID, two.id)
    whole = await control.platform.budgets.set(consumer(one.org), HUNDRED, hard_stop=True)
    part = await control.platform.budgets.set(consumer(one.org), HUNDRED, hard_stop=True, application=two.application)
    await control.platform.budgets.set(consumer(one.org), HUNDRED, hard_stop=False, application=one.application)
    async with database.service.transaction(PLATFORM_SCOPE) as connection:
        first, second = [await store.subscription(connection, each.id) for each in (one, two)]
    assert first is not None and second is not None
    assert (first.prepaid, first.stops) == (True, (str(whole.id),))
    assert (second.prepaid, second.stops) == (False, tuple(sorted((str(whole.id), str(part.id)))))
