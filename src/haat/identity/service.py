"""Use cases of identity: one transaction each, with its event."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from haat.identity import people_store, store
from haat.identity.browsers import family_of
from haat.identity.model import (
    INVOKE,
    KEY_PREFIXES,
    MAX_PASSWORD,
    ROLES,
    Application,
    Credential,
    IssuedKey,
    KeyHolder,
    KeyMode,
    Member,
    Membership,
    Organisation,
    OrganisationKind,
    Session,
    User,
    check_email,
    check_password,
    check_scopes,
    check_state,
    key_prefix,
    make_key,
    parse_key,
)
from haat.identity.policy import ApplicationPolicyDraft
from haat.identity.throttle import Guards
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database, tenant
from haat.kernel.clock import Clock, check_ahead
from haat.kernel.errors import (
    Conflict,
    ExpiredCredential,
    InvalidCredential,
    NotFound,
    RevokedCredential,
    SignInFailed,
    Unauthenticated,
    ValidationFailed,
)
from haat.kernel.gstin import check_gstin
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor, Permission, Role
from haat.kernel.text import check_name, is_storable, tidy
from haat.language.messages import _

ROTATION_GRACE = timedelta(hours=24)
SEEN_EVERY = timedelta(hours=1)
"""How late the note of a session's last use may be: it is no trace of what its user does."""
_NEVER = datetime.min.replace(tzinfo=UTC)


@cache
def _nobodys_hash() -> str:
    """Return the hash of no password: to refuse whom nobody knows takes as long as a wrong password does."""
    return PasswordHasher().hash(secrets.token_hex(16))


class Identity:
    """Organisations, users, sessions, applications and API keys."""

    def __init__(self, db: Database, clock: Clock, keyring: Keyring, *, session_hours: int, zone: str) -> None:
        self._db = db
        self._clock = clock
        self._keyring = keyring
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

    # --- applications and keys ------------------------------------------------------------------

    async def create_application(self, actor: Actor, name: str) -> Application:
        """Create an application of the actor's organisation; raise AlreadyExists for a name in use."""
        actor.require(Permission.APPLICATIONS_EDIT)
        org = _org(actor)
        application = Application(new_id(), org, check_name(name), self._clock.now())
        async with self._db.transaction(tenant(org)) as connection:
            await store.add_application(connection, application)
            await events.append(
                connection,
                stream=f"application/{application.id}",
                type="application.created",
                data={"name": application.name},
                actor=actor.label,
                org=org,
                at=application.created_at,
            )
        return application

    async def applications(self, actor: Actor) -> list[Application]:
        """Return the organisation's applications, oldest first."""
        async with self._db.transaction(tenant(_org(actor))) as connection:
            return await store.applications(connection, _org(actor))

    async def application(self, actor: Actor, identifier: UUID) -> Application:
        """Return one application; raise NotFound for another organisation's."""
        async with self._db.transaction(tenant(_org(actor))) as connection:
            return await store.application(connection, _org(actor), identifier)

    async def set_application_policy(
        self, actor: Actor, identifier: UUID, draft: ApplicationPolicyDraft
    ) -> Application:
        """Replace what an application demands of the gateway and of who executes its calls; raise NotFound."""
        actor.require(Permission.APPLICATIONS_EDIT)
        org = _org(actor)
        async with self._db.transaction(tenant(org)) as connection:
            await store.application(connection, org, identifier)
            await store.set_application_policy(connection, identifier, draft)
            await events.append(
                connection,
                stream=f"application/{identifier}",
                type="application.policy_changed",
                data=draft.model_dump(mode="json", exclude_defaults=True),
                actor=actor.label,
                org=org,
                at=self._clock.now(),
            )
            return await store.application(connection, org, identifier)

    async def create_key(
        self,
        actor: Actor,
        application_id: UUID,
        *,
        name: str = "",
        mode: KeyMode = "live",
        scopes: Sequence[str] = (INVOKE,),
        expires_at: datetime | None = None,
    ) -> IssuedKey:
        """Create an API key; the answer is the only time its text is seen.

        ``scopes`` say which services it opens (see `check_scopes`).
        """
        actor.require(Permission.KEYS_EDIT)
        org, now = _org(actor), self._clock.now()
        name, opened = check_name(name) if name.strip() else "", check_scopes(scopes)
        expires_at = check_ahead(expires_at, now, "expires_at") if expires_at else None
        async with self._db.transaction(tenant(org)) as connection:
            await store.application(connection, org, application_id)
            return await self._add_key(connection, actor, application_id, name, mode, opened, expires_at)

    async def keys(self, actor: Actor, application_id: UUID) -> list[Credential]:
        """Return an application's keys, the ended ones too."""
        async with self._db.transaction(tenant(_org(actor))) as connection:
            await store.application(connection, _org(actor), application_id)
            return await store.credentials(connection, _org(actor), application_id)

    async def holder_of(self, key: str) -> KeyHolder:
        """Return whom an API key stands for; raise InvalidCredential, RevokedCredential or ExpiredCredential."""
        parse_key(key)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = await store.credential_by_hash(connection, self._keyring.hash_key(key))
        if row is None:
            raise InvalidCredential
        now = self._clock.now()
        if row["revoked_at"] is not None and row["revoked_at"] <= now:
            raise RevokedCredential
        if row["expires_at"] is not None and row["expires_at"] <= now:
            raise ExpiredCredential
        return KeyHolder(row["org_id"], row["application_id"], row["policy"])

    async def holder(self, org: UUID, application: UUID) -> KeyHolder:
        """Return an application that the gateway has introduced, with its policy; raise NotFound."""
        async with self._db.transaction(tenant(org)) as connection:
            found = await store.application(connection, org, application)
        return KeyHolder(org, found.id, found.policy)

    async def whose(self, token: str) -> Actor | KeyHolder:
        """Return whom a session's token or an API key stands for; raise like `actor_of` and `holder_of`."""
        return await (self.holder_of(token) if token[:10] in KEY_PREFIXES else self.actor_of(token))

    async def rotate_key(self, actor: Actor, identifier: UUID, *, grace: timedelta = ROTATION_GRACE) -> IssuedKey:
        """Replace a key by a new one with the same settings.

        The old one goes on for ``grace``, never past its own expiry. Raise Conflict for a key that
        is expired or revoked.
        """
        actor.require(Permission.KEYS_EDIT)
        org, now = _org(actor), self._clock.now()
        async with self._db.transaction(tenant(org)) as connection:
            old = await store.credential_for_change(connection, org, identifier)
            if not old.is_active(now) or old.rotated_to is not None:
                raise Conflict(_("Only a living key that was not rotated before can be rotated: create a new one."))
            mode: KeyMode = "test" if old.prefix.startswith("haat_test_") else "live"
            issued = await self._add_key(
                connection, actor, old.application_id, old.name, mode, old.scopes, old.expires_at
            )
            ends = min(now + grace, old.expires_at) if old.expires_at else now + grace
            await store.end_credential(connection, old.id, revoked_at=ends, rotated_to=issued.credential.id)
            await events.append(
                connection,
                stream=f"credential/{old.id}",
                type="credential.rotated",
                data={"rotated_to": str(issued.credential.id), "ends_at": ends.isoformat()},
                actor=actor.label,
                org=org,
                at=now,
            )
        return issued

    async def revoke_key(self, actor: Actor, identifier: UUID) -> Credential:
        """End a key now, on every gateway within a second; revoking it twice is no error."""
        actor.require(Permission.KEYS_EDIT)
        org, now = _org(actor), self._clock.now()
        async with self._db.transaction(tenant(org)) as connection:
            credential = await store.credential_for_change(connection, org, identifier)
            if credential.revoked_at is not None and credential.revoked_at <= now:
                return credential
            await store.end_credential(connection, identifier, revoked_at=now)
            await events.append(
                connection,
                stream=f"credential/{identifier}",
                type="credential.revoked",
                data={},
                actor=actor.label,
                org=org,
                at=now,
            )
        return replace(credential, revoked_at=now)

    async def _add_key(
        self,
        connection: Connection,
        actor: Actor,
        application_id: UUID,
        name: str,
        mode: KeyMode,
        scopes: tuple[str, ...],
        expires_at: datetime | None,
    ) -> IssuedKey:
        org, now, key = _org(actor), self._clock.now(), make_key(mode)
        credential = Credential(
            id=new_id(),
            org_id=org,
            application_id=application_id,
            name=name,
            scheme="haat",
            prefix=key_prefix(key),
            last_four=key[-4:],
            scopes=scopes,
            created_at=now,
            expires_at=expires_at,
            revoked_at=None,
            rotated_to=None,
            last_used_at=None,
        )
        await store.add_credential(connection, credential, self._keyring.hash_key(key))
        await events.append(
            connection,
            stream=f"credential/{credential.id}",
            type="credential.created",
            data={"application": str(application_id), "scheme": "haat", "mode": mode, "scopes": list(scopes)},
            actor=actor.label,
            org=org,
            at=now,
        )
        return IssuedKey(key, credential)


def _org(actor: Actor) -> UUID:
    """Return the organisation an actor acts for; the platform itself has none."""
    if actor.org_id is None:
        raise ValidationFailed(_("This is done for an organisation: sign in as one of its members."))
    return actor.org_id
