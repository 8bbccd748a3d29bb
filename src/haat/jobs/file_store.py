"""All SQL of callers' files. Their content is kept in parts, so that no file is ever in memory whole."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from haat.infra.postgres import Connection
from haat.jobs.model import File

PART_BYTES = 256 * 1024
_FILE = "id, org_id, application_id, filename, purpose, bytes, created_at, expires_at"


async def add(connection: Connection, file: File) -> None:
    await connection.execute(
        f"INSERT INTO caller_files ({_FILE}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (
            file.id, file.org_id, file.application_id, file.filename, file.purpose, file.bytes, file.created_at,
            file.expires_at,
        ),
    )  # fmt: skip


async def add_part(connection: Connection, file_id: UUID, org: UUID, number: int, content: bytes) -> None:
    await connection.execute(
        "INSERT INTO caller_file_parts (file_id, number, org_id, content) VALUES (%s, %s, %s, %s)",
        (file_id, number, org, content),
    )


async def set_size(connection: Connection, file_id: UUID, size: int) -> None:
    await connection.execute("UPDATE caller_files SET bytes = %s WHERE id = %s", (size, file_id))


async def get(connection: Connection, application: UUID, identifier: UUID, at: datetime) -> File | None:
    row = await (
        await connection.execute(
            f"SELECT {_FILE} FROM caller_files WHERE id = %s AND application_id = %s AND expires_at > %s",
            (identifier, application, at),
        )
    ).fetchone()
    return File(**row) if row else None


async def find(
    connection: Connection, application: UUID, purpose: str | None, before: UUID | None, at: datetime, limit: int
) -> Sequence[File]:
    """Return files, newest first, one more than ``limit`` if there is one."""
    rows = await connection.execute(
        f"""
        SELECT {_FILE} FROM caller_files
        WHERE application_id = %s AND expires_at > %s AND (%s::text IS NULL OR purpose = %s)
            AND (%s::uuid IS NULL OR id < %s)
        ORDER BY id DESC LIMIT %s
        """,
        (application, at, purpose, purpose, before, before, limit + 1),
    )
    return [File(**row) async for row in rows]


async def part(connection: Connection, file_id: UUID, number: int) -> bytes | None:
    row = await (
        await connection.execute(
            "SELECT content FROM caller_file_parts WHERE file_id = %s AND number = %s", (file_id, number)
        )
    ).fetchone()
    return bytes(row["content"]) if row else None


async def delete(connection: Connection, application: UUID, identifier: UUID) -> bool:
    deleted = await connection.execute(
        "DELETE FROM caller_files WHERE id = %s AND application_id = %s", (identifier, application)
    )
    return deleted.rowcount > 0


async def stored_bytes(connection: Connection, org: UUID) -> int:
    row = await (
        await connection.execute(
            "SELECT coalesce(sum(bytes), 0)::bigint AS bytes FROM caller_files WHERE org_id = %s", (org,)
        )
    ).fetchone()
    assert row is not None
    return int(row["bytes"])


async def purge(connection: Connection, at: datetime, limit: int) -> int:
    """Delete files whose time is over; return how many."""
    deleted = await connection.execute(
        "DELETE FROM caller_files WHERE id IN (SELECT id FROM caller_files WHERE expires_at <= %s LIMIT %s)",
        (at, limit),
    )
    return deleted.rowcount
