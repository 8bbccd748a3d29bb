"""Calls as files, however many: PostgreSQL writes the lines, and they are passed on as they come.

Memory stays that of a few network packets. CSV is for spreadsheets: no cell of it is a formula. JSON lines are one
object a line, its quantities decimal text, so that no reader rounds them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum

from haat.infra.postgres import Connection
from haat.usage import store
from haat.usage.model import EXPORT_COLUMNS, UNITS, CallFilter


class Format(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"


MEDIA_TYPES = {Format.CSV: "text/csv; charset=utf-8", Format.JSONL: "application/jsonl; charset=utf-8"}
_PIECE = 64 * 1024

_CELLS = {
    "at": "usage.at",
    "service": """CASE WHEN usage.service_slug = '' THEN ''
                  ELSE coalesce(called.provider_slug, usage.provider) || '/' || usage.service_slug END""",
    "total_ms": "round(usage.total_us / 1000.0, 3)",
}
_TEXTS = ("service", "version", "plan", "method", "path_template", "outcome", "error_code", "cache", "end_user",
          "caller_request_id", "language_pair", "mode")  # fmt: skip
_TAGS = """CASE WHEN usage.tags = '{}' THEN '' ELSE
    (SELECT string_agg(key || '=' || value, ', ' ORDER BY key) FROM jsonb_each_text(usage.tags)) END"""


def _of(column: str) -> str:
    return _CELLS.get(column, f"usage.{column}")


def _csv_cell(column: str) -> str:
    """Return the expression of a cell that no spreadsheet takes for a formula (see `haat.usage.model.csv_safe`)."""
    if column == "at":  # as ISO 8601 has it
        return "to_char(usage.at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"+00:00\"') AS at"
    if column not in _TEXTS and column != "tags":
        return f"{_of(column)} AS {column}"
    text = _TAGS if column == "tags" else _of(column)
    formula = f"left({text}, 1) = ANY(ARRAY['=', '+', '-', '@', E'\\t', E'\\r'])"
    return f"CASE WHEN {formula} THEN '''' || {text} ELSE {text} END AS {column}"


def _json_member(column: str) -> str:
    if column in UNITS or column in ("cached", "total_ms"):
        return f"trim_scale({_of(column)})::text AS {column}"
    return f"{_of(column)} AS {column}"


_SELECTED = {
    Format.CSV: f"SELECT {', '.join(map(_csv_cell, EXPORT_COLUMNS))}",
    Format.JSONL: f"SELECT {', '.join(map(_json_member, EXPORT_COLUMNS))}",
}
_OPTIONS = {
    Format.CSV: "FORMAT csv, HEADER true",
    # JSON has neither of these characters: a line is never quoted.
    Format.JSONL: "FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02'",
}


async def lines(connection: Connection, chosen: CallFilter, form: Format) -> AsyncIterator[bytes]:
    """Yield the chosen calls, oldest first, in pieces of whole lines; CSV begins with the names of its columns."""
    query, values = store.exported(_SELECTED[form], chosen)
    if form is Format.JSONL:
        query = f"SELECT row_to_json(line) FROM ({query}) AS line"
    parts, size = [], 0
    async with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY ({query}) TO STDOUT ({_OPTIONS[form]})", values) as copy,
    ):
        async for line in copy:
            parts.append(bytes(line))
            size += len(line)
            if size >= _PIECE:
                yield b"".join(parts)
                parts, size = [], 0
    if parts:
        yield b"".join(parts)
