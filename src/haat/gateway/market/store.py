"""All SQL of what the gateway knows, run as `haat_service`, which sees every tenant. Never on the call path."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

import msgspec
from psycopg import AsyncServerCursor
from psycopg.rows import DictRow, dict_row, tuple_row

from haat.gateway.limits.plan import PlanLimits
from haat.gateway.market.policy import ApplicationPolicy, DivisionPolicy, ServicePolicy, VersionPolicy
from haat.gateway.market.snapshot import (
    Application,
    Credential,
    Directory,
    Part,
    Position,
    Price,
    Service,
    Subscription,
    Version,
    sharing,
)
from haat.infra.postgres import Connection
from haat.kernel.prices import Meter, component, meter_of
from haat.wallet.prices import asked

_CREDENTIALS = """
    SELECT id::text, org_id::text, application_id::text, key_hash,
           coalesce(extract(epoch FROM expires_at) * 1000000, 0)::bigint,
           coalesce(extract(epoch FROM revoked_at) * 1000000, 0)::bigint, starts_with(prefix, 'haat_test_'),
           CASE WHEN scopes @> '{invoke}' THEN '' ELSE
               ' ' || array_to_string(ARRAY(SELECT substr(scope, 8) FROM unnest(scopes) AS scope
                                            WHERE starts_with(scope, 'invoke:')), ' ') || ' ' END
    FROM credentials WHERE scheme = 'haat' AND (scopes @> '{invoke}' OR array_to_string(scopes, ' ') ~ '\\yinvoke:')
"""
_SUBSCRIPTIONS = """
    SELECT subscriptions.id, subscriptions.org_id, application_id, subscriptions.service_id, organisations.zone,
           plans.code, per_minute, per_hour, per_day, quota_per_month, max_concurrent, burst, quota_per_day, quota_unit,
           quota_reset, overage, fallback, cached_share::text AS cached_share, started_at,
           coalesce(wallet_modes.mode, wallets.mode) IS NOT DISTINCT FROM 'prepaid' AS prepaid, stops.list AS stops
    FROM subscriptions JOIN plans ON plans.id = plan_id
    JOIN organisations ON organisations.id = subscriptions.org_id
    JOIN applications ON applications.id = application_id
    LEFT JOIN wallets ON wallets.org_id = subscriptions.org_id
    LEFT JOIN wallet_modes ON wallet_modes.subscription_id = subscriptions.id
    LEFT JOIN LATERAL (
        SELECT array_agg(budget.id::text ORDER BY budget.id) AS list FROM wallet_budgets AS budget
        WHERE hard_stop AND budget.org_id = subscriptions.org_id
          AND coalesce(budget.application_id, applications.id) = applications.id
          AND coalesce(budget.subscription_id, subscriptions.id) = subscriptions.id
    ) AS stops ON true
    WHERE subscriptions.status = 'active' AND applications.archived_at IS NULL
"""
_APPLICATIONS = "SELECT id, policy FROM applications WHERE archived_at IS NULL AND policy <> '{}'"
_SERVICES = """
    SELECT services.id, services.org_id, provider_slug, services.slug, services.status, services.status_reason,
           services.status_at, services.sunset_at,
           services.unit, services.region, services.category, services.retains_inputs, services.visibility,
           services.max_requests_per_second, services.policy,
           partners.status AS partner_status, partners.reason AS partner_reason,
           partners.allowed_networks, coalesce(header, '') AS header, coalesce(ciphertext, '') AS ciphertext,
           coalesce(versions.list, '[]') AS versions, coalesce(prices.list, '[]') AS prices,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('name', name, 'aggregation', aggregation, 'measure', measure,
                'less', less, 'filter', filter)), '[]') FROM meters WHERE service_id = services.id) AS meters,
           divisions.policy AS division, coalesce(maintenance.list, '[]') AS maintenance
    FROM services JOIN partners ON partners.slug = provider_slug
    LEFT JOIN provider_credentials ON provider_credentials.service_id = services.id
    LEFT JOIN divisions ON divisions.service_id = services.id
    LEFT JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_object(
            'version', version, 'endpoint', endpoint, 'timeout_ms', timeout_ms, 'max_body_bytes', max_body_bytes,
            'max_units', coalesce(max_units::text, ''), 'dialect', dialect, 'is_default', is_default,
            'policy', policy, 'languages', languages, 'language_pairs', language_pairs, 'health_path', health_path
            ) ORDER BY created_at) AS list
        FROM service_versions
        WHERE service_id = services.id AND accepted_at IS NOT NULL AND retired_at IS NULL
    ) AS versions ON true
    LEFT JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_object(
            'plan', coalesce(plan_code, ''), 'unit', unit, 'unit_price', unit_price::text,
            'free_units', free_units::text, 'effective_from', (extract(epoch FROM effective_from) * 1000000)::bigint,
            'components', components
            )) AS list
        FROM rate_cards WHERE service_id = services.id AND NOT EXISTS (
            SELECT FROM rate_cards AS later
            WHERE later.service_id = services.id AND later.plan_code IS NOT DISTINCT FROM rate_cards.plan_code
              AND later.effective_from > rate_cards.effective_from AND later.effective_from < now() - interval '1 hour')
    ) AS prices ON true
    LEFT JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_array((extract(epoch FROM starts_at) * 1000000)::bigint,
                                           (extract(epoch FROM ends_at) * 1000000)::bigint) ORDER BY starts_at) AS list
        FROM sla_maintenance WHERE service_id = services.id AND cancelled_at IS NULL AND ends_at > now()
    ) AS maintenance ON true
    WHERE services.status <> 'draft'
"""
_TABLES = (
    "credentials",
    "subscriptions",
    "plans",
    "organisations",
    "applications",
    "services",
    "service_versions",
    "partners",
    "provider_credentials",
    "rate_cards",
    "meters",
    "divisions",
    "wallets",
    "wallet_modes",
    "wallet_budgets",
    "sla_maintenance",
)
_BATCH = 2_000


async def load(connection: Connection, directory: Directory) -> None:
    """Fill an empty directory. The transaction must be REPEATABLE READ, so that all parts fit together.

    Everything that committed before the position is in it; some of what comes after it may be, too, and is
    applied again later, which changes nothing.
    """
    await connection.execute("SET LOCAL cursor_tuple_fraction = 1")  # all rows are wanted, not the first ones soon
    directory.shape = await shape(connection)
    position = await _newest_settled(connection)
    shared: dict[Any, Any] = {}
    async with aclosing(_batches(connection, _CREDENTIALS)) as batches:
        async for rows in batches:
            directory.apply(sharing(Part(credentials=[Credential(*row) for row in rows]), shared))
    async with aclosing(_batches_of_dicts(connection, _SUBSCRIPTIONS)) as batches_of_dicts:
        async for found in batches_of_dicts:
            directory.apply(sharing(Part(subscriptions=[_subscription(row) for row in found]), shared))
    services = [_service(row) async for row in await connection.execute(_SERVICES)]
    applications = [_application(row) async for row in await connection.execute(_APPLICATIONS)]
    directory.apply(Part(position=position, services=services, applications=applications))
    directory.loaded = True


async def _batches(connection: Connection, query: str) -> AsyncGenerator[list[tuple[Any, ...]], None]:
    async with AsyncServerCursor(connection, "gateway_load", row_factory=tuple_row) as cursor:
        await cursor.execute(query, binary=True)
        while rows := await cursor.fetchmany(_BATCH):
            yield rows


async def _batches_of_dicts(
    connection: Connection, query: str, values: Mapping[str, Any] | None = None
) -> AsyncGenerator[list[dict[str, Any]], None]:
    async with AsyncServerCursor(connection, "gateway_load", row_factory=dict_row) as cursor:
        await cursor.execute(query, values)
        while rows := await cursor.fetchmany(_BATCH):
            yield rows


async def shape(connection: Connection) -> str:
    """Return a fingerprint of the tables' columns and of the queries here.

    What was kept under another one may lack what is asked for today.
    """
    row = await (
        await connection.execute(
            """
            SELECT md5(string_agg(concat_ws(' ', attrelid::regclass, attname, atttypid), ','
                                  ORDER BY attrelid, attnum)) AS columns
            FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped AND attrelid = ANY(%s::regclass[])
            """,
            (list(_TABLES),),
        )
    ).fetchone()
    assert row is not None
    queries = "".join((_CREDENTIALS, _SUBSCRIPTIONS, _SERVICES, _APPLICATIONS))
    return f"{row['columns']}-{zlib.crc32(queries.encode()):08x}"


async def _newest_settled(connection: Connection) -> Position:
    """Return the place in the event log before which no running transaction can still write."""
    row = await (
        await connection.execute(
            """
            SELECT xid::text::bigint AS xid, seq, id::text AS event FROM events
            WHERE xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY events.xid DESC, seq DESC LIMIT 1
            """
        )
    ).fetchone()
    return Position(**row) if row else Position()


async def continues(connection: Connection, position: Position, most: int) -> bool:
    """Tell whether this database's log goes on from a position, and at most so many events have come since."""
    row = await (
        await connection.execute(
            """
            SELECT EXISTS (SELECT FROM events WHERE xid = %(xid)s::text::xid8 AND seq = %(seq)s AND id = %(event)s)
                AND (SELECT count(*) FROM (
                    SELECT FROM events WHERE (xid, seq) > (%(xid)s::text::xid8, %(seq)s) LIMIT %(most)s + 1
                ) AS later) <= %(most)s AS continues
            """,
            {"xid": str(position.xid), "seq": position.seq, "event": position.event or None, "most": most},
        )
    ).fetchone()
    return bool(row and row["continues"])


async def credential(connection: Connection, identifier: UUID) -> Credential | None:
    async with connection.cursor(row_factory=tuple_row) as cursor:
        row = await (await cursor.execute(_CREDENTIALS + " AND id = %s", (identifier,))).fetchone()
    return Credential(*row) if row else None


async def subscription(connection: Connection, identifier: UUID) -> Subscription | None:
    row = await (await connection.execute(_SUBSCRIPTIONS + " AND subscriptions.id = %s", (identifier,))).fetchone()
    return _subscription(row) if row else None


async def subscriptions_of(
    connection: Connection, *, org: UUID | None, plan: UUID | None
) -> AsyncGenerator[list[Subscription], None]:
    """Yield the active subscriptions of an organisation or under a plan, some at a time: a plan can have very many."""
    query = _SUBSCRIPTIONS + " AND (subscriptions.org_id = %(org)s OR plan_id = %(plan)s)"
    by, found = {"org": org, "plan": plan}, list[Subscription]()
    async with (
        connection.cursor(row_factory=dict_row) as cursor,
        aclosing(cast("AsyncGenerator[DictRow, None]", cursor.stream(query, by, size=_BATCH))) as rows,
    ):
        async for row in rows:
            found.append(_subscription(row))
            if len(found) == _BATCH:
                yield found
                found = []
        if found:
            yield found


async def application(connection: Connection, identifier: UUID) -> Application | None:
    row = await (await connection.execute(_APPLICATIONS + " AND id = %s", (identifier,))).fetchone()
    return _application(row) if row else None


async def service(connection: Connection, identifier: UUID) -> Service | None:
    row = await (await connection.execute(_SERVICES + " AND services.id = %s", (identifier,))).fetchone()
    return _service(row) if row else None


async def services_of(connection: Connection, provider_org: UUID) -> list[Service]:
    rows = await connection.execute(_SERVICES + " AND services.org_id = %s", (provider_org,))
    return [_service(row) async for row in rows]


class Change(NamedTuple):
    """One event, as far as the gateway cares."""

    seq: int
    xid: int
    event: str
    stream: str


class Changes(NamedTuple):
    """Events in the order of their places. Before ``settled``, a transaction id, nothing can appear any more."""

    settled: int
    found: list[Change]


async def changes_after(connection: Connection, position: Position, seen: Iterable[int], limit: int = 1000) -> Changes:
    """Return the events after a position that have committed and whose ``seq`` is not among those seen.

    Unlike `infra.events.read_after` this does not wait for older transactions: a revocation must
    not wait for somebody's long transaction. The reader remembers what it has seen beyond the last
    settled one. With fewer than ``limit`` there are no more for now.
    """
    rows = await connection.execute(
        """
        SELECT settled, change.seq, change.xid, change.event, change.stream
        FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS settled) AS now
        LEFT JOIN LATERAL (
            SELECT seq, xid::text::bigint AS xid, id::text AS event, stream FROM events
            WHERE (events.xid, seq) > (%s::text::xid8, %s) AND seq <> ALL(%s)
            ORDER BY events.xid, seq LIMIT %s
        ) AS change ON true ORDER BY change.xid, change.seq
        """,
        (str(position.xid), position.seq, list(seen), limit),
    )
    settled, found = 0, []
    async for row in rows:
        settled = row.pop("settled")
        if row["seq"] is not None:
            found.append(Change(**row))
    return Changes(settled, found)


def _micros(at: datetime | None) -> int:
    return int(at.timestamp() * 1_000_000) if at is not None else 0


def _subscription(row: Mapping[str, Any]) -> Subscription:
    return Subscription(
        id=str(row["id"]),
        org=str(row["org_id"]),
        application=str(row["application_id"]),
        service=str(row["service_id"]),
        plan=row["code"],
        limits=PlanLimits(**{field: row[field] for field in PlanLimits.__struct_fields__}),
        zone=row["zone"],
        started_at=_micros(row["started_at"]),
        fallback=row["fallback"],
        cached_share=row["cached_share"],
        prepaid=row["prepaid"],
        stops=tuple(row["stops"] or ()),
    )


def _application(row: Mapping[str, Any]) -> Application:
    return Application(str(row["id"]), msgspec.convert(row["policy"], ApplicationPolicy))


def _service(row: Mapping[str, Any]) -> Service:
    provider_stopped = row["partner_status"] == "suspended"
    versions = row["versions"]
    meters = {one["name"]: meter_of(one) for one in row["meters"]}
    return Service(
        id=str(row["id"]),
        provider=row["provider_slug"],
        provider_org=str(row["org_id"]),
        slug=row["slug"],
        status="suspended" if provider_stopped else row["status"],
        reason=row["partner_reason"] if provider_stopped else row["status_reason"],
        unit=row["unit"],
        region=row["region"],
        networks=tuple(row["allowed_networks"]),
        credential_header=row["header"],
        credential=bytes(row["ciphertext"]),
        versions=tuple(_version(version) for version in versions),
        default_version=next((v["version"] for v in versions if v["is_default"]), ""),
        policy=msgspec.convert(row["policy"], ServicePolicy),
        category=row["category"],
        retains_inputs=row["retains_inputs"],
        max_per_second=row["max_requests_per_second"],
        visibility=row["visibility"],
        deprecated_at=_micros(row["status_at"]) if row["status"] == "deprecated" else 0,
        sunset_at=_micros(row["sunset_at"]),
        prices=tuple(_price(price, meters) for price in row["prices"]),
        division=msgspec.convert(row["division"], DivisionPolicy) if row["division"] else None,
        maintenance=tuple((start, end) for start, end in row["maintenance"]),
    )


def _price(row: Mapping[str, Any], meters: Mapping[str, Meter]) -> Price:
    components = [component(one, meters) for one in row["components"]]
    most = tuple((one.unit, f"{one.price:f}", f"{one.size:f}", f"{one.begun:f}") for one in asked(components))
    plain = not components
    return Price(**{name: value for name, value in row.items() if name != "components"}, plain=plain, most=most)


def _version(row: Mapping[str, Any]) -> Version:
    return Version(
        row["version"],
        row["endpoint"],
        row["timeout_ms"],
        row["max_body_bytes"],
        row["max_units"],
        row["dialect"],
        msgspec.convert(row["policy"], VersionPolicy),
        tuple(row["languages"]),
        tuple(row["language_pairs"]),
        row["health_path"],
    )
