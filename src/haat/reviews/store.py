"""All SQL of reviews. Author and provider of one see it as tenants; everybody else is served by the platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from haat.infra.postgres import Connection
from haat.kernel.errors import NotFound
from haat.reviews.model import Buyer, Past, Review, Use
from haat.usage.event import LIVE
from haat.usage.model import id_bound

Row = Mapping[str, Any]

_PANS = "SELECT substr(gstin, 3, 10) AS pan FROM {table} WHERE {key} = {org} AND gstin IS NOT NULL"


def _pans(org: str) -> str:
    """Return the tax numbers of an organisation's owner: the same in its GSTINs of all States."""
    tables = (("organisations", "id"), ("partners", "org_id"))
    return " UNION ".join(_PANS.format(table=table, key=key, org=org) for table, key in tables)


def _related(author: str, provider: str) -> str:
    """Return the condition that two organisations are one, have a member in common, or belong to one tax payer.

    The operator, who decides about reviews, is related to everybody.
    """
    return f"""(
        {author} = {provider}
        OR EXISTS (SELECT FROM organisations WHERE id = {author} AND kind = 'operator')
        OR EXISTS (SELECT FROM memberships AS one JOIN memberships AS other USING (user_id)
                   WHERE one.org_id = {author} AND other.org_id = {provider})
        OR EXISTS (({_pans(author)}) INTERSECT ({_pans(provider)}))
    )"""


_REVIEW = """
    SELECT reviews.*, services.provider_slug || '/' || services.slug AS service, services.name AS service_name
    FROM reviews JOIN services ON services.id = reviews.service_id
"""
_SHOWN = f"""
    withdrawn_at IS NULL AND hidden_at IS NULL AND NOT {_related("reviews.org_id", "reviews.provider_org")}
"""


async def lock(connection: Connection, service: UUID, org: UUID) -> None:
    """Let nobody else write this organisation's review of a service until the transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"review/{service}/{org}",))


async def are_related(connection: Connection, author: UUID, provider: UUID) -> bool:
    row = await (
        await connection.execute(
            f"SELECT {_related('%(author)s::uuid', '%(provider)s::uuid')} AS related",
            {"author": author, "provider": provider},
        )
    ).fetchone()
    assert row is not None
    return bool(row["related"])


async def calls(connection: Connection, org: UUID, service: UUID, provider: UUID, since: datetime) -> int:
    """Return an organisation's completed calls to a service since an instant."""
    row = await (
        await connection.execute(
            """
            SELECT coalesce(sum(calls), 0)::bigint AS calls FROM usage_hourly
            WHERE org_id = %s AND hour >= %s AND service_id = %s AND provider_org = %s AND outcome = 'completed'
            """,
            (org, since, service, provider),
        )
    ).fetchone()
    assert row is not None
    return int(row["calls"])


async def use(
    connection: Connection, org: UUID, service: UUID, provider: UUID, since: datetime, month: datetime
) -> Use:
    """Return an organisation's use of a service since an instant; ``month`` is 30 days ago."""
    values = {"org": org, "service": service, "provider": provider, "since": since, "month": month}
    row = await (
        await connection.execute(
            """
            SELECT coalesce(sum(calls) FILTER (WHERE org_id = %(org)s), 0)::bigint AS calls,
                coalesce(sum(calls) FILTER (WHERE org_id = %(org)s AND hour >= %(month)s), 0)::bigint AS monthly,
                count(DISTINCT org_id) FILTER (WHERE org_id NOT IN (
                    SELECT id FROM organisations WHERE id = %(provider)s OR kind = 'operator')) AS buyers,
                (SELECT min(started_at) FROM subscriptions
                 WHERE org_id = %(org)s AND service_id = %(service)s) AS since
            FROM usage_hourly
            WHERE provider_org = %(provider)s AND hour >= %(since)s AND service_id = %(service)s
                AND outcome = 'completed'
            """,
            values,
        )
    ).fetchone()
    assert row is not None
    version = ""
    if row["calls"]:
        found = await (
            await connection.execute(
                """
                SELECT version FROM usage
                WHERE org_id = %(org)s AND id >= %(from)s AND service_id = %(service)s AND outcome = 'completed'
                    AND mode = %(live)s AND executed_by IS NULL
                GROUP BY version ORDER BY count(*) DESC, version DESC LIMIT 1
                """,
                {**values, "from": id_bound(month if row["monthly"] else since), "live": LIVE},
            )
        ).fetchone()
        version = found["version"] if found else ""
    return Use(row["calls"], row["monthly"], row["since"], row["buyers"], version)


async def own(connection: Connection, service: UUID, org: UUID) -> Review | None:
    """Return an organisation's review of a service, a withdrawn one too."""
    rows = await connection.execute(f"{_REVIEW} WHERE service_id = %s AND reviews.org_id = %s", (service, org))
    row = await rows.fetchone()
    return _review(row) if row else None


async def get(connection: Connection, identifier: UUID) -> tuple[Review, UUID, UUID]:
    """Return a review with its author and its provider, locked until the transaction ends; raise NotFound."""
    rows = await connection.execute(f"{_REVIEW} WHERE reviews.id = %s FOR UPDATE OF reviews", (identifier,))
    row = await rows.fetchone()
    if row is None:
        raise NotFound
    return _review(row), row["org_id"], row["provider_org"]


async def put(
    connection: Connection,
    identifier: UUID,
    *,
    org: UUID,
    service: UUID,
    provider: UUID,
    stars: int,
    text: str,
    at: datetime,
    buyer: Buyer,
    service_version: str,
) -> int:
    """Keep a review, and in its history what it says now; return its version."""
    row = await (
        await connection.execute(
            """
            INSERT INTO reviews AS old (id, org_id, service_id, provider_org, version, stars, text, service_version,
                buyer_since, monthly_calls, written_at, changed_at)
            VALUES (%(id)s, %(org)s, %(service)s, %(provider)s, 1, %(stars)s, %(text)s, %(service_version)s,
                %(since)s, %(calls)s, %(at)s, %(at)s)
            ON CONFLICT (service_id, org_id) DO UPDATE SET version = old.version + 1, stars = excluded.stars,
                text = excluded.text, service_version = excluded.service_version, buyer_since = excluded.buyer_since,
                monthly_calls = excluded.monthly_calls, changed_at = excluded.changed_at, withdrawn_at = NULL
            RETURNING version
            """,
            {
                "id": identifier,
                "org": org,
                "service": service,
                "provider": provider,
                "stars": stars,
                "text": text,
                "service_version": service_version,
                "since": buyer.since,
                "calls": buyer.monthly_calls,
                "at": at,
            },
        )
    ).fetchone()
    assert row is not None
    await connection.execute(
        "INSERT INTO review_history (review_id, org_id, version, stars, text, at) VALUES (%s, %s, %s, %s, %s, %s)",
        (identifier, org, row["version"], stars, text, at),
    )
    return int(row["version"])


async def withdraw(connection: Connection, identifier: UUID, at: datetime) -> None:
    await connection.execute("UPDATE reviews SET withdrawn_at = %s WHERE id = %s", (at, identifier))


async def set_reply(connection: Connection, identifier: UUID, text: str | None, to: int | None, at: datetime) -> None:
    """Set a reply in place of the one that was there; None takes it away."""
    await connection.execute(
        "UPDATE reviews SET reply = %s, reply_to = %s, replied_at = %s WHERE id = %s",
        (text, to, at if text is not None else None, identifier),
    )


async def set_hidden(connection: Connection, identifier: UUID, reason: str | None, at: datetime) -> None:
    """Hide a review for a reason; None shows it again."""
    await connection.execute(
        "UPDATE reviews SET hidden_reason = %s, hidden_at = %s WHERE id = %s",
        (reason, at if reason is not None else None, identifier),
    )


async def shown(connection: Connection, service: UUID, before: UUID | None, limit: int) -> list[Review]:
    """Return what visitors see of a service's reviews, the newest first."""
    return await _reviews(
        connection,
        f"service_id = %(service)s AND {_SHOWN}",
        {"service": service, "before": before, "limit": limit},
    )


async def of_provider(connection: Connection, provider: UUID, before: UUID | None, limit: int) -> list[Review]:
    """Return reviews of a provider's services, hidden ones too."""
    return await _reviews(
        connection,
        "provider_org = %(provider)s AND withdrawn_at IS NULL",
        {"provider": provider, "before": before, "limit": limit},
    )


async def of_everybody(connection: Connection, hidden: bool, before: UUID | None, limit: int) -> list[Review]:
    """Return all reviews that stand, or those that are hidden."""
    return await _reviews(
        connection,
        "withdrawn_at IS NULL AND (hidden_at IS NOT NULL OR NOT %(hidden)s)",
        {"hidden": hidden, "before": before, "limit": limit},
    )


async def _reviews(connection: Connection, which: str, values: Mapping[str, Any]) -> list[Review]:
    rows = await connection.execute(
        f"""{_REVIEW} WHERE {which} AND (%(before)s::uuid IS NULL OR reviews.id < %(before)s)
            ORDER BY reviews.id DESC LIMIT %(limit)s""",
        values,
    )
    return [_review(row) async for row in rows]


async def history(connection: Connection, identifier: UUID) -> list[Past]:
    """Return what a review has said, the latest first."""
    rows = await connection.execute(
        "SELECT version, stars, text, at FROM review_history WHERE review_id = %s ORDER BY version DESC", (identifier,)
    )
    return [Past(**row) async for row in rows]


async def standings(connection: Connection, services: Sequence[UUID]) -> list[Row]:
    """Return the number of shown reviews of each service that has one, their stars, and the commonest version."""
    rows = await connection.execute(
        f"""
        SELECT service_id, count(*) AS count, sum(stars) AS stars,
            coalesce(mode() WITHIN GROUP (ORDER BY service_version) FILTER (WHERE service_version <> ''), '') AS version
        FROM reviews WHERE service_id = ANY(%s) AND {_SHOWN} GROUP BY service_id
        """,
        (list(services),),
    )
    return [row async for row in rows]


def _review(row: Row) -> Review:
    given = {name: row[name] for name in Review.__dataclass_fields__ if name != "buyer"}
    return Review(**given, buyer=Buyer(row["buyer_since"], row["monthly_calls"]))
