"""The client against a gateway: over a socket where a market answers, over a transport where failures are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from haat_client import (
    AsyncHaat,
    Haat,
    NotConfigured,
    NotFound,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    Rejected,
    Retries,
    StreamBroken,
    TimedOut,
    UnreadableAnswer,
    audio,
    image,
)

KEY = "haat_test_anything"
ONCE = Retries(times=0)
Handler = Callable[[httpx.Request], httpx.Response]
GOOD = {"output": [{"text": "ok"}], "usage": {"characters": 2}}


class Told:
    """A transport that answers as it is told, one after another; remembers what was asked and how long was slept."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = iter(answers)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, **options: Any) -> Haat:
        made = Haat(KEY, base_url="http://market", transport=httpx.MockTransport(self), **options)
        made._sleep = self.slept.append
        return made

    @property
    def keys(self) -> list[str | None]:
        return [request.headers.get("idempotency-key") for request in self.requests]


def problem(status: int, code: str, *headers: tuple[str, str], **members: Any) -> httpx.Response:
    return httpx.Response(
        status, headers=list(headers), json={"code": code, "detail": "no", "status": status, **members}
    )


def good(**more: Any) -> httpx.Response:
    return httpx.Response(200, json={**GOOD, **more}, headers={"X-Request-ID": "id-7", "X-Haat-Units": "characters=2"})


# --- against the mock, over a socket ----------------------------------------------------------------


async def test_a_service_is_called_and_the_answer_says_what_it_was(mock: str) -> None:
    def work() -> None:
        with Haat(KEY, base_url=mock) as market:
            done = market.services.invoke(
                "vani/translate-hi-ur", ["नमस्ते", {"text": "शुभ"}], {"source": "hi", "target": "ur"}
            )
            assert [text.partition("] ")[2] for text in done.texts] == ["नमस्ते", "शुभ"]
            assert done.units == {"characters": Decimal(9)} and done.charge == 0
            assert (done.meta.mode, done.meta.served_by, len(done.request_id)) == ("test", "haat/simulator", 36)
            assert done.usage == {"characters": 9}

    await asyncio.to_thread(work)


async def test_translations_pipelines_and_models(mock: str) -> None:
    def work() -> None:
        with Haat(KEY, base_url=mock) as market:
            said = market.translate("आज मौसम बहुत अच्छा है।", "ur")
            assert (said.source, said.target) == ("hi-Deva", "ur-Arab") and said.confidence is not None
            assert said.translations[0].endswith("आज मौसम बहुत अच्छा है।")
            run = market.pipelines.run(
                [{"service": "vani/translate-hi-ur", "config": {"source": "hi", "target": "ur"}},
                 {"service": "vani/text-to-speech", "config": {"language": "ur"}, "name": "speak"}],
                "नमस्ते",
            )  # fmt: skip
            assert run.output[0]["audio"]["format"] == "wav"
            assert [stage.name for stage in run.stages] == ["translate-hi-ur", "speak"] and run.charge == 0
            assert run.stages[0].units["characters"] == 6
            with market.pipelines.stream(
                [{"service": "vani/translate-hi-ur"}], "नमस्ते। शुभ रात्रि।", split="sentences"
            ) as stream:
                events = list(stream)
            assert [event.name for event in events] == ["output", "output", "done"]
            assert events[0].json()["output"]["text"].endswith("नमस्ते।")
            names = [one["id"] for one in market.models.list().items]
            assert "vani/ocr" in names and "text-embedding-3-small" in names
            assert market.models.get("vani/ocr").data["owned_by"] == "vani"
            with pytest.raises(NotFound) as missing:
                market.models.get("vani/nothing")
            assert missing.value.code == "SERVICE_NOT_FOUND"

    await asyncio.to_thread(work)


async def test_the_async_client_does_the_same(mock: str) -> None:
    async with AsyncHaat(KEY, base_url=mock) as market:
        calls = [market.services.invoke("akshara/transliterate", str(number)) for number in range(20)]
        assert [one.texts[0][-1] for one in await asyncio.gather(*calls)] == [str(number)[-1] for number in range(20)]
        stream = await market.services.stream("vani/translate-hi-ur", ["a", "b"])
        assert [event.json()["index"] async for event in stream if "index" in event.data] == [0, 1]
        with pytest.raises(QuotaExhausted):
            await market.services.invoke("vani/ocr", [{"image": {"content": ""}}], simulate="quota")
        assert (await market.translate(["नमस्ते दुनिया"], "ur", source="hi")).confidence is None


async def test_each_simulated_failure_is_an_error_of_its_own_type(mock: str) -> None:
    def work() -> None:
        with Haat(KEY, base_url=mock, retries=ONCE) as market:

            def call(simulate: Any, **more: Any) -> Any:
                return market.services.invoke("akshara/detect-language", "hello", simulate=simulate, **more)

            with pytest.raises(QuotaExhausted) as quota:
                call("quota")
            assert quota.value.retry_after and quota.value.request_id and quota.value.problem["limit"] == "month"
            with pytest.raises(Overloaded) as overload:
                call("overload")
            assert overload.value.retry_after == 2
            with pytest.raises(ProviderError) as late:
                call("timeout")
            assert (late.value.status, late.value.code) == (504, "PROVIDER_TIMEOUT")
            with pytest.raises(ProviderError) as broken:  # its key has the gateway wait for the whole answer
                call("midstream")
            assert (broken.value.status, broken.value.code) == (502, "PROVIDER_FAILED")
            with pytest.raises(TimedOut):
                call("slow", timeout=0.2)
            with pytest.raises(Rejected, match="X-Haat-Simulate"):
                call("earthquake")

    await asyncio.to_thread(work)


async def test_a_stream_is_given_event_by_event_and_its_break_is_an_error(mock: str) -> None:
    def work() -> None:
        with Haat(KEY, base_url=mock) as market:
            with market.services.stream("vani/translate-hi-ur", ["a", "b"]) as stream:
                events = [event.json() for event in stream]
            assert [one["index"] for one in events[:2]] == [0, 1] and len(events[2]["output"]) == 2
            assert stream.meta.request_id
            got = []
            with pytest.raises(StreamBroken) as broken:
                for event in market.services.stream("vani/translate-hi-ur", ["a", "b"], simulate="midstream"):
                    got.append(event)
            assert got and broken.value.code == "PROVIDER_FAILED" and broken.value.request_id

    await asyncio.to_thread(work)


async def test_an_api_of_its_own_is_called_as_it_is(mock: str) -> None:
    def work() -> None:
        with Haat(KEY, base_url=mock) as market:
            done = market.services.request(
                "mock/http", "/v2/things", method="put", query={"a": 1, "b": None}, json={"x": "é"}
            )
            assert (done.data["method"], done.data["path"], done.data["request"]) == ("PUT", "/v2/things", {"x": "é"})

    await asyncio.to_thread(work)


async def test_a_client_that_nobody_here_wrote_is_answered_by_the_mock_too(mock: str) -> None:
    from openai import OpenAI, RateLimitError

    def work() -> None:
        with OpenAI(api_key=KEY, base_url=f"{mock}/v1", max_retries=0) as client:
            found = client.embeddings.create(model="text-embedding-3-small", input=["one", "two words"])
            assert [len(one.embedding) for one in found.data] == [64, 64] and found.usage.total_tokens == 3
            assert "text-embedding-3-small" in {one.id for one in client.models.list()}
            with pytest.raises(RateLimitError) as refused:
                client.embeddings.create(
                    model="text-embedding-3-small", input="a", extra_headers={"X-Haat-Simulate": "quota"}
                )
            assert refused.value.code == "QUOTA_EXHAUSTED"

    await asyncio.to_thread(work)


# --- trying again -----------------------------------------------------------------------------------


def test_what_passes_is_tried_again_under_one_key_and_as_late_as_asked() -> None:
    told = Told(
        httpx.ConnectError("refused"),
        problem(503, "OVERLOADED", ("Retry-After", "3")),
        problem(429, "RATE_LIMITED", ("Retry-After", "1")),
        good(),
    )
    done = told.client().services.invoke("acme/echo", "hi")
    assert (done.texts, done.request_id, len(told.requests)) == (["ok"], "id-7", 4)
    assert len(set(told.keys)) == 1 and told.keys[0]
    assert 0.25 <= told.slept[0] <= 0.5 and told.slept[1] >= 3 and told.slept[2] >= 1


def test_a_failed_task_is_executed_anew_under_another_key_but_not_where_the_caller_chose_it() -> None:
    told = Told(problem(504, "PROVIDER_TIMEOUT"), good())
    told.client().services.invoke("acme/echo", "hi")
    assert len(set(told.keys)) == 2
    told = Told(problem(502, "PROVIDER_FAILED"), good())
    told.client().services.invoke("acme/echo", "hi", idempotency_key="mine")
    assert told.keys == ["mine", "mine"]
    told = Told(problem(502, "PROVIDER_FAILED"), good())
    told.client().services.request("acme/echo", "/x", json={})
    assert len(set(told.keys)) == 1, "an API of its own may have effects"


def test_a_broken_connection_is_tried_again_with_the_same_key() -> None:
    told = Told(httpx.ReadError("reset"), httpx.RemoteProtocolError("closed"), good())
    told.client().services.invoke("acme/echo", "hi")
    assert len(told.requests) == 3 and len(set(told.keys)) == 1


def test_a_key_among_the_headers_is_the_callers_however_it_is_written() -> None:
    told = Told(httpx.ReadError("reset"), problem(502, "PROVIDER_FAILED"), good())
    told.client().services.invoke("acme/echo", "hi", headers={"idempotency-key": "mine"})
    assert told.keys == ["mine", "mine", "mine"]


def test_what_the_market_says_is_in_vain_is_not_tried_again() -> None:
    told = Told(problem(429, "QUOTA_EXHAUSTED", ("X-Should-Retry", "false"), ("Retry-After", "5")))
    with pytest.raises(QuotaExhausted):
        told.client().services.invoke("acme/echo", "hi")
    assert len(told.requests) == 1 and not told.slept


def test_a_wait_beyond_the_patience_and_the_last_try_raise_the_refusal_itself() -> None:
    told = Told(problem(503, "OVERLOADED", ("Retry-After", "600")))
    with pytest.raises(Overloaded) as refused:
        told.client().services.invoke("acme/echo", "hi")
    assert refused.value.retry_after == 600
    told = Told(*[problem(503, "OVERLOADED") for _ in range(4)])
    with pytest.raises(Overloaded):
        told.client().services.invoke("acme/echo", "hi")
    assert len(told.requests) == 4


def test_a_pipeline_is_sent_again_under_its_key_and_not_after_what_is_kept() -> None:
    good_run = httpx.Response(200, json={"output": [], "stages": []})
    told = Told(problem(503, "OVERLOADED", done=[{"name": "one"}], stage={}), httpx.ReadError("reset"), good_run)
    assert told.client().pipelines.run([{"service": "acme/echo"}], "hi").output == []
    assert len({request.headers["idempotency-key"] for request in told.requests}) == 1
    told = Told(problem(502, "PROVIDER_FAILED", done=[], stage={"number": 1}))
    with pytest.raises(ProviderError):
        told.client().pipelines.run([{"service": "acme/echo"}], "hi", idempotency_key="mine")
    assert [request.headers["idempotency-key"] for request in told.requests] == ["mine"]


def test_a_pipelines_sums_are_read_from_its_head() -> None:
    headers = {"X-Haat-Units": "audio_seconds=3.2, characters=44", "X-Haat-Charge": "0.5 INR"}
    told = Told(httpx.Response(200, json={"output": [], "stages": []}, headers=headers))
    run = told.client().pipelines.run([{"service": "acme/echo"}], "hi")
    assert run.units == {"audio_seconds": Decimal("3.2"), "characters": Decimal(44)} and run.charge == Decimal("0.5")


async def test_the_async_client_tries_again_as_well() -> None:
    told = Told(problem(503, "OVERLOADED"), httpx.ReadError("reset"), good())
    market = AsyncHaat(KEY, base_url="http://market", transport=httpx.MockTransport(told))

    async def sleep(seconds: float) -> None:
        told.slept.append(seconds)

    market._sleep = sleep
    async with market:
        assert (await market.services.invoke("acme/echo", "hi")).texts == ["ok"]
    assert len(told.slept) == 2 and len(set(told.keys)) == 1


# --- the rest ---------------------------------------------------------------------------------------


def test_an_answer_that_has_not_changed_is_taken_from_what_is_kept() -> None:
    told = Told(
        httpx.Response(200, json={"a": 1}, headers={"ETag": '"one"', "X-Request-ID": "first"}),
        httpx.Response(304, headers={"ETag": '"one"', "X-Request-ID": "second", "X-Haat-Units": "requests=1"}),
        httpx.Response(200, json={"a": 2}, headers={"ETag": '"two"'}),
    )
    market = told.client()
    answers = [market.services.request("acme/echo", "/thing", method="GET") for _ in range(3)]
    assert [one.data for one in answers] == [{"a": 1}, {"a": 1}, {"a": 2}]
    assert (answers[1].meta.from_cache, answers[1].request_id) == (True, "second")
    assert [request.headers.get("if-none-match") for request in told.requests] == [None, '"one"', '"one"']
    assert told.keys == [None, None, None]


class Body(httpx.SyncByteStream):
    """A body that notes whether it was closed."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces, self.closed = pieces, False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("ends", ["whole", "left", "error", "reset"])
def test_a_stream_gives_its_connection_back_however_it_ends(ends: str) -> None:
    pieces: dict[str, tuple[bytes | Exception, ...]] = {
        "whole": (b"data: 1\n\n", b"data: [DONE]\n\n"),
        "left": (b"data: 1\n\n", b"data: 2\n\n"),
        "error": (b"data: 1\n\n", b'event: error\ndata: {"code":"PROVIDER_FAILED"}\n\n'),
        "reset": (b"data: 1\n\n", httpx.ReadError("reset")),
    }
    body = Body(*pieces[ends])
    told = Told(httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=body))
    got = []
    if ends in ("error", "reset"):
        with pytest.raises(StreamBroken):
            got += [event.data for event in told.client().services.stream("acme/echo", "hi")]
    else:
        with told.client().services.stream("acme/echo", "hi") as stream:
            for event in stream:
                got.append(event.data)
                if ends == "left":
                    break
        assert got == ["1"]
    assert body.closed


def test_a_stream_that_is_none_is_one_event() -> None:
    with Told(good()).client().services.stream("acme/echo", "hi") as stream:
        assert [event.json()["output"] for event in stream] == [[{"text": "ok"}]]


def test_the_key_goes_to_the_gateway_and_the_session_to_the_control_plane_only() -> None:
    told = Told(good(), httpx.Response(200, json={"items": [], "next": None}), httpx.Response(200, json=[]))
    market = told.client(control_url="http://portal", token="session")
    market.services.invoke("acme/echo", "hi")
    market.catalog.search("अनुवाद", limit=3)
    market.usage.summary("2026-11")
    assert [request.headers.get("authorization") for request in told.requests] == [
        f"Bearer {KEY}", "Bearer session", "Bearer session",
    ]  # fmt: skip
    assert [str(request.url.copy_with(query=None)) for request in told.requests[1:]] == [
        "http://portal/api/v1/listings", "http://portal/api/v1/usage",
    ]  # fmt: skip
    assert dict(told.requests[1].url.params) == {"q": "अनुवाद", "limit": "3"}


def test_what_is_not_given_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAAT_API_KEY", "haat_live_one")
    monkeypatch.setenv("HAAT_BASE_URL", "http://elsewhere/")
    told = Told(good())
    market = Haat(transport=httpx.MockTransport(told))
    market.services.invoke("acme/echo@2", "hi", user="u1", tags={"team": "search"})
    [request] = told.requests
    assert str(request.url) == "http://elsewhere/v1/services/acme/echo@2/invoke"
    assert request.headers["authorization"] == "Bearer haat_live_one"
    assert (request.headers["x-haat-user"], request.headers["x-haat-tags"]) == ("u1", "team=search")
    assert json.loads(request.content) == {"input": [{"text": "hi"}], "config": {}}


def test_what_is_missing_or_wrong_is_said_before_anything_is_sent() -> None:
    with pytest.raises(NotConfigured, match="HAAT_API_KEY"):
        Haat(base_url="http://market").services.invoke("acme/echo", "hi")
    with pytest.raises(NotConfigured, match="HAAT_TOKEN"):
        Haat(KEY).usage.summary()
    with pytest.raises(NotConfigured, match="http://"):
        Haat(KEY, base_url="market:80")
    for name in ("echo", "acme/", "acme/echo/invoke", "acme/.."):
        with pytest.raises(ValueError):
            Haat(KEY).services.invoke(name, "hi")


def test_pages_are_gone_through_to_the_last() -> None:
    told = Told(
        httpx.Response(200, json={"items": [{"id": 1}, {"id": 2}], "next": "two"}),
        httpx.Response(200, json={"items": [{"id": 3}], "next": None}),
    )
    market = told.client()
    found = market.every(market.catalog.search, category="translation", limit=2)
    assert next(found) == {"id": 1} and len(told.requests) == 1, "a page is asked for when it is wanted"
    assert [one["id"] for one in found] == [2, 3]
    assert dict(told.requests[1].url.params) == {"category": "translation", "limit": "2", "cursor": "two"}


async def test_so_they_are_by_the_async_client() -> None:
    told = Told(
        httpx.Response(200, json={"items": [{"id": 1}], "next": "two"}),
        httpx.Response(200, json={"items": [{"id": 2}], "next": None}),
    )
    async with AsyncHaat(KEY, base_url="http://market", transport=httpx.MockTransport(told)) as market:
        assert [one["id"] async for one in market.every(market.catalog.search, q="ocr")] == [1, 2]


def test_sounds_and_images_are_items_and_sounds_are_files_again(tmp_path: Path) -> None:
    assert audio(b"RIFF....") == {"audio": {"content": "UklGRi4uLi4=", "format": "wav"}}
    (tmp_path / "page.JP2").write_bytes(b"x")
    assert image(tmp_path / "page.JP2") == {"image": {"content": "eA==", "format": "jp2"}}
    assert image(str(tmp_path / "page.JP2"), "png")["image"]["format"] == "png"
    with pytest.raises(ValueError, match="format"):
        audio(b"who knows")
    told = Told(httpx.Response(200, json={"output": [{"audio": {"content": "eA=="}}, {"text": "x"}]}))
    assert told.client().services.invoke("acme/echo", [audio(b"RIFF")]).sounds == [b"x", b""]


def test_each_further_try_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    told = Told(problem(503, "OVERLOADED"), httpx.ReadError("reset"), good())
    with caplog.at_level("INFO", "haat_client"):
        told.client().services.invoke("acme/echo", "hi")
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("POST /v1/services/acme/echo/invoke: 503 OVERLOADED: no") and "sent again in" in first
    assert ": reset; sent again in" in second
    assert KEY not in first + second


def test_a_method_says_itself_what_it_takes() -> None:
    import inspect

    bound = inspect.signature(Haat(KEY).services.invoke)
    assert list(bound.parameters)[:3] == ["service", "input", "config"]
    assert "task schema" in (inspect.getdoc(AsyncHaat(KEY).services.invoke) or "")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}"])
def test_an_answer_of_another_shape_is_an_error_that_names_the_call(body: bytes) -> None:
    told = Told(httpx.Response(200, content=body, headers={"X-Request-ID": "id-9"}))
    with pytest.raises(UnreadableAnswer) as error:
        told.client().services.invoke("acme/echo", "hi")
    assert error.value.request_id == "id-9"
