"""Use cases of a service's versions: none serves anybody before it has passed its acceptance call."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from haat.catalog import acceptance, store, tensors
from haat.catalog.discovery import index
from haat.catalog.drafts import SampleCall, VersionDraft, VersionPolicyDraft
from haat.catalog.model import SPOKEN_DIALECTS, TASK_DIALECTS, Listing, Version
from haat.catalog.provider import ProviderSide
from haat.catalog.quality import check_quality
from haat.infra.postgres import Connection, tenant
from haat.kernel.clock import check_ahead
from haat.kernel.errors import Conflict, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor
from haat.kernel.reshaping import Reshaping
from haat.language.messages import _
from haat.partners.model import Partner


class Versions(ProviderSide):
    """Versions of services: added, tried, changed, and taken leave of."""

    async def add(self, actor: Actor, service_id: UUID, draft: VersionDraft) -> UUID:
        """Add a version beside the others; it serves nobody before it is accepted."""
        partner = await self._approved_partner(actor)
        self._check_endpoints(partner, draft)
        version_id, now = new_id(), self._clock.now()
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            if draft.policy.serves:
                executing = _executing(await store.versions(connection, service_id), draft.policy.serves)
                draft = draft.model_copy(update={"endpoint": executing.endpoint})
            await store.add_version(connection, version_id, service_id, draft, now)
            await self._record(
                connection, actor, service_id, partner.org_id, "service.version_added", {"version": draft.version}
            )
        return version_id

    async def own(self, actor: Actor, service_id: UUID) -> list[Version]:
        """Return the versions of one's own service, those that wait for acceptance included; raise NotFound."""
        partner = await self._approved_partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            return await store.versions(connection, service_id)

    async def accept(
        self, actor: Actor, service_id: UUID, version_id: UUID, *, default: bool = True
    ) -> acceptance.Report:
        """Make the acceptance call at each endpoint; when all succeed the version becomes the default one.

        Without ``default`` it is accepted beside the default one, and while a rollout or an experiment divides the
        service's calls: these decide who gets it. The first version to be accepted is the default one in any case.
        An adapter is tried in its own shape, at the endpoints of the version it serves, and serves beside it.
        Raise AcceptanceFailed with the steps when it doesn't.
        """
        partner, version, report = await self._try(actor, service_id, version_id)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            listing = await self._own(connection, partner, service_id)
            if listing.status == "retired":
                raise Conflict(_("The listing is retired: it takes no new versions."))
            versions = await store.versions(connection, service_id)
            if version.serves and _executing(versions, version.serves).accepted_at is None:
                raise Conflict(
                    _("Version %(serves)s, which this one adapts, is to be accepted first.", serves=version.serves)
                )
            first = not any(one.is_default for one in versions)
            free = default and not await store.is_divided(connection, service_id)
            await store.accept_version(
                connection, service_id, version_id, self._clock.now(), default=not version.serves and (free or first)
            )
            await self._record(
                connection, actor, service_id, partner.org_id, "service.accepted", {"version": version.version}
            )
            listing = await store.listing_by_id(connection, service_id, self._clock.now())
            if listing.status in ("published", "deprecated"):
                await index(connection, listing)
        return report

    async def held(self, connection: Connection, service_id: UUID) -> tuple[Listing, list[Version]]:
        """Return a listing and its versions, locked until the transaction ends; raise NotFound."""
        await store.lock_service(connection, service_id)
        return await store.listing_by_id(connection, service_id, self._clock.now()), await store.versions(
            connection, service_id
        )

    async def named(self, connection: Connection, provider: str, slug: str) -> tuple[Listing, list[Version]]:
        """Return a listing by its name and its versions; raise NotFound."""
        listing = await store.listing(connection, provider, slug, self._clock.now())
        return listing, await store.versions(connection, listing.id)

    async def make_default(self, connection: Connection, actor: Actor, listing: Listing, version: Version) -> None:
        """Let an accepted version take the calls that name none, within the caller's transaction."""
        assert version.accepted_at is not None
        await store.accept_version(connection, listing.id, version.id, version.accepted_at)
        data = {"version": version.version}
        await self._record(connection, actor, listing.id, listing.org_id, "service.default_changed", data)
        fresh = await store.listing_by_id(connection, listing.id, self._clock.now())
        if fresh.status in ("published", "deprecated"):
            await index(connection, fresh)

    async def move_endpoint(self, actor: Actor, service_id: UUID, version_id: UUID, endpoint: str) -> acceptance.Report:
        """Send a version's calls to another address, once that address has passed the acceptance call."""
        partner, version, report = await self._try(actor, service_id, version_id, [endpoint])
        if version.serves:
            raise Conflict(_("The version adapts version %(serves)s: move that one's endpoint.", serves=version.serves))
        if endpoint.rstrip("/") in version.endpoints[1:]:
            raise Conflict(_("That endpoint is one of the version's further ones already."))
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            await store.set_endpoint(connection, version_id, endpoint)
            await self._record(
                connection, actor, service_id, partner.org_id, "service.endpoint_moved", {"version": version.version}
            )
        return report

    async def set_policy(
        self, actor: Actor, service_id: UUID, version_id: UUID, draft: VersionPolicyDraft
    ) -> acceptance.Report:
        """Replace what a version says to the gateway, once each further endpoint has passed the acceptance call.

        With other changes to requests and answers all its endpoints have to pass it. Which version an
        adapter serves stays: add another adapter instead.
        """
        partner, version, report = await self._try(actor, service_id, version_id, policy=draft)
        if version.endpoint in draft.endpoints:
            raise Conflict(_("That endpoint is the version's first one already."))
        if draft.validation is not None and version.dialect not in TASK_DIALECTS:
            message = "is for versions that speak the task schema"
            raise ValidationFailed(errors=[{"field": "validation", "message": message}])
        if draft.audio_formats and version.dialect not in SPOKEN_DIALECTS:
            message = "is for versions whose endpoint knows `config.format`: task and ulca"
            raise ValidationFailed(errors=[{"field": "audio_formats", "message": message}])
        try:
            check_quality(draft.quality, version.language_pairs)
        except ValueError as error:
            raise ValidationFailed(errors=[{"field": "quality", "message": str(error)}]) from error
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            await store.set_version_policy(connection, version_id, draft)
            await self._record(
                connection,
                actor,
                service_id,
                partner.org_id,
                "service.version_policy_changed",
                {"version": version.version},
            )
        return report

    async def deprecate(
        self, actor: Actor, service_id: UUID, version_id: UUID, *, sunset_at: datetime | None, successor: str
    ) -> Version:
        """Announce with every answer that a version should be left, and when it ends; None names no day."""
        partner, now = await self._approved_partner(actor), self._clock.now()
        if sunset_at is not None:
            sunset_at = check_ahead(sunset_at, now, "sunset_at")
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            versions = await store.versions(connection, service_id)
            version = _find(versions, version_id)
            if successor and (successor == version.version or successor not in {one.version for one in versions}):
                message = _("Name another version of this service.")
                raise ValidationFailed(errors=[{"field": "successor", "message": message}])
            since = version.deprecated_at or now
            return await self._announce(connection, actor, partner, service_id, version, since, sunset_at, successor)

    async def restore(self, actor: Actor, service_id: UUID, version_id: UUID) -> Version:
        """Take back what was announced of a version's end."""
        partner = await self._approved_partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            version = _find(await store.versions(connection, service_id), version_id)
            return await self._announce(connection, actor, partner, service_id, version, None, None, "")

    async def _announce(
        self,
        connection: Connection,
        actor: Actor,
        partner: Partner,
        service_id: UUID,
        version: Version,
        deprecated_at: datetime | None,
        sunset_at: datetime | None,
        successor: str,
    ) -> Version:
        await store.announce_end(
            connection, version.id, deprecated_at=deprecated_at, sunset_at=sunset_at, successor=successor
        )
        data = {
            "version": version.version,
            "sunset_at": sunset_at.isoformat() if sunset_at else None,
            "successor": successor,
        }
        kind = "service.version_deprecated" if deprecated_at else "service.version_restored"
        await self._record(connection, actor, service_id, partner.org_id, kind, data)
        return _find(await store.versions(connection, service_id), version.id)

    async def _try(
        self,
        actor: Actor,
        service_id: UUID,
        version_id: UUID,
        endpoints: Sequence[str] | None = None,
        policy: VersionPolicyDraft | None = None,
    ) -> tuple[Partner, Version, acceptance.Report]:
        """Make the acceptance call at these endpoints, or the version's own; raise AcceptanceFailed.

        With a new ``policy`` it is made as that says, at whatever is new in it. No transaction is open meanwhile.
        """
        partner = await self._approved_partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            listing = await self._own(connection, partner, service_id)
            versions = await store.versions(connection, service_id)
            version = _find(versions, version_id)
            stored = await store.provider_credential(connection, service_id)
        present = VersionPolicyDraft.model_validate(
            {key: value for key, value in version.policy.items() if key in VersionPolicyDraft.model_fields}
        )
        if policy is not None and policy.serves != version.serves:
            raise Conflict(_("Whether a version adapts another one, and which, stays as it was declared."))
        if policy is not None and (policy.tensors is None) != (present.tensors is None):
            raise Conflict(_("Whether a version is asked in tensors stays as it was declared."))
        executing = _executing(versions, version.serves) if version.serves else version
        if policy is not None and (policy.request, policy.answer, policy.tensors) == (
            present.request,
            present.answer,
            present.tensors,
        ):
            endpoints = policy.endpoints
        elif policy is not None:
            endpoints = [executing.endpoint, *(executing.endpoints[1:] if version.serves else policy.endpoints)]
        changes = policy or present
        asked_in = tensors.stored(executing.policy) if changes.tensors is None else changes.tensors.tensor_map()
        credential = (stored[0], self._keyring.decrypt(stored[1], str(service_id))) if stored else None
        steps: list[acceptance.Step] = []
        for endpoint in executing.endpoints if endpoints is None else endpoints:
            tried = await acceptance.check(
                endpoint,
                dialect=version.dialect,
                sample=SampleCall.model_validate(version.sample),
                health_path=version.health_path,
                warm_up_seconds=version.warm_up_seconds,
                credential=credential,
                allowed=self._networks_for(partner, endpoint),
                https_only=self._https_only,
                request=Reshaping([change.model_dump() for change in changes.request]),
                answer=Reshaping([change.model_dump() for change in changes.answer]),
                tensors=asked_in,
                data_dir=self._data_dir,
                unit=listing.unit,
            )
            tried.require()
            steps += tried.steps
        return await self._approved_partner(actor), version, acceptance.Report(steps)  # it took time: still approved?


def _find(versions: Sequence[Version], identifier: UUID) -> Version:
    for version in versions:
        if version.id == identifier:
            return version
    raise NotFound


def _executing(versions: Sequence[Version], name: str) -> Version:
    """Return the version that an adapter serves; raise ValidationFailed for one that can't be adapted."""
    found = next((one for one in versions if one.version == name), None)
    if found is None or found.serves:
        message = _("Name a version of this service that is executed itself.")
        raise ValidationFailed(errors=[{"field": "policy.serves", "message": message}])
    return found
