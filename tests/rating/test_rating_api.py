"""Meters, prices and simulations over the control API: numbers as texts, and a reason for what is refused."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bazaar import Bazaar, Subscription, consumer, partner
from frontage import app_on
from haat.app import build_platform
from haat.infra.keyring import Keyring
from haat.infra.mail import mail_for
from haat.kernel.clock import SetClock, month_period
from haat.settings import Settings
from invoices.test_money_api import signed_in
from rating.stalls import price

LAST = month_period(2026, 10, "Asia/Kolkata")
TIERS = [{"up_to": "100", "unit_price": "0.05"}, {"unit_price": "0.02", "flat": "1"}]


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
async def subscription(bazaar: Bazaar) -> Subscription:
    sold = await bazaar.subscribe(await bazaar.organisation(), await bazaar.service(price="0.05"))
    await bazaar.take([bazaar.event(sold, "150", at=LAST.end - timedelta(days=2))])
    return sold


@pytest.fixture
def app(database: Any, clock: SetClock, keyring: Keyring, tmp_path: Path) -> Any:
    settings = Settings(data_dir=tmp_path)
    return app_on(build_platform(settings, database.app, database.service, keyring, clock, mail_for(settings)))


async def test_a_provider_defines_a_meter_sets_a_card_on_it_and_buyers_see_both(
    app: Any, subscription: Subscription
) -> None:
    service = subscription.service
    path = f"/services/{service.id}"
    urdu = {"name": "urdu", "measure": "characters", "filter": {"language_pairs": ["hi>ur"]}}
    parts = [{"model": "graduated", "meter": "urdu", "tiers": TIERS}, {"model": "flat", "amount": "99"}]
    async with signed_in(app, partner(service.org)) as client:
        assert (await client.post(f"{path}/meters", json=urdu)).status_code == 201
        assert (await client.post(f"{path}/meters", json=urdu)).json()["code"] == "ALREADY_EXISTS"
        made = await client.post(f"{path}/prices", json={"components": parts, "minimum": "120"})
        assert made.json() == {"version": 2}
        view = (await client.get(f"/listings/{service.provider}/{service.slug}")).json()
        assert (await client.get(f"{path}/meters")).json() == [{"aggregation": "sum", "less": [], **urdu}]
    assert [one["model"] for one in view["prices"][0]["components"]] == ["graduated", "flat"]
    assert view["prices"][0]["components"][0]["tiers"][0] == {"up_to": "100", "unit_price": "0.05", "flat": "0"}
    assert view["prices"][0]["minimum"] == view["listing"]["minimum"] == "120.000000000000"
    assert view["listing"]["unit_price"] == "0.050000000000"


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ({}, "unit_price"),
        ({"unit_price": 0.1}, "binary fractions"),
        ({"unit_price": "-1"}, "greater than or equal to 0"),
        ({"unit_price": "1", "currency": "USD"}, "two currencies"),
        ({"unit_price": "1", "effective_from": "2026-01-01T00:00:00Z"}, "still to come"),
        ({"unit_price": "1", "components": [{"model": "flat", "amount": "1"}]}, "not both"),
        ({"components": [{"model": "unit", "meter": "words", "unit_price": "1"}]}, "no meter called"),
        ({"components": [{"model": "unit", "meter": "pages", "unit_price": 0.5}]}, "binary fractions"),
        ({"components": [{"model": "flat", "amount": "1"}] * 2}, "two prices on fee"),
        ({"components": [{"model": "flat", "amount": "9999999999999"}]}, "digits|below"),
        ({"components": [{"model": "package", "meter": "pages", "package_size": "0", "package_price": "1"}]}, "holds"),
        ({"components": [{"model": "volume", "meter": "pages", "tiers": TIERS[:1]}]}, "no end"),
        ({"components": [{"model": "volume", "meter": "pages", "tiers": [*TIERS, *TIERS]}]}, "overlap"),
    ],
)
async def test_a_card_that_can_not_be_charged_is_refused_with_its_reason(
    app: Any, subscription: Subscription, bazaar: Bazaar, card: dict[str, Any], reason: str
) -> None:
    service = subscription.service
    async with signed_in(app, partner(service.org)) as client:
        answer = await client.post(f"/services/{service.id}/prices", json=card)
    assert answer.status_code == 422, answer.text
    assert re.search(reason, " ".join(one["message"] for one in answer.json()["errors"])), answer.text
    assert len(await bazaar.rows("SELECT id FROM rate_cards")) == 1, "nothing half done"


async def test_a_price_may_begin_later_and_the_next_one_not_before_it(app: Any, subscription: Subscription) -> None:
    path = f"/services/{subscription.service.id}/prices"
    async with signed_in(app, partner(subscription.service.org)) as client:
        later = {"unit_price": "1", "effective_from": "2026-12-01T00:00:00+05:30"}
        assert (await client.post(path, json=later)).status_code == 201
        refused = await client.post(path, json={"unit_price": "2"})
        own = await client.post(path, json={"unit_price": "2", "plan_code": "basic"})
        history = (await client.get(path)).json()
    assert refused.status_code == 409 and "overlap" in refused.json()["detail"]
    assert own.status_code == 201, "a plan's own prices follow each other by themselves"
    assert [(one["plan_code"], one["version"]) for one in history] == [(None, 2), ("basic", 1), (None, 1)]


async def test_the_running_cost_says_how_each_amount_comes_together(
    app: Any, subscription: Subscription, bazaar: Bazaar
) -> None:
    began = bazaar.clock.now() - timedelta(days=200)
    await price(bazaar, subscription.service, {"model": "flat", "amount": "0"}, minimum="50", at=began)
    await bazaar.run("UPDATE subscriptions SET started_at = %s", LAST.start)
    await bazaar.take([bazaar.event(subscription, "20")])
    async with signed_in(app, consumer(subscription.org)) as client:
        cost = (await client.get("/cost")).json()
    assert Decimal(cost["total"]) == 50
    assert [(one["kind"], one["unit"]) for one in cost["charges"]] == [("minimum", "months")]
    assert [step["label"] for step in cost["charges"][0]["steps"]] == ["minimum", "come to"]


async def test_a_customer_asks_what_last_month_would_have_cost(app: Any, subscription: Subscription) -> None:
    body = {
        "service_id": str(subscription.service.id),
        "card": {"components": [{"model": "graduated", "meter": "characters", "tiers": TIERS}]},
    }
    async with signed_in(app, consumer(subscription.org)) as client:
        found = (await client.post("/rating/simulations", json=body)).json()
        without = await client.post("/rating/simulations", json={"service_id": str(subscription.service.id)})
    assert (found["period"], found["present"], found["simulated"], found["difference"]) == (
        "2026-10",
        "7.50",
        "7.00",
        "-0.50",
    )
    [customer] = found["customers"]
    assert customer["customer"] == str(subscription.org)
    assert customer["charges"][0]["steps"] == [
        {"label": "tier 1", "quantity": "100", "price": "0.05", "amount": "5"},
        {"label": "tier 2", "quantity": "50", "price": "0.02", "amount": "1"},
        {"label": "tier 2 begins", "quantity": "1", "price": "1", "amount": "1"},
    ]
    assert without.status_code == 422
