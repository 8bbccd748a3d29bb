"""SQL of members, invitations, the sessions a person has open, and resets of passwords."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation

from haat.identity.model import Invitation, Member, OpenSession
from haat.infra.postgres import Connection
from haat.kernel.errors import AlreadyExists, NotFound
from haat.kernel.permissions import Role
from haat.language.messages import _

# --- members --------------------------------------------------------------------------------------


async def members(connection: Connection, org_id: UUID) -> list[Member]:
    """Return who belongs to an organisation and may sign in, in the order in which they came."""
    rows = await connection.execute(
        """
        SELECT user_id, name, email, role, memberships.created_at AS joined_at, signed_in_at
        FROM memberships JOIN users ON users.id = user_id WHERE org_id = %s AND disabled_at IS NULL
        ORDER BY memberships.created_at, user_id
        """,
        (org_id,),
    )
    return [Member(**{**row, "role": Role(row["role"])}) async for row in rows]


async def roles_for_change(connection: Connection, org_id: UUID) -> dict[UUID, Role]:
    """Return the role of each member, all locked until the transaction ends: who is the last can't change meanwhile."""
    rows = await connection.execute(
        "SELECT user_id, role FROM memberships WHERE org_id = %s ORDER BY user_id FOR UPDATE", (org_id,)
    )
    return {row["user_id"]: Role(row["role"]) async for row in rows}


async def set_role(connection: Connection, org_id: UUID, user_id: UUID, role: Role) -> None:
    await connection.execute(
        "UPDATE memberships SET role = %s WHERE org_id = %s AND user_id = %s", (role.value, org_id, user_id)
    )


async def remove_member(connection: Connection, org_id: UUID, user_id: UUID) -> None:
    await connection.execute("DELETE FROM memberships WHERE org_id = %s AND user_id = %s", (org_id, user_id))


async def is_member(connection: Connection, org_id: UUID, email: str) -> bool:
    """Tell whether an address is one of a member's."""
    row = await (
        await connection.execute(
            """
            SELECT FROM memberships JOIN users ON users.id = user_id
            WHERE org_id = %s AND lower(email) = lower(%s)
            """,
            (org_id, email),
        )
    ).fetchone()
    return row is not None


# --- invitations ----------------------------------------------------------------------------------

_INVITATION = "id, org_id, email, role, mailed, invited_by, created_at, expires_at"
_OPEN = "accepted_at IS NULL AND revoked_at IS NULL"


async def add_invitation(connection: Connection, invitation: Invitation, token_hash: bytes) -> None:
    try:
        async with connection.transaction():
            await connection.execute(
                f"""
                INSERT INTO invitations ({_INVITATION}, token_hash)
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
                """,
                (
                    invitation.id,
                    invitation.org_id,
                    invitation.email,
                    invitation.role.value,
                    invitation.mailed,
                    invitation.invited_by,
                    invitation.created_at,
                    invitation.expires_at,
                    token_hash,
                ),
            )
    except UniqueViolation as error:
        raise AlreadyExists(_("This address is invited already: send its invitation again.")) from error


async def invitations(connection: Connection, org_id: UUID) -> list[Invitation]:
    """Return those that wait, also where the link is too old, the newest first."""
    rows = await connection.execute(
        f"SELECT {_INVITATION} FROM invitations WHERE org_id = %s AND {_OPEN} ORDER BY created_at DESC, id", (org_id,)
    )
    return [_invitation(row) async for row in rows]


async def invitation_for_change(connection: Connection, org_id: UUID, identifier: UUID) -> Invitation:
    """Return one that waits, locked until the transaction ends; raise NotFound."""
    row = await (
        await connection.execute(
            f"SELECT {_INVITATION} FROM invitations WHERE id = %s AND org_id = %s AND {_OPEN} FOR UPDATE",
            (identifier, org_id),
        )
    ).fetchone()
    if row is None:
        raise NotFound
    return _invitation(row)


async def invitation_by_token(
    connection: Connection, token_hash: bytes, *, for_change: bool = False
) -> Invitation | None:
    """Return the one that waits behind a link; ``for_change`` locks it until the transaction ends."""
    row = await (
        await connection.execute(
            f"""
            SELECT {_INVITATION} FROM invitations WHERE token_hash = %s AND {_OPEN}
            {"FOR UPDATE" if for_change else ""}
            """,
            (token_hash,),
        )
    ).fetchone()
    return None if row is None else _invitation(row)


async def renew_invitation(connection: Connection, invitation: Invitation, token_hash: bytes) -> None:
    """Keep the newest link of an invitation and how long it can be used; the one before opens nothing any more."""
    await connection.execute(
        "UPDATE invitations SET token_hash = %s, mailed = %s, expires_at = %s WHERE id = %s",
        (token_hash, invitation.mailed, invitation.expires_at, invitation.id),
    )


async def accept_invitation(connection: Connection, identifier: UUID, at: datetime) -> None:
    await connection.execute("UPDATE invitations SET accepted_at = %s WHERE id = %s", (at, identifier))


async def revoke_invitation(connection: Connection, identifier: UUID, at: datetime) -> None:
    await connection.execute("UPDATE invitations SET revoked_at = %s WHERE id = %s", (at, identifier))


def _invitation(row: Mapping[str, Any]) -> Invitation:
    return Invitation(**{**row, "role": Role(row["role"])})


# --- sessions -------------------------------------------------------------------------------------


async def open_sessions(connection: Connection, user_id: UUID, current: UUID | None, at: datetime) -> list[OpenSession]:
    """Return a user's living sessions, the one last used first."""
    rows = await connection.execute(
        """
        SELECT sessions.id, organisations.name AS org_name, browser, system, sessions.created_at,
               coalesce(seen_at, sessions.created_at) AS seen_at, expires_at,
               sessions.id IS NOT DISTINCT FROM %s AS current
        FROM sessions JOIN organisations ON organisations.id = org_id
        JOIN memberships USING (user_id, org_id)
        WHERE user_id = %s AND expires_at > %s AND revoked_at IS NULL ORDER BY current DESC, seen_at DESC, id
        """,
        (current, user_id, at),
    )
    return [OpenSession(**row) async for row in rows]


async def end_sessions(
    connection: Connection,
    user_id: UUID,
    at: datetime,
    *,
    one: UUID | None = None,
    but: UUID | None = None,
    org_id: UUID | None = None,
) -> int:
    """End a user's sessions and return how many: ``one``, all ``but`` one, or those of one organisation."""
    ended = await connection.execute(
        """
        UPDATE sessions SET revoked_at = %(at)s
        WHERE user_id = %(user)s AND revoked_at IS NULL AND expires_at > %(at)s
          AND id = coalesce(%(one)s, id) AND id IS DISTINCT FROM %(but)s AND org_id = coalesce(%(org)s, org_id)
        """,
        {"at": at, "user": user_id, "one": one, "but": but, "org": org_id},
    )
    return ended.rowcount


# --- resets of passwords --------------------------------------------------------------------------


async def add_reset(
    connection: Connection, identifier: UUID, email: str, token_hash: bytes, at: datetime, expires_at: datetime
) -> None:
    """Keep a reset that was asked for, and forget those whose time is over."""
    await connection.execute("DELETE FROM password_resets WHERE expires_at <= %s", (at,))
    await connection.execute(
        "INSERT INTO password_resets (id, email, token_hash, created_at, expires_at) VALUES (%s, %s, %s, %s, %s)",
        (identifier, email, token_hash, at, expires_at),
    )


async def reset_email(connection: Connection, identifier: UUID, at: datetime) -> str | None:
    """Return the address of a reset that can still be used."""
    row = await (
        await connection.execute(
            "SELECT email FROM password_resets WHERE id = %s AND expires_at > %s", (identifier, at)
        )
    ).fetchone()
    return None if row is None else str(row["email"])


async def reset_by_token(
    connection: Connection, token_hash: bytes, at: datetime, *, for_change: bool = False
) -> str | None:
    """Return the address of the reset behind a link; ``for_change`` locks it until the transaction ends."""
    row = await (
        await connection.execute(
            f"""
            SELECT email FROM password_resets WHERE token_hash = %s AND expires_at > %s
            {"FOR UPDATE" if for_change else ""}
            """,
            (token_hash, at),
        )
    ).fetchone()
    return None if row is None else str(row["email"])


async def forget_resets(connection: Connection, email: str) -> None:
    """Let every link that was mailed to an address open nothing any more."""
    await connection.execute("DELETE FROM password_resets WHERE lower(email) = lower(%s)", (email,))
