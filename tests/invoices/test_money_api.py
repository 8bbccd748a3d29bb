"""The control API of the money path: exact numbers as texts, and nothing for strangers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from bazaar import Bazaar, Subscription, consumer, partner
from frontage import app_on
from haat.app import build_platform
from haat.control.context import current_actor
from haat.infra.keyring import Keyring
from haat.infra.mail import mail_for
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM, Actor
from haat.settings import Settings
from haat.usage.event import UsageEvent

MONTH = "2026-11"


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
async def subscription(bazaar: Bazaar) -> Subscription:
    return await bazaar.subscribe(await bazaar.organisation(), await bazaar.service(price="0.000000000003"))


@pytest.fixture
async def events(bazaar: Bazaar, subscription: Subscription) -> list[UsageEvent]:
    made = [bazaar.event(subscription, "1000000000.5", user="asha", tags={"team": "ops"}) for _ in range(3)]
    await bazaar.take(made)
    return made


@pytest.fixture
def app(database: Any, clock: SetClock, keyring: Keyring, tmp_path: Path) -> Any:
    settings = Settings(data_dir=tmp_path)
    return app_on(build_platform(settings, database.app, database.service, keyring, clock, mail_for(settings)))


@asynccontextmanager
async def signed_in(app: Any, actor: Actor) -> AsyncIterator[httpx.AsyncClient]:
    app.dependency_overrides[current_actor] = lambda: actor
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://haat.test/api/v1") as client:
        yield client


async def test_a_customer_reads_usage_cost_calls_and_a_calls_story(
    app: Any, subscription: Subscription, events: list[UsageEvent]
) -> None:
    async with signed_in(app, consumer(subscription.org)) as client:
        (service,) = (await client.get("/usage", params={"month": MONTH})).json()
        assert Decimal(service["units"]["characters"]) == Decimal("3000000001.5") and service["counts"]["calls"] == 3
        assert (await client.get("/usage/hours")).json()[0]["counts"]["completed"] == 3
        cost = (await client.get("/cost")).json()
        assert Decimal(cost["charges"][0]["amount"]) == Decimal("0.0090000000045") and cost["total"] == "0.01"
        page = (await client.get("/usage/calls", params={"limit": 2, "tag": "team=ops", "user": "asha"})).json()
        assert len(page["items"]) == 2 and page["items"][0]["characters"] == "1000000000.500000"
        rest = (await client.get("/usage/calls", params={"cursor": page["next"]})).json()
        assert len(rest["items"]) == 1 and rest["next"] is None
        story = (await client.get(f"/usage/calls/{events[0].id}")).json()
        assert story["billed"] and story["call"]["end_user"] == "asha" and story["invoice"] is None
        export = await client.get("/usage/calls.csv")
        assert export.headers["content-type"].startswith("text/csv") and len(export.text.splitlines()) == 4


async def test_the_operator_issues_and_settles_and_both_sides_read_it(
    app: Any, subscription: Subscription, events: list[UsageEvent], clock: SetClock
) -> None:
    clock.advance(seconds=(datetime(2026, 12, 1, 12, tzinfo=UTC) - clock.now()).total_seconds())
    async with signed_in(app, PLATFORM) as client:
        run = (await client.post("/invoices/runs", json={"period": MONTH})).json()
        assert [one["serial"] for one in run["issued"]] == ["HT/2627/000001"] and run["failed"] == []
        again = (await client.post("/invoices/runs", json={"period": MONTH})).json()
        assert (again["issued"], again["unchanged"]) == ([], 1)
        (settlement,) = (await client.post("/settlements/runs", json={"period": MONTH})).json()
        assert settlement["gross"] == "0.01"
    invoice = run["issued"][0]["id"]
    async with signed_in(app, consumer(subscription.org)) as client:
        assert [one["id"] for one in (await client.get("/invoices")).json()["items"]] == [invoice]
        assert (await client.get(f"/invoices/{invoice}")).json()["total"] == "0.01"
        document = (await client.get(f"/invoices/{invoice}/document")).json()
        assert document["lines"][0]["unit_price"] == "0.000000000003"
        (line,) = (await client.get(f"/invoices/{invoice}/lines")).json()
        calls = (await client.get(f"/invoice-lines/{line['id']}/calls")).json()
        assert sorted(one["id"] for one in calls["items"]) == sorted(event.id for event in events)
        assert (await client.get("/invoices/preview", params={"period": MONTH})).json()["lines"] == []
        assert (await client.get("/settlements")).status_code == 403
        assert (await client.post("/invoices/runs", json={"period": MONTH})).status_code == 403
    async with signed_in(app, partner(subscription.service.org)) as client:
        assert (await client.get("/settlements")).json()["items"][0]["id"] == settlement["id"]
        statement = (await client.get(f"/settlements/{settlement['id']}")).json()
        behind = (await client.get(f"/settlement-lines/{statement['lines'][0]['id']}/calls")).json()
        assert len(behind["items"]) == 3
        seen = (await client.get("/usage/provider", params={"month": MONTH})).json()
        assert seen["customers"][0]["pseudonym"] == statement["lines"][0]["customer"]
        assert (await client.get(f"/invoices/{invoice}")).status_code == 404


async def test_the_operator_closes_a_month_records_a_transfer_and_credits_through_the_api(
    app: Any, subscription: Subscription, events: list[UsageEvent], clock: SetClock
) -> None:
    billing = app.state.platform.billing
    async with signed_in(app, PLATFORM) as client:
        early = await client.post("/billing/runs", json={"period": MONTH})
        assert (early.status_code, early.json()["code"]) == (409, "CONFLICT")
        clock.advance(seconds=(datetime(2026, 12, 1, 12, tzinfo=UTC) - clock.now()).total_seconds())
        begun = await client.post("/billing/runs", json={"period": MONTH})
        assert begun.status_code == 202 and begun.json()["state"] == "billing" and begun.json()["progress"] == 0
        assert (await client.post("/billing/runs", json={"period": MONTH})).json() == begun.json()
        await billing.work(MONTH)
        done = (await client.get(f"/billing/runs/{MONTH}")).json()
        assert (done["state"], done["issued"], done["progress"]) == ("done", 1, 1)
        assert [one["period"] for one in (await client.get("/billing/runs")).json()] == [MONTH]
        (invoice,) = (await client.get("/invoices", params={"state": "issued"})).json()["items"]
        assert (invoice["kind"], invoice["owed"], invoice["due_on"]) == ("invoice", "0.01", "2026-12-16")
        (line,) = (await client.get(f"/invoices/{invoice['id']}/lines")).json()
        body = {"org_id": str(subscription.org), "amount": "0.01", "reference": "UTR 7"}
        paid = [await client.post("/payments", json=body) for _ in range(2)]
        assert {one.status_code for one in paid} == {201} and paid[0].json()["id"] == paid[1].json()["id"]
        assert (await client.get(f"/invoices/{invoice['id']}")).json()["state"] == "paid"
        (source,) = (await client.get(f"/invoices/{invoice['id']}/payments")).json()
        assert source["source"] == f"payment/{paid[0].json()['id']}"
        item = {"invoice_line": line["id"], "taxable": "0.01", "fault": "platform"}
        note = await client.post("/credit-notes", json={"key": "k", "reason": "goodwill", "items": [item]})
        assert (note.status_code, note.json()["serial"]) == (201, "HTC/2627/000001")
        refused = await client.post(f"/invoices/{invoice['id']}/void", json={"reason": "wrong address"})
        assert refused.status_code == 409
        debit = {"key": "d", "reason": "undercharged", "items": [{"invoice_line": line["id"], "taxable": "5.00"}]}
        added = (await client.post("/debit-notes", json=debit)).json()
        assert (added["kind"], added["against"], added["credited"]) == ("debit_note", invoice["id"], "0.01")
        correction = await client.post(f"/usage/calls/{events[0].id}/corrections", json={"reason": "a test of ours"})
        assert correction.status_code == 201 and correction.json()["replaced_by"] is None
        unknown = await client.post("/payments/card/messages", json={})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "NOT_FOUND")
        large = await client.post("/payments/card/messages", content=b"x" * 300_000)
        assert large.status_code == 413
    async with signed_in(app, consumer(subscription.org)) as client:
        assert (await client.get("/credit-notes")).json()["items"] == [note.json()]
        document = (await client.get(f"/credit-notes/{note.json()['id']}/document")).json()
        assert document["kind"] == "credit_note" and document["against"][0]["serial"] == invoice["serial"]
        assert len((await client.get(f"/credit-notes/{note.json()['id']}/lines")).json()) == 1
        assert (await client.get("/payments")).json()["items"][0]["reference"] == "UTR 7"
        story = (await client.get(f"/usage/calls/{events[0].id}")).json()
        assert story["invoice"]["serial"] == invoice["serial"]
        assert (await client.get("/billing/runs")).status_code == 403


async def test_a_stranger_gets_404_for_every_id_and_403_for_every_run(
    app: Any, bazaar: Bazaar, events: list[UsageEvent]
) -> None:
    stranger = consumer(await bazaar.organisation("Stranger"))
    async with signed_in(app, stranger) as client:
        for path in (
            f"/usage/calls/{events[0].id}",
            f"/invoices/{events[0].id}",
            f"/invoice-lines/{events[0].id}/calls",
        ):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
        assert (await client.get("/usage/calls")).json()["items"] == []
        ancient = await client.get("/usage/calls", params={"start": "0001-01-01T00:00:00Z"})
        assert ancient.json()["items"] == []
        for path, body in (
            ("/settlements/runs", {"period": MONTH}),
            ("/usage/quarantine/release", {"ids": [events[0].id]}),
            ("/usage/shipping/g0/skip", {"segment": 1}),
        ):
            assert (await client.post(path, json=body)).status_code == 403
        for path in ("/usage/quarantine", "/usage/shipping"):
            assert (await client.get(path)).status_code == 403


async def test_the_operator_sees_shipping_and_quarantine_and_can_act(app: Any, bazaar: Bazaar) -> None:
    subscription = await bazaar.subscribe(await bazaar.organisation(), await bazaar.service())
    late = bazaar.event(subscription, at=datetime(2026, 9, 1, tzinfo=UTC))
    await bazaar.take([late])
    async with signed_in(app, PLATFORM) as client:
        (aside,) = (await client.get("/usage/quarantine")).json()
        assert "35 days" in aside["reason"]
        answer = await client.post("/usage/quarantine/release", json={"ids": [aside["id"]]})
        assert answer.json() == {"rows": 1, "duplicates": 0, "quarantined": 0}
        again = await client.post("/usage/quarantine/release", json={"ids": [aside["id"]]})
        assert again.json() == {"rows": 0, "duplicates": 0, "quarantined": 0}
        assert (await client.post("/usage/shipping/g0/skip", json={"segment": 3})).status_code == 204
        assert (await client.get("/usage/shipping")).json()[0]["segment"] == 4


@pytest.mark.parametrize(
    "path",
    [
        "/usage?month=2026-13",
        "/usage/calls?cursor=%00",
        "/usage/calls?tag=none",
        "/usage/calls?start=2026-11-01T00:00:00",
        "/usage/calls?outcome=paid",
        "/usage/calls/not-an-id",
        "/invoices/preview?period=2026-00",
        "/invoices?period=soon",
    ],
)
async def test_malformed_questions_are_refused_with_a_reason(app: Any, bazaar: Bazaar, path: str) -> None:
    async with signed_in(app, consumer(await bazaar.organisation())) as client:
        answer = await client.get(path)
        assert answer.status_code in (400, 422) and answer.json()["detail"]
