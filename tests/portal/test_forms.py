"""Forms do what they say, refuse what they must, and belong to one browser."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal

import httpx
import pytest
from fastapi.routing import APIRoute

from haat.app import Platform
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.kernel.ids import id_at
from haat.portal.pages import PARTS
from haat.usage import intake
from haat.usage.event import Outcome, UsageEvent
from haat.usage.intake import Record

from .conftest import Browser, faults_of
from .street import DEVELOPER, OPERATOR, PASSWORD, PROVIDER, STRANGER, Street

BrowserFor = Callable[[str | None], Awaitable[Browser]]


def forms() -> list[str]:
    """Return the path of every form the portal takes."""
    return sorted(
        route.path for part in PARTS for route in part.routes if isinstance(route, APIRoute) and "POST" in route.methods
    )


# --- tokens ---------------------------------------------------------------------------------------


async def test_no_form_is_taken_without_its_token(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(OPERATOR)
    assert len(forms()) >= 20
    for form in forms():
        path = re.sub(r"\{[^}]+\}", str(street.application.id), form)
        answer = await browser.client.post(path, data={"email": "x"})
        assert (answer.status_code, "FORM_EXPIRED" in answer.text) == (403, True), form


async def test_a_token_of_another_session_is_refused(street: Street, browser_for: BrowserFor) -> None:
    mine, theirs = await browser_for(DEVELOPER), await browser_for(STRANGER)
    answer = await mine.client.post(
        "/account/applications", data={"form_token": await theirs.token("/account"), "name": "Stolen"}
    )
    assert answer.status_code == 403
    assert "Stolen" not in (await mine.get("/account")).text


async def test_a_token_from_before_sign_in_ends_with_it(street: Street, browser: Browser) -> None:
    before = await browser.token("/sign-in")
    await browser.sign_in(DEVELOPER)
    answer = await browser.client.post("/account/applications", data={"form_token": before, "name": "Old"})
    assert answer.status_code == 403


async def test_a_form_without_a_length_or_too_long_is_refused(browser: Browser) -> None:
    async def endless() -> object:
        yield b"form_token=x"

    assert (await browser.client.post("/theme", content=endless())).status_code == 400  # type: ignore[arg-type]  # any async iterator
    huge = await browser.client.post("/theme", content=b"", headers={"content-length": "99999999"})
    assert huge.status_code == 413


async def test_text_that_cannot_be_stored_is_refused(street: Street, browser: Browser) -> None:
    answer = await browser.send("/sign-in", email="a\x00b", password="x")
    assert answer.status_code == 400


# --- signing up, in and out ------------------------------------------------------------------------


async def test_signing_up_opens_an_account_and_a_session(browser: Browser, platform: Platform) -> None:
    answer = await browser.send(
        "/sign-up", kind="consumer", name="Asha", organisation="Asha Apps", email="asha@example.in",
        password=PASSWORD, state_code="29", gstin="",
    )  # fmt: skip
    assert answer.url.path == "/account" and "Welcome" in answer.text
    cookie = next(one for one in browser.client.cookies.jar if one.name == "haat_session")
    assert cookie.has_nonstandard_attr("HttpOnly") and cookie.get_nonstandard_attr("SameSite") == "lax"


async def test_a_refused_sign_up_names_the_field_and_keeps_what_was_typed(browser: Browser) -> None:
    answer = await browser.send(
        "/sign-up", kind="provider", name="Asha", organisation="Asha Apps", email="asha@example.in", password="tiny-one"
    )
    assert answer.status_code == 422
    assert 'id="password-error"' in answer.text and 'aria-invalid="true"' in answer.text
    assert 'value="Asha Apps"' in answer.text and "tiny-one" not in answer.text
    assert faults_of(answer.text) == []


async def test_a_wrong_password_is_refused_without_telling_which_of_both_was_wrong(
    street: Street, browser: Browser
) -> None:
    known = await browser.sign_in(DEVELOPER, "not the password")
    unknown = await browser.sign_in("nobody@nowhere.example", "not the password")
    assert known.status_code == unknown.status_code == 401
    assert "E-mail or password is wrong" in known.text or "Check both" in known.text
    assert "haat_session" not in browser.client.cookies


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x"])
async def test_signing_in_never_leads_to_another_site(street: Street, browser: Browser, elsewhere: str) -> None:
    browser.client.follow_redirects = False
    answer = await browser.send("/sign-in", email=DEVELOPER, password=PASSWORD, next=elsewhere)
    assert answer.status_code == 303 and answer.headers["location"] == "/"


async def test_a_page_that_needs_a_session_leads_to_sign_in_and_back(street: Street, browser: Browser) -> None:
    answer = await browser.get("/account/usage")
    assert answer.url.path == "/sign-in"
    back = await browser.send("/sign-in", email=DEVELOPER, password=PASSWORD, next=answer.url.params["next"])
    assert back.url.path == "/account/usage"


async def test_signing_out_ends_the_session_on_the_server_too(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(DEVELOPER)
    token = browser.client.cookies["haat_session"]
    await browser.send("/sign-out")
    browser.client.cookies.set("haat_session", token)
    assert (await browser.get("/account")).url.path == "/sign-in"


async def test_a_session_that_is_over_leads_to_sign_in(
    street: Street, browser_for: BrowserFor, clock: SetClock
) -> None:
    browser = await browser_for(DEVELOPER)
    clock.advance(hours=13)
    assert (await browser.get("/account")).url.path == "/sign-in"


async def test_cookies_are_for_https_only_where_the_portal_is(platform: Platform, browser: Browser) -> None:
    platform.settings.public_url = "https://haat.example"
    answer = await browser.get("/sign-in")
    assert "Secure" in answer.headers["set-cookie"]


# --- applications, keys, subscriptions ----------------------------------------------------------------


async def test_a_key_ends_after_the_days_chosen_and_never_where_none_are(
    street: Street, platform: Platform, browser_for: BrowserFor, clock: SetClock
) -> None:
    browser, form = await browser_for(DEVELOPER), f"/account/applications/{street.application.id}/keys"
    for days in ("", "30", "7000", "soon"):
        made = await browser.send(form, page="/account", name=f"key {days}", days=days)
        assert made.status_code == 200 and faults_of(made.text) == []
    keys = await platform.identity.keys(street.developer, street.application.id)
    ends = {key.name: key.expires_at for key in keys}
    assert ends["key"] is None and ends["key 7000"] is None and ends["key soon"] is None
    assert ends["key 30"] == clock.now() + timedelta(days=30)
    assert "open until" in made.text


async def test_a_key_can_be_made_for_some_services(street: Street, platform: Platform, browser_for: BrowserFor) -> None:
    browser, form = await browser_for(DEVELOPER), f"/account/applications/{street.application.id}/keys"
    assert 'name="service" value="vani/hindi-urdu"' in (await browser.get("/account")).text
    made = await browser.send(form, page="/account", name="narrow", service="vani/hindi-urdu")
    assert made.status_code == 200 and "opens only <code>vani/hindi-urdu</code>" in made.text
    assert faults_of(made.text) == []
    refused = await browser.send(form, page="/account", name="odd", service="vani hindi")
    assert refused.status_code == 422 and "invoke:provider/service" in refused.text and 'value="odd"' in refused.text
    scopes = {one.name: one.scopes for one in await platform.identity.keys(street.developer, street.application.id)}
    assert scopes["narrow"] == ("invoke:vani/hindi-urdu",) and "odd" not in scopes


async def test_a_key_is_shown_once_and_can_be_rotated_and_revoked(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    browser = await browser_for(DEVELOPER)
    made = await browser.send(f"/account/applications/{street.application.id}/keys", page="/account", name="phone")
    shown = re.search(r"haat_live_[0-9A-Za-z]{28}", made.text)
    assert shown is not None
    key = shown.group(0)
    assert key not in (await browser.get("/account")).text

    stored = next(
        one for one in await platform.identity.keys(street.developer, street.application.id) if one.name == "phone"
    )
    rotated = await browser.send(f"/account/keys/{stored.id}/rotate", page="/account")
    assert "goes on working until" in rotated.text and key not in rotated.text
    revoked = await browser.send(f"/account/keys/{stored.id}/revoke", page="/account")
    assert "The key is revoked" in revoked.text


async def test_a_test_key_is_made_where_it_is_asked_for_and_stays_one_when_rotated(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    browser = await browser_for(DEVELOPER)
    page = f"/account/applications/{street.application.id}/keys"
    made = await browser.send(page, page="/account", name="ci", mode="test")
    assert re.search(r"haat_test_[0-9A-Za-z]{28}", made.text) is not None
    keys = await platform.identity.keys(street.developer, street.application.id)
    [stored] = [one for one in keys if one.name == "ci"]
    assert stored.prefix.startswith("haat_test_")
    rotated = await browser.send(f"/account/keys/{stored.id}/rotate", page="/account")
    assert re.search(r"haat_test_[0-9A-Za-z]{28}", rotated.text) is not None


async def test_the_calls_of_a_test_key_are_marked_and_cost_nothing(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    listing, now = street.listings[0], int(platform.clock.now().timestamp() * 1000)
    event = UsageEvent(
        id=str(id_at(now + 1)), at=now + 1, outcome=Outcome.COMPLETED,
        org=str(street.developer.org_id), application=str(street.application.id), service=str(listing.id),
        provider=listing.provider_slug, service_slug=listing.slug, plan="basic", status=200, mode="test",
        units={"characters": "12"},
    )  # fmt: skip
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        await intake.take(connection, [Record(event, "street", 9, 1)], platform.clock.now())
    browser = await browser_for(DEVELOPER)
    assert '<span class="small muted">test</span>' in (await browser.get("/account/calls")).text
    story = (await browser.get(f"/account/calls/{event.id}")).text
    assert "It was made with a test key" in story and "not invoiced yet" not in story


async def test_subscribing_makes_a_first_application_on_the_way(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(STRANGER)
    page = "/services/akshara/sentiment"
    answer = await browser.send(f"{page}/subscribe", page=page, plan="free", new_application="Reviews")
    assert "Subscribed." in answer.text and "Reviews" in answer.text and "Call it" in answer.text


async def test_a_plan_is_changed_and_a_subscription_ended(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(DEVELOPER)
    page = "/account/subscriptions"
    changed = await browser.send(f"{page}/{street.subscription.id}/plan", page=page, plan="enterprise")
    assert "The plan is changed" in changed.text and "Enterprise" in changed.text
    ended = await browser.send(f"{page}/{street.subscription.id}/cancel", page=page)
    assert "The subscription has ended" in ended.text
    again = await browser.send(f"{page}/{street.subscription.id}/cancel", page=page)
    assert again.status_code == 409 and "subscribe again" in again.text


async def test_a_refusal_speaks_the_readers_language_with_its_values(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(DEVELOPER)
    page = "/hi/account/subscriptions"
    form = {"form_token": await browser.token(page), "plan": "gold"}
    refused = await browser.client.post(f"{page}/{street.subscription.id}/plan", data=form)
    assert refused.status_code == 404 and "gold नाम का कोई प्लान नहीं है" in refused.text
    assert 'class="small muted borrowed"' not in refused.text  # it is in Hindi when it arrives, and nothing was missing
    visitor = await browser_for(None)
    form = {"form_token": await visitor.token("/hi/sign-up"), "kind": "consumer", "name": "Asha", "password": "short"}
    refused = await visitor.client.post("/hi/sign-up", data={**form, "organisation": "A", "email": "a@example.in"})
    assert "10 से 256 वर्ण लिखें" in refused.text


async def test_a_gateway_that_is_away_is_told_in_place(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(DEVELOPER)
    page = "/services/vani/hindi-urdu"
    fields = {"subscription": str(street.subscription.id), "input.text": "नमस्ते", "pair": "hi-Deva>ur-Arab"}
    token = await browser.token(page)
    whole = await browser.client.post(f"{page}/try", data={"form_token": token, **fields})
    part = await browser.client.post(
        f"{page}/try", data={"form_token": token, **fields}, headers={"HX-Request": "true"}
    )
    assert "The gateway did not answer" in whole.text and "नमस्ते" in whole.text and "<html" in whole.text
    assert "The gateway did not answer" in part.text and "<html" not in part.text


# --- providers and the operator -----------------------------------------------------------------------


async def test_a_provider_registers_is_approved_and_puts_a_draft_on_the_shelf(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    browser = await browser_for(None)
    await browser.send(
        "/sign-up", kind="provider", name="Kavi", organisation="Kavi Labs", email="kavi@labs.example", password=PASSWORD
    )
    asked = await browser.send(
        "/partner/register", page="/partner", company_name="Kavi Labs", slug="kavi", contact_person="Kavi",
        email="kavi@labs.example", business_type="company", gstin="",
    )  # fmt: skip
    assert "The operator is looking at your registration" in asked.text

    operator = await browser_for(OPERATOR)
    queue = await operator.get("/operator")
    org = re.search(r'id="partner-([0-9a-f-]{36})" dir="auto">Kavi Labs', queue.text)
    assert org is not None
    approved = await operator.send(f"/operator/partners/{org.group(1)}/approve", page="/operator")
    assert "The partner is approved" in approved.text and "Kavi Labs" not in approved.text

    fields = {
        "name": "Kavi speaks", "slug": "speaks", "category": "text_to_speech", "unit": "characters",
        "price.unit_price": "0.0004", "price.free_units": "0", "version.endpoint": "http://127.0.0.1:9999",
        "version.version": "1", "version.dialect": "task", "version.languages": "hi-Deva ta-Taml",
        "version.sample.path": "/invoke", "version.sample.method": "POST",
        "version.sample.body": '{"input": [{"text": "नमस्ते"}]}', "region": "IN", "visibility": "public",
    }  # fmt: skip
    wrong = await browser.send("/partner/new", page="/partner/new", **{**fields, "version.languages": "Hindi"})
    assert wrong.status_code == 422 and 'id="version.languages-error"' in wrong.text and "Kavi speaks" in wrong.text
    assert faults_of(wrong.text) == []
    drafted = await browser.send("/partner/new", page="/partner/new", **fields)
    assert "Bearer haat_provider_" in drafted.text and "not accepted yet" in drafted.text
    assert "Kavi speaks" not in (await (await browser_for(None)).get("/catalog")).text


async def test_a_sample_call_that_fails_shows_what_was_seen(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    browser = await browser_for(PROVIDER)
    service = street.listings[0].id
    page = f"/partner/services/{service}"
    added = await browser.send(
        f"{page}/versions", page=page,
        **{"version.version": "2", "version.endpoint": "http://127.0.0.1:9998", "version.dialect": "task",
           "version.sample.body": '{"input": [{"text": "x"}]}', "version.warm_up_seconds": "1"},
    )  # fmt: skip
    assert "The version is added" in added.text
    fresh = next(one for one in await platform.discovery.versions(street.provider, service) if one.version == "2")
    answer = await browser.send(f"{page}/versions/{fresh.id}/accept", page=page)
    assert answer.status_code == 422 and "Nothing was changed" in answer.text


async def test_a_model_is_listed_with_its_tensors(street: Street, platform: Platform, browser_for: BrowserFor) -> None:
    browser = await browser_for(PROVIDER)
    service = street.listings[0].id
    page = f"/partner/services/{service}"
    tensors = {"model": "nmt", "inputs": {"text": "INPUT_TEXT"}, "outputs": {"text": "OUTPUT_TEXT"}}
    fields = {
        "version.version": "3",
        "version.endpoint": "http://127.0.0.1:9998",
        "version.dialect": "inference",
        "version.sample.body": '{"input": [{"text": "x"}]}',
    }
    for wrong in ("{", '{"model": "nmt"}'):
        refused = await browser.send(f"{page}/versions", page=page, **fields, **{"version.policy.tensors": wrong})
        assert refused.status_code == 422 and 'id="version.policy.tensors-error"' in refused.text
    added = await browser.send(
        f"{page}/versions", page=page, **fields, **{"version.policy.tensors": json.dumps(tensors)}
    )
    assert "The version is added" in added.text
    fresh = next(one for one in await platform.discovery.versions(street.provider, service) if one.version == "3")
    assert (fresh.dialect, fresh.policy["tensors"]) == ("inference", tensors)


async def test_a_new_price_counts_from_now_on(street: Street, browser_for: BrowserFor, clock: SetClock) -> None:
    browser = await browser_for(PROVIDER)
    clock.advance(minutes=1)
    page = f"/partner/services/{street.listings[0].id}"
    answer = await browser.send(f"{page}/price", page=page, **{"price.unit_price": "0.0003"})
    assert "The new price counts from now on" in answer.text and "₹0.30" in answer.text


async def test_the_operator_rejects_only_with_a_reason(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(OPERATOR)
    without = await browser.send(f"/operator/partners/{street.pending}/reject", page="/operator", reason=" ")
    assert without.status_code == 422 and "Bhasha Lab" in without.text
    done = await browser.send(f"/operator/partners/{street.pending}/reject", page="/operator", reason="No GSTIN")
    assert "The registration is rejected" in done.text and "Nobody is waiting" in done.text


async def test_a_month_is_closed_with_a_bar_that_looks_again_until_it_is_done(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    browser = await browser_for(OPERATOR)
    for _ in range(2):
        answer = await browser.send("/operator/invoices", page="/operator/invoices", month="2026-10")
        assert "October 2026 is being closed" in answer.text and "<progress" in answer.text
        assert 'hx-get="/operator/invoices/2026-10/progress"' in answer.text
    piece = await browser.get("/operator/invoices/2026-10/progress")
    assert piece.text.strip().startswith('<div id="run"') and "hx-trigger" in piece.text
    await platform.billing.work("2026-10")
    piece = await browser.get("/operator/invoices/2026-10/progress")
    assert "October 2026 is closed" in piece.text and "hx-trigger" not in piece.text
    assert piece.headers["hx-refresh"] == "true", "the whole page shows what came of it"
    assert "0 issued" in piece.text and "0 failed" in piece.text


async def test_a_running_month_is_billed_up_to_now(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(OPERATOR)
    answer = await browser.send(
        "/operator/invoices", page="/operator/invoices?month=2026-11", month="2026-11", up_to_now="yes"
    )
    assert answer.status_code == 200 and "Issued for November 2026" in answer.text
    early = await browser.send("/operator/invoices", page="/operator/invoices", month="2026-11")
    assert early.status_code == 409 and "is not over" in early.text


async def test_a_dead_letter_is_replayed(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(OPERATOR)
    page = "/operator/dead-letters"
    answer = await browser.send(f"{page}/{street.letter}/replay", page=page)
    assert "The job runs again" in answer.text and "Nothing is stuck" in answer.text


async def test_the_operators_pages_are_closed_to_everybody_else(street: Street, browser_for: BrowserFor) -> None:
    for email in (DEVELOPER, PROVIDER):
        browser = await browser_for(email)
        for path in ("/operator", "/operator/partners", "/operator/dead-letters", "/operator/invoices"):
            answer = await browser.get(path)
            assert answer.status_code == 403 and "PERMISSION_DENIED" in answer.text


# --- tenancy and hostile text ---------------------------------------------------------------------------


async def test_nothing_of_another_organisation_can_be_seen_or_changed(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    browser = await browser_for(STRANGER)
    settlement = (await platform.settlements.page(street.provider)).items[0]
    line = (await platform.invoices.lines(street.developer, street.invoice.id))[0]
    for path in (
        f"/account/calls/{street.call}",
        f"/account/invoices/{street.invoice.id}",
        f"/account/invoices/{street.invoice.id}/lines/{line['id']}",
        *(f"/account/invoices/{street.invoice.id}/{kind}" for kind in ("pdf", "csv", "json")),
        f"/partner/services/{street.listings[0].id}",
        f"/partner/statements/{settlement.id}",
    ):
        assert (await browser.get(path)).status_code in (403, 404), path
    for path in (
        f"/account/applications/{street.application.id}/keys",
        f"/account/keys/{street.key.credential.id}/rotate",
        f"/account/keys/{street.key.credential.id}/revoke",
        f"/account/subscriptions/{street.subscription.id}/plan",
        f"/account/subscriptions/{street.subscription.id}/cancel",
    ):
        assert (await browser.send(path, page="/account", plan="free")).status_code == 404, path
    keys = await platform.identity.keys(street.developer, street.application.id)
    assert len(keys) == 1 and keys[0].revoked_at is None


async def test_another_providers_service_cannot_be_changed(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for("desk@akshara.example")
    page = f"/partner/services/{street.listings[0].id}"
    for path, fields in (
        ("price", {"price.unit_price": "9"}),
        ("publish", {}),
        ("deprecate", {"sunset_at": "2027-01-01"}),
    ):
        assert (await browser.send(f"{page}/{path}", page="/partner", **fields)).status_code == 404


async def test_hostile_names_are_text_and_nothing_else(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    hostile = '"><script>alert(1)</script>'
    browser = await browser_for(DEVELOPER)
    answer = await browser.send("/account/applications", page="/account", name=hostile)
    assert "<script>alert" not in answer.text and "&lt;script&gt;alert" in answer.text
    search = await browser.get("/catalog", q=hostile, language=hostile)
    assert "<script>alert" not in search.text
    complete = await browser.get("/catalog/suggest", q=hostile)
    assert "<script>alert" not in complete.text


async def test_ids_that_are_none_are_not_found(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(DEVELOPER)
    for path in ("/account/calls/xyz", "/account/invoices/xyz", "/services/vani/none"):
        assert (await browser.get(path)).status_code == 404


async def test_every_answer_carries_the_security_headers(street: Street, browser: Browser) -> None:
    for path in ("/", "/sign-in", "/nowhere", "/static/portal.css"):
        headers: httpx.Headers = (await browser.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"]


async def test_an_announced_end_is_told_to_buyers_and_closes_the_door_to_new_ones(
    street: Street, browser_for: BrowserFor
) -> None:
    provider, buyer = await browser_for(PROVIDER), await browser_for(STRANGER)
    page = f"/partner/services/{street.listings[0].id}"
    wrong = await provider.send(f"{page}/deprecate", page=page, sunset_at="soon", reason="x")
    assert wrong.status_code == 422 and 'id="sunset_at-error"' in wrong.text
    done = await provider.send(f"{page}/deprecate", page=page, sunset_at="2027-01-31", reason="Use speak instead.")
    assert "The end of the service is announced" in done.text
    listing = await buyer.get("/services/vani/hindi-urdu")
    assert "Closing" in listing.text and "Use speak instead." in listing.text and "31 Jan 2027" in listing.text
    assert 'action="/services/vani/hindi-urdu/subscribe"' not in listing.text and faults_of(listing.text) == []


async def test_a_suspended_provider_reads_why_and_since_when(street: Street, browser_for: BrowserFor) -> None:
    operator, provider = await browser_for(OPERATOR), await browser_for(PROVIDER)
    path = f"/operator/partners/{street.provider.org_id}"
    page = "/operator/partners"
    suspended = await operator.send(f"{path}/suspend", page=page, reason="Answers come from somebody else")
    assert "The partner is suspended" in suspended.text
    stall = await provider.get("/partner")
    assert "Suspended since" in stall.text and "Answers come from somebody else" in stall.text
    restored = await operator.send(f"{path}/restore", page=page)
    assert "approved again" in restored.text
    allowed = await operator.send(f"{path}/networks", page=page, networks="10.20.0.0/16")
    assert "10.20.0.0/16" in allowed.text
    assert (await operator.send(f"{path}/networks", page=page, networks="everything")).status_code == 422
    assert (await operator.send(f"{path}/promote", page=page)).status_code == 404


# --- budgets ---------------------------------------------------------------------------------------


async def test_a_budget_is_set_changed_and_removed(street: Street, platform: Platform, browser_for: BrowserFor) -> None:
    browser, page = await browser_for(DEVELOPER), "/account/wallet"
    whose = f"application/{street.application.id}"
    answer = await browser.send("/account/wallet/budgets", page, whose=whose, amount="₹1,500.00", at_end="stop")
    assert "The budget counts from now on" in answer.text
    [_, budget] = await platform.budgets.standing(street.developer)
    assert (budget.budget.amount, budget.budget.hard_stop) == (Decimal("1500.00"), True)
    for wrong in ("", "much", "-1", "0.001", "NaN"):
        answer = await browser.send("/account/wallet/budgets", page, whose=whose, amount=wrong, at_end="stop")
        assert answer.status_code == 422 and "Some fields need correcting" in answer.text
        assert faults_of(answer.text) == []
    assert (await browser.send("/account/wallet/budgets", page, whose="application/x", amount="5")).status_code == 404
    answer = await browser.send(f"/account/wallet/budgets/{budget.budget.id}/remove", page)
    assert "The budget is removed" in answer.text
    other = await browser_for(STRANGER)
    left = (await platform.budgets.standing(street.developer))[0].budget.id
    assert (await other.send(f"/account/wallet/budgets/{left}/remove", page)).status_code == 404
