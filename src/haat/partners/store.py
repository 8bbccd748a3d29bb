"""All SQL of partners."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation

from haat.infra.postgres import Connection
from haat.kernel.errors import AlreadyExists, NotFound
from haat.language.messages import _
from haat.partners.model import Partner

_PARTNER = """org_id, slug, company_name, email, contact_person, business_type, gstin, status, reason,
    allowed_networks, created_at, decided_at"""


async def add(connection: Connection, partner: Partner) -> None:
    """Keep a registration; one that was turned down before is replaced and waits again."""
    try:
        async with connection.transaction():
            written = await connection.execute(
                """
                INSERT INTO partners (org_id, slug, company_name, email, contact_person, business_type, gstin, status,
                                      created_at)
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
                ON CONFLICT (org_id) DO UPDATE
                SET slug = excluded.slug, company_name = excluded.company_name, email = excluded.email,
                    contact_person = excluded.contact_person, business_type = excluded.business_type,
                    gstin = excluded.gstin, status = excluded.status, reason = '', decided_at = NULL
                WHERE partners.status = 'rejected'
                """,
                (
                    partner.org_id,
                    partner.slug,
                    partner.company_name,
                    partner.email,
                    partner.contact_person,
                    partner.business_type,
                    partner.gstin,
                    partner.status,
                    partner.created_at,
                ),
            )
    except UniqueViolation as error:
        raise AlreadyExists(_("That partner name is taken: choose another one.")) from error
    if written.rowcount == 0:
        raise AlreadyExists(_("Your organisation has registered already."))


async def partner(connection: Connection, org_id: UUID, *, for_change: bool = False) -> Partner | None:
    lock = "FOR UPDATE" if for_change else ""
    row = await (
        await connection.execute(f"SELECT {_PARTNER} FROM partners WHERE org_id = %s {lock}", (org_id,))
    ).fetchone()
    return _partner(row) if row else None


async def partner_for_change(connection: Connection, org_id: UUID) -> Partner:
    found = await partner(connection, org_id, for_change=True)
    if found is None:
        raise NotFound
    return found


async def by_slug(connection: Connection, slug: str) -> Partner | None:
    row = await (await connection.execute(f"SELECT {_PARTNER} FROM partners WHERE slug = %s", (slug,))).fetchone()
    return _partner(row) if row else None


async def in_status(connection: Connection, status: str | None) -> list[Partner]:
    rows = await connection.execute(
        f"SELECT {_PARTNER} FROM partners WHERE %(status)s::text IS NULL OR status = %(status)s ORDER BY created_at",
        {"status": status},
    )
    return [_partner(row) async for row in rows]


async def set_status(connection: Connection, org_id: UUID, status: str, reason: str, at: datetime) -> None:
    await connection.execute(
        "UPDATE partners SET status = %s, reason = %s, decided_at = %s WHERE org_id = %s",
        (status, reason, at, org_id),
    )


async def set_networks(connection: Connection, org_id: UUID, networks: tuple[str, ...]) -> None:
    await connection.execute("UPDATE partners SET allowed_networks = %s WHERE org_id = %s", (list(networks), org_id))


def _partner(row: Mapping[str, Any]) -> Partner:
    return Partner(**{**row, "allowed_networks": tuple(row["allowed_networks"])})
