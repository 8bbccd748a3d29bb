"""All SQL of the split of a listing, which stands on its rate cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.postgres import Connection

Row = Mapping[str, Any]


async def shares(connection: Connection, service: UUID) -> list[Row]:
    """Return every version of a listing's cards with its share and the time from which it holds, newest first."""
    rows = await connection.execute(
        """
        SELECT plan_code AS plan, version, provider_share AS share, effective_from FROM rate_cards
        WHERE service_id = %s ORDER BY effective_from DESC, plan_code NULLS FIRST, version DESC
        """,
        (service,),
    )
    return [row async for row in rows]


async def provider_of(connection: Connection, service: UUID) -> UUID | None:
    row = await (await connection.execute("SELECT org_id FROM services WHERE id = %s", (service,))).fetchone()
    return row["org_id"] if row else None


async def lock_cards(connection: Connection, service: UUID) -> None:
    """Let one transaction at a time change a listing's shares."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('share/' || %s, 0))", (str(service),))


async def later_card(connection: Connection, service: UUID, at: datetime) -> datetime | None:
    """Return from when the last card holds that begins at or after a time."""
    row = await (
        await connection.execute(
            "SELECT max(effective_from) AS latest FROM rate_cards WHERE service_id = %s AND effective_from >= %s",
            (service, at),
        )
    ).fetchone()
    assert row is not None
    latest: datetime | None = row["latest"]
    return latest


async def add_share(
    connection: Connection, service: UUID, share: Decimal, at: datetime, now: datetime, identifiers: Sequence[UUID]
) -> list[Row]:
    """Add a version of each card that holds at ``at`` and has another share, the same in all but that.

    A card is copied whole, whatever columns it has. Needs as many ``identifiers`` as there are cards.
    """
    rows = await connection.execute(
        """
        WITH present AS (
            SELECT DISTINCT ON (plan_code) * FROM rate_cards WHERE service_id = %(service)s AND effective_from < %(at)s
            ORDER BY plan_code NULLS FIRST, effective_from DESC
        ), numbered AS (
            SELECT *, row_number() OVER (ORDER BY plan_code NULLS FIRST) AS place FROM present
            WHERE provider_share <> %(share)s
        )
        INSERT INTO rate_cards
        SELECT (jsonb_populate_record(NULL::rate_cards, to_jsonb(numbered) || jsonb_build_object(
            'id', (%(ids)s::uuid[])[place],
            'version', (SELECT max(version) + 1 FROM rate_cards AS one WHERE one.service_id = %(service)s
                        AND one.plan_code IS NOT DISTINCT FROM numbered.plan_code),
            'provider_share', %(share)s::numeric, 'effective_from', %(at)s::timestamptz,
            'created_at', %(now)s::timestamptz
        ))).* FROM numbered
        RETURNING plan_code AS plan, version, provider_share AS share, effective_from
        """,
        {"service": service, "share": share, "at": at, "now": now, "ids": list(identifiers)},
    )
    return [row async for row in rows]


async def cards(connection: Connection, service: UUID) -> int:
    """Return how many kinds of card a listing has: the general one, and those of single plans."""
    row = await (
        await connection.execute(
            "SELECT count(*) AS kinds FROM (SELECT DISTINCT plan_code FROM rate_cards WHERE service_id = %s) AS one",
            (service,),
        )
    ).fetchone()
    assert row is not None
    return int(row["kinds"])
