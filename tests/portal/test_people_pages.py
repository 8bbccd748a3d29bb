"""People in the portal: members, invitations, one's account, sessions, a forgotten password; without a script."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from haat.app import Platform
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.permissions import GRANTS, Actor, Permission, Role
from haat.portal.roles import role_words

from .conftest import Browser, faults_of
from .street import DEVELOPER, PASSWORD, PROVIDER, STRANGER

BrowserFor = Callable[[str | None], Awaitable[Browser]]
NEW = "a newer and longer password"
GUEST = "ravi@example.in"


@pytest.fixture
async def provider(platform: Platform) -> Actor:
    return await _organisation(platform, PROVIDER, "Vani Speech", "provider")


@pytest.fixture
async def developer(platform: Platform) -> Actor:
    return await _organisation(platform, DEVELOPER, "Sabzi Mandi Software", "consumer")


async def _organisation(platform: Platform, email: str, name: str, kind: Any) -> Actor:
    return await platform.identity.create_organisation(
        email=email, password=PASSWORD, name="Meera Kulkarni", organisation=name, kind=kind
    )


async def _invite(platform: Platform, host: Actor, email: str = GUEST, role: str = "partner_developer") -> str:
    """Return the path of an invitation's page."""
    invitation = await platform.members.invite(host, email, role)
    return f"/invitation/{platform.members.token_of(invitation)}"


async def _colleague(platform: Platform, host: Actor, role: str = "partner_developer") -> Actor:
    token = (await _invite(platform, host, role=role)).removeprefix("/invitation/")
    return (await platform.members.accept(token, PASSWORD, "Ravi")).actor


def _cookie(browser: Browser) -> str | None:
    return next((one.value for one in browser.client.cookies.jar if one.name == "haat_session"), None)


# --- members and invitations ----------------------------------------------------------------------


async def test_members_are_listed_with_what_each_role_may_do(
    platform: Platform, provider: Actor, browser_for: BrowserFor
) -> None:
    await _colleague(platform, provider)
    page = await (await browser_for(PROVIDER)).get("/account/members")
    assert page.status_code == 200 and faults_of(page.text) == []
    for text in ("Meera Kulkarni", GUEST, "Administrator", "Developer", "Add services, versions and prices", "Leave…"):
        assert text in page.text
    assert "Nobody is invited at present" in page.text
    seen = await (await browser_for(GUEST)).get("/account/members")
    assert "Meera Kulkarni" in seen.text and faults_of(seen.text) == []
    assert "Invite" not in seen.text.split("What each role may do")[0] and "Remove…" not in seen.text


def test_every_permission_is_told_in_words() -> None:
    assert len(role_words("operator")[0].deeds) == len(Permission)
    for role in role_words("provider"):
        assert len(role.deeds) == len(GRANTS[Role(role.code)])


async def test_somebody_is_invited_and_makes_an_account_on_the_way(
    platform: Platform, provider: Actor, browser_for: BrowserFor
) -> None:
    host, guest, page = await browser_for(PROVIDER), await browser_for(None), "/account/members"
    answer = await host.send("/account/invitations", page, email=GUEST, role="partner_developer")
    assert "The invitation is on its way" in answer.text and GUEST in answer.text and faults_of(answer.text) == []
    [invitation] = await platform.members.invitations(provider)
    path = f"/invitation/{platform.members.token_of(invitation)}"
    assert path not in answer.text
    form = await guest.get(path)
    assert "Vani Speech" in form.text and "Developer" in form.text and faults_of(form.text) == []
    assert form.headers["referrer-policy"] == "no-referrer" and form.headers["cache-control"] == "no-store"
    for name, password, field in (("", PASSWORD, "name"), ("Ravi", "short", "password")):
        wrong = await guest.send(path, path, name=name, password=password)
        assert wrong.status_code == 422 and f'id="{field}-error"' in wrong.text and faults_of(wrong.text) == []
    done = await guest.send(path, path, name="Ravi Nair", password=PASSWORD)
    assert done.url.path == "/account" and "You have joined" in done.text and "Vani Speech" in done.text
    over = await guest.get(path)
    assert over.status_code == 410 and "send the invitation again" in over.text
    assert "Ravi Nair" in (await host.get(page)).text


async def test_who_has_an_account_joins_signed_in_or_by_its_password(
    platform: Platform, provider: Actor, developer: Actor, browser_for: BrowserFor
) -> None:
    await _organisation(platform, STRANGER, "Someone Else", "consumer")
    path, own, other = (
        await _invite(platform, provider, DEVELOPER),
        await browser_for(DEVELOPER),
        await browser_for(STRANGER),
    )
    form = await other.get(path)
    assert f"You are signed in as <bdi>{STRANGER}</bdi>" in form.text and "Sign in and join" in form.text
    assert faults_of(form.text) == []
    wrong = await other.send(path, path, password="not the password")
    assert wrong.status_code == 401 and "Check both and try again" in wrong.text
    before = _cookie(own)
    form = await own.get(path)
    assert ">Join<" in form.text and "password" not in form.text
    done = await own.send(path, path)
    assert "You have joined" in done.text and _cookie(own) != before
    assert (await other.get(path)).status_code == 410
    # both organisations are in the account, and one changes between them
    page = await own.get("/account/profile")
    assert "Vani Speech" in page.text and "Sabzi Mandi Software" in page.text and faults_of(page.text) == []
    token = _cookie(own)
    switched = await own.send("/account/organisation", "/account/profile", organisation=str(developer.org_id))
    assert "You act for this organisation now" in switched.text and _cookie(own) != token
    assert 'title="Sabzi Mandi Software"' in switched.text
    assert (
        await own.send("/account/organisation", "/account/profile", organisation=str(provider.user_id))
    ).status_code == 404


async def test_an_invitation_is_sent_again_and_taken_back(
    platform: Platform, provider: Actor, browser_for: BrowserFor
) -> None:
    host, guest, page = await browser_for(PROVIDER), await browser_for(None), "/account/members"
    first = await _invite(platform, provider)
    [invitation] = await platform.members.invitations(provider)
    again = await host.send(f"/account/invitations/{invitation.id}/resend", page)
    assert "The invitation is on its way" in again.text
    assert (await guest.get(first)).status_code == 410
    [fresh] = await platform.members.invitations(provider)
    path = f"/invitation/{platform.members.token_of(fresh)}"
    assert (await guest.get(path)).status_code == 200
    gone = await host.send(f"/account/invitations/{invitation.id}/revoke", page)
    assert "taken back" in gone.text and "Nobody is invited at present" in gone.text
    assert (await guest.get(path)).status_code == 410
    assert (await host.send(f"/account/invitations/{invitation.id}/resend", page)).status_code == 404
    twice = await host.send("/account/invitations", page, email=PROVIDER, role="partner_developer")
    assert twice.status_code == 409 and "already" in twice.text and faults_of(twice.text) == []


async def test_a_role_is_changed_and_its_holder_signs_in_again(
    platform: Platform, provider: Actor, browser_for: BrowserFor
) -> None:
    colleague, page = await _colleague(platform, provider), "/account/members"
    host, other = await browser_for(PROVIDER), await browser_for(GUEST)
    done = await host.send(f"{page}/{colleague.user_id}/role", page, role="partner_admin")
    assert "The role is changed" in done.text
    assert (await other.get(page)).url.path == "/sign-in"
    before = _cookie(host)
    own = await host.send(f"{page}/{provider.user_id}/role", page, role="partner_developer")
    assert "The role is changed" in own.text and _cookie(host) != before and "Remove…" not in own.text
    assert (await host.send(f"{page}/{colleague.user_id}/role", page, role="partner_developer")).status_code == 403


async def test_the_last_administrator_reads_why_they_stay(
    platform: Platform, provider: Actor, browser_for: BrowserFor
) -> None:
    await _colleague(platform, provider)
    host, page = await browser_for(PROVIDER), "/account/members"
    for path, fields in (("remove", {}), ("role", {"role": "partner_developer"})):
        answer = await host.send(f"{page}/{provider.user_id}/{path}", page, **fields)
        assert answer.status_code == 409 and "the last one who may edit the members" in answer.text
        assert faults_of(answer.text) == []


async def test_removed_one_is_signed_out_and_leaving_leads_on(
    platform: Platform, provider: Actor, developer: Actor, browser_for: BrowserFor
) -> None:
    colleague, page = await _colleague(platform, provider), "/account/members"
    host, gone = await browser_for(PROVIDER), await browser_for(GUEST)
    done = await host.send(f"{page}/{colleague.user_id}/remove", page)
    assert "They are removed" in done.text and GUEST not in done.text
    assert (await gone.get("/account")).url.path == "/sign-in"
    # who has another organisation goes on there; who has none is signed out
    path, own = await _invite(platform, provider, DEVELOPER), await browser_for(DEVELOPER)
    await own.send(path, path)
    left = await own.send(f"{page}/{developer.user_id}/remove", page)
    assert "You have left" in left.text and "Sabzi Mandi Software" in left.text
    await _colleague(platform, provider)
    gone = await browser_for(GUEST)
    left = await gone.send(f"{page}/{colleague.user_id}/remove", page)
    assert left.url.path == "/" and "You have left" in left.text and _cookie(gone) is None


async def test_another_organisations_people_are_not_there(
    platform: Platform, provider: Actor, developer: Actor, browser_for: BrowserFor
) -> None:
    await _organisation(platform, STRANGER, "Someone Else", "provider")
    await _invite(platform, provider)
    [invitation] = await platform.members.invitations(provider)
    [session] = await platform.access.sessions((await platform.identity.sign_in(PROVIDER, PASSWORD)).actor)
    browser = await browser_for(STRANGER)
    for path in (
        f"/account/members/{provider.user_id}/role",
        f"/account/members/{provider.user_id}/remove",
        f"/account/invitations/{invitation.id}/resend",
        f"/account/invitations/{invitation.id}/revoke",
        f"/account/sessions/{session.id}/end",
    ):
        answer = await browser.send(path, "/account/members", role="partner_developer")
        assert answer.status_code == 404, path
    page = await browser.get("/account/members")
    assert PROVIDER not in page.text and GUEST not in page.text


async def test_hostile_names_are_text_on_the_pages_of_people(
    platform: Platform, provider: Actor, browser_for: BrowserFor
) -> None:
    browser, hostile = await browser_for(PROVIDER), '"><script>alert(1)</script>'
    await browser.send("/account/profile", "/account/profile", name=hostile, language="")
    for path in ("/account/members", "/account/profile"):
        page = await browser.get(path)
        assert "<script>alert" not in page.text and "&lt;script&gt;alert" in page.text


async def test_the_pages_of_people_are_for_who_is_signed_in(browser: Browser) -> None:
    for path in ("/account/members", "/account/sessions", "/account/profile"):
        assert (await browser.get(path)).url.path == "/sign-in"


# --- sessions -------------------------------------------------------------------------------------


async def test_sessions_are_shown_and_ended(provider: Actor, browser_for: BrowserFor) -> None:
    here, there, elsewhere = [await browser_for(PROVIDER) for _ in range(3)]
    here.client.headers["user-agent"] = "Mozilla/5.0 (Windows NT 10.0; rv:140.0) Gecko/20100101 Firefox/140.0"
    await here.send("/sign-out")
    await here.sign_in(PROVIDER)
    page = await here.get("/account/sessions")
    assert "Firefox on Windows" in page.text and "A program" in page.text and faults_of(page.text) == []
    assert page.text.count("this one") == 1
    ends = re.findall(r'action="(/account/sessions/[0-9a-f-]+/end)"', page.text)
    assert len(ends) == 2
    one = await here.send(ends[0], "/account/sessions")
    assert "You are signed out there" in one.text and one.text.count("Sign out there") == 1
    every = await here.send("/account/sessions/others/end", "/account/sessions")
    assert "You are signed out everywhere else" in every.text and "Sign out there" not in every.text
    for browser in (there, elsewhere):
        assert (await browser.get("/account")).url.path == "/sign-in"


async def test_signing_in_again_ends_the_session_that_the_browser_held(
    platform: Platform, provider: Actor, browser_for: BrowserFor
) -> None:
    browser = await browser_for(PROVIDER)
    before = _cookie(browser)
    await browser.send("/sign-in", "/account", email=PROVIDER, password=PASSWORD)
    assert _cookie(browser) != before
    assert len(await platform.access.sessions(provider)) == 1


# --- password -------------------------------------------------------------------------------------


async def test_a_password_is_changed_by_who_knows_it(provider: Actor, browser_for: BrowserFor) -> None:
    here, there, page = await browser_for(PROVIDER), await browser_for(PROVIDER), "/account/profile"
    wrong = await here.send("/account/password", page, present_password="not this one", password=NEW)
    assert wrong.status_code == 422 and 'id="present_password-error"' in wrong.text and faults_of(wrong.text) == []
    assert NEW not in wrong.text and "not this one" not in wrong.text
    done = await here.send("/account/password", page, present_password=PASSWORD, password=NEW)
    assert "Your password is changed" in done.text and done.url.path == page
    assert (await there.get("/account")).url.path == "/sign-in"
    assert (await there.sign_in(PROVIDER, PASSWORD)).status_code == 401
    assert (await there.sign_in(PROVIDER, NEW)).url.path == "/account"


async def _reset_link(platform: Platform) -> str:
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        row = await (await connection.execute("SELECT id FROM password_resets ORDER BY id DESC")).fetchone()
    assert row is not None
    asked = await platform.access.asked_reset(row["id"])
    assert asked is not None
    return f"/reset/{asked[1]}"


async def test_a_forgotten_password_is_replaced(platform: Platform, provider: Actor, browser_for: BrowserFor) -> None:
    browser, signed_in = await browser_for(None), await browser_for(PROVIDER)
    said = []
    for email in ("nobody@example.in", PROVIDER):
        answer = await browser.send("/forgot", "/forgot", email=email)
        said.append((answer.status_code, str(answer.url), re.sub(r'value="[^"]*"', "", answer.text)))
        assert "If this address has an account" in answer.text and faults_of(answer.text) == []
    assert said[0] == said[1]
    assert (await browser.send("/forgot", "/forgot", email="no address")).status_code == 422
    link = await _reset_link(platform)
    form = await browser.get(link)
    assert faults_of(form.text) == [] and form.headers["referrer-policy"] == "no-referrer"
    wrong = await browser.send(link, link, password="short")
    assert wrong.status_code == 422 and 'id="password-error"' in wrong.text
    done = await browser.send(link, link, password=NEW)
    assert done.url.path == "/sign-in" and "Your new password counts" in done.text
    assert (await browser.get(link)).status_code == 410
    assert (await signed_in.get("/account")).url.path == "/sign-in"
    assert (await browser.sign_in(PROVIDER, NEW)).url.path == "/account"


async def test_asking_again_and_again_is_refused_with_how_long_to_wait(browser: Browser) -> None:
    for _ in range(3):
        assert (await browser.send("/forgot", "/forgot", email=GUEST)).status_code == 200
    answer = await browser.send("/forgot", "/forgot", email=GUEST)
    assert answer.status_code == 429 and "Too many tries" in answer.text


# --- language -------------------------------------------------------------------------------------


def _lang(answer: httpx.Response) -> str:
    found = re.search(r'<html lang="([^"]+)"', answer.text)
    assert found is not None
    return found[1]


async def test_the_accounts_language_goes_before_cookie_and_browser_and_behind_the_address(
    platform: Platform, provider: Actor, browser_for: BrowserFor
) -> None:
    browser = await browser_for(PROVIDER)
    await platform.access.change_profile(provider, language="ta-Taml")
    browser.client.headers["accept-language"] = "bn"
    browser.client.cookies.set("haat_language", "mr-Deva")
    assert _lang(await browser.get("/catalog")) == "ta-IN"
    assert _lang(await browser.get("/account/nothing")) == "ta-IN"  # refusals, too
    assert _lang(await browser.get("/te/catalog")) == "te-IN"
    await browser.send("/sign-out")
    stranger = await browser_for(None)
    stranger.client.headers["accept-language"] = "bn"
    assert _lang(await stranger.get("/catalog")) == "bn-IN"


async def test_a_language_chosen_while_signed_in_is_kept_in_the_account(
    platform: Platform, provider: Actor, browser_for: BrowserFor
) -> None:
    assert provider.user_id
    browser = await browser_for(PROVIDER)
    await browser.get("/hi/catalog")
    assert str((await platform.access.user(provider.user_id)).language) == "hi-Deva"
    other = await browser_for(PROVIDER)  # another browser speaks it as well
    assert _lang(await other.get("/account")) == "hi-IN"
    other.client.headers["sec-fetch-site"] = "cross-site"
    assert _lang(await other.get("/ta/catalog")) == "ta-IN"
    assert str((await platform.access.user(provider.user_id)).language) == "hi-Deva"


async def test_the_language_is_chosen_in_the_account(
    platform: Platform, provider: Actor, browser_for: BrowserFor
) -> None:
    assert provider.user_id
    browser, page = await browser_for(PROVIDER), "/account/profile"
    done = await browser.send(page, page, name="Asha", language="ta-Taml")
    assert _lang(done) == "ta-IN" and '<option value="ta-Taml" selected>' in done.text and faults_of(done.text) == []
    assert _lang(await browser.send("/sign-out")) == "ta-IN"  # the browser remembers it
    await browser.sign_in(PROVIDER)
    wrong = await browser.send(page, page, name="Uma", language="xx")
    assert wrong.status_code == 422 and 'id="language-error"' in wrong.text
    user = await platform.access.user(provider.user_id)
    assert (user.name, str(user.language)) == ("Asha", "ta-Taml")
    done = await browser.send(page, page, name="Asha", language="")
    assert _lang(done) == "en-IN" and (await platform.access.user(provider.user_id)).language is None
