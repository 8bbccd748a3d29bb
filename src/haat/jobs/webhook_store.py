"""All SQL of webhooks: endpoints, what is to be delivered to them, and each attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from haat.infra.postgres import Connection


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an application wants to be told. Its secrets are encrypted under its id."""

    id: UUID
    org_id: UUID
    application_id: UUID
    url: str
    secret: bytes
    old_secret: bytes | None
    old_secret_until: datetime | None
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one endpoint. Its id is the ``webhook-id`` of every attempt."""

    id: UUID
    org_id: UUID
    endpoint_id: UUID
    job_id: UUID | None
    type: str
    body: str
    status: Literal["waiting", "delivered", "failed"]
    created_at: datetime
    delivered_at: datetime | None
    attempts: int
    last_status: int | None
    last_error: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try. ``status`` is what the endpoint answered, None when it didn't."""

    number: int
    at: datetime
    status: int | None
    error: str
    milliseconds: int


_ENDPOINT = """id, org_id, application_id, url, secret, old_secret, old_secret_until, created_at, disabled_at,
    disabled_reason"""


async def add_endpoint(connection: Connection, endpoint: Endpoint) -> None:
    await connection.execute(
        """
        INSERT INTO webhook_endpoints (id, org_id, application_id, url, secret, created_at)
        VALUES (%s, %s, %s, %s, %s, %s)
        """,
        (endpoint.id, endpoint.org_id, endpoint.application_id, endpoint.url, endpoint.secret, endpoint.created_at),
    )


async def endpoints(connection: Connection, org: UUID, application: UUID | None = None) -> list[Endpoint]:
    rows = await connection.execute(
        f"""
        SELECT {_ENDPOINT} FROM webhook_endpoints
        WHERE org_id = %s AND (%s::uuid IS NULL OR application_id = %s) AND deleted_at IS NULL ORDER BY id
        """,
        (org, application, application),
    )
    return [Endpoint(**row) async for row in rows]


async def endpoint(connection: Connection, identifier: UUID, *, for_change: bool = False) -> Endpoint | None:
    row = await (
        await connection.execute(
            f"SELECT {_ENDPOINT} FROM webhook_endpoints WHERE id = %s AND deleted_at IS NULL"
            + (" FOR UPDATE" if for_change else ""),
            (identifier,),
        )
    ).fetchone()
    return Endpoint(**row) if row else None


async def set_secret(connection: Connection, identifier: UUID, secret: bytes, old: bytes, old_until: datetime) -> None:
    await connection.execute(
        "UPDATE webhook_endpoints SET secret = %s, old_secret = %s, old_secret_until = %s WHERE id = %s",
        (secret, old, old_until, identifier),
    )


async def set_disabled(connection: Connection, identifier: UUID, at: datetime | None, reason: str) -> None:
    await connection.execute(
        "UPDATE webhook_endpoints SET disabled_at = %s, disabled_reason = %s WHERE id = %s", (at, reason, identifier)
    )


async def delete_endpoint(connection: Connection, identifier: UUID, at: datetime) -> None:
    await connection.execute("UPDATE webhook_endpoints SET deleted_at = %s WHERE id = %s", (at, identifier))


_DELIVERY = """
    SELECT delivery.id, delivery.org_id, endpoint_id, job_id, type, body, delivery.status, created_at, delivered_at,
        coalesce(last.number, 0) AS attempts, last.status AS last_status, coalesce(last.error, '') AS last_error
    FROM webhook_deliveries AS delivery
    LEFT JOIN LATERAL (
        SELECT number, status, error FROM webhook_attempts WHERE delivery_id = delivery.id ORDER BY number DESC LIMIT 1
    ) AS last ON true
"""


async def add_delivery(
    connection: Connection,
    *,
    identifier: UUID,
    org: UUID,
    endpoint_id: UUID,
    job: UUID,
    event: UUID,
    type: str,
    body: str,
    at: datetime,
) -> bool:
    """Note a message to an endpoint; return False when that event was noted for it before."""
    added = await connection.execute(
        """
        INSERT INTO webhook_deliveries (id, org_id, endpoint_id, job_id, event_id, type, body, created_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
        """,
        (identifier, org, endpoint_id, job, event, type, body, at),
    )
    return added.rowcount > 0


async def delivery(connection: Connection, identifier: UUID) -> Delivery | None:
    row = await (await connection.execute(f"{_DELIVERY} WHERE delivery.id = %s", (identifier,))).fetchone()
    return Delivery(**row) if row else None


async def deliveries(
    connection: Connection, org: UUID, *, job: UUID | None, endpoint_id: UUID | None, before: UUID | None, limit: int
) -> Sequence[Delivery]:
    """Return deliveries, newest first, one more than ``limit`` if there is one."""
    rows = await connection.execute(
        f"""
        {_DELIVERY} WHERE delivery.org_id = %s AND (%s::uuid IS NULL OR job_id = %s)
            AND (%s::uuid IS NULL OR endpoint_id = %s) AND (%s::uuid IS NULL OR delivery.id < %s)
        ORDER BY delivery.id DESC LIMIT %s
        """,
        (org, job, job, endpoint_id, endpoint_id, before, before, limit + 1),
    )
    return [Delivery(**row) async for row in rows]


async def attempts(connection: Connection, delivery_id: UUID) -> list[Attempt]:
    rows = await connection.execute(
        "SELECT number, at, status, error, milliseconds FROM webhook_attempts WHERE delivery_id = %s ORDER BY number",
        (delivery_id,),
    )
    return [Attempt(**row) async for row in rows]


async def add_attempt(
    connection: Connection, delivery_id: UUID, org: UUID, at: datetime, status: int | None, error: str, took: int
) -> None:
    await connection.execute(
        """
        INSERT INTO webhook_attempts (delivery_id, number, org_id, at, status, error, milliseconds)
        SELECT %s, coalesce(max(number), 0) + 1, %s, %s, %s, %s, %s FROM webhook_attempts WHERE delivery_id = %s
        """,
        (delivery_id, org, at, status, error, took, delivery_id),
    )


async def set_status(connection: Connection, delivery_id: UUID, status: str, at: datetime | None) -> None:
    await connection.execute(
        "UPDATE webhook_deliveries SET status = %s, delivered_at = coalesce(%s, delivered_at) WHERE id = %s",
        (status, at, delivery_id),
    )


async def purge(connection: Connection, before: datetime, limit: int) -> int:
    deleted = await connection.execute(
        "DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM webhook_deliveries WHERE created_at < %s LIMIT %s)",
        (before, limit),
    )
    return deleted.rowcount
