"""The credential of a caller's job: made when it is handed in, ended with it, its text kept nowhere.

The text is derived from the master key and the job's id, so that a worker can make it again after any crash.
It is hashed and looked up like every other key, and calls with it are admitted, limited and billed as the
application's.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from haat.identity import store
from haat.identity.model import Credential, KeyMode, key_of, key_prefix
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.postgres import Connection
from haat.kernel.ids import new_id

JOB = "job"
"""The scope that keeps it out of the list of an application's keys."""


def text_of(keyring: Keyring, job: UUID, mode: KeyMode) -> str:
    """Return the key of a job."""
    return key_of(int.from_bytes(keyring.derive(f"job-key/{job}"), "big"), mode)


async def issue(
    connection: Connection,
    keyring: Keyring,
    *,
    org: UUID,
    application: UUID,
    job: UUID,
    mode: KeyMode,
    scopes: tuple[str, ...],
    at: datetime,
    expires_at: datetime,
) -> UUID:
    """Make a job's credential within the caller's transaction and return its id.

    ``scopes`` are those of the key that handed it in: the job reaches nothing that this one doesn't.
    """
    key = text_of(keyring, job, mode)
    credential = Credential(
        id=new_id(),
        org_id=org,
        application_id=application,
        name=f"job {job}",
        scheme="haat",
        prefix=key_prefix(key),
        last_four=key[-4:],
        scopes=(*(scope for scope in scopes if scope != JOB), JOB),
        created_at=at,
        expires_at=expires_at,
        revoked_at=None,
        rotated_to=None,
        last_used_at=None,
    )
    await store.add_credential(connection, credential, keyring.hash_key(key))
    data = {"application": str(application), "scheme": "haat", "mode": mode, "job": str(job)}
    await _tell(connection, credential.id, "credential.created", data, org, at)
    return credential.id


async def end(connection: Connection, identifier: UUID, org: UUID, at: datetime) -> None:
    """Revoke a job's credential within the caller's transaction."""
    await store.end_credential(connection, identifier, revoked_at=at)
    await _tell(connection, identifier, "credential.revoked", {}, org, at)


async def renew(connection: Connection, identifier: UUID, org: UUID, at: datetime, expires_at: datetime) -> None:
    """Let a job's credential open calls again, for a job that is taken up again."""
    await store.reopen_credential(connection, identifier, expires_at)
    await _tell(connection, identifier, "credential.renewed", {}, org, at)


async def forget(connection: Connection, identifier: UUID, org: UUID, at: datetime) -> None:
    """Delete the credential of a job that is not kept any longer."""
    await store.delete_job_credential(connection, identifier)
    await _tell(connection, identifier, "credential.deleted", {}, org, at)


async def scopes_of(connection: Connection, identifier: UUID) -> tuple[str, ...]:
    """Return the scopes of a key; raise NotFound."""
    return await store.scopes(connection, identifier)


async def is_withdrawn(connection: Connection, identifier: UUID, at: datetime) -> bool:
    """Tell whether a key was revoked by its owner; one that was rotated lives on in its successor."""
    return await store.is_withdrawn(connection, identifier, at)


async def _tell(
    connection: Connection, identifier: UUID, type: str, data: dict[str, str], org: UUID, at: datetime
) -> None:
    await events.append(
        connection, stream=f"credential/{identifier}", type=type, data=data, actor="platform", org=org, at=at
    )
