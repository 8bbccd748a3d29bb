"""All SQL of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from haat.infra.postgres import Connection
from haat.kernel.errors import AlreadyExists, Conflict, NotFound
from haat.models.manifest import Manifest
from haat.registry.model import ModelKey, ModelVersion, RegisteredModel, Stage

MOST_KEYS = 100
_VERSION = """
    model_versions.id, model_id, model_versions.org_id, provider_slug AS provider, name, version, manifest, digest,
    size_bytes, key_id, stage, service_id, model_versions.created_at, published_at, retired_at
"""
_VERSIONS = "model_versions JOIN models ON models.id = model_id"


# --- keys ----------------------------------------------------------------------------------------


async def keys(connection: Connection, org_id: UUID) -> list[ModelKey]:
    rows = await connection.execute(
        "SELECT key_id, public_key, name, added_at, revoked_at FROM model_keys WHERE org_id = %s ORDER BY added_at",
        (org_id,),
    )
    return [ModelKey(**{**row, "public_key": bytes(row["public_key"])}) async for row in rows]


async def add_key(connection: Connection, org_id: UUID, key: ModelKey) -> None:
    """Keep a key; raise AlreadyExists for one that is known, revoked ones included."""
    if len(await keys(connection, org_id)) >= MOST_KEYS:
        raise Conflict(f"An organisation has at most {MOST_KEYS} keys, revoked ones included.")
    try:
        async with connection.transaction():
            await connection.execute(
                "INSERT INTO model_keys (org_id, key_id, public_key, name, added_at) VALUES (%s, %s, %s, %s, %s)",
                (org_id, key.key_id, key.public_key, key.name, key.added_at),
            )
    except UniqueViolation as error:
        raise AlreadyExists("Your organisation has registered this key before.") from error


async def revoke_key(connection: Connection, org_id: UUID, key_id: str, at: datetime) -> None:
    """Revoke a key; raise NotFound for one that is not the organisation's."""
    done = await connection.execute(
        "UPDATE model_keys SET revoked_at = coalesce(revoked_at, %s) WHERE org_id = %s AND key_id = %s",
        (at, org_id, key_id),
    )
    if done.rowcount == 0:
        raise NotFound


# --- models --------------------------------------------------------------------------------------


async def model_for_change(
    connection: Connection, new_id: UUID, org_id: UUID, provider: str, name: str, category: str, at: datetime
) -> RegisteredModel:
    """Return the organisation's model of that name, made if need be, locked until the transaction ends."""
    await connection.execute(
        """
        INSERT INTO models (id, org_id, provider_slug, name, category, created_at) VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (org_id, name) DO NOTHING
        """,
        (new_id, org_id, provider, name, category, at),
    )
    row = await (
        await connection.execute("SELECT id FROM models WHERE org_id = %s AND name = %s FOR UPDATE", (org_id, name))
    ).fetchone()
    assert row is not None
    return await model(connection, row["id"])


async def lock_model(connection: Connection, org_id: UUID, model_id: UUID) -> None:
    """Lock a model until the transaction ends; raise NotFound for another's."""
    row = await (
        await connection.execute("SELECT FROM models WHERE id = %s AND org_id = %s FOR UPDATE", (model_id, org_id))
    ).fetchone()
    if row is None:
        raise NotFound


async def model(connection: Connection, model_id: UUID) -> RegisteredModel:
    found = await _models(connection, "models.id = %s", (model_id,))
    if not found:
        raise NotFound
    return found[0]


async def models_of(connection: Connection, org_id: UUID) -> list[RegisteredModel]:
    return await _models(connection, "models.org_id = %s", (org_id,))


async def _models(connection: Connection, condition: str, values: tuple[Any, ...]) -> list[RegisteredModel]:
    rows = await (
        await connection.execute(
            f"""
            SELECT id, org_id, provider_slug AS provider, name, category, created_at FROM models
            WHERE {condition} ORDER BY name
            """,
            values,
        )
    ).fetchall()
    versions: dict[UUID, list[ModelVersion]] = {}
    for one in await _select(connection, "models.id = ANY(%s)", ([row["id"] for row in rows],)):
        versions.setdefault(one.model_id, []).append(one)
    return [RegisteredModel(**row, versions=tuple(versions.get(row["id"], ()))) for row in rows]


async def add_version(connection: Connection, one: ModelVersion) -> None:
    await connection.execute(
        """
        INSERT INTO model_versions (id, model_id, org_id, version, manifest, digest, size_bytes, key_id, stage,
            created_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            one.id,
            one.model_id,
            one.org_id,
            one.version,
            Jsonb(msgspec.to_builtins(one.manifest)),
            one.digest,
            one.size_bytes,
            one.key_id,
            one.stage,
            one.created_at,
        ),
    )


async def version(connection: Connection, model_id: UUID, name: str) -> ModelVersion:
    found = await _select(connection, "model_id = %s AND version = %s", (model_id, name))
    if not found:
        raise NotFound
    return found[0]


async def running(connection: Connection) -> list[ModelVersion]:
    """Return the versions that the models process is to have."""
    return await _select(connection, "stage IN ('deployed', 'published')", ())


async def published(connection: Connection) -> list[ModelVersion]:
    return await _select(connection, "stage = 'published'", ())


async def _select(connection: Connection, condition: str, values: tuple[Any, ...]) -> list[ModelVersion]:
    rows = await connection.execute(
        f"SELECT {_VERSION} FROM {_VERSIONS} WHERE {condition} ORDER BY model_versions.created_at", values
    )
    return [_version(row) async for row in rows]


async def set_stage(
    connection: Connection, version_id: UUID, stage: Stage, at: datetime, service_id: UUID | None = None
) -> None:
    await connection.execute(
        """
        UPDATE model_versions SET stage = %(stage)s, service_id = coalesce(%(service)s, service_id),
            published_at = CASE WHEN %(stage)s = 'published' THEN coalesce(published_at, %(at)s) ELSE published_at END,
            retired_at = CASE WHEN %(stage)s = 'retired' THEN %(at)s END
        WHERE id = %(id)s
        """,
        {"stage": stage, "service": service_id, "at": at, "id": version_id},
    )


def _version(row: Mapping[str, Any]) -> ModelVersion:
    return ModelVersion(**{**row, "manifest": msgspec.convert(row["manifest"], Manifest)})
