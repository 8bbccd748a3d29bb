"""All SQL of reports of bad phrases."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from haat.content.model import Report
from haat.infra.postgres import Connection
from haat.kernel.errors import NotFound
from haat.language import parse_tag
from haat.language.messages import _

_COLUMNS = "id, tag, page, phrase, better, reporter, reported_at, closed_at, closed_by, note"


async def add(connection: Connection, one: Report) -> None:
    await connection.execute(
        f"INSERT INTO content_reports ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (one.id, str(one.tag), one.page, one.phrase, one.better, one.reporter, one.reported_at, None, None, ""),
    )


async def find(connection: Connection, closed: bool, before: UUID | None, limit: int) -> list[Report]:
    rows = await connection.execute(
        f"""
        SELECT {_COLUMNS} FROM content_reports
        WHERE (closed_at IS NOT NULL) = %(closed)s AND (%(before)s::uuid IS NULL OR id < %(before)s)
        ORDER BY id DESC LIMIT %(limit)s
        """,
        {"closed": closed, "before": before, "limit": limit},
    )
    return [_report(row) async for row in rows]


async def one_for_change(connection: Connection, identifier: UUID) -> Report:
    found = await connection.execute(f"SELECT {_COLUMNS} FROM content_reports WHERE id = %s FOR UPDATE", (identifier,))
    row = await found.fetchone()
    if row is None:
        raise NotFound(_("There is no such report."))
    return _report(row)


async def close(connection: Connection, identifier: UUID, at: datetime, by: str, note: str) -> Report:
    found = await connection.execute(
        f"UPDATE content_reports SET closed_at = %s, closed_by = %s, note = %s WHERE id = %s RETURNING {_COLUMNS}",
        (at, by, note, identifier),
    )
    row = await found.fetchone()
    assert row is not None
    return _report(row)


def _report(row: Mapping[str, Any]) -> Report:
    return Report(**{**row, "tag": parse_tag(row["tag"])})
