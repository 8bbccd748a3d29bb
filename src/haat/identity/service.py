"""Use cases of identity: one transaction each, with its event."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from haat.identity import people_store, store
from haat.identity.applications import Applications
from haat.identity.browsers import family_of
from haat.identity.model import (
    KEY_PREFIXES,
    MAX_PASSWORD,
    ROLES,
    KeyHolder,
    Member,
    Membership,
    Organisation,
    OrganisationKind,
    Session,
    User,
    check_email,
    check_password,
    check_state,
)
from haat.identity.throttle import Guards
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database, tenant
from haat.kernel.clock import Clock
from haat.kernel.errors import (
    NotFound,
    SignInFailed,
    Unauthenticated,
    ValidationFailed,
)
from haat.kernel.gstin import check_gstin
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor, Permission, Role
from haat.kernel.text import check_name, is_storable, tidy
from haat.language.messages import _

SEEN_EVERY = timedelta(hours=1)
"""How late the note of a session's last use may be: it is no trace of what its user does."""
_NEVER = datetime.min.replace(tzinfo=UTC)


@cache
def _nobodys_hash() -> str:
    """Return the hash of no password: to refuse whom nobody knows takes as long as a wrong password does."""
    return PasswordHasher().hash(secrets.token_hex(16))


class Identity(Applications):
    """Organisations, users and sessions; applications and API keys, by its base."""

    def __init__(self, db: Database, clock: Clock, keyring: Keyring, *, session_hours: int, zone: str) -> None:
        super().__init__(db, clock, keyring)
        self.guards = Guards(clock)
        self._session_length = timedelta(hours=session_hours)
        self._zone = zone
        self._hasher = PasswordHasher()  # Argon2id, the library's current recommendation
        self._nobody = _nobodys_hash()

    # --- people and organisations ---------------------------------------------------------------

    async def sign_up(
        self,
        *,
        email: str,
        password: str,
        name: str,
        organisation: str,
        kind: OrganisationKind = "consumer",
        address: str = "",
        state_code: str | None = None,
        gstin: str | None = None,
        client: str | None = None,
    ) -> Actor:
        """Create a user with an organisation of their own; the user administers it.

        ``client`` is the network address that asks. Raise ValidationFailed, RateLimited (see
        `identity.throttle`), or AlreadyExists for a known e-mail address. The first operator is made
        by the command line; nobody can sign up as one.
        """
        if kind == "operator":
            raise ValidationFailed(errors=[{"field": "kind", "message": _("Choose developer or provider.")}])
        self.guards.sign_up(client)
        return await self.create_organisation(
            email=email,
            password=password,
            name=name,
            organisation=organisation,
            kind=kind,
            address=address,
            state_code=state_code,
            gstin=gstin,
        )

    async def create_organisation(
        self,
        *,
        email: str,
        password: str,
        name: str,
        organisation: str,
        kind: OrganisationKind,
        address: str = "",
        state_code: str | None = None,
        gstin: str | None = None,
    ) -> Actor:
        """Create an organisation of any kind with its first user: `sign_up` without its refusals."""
        now = self._clock.now()
        user = User(new_id(), check_email(email), check_name(name), now)
        gstin = check_gstin(gstin) if gstin else None
        state_code = check_state(state_code) if state_code else None
        if gstin and state_code and gstin[:2] != state_code:
            raise ValidationFailed(errors=[{"field": "gstin", "message": _("The GSTIN belongs to another State.")}])
        made = Organisation(
            new_id(),
            check_name(organisation, "organisation"),
            kind,
            check_name(address, "address", 500) if address.strip() else "",
            state_code or (gstin[:2] if gstin else None),
            gstin,
            self._zone,
            now,
        )
        password_hash = await self.hash_password(password)
        actor = Actor(user.id, made.id, ROLES[kind][0], user.name)
        async with self._db.transaction(tenant(made.id)) as connection:
            await store.add_organisation(connection, made)
            await store.add_user(connection, user, password_hash)
            await store.add_membership(connection, user.id, made.id, actor.role, now)
            await events.append(
                connection,
                stream=f"organisation/{made.id}",
                type="organisation.created",
                data={"kind": kind, "state_code": made.state_code, "zone": made.zone},
                actor=actor.label,
                org=made.id,
                at=now,
            )
            await events.append(
                connection,
                stream=f"user/{user.id}",
                type="user.created",
                data={"org": str(made.id), "role": actor.role.value},
                actor=actor.label,
                org=made.id,
                at=now,
            )
        return actor

    async def organisation(self, identifier: UUID) -> Organisation:
        """Return an organisation; raise NotFound."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await store.organisation(connection, identifier)

    async def names(self, orgs: Iterable[UUID]) -> dict[UUID, str]:
        """Return organisations' names; those that aren't there are left out."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await store.names(connection, set(orgs))

    async def operator(self) -> Organisation | None:
        """Return the operator's organisation, or None before the platform was set up."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await store.operator(connection)

    async def members(self, org_id: UUID) -> list[Member]:
        """Return who belongs to an organisation and may sign in, in the order in which they came."""
        async with self._db.transaction(tenant(org_id)) as connection:
            return await people_store.members(connection, org_id)

    async def member_emails(self, org_id: UUID) -> list[str]:
        """Return the addresses to which an organisation's mails go."""
        async with self._db.transaction(tenant(org_id)) as connection:
            return await store.member_emails(connection, org_id)

    async def people(self, actor: Actor, identifiers: Sequence[UUID]) -> dict[UUID, User]:
        """Return the users behind ids, for whoever reads the event log; one who was erased is left out."""
        actor.require(Permission.AUDIT_READ)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return {user.id: user for user in await store.users(connection, identifiers)}

    async def person(self, actor: Actor, email: str) -> User | None:
        """Return the user with an e-mail address, for whoever reads the event log."""
        actor.require(Permission.AUDIT_READ)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            found = await store.user_by_email(connection, email)
        return found[0] if found else None

    # --- sessions -------------------------------------------------------------------------------

    async def sign_in(
        self,
        email: str,
        password: str,
        *,
        client: str | None = None,
        user_agent: str = "",
        instead_of: str | None = None,
    ) -> Session:
        """Return a new session; raise SignInFailed, after the same time whether the user exists or not.

        It is for the organisation that the user last acted for. ``client`` is the network address that
        asks, ``instead_of`` the token of a session that this one replaces. Raise RateLimited after too
        many tries (see `identity.throttle`).
        """
        user = await self.verify(email, password, client=client)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            places = await store.memberships(connection, user.id)
            if not places:
                raise SignInFailed(_("The account belongs to no organisation any more."))
            place = max(places, key=lambda one: one.signed_in_at or _NEVER)
            return await self.open_session(connection, user, place, user_agent, instead_of)

    async def verify(self, email: str, password: str, *, client: str | None = None) -> User:
        """Return whose password this is; raise SignInFailed or RateLimited as `sign_in` does."""
        email = tidy(email)
        if not is_storable([email, password]):
            raise SignInFailed
        self.guards.sign_in(email, client)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            found = await store.user_by_email(connection, email)
        password_hash = found[1] if found else self._nobody
        try:
            await asyncio.to_thread(self._hasher.verify, password_hash, password[: MAX_PASSWORD + 1])
        except VerificationError as error:
            raise SignInFailed from error
        if found is None:
            raise SignInFailed
        self.guards.signed_in(email)
        if self._hasher.check_needs_rehash(password_hash):
            fresh_hash = await asyncio.to_thread(self._hasher.hash, password)
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                await store.renew_password_hash(connection, found[0].id, password_hash, fresh_hash)
        return found[0]

    async def hash_password(self, password: str) -> str:
        """Return what is stored of a new password; raise ValidationFailed for one that is too short or too long."""
        return await asyncio.to_thread(self._hasher.hash, check_password(password))

    async def switch(
        self, actor: Actor, org_id: UUID, *, user_agent: str = "", instead_of: str | None = None
    ) -> Session:
        """Return a session of the same user for another organisation they belong to; raise NotFound.

        ``instead_of`` is the token of the session that it replaces.
        """
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            if actor.user_id is None:
                raise Unauthenticated
            for place in await store.memberships(connection, actor.user_id):
                if place.org_id == org_id:
                    user = await store.user(connection, actor.user_id)
                    return await self.open_session(connection, user, place, user_agent, instead_of)
        raise NotFound

    async def memberships(self, actor: Actor) -> list[Membership]:
        """Return the organisations a user belongs to."""
        if actor.user_id is None:
            return []
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await store.memberships(connection, actor.user_id)

    async def actor_of(self, token: str) -> Actor:
        """Return who a session token stands for; raise Unauthenticated when it is over."""
        return (await self.session_of(token)).actor

    async def session_of(self, token: str) -> Session:
        """Return the session of a token; raise Unauthenticated when it is over."""
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = await store.session(connection, self._keyring.hash_key(token), now)
            if row is None:
                raise Unauthenticated(_("The session is over: sign in again."))
            if row["seen_at"] <= now - SEEN_EVERY:
                await store.see_session(connection, row["id"], now)
        return Session(row["id"], token, row["user"], row["org_id"], Role(row["role"]), row["expires_at"])

    async def sign_out(self, token: str) -> None:
        """End a session; ending an unknown one is no error."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.revoke_session(connection, self._keyring.hash_key(token), self._clock.now())

    async def open_session(
        self, connection: Connection, user: User, place: Membership, user_agent: str = "", instead_of: str | None = None
    ) -> Session:
        """Begin a session within the caller's transaction; the one of the token ``instead_of`` ends."""
        now = self._clock.now()
        if instead_of:
            await store.revoke_session(connection, self._keyring.hash_key(instead_of), now)
        token = secrets.token_urlsafe(32)
        made = Session(new_id(), token, user, place.org_id, place.role, now + self._session_length)
        await store.add_session(connection, self._keyring.hash_key(token), made, *family_of(user_agent), now)
        return made

    async def whose(self, token: str) -> Actor | KeyHolder:
        """Return whom a session's token or an API key stands for; raise like `actor_of` and `holder_of`."""
        return await (self.holder_of(token) if token[:10] in KEY_PREFIXES else self.actor_of(token))
