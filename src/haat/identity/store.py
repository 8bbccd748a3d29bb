"""All SQL of identity."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from haat.identity.model import Application, Credential, Membership, Organisation, Session, User
from haat.identity.policy import ApplicationPolicyDraft
from haat.infra.postgres import Connection
from haat.kernel.errors import AlreadyExists, NotFound
from haat.kernel.permissions import Role
from haat.language import parse_tag
from haat.language.messages import _


async def add_organisation(connection: Connection, organisation: Organisation) -> None:
    await connection.execute(
        """
        INSERT INTO organisations (id, name, kind, address, state_code, gstin, zone, created_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            organisation.id,
            organisation.name,
            organisation.kind,
            organisation.address,
            organisation.state_code,
            organisation.gstin,
            organisation.zone,
            organisation.created_at,
        ),
    )


async def organisation(connection: Connection, identifier: UUID) -> Organisation:
    row = await (await connection.execute("SELECT * FROM organisations WHERE id = %s", (identifier,))).fetchone()
    if row is None:
        raise NotFound
    return Organisation(**row)


async def names(connection: Connection, orgs: Collection[UUID]) -> dict[UUID, str]:
    rows = await connection.execute("SELECT id, name FROM organisations WHERE id = ANY(%s)", (list(orgs),))
    return {row["id"]: row["name"] async for row in rows}


async def operator(connection: Connection) -> Organisation | None:
    row = await (
        await connection.execute("SELECT * FROM organisations WHERE kind = 'operator' ORDER BY created_at LIMIT 1")
    ).fetchone()
    return Organisation(**row) if row else None


async def add_user(connection: Connection, user: User, password_hash: str) -> None:
    try:
        async with connection.transaction():
            await connection.execute(
                "INSERT INTO users (id, email, name, password_hash, created_at) VALUES (%s, %s, %s, %s, %s)",
                (user.id, user.email, user.name, password_hash, user.created_at),
            )
    except UniqueViolation as error:
        raise AlreadyExists(_("An account with that e-mail exists: sign in instead.")) from error


_USER = "users.id AS user_id, users.email, users.name, users.created_at AS user_since, users.language"


async def user_by_email(connection: Connection, email: str) -> tuple[User, str] | None:
    """Return a user who may sign in, with the password's hash."""
    row = await (
        await connection.execute(
            f"SELECT {_USER}, password_hash FROM users WHERE lower(email) = lower(%s) AND disabled_at IS NULL",
            (email,),
        )
    ).fetchone()
    return None if row is None else (_user(row), row["password_hash"])


async def user(connection: Connection, identifier: UUID) -> User:
    """Return a user who may sign in; raise NotFound."""
    row = await (
        await connection.execute(f"SELECT {_USER} FROM users WHERE id = %s AND disabled_at IS NULL", (identifier,))
    ).fetchone()
    if row is None:
        raise NotFound
    return _user(row)


async def user_for_change(connection: Connection, identifier: UUID) -> User:
    """Return one user as `user` does, locked until the transaction ends."""
    await connection.execute("SELECT FROM users WHERE id = %s FOR NO KEY UPDATE", (identifier,))
    return await user(connection, identifier)


async def set_profile(connection: Connection, user: User) -> None:
    """Keep a user's name and language."""
    await connection.execute(
        "UPDATE users SET name = %s, language = %s WHERE id = %s",
        (user.name, str(user.language) if user.language else None, user.id),
    )


async def users(connection: Connection, identifiers: Sequence[UUID]) -> list[User]:
    """Return those of the users that are still there, disabled ones too."""
    rows = await connection.execute(
        "SELECT id, email, name, created_at FROM users WHERE id = ANY(%s)", (list(identifiers),)
    )
    return [User(**row) async for row in rows]


async def set_password_hash(connection: Connection, user_id: UUID, password_hash: str) -> None:
    await connection.execute("UPDATE users SET password_hash = %s WHERE id = %s", (password_hash, user_id))


async def renew_password_hash(connection: Connection, user_id: UUID, old: str, fresh: str) -> None:
    """Replace a hash of the same password, unless the password was changed meanwhile."""
    await connection.execute(
        "UPDATE users SET password_hash = %s WHERE id = %s AND password_hash = %s", (fresh, user_id, old)
    )


async def add_membership(connection: Connection, user_id: UUID, org_id: UUID, role: Role, at: datetime) -> None:
    await connection.execute(
        """
        INSERT INTO memberships (user_id, org_id, role, created_at) VALUES (%s, %s, %s, %s)
        ON CONFLICT (user_id, org_id) DO UPDATE SET role = excluded.role
        """,
        (user_id, org_id, role.value, at),
    )


async def memberships(connection: Connection, user_id: UUID) -> list[Membership]:
    rows = await connection.execute(
        """
        SELECT memberships.user_id, org_id, organisations.name AS org_name, kind AS org_kind, role, signed_in_at
        FROM memberships JOIN organisations ON organisations.id = org_id
        WHERE memberships.user_id = %s ORDER BY memberships.created_at, org_id
        """,
        (user_id,),
    )
    return [Membership(**{**row, "role": Role(row["role"])}) async for row in rows]


async def member_emails(connection: Connection, org_id: UUID) -> list[str]:
    rows = await connection.execute(
        """
        SELECT email FROM users JOIN memberships ON memberships.user_id = users.id
        WHERE org_id = %s AND disabled_at IS NULL ORDER BY email
        """,
        (org_id,),
    )
    return [row["email"] async for row in rows]


async def add_session(
    connection: Connection, token_hash: bytes, new: Session, browser: str, system: str, at: datetime
) -> None:
    """Add a session that begins now, and note that its user was here."""
    await connection.execute(
        """
        INSERT INTO sessions (id, token_hash, user_id, org_id, created_at, expires_at, browser, system)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (new.id, token_hash, new.user.id, new.org_id, at, new.expires_at, browser, system),
    )
    await connection.execute(
        "UPDATE memberships SET signed_in_at = %s WHERE user_id = %s AND org_id = %s", (at, new.user.id, new.org_id)
    )


async def session(connection: Connection, token_hash: bytes, at: datetime) -> Mapping[str, Any] | None:
    """Return the living session's id, organisation, role and end, when it was last seen, and its ``user``."""
    row = await (
        await connection.execute(
            f"""
            SELECT sessions.id, sessions.org_id, sessions.expires_at, role, {_USER},
                   coalesce(seen_at, sessions.created_at) AS seen_at
            FROM sessions
            JOIN users ON users.id = sessions.user_id AND users.disabled_at IS NULL
            JOIN memberships ON memberships.user_id = sessions.user_id AND memberships.org_id = sessions.org_id
            WHERE token_hash = %s AND expires_at > %s AND revoked_at IS NULL
            """,
            (token_hash, at),
        )
    ).fetchone()
    return None if row is None else {**row, "user": _user(row)}


async def see_session(connection: Connection, identifier: UUID, at: datetime) -> None:
    """Note that a session is in use."""
    await connection.execute("UPDATE sessions SET seen_at = %s WHERE id = %s", (at, identifier))


async def revoke_session(connection: Connection, token_hash: bytes, at: datetime) -> None:
    await connection.execute(
        "UPDATE sessions SET revoked_at = %s WHERE token_hash = %s AND revoked_at IS NULL", (at, token_hash)
    )


async def add_application(connection: Connection, application: Application) -> None:
    try:
        async with connection.transaction():
            await connection.execute(
                "INSERT INTO applications (id, org_id, name, created_at) VALUES (%s, %s, %s, %s)",
                (application.id, application.org_id, application.name, application.created_at),
            )
    except UniqueViolation as error:
        raise AlreadyExists(_("An application of that name exists: choose another name.")) from error


async def applications(connection: Connection, org_id: UUID) -> list[Application]:
    rows = await connection.execute(
        """
        SELECT id, org_id, name, created_at, policy FROM applications
        WHERE org_id = %s AND archived_at IS NULL ORDER BY created_at, id
        """,
        (org_id,),
    )
    return [Application(**row) async for row in rows]


async def application(connection: Connection, org_id: UUID, identifier: UUID) -> Application:
    row = await (
        await connection.execute(
            """
            SELECT id, org_id, name, created_at, policy FROM applications
            WHERE id = %s AND org_id = %s AND archived_at IS NULL
            """,
            (identifier, org_id),
        )
    ).fetchone()
    if row is None:
        raise NotFound
    return Application(**row)


async def set_application_policy(connection: Connection, identifier: UUID, policy: ApplicationPolicyDraft) -> None:
    """Keep a policy without what is as usual, so that the usual can change."""
    content = Jsonb(policy.model_dump(mode="json", exclude_defaults=True))
    await connection.execute("UPDATE applications SET policy = %s WHERE id = %s", (content, identifier))


_CREDENTIAL = """id, org_id, application_id, name, scheme, prefix, last_four, scopes, created_at, expires_at,
    revoked_at, rotated_to, last_used_at"""


async def add_credential(connection: Connection, credential: Credential, key_hash: bytes) -> None:
    await connection.execute(
        """
        INSERT INTO credentials (id, org_id, application_id, name, scheme, prefix, last_four, key_hash, scopes,
                                 created_at, expires_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            credential.id,
            credential.org_id,
            credential.application_id,
            credential.name,
            credential.scheme,
            credential.prefix,
            credential.last_four,
            key_hash,
            list(credential.scopes),
            credential.created_at,
            credential.expires_at,
        ),
    )


async def credentials(connection: Connection, org_id: UUID, application_id: UUID) -> list[Credential]:
    rows = await connection.execute(
        f"""
        SELECT {_CREDENTIAL} FROM credentials
        WHERE org_id = %s AND application_id = %s AND NOT scopes @> '{{job}}' ORDER BY created_at, id
        """,
        (org_id, application_id),
    )
    return [_credential(row) async for row in rows]


async def credential_by_hash(connection: Connection, key_hash: bytes) -> Mapping[str, Any] | None:
    """Return whose key this is, with its application's policy."""
    return await (
        await connection.execute(
            """
            SELECT credentials.org_id, application_id, expires_at, revoked_at, policy FROM credentials
            JOIN applications ON applications.id = application_id WHERE key_hash = %s
            """,
            (key_hash,),
        )
    ).fetchone()


async def credential_for_change(connection: Connection, org_id: UUID, identifier: UUID) -> Credential:
    """Return one credential, locked until the transaction ends."""
    row = await (
        await connection.execute(
            f"SELECT {_CREDENTIAL} FROM credentials WHERE id = %s AND org_id = %s FOR UPDATE", (identifier, org_id)
        )
    ).fetchone()
    if row is None:
        raise NotFound
    return _credential(row)


async def scopes(connection: Connection, identifier: UUID) -> tuple[str, ...]:
    row = await (await connection.execute("SELECT scopes FROM credentials WHERE id = %s", (identifier,))).fetchone()
    if row is None:
        raise NotFound
    return tuple(row["scopes"])


async def end_credential(
    connection: Connection, identifier: UUID, *, revoked_at: datetime, rotated_to: UUID | None = None
) -> None:
    await connection.execute(
        "UPDATE credentials SET revoked_at = %s, rotated_to = coalesce(%s, rotated_to) WHERE id = %s",
        (revoked_at, rotated_to, identifier),
    )


async def reopen_credential(connection: Connection, identifier: UUID, expires_at: datetime) -> None:
    await connection.execute(
        "UPDATE credentials SET revoked_at = NULL, expires_at = %s WHERE id = %s AND scopes @> '{job}'",
        (expires_at, identifier),
    )


async def delete_job_credential(connection: Connection, identifier: UUID) -> None:
    await connection.execute("DELETE FROM credentials WHERE id = %s AND scopes @> '{job}'", (identifier,))


async def is_withdrawn(connection: Connection, identifier: UUID, at: datetime) -> bool:
    """Tell whether a credential was revoked and no other one has taken its place."""
    row = await (
        await connection.execute(
            "SELECT FROM credentials WHERE id = %s AND revoked_at <= %s AND rotated_to IS NULL", (identifier, at)
        )
    ).fetchone()
    return row is not None


def _user(row: Mapping[str, Any]) -> User:
    language = parse_tag(row["language"]) if row["language"] else None
    return User(row["user_id"], row["email"], row["name"], row["user_since"], language)


def _credential(row: Mapping[str, Any]) -> Credential:
    return Credential(**{**row, "scopes": tuple(row["scopes"])})
