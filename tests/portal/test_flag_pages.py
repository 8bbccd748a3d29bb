"""The operator turns flags on a page, and pages follow."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest

from haat.app import Platform
from haat.kernel.permissions import PLATFORM

from .conftest import Browser, faults_of
from .street import DEVELOPER, OPERATOR, PROVIDER, Street

BrowserFor = Callable[[str | None], Awaitable[Browser]]
LIST = "/operator/flags"
PAGE = f"{LIST}/new-search"


async def test_a_switch_is_made_turned_and_followed(street: Street, browser_for: BrowserFor) -> None:
    operator, developer = await browser_for(OPERATOR), await browser_for(DEVELOPER)
    service = f"/services/{street.listings[0].path}"
    made = await operator.send(LIST, LIST, key="portal-trial", description="The form", default="on")
    assert "The flag is kept" in made.text and "Everybody gets on." in made.text
    assert "Call it" in (await developer.get(service)).text
    off = await operator.send(f"{LIST}/portal-trial/off", LIST, back="list")
    assert off.url.path == LIST and "Everybody gets off." in off.text
    page = await developer.get(service)
    assert "Call it" not in page.text and "switched off at the moment" in page.text
    refused = await developer.send(f"{service}/try", service, subscription=str(street.subscription.id))
    assert refused.status_code == 403 and "The operator has switched this off" in refused.text
    await operator.send(f"{LIST}/portal-trial/on", f"{LIST}/portal-trial")
    assert "Call it" in (await developer.get(service)).text


async def test_a_visitor_is_told_that_sign_up_and_registration_are_shut(
    street: Street, browser_for: BrowserFor, platform: Platform
) -> None:
    operator, visitor = await browser_for(OPERATOR), await browser_for(None)
    await operator.send(LIST, LIST, key="sign-up", default="off")
    refused = await visitor.send("/sign-up", "/sign-up", email="new@x.example", password="a long password", name="N",
                                 organisation="New", kind="consumer")  # fmt: skip
    assert refused.status_code == 403 and "ask the operator when it is back" in refused.text


async def test_a_percentage_an_override_and_the_whole_flag_are_written(
    street: Street, browser_for: BrowserFor, platform: Platform
) -> None:
    browser = await browser_for(OPERATOR)
    await browser.send(f"{PAGE}/percent", PAGE, percent="50", variant="on")
    await browser.send(f"{PAGE}/override", PAGE, organisation=str(street.stranger.org_id), variant="off")
    await browser.send(f"{PAGE}/override", PAGE, organisation=str(street.developer.org_id))
    flag = await platform.flags.get(PLATFORM, "new-search")
    assert flag.rules[-1].buckets == 5000 and flag.overrides == {str(street.stranger.org_id): "off"}
    whole = {"kind": "string", "variants": {"off": "", "hi": "नमस्ते"}, "default": "hi"}
    done = await browser.send(
        f"{PAGE}/definition", PAGE, definition=json.dumps(whole, ensure_ascii=False), version=str(flag.version)
    )
    assert "नमस्ते" in done.text and faults_of(done.text) == []
    stale = await browser.send(f"{PAGE}/definition", PAGE, definition=json.dumps(whole), version=str(flag.version))
    assert stale.status_code == 409
    gone = await browser.send(f"{PAGE}/remove", PAGE)
    assert "The flag is removed" in gone.text
    assert (await browser.get(PAGE)).status_code == 404


@pytest.mark.parametrize(
    ("path", "fields", "status", "told"),
    [
        (f"{PAGE}/percent", {"percent": "much"}, 422, "Enter a number from 0 to 100."),
        (f"{PAGE}/percent", {"percent": "nan"}, 422, "percent"),
        (f"{PAGE}/percent", {"percent": "101"}, 422, "less than or equal to 100"),
        (f"{PAGE}/percent", {"percent": "5", "variant": "maybe"}, 422, "Choose one of on, off."),
        (f"{PAGE}/override", {"organisation": "me", "variant": "on"}, 422, "Enter the organisation&#39;s id."),
        (f"{PAGE}/override", {"organisation": "00000000-0000-7000-8000-00000000ffff", "variant": "on"}, 422, "no org"),
        (f"{PAGE}/definition", {"definition": "{"}, 422, "This is not JSON."),
        (f"{PAGE}/definition", {"definition": "[" * 5000}, 422, "This is not JSON."),
        (f"{PAGE}/definition", {"definition": '{"kind": "colour"}'}, 422, "kind:"),
        (f"{PAGE}/explode", {}, 404, "nothing here"),
        (LIST, {"key": "UPPER"}, 422, "small letters and digits"),
        (LIST, {"key": "new-search"}, 409, "at version"),
        (f"{LIST}/gone/off", {}, 404, "There is no flag gone"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said_on_the_page(
    street: Street, browser_for: BrowserFor, path: str, fields: dict[str, str], status: int, told: str
) -> None:
    browser = await browser_for(OPERATOR)
    answer = await browser.send(path, LIST, **fields)
    assert (answer.status_code, told in answer.text) == (status, True), answer.text[-3000:]
    assert faults_of(answer.text) == []


async def test_flags_are_nobody_elses(street: Street, browser_for: BrowserFor) -> None:
    for who in (DEVELOPER, PROVIDER):
        browser = await browser_for(who)
        for path in (LIST, PAGE):
            assert (await browser.get(path)).status_code == 403
        assert (await browser.send(f"{PAGE}/off")).status_code == 403
