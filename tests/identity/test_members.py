"""Members and invitations on a real database: who joins, what they may, how they leave, and who can't see it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from haat.identity.model import Session
from haat.infra.postgres import PLATFORM_SCOPE, PUBLIC, tenant
from haat.kernel.errors import (
    AlreadyExists,
    Conflict,
    LinkOver,
    NotFound,
    PermissionDenied,
    RateLimited,
    SignInFailed,
    Unauthenticated,
    ValidationFailed,
)
from haat.kernel.permissions import Actor, Role
from market import PASSWORD, Market

from .conftest import People


async def _told(market: Market, host: Actor, member: Actor) -> list[str]:
    """Return what the log says of a person in the host's organisation."""
    return [event.type for event in await market.events(f"membership/{host.org_id}.{member.user_id}")]


# --- joining --------------------------------------------------------------------------------------


async def test_whoever_is_invited_makes_an_account_on_the_way_and_no_organisation(
    market: Market, people: People
) -> None:
    host = await market.provider()
    invitation = await people.members.invite(host, " Ravi@example.in ", "partner_developer")
    token = people.members.token_of(invitation)
    invited = await people.members.invited(token)
    assert (invited.organisation, invited.account, invited.invitation.email) == (
        "Organisation 1",
        None,
        "Ravi@example.in",
    )
    session = await people.members.accept(token, PASSWORD, "Ravi Nair")
    assert (session.org_id, session.role) == (host.org_id, Role.PARTNER_DEVELOPER)
    there = await market.identity.actor_of(session.token)
    assert [place.org_id for place in await market.identity.memberships(there)] == [host.org_id]
    assert (await market.identity.sign_in("ravi@example.in", PASSWORD)).org_id == host.org_id
    assert await people.members.invitations(host) == []


async def test_whoever_has_an_account_joins_with_its_password_or_signed_in(market: Market, people: People) -> None:
    host, guest = await market.provider(), await market.consumer(email="asha@example.in")
    invitation = await people.members.invite(host, "ASHA@example.in", "partner_admin")
    token = people.members.token_of(invitation)
    with pytest.raises(SignInFailed):
        await people.members.accept(token, "not the password")
    session = await people.members.accept(token, PASSWORD)
    assert (session.user.id, session.org_id, session.role) == (guest.user_id, host.org_id, Role.PARTNER_ADMIN)
    other = await market.consumer()
    there = await people.colleague(other, guest)
    assert {place.org_id for place in await market.identity.memberships(there)} == {
        guest.org_id,
        host.org_id,
        other.org_id,
    }


async def test_an_invitation_is_for_its_address_alone(market: Market, people: People) -> None:
    host, stranger = await market.consumer(), await market.consumer()
    invitation = await people.members.invite(host, "asha@example.in", "api_consumer")
    with pytest.raises(Conflict):
        await people.members.join(stranger, people.members.token_of(invitation))
    assert await people.who(host) == [host.user_id]


async def test_a_link_works_once(market: Market, people: People) -> None:
    host = await market.consumer()
    token = people.members.token_of(await people.members.invite(host, "ravi@example.in", "api_consumer"))
    await people.members.accept(token, PASSWORD, "Ravi")
    with pytest.raises(LinkOver):
        await people.members.invited(token)
    with pytest.raises(LinkOver):
        await people.members.accept(token, PASSWORD)


async def test_two_who_accept_one_invitation_at_once_make_one_account_and_one_member(
    market: Market, people: People
) -> None:
    host = await market.consumer()
    token = people.members.token_of(await people.members.invite(host, "ravi@example.in", "api_consumer"))
    results = await asyncio.gather(
        *(people.members.accept(token, PASSWORD, f"Ravi {n}") for n in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, Session) for result in results) == 1
    assert sum(isinstance(result, LinkOver | SignInFailed) for result in results) == 4
    assert len(await people.who(host)) == 2


async def test_a_member_who_accepts_in_two_windows_at_once_joins_once(market: Market, people: People) -> None:
    host, guest = await market.provider(), await market.consumer(email="asha@example.in")
    token = people.members.token_of(await people.members.invite(host, "asha@example.in", "partner_developer"))
    results = await asyncio.gather(*(people.members.join(guest, token) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(result, Session) for result in results) == 1
    assert sum(isinstance(result, LinkOver) for result in results) == 3
    assert await _told(market, host, guest) == ["member.joined"]


async def test_a_link_is_open_for_seven_days(market: Market, people: People) -> None:
    host = await market.consumer()
    invitation = await people.members.invite(host, "ravi@example.in", "api_consumer")
    market.clock.advance(days=7, seconds=-1)
    await people.members.invited(people.members.token_of(invitation))
    market.clock.advance(seconds=1)
    with pytest.raises(LinkOver):
        await people.members.invited(people.members.token_of(invitation))
    assert [one.is_open(market.clock.now()) for one in await people.members.invitations(host)] == [False]


async def test_sent_again_an_invitation_has_a_new_link_and_the_old_one_opens_nothing(
    market: Market, people: People
) -> None:
    host = await market.consumer()
    old = await people.members.invite(host, "ravi@example.in", "api_consumer")
    market.clock.advance(days=9)
    fresh = await people.members.resend(host, old.id)
    assert fresh.expires_at == market.clock.now() + timedelta(days=7)
    with pytest.raises(LinkOver):
        await people.members.invited(people.members.token_of(old))
    await people.members.accept(people.members.token_of(fresh), PASSWORD, "Ravi")


async def test_taken_back_an_invitation_opens_nothing_and_the_address_can_be_invited_anew(
    market: Market, people: People
) -> None:
    host = await market.consumer()
    invitation = await people.members.invite(host, "ravi@example.in", "api_consumer")
    await people.members.revoke(host, invitation.id)
    with pytest.raises(LinkOver):
        await people.members.accept(people.members.token_of(invitation), PASSWORD, "Ravi")
    for call in (people.members.revoke(host, invitation.id), people.members.resend(host, invitation.id)):
        with pytest.raises(NotFound):
            await call
    await people.newcomer(host, "ravi@example.in")


async def test_nobody_is_invited_twice_or_into_what_they_belong_to(market: Market, people: People) -> None:
    host = await market.consumer(email="asha@example.in")
    await people.members.invite(host, "ravi@example.in", "api_consumer")
    for email in ("RAVI@example.in", "Asha@example.in"):
        with pytest.raises(AlreadyExists):
            await people.members.invite(host, email, "api_consumer")


async def test_the_database_holds_no_token(market: Market, people: People) -> None:
    host = await market.consumer()
    token = people.members.token_of(await people.members.invite(host, "ravi@example.in", "api_consumer"))
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        for table in ("invitations", "events"):
            row = await (
                await connection.execute(f"SELECT coalesce(string_agg(t::text, ''), '') AS text FROM {table} t")
            ).fetchone()
            assert row is not None and token not in row["text"] and token.encode().hex() not in row["text"]


@pytest.mark.parametrize("token", ["", "x", "\x00", "é" * 500])
async def test_a_link_that_never_was_is_over(market: Market, people: People, token: str) -> None:
    with pytest.raises(LinkOver):
        await people.members.invited(token)
    with pytest.raises(LinkOver):
        await people.members.accept(token, PASSWORD, "Ravi")


@pytest.mark.parametrize(
    ("kind", "role"),
    [
        ("consumer", "platform_admin"),
        ("consumer", "partner_admin"),
        ("provider", "api_consumer"),
        ("provider", "platform_admin"),
        ("operator", "partner_admin"),
        ("consumer", ""),
    ],
)
async def test_an_organisation_gives_its_own_roles_and_no_others(
    market: Market, people: People, kind: str, role: str
) -> None:
    host = await market.consumer(kind=kind)
    assert host.user_id
    with pytest.raises(ValidationFailed):
        await people.members.invite(host, "ravi@example.in", role)
    with pytest.raises(ValidationFailed):
        await people.members.change_role(host, host.user_id, role)


async def test_nobody_invites_with_more_than_they_have(market: Market, people: People) -> None:
    host = await market.operator()
    lesser = Actor(host.user_id, host.org_id, Role.API_CONSUMER)
    with pytest.raises(PermissionDenied):
        await people.members.invite(lesser, "ravi@example.in", "platform_admin")


async def test_an_account_that_cannot_be_made_leaves_the_invitation_open(market: Market, people: People) -> None:
    host = await market.consumer()
    token = people.members.token_of(await people.members.invite(host, "ravi@example.in", "api_consumer"))
    for password, name in ((PASSWORD, ""), ("short", "Ravi")):
        with pytest.raises(ValidationFailed):
            await people.members.accept(token, password, name)
    await people.members.accept(token, PASSWORD, "Ravi")


async def test_who_was_removed_everywhere_comes_back_by_an_invitation(market: Market, people: People) -> None:
    host, other = await market.consumer(), await market.consumer()
    left = await people.newcomer(host, "ravi@example.in")
    assert left.user_id
    await people.members.remove(host, left.user_id)
    with pytest.raises(SignInFailed):
        await market.identity.sign_in("ravi@example.in", PASSWORD)
    back = await people.newcomer(other, "ravi@example.in")
    assert (back.user_id, back.org_id) == (left.user_id, other.org_id)


async def test_invitations_are_throttled_by_address_and_by_organisation(market: Market, people: People) -> None:
    host = await market.consumer()
    invitation = await people.members.invite(host, "ravi@example.in", "api_consumer")
    for _ in range(4):
        await people.members.resend(host, invitation.id)
    with pytest.raises(RateLimited):
        await people.members.resend(host, invitation.id)
    other = await market.consumer()
    with pytest.raises(RateLimited):
        await people.members.invite(other, "Ravi@example.in", "api_consumer")
    for number in range(50):
        await people.members.invite(other, f"guest{number}@example.in", "api_consumer")
    with pytest.raises(RateLimited):
        await people.members.invite(other, "one.more@example.in", "api_consumer")


async def test_guesses_of_an_invited_accounts_password_count_as_at_sign_in(market: Market, people: People) -> None:
    host, _ = await market.consumer(), await market.consumer(email="asha@example.in")
    token = people.members.token_of(await people.members.invite(host, "asha@example.in", "api_consumer"))
    for _ in range(10):
        with pytest.raises(SignInFailed):
            await people.members.accept(token, "a guess of a password")
    with pytest.raises(RateLimited):
        await market.identity.sign_in("asha@example.in", PASSWORD)


# --- members --------------------------------------------------------------------------------------


async def test_members_stand_with_role_and_last_sign_in(market: Market, people: People) -> None:
    host = await market.provider(email="asha@example.in")
    market.clock.advance(hours=1)
    await people.newcomer(host, "ravi@example.in", "partner_developer")
    market.clock.advance(days=3)
    await market.identity.sign_in("asha@example.in", PASSWORD)
    [first, second] = await people.members.of(host)
    assert (first.email, first.role, first.signed_in_at) == (
        "asha@example.in",
        Role.PARTNER_ADMIN,
        market.clock.now(),
    )
    assert (second.name, second.role) == ("Ravi", Role.PARTNER_DEVELOPER)
    assert second.signed_in_at == second.joined_at == market.clock.now() - timedelta(days=3)


async def test_a_new_role_counts_at_once_and_ends_the_sessions_of_the_old_one(market: Market, people: People) -> None:
    host, elsewhere = await market.provider(), await market.consumer()
    session = await people.joined(host, "ravi@example.in", "partner_developer")
    away = await people.colleague(elsewhere, session.actor)
    other = await market.identity.switch(away, elsewhere.org_id)  # type: ignore[arg-type]  # has one
    await people.members.change_role(host, session.user.id, "partner_admin")
    with pytest.raises(Unauthenticated):
        await market.identity.actor_of(session.token)
    assert (await market.identity.actor_of(other.token)).org_id == elsewhere.org_id
    fresh = await market.identity.switch(session.actor, session.org_id)
    assert fresh.role is Role.PARTNER_ADMIN and fresh.token != session.token
    [joined, changed] = await market.events(f"membership/{host.org_id}.{session.user.id}")
    assert (joined.type, changed.type) == ("member.joined", "member.role_changed")
    assert changed.data == {"before": "partner_developer", "role": "partner_admin"} and changed.org == host.org_id


async def test_the_same_role_again_changes_nothing(market: Market, people: People) -> None:
    host = await market.provider()
    session = await people.joined(host, "ravi@example.in", "partner_developer")
    await people.members.change_role(host, session.user.id, "partner_developer")
    assert await market.identity.actor_of(session.token) == session.actor


async def test_removed_is_out_at_once_and_what_they_made_stays_the_organisations(
    market: Market, people: People
) -> None:
    host = await market.consumer()
    session = await people.joined(host, "ravi@example.in")
    gone = session.actor
    application = await market.identity.create_application(gone, "theirs")
    key = await market.identity.create_key(gone, application.id)
    await people.members.remove(host, session.user.id)
    with pytest.raises(Unauthenticated):
        await market.identity.actor_of(session.token)
    with pytest.raises(NotFound):
        await market.identity.switch(gone, host.org_id)  # type: ignore[arg-type]  # has one
    assert await people.who(host) == [host.user_id]
    assert (await market.identity.holder_of(key.key)).application_id == application.id
    assert [one.name for one in await market.identity.applications(host)] == ["theirs"]
    back = await people.newcomer(host, "ravi@example.in")
    assert back.user_id == session.user.id
    with pytest.raises(Unauthenticated):  # a session that was ended stays so when its user comes back
        await market.identity.actor_of(session.token)


async def test_anybody_leaves_but_only_who_may_removes(market: Market, people: People) -> None:
    host = await market.provider()
    first = await people.newcomer(host, "ravi@example.in", "partner_developer")
    second = await people.newcomer(host, "uma@example.in", "partner_developer")
    assert first.user_id and second.user_id and host.user_id
    for call in (
        people.members.remove(first, second.user_id),
        people.members.change_role(first, first.user_id, "partner_admin"),
        people.members.invite(first, "x@example.in", "partner_admin"),
        people.members.invitations(first),
    ):
        with pytest.raises(PermissionDenied):
            await call
    await people.members.remove(first, first.user_id)
    assert await people.who(host) == [host.user_id, second.user_id]
    assert await _told(market, host, first) == ["member.joined", "member.left"]


async def test_the_last_administrator_neither_goes_nor_steps_down(market: Market, people: People) -> None:
    host = await market.provider()
    other = await people.newcomer(host, "ravi@example.in", "partner_developer")
    assert host.user_id and other.user_id
    for call in (
        people.members.remove(host, host.user_id),
        people.members.change_role(host, host.user_id, "partner_developer"),
    ):
        with pytest.raises(Conflict):
            await call
    await people.members.change_role(host, other.user_id, "partner_admin")
    await people.members.change_role(host, host.user_id, "partner_developer")
    assert {one.role for one in await people.members.of(host)} == {Role.PARTNER_ADMIN, Role.PARTNER_DEVELOPER}


@pytest.mark.parametrize("deed", ["remove each other", "leave", "step down"])
async def test_two_administrators_at_once_leave_one(market: Market, people: People, deed: str) -> None:
    for number in range(5):
        one = await market.provider()
        two = await people.newcomer(one, f"ravi{number}@example.in", "partner_admin")
        assert one.user_id and two.user_id
        match deed:
            case "remove each other":
                deeds = [people.members.remove(one, two.user_id), people.members.remove(two, one.user_id)]
            case "leave":
                deeds = [people.members.remove(one, one.user_id), people.members.remove(two, two.user_id)]
            case _:
                deeds = [
                    people.members.change_role(who, who.user_id or uuid4(), "partner_developer") for who in (one, two)
                ]
        results = await asyncio.gather(*deeds, return_exceptions=True)
        assert sum(result is None for result in results) == 1
        assert sum(isinstance(result, Conflict | PermissionDenied) for result in results) == 1
        left = [one.role for one in await people.members.of(one)]
        assert left.count(Role.PARTNER_ADMIN) == 1


async def test_who_was_removed_a_moment_ago_removes_nobody(market: Market, people: People) -> None:
    host = await market.provider()
    second = await people.newcomer(host, "ravi@example.in", "partner_admin")
    third = await people.newcomer(host, "uma@example.in", "partner_admin")
    assert second.user_id and third.user_id
    await people.members.remove(host, second.user_id)
    with pytest.raises(PermissionDenied):  # with the actor of a request that was let in before
        await people.members.remove(second, third.user_id)


# --- other tenants --------------------------------------------------------------------------------


async def test_nothing_of_another_organisations_people_is_seen_or_changed(market: Market, people: People) -> None:
    host, stranger = await market.provider(), await market.provider()
    member = await people.newcomer(host, "ravi@example.in", "partner_developer")
    invitation = await people.members.invite(host, "uma@example.in", "partner_developer")
    assert member.user_id
    assert await people.who(stranger) == [stranger.user_id]
    assert await people.members.invitations(stranger) == []
    for call in (
        people.members.change_role(stranger, member.user_id, "partner_admin"),
        people.members.remove(stranger, member.user_id),
        people.members.resend(stranger, invitation.id),
        people.members.revoke(stranger, invitation.id),
    ):
        with pytest.raises(NotFound):
            await call
    assert await people.who(host) == [host.user_id, member.user_id]
    assert [one.mailed for one in await people.members.invitations(host)] == [1]


async def test_a_forgotten_filter_shows_nobodys_invitations_but_ones_own(market: Market, people: People) -> None:
    mine, theirs = await market.consumer(), await market.consumer()
    await people.members.invite(mine, "ravi@example.in", "api_consumer")
    await people.members.invite(theirs, "ravi@example.in", "api_consumer")
    await people.access.ask_reset("ravi@example.in")
    for scope, seen in ((PUBLIC, []), (tenant(mine.org_id), [mine.org_id]), (tenant(theirs.org_id), [theirs.org_id])):
        async with market.db.transaction(scope) as connection:
            rows = await (await connection.execute("SELECT org_id FROM invitations")).fetchall()
            resets = await (await connection.execute("SELECT FROM password_resets")).fetchall()
        assert [row["org_id"] for row in rows] == seen and resets == []


async def test_events_of_people_hold_no_personal_data(market: Market, people: People) -> None:
    host = await market.consumer()
    invitation = await people.members.invite(host, "ravi@example.in", "api_consumer")
    session = await people.members.accept(people.members.token_of(invitation), PASSWORD, "Ravi Nair")
    written = [
        event
        for stream in (
            f"invitation/{invitation.id}",
            f"user/{session.user.id}",
            f"membership/{host.org_id}.{session.user.id}",
        )
        for event in await market.events(stream)
    ]
    assert [event.type for event in written] == [
        "invitation.sent",
        "invitation.accepted",
        "user.created",
        "member.joined",
    ]
    text = str([(event.data, event.actor) for event in written])
    assert not any(secret in text for secret in ("ravi", "Ravi", "example"))
