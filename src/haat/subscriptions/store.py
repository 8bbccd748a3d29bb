"""All SQL of plans and subscriptions."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from psycopg.errors import UniqueViolation

from haat.infra.postgres import Connection
from haat.kernel.errors import AlreadyExists, NotFound
from haat.language.messages import _
from haat.subscriptions.model import TERMS, Plan, Subscription, Terms

_FIELDS = ("id", "service_id", "code", "name", "listed", "rank", *TERMS)
_PLAN = ", ".join(_FIELDS)


async def add_plan(connection: Connection, plan: Plan, at: datetime) -> None:
    values = [getattr(plan, field) for field in _FIELDS]
    try:
        async with connection.transaction():
            await connection.execute(
                f"INSERT INTO plans ({_PLAN}, created_at) VALUES ({'%s, ' * len(values)}%s)", [*values, at]
            )
    except UniqueViolation as error:
        raise AlreadyExists(_("A plan called %(code)s exists for this service.", code=plan.code)) from error


async def set_terms(connection: Connection, plan_id: UUID, terms: Terms) -> None:
    assignments = ", ".join(f"{field} = %s" for field in TERMS)
    values = [getattr(terms, field) for field in TERMS]
    await connection.execute(f"UPDATE plans SET {assignments} WHERE id = %s", [*values, plan_id])


async def own_plan(connection: Connection, service_id: UUID, code: str) -> Plan:
    """Return a service's own plan, locked against other changes; raise NotFound."""
    row = await (
        await connection.execute(
            f"SELECT {_PLAN} FROM plans WHERE service_id = %s AND code = %s FOR UPDATE", (service_id, code)
        )
    ).fetchone()
    if row is None:
        raise NotFound(_("The service has no plan of its own called %(code)s.", code=code))
    return Plan(**row)


async def plans(connection: Connection, service_id: UUID | None, *, listed_only: bool = True) -> list[Plan]:
    """Return the platform's plans and the service's own, smallest first."""
    rows = await connection.execute(
        f"""
        SELECT {_PLAN} FROM plans
        WHERE (service_id IS NULL OR service_id = %s) AND (listed OR NOT %s) ORDER BY rank, code
        """,
        (service_id, listed_only),
    )
    return [Plan(**row) async for row in rows]


async def plan_by_code(connection: Connection, service_id: UUID, code: str) -> Plan:
    """Return a plan open to a service; the service's own wins over the platform's of the same code."""
    row = await (
        await connection.execute(
            f"""
            SELECT {_PLAN} FROM plans WHERE code = %s AND (service_id IS NULL OR service_id = %s)
            ORDER BY service_id NULLS LAST LIMIT 1
            """,
            (code, service_id),
        )
    ).fetchone()
    if row is None:
        raise NotFound(_("There is no plan called %(code)s for this service.", code=code))
    return Plan(**row)


_SUBSCRIPTION = """
    SELECT subscriptions.id, subscriptions.org_id, application_id, applications.name AS application_name,
           subscriptions.service_id, services.provider_slug, services.slug AS service_slug,
           services.name AS service_name, plan_id, plans.code AS plan_code, plans.name AS plan_name,
           subscriptions.status, subscriptions.version, started_at, ended_at
    FROM subscriptions
    JOIN applications ON applications.id = application_id
    JOIN services ON services.id = subscriptions.service_id
    JOIN plans ON plans.id = plan_id
"""


async def add(
    connection: Connection,
    identifier: UUID,
    org_id: UUID,
    application_id: UUID,
    service_id: UUID,
    plan_id: UUID,
    at: datetime,
) -> None:
    try:
        async with connection.transaction():
            await connection.execute(
                """
                INSERT INTO subscriptions (id, org_id, application_id, service_id, plan_id, status, started_at)
                VALUES (%s, %s, %s, %s, %s, 'active', %s)
                """,
                (identifier, org_id, application_id, service_id, plan_id, at),
            )
    except UniqueViolation as error:
        raise AlreadyExists(_("The application is subscribed to this service: change its plan instead.")) from error


async def subscriptions(connection: Connection, org_id: UUID, *, active_only: bool = True) -> list[Subscription]:
    rows = await connection.execute(
        f"""{_SUBSCRIPTION} WHERE subscriptions.org_id = %s AND (subscriptions.status = 'active' OR NOT %s)
        ORDER BY applications.name, services.name, subscriptions.id""",
        (org_id, active_only),
    )
    return [Subscription(**row) async for row in rows]


async def subscription(connection: Connection, org_id: UUID, identifier: UUID) -> Subscription:
    row = await (
        await connection.execute(
            f"{_SUBSCRIPTION} WHERE subscriptions.id = %s AND subscriptions.org_id = %s", (identifier, org_id)
        )
    ).fetchone()
    if row is None:
        raise NotFound
    return Subscription(**row)


async def lock(connection: Connection, identifier: UUID) -> None:
    await connection.execute("SELECT FROM subscriptions WHERE id = %s FOR UPDATE", (identifier,))


async def set_plan(connection: Connection, identifier: UUID, plan_id: UUID) -> None:
    await connection.execute(
        "UPDATE subscriptions SET plan_id = %s, version = version + 1 WHERE id = %s", (plan_id, identifier)
    )


async def cancel(connection: Connection, identifier: UUID, at: datetime) -> None:
    await connection.execute(
        "UPDATE subscriptions SET status = 'cancelled', ended_at = %s, version = version + 1 WHERE id = %s",
        (at, identifier),
    )
