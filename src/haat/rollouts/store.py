"""All SQL of rollouts and experiments."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from haat.infra.postgres import Connection
from haat.kernel.errors import Conflict, NotFound
from haat.language.messages import _
from haat.rollouts.model import Experiment, Rollout

_ROLLOUT = """
    SELECT id, org_id, service_id, control, candidate, status, percent, plan, step, step_since, reason, figures,
           started_at, ended_at FROM rollouts
"""
_EXPERIMENT = """
    SELECT id, org_id, service_id, control, plan, status, reason, registered_at, starts_at, ends_at, started_at,
           ended_at FROM experiments
"""


async def add_rollout(connection: Connection, rollout: Rollout) -> None:
    await connection.execute(
        """
        INSERT INTO rollouts (id, org_id, service_id, control, candidate, status, percent, plan, step, step_since,
            started_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            rollout.id,
            rollout.org_id,
            rollout.service_id,
            rollout.control,
            rollout.candidate,
            rollout.status,
            rollout.percent,
            Jsonb(dict(rollout.plan)),
            rollout.step,
            rollout.step_since,
            rollout.started_at,
        ),
    )


async def keep_rollout(connection: Connection, rollout: Rollout) -> None:
    """Write what changes of a rollout."""
    await connection.execute(
        """
        UPDATE rollouts SET status = %s, percent = %s, step = %s, step_since = %s, reason = %s, figures = %s,
            ended_at = %s
        WHERE id = %s
        """,
        (
            rollout.status,
            rollout.percent,
            rollout.step,
            rollout.step_since,
            rollout.reason,
            Jsonb(dict(rollout.figures)),
            rollout.ended_at,
            rollout.id,
        ),
    )


async def rollout(connection: Connection, identifier: UUID) -> Rollout:
    """Return a rollout; raise NotFound."""
    row = await (await connection.execute(f"{_ROLLOUT} WHERE id = %s", (identifier,))).fetchone()
    if row is None:
        raise NotFound
    return Rollout(**row)


async def rollouts_of(connection: Connection, service_id: UUID, limit: int = 50) -> list[Rollout]:
    """Return a service's rollouts, the newest first."""
    rows = await connection.execute(
        f"{_ROLLOUT} WHERE service_id = %s ORDER BY started_at DESC, id DESC LIMIT %s", (service_id, limit)
    )
    return [Rollout(**row) async for row in rows]


async def active_rollouts(connection: Connection) -> list[Rollout]:
    return [Rollout(**row) async for row in await connection.execute(f"{_ROLLOUT} WHERE ended_at IS NULL ORDER BY id")]


async def add_experiment(connection: Connection, experiment: Experiment) -> None:
    await connection.execute(
        """
        INSERT INTO experiments (id, org_id, service_id, control, plan, status, registered_at, starts_at, ends_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            experiment.id,
            experiment.org_id,
            experiment.service_id,
            experiment.control,
            Jsonb(dict(experiment.plan)),
            experiment.status,
            experiment.registered_at,
            experiment.starts_at,
            experiment.ends_at,
        ),
    )


async def keep_experiment(connection: Connection, experiment: Experiment) -> None:
    """Write what changes of an experiment: never what it was registered with."""
    await connection.execute(
        "UPDATE experiments SET status = %s, reason = %s, started_at = %s, ended_at = %s WHERE id = %s",
        (experiment.status, experiment.reason, experiment.started_at, experiment.ended_at, experiment.id),
    )


async def experiment(connection: Connection, identifier: UUID) -> Experiment:
    """Return an experiment; raise NotFound."""
    row = await (await connection.execute(f"{_EXPERIMENT} WHERE id = %s", (identifier,))).fetchone()
    if row is None:
        raise NotFound
    return Experiment(**row)


async def experiments_of(connection: Connection, service_id: UUID, limit: int = 50) -> list[Experiment]:
    """Return a service's experiments, the newest first."""
    rows = await connection.execute(
        f"{_EXPERIMENT} WHERE service_id = %s ORDER BY registered_at DESC, id DESC LIMIT %s", (service_id, limit)
    )
    return [Experiment(**row) async for row in rows]


async def due_experiments(connection: Connection, now: datetime) -> list[Experiment]:
    """Return those that are to begin or to end."""
    rows = await connection.execute(
        f"""
        {_EXPERIMENT} WHERE (status = 'registered' AND starts_at <= %(now)s)
            OR (status = 'running' AND ends_at <= %(now)s) ORDER BY starts_at, id
        """,
        {"now": now},
    )
    return [Experiment(**row) async for row in rows]


async def running_experiments(connection: Connection) -> list[Experiment]:
    rows = await connection.execute(f"{_EXPERIMENT} WHERE status = 'running' ORDER BY id")
    return [Experiment(**row) async for row in rows]


async def divide(connection: Connection, service_id: UUID, org_id: UUID, policy: Mapping[str, Any]) -> None:
    """Begin to divide a service's calls; raise Conflict when they are divided already."""
    try:
        async with connection.transaction():
            await connection.execute(
                "INSERT INTO divisions (service_id, org_id, policy) VALUES (%s, %s, %s)",
                (service_id, org_id, Jsonb(dict(policy))),
            )
    except UniqueViolation as error:
        raise Conflict(_("A rollout or an experiment of this service is running: end that one first.")) from error


async def redivide(connection: Connection, service_id: UUID, policy: Mapping[str, Any]) -> None:
    await connection.execute(
        "UPDATE divisions SET policy = %s WHERE service_id = %s", (Jsonb(dict(policy)), service_id)
    )


async def unite(connection: Connection, service_id: UUID) -> None:
    """Divide a service's calls no longer."""
    await connection.execute("DELETE FROM divisions WHERE service_id = %s", (service_id,))
