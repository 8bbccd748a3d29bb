"""Use cases of the registry: keys, uploads, and the way of a version onto the shelf and off it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from haat.catalog.service import Catalog
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database, tenant
from haat.kernel.clock import Clock
from haat.kernel.errors import AlreadyExists, Conflict, HaatError, PermissionDenied, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor, Permission
from haat.kernel.text import check_name
from haat.models import deployments
from haat.models.bundle import Unpacked, key_id, open_bundle, public_key
from haat.models.deployments import States
from haat.partners.model import Partner
from haat.partners.service import Partners
from haat.registry import listing, store
from haat.registry.listing import Listed
from haat.registry.model import (
    ModelKey,
    ModelVersion,
    RegisteredModel,
    Stage,
    by_load,
    check_transition,
    matching,
)
from haat.settings import Settings


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A version on the shelf, and what its acceptance call saw."""

    version: ModelVersion
    listed: Listed


class Registry:
    """Models of providers."""

    def __init__(
        self, db: Database, clock: Clock, keyring: Keyring, partners: Partners, catalog: Catalog, settings: Settings
    ) -> None:
        self._db, self._clock, self._keyring = db, clock, keyring
        self._partners, self._catalog, self._settings = partners, catalog, settings

    # --- keys -----------------------------------------------------------------------------------

    async def keys(self, actor: Actor) -> list[ModelKey]:
        """Return the keys of the actor's organisation, revoked ones included."""
        actor.require(Permission.SERVICES_READ_OWN)
        async with self._db.transaction(tenant(actor.org_id)) as connection:
            assert actor.org_id is not None
            return await store.keys(connection, actor.org_id)

    async def register_key(self, actor: Actor, public: str, name: str) -> ModelKey:
        """Let bundles be signed with a key, given as base64 of its 32 bytes; raise ValidationFailed, AlreadyExists."""
        partner = await self._partner(actor)
        try:
            raw = base64.b64decode(public, validate=True)
            identifier = key_id(public_key(raw))
        except (ValueError, binascii.Error) as error:
            message = "Send the base64 of an Ed25519 public key's 32 bytes."
            raise ValidationFailed(errors=[{"field": "public_key", "message": message}]) from error
        key = ModelKey(identifier, raw, check_name(name, longest=80), self._clock.now(), None)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await store.add_key(connection, partner.org_id, key)
            await self._record(connection, actor, partner.org_id, "model.key_added", {"key": identifier})
        return key

    async def revoke_key(self, actor: Actor, identifier: str) -> None:
        """Take no more bundles that are signed with a key; what it signed before stays. Raise NotFound."""
        partner = await self._partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await store.revoke_key(connection, partner.org_id, identifier, self._clock.now())
            await self._record(connection, actor, partner.org_id, "model.key_revoked", {"key": identifier})

    # --- versions -------------------------------------------------------------------------------

    def new_upload(self) -> Path:
        """Return a path for a bundle that is being received, and clear away what killed processes left."""
        folder = deployments.models_folder(self._settings.data_dir) / "incoming"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in folder.iterdir():
            if time.time() - old.stat().st_mtime > 86_400:
                old.unlink(missing_ok=True)
        return folder / f"{new_id()}"

    async def check_may_upload(self, actor: Actor) -> None:
        """Raise PermissionDenied for who may bring no models, before anything is received."""
        await self._partner(actor)

    async def upload(self, actor: Actor, bundle: Path) -> ModelVersion:
        """Take a bundle as a new version of a model; the same bundle again is the same version.

        Raise BundleMalformed, BundleUnsafe, BundleTooLarge or BundleUnsigned, ValidationFailed for its manifest,
        AlreadyExists when that version has another content.
        """
        partner = await self._partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            known = await store.keys(connection, partner.org_id)
        trusted = {key.key_id: key.public_key for key in known if key.revoked_at is None}
        unpacked = await asyncio.to_thread(self._unpack, bundle, trusted)
        now, manifest = self._clock.now(), unpacked.manifest
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            model = await store.model_for_change(
                connection, new_id(), partner.org_id, partner.slug, manifest.name, manifest.category, now
            )
            present = next((one for one in model.versions if one.version == manifest.version), None)
            if present is not None and present.digest != unpacked.digest:
                raise AlreadyExists(
                    f"Version {manifest.version} exists: a version is never replaced, give it a new name."
                )
            if present is not None:
                return present
            if model.category != manifest.category:
                message = f"The model {model.name} is of the category {model.category}: give this one another name."
                raise ValidationFailed(errors=[{"field": "category", "message": message}])
            one = ModelVersion(
                id=new_id(),
                model_id=model.id,
                org_id=partner.org_id,
                provider=partner.slug,
                name=manifest.name,
                version=manifest.version,
                manifest=manifest,
                digest=unpacked.digest,
                size_bytes=bundle_size(self._settings.data_dir, unpacked.digest),
                key_id=unpacked.key,
                stage="uploaded",
                service_id=None,
                created_at=now,
                published_at=None,
                retired_at=None,
            )
            await store.add_version(connection, one)
            data = {"version": one.version, "digest": one.digest, "signed_by": one.key_id}
            await self._record(connection, actor, partner.org_id, "model.uploaded", data, model.id)
        return one

    def _unpack(self, bundle: Path, trusted: dict[str, bytes]) -> Unpacked:
        """Check and unpack a bundle, and keep it; each under the digest of its bytes."""
        data_dir = self._settings.data_dir
        staged = deployments.models_folder(data_dir) / "incoming" / f"{bundle.name}.files"
        try:
            found = open_bundle(bundle, trusted, staged)
            target, kept = deployments.files_of(data_dir, found.digest), deployments.bundle_of(data_dir, found.digest)
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            kept.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not target.exists():
                try:
                    staged.rename(target)
                except OSError:
                    if not target.exists():  # somebody else sent the same bundle just now
                        raise
            bundle.replace(kept)
            return replace(found, folder=target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    async def models(self, actor: Actor) -> list[RegisteredModel]:
        """Return the models of the actor's organisation."""
        actor.require(Permission.SERVICES_READ_OWN)
        async with self._db.transaction(tenant(actor.org_id)) as connection:
            assert actor.org_id is not None
            return await store.models_of(connection, actor.org_id)

    async def model(self, actor: Actor, model_id: UUID) -> RegisteredModel:
        """Return one of them; raise NotFound for another's."""
        actor.require(Permission.SERVICES_READ_OWN)
        async with self._db.transaction(tenant(actor.org_id)) as connection:
            return await store.model(connection, model_id)

    async def publish(self, actor: Actor, model_id: UUID, version: str, *, default: bool = True) -> PublishedModel:
        """Deploy a version, have its acceptance call made, and put it on the shelf as its listing's default version.

        Without ``default`` it stands beside the one that is: a rollout may give it calls.

        A version that fails the call runs no longer: raise AcceptanceFailed with the steps. Doing it again is the
        way to try again, and changes nothing for one that is on the shelf.
        """
        partner = await self._partner(actor)
        one = await self._move(actor, partner, model_id, version, "deployed", "model.deployed")
        was_published = one.published_at is not None
        await self.place(one)
        try:
            listed = await listing.put_on_shelf(
                self._catalog, self._keyring, self._settings, actor, one, default=default
            )
        except HaatError:
            if not was_published:
                one = await self._move(actor, partner, model_id, version, "uploaded", "model.refused")
                await self.place(one)
            else:
                await self._move(actor, partner, model_id, version, "published", "model.published")
            raise
        one = await self._move(
            actor, partner, model_id, version, "published", "model.published", service_id=listed.service_id
        )
        return PublishedModel(one, listed)

    async def retire(self, actor: Actor, model_id: UUID, version: str) -> ModelVersion:
        """Run a version no more. Raise Conflict while its listing sends it the calls that name no version."""
        partner = await self._partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await store.lock_model(connection, partner.org_id, model_id)
            one = await store.version(connection, model_id, version)
        if one.service_id is not None and await listing.is_default(self._catalog, actor, one):
            raise Conflict("Its listing sends calls to this version: publish another one first, or retire the listing.")
        one = await self._move(actor, partner, model_id, version, "retired", "model.retired")
        await self.place(one)
        return one

    async def place(self, one: ModelVersion) -> None:
        """Have the models process run a version, or not, as its stage says. It can be done again at any time."""
        if one.stage in ("deployed", "published"):
            await asyncio.to_thread(deployments.deploy, self._settings.data_dir, one.key, one.digest, one.manifest)
        else:
            await asyncio.to_thread(deployments.withdraw, self._settings.data_dir, one.key)

    async def place_all(self, actor: Actor, model_id: UUID) -> None:
        """Do so for every version of a model, as the platform."""
        actor.require(Permission.SERVICES_SUSPEND)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            model = await store.model(connection, model_id)
        for one in model.versions:
            await self.place(one)

    # --- choosing -------------------------------------------------------------------------------

    async def candidates(
        self, *, category: str = "", source: str = "", target: str = "", version: str = ""
    ) -> list[ModelVersion]:
        """Return the published versions that can do something, in the order in which they should be tried."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            everything = await store.published(connection)
        fitting = matching(everything, category=category, source=source, target=target, version=version)
        states = self.states()
        return by_load(fitting, states.models, time.time() - states.at)

    def states(self) -> States:
        """Return what the models process said last."""
        return deployments.read_states(self._settings.data_dir)

    # --- within ---------------------------------------------------------------------------------

    async def _partner(self, actor: Actor) -> Partner:
        actor.require(Permission.SERVICES_EDIT)
        partner = await self._partners.of(actor)
        if partner is None or partner.status != "approved":
            raise PermissionDenied("Models are brought by approved partners: register, or wait for the decision.")
        return partner

    async def _move(
        self,
        actor: Actor,
        partner: Partner,
        model_id: UUID,
        version: str,
        stage: Stage,
        event: str,
        service_id: UUID | None = None,
    ) -> ModelVersion:
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await store.lock_model(connection, partner.org_id, model_id)
            one = await store.version(connection, model_id, version)
            check_transition(one.stage, stage)
            await store.set_stage(connection, one.id, stage, self._clock.now(), service_id)
            await self._record(connection, actor, partner.org_id, event, {"version": version}, model_id)
            return await store.version(connection, model_id, version)

    async def _record(
        self,
        connection: Connection,
        actor: Actor,
        org_id: UUID,
        type: str,
        data: dict[str, str],
        model_id: UUID | None = None,
    ) -> None:
        await events.append(
            connection,
            stream=f"model/{model_id}" if model_id else f"model-keys/{org_id}",
            type=type,
            data=data,
            actor=actor.label,
            org=org_id,
            at=self._clock.now(),
        )


def bundle_size(data_dir: Path, digest: str) -> int:
    """Return the bytes of a bundle that is kept."""
    return deployments.bundle_of(data_dir, digest).stat().st_size
