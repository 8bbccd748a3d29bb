"""All SQL of the catalog. Who sees which service is decided by row-level security on ``services``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.errors import ForeignKeyViolation, UniqueViolation
from psycopg.types.json import Jsonb

from haat.catalog.drafts import PriceDraft, ServiceDraft, ServicePolicyDraft, VersionDraft, VersionPolicyDraft
from haat.catalog.model import Listing, Price, Version
from haat.catalog.pricing import component_of, headline
from haat.infra.postgres import Connection
from haat.kernel.clock import check_ahead
from haat.kernel.errors import AlreadyExists, ConcurrentChange, Conflict, NotFound, ValidationFailed
from haat.kernel.prices import Component, Meter, check_components, meter_of
from haat.language.messages import _

_LISTING = """
    services.id, services.org_id, services.provider_slug,
    (SELECT name FROM organisations WHERE organisations.id = services.org_id) AS provider_name,
    services.slug, services.name, services.summary, services.description, services.category, services.visibility,
    services.status, services.status_reason, services.status_at, services.sunset_at, services.pricing_model,
    services.unit, services.region, services.retains_inputs, services.trains, services.max_requests_per_second,
    services.typical_latency_ms, services.uptime_sla, services.docs_url, services.created_at,
    coalesce(version.languages, '{}') AS languages, coalesce(version.language_pairs, '{}') AS language_pairs,
    price.unit_price, price.free_units, services.policy, coalesce(price.components, '[]') AS components,
    coalesce(price.minimum, 0) AS minimum
"""
_FROM = """
    services
    LEFT JOIN service_versions AS version ON version.service_id = services.id AND version.is_default
    LEFT JOIN LATERAL (
        SELECT unit_price, free_units, components, minimum FROM rate_cards
        WHERE rate_cards.service_id = services.id AND plan_code IS NULL AND effective_from <= %(at)s
        ORDER BY effective_from DESC LIMIT 1
    ) AS price ON true
"""


async def add_service(
    connection: Connection, identifier: UUID, org_id: UUID, provider_slug: str, draft: ServiceDraft, at: datetime
) -> None:
    try:
        async with connection.transaction():
            await connection.execute(
                """
                INSERT INTO services (id, org_id, provider_slug, slug, name, summary, description, category, visibility,
                    status, status_at, unit, region, retains_inputs, trains, max_requests_per_second,
                    typical_latency_ms, uptime_sla, docs_url, policy, created_at)
                VALUES (%(id)s, %(org_id)s, %(provider_slug)s, %(slug)s, %(name)s, %(summary)s, %(description)s,
                    %(category)s, %(visibility)s, 'draft', %(at)s, %(unit)s, %(region)s, %(retains_inputs)s, %(trains)s,
                    %(max_requests_per_second)s, %(typical_latency_ms)s, %(uptime_sla)s, %(docs_url)s, %(policy)s,
                    %(at)s)
                """,
                {
                    **draft.model_dump(exclude={"version", "price"}),
                    "policy": _policy(draft.policy),
                    "id": identifier,
                    "org_id": org_id,
                    "provider_slug": provider_slug,
                    "at": at,
                },
            )
    except UniqueViolation as error:
        raise AlreadyExists(
            _("You already have a service called %(slug)s: add a version to it instead.", slug=draft.slug)
        ) from error


async def add_version(
    connection: Connection, identifier: UUID, service_id: UUID, draft: VersionDraft, at: datetime
) -> None:
    try:
        async with connection.transaction():
            await connection.execute(
                """
                INSERT INTO service_versions (id, service_id, version, endpoint, dialect, health_path, languages,
                    language_pairs, sample, openapi, timeout_ms, warm_up_seconds, max_body_bytes, max_units, policy,
                    created_at)
                VALUES (%(id)s, %(service_id)s, %(version)s, %(endpoint)s, %(dialect)s, %(health_path)s, %(languages)s,
                    %(language_pairs)s, %(sample)s, %(openapi)s, %(timeout_ms)s, %(warm_up_seconds)s,
                    %(max_body_bytes)s, %(max_units)s, %(policy)s, %(at)s)
                """,
                {
                    **draft.model_dump(),
                    "endpoint": draft.endpoint.rstrip("/"),
                    "policy": _policy(draft.policy),
                    "sample": Jsonb(draft.sample.model_dump(mode="json")),
                    "openapi": Jsonb(draft.openapi) if draft.openapi is not None else None,
                    "id": identifier,
                    "service_id": service_id,
                    "at": at,
                },
            )
    except UniqueViolation as error:
        raise AlreadyExists(
            _("Version %(version)s exists: a version is never replaced, give it a new name.", version=draft.version)
        ) from error


async def accept_version(
    connection: Connection, service_id: UUID, version_id: UUID, at: datetime, *, default: bool = True
) -> None:
    """Mark a version as accepted; make it the default one, unless it only adapts another."""
    if not default:
        await connection.execute("UPDATE service_versions SET accepted_at = %s WHERE id = %s", (at, version_id))
        return
    await connection.execute(
        "UPDATE service_versions SET is_default = false WHERE service_id = %s AND is_default", (service_id,)
    )
    await connection.execute(
        "UPDATE service_versions SET accepted_at = %s, is_default = true WHERE id = %s", (at, version_id)
    )


async def is_divided(connection: Connection, service_id: UUID) -> bool:
    """Tell whether a rollout or an experiment divides a service's calls."""
    row = await (
        await connection.execute(
            "SELECT EXISTS (SELECT FROM divisions WHERE service_id = %s) AS divided", (service_id,)
        )
    ).fetchone()
    return bool(row and row["divided"])


async def set_endpoint(connection: Connection, version_id: UUID, endpoint: str) -> None:
    await connection.execute(
        "UPDATE service_versions SET endpoint = %s WHERE id = %s", (endpoint.rstrip("/"), version_id)
    )


async def set_version_policy(connection: Connection, version_id: UUID, policy: VersionPolicyDraft) -> None:
    """Replace a version's policy, but for what was announced of its end."""
    await connection.execute(
        """
        UPDATE service_versions SET policy = %s || (
            SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(policy)
            WHERE key IN ('deprecated_at', 'sunset_at', 'successor'))
        WHERE id = %s
        """,
        (_policy(policy), version_id),
    )


async def announce_end(
    connection: Connection,
    version_id: UUID,
    *,
    deprecated_at: datetime | None,
    sunset_at: datetime | None,
    successor: str,
) -> None:
    """Set what is announced of a version's end; None takes it back."""
    told: dict[str, Any] = {"successor": successor} if successor else {}
    for name, at in (("deprecated_at", deprecated_at), ("sunset_at", sunset_at)):
        if at is not None:
            told[name] = int(at.timestamp() * 1_000_000)
    await connection.execute(
        """
        UPDATE service_versions SET policy = (policy - 'deprecated_at' - 'sunset_at' - 'successor') || %s
        WHERE id = %s
        """,
        (Jsonb(told), version_id),
    )


async def set_policy(connection: Connection, service_id: UUID, policy: ServicePolicyDraft) -> None:
    """Replace a service's policy, but for the count of its purges."""
    await connection.execute(
        """
        UPDATE services SET policy = %s || CASE WHEN policy ? 'cache_generation'
            THEN jsonb_build_object('cache_generation', policy -> 'cache_generation') ELSE '{}' END
        WHERE id = %s
        """,
        (_policy(policy), service_id),
    )


async def purge_cache(connection: Connection, service_id: UUID) -> int:
    """Have every gateway forget a service's answers; return how often that has been done."""
    row = await (
        await connection.execute(
            """
            UPDATE services SET policy = policy || jsonb_build_object(
                'cache_generation', coalesce((policy ->> 'cache_generation')::bigint, 0) + 1)
            WHERE id = %s RETURNING (policy ->> 'cache_generation')::bigint AS generation
            """,
            (service_id,),
        )
    ).fetchone()
    assert row is not None
    return int(row["generation"])


def _policy(draft: ServicePolicyDraft | VersionPolicyDraft) -> Jsonb:
    """Return a policy as it is kept: what is as usual is left out, so that the usual can change."""
    return Jsonb(draft.model_dump(mode="json", exclude_defaults=True))


async def versions(connection: Connection, service_id: UUID) -> list[Version]:
    rows = await connection.execute(
        """
        SELECT id, version, endpoint, dialect, languages, language_pairs, sample, openapi, timeout_ms, warm_up_seconds,
               health_path, max_body_bytes, is_default, accepted_at, retired_at, created_at, policy
        FROM service_versions WHERE service_id = %s ORDER BY created_at DESC, id DESC
        """,
        (service_id,),
    )
    return [
        Version(**{**row, "languages": tuple(row["languages"]), "language_pairs": tuple(row["language_pairs"])})
        async for row in rows
    ]


async def set_status(connection: Connection, service_id: UUID, status: str, reason: str, at: datetime) -> None:
    await connection.execute(
        "UPDATE services SET status = %s, status_reason = %s, status_at = %s WHERE id = %s",
        (status, reason, at, service_id),
    )


async def set_sunset(connection: Connection, service_id: UUID, sunset_at: datetime | None) -> None:
    await connection.execute("UPDATE services SET sunset_at = %s WHERE id = %s", (sunset_at, service_id))


async def invite(connection: Connection, service_id: UUID, org_id: UUID) -> None:
    try:
        async with connection.transaction():
            await connection.execute(
                "INSERT INTO service_invitations (service_id, org_id) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (service_id, org_id),
            )
    except ForeignKeyViolation as error:
        raise NotFound(_("There is no such organisation.")) from error


async def set_provider_credential(
    connection: Connection, service_id: UUID, org_id: UUID, header: str, ciphertext: bytes, last_four: str, at: datetime
) -> None:
    await connection.execute(
        """
        INSERT INTO provider_credentials (service_id, org_id, header, ciphertext, last_four, created_at)
        VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (service_id) DO UPDATE
        SET header = excluded.header, ciphertext = excluded.ciphertext, last_four = excluded.last_four,
            created_at = excluded.created_at
        """,
        (service_id, org_id, header, ciphertext, last_four, at),
    )


async def provider_credential(connection: Connection, service_id: UUID) -> tuple[str, bytes] | None:
    """Return the header's name and the encrypted value that the provider expects."""
    row = await (
        await connection.execute(
            "SELECT header, ciphertext FROM provider_credentials WHERE service_id = %s", (service_id,)
        )
    ).fetchone()
    return (row["header"], bytes(row["ciphertext"])) if row else None


async def add_price(
    connection: Connection,
    identifier: UUID,
    service_id: UUID,
    unit: str,
    draft: PriceDraft,
    share: Decimal,
    at: datetime,
) -> int:
    """Add the next version of a rate card and return its number; raise ValidationFailed for one that can't be charged.

    Versions begin in their order: raise Conflict for one that would begin before the newest does. ``share`` is the
    provider's of a listing without a card: a new price leaves the split as it is.
    """
    parts = await components(connection, service_id, draft)
    unit_price, free_units = headline(parts, unit) if parts else (draft.unit_price, draft.free_units)
    begins = at if draft.effective_from is None else check_ahead(draft.effective_from, at, "effective_from")
    values = {
        "plan_code": draft.plan_code,
        "unit_price": unit_price,
        "free_units": free_units,
        "components": Jsonb([one.data() for one in parts]),
        "minimum": draft.minimum,
        "id": identifier,
        "service_id": service_id,
        "unit": unit,
        "share": share,
        "at": at,
        "from": begins,
    }
    newest = await (
        await connection.execute(
            """
            SELECT version, effective_from FROM rate_cards
            WHERE service_id = %(service_id)s AND plan_code IS NOT DISTINCT FROM %(plan_code)s
            ORDER BY effective_from DESC LIMIT 1
            """,
            values,
        )
    ).fetchone()
    if newest is None and draft.plan_code is None and begins > at:
        message = _("The first price begins at once: until then usage would have none.")
        raise ValidationFailed(errors=[{"field": "effective_from", "message": message}])
    if newest is not None and newest["effective_from"] > begins:
        since = newest["effective_from"].isoformat()
        raise Conflict(
            _(
                "Version %(version)s begins at %(since)s: a price that begins earlier would overlap it.",
                version=newest["version"],
                since=since,
            )
        )
    try:
        async with connection.transaction():
            row = await (
                await connection.execute(
                    """
                    INSERT INTO rate_cards (id, service_id, version, plan_code, unit, unit_price, free_units,
                        components, minimum, provider_share, effective_from, created_at)
                    SELECT %(id)s, %(service_id)s, coalesce(max(version), 0) + 1, %(plan_code)s, %(unit)s,
                           %(unit_price)s, %(free_units)s, %(components)s, %(minimum)s,
                           coalesce((SELECT provider_share FROM rate_cards WHERE service_id = %(service_id)s
                                     AND (plan_code IS NULL OR plan_code = %(plan_code)s) AND effective_from <= %(from)s
                                     ORDER BY plan_code IS NULL, effective_from DESC LIMIT 1), %(share)s),
                           %(from)s, %(at)s
                    FROM rate_cards WHERE service_id = %(service_id)s AND plan_code IS NOT DISTINCT FROM %(plan_code)s
                    RETURNING version
                    """,
                    values,
                )
            ).fetchone()
    except UniqueViolation as error:
        raise ConcurrentChange(_("Another price begins at the same moment: look at it and try again.")) from error
    assert row is not None
    return int(row["version"])


async def components(connection: Connection, service_id: UUID, draft: PriceDraft) -> tuple[Component, ...]:
    """Return what a price asks for on a listing's meters; raise ValidationFailed for what can't be charged."""
    own = await meters(connection, service_id) if draft.components else {}
    try:
        parts = tuple(component_of(one, own) for one in draft.components)
        check_components(parts, draft.minimum)
    except ValueError as error:
        raise ValidationFailed(errors=[{"field": "components", "message": str(error)}]) from error
    return parts


async def add_meter(connection: Connection, identifier: UUID, service_id: UUID, meter: Meter, at: datetime) -> None:
    """Add a meter to a listing; raise AlreadyExists, for cards name it and a bill may have been made by it."""
    try:
        async with connection.transaction():
            await connection.execute(
                """
                INSERT INTO meters (id, service_id, name, aggregation, measure, less, filter, created_at)
                VALUES (%(id)s, %(service_id)s, %(name)s, %(aggregation)s, %(measure)s, %(less)s, %(filter)s, %(at)s)
                """,
                {
                    **meter.data(),
                    "filter": Jsonb(meter.filter.data()),
                    "id": identifier,
                    "service_id": service_id,
                    "at": at,
                },
            )
    except UniqueViolation as error:
        raise AlreadyExists(
            _("A meter is never changed: %(name)s exists, choose another name.", name=meter.name)
        ) from error


async def meters(connection: Connection, service_id: UUID) -> dict[str, Meter]:
    """Return a listing's own meters by name."""
    rows = await connection.execute(
        "SELECT name, aggregation, measure, less, filter FROM meters WHERE service_id = %s ORDER BY name", (service_id,)
    )
    return {row["name"]: meter_of(row) async for row in rows}


async def prices(connection: Connection, service_id: UUID, at: datetime) -> list[Price]:
    """Return the prices in force: the common one first, then those of single plans."""
    rows = await connection.execute(
        """
        SELECT DISTINCT ON (plan_code) id, version, plan_code, unit, unit_price, free_units, provider_share,
               effective_from, components, minimum
        FROM rate_cards WHERE service_id = %s AND effective_from <= %s
        ORDER BY plan_code NULLS FIRST, effective_from DESC
        """,
        (service_id, at),
    )
    return [Price(**row) async for row in rows]


async def price_history(connection: Connection, service_id: UUID) -> list[Price]:
    """Return every version of a listing's prices, those to come included, the latest first."""
    rows = await connection.execute(
        """
        SELECT id, version, plan_code, unit, unit_price, free_units, provider_share, effective_from, components, minimum
        FROM rate_cards WHERE service_id = %s ORDER BY effective_from DESC, plan_code NULLS FIRST
        """,
        (service_id,),
    )
    return [Price(**row) async for row in rows]


async def listing(connection: Connection, provider_slug: str, slug: str, at: datetime) -> Listing:
    row = await (
        await connection.execute(
            f"SELECT {_LISTING} FROM {_FROM} WHERE services.provider_slug = %(provider)s AND services.slug = %(slug)s",
            {"provider": provider_slug, "slug": slug, "at": at},
        )
    ).fetchone()
    if row is None:
        raise NotFound(_("No such listing, or it is not open to you."))
    return _listing(row)


async def listing_by_id(connection: Connection, identifier: UUID, at: datetime) -> Listing:
    row = await (
        await connection.execute(
            f"SELECT {_LISTING} FROM {_FROM} WHERE services.id = %(id)s", {"id": identifier, "at": at}
        )
    ).fetchone()
    if row is None:
        raise NotFound(_("No such listing, or it is not open to you."))
    return _listing(row)


async def lock_service(connection: Connection, identifier: UUID) -> None:
    await connection.execute("SELECT FROM services WHERE id = %s FOR UPDATE", (identifier,))


async def of_provider(connection: Connection, org_id: UUID, at: datetime) -> list[Listing]:
    rows = await connection.execute(
        f"SELECT {_LISTING} FROM {_FROM} WHERE services.org_id = %(org)s ORDER BY services.name, services.id",
        {"org": org_id, "at": at},
    )
    return [_listing(row) async for row in rows]


async def listings_by_id(connection: Connection, identifiers: Sequence[UUID], at: datetime) -> list[Listing]:
    """Return the listings among these that may be seen, in the order of their ids here."""
    rows = await connection.execute(
        f"SELECT {_LISTING} FROM {_FROM} WHERE services.id = ANY(%(ids)s)", {"ids": list(identifiers), "at": at}
    )
    found = {row["id"]: _listing(row) async for row in rows}
    return [found[identifier] for identifier in identifiers if identifier in found]


def _listing(row: Mapping[str, Any]) -> Listing:
    return Listing(**{**row, "languages": tuple(row["languages"]), "language_pairs": tuple(row["language_pairs"])})
