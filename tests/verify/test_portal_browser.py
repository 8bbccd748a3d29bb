"""The portal in Debian's Chromium, on a whole running platform: journeys, axe, reflow, keyboard, no script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import expect
from running import RunningPlatform, account_of
from walking import Walk

from haat.bootstrap import OPERATOR_EMAIL
from haat.providers.companies import VANI

pytestmark = pytest.mark.verify

TRANSLATION = "/services/vani/translate-hi-ur"
LEVEL = f"{TRANSLATION}/level"

VISITORS = [
    "/",
    "/catalog",
    "/catalog?q=zzzz",
    "/hi/catalog",
    "/ur/",
    TRANSLATION,
    f"{TRANSLATION}/api",
    LEVEL,
    "/help",
    "/ta/help/first-call",
    "/sign-in",
    "/sign-up",
    "/forgot",
    "/nowhere",
    "/_design",
    "/offline",
]
DEVELOPERS = [
    TRANSLATION,
    "/account",
    "/account/subscriptions",
    "/account/usage",
    "/account/calls",
    "/account/invoices",
    "/account/jobs",
    "/account/webhooks",
    "/account/members",
    "/account/sessions",
    "/account/profile",
]
PROVIDERS = ["/partner", "/partner/new", "/partner/statements", "/partner/reviews", LEVEL]
OPERATORS = [
    "/operator",
    "/operator/partners",
    "/operator/dead-letters",
    "/operator/invoices",
    "/operator/flags",
    "/operator/calls",
    "/operator/audit",
    "/operator/gateways",
    "/operator/levels",
    "/operator/plugins",
    "/operator/settlements",
    "/operator/payments",
    "/operator/content",
    "/operator/content/reports",
    "/operator/reviews",
]


def subscribe(walk: Walk, path: str) -> None:
    walk.go(path)
    walk.press("button", "Subscribe")
    expect(walk.page.get_by_role("status").first).to_contain_text("Subscribed")


def test_a_stranger_signs_up_finds_calls_and_sees_the_cost_in_under_twelve_clicks(walk: Callable[..., Walk]) -> None:
    me = walk()
    page = me.page
    me.go("/")
    me.press("link", "Sign up")
    me.sign_up()
    me.press("link", "Catalog")
    page.get_by_label("Search services").fill("अनुवाद")
    page.keyboard.press("Enter")
    page.locator(".stall a", has_text="Hindi").first.click()
    me.clicks += 1
    me.press("button", "Subscribe")
    expect(page.get_by_role("status").first).to_contain_text("Subscribed")
    me.press("button", "Call it")
    answer = page.locator("#answer .said")
    expect(answer).to_be_visible()
    assert answer.get_attribute("dir") == "rtl" and answer.get_attribute("lang") == "ur-Arab"
    expect(page.locator("#answer")).to_contain_text("characters")
    story = page.locator("#answer a", has_text="story").get_attribute("href")
    assert story is not None

    def see_story() -> bool:
        me.go(story)
        return page.get_by_role("heading", name="What it cost").is_visible()

    for _ in range(50):  # the journal is shipped within a second or two
        if see_story():
            break
        page.wait_for_timeout(200)
    expect(page.get_by_text("At list price")).to_be_visible()
    assert me.faults() == []
    me.complaints = [text for text in me.complaints if "404" not in text]  # the story before it was there
    me.press("link", "Account")
    me.press("link", "Usage")
    expect(page.get_by_role("row").filter(has_text="characters")).to_have_count(1)
    assert me.faults() == []
    me.press("link", "Invoices")
    expect(page.get_by_role("heading", name="This month so far")).to_be_visible()
    assert me.clicks <= 12
    assert me.complaints == []


def test_sound_and_pictures_are_tried_on_the_page(walk: Callable[..., Walk]) -> None:
    me = walk()
    me.go("/sign-up")
    me.sign_up()
    subscribe(me, "/services/vani/text-to-speech")
    me.press("button", "Call it")
    sound = me.page.locator("#answer audio")
    expect(sound).to_be_visible()
    me.page.wait_for_function("document.querySelector('#answer audio').readyState >= 1")
    subscribe(me, "/services/vani/ocr")
    me.press("button", "Call it")
    expect(me.page.locator("#answer")).to_contain_text("1\u00a0image")
    assert me.complaints == []


def test_everything_works_without_script(walk: Callable[..., Walk]) -> None:
    me = walk(java_script_enabled=False)
    me.go("/sign-up")
    me.sign_up()
    subscribe(me, TRANSLATION)
    me.press("button", "Call it")
    expect(me.page.locator("#answer .said")).to_be_visible()
    me.press("button", "Dark")
    assert me.page.locator("html").get_attribute("data-theme") == "dark"
    me.go("/account")
    me.page.get_by_label("Name of a new key").first.fill("laptop")
    me.press("button", "Make a key")
    expect(me.page.locator(".secret code")).to_contain_text("haat_live_")


def test_the_keyboard_alone_leads_through_the_page_and_focus_is_seen(walk: Callable[..., Walk]) -> None:
    me = walk()
    me.go("/")
    me.page.keyboard.press("Tab")
    assert me.page.evaluate("document.activeElement.textContent") == "Skip to the page"
    me.page.keyboard.press("Tab")
    seen: list[str] = []
    for _ in range(40):
        ring = me.page.evaluate(
            """() => {
                const at = document.activeElement, stall = at.closest('.stall') ?? at;
                const widths = [at, stall].map(one => getComputedStyle(one).outlineStyle === 'none' ? 0
                                                      : parseFloat(getComputedStyle(one).outlineWidth));
                return [Math.max(...widths), at.textContent.trim()];
            }"""
        )
        assert ring[0] >= 3, ring
        seen.append(ring[1])
        me.page.keyboard.press("Tab")
    assert seen.index("Catalog") < seen.index("Sign in") < seen.index("Walk the market") < seen.index("हिन्दी")


def test_what_cannot_be_undone_asks_first(walk: Callable[..., Walk], platform_process: RunningPlatform) -> None:
    provider = walk()
    provider.go("/sign-up?kind=provider")
    provider.sign_up("provider")
    slug = f"stall-{uuid4().hex[:8]}"
    provider.page.get_by_label("Name in addresses").fill(slug)
    provider.page.get_by_label("E-mail for decisions").fill(f"{slug}@example.in")
    provider.press("button", "Send to the operator")
    expect(provider.page.get_by_text("The operator is looking")).to_be_visible()

    operator = walk()
    operator.sign_in(*account_of(platform_process, OPERATOR_EMAIL))
    operator.go("/operator")
    waiting = operator.page.locator(".applicant", has_text=slug)
    approve = waiting.get_by_role("button", name="Approve")
    expect(approve).to_have_count(0)
    waiting.get_by_text("Approve…").click()
    expect(approve).to_be_visible()
    assert operator.faults() == []
    approve.click()
    expect(operator.page.get_by_role("status").first).to_contain_text("The partner is approved")
    provider.go("/partner")
    expect(provider.page.get_by_text("Your shelf is empty")).to_be_visible()
    assert provider.complaints == operator.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_a_rule_of_accessibility_or_scrolls_sideways(
    walk: Callable[..., Walk], platform_process: RunningPlatform, scheme: Any
) -> None:
    people: list[tuple[tuple[str, str] | None, list[str]]] = [
        (None, VISITORS),
        (account_of(platform_process, VANI.email), [*DEVELOPERS, *PROVIDERS]),
        (account_of(platform_process, OPERATOR_EMAIL), OPERATORS),
    ]
    wrong: list[str] = []
    for who, paths in people:
        me = walk(color_scheme=scheme)
        if who:
            me.sign_in(*who)
        for path in paths:
            wrong += me.wrong_on(path)
        wrong += [f"console: {complaint}" for complaint in me.complaints]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_high_contrast_breaks_no_rule_either(walk: Callable[..., Walk], scheme: Any) -> None:
    me = walk(color_scheme=scheme, contrast="more")
    wrong = [fault for path in ("/", "/catalog", TRANSLATION, "/_design") for fault in me.wrong_on(path)]
    assert not wrong, "\n".join(wrong)
    assert me.page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(0, 0, 0)"
    )
