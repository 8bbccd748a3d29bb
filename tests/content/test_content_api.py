"""The API of content: the operator's way of a text, and what everybody reads."""

from __future__ import annotations

from typing import Any

import pytest

from haat.kernel.permissions import Actor
from office import Control

from .conftest import colleague


async def ok(control: Control, method: str, path: str, body: Any = None, *, actor: Actor | None = None) -> Any:
    answer = await control.ask(method, path, body, actor=actor)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


@pytest.fixture
async def operator(control: Control) -> Actor:
    return await control.market.operator()


async def test_a_page_is_written_translated_reviewed_and_read(control: Control, operator: Actor) -> None:
    other = await colleague(control.market, operator)
    made = await ok(control, "POST", "/content/pages", {"key": "keys", "kind": "help"}, actor=operator)
    assert (made["source"], made["languages"]) == ("en-Latn", [])
    for language, title, body in (("en", "Keys", "See [*the* list](/account)."), ("hi", "कुंजियाँ", "सूची देखें।")):
        path = f"/content/pages/keys/{language}"
        saved = await ok(control, "PUT", path, {"title": title, "body": body, "revision": 0}, actor=operator)
        assert (saved["state"], saved["revision"]) == ("draft", 1)
        await ok(control, "POST", f"{path}/review", {}, actor=operator)
        refused = await control.ask("POST", f"{path}/publish", {}, actor=operator)
        assert (refused.status_code, refused.json()["code"]) == (409, "CONFLICT")
        shown = await ok(control, "POST", f"{path}/publish", {"revision": 1}, actor=other)
        assert shown["reviewer"] == other.label
    page = await ok(control, "GET", "/content/published/keys?language=mai")
    assert (page["language"], page["title"]) == ("hi-Deva", "कुंजियाँ")
    english = await ok(control, "GET", "/content/published/keys?language=ta")
    assert english["html"] == '<p>See <a href="/account"><em>the</em> list</a>.</p>\n'
    [found] = await ok(control, "GET", "/content/published?language=hi&q=सूची")
    assert (found["key"], found["excerpt"]) == ("keys", "सूची देखें।")
    assert [one["title"] for one in await ok(control, "GET", "/content/published?language=hi")] == ["कुंजियाँ"]
    [known] = await ok(control, "GET", "/content/suggestions?source=en&target=hi&text=Keys", actor=operator)
    assert (known["target"], known["score"]) == ("कुंजियाँ", 1.0)
    [listed] = await ok(control, "GET", "/content/pages", actor=operator)
    assert [(one["language"], one["published"], one["stale"]) for one in listed["languages"]] == [
        ("en-Latn", 1, False), ("hi-Deva", 1, False),
    ]  # fmt: skip
    await ok(control, "POST", "/content/pages/keys/hi/archive", {"published": True}, actor=operator)
    assert (await ok(control, "GET", "/content/published/keys?language=hi"))["language"] == "en-Latn"
    [version] = await ok(control, "GET", "/content/pages/keys/hi", actor=operator)
    assert (version["state"], version["source"], version["source_version"]) == ("archived", "en-Latn", 1)


async def test_a_text_is_sent_back_and_an_announcement_has_its_time(control: Control, operator: Actor) -> None:
    times = {"shown_from": "2026-12-01T00:00:00Z", "shown_until": "2026-12-02T00:00:00Z"}
    await ok(control, "POST", "/content/pages", {"key": "closed", "kind": "announcement", **times}, actor=operator)
    path = "/content/pages/closed"
    await ok(control, "PUT", f"{path}/en", {"title": "Closed", "body": "x"}, actor=operator)
    await ok(control, "POST", f"{path}/en/review", {}, actor=operator)
    back = await ok(control, "POST", f"{path}/en/send-back", {"reason": "Say why"}, actor=operator)
    assert (back["state"], back["note"]) == ("draft", "Say why")
    changed = await ok(control, "PUT", f"{path}/window", {"shown_until": None}, actor=operator)
    assert changed["shown_until"] is None
    wrong = await control.ask("PUT", f"{path}/window", {**times, "shown_from": times["shown_until"]}, actor=operator)
    assert wrong.status_code == 422


async def test_without_a_gateway_a_machine_translates_nothing_and_says_so(control: Control, operator: Actor) -> None:
    await ok(control, "POST", "/content/pages", {"key": "keys", "kind": "help"}, actor=operator)
    nothing = await control.ask("POST", "/content/pages/keys/hi/translate", {}, actor=operator)
    assert nothing.status_code == 409


async def test_wrong_languages_and_pages_are_refused(control: Control, operator: Actor) -> None:
    for path, status in (
        ("/content/published/nothing", 404),
        ("/content/published/keys?language=xx", 422),
        ("/content/published?language=xx", 422),
    ):
        assert (await control.ask("GET", path)).status_code == status
    assert (await control.ask("GET", "/content/pages/keys/xx", actor=operator)).status_code == 422
    assert (await control.ask("GET", "/content/pages/keys/hi", actor=operator)).status_code == 404


async def test_a_phrase_is_reported_by_anybody_and_closed_by_the_operator(control: Control, operator: Actor) -> None:
    body = {"language": "hi", "page": "/catalog", "phrase": "दाम", "better": "मूल्य"}
    made = await ok(control, "POST", "/content/reports", body)
    [listed] = (await ok(control, "GET", "/content/reports", actor=operator))["items"]
    assert (listed["id"], listed["language"], listed["reporter"]) == (made["id"], "hi-Deva", None)
    await ok(control, "POST", f"/content/reports/{made['id']}/close", {"note": "Mended"}, actor=operator)
    assert (await ok(control, "GET", "/content/reports", actor=operator))["items"] == []
    assert (await control.ask("POST", "/content/reports", {**body, "page": "//evil.in"})).status_code == 422
