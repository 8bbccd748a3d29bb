"""Use cases of an organisation's people: who they are, what they may do, and how one joins and leaves."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from haat.identity import people_store, store
from haat.identity.model import Invitation, Member, Membership, Session, User, check_email, check_role
from haat.identity.service import Identity
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database, tenant
from haat.kernel.clock import Clock
from haat.kernel.errors import AlreadyExists, Conflict, LinkOver, NotFound, PermissionDenied, Unauthenticated
from haat.kernel.ids import new_id
from haat.kernel.permissions import GRANTS, Actor, Permission, Role
from haat.kernel.text import check_name
from haat.language.messages import _

INVITATION_LENGTH = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Invited:
    """What the holder of a link reads: to which organisation, and the account that the address has already, if any."""

    invitation: Invitation
    organisation: str
    account: User | None


class Members:
    """The members of organisations, and invitations to become one."""

    def __init__(self, db: Database, clock: Clock, keyring: Keyring, identity: Identity) -> None:
        self._db = db
        self._clock = clock
        self._keyring = keyring
        self._identity = identity

    async def of(self, actor: Actor) -> list[Member]:
        """Return the members of the actor's organisation, the oldest first."""
        org = _org(actor)
        async with self._db.transaction(tenant(org)) as connection:
            return await people_store.members(connection, org)

    async def change_role(self, actor: Actor, user_id: UUID, role: str) -> None:
        """Give a member another role; whoever it is signs in again, with what the new role grants.

        Raise NotFound for somebody else's member, ValidationFailed for a role that the organisation does
        not have, Conflict when nobody would be left to edit its members.
        """
        actor.require(Permission.MEMBERS_EDIT)
        org, now = _org(actor), self._clock.now()
        async with self._db.transaction(tenant(org)) as connection:
            made = check_role(role, (await store.organisation(connection, org)).kind)
            roles = await self._roles(connection, actor, org, user_id)
            if roles[user_id] is made:
                return
            _check_somebody_is_left({**roles, user_id: made})
            await people_store.set_role(connection, org, user_id, made)
            await people_store.end_sessions(connection, user_id, now, org_id=org)
            data = {"role": made.value, "before": roles[user_id].value}
            await self._tell(connection, actor, _stream(org, user_id), "member.role_changed", data, org)

    async def remove(self, actor: Actor, user_id: UUID) -> None:
        """Take a member out of the organisation, or oneself, which needs no permission.

        Their sessions for it end at once; applications and keys are the organisation's and stay. Raise
        NotFound for somebody else's member, Conflict when nobody would be left to edit its members.
        """
        org, now = _org(actor), self._clock.now()
        leaves = user_id == actor.user_id
        if not leaves:
            actor.require(Permission.MEMBERS_EDIT)
        async with self._db.transaction(tenant(org)) as connection:
            roles = await self._roles(connection, actor, org, user_id)
            _check_somebody_is_left({one: role for one, role in roles.items() if one != user_id})
            await people_store.remove_member(connection, org, user_id)
            await people_store.end_sessions(connection, user_id, now, org_id=org)
            type = "member.left" if leaves else "member.removed"
            await self._tell(connection, actor, _stream(org, user_id), type, {}, org)

    # --- invitations ----------------------------------------------------------------------------

    async def invite(self, actor: Actor, email: str, role: str) -> Invitation:
        """Invite an address; its link goes there by mail and is told nobody else.

        Raise AlreadyExists for a member and for who is invited already, RateLimited (see `identity.throttle`).
        """
        actor.require(Permission.MEMBERS_EDIT)
        org, now = _org(actor), self._clock.now()
        email = check_email(email)
        async with self._db.transaction(tenant(org)) as connection:
            made = check_role(role, (await store.organisation(connection, org)).kind)
            if not GRANTS[made] <= GRANTS[actor.role]:
                raise PermissionDenied(_("Nobody gives a role that may do more than their own."))
            if await people_store.is_member(connection, org, email):
                raise AlreadyExists(_("This address is a member's already."))
            self._identity.guards.invite(email, org)
            invitation = Invitation(new_id(), org, email, made, 1, actor.user_id, now, now + INVITATION_LENGTH)
            await people_store.add_invitation(connection, invitation, self._hash(invitation))
            await self._tell_sent(connection, actor, invitation)
        return invitation

    async def invitations(self, actor: Actor) -> list[Invitation]:
        """Return the organisation's invitations that wait, the newest first."""
        actor.require(Permission.MEMBERS_EDIT)
        org = _org(actor)
        async with self._db.transaction(tenant(org)) as connection:
            return await people_store.invitations(connection, org)

    async def resend(self, actor: Actor, identifier: UUID) -> Invitation:
        """Send an invitation again, with a new link and seven new days; the link before opens nothing any more."""
        actor.require(Permission.MEMBERS_EDIT)
        org = _org(actor)
        async with self._db.transaction(tenant(org)) as connection:
            old = await people_store.invitation_for_change(connection, org, identifier)
            self._identity.guards.invite(old.email, org)
            fresh = replace(old, mailed=old.mailed + 1, expires_at=self._clock.now() + INVITATION_LENGTH)
            await people_store.renew_invitation(connection, fresh, self._hash(fresh))
            await self._tell_sent(connection, actor, fresh)
        return fresh

    async def revoke(self, actor: Actor, identifier: UUID) -> None:
        """Take an invitation back: its link opens nothing any more."""
        actor.require(Permission.MEMBERS_EDIT)
        org = _org(actor)
        async with self._db.transaction(tenant(org)) as connection:
            await people_store.invitation_for_change(connection, org, identifier)
            await people_store.revoke_invitation(connection, identifier, self._clock.now())
            await self._tell(connection, actor, f"invitation/{identifier}", "invitation.revoked", {}, org)

    def token_of(self, invitation: Invitation) -> str:
        """Return what the link of an invitation's newest mail ends in.

        It follows from the master key, so that the mail can be written again after any crash; the
        database has only its hash.
        """
        secret = self._keyring.derive(f"invitation/{invitation.id}/{invitation.mailed}")
        return base64.urlsafe_b64encode(secret).decode().rstrip("=")

    async def waiting(self, org: UUID, identifier: UUID) -> Invitation | None:
        """Return an invitation that can be accepted right now."""
        async with self._db.transaction(tenant(org)) as connection:
            for one in await people_store.invitations(connection, org):
                if one.id == identifier and one.is_open(self._clock.now()):
                    return one
        return None

    # --- joining --------------------------------------------------------------------------------

    async def invited(self, token: str) -> Invited:
        """Return what a link opens; raise LinkOver when it was used, revoked, sent anew or is too old."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            invitation = await self._behind(connection, token)
            organisation = await store.organisation(connection, invitation.org_id)
            account = await store.user_by_email(connection, invitation.email)
        return Invited(invitation, organisation.name, account[0] if account else None)

    async def join(self, actor: Actor, token: str, *, user_agent: str = "", instead_of: str | None = None) -> Session:
        """Make the signed-in person a member and return their session for the organisation.

        Raise LinkOver, Conflict when the invitation is for another address, AlreadyExists for a member.
        """
        if actor.user_id is None:
            raise Unauthenticated
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            user = await store.user(connection, actor.user_id)
            return await self._join(connection, user, token, user_agent, instead_of)

    async def accept(
        self,
        token: str,
        password: str,
        name: str = "",
        *,
        client: str | None = None,
        user_agent: str = "",
        instead_of: str | None = None,
    ) -> Session:
        """Make whoever holds a link a member and return their session for the organisation.

        ``password`` is that of the account which the address has; where it has none one is made with it
        and ``name``, without an organisation of its own. Raise LinkOver, SignInFailed, ValidationFailed,
        RateLimited (see `identity.throttle`), AlreadyExists for a member.
        """
        invited = await self.invited(token)
        email = invited.invitation.email
        if invited.account:
            user = await self._identity.verify(email, password, client=client)
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                return await self._join(connection, user, token, user_agent, instead_of)
        user = User(new_id(), email, check_name(name), self._clock.now())
        password_hash = await self._identity.hash_password(password)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            invitation = await self._behind(connection, token, for_change=True)
            await store.add_user(connection, user, password_hash)
            who = Actor(user.id, invitation.org_id, invitation.role, user.name)
            data = {"org": str(invitation.org_id), "role": invitation.role.value}
            await self._tell(connection, who, f"user/{user.id}", "user.created", data, invitation.org_id)
            return await self._join(connection, user, token, user_agent, instead_of)

    async def _join(
        self, connection: Connection, user: User, token: str, user_agent: str, instead_of: str | None
    ) -> Session:
        invitation = await self._behind(connection, token, for_change=True)
        org = invitation.org_id
        if invitation.email.casefold() != user.email.casefold():
            raise Conflict(_("This invitation is for another address: sign in with the one it was sent to."))
        if any(place.org_id == org for place in await store.memberships(connection, user.id)):
            raise AlreadyExists(_("You are a member of this organisation already."))
        organisation = await store.organisation(connection, org)
        await store.add_membership(connection, user.id, org, invitation.role, self._clock.now())
        await people_store.accept_invitation(connection, invitation.id, self._clock.now())
        who = Actor(user.id, org, invitation.role, user.name)
        await self._tell(connection, who, f"invitation/{invitation.id}", "invitation.accepted", {}, org)
        data = {"role": invitation.role.value, "invitation": str(invitation.id)}
        await self._tell(connection, who, _stream(org, user.id), "member.joined", data, org)
        place = Membership(user.id, org, organisation.name, organisation.kind, invitation.role)
        return await self._identity.open_session(connection, user, place, user_agent, instead_of)

    async def _behind(self, connection: Connection, token: str, *, for_change: bool = False) -> Invitation:
        found = await people_store.invitation_by_token(connection, self._keyring.hash_key(token), for_change=for_change)
        if found is None or not found.is_open(self._clock.now()):
            raise LinkOver(_("Ask whoever invited you to send the invitation again."))
        return found

    async def _roles(self, connection: Connection, actor: Actor, org: UUID, user_id: UUID) -> dict[UUID, Role]:
        """Return the members' roles, locked; raise unless the actor is still one who may, and the other one is one."""
        roles = await people_store.roles_for_change(connection, org)
        own = roles.get(actor.user_id) if actor.user_id else None
        if own is None or (user_id != actor.user_id and Permission.MEMBERS_EDIT not in GRANTS[own]):
            raise PermissionDenied(_("You may not edit the members of this organisation any more."))
        if user_id not in roles:
            raise NotFound
        return roles

    def _hash(self, invitation: Invitation) -> bytes:
        return self._keyring.hash_key(self.token_of(invitation))

    async def _tell_sent(self, connection: Connection, actor: Actor, invitation: Invitation) -> None:
        data = {"role": invitation.role.value, "mailed": invitation.mailed}
        stream = f"invitation/{invitation.id}"
        await self._tell(connection, actor, stream, "invitation.sent", data, invitation.org_id)

    async def _tell(
        self, connection: Connection, actor: Actor, stream: str, type: str, data: Mapping[str, Any], org: UUID
    ) -> None:
        await events.append(
            connection, stream=stream, type=type, data=data, actor=actor.label, org=org, at=self._clock.now()
        )


def _check_somebody_is_left(roles: dict[UUID, Role]) -> None:
    if not any(Permission.MEMBERS_EDIT in GRANTS[role] for role in roles.values()):
        raise Conflict(_("This is the last one who may edit the members: let somebody else do so first."))


def _stream(org: UUID, user_id: UUID) -> str:
    """Return the stream of one person in one organisation, which that organisation sees whole."""
    return f"membership/{org}.{user_id}"


def _org(actor: Actor) -> UUID:
    if actor.org_id is None:
        raise NotFound
    return actor.org_id
