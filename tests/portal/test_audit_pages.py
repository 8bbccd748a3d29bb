"""The operator searches the event log, reads one event, and takes what fits along as a file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from haat.app import Platform
from haat.infra import audit, events
from haat.infra.audit import masked
from haat.infra.events import Wanted
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM

from .conftest import Browser, faults_of
from .street import DEVELOPER, OPERATOR, PROVIDER, Street

BrowserFor = Callable[[str | None], Awaitable[Browser]]
PAGE = "/operator/audit"


async def happen(platform: Platform, stream: str, kind: str = "thing.happened", **data: object) -> UUID:
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        made = await events.append(
            connection, stream=stream, type=kind, data=data, actor="platform", org=None, at=platform.clock.now()
        )
    return made.id


def streams(html: str) -> list[str]:
    return re.findall(r'href="/operator/audit\?stream=[^"]*"><code>([^<]+)</code>', html)


async def test_every_change_is_there_with_its_actor_and_its_organisation(
    street: Street, browser_for: BrowserFor
) -> None:
    browser = await browser_for(OPERATOR)
    page = await browser.get(PAGE)
    assert page.status_code == 200 and faults_of(page.text) == []
    assert "wallet.mode_set" in page.text and OPERATOR in page.text and "Sabzi Mandi Software" in page.text


@pytest.mark.parametrize(
    ("search", "all_are", "some"),
    [
        ({"actor": DEVELOPER}, "Sabzi Mandi", "application.created"),
        ({"type": "flag.percentage_set"}, "flag/new-search", "flag.percentage_set"),
        ({"type": "flag"}, "flag/", "flag.percentage_set"),
        ({"stream": "flag/new-search"}, "flag/new-search", "flag.percentage_set"),
        ({"stream": "flag"}, "flag/", "flag/old-charts"),
        ({"text": "the charts of LAST year"}, "flag/old-charts", "flag/old-charts"),
        ({"type": "flag", "stream": "flag/old-charts", "text": "charts"}, "flag/old-charts", "flag/old-charts"),
    ],
)
async def test_a_search_finds_what_fits_and_nothing_else(
    street: Street, browser_for: BrowserFor, search: dict[str, str], all_are: str, some: str
) -> None:
    browser = await browser_for(OPERATOR)
    page = await browser.get(PAGE, **search)
    rows = re.findall(r"<tr>\s*<th scope=\"row\">.*?</tr>", page.text, re.DOTALL)
    assert rows and all(all_are in row for row in rows), page.text
    assert some in page.text and faults_of(page.text) == []


async def test_an_organisation_is_found_by_its_id(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(OPERATOR)
    page = await browser.get(PAGE, org=str(street.stranger.org_id))
    assert "Someone Else" in page.text and "Sabzi Mandi Software" not in page.text
    none = await browser.get(PAGE, org="00000000-0000-7000-8000-00000000ffff")
    assert none.status_code == 200 and "No event like that" in none.text


async def test_both_days_of_a_search_count_in_as_the_operator_sees_them(
    platform: Platform, clock: SetClock, street: Street, browser_for: BrowserFor
) -> None:
    # The street's clock stands at noon in India. 18:29 UTC is one minute before midnight there, 18:30 is the next day.
    day = (clock.now() + timedelta(days=3)).date()
    clock.advance(seconds=(timedelta(days=3, hours=18, minutes=29) - timedelta(hours=clock.now().hour)).total_seconds())
    clock.advance(minutes=-clock.now().minute + 29)
    assert (clock.now().hour, clock.now().minute, clock.now().date()) == (18, 29, day)
    await happen(platform, "thing/last-minute")
    clock.advance(minutes=1)
    await happen(platform, "thing/next-day")
    browser = await browser_for(OPERATOR)
    page = await browser.get(PAGE, since=day.isoformat(), until=day.isoformat(), stream="thing")
    assert streams(page.text) == ["thing/last-minute"]
    page = await browser.get(PAGE, since=(day + timedelta(days=1)).isoformat(), stream="thing")
    assert streams(page.text) == ["thing/next-day"]


async def test_pages_follow_one_another_without_a_gap_and_without_a_repetition(
    platform: Platform, street: Street, browser_for: BrowserFor
) -> None:
    wrote = [f"thing/{number}" for number in range(120)]
    for stream in wrote:
        await happen(platform, stream)
    browser, seen, href = await browser_for(OPERATOR), [], f"{PAGE}?stream=thing"
    while href:
        page = await browser.client.get(href)
        seen += streams(page.text)
        following = re.search(r'href="(/operator/audit\?[^"]*cursor=[^"]*)"', page.text)
        href = following[1].replace("&amp;", "&") if following else ""
    assert seen == wrote[::-1]
    assert (await browser.get(PAGE, cursor="x")).status_code == 400


async def test_what_fits_is_taken_along_as_a_file_however_much_it_is(
    platform: Platform, street: Street, browser_for: BrowserFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "BATCH", 2)
    for number in range(5):
        await happen(platform, f"thing/{number}", name="=1+1", key=f"haat_live_{'a' * 40}")
    browser = await browser_for(OPERATOR)
    answer = await browser.get(f"{PAGE}/export", stream="thing")
    assert (
        answer.headers["content-type"].startswith("text/csv") and "attachment" in answer.headers["content-disposition"]
    )
    head, *rows = csv.reader(io.StringIO(answer.text))
    assert head == ["at", "id", "stream", "version", "type", "actor", "organisation", "data"]
    assert [row[2] for row in rows] == [f"thing/{number}" for number in (4, 3, 2, 1, 0)]
    assert rows[0][7] == '{"key":"haat_live_••••","name":"=1+1"}'
    assert len((await browser.get(f"{PAGE}/export", stream="nothing")).text.splitlines()) == 1


async def test_one_event_is_shown_whole_but_for_secrets_and_with_its_neighbours(
    platform: Platform, street: Street, browser_for: BrowserFor
) -> None:
    first = await happen(platform, "thing/1")
    second = await happen(platform, "thing/1", provider_secret="abc123", said="नमस्ते <b>")
    browser = await browser_for(OPERATOR)
    page = await browser.get(f"{PAGE}/{second}")
    assert page.status_code == 200 and faults_of(page.text) == []
    assert "abc123" not in page.text and "नमस्ते &lt;b&gt;" in page.text and ">fits</span>" in page.text
    assert f"{PAGE}/{first}" in page.text
    assert f"{PAGE}/{second}" in (await browser.get(f"{PAGE}/{first}")).text
    for wrong in ("00000000-0000-7000-8000-00000000ffff", "x"):
        assert (await browser.get(f"{PAGE}/{wrong}")).status_code == 404


@pytest.mark.parametrize("tampering", ["UPDATE events SET actor = 'user/9' WHERE id = %s", None])
async def test_a_rewritten_event_says_so(
    platform: Platform, street: Street, browser_for: BrowserFor, database: Any, tampering: str | None
) -> None:
    first = await happen(platform, "thing/1")
    second = await happen(platform, "thing/1")
    with psycopg.connect(database.owner_dsn) as owner:
        if tampering:
            owner.execute(tampering, (second,))
        else:
            owner.execute("DELETE FROM events WHERE id = %s", (first,))
    browser = await browser_for(OPERATOR)
    page = await browser.get(f"{PAGE}/{second}")
    assert "This event was changed afterwards" in page.text and "does not fit" in page.text
    assert faults_of(page.text) == []


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"since": "soon"}, 'id="since-error"'),
        ({"until": "9999-12-31"}, "Write the day as 2026-11-21."),
        ({"org": "mine"}, 'id="org-error"'),
        ({"actor": "nobody@nowhere.example"}, "Nobody here has this e-mail address."),
    ],
)
async def test_what_cannot_be_read_is_said_at_its_field(
    street: Street, browser_for: BrowserFor, search: dict[str, str], told: str
) -> None:
    browser = await browser_for(OPERATOR)
    page = await browser.get(PAGE, **search)
    assert page.status_code == 422 and told in page.text and faults_of(page.text) == []
    assert (await browser.get(f"{PAGE}/export", **search)).status_code == 422


async def test_a_text_that_cannot_be_stored_finds_nothing(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(OPERATOR)
    page = await browser.get(PAGE, text="a\x00b")
    assert page.status_code == 200 and "No event like that" in page.text


async def test_a_search_that_takes_too_long_is_given_up_with_a_way_out(
    street: Street, browser_for: BrowserFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(connection: Any, *_: Any) -> None:
        await connection.execute("SET LOCAL statement_timeout = '20ms'")
        await connection.execute("SELECT pg_sleep(10)")

    monkeypatch.setattr(events, "find", find)
    browser = await browser_for(OPERATOR)
    page = await browser.get(PAGE, text="x")
    assert page.status_code == 422 and "takes too long" in page.text


async def test_the_log_is_nobody_elses(street: Street, browser_for: BrowserFor, platform: Platform) -> None:
    event = await happen(platform, "thing/1")
    for who in (DEVELOPER, PROVIDER):
        browser = await browser_for(who)
        for path in (PAGE, f"{PAGE}/export", f"{PAGE}/{event}"):
            assert (await browser.get(path)).status_code == 403


async def test_types_are_listed_once_each(platform: Platform, street: Street) -> None:
    found = await platform.audit.types(PLATFORM)
    assert found == sorted(set(found)) and {"flag.percentage_set", "wallet.mode_set"} <= set(found)
    assert [
        event.type for batch in [await platform.audit.page(PLATFORM, Wanted(type=found[0]))] for event in batch.items
    ]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"client_secret": "x", "key": "neft-42"}, {"client_secret": "••••", "key": "neft-42"}),
        ({"a": [{"access_token": "y"}]}, {"a": [{"access_token": "••••"}]}),
        ({"units": {"input_tokens": "12"}}, {"units": {"input_tokens": "12"}}),
        ({"said": "Authorization: Bearer abcdefgh"}, {"said": "Authorization: Bearer ••••"}),
        ({"prefix": "haat_live_AbCd1234", "n": 1}, {"prefix": "haat_live_AbCd1234", "n": 1}),
        ({"password": ""}, {"password": ""}),
        ({"pem": "-----BEGIN PRIVATE KEY-----\nMII"}, {"pem": "-----BEGIN PRIVATE KEY-----••••"}),
    ],
)
def test_secrets_are_masked_and_nothing_else(data: dict[str, object], shown: dict[str, object]) -> None:
    assert masked(data) == shown
