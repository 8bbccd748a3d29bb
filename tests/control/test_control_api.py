"""What every answer of the control API has, and what it never shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg_pool import PoolTimeout

from haat.control.problems import MAX_API_BODY, MAX_BODY, RequestContext
from haat.kernel.permissions import PLATFORM, Role
from market import PASSWORD, draft
from office import Control

SIGN_IN = {"email": "asha@example.in", "password": PASSWORD}
ACCOUNT = {**SIGN_IN, "name": "Asha", "organisation": "Rao Traders"}


def _problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a whole problem document, and return it."""
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code), body
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert UUID(body["request_id"]).version == 7
    assert body["type"] == "urn:haat:problem:" + code.lower().replace("_", "-")
    assert body["title"] and body["detail"] and body["instance"] == answer.request.url.path
    assert "Traceback" not in answer.text and "psycopg" not in answer.text and "/src/" not in answer.text
    return dict(body)


# --- accounts over HTTP -------------------------------------------------------------------------


async def test_a_visitor_signs_up_and_works_with_an_application_and_its_keys(control: Control) -> None:
    answer = await control.ask("POST", "/accounts", ACCOUNT)
    assert answer.status_code == 201 and answer.json()["role"] == "api_consumer"
    headers = {"Authorization": f"bearer {answer.json()['token']}"}
    assert (await control.ask("GET", "/me", headers=headers)).json()["name"] == "Asha"
    application = (await control.ask("POST", "/applications", {"name": "app"}, headers=headers)).json()
    path = f"/applications/{application['id']}/keys"
    made = await control.ask("POST", path, {"mode": "test", "expires_at": "2027-01-01T00:00:00+05:30"}, headers=headers)
    assert made.status_code == 201 and made.json()["key"].startswith("haat_test_")
    credential = made.json()["credential"]
    assert credential["expires_at"] == "2026-12-31T18:30:00Z"
    listed = await control.ask("GET", path, headers=headers)
    assert made.json()["key"] not in listed.text and [key["id"] for key in listed.json()] == [credential["id"]]
    assert (await control.ask("POST", f"/keys/{credential['id']}/rotate", {}, headers=headers)).status_code == 201
    assert (await control.ask("DELETE", f"/keys/{credential['id']}", headers=headers)).status_code == 204
    assert [app["name"] for app in (await control.ask("GET", "/applications", headers=headers)).json()] == ["app"]
    assert (await control.ask("DELETE", "/sessions/current", headers=headers)).status_code == 204
    _problem(await control.ask("GET", "/me", headers=headers), 401, "UNAUTHENTICATED")


async def test_a_session_ends_with_its_time(control: Control) -> None:
    await control.ask("POST", "/accounts", ACCOUNT)
    token = (await control.ask("POST", "/sessions", SIGN_IN)).json()["token"]
    control.market.clock.advance(hours=12)
    answer = await control.ask("GET", "/listings", headers={"Authorization": f"Bearer {token}"})
    _problem(answer, 401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"] == 'Bearer realm="haat"'


async def test_the_portals_cookie_opens_nothing_in_the_api(control: Control) -> None:
    await control.ask("POST", "/accounts", ACCOUNT)
    token = (await control.ask("POST", "/sessions", SIGN_IN)).json()["token"]
    answer = await control.ask("GET", "/me", headers={"Cookie": f"haat_session={token}"})
    _problem(answer, 401, "UNAUTHENTICATED")


async def test_guessing_is_answered_with_the_seconds_to_wait(control: Control) -> None:
    control.platform.identity._nobody = control.platform.identity._hasher.hash("quick")
    for _ in range(10):
        answer = await control.ask("POST", "/sessions", {**SIGN_IN, "password": "guess"})
        _problem(answer, 401, "SIGN_IN_FAILED")
    answer = await control.ask("POST", "/sessions", SIGN_IN)
    assert _problem(answer, 429, "RATE_LIMITED")["retry_after"] == 60
    assert answer.headers["retry-after"] == "60"


async def test_a_script_that_signs_up_from_one_address_is_stopped(control: Control) -> None:
    transport = httpx.ASGITransport(control.app, client=("8.8.8.8", 40_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://haat.example.in") as script:
        statuses = [
            (await script.post("/api/v1/accounts", json={**ACCOUNT, "email": f"trial{number}@example.in"})).status_code
            for number in range(12)
        ]
    assert statuses == [201] * 10 + [429] * 2


# --- what is refused ----------------------------------------------------------------------------


NO_JSON = [
    b"{",
    b"",
    b"nonsense",
    b'{"email": }',
    b"\xff\xfe{}",
    b'"\xff"',
    b"[" * 100_000,
    b'{"a":' + b"9" * 5000 + b"}",
]


async def test_a_body_that_is_no_json_is_refused(control: Control) -> None:
    for body in NO_JSON:
        answer = await control.ask("POST", "/sessions", content=body, headers={"Content-Type": "application/json"})
        if body == b"":
            _problem(answer, 422, "VALIDATION_FAILED")
        else:
            _problem(answer, 400, "MALFORMED_JSON")


WRONG_FIELDS: list[tuple[Any, str]] = [
    ({**ACCOUNT, "role": "platform_admin"}, "role"),
    ({**ACCOUNT, "org_id": str(uuid4())}, "org_id"),
    ({**ACCOUNT, "kind": "operator"}, "kind"),
    ({**ACCOUNT, "client": "8.8.8.8"}, "client"),
    ({**ACCOUNT, "name": 5}, "name"),
    ({**ACCOUNT, "name": "a\0b"}, "name"),
    ({**ACCOUNT, "name": "\ud800"}, "name"),
    ({**ACCOUNT, "password": "nul \0 in password"}, "password"),
    ({**ACCOUNT, "organisation": "\u202ereversed"}, "organisation"),
    ({**ACCOUNT, "state_code": "०७"}, "state_code"),
    ({**ACCOUNT, "gstin": "27AAPFU0939F1ZA"}, "gstin"),
    ({}, "email"),
    ([], "body"),
]


async def test_a_wrong_field_is_named_and_its_content_not_repeated(control: Control) -> None:
    for body, field in WRONG_FIELDS:
        content = json.dumps(body).encode()
        answer = await control.ask("POST", "/accounts", content=content, headers={"Content-Type": "application/json"})
        problem = _problem(answer, 422, "VALIDATION_FAILED")
        assert field in [error["field"] for error in problem["errors"]]
        assert PASSWORD not in answer.text


UNSTORABLE: list[tuple[str, str, Any]] = [
    ("GET", "/listings?provider=%00", None),
    ("GET", "/listings?language=%00", None),
    ("GET", "/listings?max_price=1e400000", None),
    ("GET", "/listings/%00/x", None),
    ("POST", "/applications", {"name": "a\0b"}),
    (
        "POST",
        "/partner",
        {"slug": "a\0", "company_name": "a", "email": "a", "contact_person": "a", "business_type": "a"},
    ),
    ("POST", "/services", {**draft().model_dump(mode="json"), "description": "a\0"}),
    ("POST", "/subscriptions", {"application_id": str(uuid4()), "service_id": str(uuid4()), "plan": "a\0"}),
    ("GET", "/listings?cursor=%00", None),
    ("GET", "/listings?limit=0", None),
    ("GET", "/listings?limit=101", None),
    ("GET", "/listings?limit=99999999999999999999", None),
    ("GET", f"/listings?q={'x' * 201}", None),
    ("GET", "/listings?max_price=NaN", None),
    ("GET", "/applications/not-an-id/keys", None),
    ("GET", "/plans?service_id=1", None),
]


async def test_what_can_not_be_stored_is_the_callers_mistake_and_never_ours(control: Control) -> None:
    actor = await control.market.provider()
    for method, path, body in UNSTORABLE:
        answer = await control.ask(method, path, body, actor=actor)
        assert 400 <= answer.status_code < 500, (method, path, answer.status_code, answer.text)
        _problem(answer, answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("moment", ["2027-01-01T00:00:00", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "soon"])
async def test_a_moment_without_zone_or_past_or_too_far_is_refused(control: Control, moment: str) -> None:
    actor = await control.market.consumer()
    application = await control.platform.identity.create_application(actor, "app")
    answer = await control.ask("POST", f"/applications/{application.id}/keys", {"expires_at": moment}, actor=actor)
    assert _problem(answer, 422, "VALIDATION_FAILED")["errors"][0]["field"] == "expires_at"


@pytest.mark.parametrize(
    "limits", [{"rank": 2**40}, {"per_minute": 0}, {"per_day": 2**31}, {"per_minute": 2**70}, {"per_hour": True}]
)
async def test_a_plan_with_limits_beyond_reason_is_refused(control: Control, limits: dict[str, int]) -> None:
    provider = await control.market.provider()
    listing = await control.market.listing(provider)
    answer = await control.ask(
        "POST", f"/services/{listing.id}/plans", {"code": "own", "name": "Own", **limits}, actor=provider
    )
    if limits == {"per_hour": True}:  # pydantic reads true as 1 where a number is wanted
        assert answer.status_code == 201
    else:
        _problem(answer, 422, "VALIDATION_FAILED")


async def test_a_body_above_the_limit_is_refused_before_it_is_read(control: Control) -> None:
    answer = await control.ask("POST", "/sessions", content=b" " * (MAX_API_BODY + 1))
    assert _problem(answer, 413, "BODY_TOO_LARGE")["limit_bytes"] == MAX_API_BODY


async def test_a_body_of_unknown_length_is_cut_at_the_limit(control: Control) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 50 * MAX_API_BODY:
            sent += 64 * 1024
            yield b" " * 64 * 1024

    answer = await control.ask("POST", "/sessions", content=endless(), headers={"Content-Type": "application/json"})
    _problem(answer, 413, "BODY_TOO_LARGE")


async def test_a_body_at_the_limit_is_read(control: Control) -> None:
    content = json.dumps(SIGN_IN).encode().ljust(MAX_API_BODY)
    answer = await control.ask("POST", "/sessions", content=content, headers={"Content-Type": "application/json"})
    _problem(answer, 401, "SIGN_IN_FAILED")


async def test_forms_of_the_portal_have_a_limit_too(control: Control) -> None:
    answer = await control.client.post("/sign-in", content=b"", headers={"Content-Length": str(MAX_BODY + 1)})
    assert answer.status_code == 413 and answer.json()["limit_bytes"] == MAX_BODY


async def test_unknown_addresses_and_methods_are_told_as_problems(control: Control) -> None:
    _problem(await control.ask("GET", "/nothing"), 404, "NOT_FOUND")
    answer = await control.ask("PUT", "/sessions")
    _problem(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "POST"


STRANGE_HOSTS = ["[", "evil.example/", "a b", "haat.example.in:99999", ""]


async def test_a_strange_host_header_bends_nothing(control: Control) -> None:
    for host in STRANGE_HOSTS:
        answer = await control.ask("GET", "/nothing", headers={"Host": host})
        assert answer.status_code == 404 and answer.json()["instance"] == "/api/v1/nothing"


# --- when we fail -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (RuntimeError("the secret reason"), 500, "INTERNAL"),
        (PoolTimeout("the secret reason"), 503, "OVERLOADED"),
        (psycopg.OperationalError("the secret reason"), 503, "OVERLOADED"),
        (psycopg.DataError("the secret reason"), 422, "VALIDATION_FAILED"),
    ],
)
async def test_a_failure_of_ours_has_an_id_and_headers_and_tells_no_reason(
    control: Control, monkeypatch: pytest.MonkeyPatch, failure: Exception, status: int, code: str
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(type(control.platform.discovery), "search", fail)
    answer = await control.ask("GET", "/listings")
    _problem(answer, status, code)
    assert "secret" not in answer.text and answer.headers["x-content-type-options"] == "nosniff"
    if status == 503:
        assert answer.headers["retry-after"] == "2"


async def test_a_client_that_leaves_is_no_failure(control: Control, caplog: pytest.LogCaptureFixture) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-length", b"5"), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/api/v1/sessions", "raw_path": b"/api/v1/sessions", "query_string": b"", "root_path": "",
        "headers": headers, "client": None, "server": ("127.0.0.1", 80),
    }  # fmt: skip
    async with asyncio.timeout(5):
        await control.app(scope, receive, send)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_failure_in_the_middle_of_an_answer_cuts_it_off(control: Control) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("in the middle")

    async def answer(*_: Any) -> Any:
        raise AssertionError("a second answer was begun")

    async def nothing(*_: Any) -> Any:
        return {"type": "http.request"}

    with pytest.raises(RuntimeError, match="in the middle"):
        await RequestContext(app, answer)({"type": "http", "path": "/", "headers": []}, nothing, nothing)


async def test_health_tells_whether_facts_can_be_read(control: Control) -> None:
    assert (await control.client.get("/health/live")).json() == {"status": "ok"}
    assert (await control.client.get("/health")).json()["status"] == "ok"
    await control.platform.db.close()
    answer = await control.client.get("/health/ready")
    assert answer.status_code == 503 and answer.json()["status"] == "unhealthy"


# --- headers and description --------------------------------------------------------------------

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
    "cross-origin-opener-policy": "same-origin",
    "content-security-policy": "default-src 'self'; img-src 'self' data:; media-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'",
    "permissions-policy": "camera=(), geolocation=(), microphone=(self)",
}


PATHS = ["/api/v1/listings", "/api/v1/me", "/api/v1/nothing", "/", "/health", "/nothing"]


async def test_every_answer_has_the_security_headers(control: Control) -> None:
    for path in PATHS:
        answer = await control.client.get(path)
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
        assert len(answer.headers.get_list("x-request-id")) == 1
        assert (answer.headers.get("cache-control") == "no-store") >= path.startswith("/api/")
        assert "server" not in answer.headers and "access-control-allow-origin" not in answer.headers


async def test_a_callers_own_request_id_does_not_become_ours(control: Control) -> None:
    answer = await control.ask("GET", "/listings", headers={"X-Request-ID": "mine"})
    assert answer.headers["x-request-id"] != "mine"


async def test_no_other_site_is_allowed_to_read(control: Control) -> None:
    answer = await control.ask("OPTIONS", "/me", headers={"Origin": "http://x", "Access-Control-Request-Method": "GET"})
    assert answer.status_code == 405 and "access-control-allow-origin" not in answer.headers


async def test_the_description_is_served_and_debugging_is_off(control: Control) -> None:
    answer = await control.ask("GET", "/openapi.json")
    assert answer.json()["info"]["title"] == "Haat control API" and not control.app.debug
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert (await control.client.get(path)).status_code == 404


async def test_the_description_names_problems_as_the_refusals_of_every_route(control: Control) -> None:
    described = (await control.ask("GET", "/openapi.json")).json()
    for operations in described["paths"].values():
        for operation in operations.values():
            assert {"4XX", "5XX"} <= set(operation["responses"]) and "422" not in operation["responses"]
    answer = await control.ask("POST", "/accounts", {})
    assert set(described["components"]["schemas"]["Problem"]["required"]) <= set(answer.json())


# --- tenancy (OWASP API1:2023) ------------------------------------------------------------------


async def test_every_id_of_one_tenant_is_not_found_by_another(control: Control) -> None:
    market, platform = control.market, control.platform
    cast = await control.cast()
    provider, consumer = cast[Role.PARTNER_ADMIN], cast[Role.API_CONSUMER]
    listing = await market.listing(provider, "open")
    hidden = await market.catalog.register(provider, draft("hidden"))
    application = await platform.identity.create_application(consumer, "app")
    key = (await platform.identity.create_key(consumer, application.id)).credential.id
    subscription = await platform.subscriptions.subscribe(consumer, application.id, listing.id, "free")
    rival, stranger = await market.provider(), await market.consumer()
    own = await platform.identity.create_application(stranger, "own")
    version = (await platform.discovery.versions(provider, listing.id))[0].id
    app, subscribed = f"/applications/{application.id}", f"/subscriptions/{subscription.id}"
    asked: list[tuple[Any, str, str, Any]] = [
        (stranger, "GET", f"{app}/keys", None),
        (stranger, "POST", f"{app}/keys", {}),
        (stranger, "POST", f"/keys/{key}/rotate", {}),
        (stranger, "DELETE", f"/keys/{key}", None),
        (stranger, "PATCH", subscribed, {"plan": "basic"}),
        (stranger, "DELETE", subscribed, None),
        (stranger, "POST", "/subscriptions", {"application_id": str(application.id), "service_id": str(listing.id)}),
        (stranger, "POST", "/subscriptions", {"application_id": str(own.id), "service_id": str(hidden.service_id)}),
        (stranger, "GET", "/listings/bhasha/hidden", None),
        (stranger, "GET", f"/plans?service_id={hidden.service_id}", None),
        (None, "GET", f"/plans?service_id={hidden.service_id}", None),
    ]
    for service, number in ((listing.id, version), (hidden.service_id, hidden.version_id)):
        asked += [
            (rival, "POST", f"/services/{service}/versions", {"endpoint": "http://8.8.8.8", "sample": {}}),
            (rival, "POST", f"/services/{service}/versions/{number}/accept", None),
            (rival, "PUT", f"/services/{service}/versions/{number}/endpoint", {"endpoint": "http://8.8.8.8"}),
            (rival, "POST", f"/services/{service}/publish", None),
            (rival, "POST", f"/services/{service}/deprecate", {"sunset_at": "2027-01-01T00:00:00Z"}),
            (rival, "POST", f"/services/{service}/retire", None),
            (rival, "POST", f"/services/{service}/prices", {"unit_price": "0"}),
            (rival, "POST", f"/services/{service}/plans", {"code": "own", "name": "Own"}),
        ]
    for actor, method, path, body in asked:
        answer = await control.ask(method, path, body, actor=actor)
        assert answer.status_code == 404, (method, path, answer.text)
        _problem(answer, 404, "NOT_FOUND")
    assert (await platform.discovery.listing_by_id(PLATFORM, listing.id)).status == "published"
    assert await platform.subscriptions.of(consumer) == [subscription]


async def test_a_listing_shows_its_buyers_no_endpoint(control: Control) -> None:
    listing = await control.market.listing(await control.market.provider("bhasha"))
    answer = await control.ask("GET", f"/listings/bhasha/{listing.slug}")
    assert answer.status_code == 200 and "8.8.8.8" not in answer.text and answer.json()["versions"]


@given(
    body=st.binary(max_size=300)
    | st.builds(
        lambda x: json.dumps(x).encode(),
        st.dictionaries(
            st.sampled_from([*ACCOUNT, "kind", "gstin", "x"]),
            st.none() | st.text() | st.integers() | st.lists(st.text()),
        ),
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_body_at_all_makes_us_fail(control: Control, body: bytes) -> None:
    answer = await control.ask("POST", "/accounts", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (201, 400, 409, 422)
