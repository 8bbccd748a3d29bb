"""Our flags for others, and others' flags for us, by OFREP over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import uvicorn
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode, FlagNotFoundError, OpenFeatureError, TargetingKeyMissingError
from openfeature.flag_evaluation import FlagType

from haat.flags.draft import FlagDraft
from haat.flags.model import ErrorCode as OurError
from haat.flags.model import Reason
from haat.flags.provider import resolution
from haat.flags.remote import RemoteFlags
from haat.flags.switchboard import PORTAL_TRIAL, Switchboard
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from office import Control

BULK = "/ofrep/v1/evaluate/flags"
HALF = [{"variant": "on", "percent": 50}]


@pytest.fixture
async def served(control: Control) -> AsyncIterator[str]:
    """The address of the control process on a real socket."""
    server = uvicorn.Server(uvicorn.Config(control.app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn tells nobody
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


async def put(control: Control, key: str, **members: Any) -> None:
    await control.platform.flags.put(PLATFORM, key, FlagDraft.parse({"exposed": True, **members}))


async def ask(control: Control, path: str, body: Any = None, token: str = "", **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else None
    return await control.client.post(
        path, json=None if content is not None else body, content=content,
        headers={"Authorization": f"Bearer {token}", **headers},
    )  # fmt: skip


# --- ours for others ------------------------------------------------------------------------------


async def test_a_provider_that_nobody_here_wrote_evaluates_our_flags(control: Control, served: str) -> None:
    await put(control, "yes", default="on")
    await put(control, "half", rules=HALF)
    await put(control, "word", kind="string", variants={"hi": "नमस्ते"}, default="hi", off="hi")
    await put(control, "most", kind="number", variants={"low": 3, "high": 2.5}, default="low", off="high")
    await put(control, "shape", kind="object", variants={"a": {"columns": [1, 2]}}, default="a", off="a")
    await put(control, "dark", default="on", enabled=False)
    token = await control.token(await control.market.operator())
    theirs = OFREPProvider(served, headers_factory=lambda: {"Authorization": f"Bearer {token}"})
    me = EvaluationContext("user-1", {"plan": "pro"})

    def look() -> list[Any]:
        found = [
            theirs.resolve_boolean_details("yes", False, me),
            theirs.resolve_boolean_details("half", False, me),
            theirs.resolve_string_details("word", "", me),
            theirs.resolve_integer_details("most", 0, me),
            theirs.resolve_object_details("shape", {}, me),
            theirs.resolve_boolean_details("dark", True, me),
        ]
        with pytest.raises(FlagNotFoundError):
            theirs.resolve_boolean_details("gone", False, me)
        with pytest.raises(TargetingKeyMissingError):
            theirs.resolve_boolean_details("half", False, EvaluationContext())
        with pytest.raises(OpenFeatureError) as wrong:
            theirs.resolve_boolean_details("half", False, EvaluationContext("x", {"plan": {"a": "b"}}))
        assert wrong.value.error_code is ErrorCode.INVALID_CONTEXT
        theirs.session.close()
        return found

    found = await asyncio.to_thread(look)
    half = await control.platform.switchboard.client.get_boolean_details_async("half", False, me)
    assert [one.value for one in found] == [True, half.value, "नमस्ते", 3, {"columns": [1, 2]}, False]
    assert [one.reason for one in found] == ["STATIC", half.reason, "STATIC", "STATIC", "STATIC", "DISABLED"]
    assert found[2].variant == "hi" and found[2].flag_metadata == {"version": 1}


async def test_all_flags_at_once_with_what_can_not_be_evaluated_and_304_for_who_knows(control: Control) -> None:
    await put(control, "half", rules=HALF)
    await put(control, "yes", default="on")
    token = await control.token(await control.market.operator())
    first = await ask(control, BULK, {"context": {}}, token)
    assert first.json()["flags"] == [
        {"key": "half", "errorCode": "TARGETING_KEY_MISSING",
         "errorDetails": "A percentage of half goes by targetingKey: give one."},
        {"key": "yes", "value": True, "reason": "STATIC", "variant": "on", "metadata": {"version": 1}},
    ]  # fmt: skip
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await ask(control, BULK, {"context": {}}, token, **{"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await ask(control, BULK, {"context": {}}, token, **{"If-None-Match": '"other"'})).status_code == 200
    await control.platform.flags.switch(PLATFORM, "yes", False)
    assert (await ask(control, BULK, {"context": {}}, token, **{"If-None-Match": etag})).status_code == 200
    told = await control.client.get("/ofrep/v1/configuration", headers={"Authorization": f"Bearer {token}"})
    assert told.json()["capabilities"]["cacheInvalidation"]["polling"] == {
        "enabled": True,
        "minPollingIntervalMs": 1000,
    }


async def test_a_tenant_sees_exposed_flags_and_is_itself_whatever_it_says(control: Control) -> None:
    acme, other = await control.market.consumer(), await control.market.consumer()
    assert acme.org_id and other.org_id
    application = await control.platform.identity.create_application(acme, "Storefront")
    key = (await control.platform.identity.create_key(acme, application.id)).key
    await put(control, "internal", exposed=False, default="on")
    await put(control, "beta")
    await control.platform.flags.override(PLATFORM, "beta", other.org_id, "on")
    claimed = {"context": {"organisation": str(other.org_id), "application": "x", "targetingKey": "u"}}
    for token in (key, await control.token(acme)):
        assert (await ask(control, f"{BULK}/beta", claimed, token)).json()["value"] is False
        assert (await ask(control, f"{BULK}/internal", claimed, token)).status_code == 404
        assert [one["key"] for one in (await ask(control, BULK, claimed, token)).json()["flags"]] == ["beta"]
    by_key = await control.client.post(f"{BULK}/beta", headers={"X-API-Key": key})
    assert by_key.status_code == 200
    assert (await ask(control, f"{BULK}/beta", claimed, await control.token(other))).json()["value"] is True
    operator = await control.token(await control.market.operator())
    assert (await ask(control, f"{BULK}/beta", claimed, operator)).json()["value"] is True
    assert (await ask(control, f"{BULK}/internal", claimed, operator)).json()["value"] is True


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "PARSE_ERROR"),
        (b"\xff", 400, "PARSE_ERROR"),
        (b"[" * 30_000, 400, "PARSE_ERROR"),
        (b"[]", 400, "INVALID_CONTEXT"),
        (b'{"context": 7}', 400, "INVALID_CONTEXT"),
        (b'{"context": {"plan": "\\u0000"}}', 400, "INVALID_CONTEXT"),
        (b'{"context": {"n": NaN}}', 400, "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": 5}}', 400, "INVALID_CONTEXT"),
        (b'{"context": {"x": "' + b"y" * 70_000 + b'"}}', 413, "BODY_TOO_LARGE"),
    ],
)
async def test_what_can_not_be_read_is_an_error_of_the_protocol(
    control: Control, body: bytes, status: int, code: str
) -> None:
    await put(control, "yes", default="on")
    token = await control.token(await control.market.operator())
    for path in (BULK, f"{BULK}/yes"):
        answer = await ask(control, path, body, token)
        assert answer.status_code == status, answer.text
        assert code in answer.text


async def test_nobody_evaluates_without_a_credential(control: Control) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"X-API-Key": "haat_live_nonsense"}):
        for path in (BULK, f"{BULK}/yes"):
            assert (await control.client.post(path, headers=headers)).status_code == 401
        assert (await control.client.get("/ofrep/v1/configuration", headers=headers)).status_code == 401


# --- others' for us -------------------------------------------------------------------------------


async def test_the_platform_takes_its_switches_from_another_service(control: Control, served: str) -> None:
    """The other service is ours, asked as an operator by a second platform."""
    token = await control.token(await control.market.operator())
    settings = Settings(flags_url=served, flags_token=token, flags_keep_seconds=0)  # type: ignore[arg-type]
    board = Switchboard(control.platform.db, control.platform.flags, settings)
    async with board.running():
        assert await board.is_on(PORTAL_TRIAL), "what is usual, where the service has no such flag"
        await put(control, PORTAL_TRIAL.key, default="on", enabled=False)
        assert not await board.is_on(PORTAL_TRIAL)


class Service:
    """Another flag service, as a transport: what it answers is set by a test."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.answer: Callable[[httpx.Request], httpx.Response] = lambda _: self.flags({"key": "a", "value": True})

    def flags(self, *flags: Any, **headers: str) -> httpx.Response:
        return httpx.Response(200, json={"flags": list(flags)}, headers=headers)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        await asyncio.sleep(0)
        return self.answer(request)


class Watch:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def remote() -> AsyncIterator[tuple[RemoteFlags, Service, Watch]]:
    service, watch = Service(), Watch()
    made = RemoteFlags("http://flags/", transport=httpx.MockTransport(service), clock=watch, keep_seconds=10)
    yield made, service, watch
    await made.close()


Remote = tuple[RemoteFlags, Service, Watch]


async def test_a_context_is_asked_for_once_while_its_answer_is_fresh(remote: Remote) -> None:
    flags, service, watch = remote
    service.answer = lambda request: (
        httpx.Response(304) if request.headers.get("if-none-match") == '"1"'
        else service.flags({"key": "a", "value": True, "reason": "SPLIT", "variant": "on"}, etag='"1"')
    )  # fmt: skip
    found = await asyncio.gather(*(flags.found("a", {"targetingKey": "x"}) for _ in range(100)))
    assert {(one.value, one.reason, one.variant) for one in found} == {(True, Reason.SPLIT, "on")}
    assert len(service.asked) == 1
    watch.now += 10
    assert (await flags.found("a", {"targetingKey": "x"})).value is True
    assert service.asked[1].headers["if-none-match"] == '"1"'
    assert flags.known("a", {"targetingKey": "x"}) == found[0]
    assert flags.known("a", {"targetingKey": "y"}) is None
    assert (await flags.found("b", {"targetingKey": "x"})).error is OurError.FLAG_NOT_FOUND


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(429, headers={"retry-after": "5"}),
        httpx.Response(302, headers={"location": "/elsewhere"}),
        httpx.Response(200, content=b"{"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"flags": {}}),
        httpx.Response(200, content=b"[" * 30_000),
        httpx.ConnectError("no"),
    ],
    ids=lambda one: type(one).__name__,
)
async def test_what_was_kept_is_served_as_stale_while_the_service_fails(remote: Remote, answer: Any) -> None:
    flags, service, watch = remote
    assert (await flags.found("a", {})).value is True

    def fail(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    good, service.answer = service.answer, fail
    watch.now += 10
    for _ in range(3):
        stale = await flags.found("a", {})
        assert (stale.value, stale.reason) == (True, Reason.STALE)
    assert len(service.asked) == 2, "it is left alone for a while"
    nothing = await flags.found("a", {"plan": "pro"})
    assert nothing.error is OurError.GENERAL
    assert resolution(nothing, FlagType.BOOLEAN, False).value is False
    service.answer = good
    watch.now += 5
    assert (await flags.found("a", {})).reason is Reason.UNKNOWN


async def test_flags_of_others_that_are_none_are_errors_and_not_values(remote: Remote) -> None:
    flags, service, _ = remote
    service.answer = lambda _: service.flags(
        {"key": "a", "errorCode": "TARGETING_KEY_MISSING", "errorDetails": "who?"},
        {"key": "b", "errorCode": "ODD"},
        {"key": "c", "reason": "STATIC"},
        {"key": 7, "value": True},
        "d",
        {"key": "e", "value": [1], "reason": ["x"], "variant": None},
    )
    found = {key: await flags.found(key, {}) for key in "abcde"}
    assert [found[key].error for key in "abcd"] == [
        OurError.TARGETING_KEY_MISSING, OurError.GENERAL, OurError.GENERAL, OurError.FLAG_NOT_FOUND,
    ]  # fmt: skip
    assert (found["e"].value, found["e"].reason, found["e"].variant) == ([1], Reason.UNKNOWN, "")


async def test_contexts_are_not_kept_without_end(remote: Remote) -> None:
    flags, _, _ = remote
    for number in range(1_100):
        await flags.found("a", {"targetingKey": str(number)})
    assert len(flags._contexts) == 1000
