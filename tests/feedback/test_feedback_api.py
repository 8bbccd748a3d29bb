"""Feedback over HTTP: with an application's key to give, with a session to look."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from bazaar import Bazaar
from haat.identity import store
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.permissions import Actor, Role
from office import Control


class Caller:
    """An organisation with an application, its key, and calls."""

    def __init__(self, control: Control, actor: Actor, application: UUID, key: str) -> None:
        self.control, self.actor, self.application, self.key = control, actor, application, key

    @classmethod
    async def make(cls, control: Control) -> Caller:
        actor = await control.market.consumer()
        application = await control.platform.identity.create_application(actor, "Storefront")
        issued = await control.platform.identity.create_key(actor, application.id, name="k")
        return cls(control, actor, application.id, issued.key)

    async def give(self, body: Any, **headers: str) -> httpx.Response:
        return await self.control.ask(
            "POST", "/feedback", body, headers=headers or {"Authorization": f"Bearer {self.key}"}
        )


@pytest.fixture
async def caller(control: Control) -> Caller:
    return await Caller.make(control)


async def call_of(caller: Caller, bazaar: Bazaar) -> str:
    found = await bazaar.subscribe(caller.actor.org_id, await bazaar.service(f"s{uuid4().hex[:6]}"))  # type: ignore[arg-type]
    made = bazaar.event(found, at=bazaar.clock.now() - timedelta(hours=1))
    made.application = str(caller.application)
    await bazaar.take([made])
    return made.id


async def test_one_opinion_and_many(caller: Caller, bazaar: Bazaar, control: Control) -> None:
    first, second = [await call_of(caller, bazaar) for _ in range(2)]
    one = await caller.give({"request_id": first, "thumbs": "up"})
    assert (one.status_code, one.json()) == (
        201, {"items": [{"request_id": first, "kept": ["thumbs"], "replaced": False}]},
    )  # fmt: skip
    items = [{"request_id": first, "rating": 4}, {"request_id": second, "corrected": "क", "answered": "ख"}]
    many = await caller.give({"items": items}, **{"X-API-Key": caller.key})
    assert [(item["kept"], item["replaced"]) for item in many.json()["items"]] == [
        (["rating"], True), (["corrected", "closeness"], False),
    ]  # fmt: skip
    listed = (await control.ask("GET", "/feedback?limit=1", actor=caller.actor)).json()
    assert listed["items"][0]["request_id"] == max(first, second) and listed["next"]
    assert (await control.ask("DELETE", f"/feedback/{first}", actor=caller.actor)).status_code == 204


async def test_the_provider_reads_what_was_said_and_what_it_comes_to(
    caller: Caller, bazaar: Bazaar, control: Control
) -> None:
    request = await call_of(caller, bazaar)
    await caller.give({"request_id": request, "thumbs": "up", "rating": 5})
    [service] = await bazaar.rows("SELECT service_id, provider_org FROM usage WHERE id = %s", UUID(request))
    member = await control.market.consumer(kind="provider")
    provider = Actor(member.user_id, service["provider_org"], Role.PARTNER_ADMIN)
    async with control.platform.db.transaction(PLATFORM_SCOPE) as connection:
        assert member.user_id and provider.org_id
        await store.add_membership(connection, member.user_id, provider.org_id, provider.role, bazaar.clock.now())
    [received] = (await control.ask("GET", "/feedback/received", actor=provider)).json()["items"]
    assert (received["request_id"], received["rating"], received["application_id"]) == (request, 5, None)
    path = f"/feedback/outcomes?service_id={service['service_id']}"
    [outcome] = (await control.ask("GET", path, actor=provider)).json()
    assert outcome["version"] == "1"
    assert outcome["thumbs"] == {"count": 1, "sum": 1.0, "sum_squares": 1.0, "mean": 1.0, "variance": None}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "request_id"),
        ({"thumbs": "up"}, "request_id"),
        ({"request_id": "no", "thumbs": "up"}, "request_id"),
        ({"request_id": str(uuid4())}, "thumbs"),
        ({"request_id": str(uuid4()), "thumbs": "sideways"}, "thumbs"),
        ({"request_id": str(uuid4()), "rating": 4.5}, "rating"),
        ({"request_id": str(uuid4()), "rating": True}, "rating"),
        ({"request_id": str(uuid4()), "rating": 10**30}, "rating"),
        ({"request_id": str(uuid4()), "corrected": "x" * 10_001}, "corrected"),
        ({"request_id": str(uuid4()), "comment": "\0"}, "comment"),
        ({"request_id": str(uuid4()), "thumbs": "up", "mood": "good"}, "mood"),
        ({"items": []}, "items"),
        ({"items": [{"request_id": str(uuid4()), "thumbs": "up"}] * 101}, "items"),
        ({"items": [{"request_id": str(uuid4()), "thumbs": "up"}], "rating": 5}, "items"),
        ({"items": [{"request_id": str(uuid4()), "rating": 9}]}, "items.0.rating"),
        ({"items": [{"request_id": str(uuid4())}]}, "items.0.thumbs"),
        ([], ""),
    ],
)
async def test_what_is_no_feedback_is_refused_by_its_field(caller: Caller, body: Any, field: str) -> None:
    answer = await caller.give(body)
    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_FAILED"), answer.text
    assert answer.json()["errors"][0]["field"].startswith(field)


async def test_a_request_that_is_none_of_ours_is_404(caller: Caller, bazaar: Bazaar, control: Control) -> None:
    other = await Caller.make(control)
    theirs = await call_of(other, bazaar)
    for request in (theirs, str(uuid4())):
        answer = await caller.give({"request_id": request, "thumbs": "up"})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (404, "request_id")
    assert (await other.give({"request_id": theirs, "thumbs": "up"})).status_code == 201


async def test_only_a_key_that_opens_something_gives_feedback(caller: Caller, control: Control) -> None:
    body = {"request_id": str(uuid4()), "thumbs": "up"}
    for headers in ({"X": "y"}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer nonsense"},
                    {"Authorization": f"Bearer {await control.token(caller.actor)}"}):  # fmt: skip
        assert (await caller.give(body, **headers)).status_code == 401
    [credential] = await control.platform.identity.keys(caller.actor, caller.application)
    await control.platform.identity.revoke_key(caller.actor, credential.id)
    revoked = await caller.give(body)
    assert (revoked.status_code, revoked.json()["code"]) == (401, "REVOKED_CREDENTIAL")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?service_id=x",
        "?service_id={id}&since=yesterday",
        "?service_id={id}&since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
    ],
)
async def test_outcomes_need_a_service_and_a_time(control: Control, query: str) -> None:
    provider = await control.market.provider("vani")
    answer = await control.ask("GET", "/feedback/outcomes" + query.format(id=uuid4()), actor=provider)
    assert answer.status_code == 422
