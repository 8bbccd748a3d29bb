"""Webhooks: where applications want to be told that a job has ended, and telling them (Standard Webhooks 1.0)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import httpx
import msgspec

from haat.infra import events
from haat.infra.jobs import Jobs
from haat.infra.keyring import Keyring
from haat.infra.net import IPNetwork, check_url, resolve
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database, tenant
from haat.jobs import signing
from haat.jobs import webhook_store as store
from haat.jobs.webhook_store import Attempt, Delivery, Endpoint
from haat.kernel.clock import Clock
from haat.kernel.errors import AddressForbidden, Conflict, HaatError, NotFound
from haat.kernel.events import DomainEvent
from haat.kernel.ids import new_id
from haat.kernel.pages import Page, decode_id_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _

DELIVER = "caller_jobs.deliver"
"""The durable task that makes the attempts of one delivery."""
MOST_ENDPOINTS = 10
ATTEMPT_SECONDS = 15.0
OLD_SECRET_HOURS = 24
_GONE = 410
_encode = msgspec.json.Encoder().encode


class NotDelivered(Exception):
    """An attempt failed and another one is to be made."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An endpoint, and its secret where that is new: the only time it is seen."""

    endpoint: Endpoint
    secret: str | None = None


class Webhooks:
    """The use cases of an organisation's members, and of the worker."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        keyring: Keyring,
        jobs: Jobs,
        *,
        allowed: Sequence[IPNetwork],
        https_only: bool,
    ) -> None:
        self._db, self._clock, self._keyring, self._jobs = db, clock, keyring, jobs
        self._allowed, self._https_only = tuple(allowed), https_only

    # --- endpoints ------------------------------------------------------------------------------

    async def add(self, actor: Actor, application: UUID, url: str) -> Shown:
        """Add an endpoint; its secret is seen in the answer alone.

        Raise AddressForbidden for an address that may not be called, NotFound for another's application, Conflict
        beyond ten of an application.
        """
        org, now = _org(actor), self._clock.now()
        await self._check(url)
        secret, identifier = signing.new_secret(), new_id()
        endpoint = Endpoint(
            identifier, org, application, url, self._seal(identifier, secret), None, None, now, None, ""
        )
        async with self._db.transaction(tenant(org)) as connection:
            owned = await connection.execute(
                "SELECT FROM applications WHERE id = %s AND org_id = %s AND archived_at IS NULL FOR UPDATE",
                (application, org),
            )
            if await owned.fetchone() is None:
                raise NotFound(_("There is no such application."))
            if len(await store.endpoints(connection, org, application)) >= MOST_ENDPOINTS:
                raise Conflict(
                    _(
                        "An application has at most %(most_endpoints)s endpoints: delete one first.",
                        most_endpoints=MOST_ENDPOINTS,
                    )
                )
            await store.add_endpoint(connection, endpoint)
            await self._tell(connection, endpoint, "webhook.added", actor, {"application": str(application)})
        return Shown(endpoint, secret)

    async def endpoints(self, actor: Actor) -> list[Endpoint]:
        """Return the organisation's endpoints, oldest first."""
        async with self._db.transaction(tenant(_org(actor, edit=False))) as connection:
            return await store.endpoints(connection, _org(actor, edit=False))

    async def rotate(self, actor: Actor, identifier: UUID) -> Shown:
        """Give an endpoint a new secret; the old one signs beside it for 24 hours."""
        org, now = _org(actor), self._clock.now()
        secret = signing.new_secret()
        async with self._db.transaction(tenant(org)) as connection:
            endpoint = _there(await store.endpoint(connection, identifier, for_change=True))
            until = now + timedelta(hours=OLD_SECRET_HOURS)
            sealed = self._seal(identifier, secret)
            await store.set_secret(connection, identifier, sealed, endpoint.secret, until)
            await self._tell(connection, endpoint, "webhook.rotated", actor, {})
        return Shown(replace(endpoint, secret=sealed, old_secret=endpoint.secret, old_secret_until=until), secret)

    async def enable(self, actor: Actor, identifier: UUID) -> Endpoint:
        """Let an endpoint that was disabled be told again."""
        async with self._db.transaction(tenant(_org(actor))) as connection:
            endpoint = _there(await store.endpoint(connection, identifier, for_change=True))
            await store.set_disabled(connection, identifier, None, "")
            await self._tell(connection, endpoint, "webhook.enabled", actor, {})
        return replace(endpoint, disabled_at=None, disabled_reason="")

    async def delete(self, actor: Actor, identifier: UUID) -> None:
        """Delete an endpoint; what waits for it is not delivered."""
        async with self._db.transaction(tenant(_org(actor))) as connection:
            endpoint = _there(await store.endpoint(connection, identifier, for_change=True))
            await store.delete_endpoint(connection, identifier, self._clock.now())
            await self._tell(connection, endpoint, "webhook.deleted", actor, {})

    # --- the log --------------------------------------------------------------------------------

    async def deliveries(
        self, actor: Actor, *, job: UUID | None = None, endpoint: UUID | None = None, cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Delivery]:  # fmt: skip
        """Return what was delivered, or is to be, newest first."""
        org = _org(actor, edit=False)
        async with self._db.transaction(tenant(org)) as connection:
            found = await store.deliveries(
                connection, org, job=job, endpoint_id=endpoint, before=decode_id_cursor(cursor), limit=limit
            )
        return page_of(found, limit, lambda delivery: (delivery.id,))

    async def delivery(self, actor: Actor, identifier: UUID) -> tuple[Delivery, list[Attempt]]:
        """Return one with its attempts; raise NotFound for another organisation's."""
        async with self._db.transaction(tenant(_org(actor, edit=False))) as connection:
            found = await store.delivery(connection, identifier)
            if found is None:
                raise NotFound(_("There is no such delivery."))
            return found, await store.attempts(connection, identifier)

    async def resend(self, actor: Actor, identifier: UUID) -> Delivery:
        """Deliver a message again, with the same id, whatever became of it before."""
        async with self._db.transaction(tenant(_org(actor))) as connection:
            found = await store.delivery(connection, identifier)
            if found is None:
                raise NotFound(_("There is no such delivery."))
            endpoint = await store.endpoint(connection, found.endpoint_id)
            if endpoint is None or endpoint.disabled_at is not None:
                raise Conflict(_("The endpoint is deleted or disabled: enable it, or add it again."))
            await store.set_status(connection, identifier, "waiting", None)
            await self._jobs.defer(connection, DELIVER, {"delivery": str(identifier)})
            return replace(found, status="waiting")

    # --- telling --------------------------------------------------------------------------------

    async def note(self, event: DomainEvent, data: dict[str, Any], org: UUID, application: UUID, job: UUID) -> None:
        """Have every endpoint of an application told of an event, once however often this is asked for."""
        said = {"type": event.type, "timestamp": event.at.isoformat(), "data": data}
        body = _encode(said).decode()
        async with self._db.transaction(tenant(org)) as connection:
            for endpoint in await store.endpoints(connection, org, application):
                if endpoint.disabled_at is not None:
                    continue
                identifier = new_id()
                added = await store.add_delivery(
                    connection,
                    identifier=identifier,
                    org=org,
                    endpoint_id=endpoint.id,
                    job=job,
                    event=event.id,
                    type=event.type,
                    body=body,
                    at=self._clock.now(),
                )
                if added:
                    await self._jobs.defer(connection, DELIVER, {"delivery": str(identifier)})

    async def attempt(self, identifier: UUID, *, last: bool) -> None:
        """Make one attempt at a delivery and log it; raise NotDelivered when another one is to follow."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            found = await store.delivery(connection, identifier)
            endpoint = await store.endpoint(connection, found.endpoint_id) if found else None
        if found is None or found.status == "delivered":
            return
        if endpoint is None or endpoint.disabled_at is not None:
            async with self._db.transaction(tenant(found.org_id)) as connection:
                await store.set_status(connection, identifier, "failed", None)
            return
        started, now = time.monotonic(), self._clock.now()
        status, error = await self._post(endpoint, found)
        took = int((time.monotonic() - started) * 1000)
        good = status is not None and 200 <= status < 300
        async with self._db.transaction(tenant(found.org_id)) as connection:
            await store.add_attempt(connection, identifier, found.org_id, now, status, error, took)
            if good:
                await store.set_status(connection, identifier, "delivered", now)
            elif last or status == _GONE:
                await store.set_status(connection, identifier, "failed", None)
            if status == _GONE:
                await store.set_disabled(connection, endpoint.id, now, "It answered 410 Gone.")
        if not good and status != _GONE:
            raise NotDelivered(error or f"The endpoint answered {status}.")

    async def _post(self, endpoint: Endpoint, delivery: Delivery) -> tuple[int | None, str]:
        """Send a message to the one address that was checked; return the answer's status, or why there is none."""
        body, at = delivery.body.encode(), int(self._clock.now().timestamp())
        headers = signing.headers(self._secrets(endpoint), f"msg_{delivery.id.hex}", at, body)
        try:
            scheme, host, port = check_url(endpoint.url, https_only=self._https_only)
            address = await resolve(host, port, self._allowed)
        except HaatError as error:
            return None, error.detail
        parts = urlsplit(endpoint.url)
        shown = f"[{address}]" if address.version == 6 else str(address)
        dialled = urlunsplit((scheme, f"{shown}:{port}", parts.path or "/", parts.query, ""))
        headers |= {"host": parts.netloc, "user-agent": "Haat-Webhooks/1"}
        try:
            async with (
                httpx.AsyncClient(timeout=ATTEMPT_SECONDS, trust_env=False, follow_redirects=False) as client,
                client.stream(
                    "POST", dialled, content=body, headers=headers, extensions={"sni_hostname": host}
                ) as response,
            ):
                status = response.status_code
        except httpx.HTTPError as error:
            return None, (str(error) or type(error).__name__)[:500]
        return status, "" if 200 <= status < 300 else f"The endpoint answered {status}."

    def _secrets(self, endpoint: Endpoint) -> list[str]:
        context = f"webhook/{endpoint.id}"
        found = [self._keyring.decrypt(endpoint.secret, context)]
        until = endpoint.old_secret_until
        if endpoint.old_secret is not None and until is not None and until > self._clock.now():
            found.append(self._keyring.decrypt(endpoint.old_secret, context))
        return found

    def _seal(self, identifier: UUID, secret: str) -> bytes:
        return self._keyring.encrypt(secret, f"webhook/{identifier}")

    async def _check(self, url: str) -> None:
        """Raise AddressForbidden for an address that may not be called; it is checked at every attempt again."""
        if len(url) > 2000 or not url.isascii():
            raise AddressForbidden(_("Write the address in at most 2,000 characters of ASCII."), field="url")
        try:
            _scheme, host, port = check_url(url, https_only=self._https_only)
            await resolve(host, port, self._allowed)
        except AddressForbidden as error:
            raise AddressForbidden(error.detail, field="url") from error

    async def _tell(
        self, connection: Connection, endpoint: Endpoint, type: str, actor: Actor, data: dict[str, str]
    ) -> None:
        await events.append(
            connection,
            stream=f"webhook/{endpoint.id}",
            type=type,
            data=data,
            actor=actor.label,
            org=endpoint.org_id,
            at=self._clock.now(),
        )


def _there(endpoint: Endpoint | None) -> Endpoint:
    if endpoint is None:
        raise NotFound(_("There is no such endpoint."))
    return endpoint


def _org(actor: Actor, *, edit: bool = True) -> UUID:
    if edit:
        actor.require(Permission.APPLICATIONS_EDIT)
    if actor.org_id is None:
        raise NotFound
    return actor.org_id
