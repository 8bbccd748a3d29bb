"""All SQL of objectives, alerts, suspensions, maintenance and months; `counts` has that of what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from haat.infra.postgres import Connection
from haat.invoices.states import OWED_BY_NOBODY, State
from haat.kernel.errors import ConcurrentChange, NotFound
from haat.kernel.ids import new_id
from haat.language.messages import _
from haat.sla.evidence import Predicate
from haat.sla.maintenance import Window
from haat.sla.model import Judgement, Objective, ObjectiveDraft, Tier, percent_of

Row = Mapping[str, Any]


async def lock(connection: Connection, service_id: UUID) -> None:
    """Let one transaction at a time decide about a service's level."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('sla/' || %s, 0))", (str(service_id),))


# --- listings ---------------------------------------------------------------------------------------


async def listing(connection: Connection, service_id: UUID) -> Row:
    """Return whose service it is and how it stands; raise NotFound."""
    row = await (
        await connection.execute(
            """
            SELECT services.id, services.org_id, provider_slug, services.slug, services.name, services.status,
                   partners.status AS partner_status, partners.email AS partner_email
            FROM services JOIN partners ON partners.slug = provider_slug WHERE services.id = %s
            """,
            (service_id,),
        )
    ).fetchone()
    if row is None:
        raise NotFound
    return row


async def is_seen(connection: Connection, service_id: UUID) -> bool:
    """Tell whether the transaction's scope may see a listing."""
    rows = await connection.execute("SELECT id FROM services WHERE id = %s", (service_id,))
    return await rows.fetchone() is not None


async def endpoint(connection: Connection, service_id: UUID) -> str:
    """Return the first endpoint of a service's default version, empty when none was accepted."""
    row = await (
        await connection.execute(
            "SELECT endpoint FROM service_versions WHERE service_id = %s AND is_default", (service_id,)
        )
    ).fetchone()
    return str(row["endpoint"]) if row else ""


async def subscribers(connection: Connection, service_id: UUID) -> list[UUID]:
    """Return the organisations that are subscribed to a service, in order of their ids."""
    rows = await connection.execute(
        "SELECT DISTINCT org_id FROM subscriptions WHERE service_id = %s AND status = 'active' ORDER BY org_id",
        (service_id,),
    )
    return [row["org_id"] async for row in rows]


# --- objectives -------------------------------------------------------------------------------------

_OBJECTIVE = """
    id, org_id, service_id, version, effective_from, availability, p50_ms, p95_ms, p99_ms, window_days, tiers,
    latency_credit, probe
"""


async def objectives(connection: Connection, service_id: UUID | None = None) -> list[Objective]:
    """Return the objectives of one service, or of all, the oldest first."""
    rows = await connection.execute(
        f"""
        SELECT {_OBJECTIVE} FROM sla_objectives WHERE (%(service)s::uuid IS NULL OR service_id = %(service)s)
        ORDER BY service_id, version
        """,
        {"service": service_id},
    )
    return [_objective(row) async for row in rows]


async def objective(connection: Connection, identifier: UUID) -> Objective:
    row = await (
        await connection.execute(f"SELECT {_OBJECTIVE} FROM sla_objectives WHERE id = %s", (identifier,))
    ).fetchone()
    if row is None:
        raise NotFound
    return _objective(row)


async def add_objective(
    connection: Connection, org: UUID, service_id: UUID, draft: ObjectiveDraft, effective_from: datetime, at: datetime
) -> Objective:
    """Add the next version of a listing's objective."""
    values = {
        **draft.model_dump(exclude={"tiers", "effective_from"}),
        "id": new_id(),
        "org_id": org,
        "service_id": service_id,
        "effective_from": effective_from,
        "tiers": Jsonb([tier.model_dump(mode="json") for tier in draft.tiers]),
        "at": at,
    }
    try:
        async with connection.transaction():
            row = await (
                await connection.execute(
                    f"""
                    INSERT INTO sla_objectives (id, org_id, service_id, version, effective_from, availability, p50_ms,
                        p95_ms, p99_ms, window_days, tiers, latency_credit, probe, created_at)
                    SELECT %(id)s, %(org_id)s, %(service_id)s, coalesce(max(version), 0) + 1, %(effective_from)s,
                           %(availability)s, %(p50_ms)s, %(p95_ms)s, %(p99_ms)s, %(window_days)s, %(tiers)s,
                           %(latency_credit)s, %(probe)s, %(at)s
                    FROM sla_objectives WHERE service_id = %(service_id)s RETURNING {_OBJECTIVE}
                    """,
                    values,
                )
            ).fetchone()
    except UniqueViolation as error:
        raise ConcurrentChange(_("Another objective begins at the same moment: look at it and try again.")) from error
    assert row is not None
    return _objective(row)


def _objective(row: Row) -> Objective:
    return Objective(**{**row, "tiers": [Tier.model_validate(tier) for tier in row["tiers"]]})


# --- maintenance ------------------------------------------------------------------------------------

_WINDOW = "id, org_id, service_id, starts_at, ends_at, note, announced_at, cancelled_at"


async def windows(connection: Connection, service_id: UUID, start: datetime, end: datetime) -> list[Window]:
    """Return a listing's windows that lie in a time, in order; cancelled ones too."""
    rows = await connection.execute(
        f"""
        SELECT {_WINDOW} FROM sla_maintenance WHERE service_id = %s AND starts_at < %s AND ends_at > %s
        ORDER BY starts_at, id
        """,
        (service_id, end, start),
    )
    return [Window(**row) async for row in rows]


async def window(connection: Connection, identifier: UUID) -> Window:
    row = await (
        await connection.execute(f"SELECT {_WINDOW} FROM sla_maintenance WHERE id = %s", (identifier,))
    ).fetchone()
    if row is None:
        raise NotFound
    return Window(**row)


async def add_window(connection: Connection, window: Window) -> None:
    await connection.execute(
        """
        INSERT INTO sla_maintenance (id, org_id, service_id, starts_at, ends_at, note, announced_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        """,
        (
            window.id,
            window.org_id,
            window.service_id,
            window.starts_at,
            window.ends_at,
            window.note,
            window.announced_at,
        ),
    )


async def cancel_window(connection: Connection, identifier: UUID, at: datetime) -> None:
    await connection.execute("UPDATE sla_maintenance SET cancelled_at = %s WHERE id = %s", (at, identifier))


async def end_window(connection: Connection, identifier: UUID, ends_at: datetime) -> None:
    await connection.execute("UPDATE sla_maintenance SET ends_at = %s WHERE id = %s", (ends_at, identifier))


# --- alerts -----------------------------------------------------------------------------------------

_ALERT = "id, org_id, service_id, signal, pace, opened_at, quiet_since, closed_at, figures"


async def alerts(connection: Connection, service_id: UUID, limit: int = 20) -> list[Row]:
    """Return a listing's alerts, the newest first."""
    rows = await connection.execute(
        f"SELECT {_ALERT} FROM sla_alerts WHERE service_id = %s ORDER BY opened_at DESC, id DESC LIMIT %s",
        (service_id, limit),
    )
    return [row async for row in rows]


async def open_alerts(connection: Connection, service_id: UUID) -> dict[tuple[str, str], Row]:
    """Return a listing's open alerts by their signal and pace."""
    rows = await connection.execute(
        f"SELECT {_ALERT} FROM sla_alerts WHERE service_id = %s AND closed_at IS NULL", (service_id,)
    )
    return {(row["signal"], row["pace"]): row async for row in rows}


async def add_alert(
    connection: Connection,
    org: UUID,
    service_id: UUID,
    signal: str,
    pace: str,
    at: datetime,
    figures: Mapping[str, Any],
) -> UUID:
    identifier = new_id()
    await connection.execute(
        """
        INSERT INTO sla_alerts (id, org_id, service_id, signal, pace, opened_at, figures)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        """,
        (identifier, org, service_id, signal, pace, at, Jsonb(dict(figures))),
    )
    return identifier


async def set_quiet(connection: Connection, alert: UUID, since: datetime | None) -> None:
    await connection.execute("UPDATE sla_alerts SET quiet_since = %s WHERE id = %s", (since, alert))


async def close_alert(connection: Connection, alert: UUID, at: datetime) -> None:
    await connection.execute("UPDATE sla_alerts SET closed_at = %s WHERE id = %s", (at, alert))


# --- suspensions ------------------------------------------------------------------------------------

_SUSPENSION = "id, org_id, service_id, suspended_at, restored_at, figures"


async def suspensions(connection: Connection, service_id: UUID, limit: int = 20) -> list[Row]:
    """Return how often a listing was suspended for its uptime, the newest first."""
    rows = await connection.execute(
        f"SELECT {_SUSPENSION} FROM sla_suspensions WHERE service_id = %s ORDER BY suspended_at DESC LIMIT %s",
        (service_id, limit),
    )
    return [row async for row in rows]


async def open_suspensions(connection: Connection) -> list[UUID]:
    """Return the services that are suspended for their uptime."""
    rows = await connection.execute(
        "SELECT service_id FROM sla_suspensions WHERE restored_at IS NULL ORDER BY service_id"
    )
    return [row["service_id"] async for row in rows]


async def add_suspension(
    connection: Connection, org: UUID, service_id: UUID, at: datetime, figures: Mapping[str, Any]
) -> None:
    await connection.execute(
        "INSERT INTO sla_suspensions (id, org_id, service_id, suspended_at, figures) VALUES (%s, %s, %s, %s, %s)",
        (new_id(), org, service_id, at, Jsonb(dict(figures))),
    )


async def end_suspension(connection: Connection, service_id: UUID, at: datetime) -> None:
    await connection.execute(
        "UPDATE sla_suspensions SET restored_at = %s WHERE service_id = %s AND restored_at IS NULL", (at, service_id)
    )


# --- months and credits -----------------------------------------------------------------------------

_MONTH = """
    id, org_id, service_id, objective_id, period, verdict, availability, source, missed, credit, fault, judged_at,
    evidence
"""


async def month(connection: Connection, service_id: UUID, period: str) -> Row | None:
    return await (
        await connection.execute(
            f"SELECT {_MONTH} FROM sla_months WHERE service_id = %s AND period = %s", (service_id, period)
        )
    ).fetchone()


async def month_by_id(connection: Connection, identifier: UUID) -> Row | None:
    return await (await connection.execute(f"SELECT {_MONTH} FROM sla_months WHERE id = %s", (identifier,))).fetchone()


async def months(
    connection: Connection,
    *,
    service_id: UUID | None = None,
    mine: UUID | None = None,
    breached: bool = False,
    before: UUID | None = None,
    limit: int = 50,
) -> list[Row]:
    """Return judged months, the newest first: of one service or of all; ``mine`` are an organisation's as a provider,
    and those in which it was affected as a customer.
    """
    rows = await connection.execute(
        f"""
        SELECT {_MONTH} FROM sla_months AS month
        WHERE (%(service)s::uuid IS NULL OR service_id = %(service)s)
          AND (%(mine)s::uuid IS NULL OR org_id = %(mine)s
              OR EXISTS (SELECT FROM sla_affected WHERE month_id = month.id AND org_id = %(mine)s)
              OR EXISTS (SELECT FROM sla_credits WHERE month_id = month.id AND org_id = %(mine)s))
          AND (NOT %(breached)s OR verdict = 'breached') AND (%(before)s::uuid IS NULL OR id < %(before)s)
        ORDER BY id DESC LIMIT %(limit)s
        """,
        {
            "service": service_id,
            "mine": mine,
            "breached": breached,
            "before": before,
            "limit": limit,
        },
    )
    return [row async for row in rows]


async def add_month(
    connection: Connection,
    objective: Objective,
    period: str,
    judgement: Judgement,
    fault: str,
    at: datetime,
    evidence: Mapping[str, Any],
) -> Row:
    availability = None if judgement.availability is None else percent_of(judgement.availability, 6)
    row = await (
        await connection.execute(
            f"""
            INSERT INTO sla_months (id, org_id, service_id, objective_id, period, verdict, availability, source, missed,
                credit, fault, judged_at, evidence)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING {_MONTH}
            """,
            (
                new_id(),
                objective.org_id,
                objective.service_id,
                objective.id,
                period,
                judgement.verdict,
                availability,
                judgement.source,
                list(judgement.missed),
                judgement.credit,
                fault,
                at,
                Jsonb(dict(evidence)),
            ),
        )
    ).fetchone()
    assert row is not None
    return row


async def add_affected(connection: Connection, month: UUID, predicate: Predicate) -> int:
    """Keep the organisations whose calls broke the promise; return how many."""
    where, values = predicate.broken()
    done = await connection.execute(
        f"""
        INSERT INTO sla_affected (month_id, org_id, calls)
        SELECT %(month)s, org_id, count(*) FROM usage
        WHERE {where} AND org_id IN (SELECT id FROM organisations) GROUP BY org_id
        """,
        {**values, "month": month},
    )
    return done.rowcount


async def affected(connection: Connection, month: UUID) -> list[Row]:
    rows = await connection.execute(
        "SELECT org_id, calls FROM sla_affected WHERE month_id = %s ORDER BY calls DESC, org_id", (month,)
    )
    return [row async for row in rows]


async def breaches_to_pay(connection: Connection, since: datetime) -> list[Row]:
    """Return the breaches judged since a time that credit something, the oldest first."""
    rows = await connection.execute(
        f"SELECT {_MONTH} FROM sla_months WHERE verdict = 'breached' AND credit > 0 AND judged_at >= %s ORDER BY id",
        (since,),
    )
    return [row async for row in rows]


async def uncredited(connection: Connection, month: Row) -> list[tuple[UUID, UUID]]:
    """Return the (invoice, organisation) pairs with lines that a breach has still to credit, in order of issue.

    On what was withdrawn, or is only shown, nothing is owed that could be given back.
    """
    rows = await connection.execute(
        """
        SELECT invoices.id AS invoice_id, invoices.org_id
        FROM invoice_lines AS line JOIN invoices ON invoices.id = line.invoice_id
            JOIN invoice_states AS standing ON standing.invoice_id = invoices.id
                AND standing.state <> ALL(%(without)s)
        WHERE line.service_id = %(service_id)s AND line.provider_org = %(org_id)s AND line.period = %(period)s
          AND line.taxable > 0
          AND (%(source)s::text = 'probes' AND 'availability' = ANY(%(missed)s::text[])
               OR EXISTS (SELECT FROM sla_affected WHERE month_id = %(id)s AND org_id = line.org_id))
          AND NOT EXISTS (SELECT FROM sla_credits WHERE month_id = %(id)s AND invoice_id = invoices.id)
        GROUP BY invoices.id, invoices.org_id, invoices.serial ORDER BY invoices.serial
        """,
        {**month, "without": [State.VOID, *OWED_BY_NOBODY]},
    )
    return [(row["invoice_id"], row["org_id"]) async for row in rows]


async def charged_lines(connection: Connection, month: Row, invoice: UUID) -> list[Row]:
    """Return an invoice's lines that charge a month of a listing, and what share of each its provider has.

    ``credited`` was given back of a line before, ``borne`` is the part of it that the provider bears its share of.
    """
    rows = await connection.execute(
        """
        SELECT id, taxable, provider_share, coalesce(credit.credited, 0) AS credited, coalesce(credit.borne, 0) AS borne
        FROM invoice_lines AS line, LATERAL (
            SELECT sum(taxable) AS credited, sum(taxable) FILTER (WHERE fault = 'provider') AS borne
            FROM credit_note_lines WHERE invoice_line_id = line.id) AS credit
        WHERE invoice_id = %s AND service_id = %s AND provider_org = %s AND period = %s AND taxable > 0
        ORDER BY position
        """,
        (invoice, month["service_id"], month["org_id"], month["period"]),
    )
    return [row async for row in rows]


async def is_credited(connection: Connection, month: UUID, invoice: UUID) -> bool:
    row = await (
        await connection.execute(
            "SELECT EXISTS (SELECT FROM sla_credits WHERE month_id = %s AND invoice_id = %s) AS found", (month, invoice)
        )
    ).fetchone()
    return bool(row and row["found"])


async def add_credit(
    connection: Connection,
    month: UUID,
    org: UUID,
    invoice: UUID,
    credit_note: UUID,
    taxable: Decimal,
    debited: Decimal,
    at: datetime,
) -> None:
    await connection.execute(
        """
        INSERT INTO sla_credits (id, month_id, org_id, invoice_id, credit_note_id, taxable, debited, posted_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (new_id(), month, org, invoice, credit_note, taxable, debited, at),
    )


async def credits(connection: Connection, month: UUID, org: UUID | None = None) -> list[Row]:
    """Return what a breach has credited, of one organisation or of all."""
    rows = await connection.execute(
        """
        SELECT org_id, invoice_id, credit_note_id, taxable, debited, posted_at FROM sla_credits
        WHERE month_id = %(month)s AND (%(org)s::uuid IS NULL OR org_id = %(org)s) ORDER BY id
        """,
        {"month": month, "org": org},
    )
    return [row async for row in rows]
