"""Without a connection: what was seen stays readable, what was not says so, and nobody reads another's pages."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from walking import Walk

pytestmark = pytest.mark.verify


def wait_for_worker(me: Walk, path: str) -> None:
    """Open a page and wait until the worker has kept it."""
    me.go(path)
    me.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    me.wait_until(KEPT, me.address + path)


KEPT = """async address => {
    for (const name of (await caches.keys()).filter(name => name.startsWith('pages-'))) {
        const cache = await caches.open(name);
        if (await cache.match(address, {ignoreVary: true})) return true;
    }
    return false;
}"""
GONE = f"async address => !(await ({KEPT})(address))"


def offline(me: Walk) -> Page:
    me.page.context.set_offline(True)
    me.refused.append("/")  # the browser tells of what it could not load
    return me.page


def test_a_page_that_was_seen_is_shown_with_a_note_and_another_one_says_that_it_was_not(
    walk: Callable[..., Walk],
) -> None:
    me = walk()
    wait_for_worker(me, "/catalog")
    wait_for_worker(me, "/help")
    page = offline(me)
    me.go("/catalog")
    expect(page.get_by_role("status").first).to_contain_text("You are offline. This page is as it was:")
    expect(page.locator(".stall").first).to_be_visible()
    assert me.wrong_here("kept page") == []
    me.go("/sign-up")
    expect(page.get_by_role("heading", name="You are offline")).to_be_visible()
    expect(page.locator("[data-kept] a").first).to_be_visible()
    assert me.wrong_here("offline page") == []
    page.locator("[data-kept] a", has_text="Catalog").click()
    expect(page.locator(".stall").first).to_be_visible()
    page.context.set_offline(False)
    me.go("/catalog")
    expect(page.get_by_text("You are offline")).to_have_count(0)


def test_the_note_speaks_the_pages_language(walk: Callable[..., Walk]) -> None:
    me = walk()
    wait_for_worker(me, "/ur/catalog")
    page = offline(me)
    me.go("/ur/catalog")
    expect(page.get_by_role("status").first).not_to_contain_text("You are offline")
    me.go("/ur/sign-up")
    assert page.locator("html").get_attribute("dir") == "rtl"
    assert me.wrong_here("offline in Urdu") == []


def test_who_signs_out_leaves_no_page_behind(walk: Callable[..., Walk]) -> None:
    me = walk()
    me.go("/sign-up")
    me.sign_up()
    wait_for_worker(me, "/account/usage")
    me.press("button", "Sign out")
    expect(me.page.get_by_role("link", name="Sign in")).to_be_visible()
    me.wait_until(KEPT, f"{me.address}/")  # the first page of the next reader is kept
    me.wait_until(GONE, f"{me.address}/account/usage")
    page = offline(me)
    me.go("/account/usage")
    expect(page.get_by_role("heading", name="You are offline")).to_be_visible()


def test_who_signs_out_without_a_connection_leaves_no_page_behind_either(walk: Callable[..., Walk]) -> None:
    me = walk()
    me.go("/sign-up")
    me.sign_up()
    wait_for_worker(me, "/account/usage")
    offline(me).evaluate("fetch('/sign-out', {method: 'POST'}).catch(() => {})")
    me.wait_until(GONE, f"{me.address}/account/usage")


def test_a_key_that_is_shown_once_is_not_kept(walk: Callable[..., Walk]) -> None:
    me = walk()
    me.go("/sign-up")
    me.sign_up()
    me.go("/services/vani/translate-hi-ur")
    me.press("button", "Subscribe")  # which makes an application
    wait_for_worker(me, "/account")
    me.page.get_by_label("Name of a new key").first.fill("laptop")
    me.press("button", "Make a key")
    expect(me.page.locator(".secret code")).to_contain_text("haat_live_")
    found = me.page.evaluate(
        """async () => {
            for (const name of await caches.keys()) {
                const cache = await caches.open(name);
                for (const request of await cache.keys()) {
                    const kept = await cache.match(request, {ignoreVary: true});
                    if ((await kept.text()).includes('haat_live_')) return request.url;
                }
            }
            return '';
        }"""
    )
    assert found == ""
