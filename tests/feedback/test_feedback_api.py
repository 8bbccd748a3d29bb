"""Feedback over HTTP: given by whom the gateway introduces, looked at with a session."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from bazaar import Bazaar
from haat.control.front import build_front
from haat.identity import store
from haat.infra.introduction import Introduced, Introductions
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor, Role
from office import Control


class Caller:
    """An organisation with an application, as the gateway knows it, and calls."""

    def __init__(self, control: Control, actor: Actor, application: UUID) -> None:
        self.control, self.actor, self.application = control, actor, application

    @classmethod
    async def make(cls, control: Control) -> Caller:
        actor = await control.market.consumer()
        application = await control.platform.identity.create_application(actor, "Storefront")
        return cls(control, actor, application.id)

    def introduction(self, path: str = "/v1/feedback") -> dict[str, str]:
        who = Introduced(str(self.actor.org_id), str(self.application), str(uuid4()), False, str(new_id()))
        return dict(Introductions(self.control.platform.keyring).make(who, "POST", path))

    async def give(self, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        transport = httpx.ASGITransport(build_front(self.control.platform))
        async with httpx.AsyncClient(transport=transport, base_url="http://control") as front:
            content = body if isinstance(body, bytes) else json.dumps(body)
            return await front.post("/v1/feedback", content=content, headers=headers or self.introduction())


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
    many = await caller.give({"items": items})
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


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'{"comment": "\\ud800"}', b"\xff", b'{"rating": NaN}'])
async def test_what_is_no_json_is_refused(caller: Caller, body: bytes) -> None:
    answer = await caller.give(body)
    assert (answer.status_code, answer.json()["code"]) == (400, "MALFORMED_JSON")


async def test_a_request_that_is_none_of_ours_is_404(caller: Caller, bazaar: Bazaar, control: Control) -> None:
    other = await Caller.make(control)
    theirs = await call_of(other, bazaar)
    for request in (theirs, str(uuid4())):
        answer = await caller.give({"request_id": request, "thumbs": "up"})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (404, "request_id")
    assert (await other.give({"request_id": theirs, "thumbs": "up"})).status_code == 201


async def test_only_whom_the_gateway_introduces_gives_feedback(caller: Caller, control: Control) -> None:
    body = {"request_id": str(uuid4()), "thumbs": "up"}
    issued = await control.platform.identity.create_key(caller.actor, caller.application)
    forged = caller.introduction() | {"x-haat-caller-signature": "0" * 64}
    for headers in ({"X": "y"}, {"Authorization": f"Bearer {issued.key}"}, caller.introduction("/v1/jobs"), forged,
                    {"Authorization": f"Bearer {await control.token(caller.actor)}"}):  # fmt: skip
        assert (await caller.give(body, headers)).status_code == 401
    unknown = await Caller(control, caller.actor, uuid4()).give(body)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "NOT_FOUND")
    for headers in ({"Authorization": f"Bearer {issued.key}"}, caller.introduction("/api/v1/feedback")):
        assert (await control.ask("POST", "/feedback", body, headers=headers)).status_code == 405


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
