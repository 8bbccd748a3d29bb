"""Use cases of applications and their API keys: one transaction each, with its event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from haat.identity import store
from haat.identity.model import (
    INVOKE,
    Application,
    Credential,
    IssuedKey,
    KeyHolder,
    KeyMode,
    check_scopes,
    key_prefix,
    make_key,
    parse_key,
)
from haat.identity.policy import ApplicationPolicyDraft
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database, tenant
from haat.kernel.clock import Clock, check_ahead
from haat.kernel.errors import Conflict, ExpiredCredential, InvalidCredential, RevokedCredential, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor, Permission
from haat.kernel.text import check_name
from haat.language.messages import _

ROTATION_GRACE = timedelta(hours=24)


class Applications:
    """An organisation's applications and their keys; who holds a key."""

    def __init__(self, db: Database, clock: Clock, keyring: Keyring) -> None:
        self._db, self._clock, self._keyring = db, clock, keyring

    async def create_application(self, actor: Actor, name: str) -> Application:
        """Create an application of the actor's organisation; raise AlreadyExists for a name in use."""
        actor.require(Permission.APPLICATIONS_EDIT)
        org = own_org(actor)
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
        async with self._db.transaction(tenant(own_org(actor))) as connection:
            return await store.applications(connection, own_org(actor))

    async def application(self, actor: Actor, identifier: UUID) -> Application:
        """Return one application; raise NotFound for another organisation's."""
        async with self._db.transaction(tenant(own_org(actor))) as connection:
            return await store.application(connection, own_org(actor), identifier)

    async def set_application_policy(
        self, actor: Actor, identifier: UUID, draft: ApplicationPolicyDraft
    ) -> Application:
        """Replace what an application demands of the gateway and of who executes its calls; raise NotFound."""
        actor.require(Permission.APPLICATIONS_EDIT)
        org = own_org(actor)
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
        org, now = own_org(actor), self._clock.now()
        name, opened = check_name(name) if name.strip() else "", check_scopes(scopes)
        expires_at = check_ahead(expires_at, now, "expires_at") if expires_at else None
        async with self._db.transaction(tenant(org)) as connection:
            await store.application(connection, org, application_id)
            return await self._add_key(connection, actor, application_id, name, mode, opened, expires_at)

    async def keys(self, actor: Actor, application_id: UUID) -> list[Credential]:
        """Return an application's keys, the ended ones too."""
        async with self._db.transaction(tenant(own_org(actor))) as connection:
            await store.application(connection, own_org(actor), application_id)
            return await store.credentials(connection, own_org(actor), application_id)

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

    async def rotate_key(self, actor: Actor, identifier: UUID, *, grace: timedelta = ROTATION_GRACE) -> IssuedKey:
        """Replace a key by a new one with the same settings.

        The old one goes on for ``grace``, never past its own expiry. Raise Conflict for a key that
        is expired or revoked.
        """
        actor.require(Permission.KEYS_EDIT)
        org, now = own_org(actor), self._clock.now()
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
        org, now = own_org(actor), self._clock.now()
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
        org, now, key = own_org(actor), self._clock.now(), make_key(mode)
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


def own_org(actor: Actor) -> UUID:
    """Return the organisation an actor acts for; the platform itself has none."""
    if actor.org_id is None:
        raise ValidationFailed(_("This is done for an organisation: sign in as one of its members."))
    return actor.org_id
