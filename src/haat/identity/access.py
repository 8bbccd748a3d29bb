"""Use cases of a person's own account: where it is open, its password, its name and its language."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from haat.identity import people_store, store
from haat.identity.model import OpenSession, Session, User, check_email, check_language
from haat.identity.service import Identity
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.clock import Clock
from haat.kernel.errors import LinkOver, NotFound, SignInFailed, Unauthenticated, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM, Actor
from haat.kernel.text import check_name
from haat.language.messages import _

RESET_LENGTH = timedelta(hours=1)


class Access:
    """What people do with their own account. Nobody but the person comes here, so no permission is asked for."""

    def __init__(self, db: Database, clock: Clock, keyring: Keyring, identity: Identity) -> None:
        self._db = db
        self._clock = clock
        self._keyring = keyring
        self._identity = identity

    # --- who one is -----------------------------------------------------------------------------

    async def user(self, identifier: UUID) -> User:
        """Return a person's account; raise NotFound for one that is closed."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await store.user(connection, identifier)

    async def change_profile(self, actor: Actor, *, name: str | None = None, language: str | None = None) -> User:
        """Change what is given: the name that colleagues read, the language in which the person is spoken to.

        An empty language leaves the choice to the browser. Raise ValidationFailed.
        """
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            before = await store.user_for_change(connection, _user(actor))
            after = before
            if name is not None:
                after = replace(after, name=check_name(name))
            if language is not None:
                after = replace(after, language=check_language(language) if language else None)
            await store.set_profile(connection, after)
            if after.name != before.name:
                await self._tell(connection, before.id, actor.org_id, "user.renamed", {})
            if after.language != before.language:
                data = {"language": str(after.language) if after.language else None}
                await self._tell(connection, before.id, actor.org_id, "user.language_chosen", data)
        return after

    # --- sessions -------------------------------------------------------------------------------

    async def sessions(self, actor: Actor, current: UUID | None = None) -> list[OpenSession]:
        """Return where the person is signed in, for all their organisations; ``current`` is the session that asks."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await people_store.open_sessions(connection, _user(actor), current, self._clock.now())

    async def end_session(self, actor: Actor, identifier: UUID) -> None:
        """End one session of the person's; raise NotFound for anybody else's and for one that is over."""
        if not await self._end(actor, one=identifier):
            raise NotFound

    async def end_others(self, actor: Actor, current: UUID) -> int:
        """End every session of the person's but the one that asks; return how many."""
        return await self._end(actor, but=current)

    async def _end(self, actor: Actor, *, one: UUID | None = None, but: UUID | None = None) -> int:
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            user = await store.user_for_change(connection, _user(actor))
            ended = await people_store.end_sessions(connection, user.id, self._clock.now(), one=one, but=but)
            if ended:
                await self._tell(connection, user.id, actor.org_id, "user.sessions_ended", {"ended": ended})
        return ended

    # --- the password ---------------------------------------------------------------------------

    async def change_password(
        self, actor: Actor, present: str, password: str, *, client: str | None = None, user_agent: str = ""
    ) -> Session:
        """Change the password and return a new session in place of every one before.

        Raise ValidationFailed for a present password that is wrong and a new one that can't be, RateLimited
        after too many tries.
        """
        user = await self.user(_user(actor))
        try:
            await self._identity.verify(user.email, present, client=client)
        except SignInFailed as error:
            message = _("This is not your present password.")
            raise ValidationFailed(errors=[{"field": "present_password", "message": message}]) from error
        password_hash = await self._identity.hash_password(password)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            user = await store.user_for_change(connection, user.id)
            await self._set_password(connection, user, password_hash, actor.org_id, by="change")
            for place in await store.memberships(connection, user.id):
                if place.org_id == actor.org_id:
                    return await self._identity.open_session(connection, user, place, user_agent)
            raise Unauthenticated  # removed from the organisation at this moment: nothing is changed

    async def ask_reset(self, email: str, *, client: str | None = None) -> None:
        """Let a link to choose a new password be mailed to an address, if it has an account.

        Whether it has one is looked up later, when the mail is written: here nothing differs, not even in
        time. Raise ValidationFailed for what is no address, RateLimited (see `identity.throttle`).
        """
        email, now = check_email(email), self._clock.now()
        self._identity.guards.reset(email, client)
        identifier = new_id()
        token_hash = self._keyring.hash_key(self._token(identifier))
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await people_store.add_reset(connection, identifier, email, token_hash, now, now + RESET_LENGTH)
            await events.append(
                connection,
                stream=f"password-reset/{identifier}",
                type="password_reset.asked",
                data={},
                actor=PLATFORM.label,
                org=None,
                at=now,
            )

    async def asked_reset(self, identifier: UUID) -> tuple[User, str] | None:
        """Return who is to be sent the link of a reset and what it ends in; None where nobody is.

        The link follows from the master key, so that the mail can be written again after any crash; the
        database has only its hash.
        """
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            email = await people_store.reset_email(connection, identifier, self._clock.now())
            found = await store.user_by_email(connection, email) if email else None
            if email and found is None:
                await people_store.forget_resets(connection, email)
        return None if found is None else (found[0], self._token(identifier))

    async def check_reset(self, token: str) -> None:
        """Raise LinkOver when a link does not open the choice of a password any more."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await self._behind(connection, token)

    async def reset_password(self, token: str, password: str) -> None:
        """Set a new password by the link that was mailed, once; every session of the account ends.

        Raise LinkOver, ValidationFailed.
        """
        await self.check_reset(token)
        password_hash = await self._identity.hash_password(password)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            email = await self._behind(connection, token, for_change=True)
            found = await store.user_by_email(connection, email)
            if found is None:
                raise _over()
            user = await store.user_for_change(connection, found[0].id)
            await self._set_password(connection, user, password_hash, None, by="reset")
        self._identity.guards.signed_in(email)  # who was locked out by somebody's guesses comes in again

    async def _set_password(
        self, connection: Connection, user: User, password_hash: str, org: UUID | None, *, by: str
    ) -> None:
        await store.set_password_hash(connection, user.id, password_hash)
        await people_store.end_sessions(connection, user.id, self._clock.now())
        await people_store.forget_resets(connection, user.email)
        await self._tell(connection, user.id, org, "user.password_changed", {"by": by})

    async def _behind(self, connection: Connection, token: str, *, for_change: bool = False) -> str:
        """Return the address whose password a link may set."""
        found = await people_store.reset_by_token(
            connection, self._keyring.hash_key(token), self._clock.now(), for_change=for_change
        )
        if found is None:
            raise _over()
        return found

    def _token(self, identifier: UUID) -> str:
        return base64.urlsafe_b64encode(self._keyring.derive(f"password-reset/{identifier}")).decode().rstrip("=")

    async def _tell(
        self, connection: Connection, user_id: UUID, org: UUID | None, type: str, data: Mapping[str, Any]
    ) -> None:
        await events.append(
            connection,
            stream=f"user/{user_id}",
            type=type,
            data=data,
            actor=f"user/{user_id}",
            org=org,
            at=self._clock.now(),
        )


def _user(actor: Actor) -> UUID:
    """Return which person an actor is; the platform itself is none."""
    if actor.user_id is None:
        raise Unauthenticated
    return actor.user_id


def _over() -> LinkOver:
    return LinkOver(_("Ask for a new mail where you sign in."))
