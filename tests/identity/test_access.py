"""One's own account: sessions that are seen and ended, passwords changed and forgotten, name and language."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.errors import (
    LinkOver,
    NotFound,
    RateLimited,
    SignInFailed,
    Unauthenticated,
    ValidationFailed,
)
from haat.kernel.permissions import PLATFORM
from haat.language import parse_tag
from market import PASSWORD, Market

from .conftest import People

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
NEW = "a newer and longer password"


async def _reset_of(market: Market) -> UUID:
    """Return the reset that was asked for last."""
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        row = await (
            await connection.execute("SELECT id FROM password_resets ORDER BY created_at DESC, id DESC LIMIT 1")
        ).fetchone()
    assert row is not None
    return UUID(str(row["id"]))


async def _link(market: Market, people: People, email: str) -> str:
    """Return the token that is mailed to somebody who asks."""
    await people.access.ask_reset(email)
    asked = await people.access.asked_reset(await _reset_of(market))
    assert asked is not None and asked[0].email.casefold() == email.casefold()
    return asked[1]


# --- sessions -------------------------------------------------------------------------------------


async def test_sessions_are_listed_with_browser_and_day_and_this_one_marked(market: Market, people: People) -> None:
    actor = await market.consumer(email="asha@example.in")
    program = await market.identity.sign_in("asha@example.in", PASSWORD, user_agent="python-httpx/0.28")
    market.clock.advance(minutes=5)
    here = await market.identity.sign_in("asha@example.in", PASSWORD, user_agent=FIREFOX)
    [first, second] = await people.access.sessions(actor, here.id)
    assert (first.id, first.browser, first.system, first.current) == (here.id, "Firefox", "Linux", True)
    assert (second.id, second.browser, second.system, second.current) == (program.id, "", "", False)
    assert second.org_name == "Organisation 1"


async def test_the_last_use_is_noted_once_an_hour_at_most(market: Market, people: People) -> None:
    actor = await market.consumer(email="asha@example.in")
    session = await market.identity.sign_in("asha@example.in", PASSWORD)
    began = market.clock.now()
    for minutes, seen in ((59, began), (1, began + timedelta(hours=1)), (30, began + timedelta(hours=1))):
        market.clock.advance(minutes=minutes)
        await market.identity.actor_of(session.token)
        assert [one.seen_at for one in await people.access.sessions(actor)] == [seen]


async def test_one_session_or_all_others_are_ended(market: Market, people: People) -> None:
    actor = await market.consumer(email="asha@example.in")
    [here, there, elsewhere] = [await market.identity.sign_in("asha@example.in", PASSWORD) for _ in range(3)]
    await people.access.end_session(actor, there.id)
    with pytest.raises(Unauthenticated):
        await market.identity.actor_of(there.token)
    with pytest.raises(NotFound):
        await people.access.end_session(actor, there.id)
    assert await people.access.end_others(actor, here.id) == 1
    with pytest.raises(Unauthenticated):
        await market.identity.actor_of(elsewhere.token)
    assert await market.identity.actor_of(here.token) == actor
    assert [one.id for one in await people.access.sessions(actor, here.id)] == [here.id]
    types = [event.type for event in await market.events(f"user/{actor.user_id}")]
    assert types == ["user.created", "user.sessions_ended", "user.sessions_ended"]


async def test_nobody_sees_or_ends_somebody_elses_session(market: Market, people: People) -> None:
    host = await market.consumer(email="asha@example.in")
    session = await market.identity.sign_in("asha@example.in", PASSWORD)
    colleague = await people.newcomer(host, "ravi@example.in")
    stranger = await market.consumer()
    for other in (colleague, stranger):
        with pytest.raises(NotFound):
            await people.access.end_session(other, session.id)
        await people.access.end_others(other, session.id)
        assert session.id not in [one.id for one in await people.access.sessions(other)]
    assert await market.identity.actor_of(session.token) == host


async def test_a_new_session_replaces_the_one_before_it(market: Market, people: People) -> None:
    await market.consumer(email="asha@example.in")
    first = await market.identity.sign_in("asha@example.in", PASSWORD)
    second = await market.identity.sign_in("asha@example.in", PASSWORD, instead_of=first.token)
    third = await market.identity.switch(second.actor, second.org_id, instead_of=second.token)
    assert len({first.token, second.token, third.token}) == 3
    for over in (first, second):
        with pytest.raises(Unauthenticated):
            await market.identity.actor_of(over.token)
    await market.identity.actor_of(third.token)


async def test_signing_in_again_leads_to_the_organisation_last_acted_for(market: Market, people: People) -> None:
    guest, host = await market.consumer(email="asha@example.in"), await market.provider()
    assert guest.org_id
    market.clock.advance(minutes=1)
    there = await people.colleague(host, guest, "partner_developer")
    assert (await market.identity.sign_in("asha@example.in", PASSWORD)).org_id == host.org_id
    market.clock.advance(minutes=1)
    await market.identity.switch(there, guest.org_id)
    assert (await market.identity.sign_in("asha@example.in", PASSWORD)).org_id == guest.org_id


# --- the password ---------------------------------------------------------------------------------


async def test_a_changed_password_ends_every_session_and_gives_a_new_one(market: Market, people: People) -> None:
    actor = await market.consumer(email="asha@example.in")
    [here, there] = [await market.identity.sign_in("asha@example.in", PASSWORD) for _ in range(2)]
    fresh = await people.access.change_password(actor, PASSWORD, NEW)
    for over in (here, there):
        with pytest.raises(Unauthenticated):
            await market.identity.actor_of(over.token)
    assert await market.identity.actor_of(fresh.token) == actor
    with pytest.raises(SignInFailed):
        await market.identity.sign_in("asha@example.in", PASSWORD)
    await market.identity.sign_in("asha@example.in", NEW)
    event = (await market.events(f"user/{actor.user_id}"))[-1]
    assert (event.type, event.data, event.actor) == ("user.password_changed", {"by": "change"}, actor.label)


async def test_a_password_is_changed_by_who_knows_it_and_for_a_sound_one(market: Market, people: People) -> None:
    actor = await market.consumer(email="asha@example.in")
    for present, password, field in (("not it at all", NEW, "present_password"), (PASSWORD, "short", "password")):
        with pytest.raises(ValidationFailed) as refusal:
            await people.access.change_password(actor, present, password)
        assert [one["field"] for one in refusal.value.extensions["errors"]] == [field]
    await market.identity.sign_in("asha@example.in", PASSWORD)


async def test_guesses_of_the_present_password_count_as_at_sign_in(market: Market, people: People) -> None:
    actor = await market.consumer(email="asha@example.in")
    for _ in range(10):
        with pytest.raises(ValidationFailed):
            await people.access.change_password(actor, "a guess of it", NEW)
    with pytest.raises(RateLimited):
        await people.access.change_password(actor, PASSWORD, NEW)


async def test_a_forgotten_password_is_replaced_by_a_link_that_works_once(market: Market, people: People) -> None:
    await market.consumer(email="asha@example.in")
    session = await market.identity.sign_in("asha@example.in", PASSWORD)
    token = await _link(market, people, "ASHA@example.in")
    await people.access.check_reset(token)
    with pytest.raises(ValidationFailed):
        await people.access.reset_password(token, "short")
    await people.access.reset_password(token, NEW)
    with pytest.raises(Unauthenticated):
        await market.identity.actor_of(session.token)
    await market.identity.sign_in("asha@example.in", NEW)
    for call in (people.access.check_reset(token), people.access.reset_password(token, PASSWORD)):
        with pytest.raises(LinkOver):
            await call
    await market.identity.sign_in("asha@example.in", NEW)


async def test_two_who_use_one_link_at_once_set_one_password(market: Market, people: People) -> None:
    await market.consumer(email="asha@example.in")
    token = await _link(market, people, "asha@example.in")
    results = await asyncio.gather(
        *(people.access.reset_password(token, f"password number {n}") for n in range(4)), return_exceptions=True
    )
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, LinkOver) for result in results) == 3
    await market.identity.sign_in("asha@example.in", f"password number {results.index(None)}")


async def test_a_reset_is_open_for_an_hour_and_a_change_closes_it(market: Market, people: People) -> None:
    actor = await market.consumer(email="asha@example.in")
    token = await _link(market, people, "asha@example.in")
    market.clock.advance(minutes=59)
    await people.access.check_reset(token)
    market.clock.advance(minutes=1)
    with pytest.raises(LinkOver):
        await people.access.reset_password(token, NEW)
    token = await _link(market, people, "asha@example.in")
    await people.access.change_password(actor, PASSWORD, NEW)
    with pytest.raises(LinkOver):
        await people.access.reset_password(token, PASSWORD)


async def test_asking_is_the_same_for_a_known_and_an_unknown_address(market: Market, people: People) -> None:
    await market.consumer(email="asha@example.in")
    written = []
    for email in ("asha@example.in", "nobody@example.in"):
        await people.access.ask_reset(email)
        reset = await _reset_of(market)
        [event] = await market.events(f"password-reset/{reset}")
        written.append((event.type, event.data, event.actor, event.org))
        asked = await people.access.asked_reset(reset)
        assert (asked is not None) == (email == "asha@example.in")
        market.clock.advance(seconds=1)
    assert written[0] == written[1] == ("password_reset.asked", {}, "platform", None)
    async with market.db.transaction(PLATFORM_SCOPE) as connection:  # nothing is kept of who has no account
        rows = await (await connection.execute("SELECT email FROM password_resets")).fetchall()
    assert [row["email"] for row in rows] == ["asha@example.in"]


async def test_asking_is_throttled_by_account_and_by_address(market: Market, people: People) -> None:
    for _ in range(3):
        await people.access.ask_reset("asha@example.in")
    with pytest.raises(RateLimited):
        await people.access.ask_reset("Asha@example.in")
    for number in range(10):
        await people.access.ask_reset(f"guest{number}@example.in", client="8.8.8.8")
    with pytest.raises(RateLimited):
        await people.access.ask_reset("guest11@example.in", client="8.8.8.8")


async def test_a_reset_lets_in_who_was_locked_out_by_guesses(market: Market, people: People) -> None:
    await market.consumer(email="asha@example.in")
    for _ in range(10):
        with pytest.raises(SignInFailed):
            await market.identity.sign_in("asha@example.in", "a guess of it")
    await people.access.reset_password(await _link(market, people, "asha@example.in"), NEW)
    await market.identity.sign_in("asha@example.in", NEW)


async def test_the_database_holds_no_token_of_a_reset(market: Market, people: People) -> None:
    await market.consumer(email="asha@example.in")
    token = await _link(market, people, "asha@example.in")
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        for table in ("password_resets", "events"):
            row = await (await connection.execute(f"SELECT string_agg(t::text, '') AS text FROM {table} t")).fetchone()
            assert row is not None and token not in row["text"] and token.encode().hex() not in row["text"]


async def test_a_closed_account_gets_no_link_and_uses_none(market: Market, people: People) -> None:
    actor = await market.consumer(email="asha@example.in")
    token = await _link(market, people, "asha@example.in")
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute("UPDATE users SET disabled_at = now() WHERE id = %s", (actor.user_id,))
    with pytest.raises(LinkOver):
        await people.access.reset_password(token, NEW)
    await people.access.ask_reset("asha@example.in")
    assert await people.access.asked_reset(await _reset_of(market)) is None


# --- who one is -----------------------------------------------------------------------------------


async def test_name_and_language_are_kept_with_the_account(market: Market, people: People) -> None:
    actor = await market.consumer(email="asha@example.in")
    session = await market.identity.sign_in("asha@example.in", PASSWORD)
    user = await people.access.change_profile(actor, name=" Asha  Rao ", language="hi-Deva")
    assert (user.name, user.language) == ("Asha Rao", parse_tag("hi-Deva"))
    assert (await market.identity.session_of(session.token)).user == user
    assert await people.access.change_profile(actor, language="") == await people.access.user(user.id)
    assert (await people.access.user(user.id)).language is None
    written = [(event.type, event.data) for event in await market.events(f"user/{user.id}")][1:]
    assert written == [
        ("user.renamed", {}),
        ("user.language_chosen", {"language": "hi-Deva"}),
        ("user.language_chosen", {"language": None}),
    ]


async def test_the_same_again_is_no_event_also_at_once(market: Market, people: People) -> None:
    actor = await market.consumer()
    await asyncio.gather(*(people.access.change_profile(actor, language="ta-Taml") for _ in range(5)))
    types = [event.type for event in await market.events(f"user/{actor.user_id}")]
    assert types == ["user.created", "user.language_chosen"]


@pytest.mark.parametrize("changes", [{"name": ""}, {"name": "\u202e"}, {"language": "xx"}, {"language": "hi-Latn"}])
async def test_what_cannot_be_is_refused_and_changes_nothing(
    market: Market, people: People, changes: dict[str, str]
) -> None:
    actor = await market.consumer(name="Asha")
    assert actor.user_id
    with pytest.raises(ValidationFailed):
        await people.access.change_profile(actor, **{"name": "Uma", "language": "ta-Taml", **changes})
    user = await people.access.user(actor.user_id)
    assert (user.name, user.language) == ("Asha", None)


async def test_the_platform_itself_has_no_account(people: People) -> None:
    for call in (people.access.sessions(PLATFORM), people.access.change_profile(PLATFORM, name="Haat")):
        with pytest.raises(Unauthenticated):
            await call
