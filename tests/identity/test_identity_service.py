"""Accounts, sessions, applications and keys on a real database."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Literal
from uuid import uuid4

import psycopg
import pytest
from argon2 import PasswordHasher

from haat.identity import store
from haat.identity.model import parse_key
from haat.identity.service import Identity
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE, PUBLIC, Scope, tenant
from haat.kernel.clock import SetClock
from haat.kernel.errors import (
    AlreadyExists,
    Conflict,
    NotFound,
    RateLimited,
    SignInFailed,
    Unauthenticated,
    ValidationFailed,
)
from haat.kernel.permissions import PLATFORM, Actor, Role
from market import PASSWORD, Market

HOUR = timedelta(hours=1)


async def _count(market: Market, table: str, scope: Scope) -> int:
    async with market.db.transaction(scope) as connection:
        row = await (await connection.execute(f"SELECT count(*) AS n FROM {table}")).fetchone()
    assert row is not None
    return int(row["n"])


# --- accounts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "role"), [("consumer", Role.API_CONSUMER), ("provider", Role.PARTNER_ADMIN)])
async def test_signing_up_makes_an_organisation_and_its_administrator(
    market: Market, kind: Literal["consumer", "provider"], role: Role
) -> None:
    actor = await market.identity.sign_up(
        email="asha@example.in", password=PASSWORD, name="Asha", organisation="Asha's", kind=kind, state_code="27"
    )
    assert actor.org_id
    organisation = await market.identity.organisation(actor.org_id)
    assert (actor.role, organisation.kind, organisation.state_code) == (role, kind, "27")
    assert [event.type for event in await market.events(f"user/{actor.user_id}")] == ["user.created"]
    assert [event.type for event in await market.events(f"organisation/{actor.org_id}")] == ["organisation.created"]


async def test_nobody_signs_up_as_the_operator(market: Market) -> None:
    with pytest.raises(ValidationFailed):
        await market.identity.sign_up(
            email="asha@example.in", password=PASSWORD, name="Asha", organisation="Haat", kind="operator"
        )
    assert await market.identity.operator() is None


async def test_events_of_an_account_hold_no_personal_data(market: Market) -> None:
    actor = await market.consumer(email="asha@example.in", name="Asha Rao", organisation="Rao Traders")
    for stream in (f"user/{actor.user_id}", f"organisation/{actor.org_id}"):
        text = str([(event.data, event.actor) for event in await market.events(stream)])
        assert not any(secret in text for secret in ("asha", "Asha", "Rao"))


async def test_the_state_follows_from_the_gstin(market: Market) -> None:
    actor = await market.consumer(gstin="27aapfu0939f1zv")
    assert actor.org_id
    organisation = await market.identity.organisation(actor.org_id)
    assert (organisation.gstin, organisation.state_code) == ("27AAPFU0939F1ZV", "27")


@pytest.mark.parametrize(
    "changes",
    [
        {"gstin": "27AAPFU0939F1ZV", "state_code": "07"},
        {"gstin": "27AAPFU0939F1ZA"},
        {"state_code": "०७"},
        {"state_code": "7"},
        {"name": "\0"},
        {"address": "a\0b"},
        {"organisation": "\u202e"},
        {"email": "asha"},
        {"password": "short"},
        {"password": "surrogate \ud800"},
    ],
)
async def test_an_account_with_wrong_details_is_refused_and_nothing_is_kept(
    market: Market, changes: dict[str, str]
) -> None:
    with pytest.raises(ValidationFailed):
        await market.consumer(**changes)
    assert await _count(market, "users", PLATFORM_SCOPE) == await _count(market, "organisations", PLATFORM_SCOPE) == 0


async def test_an_e_mail_address_has_one_account_whatever_its_case(market: Market) -> None:
    await market.consumer(email="Asha@Example.in")
    with pytest.raises(AlreadyExists):
        await market.consumer(email="asha@example.IN")
    assert await _count(market, "organisations", PLATFORM_SCOPE) == 1


async def test_two_sign_ups_with_one_address_at_once_make_one_account(market: Market) -> None:
    results = await asyncio.gather(
        *(market.consumer(email="asha@example.in") for _ in range(6)), return_exceptions=True
    )
    assert sum(isinstance(result, Actor) for result in results) == 1
    assert sum(isinstance(result, AlreadyExists) for result in results) == 5


async def test_the_operator_is_found_and_its_members_addresses(market: Market) -> None:
    actor = await market.operator()
    operator = await market.identity.operator()
    assert operator is not None and operator.id == actor.org_id
    assert await market.identity.member_emails(operator.id) == ["user1@example.in"]


async def test_an_unknown_organisation_is_not_found(market: Market) -> None:
    with pytest.raises(NotFound):
        await market.identity.organisation(uuid4())


# --- passwords and sessions ---------------------------------------------------------------------


async def test_passwords_are_kept_as_argon2id_at_the_librarys_cost(
    market: Market, clock: SetClock, keyring: Keyring
) -> None:
    identity = Identity(market.db, clock, keyring, session_hours=1, zone="Asia/Kolkata")
    await identity.create_organisation(
        email="asha@example.in", password=PASSWORD, name="A", organisation="A", kind="consumer"
    )
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        found = await store.user_by_email(connection, "asha@example.in")
    assert found is not None
    assert found[1].startswith("$argon2id$") and not PasswordHasher().check_needs_rehash(found[1])


async def test_a_hash_of_an_older_cost_is_renewed_at_sign_in(market: Market) -> None:
    await market.consumer(email="asha@example.in")
    market.identity._hasher = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    await market.identity.sign_in("asha@example.in", PASSWORD)
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        found = await store.user_by_email(connection, "asha@example.in")
    assert found is not None and "m=16,t=2" in found[1]
    await market.identity.sign_in("asha@example.in", PASSWORD)


async def test_signing_in_gives_a_session_that_stands_for_the_user(market: Market) -> None:
    actor = await market.consumer(email="asha@example.in")
    session = await market.identity.sign_in(" ASHA@example.in ", PASSWORD)
    assert await market.identity.actor_of(session.token) == actor
    assert session.expires_at == market.clock.now() + 12 * HOUR


async def test_the_session_table_holds_no_token(market: Market) -> None:
    await market.consumer(email="asha@example.in")
    session = await market.identity.sign_in("asha@example.in", PASSWORD)
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        row = await (await connection.execute("SELECT sessions::text AS text FROM sessions")).fetchone()
    assert row is not None
    assert session.token not in row["text"] and session.token.encode().hex() not in row["text"]


async def test_an_unknown_user_and_a_wrong_password_meet_the_same_refusal(market: Market) -> None:
    await market.consumer(email="asha@example.in")
    problems = []
    for email, password in [("asha@example.in", "wrong password"), ("nobody@example.in", PASSWORD)]:
        with pytest.raises(SignInFailed) as refusal:
            await market.identity.sign_in(email, password)
        problems.append(refusal.value.problem("same"))
    assert problems[0] == problems[1]


async def test_an_unknown_user_costs_the_same_hashing_as_a_known_one(market: Market) -> None:
    verified: list[str] = []

    class Watching(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Any:
            verified.append(str(hash))
            return super().verify(hash, password)

    await market.consumer(email="asha@example.in")
    market.identity._hasher = Watching(time_cost=1, memory_cost=8, parallelism=1)
    for email in ("asha@example.in", "nobody@example.in"):
        with pytest.raises(SignInFailed):
            await market.identity.sign_in(email, "wrong password")
    assert len(verified) == 2 and all(text.startswith("$argon2id$") for text in verified)


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("asha@example.in", "x" * 10_000_000),
        ("asha\0@example.in", PASSWORD),
        ("asha@example.in", "\ud800"),
        ("\ud800", PASSWORD),
        ("", ""),
        ("x" * 1_000_000, PASSWORD),
    ],
)
async def test_hostile_credentials_are_just_wrong(market: Market, email: str, password: str) -> None:
    await market.consumer(email="asha@example.in")
    with pytest.raises(SignInFailed):
        await market.identity.sign_in(email, password)


async def test_a_session_ends_with_its_time(market: Market) -> None:
    await market.consumer(email="asha@example.in")
    session = await market.identity.sign_in("asha@example.in", PASSWORD)
    market.clock.advance(hours=12, seconds=-1)
    await market.identity.actor_of(session.token)
    market.clock.advance(seconds=1)
    with pytest.raises(Unauthenticated):
        await market.identity.actor_of(session.token)


async def test_signing_out_ends_one_session_and_no_other(market: Market) -> None:
    actor = await market.consumer(email="asha@example.in")
    ended = await market.identity.sign_in("asha@example.in", PASSWORD)
    other = await market.identity.sign_in("asha@example.in", PASSWORD)
    await market.identity.sign_out(ended.token)
    await market.identity.sign_out(ended.token)
    with pytest.raises(Unauthenticated):
        await market.identity.actor_of(ended.token)
    assert await market.identity.actor_of(other.token) == actor


async def test_a_disabled_user_neither_signs_in_nor_goes_on(market: Market) -> None:
    actor = await market.consumer(email="asha@example.in")
    session = await market.identity.sign_in("asha@example.in", PASSWORD)
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute("UPDATE users SET disabled_at = now() WHERE id = %s", (actor.user_id,))
    with pytest.raises(Unauthenticated):
        await market.identity.actor_of(session.token)
    with pytest.raises(SignInFailed):
        await market.identity.sign_in("asha@example.in", PASSWORD)


async def test_a_user_who_left_every_organisation_does_not_sign_in(market: Market) -> None:
    actor = await market.consumer(email="asha@example.in")
    session = await market.identity.sign_in("asha@example.in", PASSWORD)
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute("DELETE FROM memberships WHERE user_id = %s", (actor.user_id,))
    with pytest.raises(SignInFailed):
        await market.identity.sign_in("asha@example.in", PASSWORD)
    with pytest.raises(Unauthenticated):
        await market.identity.actor_of(session.token)


async def test_a_user_switches_between_their_organisations_and_to_no_other(market: Market) -> None:
    actor, host, stranger = await market.consumer(), await market.provider(), await market.consumer()
    assert actor.user_id and host.org_id and stranger.org_id
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        await store.add_membership(
            connection, actor.user_id, host.org_id, Role.PARTNER_DEVELOPER, market.clock.now() + HOUR
        )
    assert [place.org_id for place in await market.identity.memberships(actor)] == [actor.org_id, host.org_id]
    session = await market.identity.switch(actor, host.org_id)
    there = await market.identity.actor_of(session.token)
    assert (there.org_id, there.role) == (host.org_id, Role.PARTNER_DEVELOPER)
    with pytest.raises(NotFound):
        await market.identity.switch(actor, stranger.org_id)


async def test_the_platform_itself_has_no_memberships_and_no_session(market: Market) -> None:
    assert await market.identity.memberships(PLATFORM) == []
    with pytest.raises(Unauthenticated):
        await market.identity.switch(PLATFORM, uuid4())


# --- throttling (OWASP API6:2023) ---------------------------------------------------------------


async def test_after_ten_wrong_passwords_an_account_takes_one_try_a_minute(market: Market) -> None:
    await market.consumer(email="asha@example.in")
    for _ in range(10):
        with pytest.raises(SignInFailed):
            await market.identity.sign_in("asha@example.in", "wrong password")
    with pytest.raises(RateLimited) as refusal:
        await market.identity.sign_in("ASHA@example.in", PASSWORD)
    assert refusal.value.extensions["retry_after"] == 60
    market.clock.advance(seconds=60)
    await market.identity.sign_in("asha@example.in", PASSWORD)


async def test_guesses_made_at_once_count_too(market: Market) -> None:
    await market.consumer(email="asha@example.in")
    results = await asyncio.gather(
        *(market.identity.sign_in("asha@example.in", f"guess number {n}") for n in range(30)), return_exceptions=True
    )
    assert sum(isinstance(result, SignInFailed) for result in results) == 10
    assert sum(isinstance(result, RateLimited) for result in results) == 20


async def test_a_right_password_clears_the_count(market: Market) -> None:
    await market.consumer(email="asha@example.in")
    for _ in range(4):
        for _ in range(9):
            with pytest.raises(SignInFailed):
                await market.identity.sign_in("asha@example.in", "wrong password")
        await market.identity.sign_in("asha@example.in", PASSWORD)


async def test_a_public_address_that_guesses_many_accounts_is_stopped(market: Market) -> None:
    market.identity._nobody = market.identity._hasher.hash("quick")
    for number in range(60):
        with pytest.raises(SignInFailed):
            await market.identity.sign_in(f"user{number}@example.in", "guess", client="8.8.8.8")
    with pytest.raises(RateLimited):
        await market.identity.sign_in("another@example.in", "guess", client="8.8.8.8")
    with pytest.raises(SignInFailed):
        await market.identity.sign_in("another@example.in", "guess", client="1.1.1.1")


async def test_a_public_address_makes_ten_accounts_and_then_one_in_ten_minutes(market: Market) -> None:
    async def join(number: int) -> Actor:
        return await market.identity.sign_up(
            email=f"trial{number}@example.in", password=PASSWORD, name="T", organisation="T", client="8.8.8.8"
        )

    for number in range(10):
        await join(number)
    with pytest.raises(RateLimited):
        await join(10)
    market.clock.advance(minutes=10)
    await join(10)
    with pytest.raises(RateLimited):
        await join(11)


# --- applications -------------------------------------------------------------------------------


async def test_an_application_is_listed_for_its_organisation_only(market: Market) -> None:
    mine, theirs = await market.consumer(), await market.consumer()
    made = await market.identity.create_application(mine, "  Mandi  app ")
    assert made.name == "Mandi app"
    assert await market.identity.applications(mine) == [made]
    assert await market.identity.applications(theirs) == []
    assert await market.identity.application(mine, made.id) == made
    with pytest.raises(NotFound):
        await market.identity.application(theirs, made.id)


async def test_two_applications_of_an_organisation_have_two_names(market: Market) -> None:
    mine, theirs = await market.consumer(), await market.consumer()
    await market.identity.create_application(mine, "app")
    with pytest.raises(AlreadyExists):
        await market.identity.create_application(mine, "app")
    await market.identity.create_application(theirs, "app")


async def test_the_platform_itself_has_no_applications(market: Market) -> None:
    for call in (
        market.identity.applications(PLATFORM),
        market.identity.application(PLATFORM, uuid4()),
        market.identity.keys(PLATFORM, uuid4()),
        market.identity.create_application(PLATFORM, "app"),
    ):
        with pytest.raises(ValidationFailed):
            await call


# --- keys ---------------------------------------------------------------------------------------


async def test_a_key_is_shown_once_and_kept_as_a_keyed_hash(market: Market) -> None:
    actor = await market.consumer()
    application = await market.identity.create_application(actor, "app")
    issued = await market.identity.create_key(actor, application.id, name="first")
    assert parse_key(issued.key) == "live"
    assert await market.identity.keys(actor, application.id) == [issued.credential]
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        row = await (await connection.execute("SELECT key_hash, credentials::text AS text FROM credentials")).fetchone()
    assert row is not None and bytes(row["key_hash"]) == market.keyring.hash_key(issued.key)
    secret = issued.key[14:-4]
    assert secret not in row["text"] and secret.encode().hex() not in row["text"]
    events = await market.events(f"credential/{issued.credential.id}")
    assert secret not in str(events) and [event.type for event in events] == ["credential.created"]


@pytest.mark.parametrize("offset", [timedelta(0), -HOUR, timedelta(days=4000)])
async def test_a_key_that_would_be_over_or_outlive_ten_years_is_refused(market: Market, offset: timedelta) -> None:
    actor = await market.consumer()
    application = await market.identity.create_application(actor, "app")
    with pytest.raises(ValidationFailed):
        await market.identity.create_key(actor, application.id, expires_at=market.clock.now() + offset)


async def test_a_key_name_is_readable(market: Market) -> None:
    actor = await market.consumer()
    application = await market.identity.create_application(actor, "app")
    with pytest.raises(ValidationFailed):
        await market.identity.create_key(actor, application.id, name="a\0b")


async def test_rotation_copies_the_settings_and_lets_the_old_key_go_on_for_the_grace(market: Market) -> None:
    actor = await market.consumer()
    application = await market.identity.create_application(actor, "app")
    expires_at = market.clock.now() + 100 * HOUR
    old = await market.identity.create_key(
        actor, application.id, name="bot", mode="test", scopes=("invoke:vani/read",), expires_at=expires_at
    )
    new = await market.identity.rotate_key(actor, old.credential.id, grace=2 * HOUR)
    assert parse_key(new.key) == "test" and new.key != old.key
    assert (new.credential.name, new.credential.scopes, new.credential.expires_at) == (
        "bot",
        ("invoke:vani/read",),
        expires_at,
    )
    stored = {key.id: key for key in await market.identity.keys(actor, application.id)}
    former = stored[old.credential.id]
    assert former.rotated_to == new.credential.id
    assert former.is_active(market.clock.now() + 2 * HOUR - timedelta(seconds=1))
    assert not former.is_active(market.clock.now() + 2 * HOUR)


async def test_the_grace_never_outlives_the_keys_own_expiry(market: Market) -> None:
    actor = await market.consumer()
    application = await market.identity.create_application(actor, "app")
    expires_at = market.clock.now() + HOUR
    old = await market.identity.create_key(actor, application.id, expires_at=expires_at)
    await market.identity.rotate_key(actor, old.credential.id, grace=24 * HOUR)
    former = (await market.identity.keys(actor, application.id))[0]
    assert former.revoked_at == expires_at


async def test_a_key_opens_all_services_or_those_that_it_names(market: Market) -> None:
    actor = await market.consumer()
    application = await market.identity.create_application(actor, "shop")
    scopes = ["invoke:vani/read", "invoke:vani/speak", "invoke:vani/read"]
    issued = await market.identity.create_key(actor, application.id, scopes=scopes)
    assert issued.credential.services == ["vani/read", "vani/speak"]
    rotated = await market.identity.rotate_key(actor, issued.credential.id)
    assert rotated.credential.scopes == ("invoke:vani/read", "invoke:vani/speak")
    assert (await market.identity.create_key(actor, application.id)).credential.services == []


@pytest.mark.parametrize(
    "scopes",
    [[], ["job"], ["invoke", "job"], ["invoke", "invoke:vani/read"], ["invoke:vani"], ["invoke:vani/read x"], ["*"],
     ["invoke:vani/../read"], [f"invoke:vani/read-{number}" for number in range(51)]],
)  # fmt: skip
async def test_no_key_is_made_with_a_scope_that_is_none(market: Market, scopes: list[str]) -> None:
    actor = await market.consumer()
    application = await market.identity.create_application(actor, "shop")
    with pytest.raises(ValidationFailed) as refusal:
        await market.identity.create_key(actor, application.id, scopes=scopes)
    assert refusal.value.extensions["errors"][0]["field"] == "scopes"


async def test_an_expired_key_can_not_be_rotated(market: Market) -> None:
    actor = await market.consumer()
    application = await market.identity.create_application(actor, "app")
    old = await market.identity.create_key(actor, application.id, expires_at=market.clock.now() + HOUR)
    market.clock.advance(hours=1)
    with pytest.raises(Conflict):
        await market.identity.rotate_key(actor, old.credential.id)


async def test_a_key_is_rotated_once_even_by_two_at_the_same_moment(market: Market) -> None:
    actor = await market.consumer()
    application = await market.identity.create_application(actor, "app")
    old = await market.identity.create_key(actor, application.id)
    results = await asyncio.gather(
        *(market.identity.rotate_key(actor, old.credential.id) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, Conflict) for result in results) == 4
    assert len(await market.identity.keys(actor, application.id)) == 2


async def test_revoking_ends_a_key_now_and_revoking_it_twice_changes_nothing(market: Market) -> None:
    actor = await market.consumer()
    application = await market.identity.create_application(actor, "app")
    issued = await market.identity.create_key(actor, application.id)
    first = await market.identity.revoke_key(actor, issued.credential.id)
    market.clock.advance(hours=1)
    second = await market.identity.revoke_key(actor, issued.credential.id)
    assert first == second and not first.is_active(market.clock.now() - HOUR)
    types = [event.type for event in await market.events(f"credential/{issued.credential.id}")]
    assert types == ["credential.created", "credential.revoked"]
    with pytest.raises(Conflict):
        await market.identity.rotate_key(actor, issued.credential.id)


async def test_a_key_in_its_grace_can_be_revoked_at_once(market: Market) -> None:
    actor = await market.consumer()
    application = await market.identity.create_application(actor, "app")
    old = await market.identity.create_key(actor, application.id)
    await market.identity.rotate_key(actor, old.credential.id)
    revoked = await market.identity.revoke_key(actor, old.credential.id)
    assert revoked.revoked_at == market.clock.now()


async def test_another_tenants_key_and_application_are_not_there(market: Market) -> None:
    mine, theirs = await market.consumer(), await market.consumer()
    application = await market.identity.create_application(mine, "app")
    issued = await market.identity.create_key(mine, application.id)
    for call in (
        market.identity.create_key(theirs, application.id),
        market.identity.keys(theirs, application.id),
        market.identity.rotate_key(theirs, issued.credential.id),
        market.identity.revoke_key(theirs, issued.credential.id),
    ):
        with pytest.raises(NotFound):
            await call
    assert (await market.identity.keys(mine, application.id))[0].is_active(market.clock.now())


# --- below the application ----------------------------------------------------------------------

TENANT_TABLES = ["applications", "credentials", "memberships", "sessions", "events"]


@pytest.mark.parametrize("table", TENANT_TABLES)
async def test_a_forgotten_filter_shows_nobodys_rows_but_ones_own(market: Market, table: str) -> None:
    mine, theirs = await market.consumer(email="asha@example.in"), await market.consumer()
    application = await market.identity.create_application(mine, "app")
    await market.identity.create_key(mine, application.id)
    await market.identity.sign_in("asha@example.in", PASSWORD)
    assert await _count(market, table, PUBLIC) == 0
    async with market.db.transaction(tenant(mine.org_id)) as connection:
        rows = await (await connection.execute(f"SELECT org_id FROM {table}")).fetchall()
    assert rows and all(row["org_id"] == mine.org_id for row in rows)
    async with market.db.transaction(tenant(theirs.org_id)) as connection:
        rows = await (await connection.execute(f"SELECT org_id FROM {table}")).fetchall()
    assert all(row["org_id"] == theirs.org_id for row in rows)


async def test_a_row_for_another_tenant_can_not_be_written(market: Market) -> None:
    mine, theirs = await market.consumer(), await market.consumer()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with market.db.transaction(tenant(mine.org_id)) as connection:
            await connection.execute(
                "INSERT INTO applications (id, org_id, name, created_at) VALUES (%s, %s, 'x', now())",
                (uuid4(), theirs.org_id),
            )
