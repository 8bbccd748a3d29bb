"""What a provider and the operator come for, on a running platform: in few clicks, and without the manual."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import expect
from running import RunningPlatform, account_of
from trade import Api, Handler, serving
from walking import PASSWORD, Walk

from haat.bootstrap import OPERATOR_EMAIL

pytestmark = pytest.mark.verify

MOST_CLICKS = 12


class Loud(Handler):
    """A provider's own service: it says everything louder, and fails when it is asked to."""

    def do_POST(self) -> None:
        texts = [item["text"] for item in json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]]
        if "fail" in texts:
            self.answer(500, b'{"error": "out of breath"}')
        else:
            answer = json.dumps({"output": [{"text": text.upper()} for text in texts]}).encode()
            self.answer(200, answer, f"characters={sum(map(len, texts))}")


def test_a_provider_lists_a_service_by_its_address_and_sees_what_it_earns(
    walk: Callable[..., Walk], platform_process: RunningPlatform
) -> None:
    slug, me = f"loud-{uuid4().hex[:6]}", walk()
    page = me.page
    me.go("/")
    me.press("link", "Sign up")
    me.sign_up("provider")
    page.get_by_label("Name in addresses").fill(slug)
    page.get_by_label("E-mail for decisions").fill(f"{slug}@example.in")
    me.press("button", "Send to the operator")
    _approve(platform_process, slug)
    with serving(Loud) as address:
        me.go("/partner")
        me.press("link", "Add a service")
        page.get_by_label("Name", exact=True).fill("Louder")
        page.get_by_label("Name in addresses").fill("louder")
        page.get_by_label("Kind").select_option("nlp")
        page.get_by_label("Price of one unit, ₹").fill("0.5")
        page.get_by_label("Address", exact=True).fill(address)
        me.press("button", "Save as a draft")
        expect(page.get_by_role("heading", name="The gateway's credential")).to_be_visible()
        me.press("button", "Make the sample call")
        me.press("button", "Publish it")
        expect(page.get_by_role("status").first).to_contain_text("open to buyers")
        shelf = page.url
        _buy(walk(), f"/services/{slug}/louder")
        earned = page.locator("dt", has_text="Your share so far").locator("xpath=following-sibling::dd")
        _see(lambda: bool(page.goto(shelf)) and "₹0.00" not in (earned.all_inner_texts() or ["₹0.00"])[0])
    expect(earned).to_contain_text("₹4.55")  # 70 % of thirteen characters at 50 paise
    assert me.clicks <= MOST_CLICKS
    assert me.faults() == []
    assert me.complaints == []


def test_the_operator_finds_out_from_a_request_id_why_a_call_has_failed(
    walk: Callable[..., Walk], platform_process: RunningPlatform
) -> None:
    key = _key_of_a_newcomer(platform_process)

    def refused() -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{platform_process.gateway_url}/v1/services/vani/translate-hi-ur/invoke"
        return httpx.post(url, json={"input": [{"text": "नमस्ते"}]}, headers=headers, trust_env=False)

    _see(lambda: refused().status_code == 403)  # the key is known, and it subscribes to nothing
    request_id = refused().headers["x-request-id"]

    me = walk()
    me.sign_in(*account_of(platform_process, OPERATOR_EMAIL))
    me.clicks, began = 0, time.monotonic()
    me.go("/operator")
    me.press("link", "Calls")

    def told() -> bool:
        me.page.get_by_label("Request id").fill(request_id)
        me.press("button", "Look it up")
        return me.page.locator("code", has_text="NOT_SUBSCRIBED").count() > 0

    me.refused.append(request_id)  # until the call has come from its journal there is none
    _see(told)
    expect(me.page.get_by_text("not subscribed").first).to_be_visible()
    expect(me.page.get_by_role("heading", name="Where the time went")).to_be_visible()
    assert time.monotonic() - began < 60
    assert me.faults() == []
    assert me.complaints == []


def _key_of_a_newcomer(platform: RunningPlatform) -> str:
    """Return a key of an application that subscribes to nothing."""
    person = {"email": f"{uuid4().hex[:12]}@example.in", "password": PASSWORD}
    account = {**person, "name": "Asha", "organisation": "Asha Apps", "kind": "consumer"}
    httpx.post(f"{platform.control_url}/api/v1/accounts", json=account, trust_env=False).raise_for_status()
    newcomer = Api(platform.control_url, **person)
    application = newcomer.ask("POST", "/applications", name="shop")["id"]
    key: str = newcomer.ask("POST", f"/applications/{application}/keys", name="laptop")["key"]
    newcomer.client.close()
    return key


def _approve(platform: RunningPlatform, slug: str) -> None:
    """Let the operator approve a provider, and its endpoint lie on this machine."""
    operator = Api(platform.control_url, *account_of(platform, OPERATOR_EMAIL))
    [waiting] = [one for one in operator.ask("GET", "/partners?status=pending") if one["slug"] == slug]
    operator.ask("POST", f"/partners/{waiting['org_id']}/approve")
    operator.ask("PUT", f"/partners/{waiting['org_id']}/networks", networks=["127.0.0.0/8"])
    operator.client.close()


def _buy(me: Walk, path: str) -> None:
    """Sign up, subscribe to a service and call it on its page."""
    me.go("/sign-up")
    me.sign_up()
    me.go(path)
    me.press("button", "Subscribe")
    expect(me.page.get_by_role("status").first).to_contain_text("Subscribed")
    me.press("button", "Call it")
    expect(me.page.locator("#answer .said")).to_be_visible()


def _see(found: Callable[[], bool]) -> None:
    """Look until it is there: the journal is shipped within a second or two."""
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.3)
