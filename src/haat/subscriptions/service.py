"""Use cases of plans and subscriptions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from haat.catalog.discovery import Discovery
from haat.identity.service import Identity
from haat.infra import events
from haat.infra.postgres import Connection, Database, Scope, tenant
from haat.kernel.clock import Clock
from haat.kernel.errors import Conflict, NotFound, PermissionDenied
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor, Permission
from haat.kernel.text import check_name
from haat.language.messages import _, gettext
from haat.partners.model import check_slug
from haat.subscriptions import store
from haat.subscriptions.model import TERMS, Plan, Subscription, Terms, check_terms


class Subscriptions:
    """Plans, and applications subscribed to services on them."""

    def __init__(self, db: Database, clock: Clock, identity: Identity, discovery: Discovery) -> None:
        self._db = db
        self._clock = clock
        self._identity = identity
        self._discovery = discovery

    async def plans(self, service_id: UUID | None = None) -> list[Plan]:
        """Return the plans a developer may choose for a service, smallest first."""
        async with self._db.transaction(Scope()) as connection:
            return await store.plans(connection, service_id)

    async def define_plan(
        self, actor: Actor, service_id: UUID, *, code: str, name: str, rank: int = 5, **terms: Any
    ) -> Plan:
        """Add a provider's own plan for one of its services; ``terms`` are the members of `Terms`.

        A plan that names no limit gets 60 a minute and 1,000 an hour.
        """
        await self._own_listing(actor, service_id)
        plan = Plan(
            id=new_id(),
            service_id=service_id,
            code=check_slug(code, "code"),
            name=check_name(name),
            listed=True,
            rank=rank,
            **_members(check_terms(Terms(**terms))),
        )
        async with self._db.transaction(tenant(actor.org_id)) as connection:
            await store.add_plan(connection, plan, self._clock.now())
            await self._record_plan(connection, actor, plan, "plan.defined")
        return plan

    async def redefine_plan(self, actor: Actor, service_id: UUID, code: str, **terms: Any) -> Plan:
        """Change what a provider's own plan allows, for its present subscribers too; raise NotFound.

        What they have used counts on. ``terms`` are the members of `Terms` that change.
        """
        await self._own_listing(actor, service_id)
        async with self._db.transaction(tenant(actor.org_id)) as connection:
            present = await store.own_plan(connection, service_id, code)
            checked = check_terms(Terms(**{**_members(present), **terms}))
            plan = replace(present, **_members(checked))
            if plan != present:
                await store.set_terms(connection, plan.id, checked)
                await self._record_plan(connection, actor, plan, "plan.redefined")
        return plan

    async def _own_listing(self, actor: Actor, service_id: UUID) -> None:
        actor.require(Permission.SERVICES_EDIT)
        listing = await self._discovery.listing_by_id(actor, service_id)
        if listing.org_id != actor.org_id:
            raise NotFound

    async def _record_plan(self, connection: Connection, actor: Actor, plan: Plan, type: str) -> None:
        terms = {**_members(plan), "cached_share": f"{plan.cached_share.normalize():f}"}
        await events.append(
            connection,
            stream=f"plan/{plan.id}",
            type=type,
            data={"service": str(plan.service_id), "code": plan.code, **terms},
            actor=actor.label,
            org=actor.org_id,
            at=self._clock.now(),
        )

    async def subscribe(self, actor: Actor, application_id: UUID, service_id: UUID, plan_code: str) -> Subscription:
        """Subscribe an application to a service on a plan.

        Raise AlreadyExists when it is subscribed, NotFound for what the actor can't see, Conflict
        for a listing that takes no new subscribers.
        """
        actor.require(Permission.SUBSCRIPTIONS_EDIT)
        if actor.org_id is None:
            raise PermissionDenied(_("Subscriptions belong to organisations."))
        application = await self._identity.application(actor, application_id)
        listing = await self._discovery.listing_by_id(actor, service_id)
        if listing.status != "published":
            raise Conflict(_("The listing is %(status)s: it takes no new subscribers.", status=gettext(listing.status)))
        identifier, now = new_id(), self._clock.now()
        async with self._db.transaction(tenant(actor.org_id)) as connection:
            plan = self._open_to(actor, await store.plan_by_code(connection, service_id, plan_code))
            await store.add(connection, identifier, actor.org_id, application.id, service_id, plan.id, now)
            await self._record(
                connection,
                actor,
                identifier,
                "subscription.created",
                {"application": str(application.id), "service": str(service_id), "plan": str(plan.id)},
            )
            return await store.subscription(connection, actor.org_id, identifier)

    async def change_plan(self, actor: Actor, identifier: UUID, plan_code: str) -> Subscription:
        """Move a subscription to another plan from now on."""
        actor.require(Permission.SUBSCRIPTIONS_EDIT)
        async with self._db.transaction(tenant(actor.org_id)) as connection:
            present = await self._for_change(connection, actor, identifier)
            plan = self._open_to(actor, await store.plan_by_code(connection, present.service_id, plan_code))
            if plan.id == present.plan_id:
                return present
            await store.set_plan(connection, identifier, plan.id)
            await self._record(
                connection,
                actor,
                identifier,
                "subscription.plan_changed",
                {"from": str(present.plan_id), "to": str(plan.id)},
            )
            return await store.subscription(connection, present.org_id, identifier)

    async def cancel(self, actor: Actor, identifier: UUID) -> Subscription:
        """End a subscription now; what was used until then is billed."""
        actor.require(Permission.SUBSCRIPTIONS_EDIT)
        async with self._db.transaction(tenant(actor.org_id)) as connection:
            present = await self._for_change(connection, actor, identifier)
            await store.cancel(connection, identifier, self._clock.now())
            await self._record(connection, actor, identifier, "subscription.cancelled", {})
            return await store.subscription(connection, present.org_id, identifier)

    async def of(self, actor: Actor, *, active_only: bool = True) -> list[Subscription]:
        """Return the organisation's subscriptions."""
        if actor.org_id is None:
            return []
        async with self._db.transaction(tenant(actor.org_id)) as connection:
            return await store.subscriptions(connection, actor.org_id, active_only=active_only)

    async def get(self, actor: Actor, identifier: UUID) -> Subscription:
        """Return one subscription; raise NotFound for another organisation's."""
        async with self._db.transaction(tenant(actor.org_id)) as connection:
            assert actor.org_id is not None
            return await store.subscription(connection, actor.org_id, identifier)

    def _open_to(self, actor: Actor, plan: Plan) -> Plan:
        """Unlisted plans are given by the operator, not taken."""
        if not plan.listed and not actor.may(Permission.PLANS_GRANT):
            raise NotFound(_("There is no plan called %(code)s for this service.", code=plan.code))
        return plan

    async def _for_change(self, connection: Connection, actor: Actor, identifier: UUID) -> Subscription:
        assert actor.org_id is not None
        await store.lock(connection, identifier)
        present = await store.subscription(connection, actor.org_id, identifier)
        if present.status != "active":
            raise Conflict(_("The subscription has ended: subscribe again."))
        return present

    async def _record(
        self, connection: Connection, actor: Actor, identifier: UUID, type: str, data: dict[str, str]
    ) -> None:
        await events.append(
            connection,
            stream=f"subscription/{identifier}",
            type=type,
            data=data,
            actor=actor.label,
            org=actor.org_id,
            at=self._clock.now(),
        )


def _members(terms: Terms) -> dict[str, Any]:
    return {field: getattr(terms, field) for field in TERMS}
