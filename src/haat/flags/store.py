"""All SQL of flags. They are read as the platform: rules and overrides concern everybody."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.errors import ForeignKeyViolation
from psycopg.types.json import Jsonb

from haat.infra.postgres import Connection
from haat.kernel.errors import NotFound
from haat.language.messages import _

Row = Mapping[str, Any]

_FLAGS = """
    SELECT key, definition, version, changed_at, changed_by, coalesce(
        (SELECT jsonb_object_agg(org_id, variant) FROM flag_overrides WHERE flag_overrides.key = flags.key),
        '{}') AS overrides
    FROM flags
"""


async def flags(connection: Connection) -> list[Row]:
    """Return all flags by their keys, with their overrides."""
    return [row async for row in await connection.execute(f"{_FLAGS} ORDER BY key")]


async def flag(connection: Connection, key: str, *, for_change: bool = False) -> Row | None:
    """Return a flag; when it is to be changed, or made, its key is locked until the transaction ends."""
    if for_change:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('flag/' || %s, 0))", (key,))
    return await (await connection.execute(f"{_FLAGS} WHERE key = %s", (key,))).fetchone()


async def put(connection: Connection, key: str, definition: Row, version: int, at: datetime, by: str) -> None:
    await connection.execute(
        """
        INSERT INTO flags (key, definition, version, changed_at, changed_by) VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (key) DO UPDATE SET definition = excluded.definition, version = excluded.version,
            changed_at = excluded.changed_at, changed_by = excluded.changed_by
        """,
        (key, Jsonb(dict(definition)), version, at, by),
    )


async def touch(connection: Connection, key: str, at: datetime, by: str) -> None:
    """Count a change that is not in the definition."""
    await connection.execute(
        "UPDATE flags SET version = version + 1, changed_at = %s, changed_by = %s WHERE key = %s", (at, by, key)
    )


async def remove(connection: Connection, key: str) -> None:
    await connection.execute("DELETE FROM flags WHERE key = %s", (key,))


async def set_override(connection: Connection, key: str, org: UUID, variant: str, at: datetime) -> None:
    """Set an organisation's variant; raise NotFound when there is no such organisation."""
    try:
        await connection.execute(
            """
            INSERT INTO flag_overrides (key, org_id, variant, set_at) VALUES (%s, %s, %s, %s)
            ON CONFLICT (key, org_id) DO UPDATE SET variant = excluded.variant, set_at = excluded.set_at
            """,
            (key, org, variant, at),
        )
    except ForeignKeyViolation as error:
        raise NotFound(_("There is no organisation %(org)s.", org=org)) from error


async def remove_override(connection: Connection, key: str, org: UUID) -> bool:
    """Return whether there was one."""
    cursor = await connection.execute("DELETE FROM flag_overrides WHERE key = %s AND org_id = %s", (key, org))
    return cursor.rowcount > 0


async def unset_variants(connection: Connection, key: str, variants: list[str]) -> list[str]:
    """Return the overrides' variants that are none of a flag's any more."""
    rows = await connection.execute(
        "SELECT DISTINCT variant FROM flag_overrides WHERE key = %s AND NOT variant = ANY(%s)", (key, variants)
    )
    return [row["variant"] async for row in rows]
