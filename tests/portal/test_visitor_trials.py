"""Visitors try a service without an account: real calls at the operator's cost, few of them, and nothing kept."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from psycopg.types.json import Jsonb

from bazaar import call_id
from haat.app import Platform
from haat.catalog.drafts import PriceDraft, ServicePolicyDraft
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.portal import trial, trial_stream
from haat.portal.trial_stream import delta_of
from haat.portal.trial_visitors import APPLICATION, counted_address, may_be_tried
from haat.usage import intake
from haat.usage.event import VERSION, Outcome, Timings, UsageEvent
from haat.usage.intake import Record

from .conftest import Browser, faults_of
from .street import DEVELOPER, Street

LISTING = "/services/vani/hindi-urdu"
TRY = f"{LISTING}/try"
PUBLIC_ADDRESS = "8.8.4.4"


class Gateway:
    """Answers in the gateway's place, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.answer: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(
            200, json={"output": [{"text": "آپ کیسے ہیں؟"}]}, headers={"X-Haat-Units": "characters=12"}
        )

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answer(request)

    def body(self) -> Any:
        return json.loads(self.asked[-1].content)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    found = Gateway()
    httpx_here = SimpleNamespace(
        AsyncClient=partial(httpx.AsyncClient, transport=httpx.MockTransport(found)), HTTPError=httpx.HTTPError
    )
    for module in (trial, trial_stream):
        monkeypatch.setattr(module, "httpx", httpx_here)
    return found


@pytest.fixture
async def open_to_all(platform: Platform) -> Platform:
    platform.settings.portal_trial_visitors = "all"
    return platform


@pytest.fixture
async def visitor(app: FastAPI) -> AsyncIterator[Browser]:
    """A browser whose address is public, so that its calls are counted."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=(PUBLIC_ADDRESS, 5000))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://haat.test", headers={"accept": "text/html"}, follow_redirects=True
    ) as client:
        yield Browser(client)


async def test_a_visitor_calls_with_the_operators_key_and_sees_the_answer(
    street: Street, open_to_all: Platform, visitor: Browser, gateway: Gateway
) -> None:
    page = await visitor.get(LISTING)
    assert "A real call, free of charge: 20 a day." in page.text and faults_of(page.text) == []
    answer = await visitor.send(TRY, page=LISTING, **{"input.text": "नमस्ते", "pair": "hi-Deva>ur-Arab"})
    assert answer.status_code == 200 and "آپ کیسے ہیں؟" in answer.text and faults_of(answer.text) == []
    assert "This call&#39;s story" not in answer.text and "/account/calls/" not in answer.text
    [asked] = gateway.asked
    assert gateway.body() == {
        "input": [{"text": "नमस्ते"}], "config": {"source": "hi-Deva", "target": "ur-Arab"},
    }  # fmt: skip
    assert asked.headers["cache-control"] == "no-store", "what is typed stays in no cache"
    holder = await open_to_all.identity.holder_of(asked.headers["authorization"].removeprefix("Bearer "))
    operator = await open_to_all.identity.operator()
    assert operator is not None and holder.org_id == operator.id
    [application] = [one for one in await open_to_all.identity.applications(street.operator) if one.name == APPLICATION]
    assert holder.application_id == application.id
    [subscription] = await open_to_all.subscriptions.of(street.operator)
    assert (subscription.service_id, subscription.application_id) == (street.listings[0].id, application.id)


async def test_by_default_only_what_is_hosted_here_is_tried_and_off_means_off(
    street: Street, platform: Platform, visitor: Browser, gateway: Gateway
) -> None:
    listing = street.listings[0]
    [version] = await platform.discovery.versions(street.provider, listing.id)
    assert not may_be_tried(platform, listing, version)
    refused = await visitor.send(TRY, page=LISTING, **{"input.text": "नमस्ते"})
    assert refused.status_code == 403 and "sign up" in refused.text and gateway.asked == []
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        endpoint = f"{platform.settings.models_address}/vani/hindi-urdu%401"
        await connection.execute(
            "UPDATE service_versions SET endpoint = %s WHERE service_id = %s", (endpoint, listing.id)
        )
    [version] = await platform.discovery.versions(street.provider, listing.id)
    assert may_be_tried(platform, listing, version)
    assert (await visitor.send(TRY, page=LISTING, **{"input.text": "नमस्ते"})).status_code == 200
    platform.settings.portal_trial_visitors = "off"
    assert not may_be_tried(platform, listing, version)


async def test_a_provider_says_no_and_no_service_that_keeps_or_learns_or_has_a_fee_is_tried(
    street: Street, open_to_all: Platform, visitor: Browser, gateway: Gateway, clock: SetClock
) -> None:
    listing = street.listings[0]
    [version] = await open_to_all.discovery.versions(street.provider, listing.id)

    async def tried() -> bool:
        return may_be_tried(open_to_all, await open_to_all.discovery.listing(None, "vani", "hindi-urdu"), version)

    assert await tried()
    await open_to_all.catalog.set_policy(street.provider, listing.id, ServicePolicyDraft(visitors=False))
    assert not await tried()
    refused = await visitor.send(TRY, page=LISTING, **{"input.text": "नमस्ते"})
    assert refused.status_code == 403 and gateway.asked == []
    await open_to_all.catalog.set_policy(street.provider, listing.id, ServicePolicyDraft())
    assert await tried()
    for column in ("retains_inputs", "trains"):
        async with open_to_all.service_db.transaction(PLATFORM_SCOPE) as connection:
            await connection.execute(f"UPDATE services SET {column} = true WHERE id = %s", (listing.id,))
        assert not await tried()
        async with open_to_all.service_db.transaction(PLATFORM_SCOPE) as connection:
            await connection.execute(f"UPDATE services SET {column} = false WHERE id = %s", (listing.id,))
    fee = {
        "components": [{"model": "flat", "amount": "10"}, {"model": "unit", "meter": "characters", "unit_price": "1"}]
    }
    clock.advance(minutes=1)
    await open_to_all.catalog.set_price(street.provider, listing.id, PriceDraft.parse(fee))
    assert not await tried()


async def test_an_address_has_so_many_calls_a_day_and_more_the_next(
    street: Street, open_to_all: Platform, visitor: Browser, gateway: Gateway, clock: SetClock
) -> None:
    open_to_all.settings.portal_trial_address_calls = 2
    for _ in range(2):
        assert (await visitor.send(TRY, page=LISTING, **{"input.text": "नमस्ते"})).status_code == 200
    refused = await visitor.send(TRY, page=LISTING, **{"input.text": "नमस्ते"})
    assert refused.status_code == 429 and "Sign up to go on, or come back tomorrow." in refused.text
    assert faults_of(refused.text) == [] and len(gateway.asked) == 2
    clock.advance(days=1)
    assert (await visitor.send(TRY, page=LISTING, **{"input.text": "नमस्ते"})).status_code == 200


async def test_a_service_has_so_many_calls_a_day_also_at_once_and_after_a_restart(
    street: Street, open_to_all: Platform, browser: Browser, gateway: Gateway, app: FastAPI
) -> None:
    open_to_all.settings.portal_trial_service_calls = 5
    token = await browser.token(LISTING)
    form = {"form_token": token, "input.text": "नमस्ते"}
    answers = await asyncio.gather(*(browser.client.post(TRY, data=form) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 7
    assert len(gateway.asked) == 5
    portal = app.state.portal
    [application] = await open_to_all.identity.applications(street.operator)
    portal.visitor_trials._day = ""
    assert (await browser.client.post(TRY, data=form)).status_code == 200, "nothing was metered here"
    await _metered(open_to_all, street, application.id, 5)
    portal.visitor_trials._day = ""
    assert (await browser.client.post(TRY, data=form)).status_code == 429


async def _metered(platform: Platform, street: Street, application: Any, calls: int) -> None:
    at, chance, listing = round(platform.clock.now().timestamp() * 1000), random.Random(3), street.listings[0]
    events = [
        UsageEvent(
            id=str(call_id(at, chance)), at=at, outcome=Outcome.COMPLETED, v=VERSION, org=str(street.operator.org_id),
            application=str(application), credential=str(application), subscription=str(application),
            plan="professional", provider=listing.provider_slug, provider_org=str(listing.org_id),
            service=str(listing.id), service_slug=listing.slug, version="1", method="POST", path_template="/invoke",
            status=200, units={"requests": "1"}, units_source="counted", timings_us=Timings(total=900), bytes_in=1,
            bytes_out=1, gateway="g2",
        )
        for _ in range(calls)
    ]  # fmt: skip
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        await intake.take(
            connection, [Record(e, "tries", 1, n + 1) for n, e in enumerate(events)], platform.clock.now()
        )


@pytest.mark.parametrize(
    ("path", "fields", "files", "field", "sentence"),
    [
        ("hindi-urdu", {"input.text": "x" * 2001}, {}, "input.text", "Enter at most 2,000 characters."),
        ("hindi-urdu", {"pair": "xx>yy"}, {}, "pair", "Choose one of the list."),
        ("read-image", {}, {"input.image": b"<svg onload=alert(1)>"}, "input.image", "This is no picture."),
        ("read-image", {}, {"input.image": b"\x89PNG\r\n\x1a\n" + b"x" * 1024 * 1024}, "input.image", "too large"),
        ("commands", {}, {"input.audio": b"MZ\x90\x00 not a sound"}, "input.audio", "This is no recording."),
    ],
)
async def test_what_is_too_large_or_no_such_thing_is_refused_at_its_field(
    street: Street, open_to_all: Platform, visitor: Browser, gateway: Gateway,
    path: str, fields: dict[str, str], files: dict[str, bytes], field: str, sentence: str,
) -> None:  # fmt: skip
    page = f"/services/vani/{path}"
    answer = await visitor.client.post(
        f"{page}/try",
        data={"form_token": await visitor.token(page), **fields},
        files={name: (f"{name}.bin", content) for name, content in files.items()} or None,
    )
    assert answer.status_code == 422 and gateway.asked == []
    said = answer.text[answer.text.index(f'id="{field}-error"') :]
    assert sentence in said[: said.index("</span>")]
    assert faults_of(answer.text) == []


async def test_a_recording_goes_on_as_it_is(
    street: Street, open_to_all: Platform, visitor: Browser, gateway: Gateway
) -> None:
    page = "/services/vani/commands"
    sound = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(28)
    answer = await visitor.client.post(
        f"{page}/try",
        data={"form_token": await visitor.token(page)},
        files={"input.audio": ("recording.wav", sound, "audio/wav")},
    )
    assert answer.status_code == 200
    audio = gateway.body()["input"][0]["audio"]
    assert base64.b64decode(audio["content"]) == sound and audio["format"] == "wav"


async def speak_as_chat(platform: Platform, street: Street) -> None:
    sample = {
        "method": "POST",
        "path": "/chat/completions",
        "body": {"messages": [{"role": "user", "content": "Hello"}]},
    }
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute(
            "UPDATE service_versions SET dialect = 'openai', sample = %s WHERE service_id = %s",
            (Jsonb(sample), street.listings[0].id),
        )


async def test_a_chat_is_shown_as_it_is_made_and_raw_requests_are_nobodys(
    street: Street, open_to_all: Platform, visitor: Browser, gateway: Gateway
) -> None:
    await speak_as_chat(open_to_all, street)
    events = [{"choices": [{"delta": {"content": piece}}]} for piece in ("The <b>", "market", " opens.")]
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    gateway.answer = lambda _: httpx.Response(
        200, text=lines, headers={"content-type": "text/event-stream", "x-request-id": "r1"}
    )
    page = await visitor.get(LISTING)
    assert f'data-streams="{TRY}/stream"' in page.text and "Your message" in page.text
    form = {"form_token": await visitor.token(LISTING), "message": "When?", "body": '{"max_tokens": 999999}'}
    answer = await visitor.client.post(f"{TRY}/stream", data=form, headers={"hx-request": "true"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = [event.split("\ndata: ") for event in answer.text.strip().split("\n\n")]
    assert [(name, json.loads(data)) for name, data in told[:-1]] == [
        ("event: text", "The <b>"), ("event: text", "market"), ("event: text", " opens."),
    ]  # fmt: skip
    assert told[-1][0] == "event: done" and "The &lt;b&gt;market opens." in json.loads(told[-1][1])
    assert gateway.body() == {
        "messages": [{"role": "user", "content": "When?"}], "max_tokens": 200, "stream": True,
    }  # fmt: skip
    gateway.answer = lambda _: httpx.Response(200, json={"choices": [{"message": {"content": "At ten."}}]})
    whole = await visitor.send(TRY, page=LISTING, message="When?")
    assert "At ten." in whole.text and "stream" not in gateway.body()


async def test_a_refused_stream_is_an_outcome_and_a_broken_one_says_so(
    street: Street, open_to_all: Platform, visitor: Browser, gateway: Gateway
) -> None:
    await speak_as_chat(open_to_all, street)
    form = {"form_token": await visitor.token(LISTING), "message": "When?"}
    gateway.answer = lambda _: httpx.Response(
        429, json={"title": "Too many", "detail": "Wait.", "code": "RATE_LIMITED"}
    )
    refused = await visitor.client.post(f"{TRY}/stream", data=form)
    assert "Too many" in refused.text and refused.text.startswith("event: done")
    form["message"] = "x" * 2001
    long = await visitor.client.post(f"{TRY}/stream", data=form)
    assert long.headers["content-type"].startswith("text/html") and "Enter at most 2,000 characters." in long.text
    plain = await visitor.client.post("/services/vani/speak/try/stream", data=form)
    assert plain.status_code == 404


async def test_the_landing_page_has_a_form_to_try_at_once(
    street: Street, open_to_all: Platform, visitor: Browser, browser_for: Any
) -> None:
    page = await visitor.get("/")
    assert "Try one at once" in page.text and f'action="{TRY}#try"' in page.text and faults_of(page.text) == []
    assert "blob:" not in page.headers["content-security-policy"]
    recording = await visitor.get("/services/vani/commands")
    assert "media-src 'self' data: blob:" in recording.headers["content-security-policy"]
    assert "data-records" in recording.text and "script-src" not in recording.headers["content-security-policy"]
    assert "Try one at once" not in (await (await browser_for(DEVELOPER)).get("/")).text
    open_to_all.settings.portal_trial_visitors = "off"
    assert "Try one at once" not in (await visitor.get("/")).text


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("8.8.4.4", "8.8.4.4"), ("127.0.0.1", ""), ("10.1.2.3", ""), (None, ""), ("nonsense", ""),
        ("2001:4860:4860:1:2:3:4:5", "2001:4860:4860:1::/64"), ("::ffff:8.8.4.4", "8.8.4.4"), ("::1", ""),
    ],
)  # fmt: skip
def test_addresses_are_counted_by_network_and_private_ones_not_at_all(address: str | None, counted: str) -> None:
    assert counted_address(address) == counted


@pytest.mark.parametrize(
    "data", ["", "[DONE]", "[" * 100_000, "{}", '{"choices": 3}', '{"choices": [{"delta": null}]}']
)
def test_an_event_that_says_nothing_adds_nothing(data: str) -> None:
    assert delta_of(data) == ""
