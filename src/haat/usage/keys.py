"""When keys were last used: noted of the rows that came in, a minute or so later and never on a call's path."""

from __future__ import annotations

from datetime import datetime, timedelta

from haat.infra.postgres import Connection
from haat.usage.intake import watermark

LOOK_BACK = timedelta(hours=1)
"""A shipper that begins looks at the batches of so long again: its predecessor may not have."""


async def first_batch(connection: Connection, now: datetime) -> int:
    """Return the batch after which a shipper that begins has to look."""
    row = await (
        await connection.execute(
            "SELECT coalesce(max(batch), 0) AS batch FROM usage_batches WHERE shipped_at < %s", (now - LOOK_BACK,)
        )
    ).fetchone()
    assert row is not None
    return int(row["batch"])


async def note_use(connection: Connection, after: int) -> int:
    """Note of each key the newest call that came in after a batch; return the newest batch that was looked at."""
    newest = await watermark(connection)
    if newest > after:
        await connection.execute(
            """
            UPDATE credentials SET last_used_at = used.at
            FROM (SELECT credential_id, max(at) AS at FROM usage
                  WHERE batch > %s AND batch <= %s AND credential_id IS NOT NULL GROUP BY credential_id) AS used
            WHERE credentials.id = used.credential_id AND (last_used_at IS NULL OR last_used_at < used.at)
            """,
            (after, newest),
        )
    return newest
