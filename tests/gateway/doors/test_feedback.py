"""Feedback at the gateway: handed to the control process in the caller's name, and answered as that answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import uvicorn
from msgspec import structs

from bazaar import Bazaar
from gateway.rig import Market
from haat.control.front import build_front
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.snapshot import Credential, Subscription
from haat.identity.policy import ApplicationPolicyDraft
from haat.infra.introduction import Introduced, Introductions
from haat.infra.postgres import Database
from haat.infra.rendezvous import FRONT, Rendezvous
from haat.kernel.permissions import Actor
from haat_client import AsyncHaat, NotFound
from office import Control, control

__all__ = ["control"]

MakeMarket = Callable[..., Awaitable[Market]]


class Shop:
    """A gateway with its control plane, and a consumer whose application calls through the one and is known to both."""

    def __init__(self, control: Control, market: Market, actor: Actor, application: str, key: str) -> None:
        self.control, self.market, self.actor, self.application, self.key = control, market, actor, application, key

    async def call(self) -> str:
        """Call the service and ship the record of it; return the request id."""
        response = await self.market.call(key=self.key)
        assert response.status == 200
        await self.market.until(lambda: len(self.market.confirmed()) == len(self.market.events()))
        request = response.header("x-request-id")
        [event] = [one for one in self.market.events() if one.id == request]
        clock = self.control.market.clock
        clock.advance(seconds=event.at / 1000 - clock.now().timestamp())
        await Bazaar(self.control.platform.service_db, clock).take(
            [structs.replace(event, service=str(uuid4()), subscription="")]
        )
        return event.id

    async def give(self, body: Any, key: str | None = None) -> Any:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.market.call("POST", "/v1/feedback", raw, key=key or self.key)


async def open_shop(control: Control, market: Market) -> Shop:
    actor = await control.market.consumer()
    application = await control.platform.identity.create_application(actor, f"app {uuid4()}")
    key = (await control.platform.identity.create_key(actor, application.id)).key
    app, directory = str(application.id), market.gateway.directory
    directory.put_credential(app, Credential(app, str(actor.org_id), app, market.keyring.hash_key(key), 0, 0, False))
    subscription = Subscription(app, str(actor.org_id), app, "service-echo", "basic", PlanLimits(), "Asia/Kolkata")
    directory.put_subscription(app, subscription)
    return Shop(control, market, actor, app, key)


@asynccontextmanager
async def served(application: Any, data_dir: Path) -> AsyncIterator[None]:
    """Take what the gateway hands on, as the control process does."""
    config = uvicorn.Config(application, log_level="error", lifespan="off", date_header=False)
    server, meeting = uvicorn.Server(config), Rendezvous(data_dir, FRONT)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve(sockets=[meeting.listen()]))
    yield
    server.should_exit = True
    await task
    meeting.close()


@pytest.fixture
async def lonely(control: Control, make_market: MakeMarket) -> Shop:
    """One whose control process does not run."""
    return await open_shop(control, await make_market())


@pytest.fixture
async def shop(lonely: Shop) -> AsyncIterator[Shop]:
    async with served(build_front(lonely.control.platform), lonely.market.gateway.settings.data_dir):
        yield lonely


@pytest.mark.speaks("haat feedback")
async def test_what_is_said_of_a_call_is_kept_with_its_version(shop: Shop) -> None:
    request = await shop.call()
    given = await shop.give({"request_id": request, "thumbs": "down", "corrected": "क", "answered": "क"})
    assert (given.status, given.json()) == (
        201, {"items": [{"request_id": request, "kept": ["thumbs", "corrected", "closeness"], "replaced": False}]},
    )  # fmt: skip
    again = await shop.give({"items": [{"request_id": request, "rating": 5}]})
    assert again.json()["items"][0]["replaced"] is True
    [kept] = (await shop.control.platform.feedback.given(shop.actor)).items
    assert (str(kept.request_id), kept.version, kept.rating, kept.thumbs) == (request, "1", 5, None)
    assert len(shop.market.events()) == 1, "feedback itself is not metered"


async def test_the_python_client_gives_feedback(shop: Shop) -> None:
    request = await shop.call()
    async with AsyncHaat(shop.key, base_url=f"http://127.0.0.1:{shop.market.port}") as client:
        said = await client.feedback(request, thumbs="up", comment="Just right")
        assert said.data["items"][0]["kept"] == ["thumbs", "comment"]
        with pytest.raises(NotFound):
            await client.feedback(str(uuid4()), rating=1)


async def test_the_documented_program_gives_feedback(shop: Shop) -> None:
    page = (Path(__file__).parents[3] / "docs" / "feedback.md").read_text(encoding="utf-8")
    [program] = re.findall(r"^```python feedback\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONIOENCODING": "utf-8", "HAAT_API_KEY": shop.key,
             "HAAT_BASE_URL": f"http://127.0.0.1:{shop.market.port}", "REQUEST_ID": await shop.call()},
    )  # fmt: skip
    out, errors = await child.communicate()
    assert out.decode().strip() == "['thumbs', 'corrected', 'closeness']", errors.decode()


async def test_a_call_of_another_application_or_of_nobody_is_404(shop: Shop) -> None:
    other = await open_shop(shop.control, shop.market)
    theirs = await other.call()
    for request in (theirs, str(uuid4())):
        refused = await shop.give({"request_id": request, "thumbs": "up"})
        assert (refused.status, refused.json()["errors"][0]["field"]) == (404, "request_id")
        assert refused.json()["request_id"] == refused.header("x-request-id")
        assert refused.header("content-type") == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, ""),
        (b"", 400, ""),
        (b"[" * 100_000, 400, ""),
        (b"[]", 422, ""),
        (b'{"request_id": 7}', 422, "request_id"),
        (b'{"request_id": "x", "thumbs": "up"}', 422, "request_id"),
        (b'{"request_id": "x", "thumbs": "maybe"}', 422, "thumbs"),
        (b'{"request_id": "x", "rating": 1e400}', 422, ""),
        (b'{"request_id": "x", "mood": 1}', 422, "mood"),
        (b'{"items": [{"thumbs": "up"}]}', 422, "items"),
        (b'{"items": {}}', 422, "items"),
        (b'{"request_id": "00000000-0000-7000-8000-000000000000", "comment": "\\ud800"}', 400, ""),
    ],
)  # fmt: skip
async def test_what_is_no_feedback_is_refused(shop: Shop, body: bytes, status: int, field: str) -> None:
    refused = await shop.give(body)
    assert refused.status in (status, 422), refused.body
    if field:
        assert field in refused.json()["errors"][0]["field"]


async def test_a_body_beyond_the_limit_is_refused_before_it_comes(shop: Shop) -> None:
    refused = await shop.give(b"x" * (1024 * 1024 + 1))
    assert (refused.status, refused.json()["limit_bytes"]) == (413, 1024 * 1024)


async def test_who_is_not_known_gives_no_feedback(shop: Shop) -> None:
    assert (await shop.give({"request_id": str(uuid4()), "thumbs": "up"}, key="nobody")).status == 401


async def test_what_a_client_sends_of_an_introduction_goes_nowhere(shop: Shop) -> None:
    other = await open_shop(shop.control, shop.market)
    theirs = await other.call()
    who = Introduced(str(other.actor.org_id), other.application, other.application, False, str(uuid4()))
    theirs_too = Introductions(shop.market.keyring).make(who, "POST", "/v1/feedback")
    lines = [f"{name}: {value}" for name, value in theirs_too]
    body = json.dumps({"request_id": theirs, "thumbs": "down"}).encode()
    refused = await shop.market.call("POST", "/v1/feedback", body, *lines, key=shop.key)
    assert refused.status == 404


async def test_texts_are_kept_only_where_the_data_policy_lets_them(shop: Shop) -> None:
    request, identity = await shop.call(), shop.control.platform.identity
    draft = ApplicationPolicyDraft.model_validate({"data": {"retains_inputs": False}})
    await identity.set_application_policy(shop.actor, UUID(shop.application), draft)
    given = await shop.give({"request_id": request, "corrected": "क", "answered": "क", "comment": "private"})
    assert given.json()["items"][0]["kept"] == ["closeness"]


async def test_without_a_control_process_only_feedback_is_refused(lonely: Shop) -> None:
    refused = await lonely.give({"request_id": str(uuid4()), "thumbs": "up"})
    assert (refused.status, refused.json()["code"]) == (503, "OVERLOADED")
    assert refused.header("retry-after")
    assert (await lonely.market.call(key=lonely.key)).status == 200


async def test_without_a_database_only_feedback_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    away = Database("postgresql://127.0.0.1:1/nowhere", max_size=1, min_size=0)
    away._pool.timeout = 0.3
    monkeypatch.setattr(shop.control.platform.identity, "_db", away)
    async with away:
        refused = await shop.give({"request_id": str(uuid4()), "thumbs": "up"})
    assert (refused.status, refused.json()["code"]) == (503, "OVERLOADED")
    assert refused.header("retry-after") and refused.json()["request_id"] == refused.header("x-request-id")
    assert (await shop.market.call(key=shop.key)).status == 200


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 201 Cre", b"x" * 100_000, None])
async def test_a_control_process_that_hangs_or_dies_is_503(
    lonely: Shop, says: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haat.gateway.doors.feedback.ANSWER_SECONDS", 0.3)
    gone = asyncio.Event()

    async def dies(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if says is None:
            await gone.wait()
        else:
            writer.write(says)
        writer.close()

    meeting = Rendezvous(lonely.market.gateway.settings.data_dir, FRONT)
    async with await asyncio.start_unix_server(dies, sock=meeting.listen()):
        refused = await lonely.give({"request_id": str(uuid4()), "comment": "x" * 2000})
        gone.set()
    meeting.close()
    assert (refused.status, refused.json()["code"], bool(refused.header("retry-after"))) == (503, "OVERLOADED", True)
    assert lonely.market.gateway.office.handed_on == 0


async def test_a_slow_control_process_holds_a_bounded_number(lonely: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haat.gateway.doors.handing.MOST_HANDED_ON", 20)
    release = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await send({"type": "http.response.start", "status": 201, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'{"items": []}'})

    office, body = lonely.market.gateway.office, {"request_id": str(uuid4()), "thumbs": "up"}
    async with served(slow, lonely.market.gateway.settings.data_dir):
        waiting = [asyncio.create_task(lonely.give(body)) for _ in range(20)]
        await lonely.market.until(lambda: office.handed_on == 20)
        refused = await lonely.give(body)
        assert (refused.status, bool(refused.header("retry-after"))) == (503, True)
        assert (await lonely.market.call(key=lonely.key)).status == 200
        waiting[0].cancel()
        release.set()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [one.status for one in done if not isinstance(one, BaseException)] == [201] * 19
        await lonely.market.until(lambda: office.handed_on == 0)


async def test_many_at_once_are_each_kept_once(shop: Shop) -> None:
    request = await shop.call()
    done = await asyncio.gather(*(shop.give({"request_id": request, "rating": 1 + one % 5}) for one in range(30)))
    assert {one.status for one in done} == {201}
    assert sum(not one.json()["items"][0]["replaced"] for one in done) == 1
