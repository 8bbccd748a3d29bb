"""Control API of the registry."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from haat.catalog.model import Category
from haat.control.context import ActorOf, Body, PlatformOf
from haat.kernel.errors import BodyTooLarge, InvalidRequest, Overloaded
from haat.models.bundle import MOST_BUNDLE_BYTES
from haat.models.deployments import States
from haat.registry.model import ModelKey, ModelVersion, RegisteredModel, health_of

router = APIRouter(prefix="/models", tags=["models"])

_UPLOADS_AT_ONCE = 4
_uploads = asyncio.Semaphore(_UPLOADS_AT_ONCE)


class KeyView(BaseModel):
    """``key_id`` is the start of the key's SHA-256."""

    key_id: str
    name: str
    added_at: datetime
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: ModelKey) -> KeyView:
        return cls.model_validate(key, from_attributes=True)


class NewKey(Body):
    """``public_key`` is the base64 of an Ed25519 public key's 32 bytes."""

    public_key: Annotated[str, Field(max_length=100)]
    name: Annotated[str, Field(max_length=200)] = "key"


class ModelVersionView(BaseModel):
    """``stage`` is how far it has come; ``status`` and ``health`` are what the models process says of it."""

    id: UUID
    model_id: UUID
    version: str
    stage: str
    digest: str
    size_bytes: int
    signed_by: str
    service_id: UUID | None
    created_at: datetime
    published_at: datetime | None
    retired_at: datetime | None
    manifest: dict[str, Any]
    health: str
    status: str
    error: str
    workers: int
    queued: int
    in_flight: int
    memory_bytes: int

    @classmethod
    def of(cls, one: ModelVersion, states: States) -> ModelVersionView:
        state = states.models.get(one.key) if one.stage in ("deployed", "published") else None
        return cls(
            id=one.id,
            model_id=one.model_id,
            version=one.version,
            stage=one.stage,
            digest=one.digest,
            size_bytes=one.size_bytes,
            signed_by=one.key_id,
            service_id=one.service_id,
            created_at=one.created_at,
            published_at=one.published_at,
            retired_at=one.retired_at,
            manifest=msgspec.to_builtins(one.manifest),
            health=health_of(state, time.time() - states.at),
            status=state.status if state else "",
            error=state.error if state else "",
            workers=state.workers if state else 0,
            queued=state.queued if state else 0,
            in_flight=state.in_flight if state else 0,
            memory_bytes=state.memory_bytes if state else 0,
        )


class ModelView(BaseModel):
    id: UUID
    provider: str
    name: str
    category: str
    created_at: datetime
    versions: list[ModelVersionView]

    @classmethod
    def of(cls, model: RegisteredModel, states: States) -> ModelView:
        return cls(
            id=model.id,
            provider=model.provider,
            name=model.name,
            category=model.category,
            created_at=model.created_at,
            versions=[ModelVersionView.of(one, states) for one in model.versions],
        )


class Step(BaseModel):
    name: str
    ok: bool
    detail: str
    ms: float


class PublishedView(BaseModel):
    """The listing that sells it, and the steps of the acceptance call."""

    version: ModelVersionView
    listing: str
    steps: list[Step]


class Candidate(BaseModel):
    """A published version that can do what was asked for."""

    path: str
    version: str
    category: str
    languages: list[str]
    language_pairs: list[str]
    health: str


@router.get("/keys")
async def keys(actor: ActorOf, platform: PlatformOf) -> list[KeyView]:
    """List the keys that may sign the organisation's bundles."""
    return [KeyView.of(key) for key in await platform.registry.keys(actor)]


@router.post("/keys", status_code=201)
async def register_key(body: NewKey, actor: ActorOf, platform: PlatformOf) -> KeyView:
    """Let bundles be signed with a key."""
    return KeyView.of(await platform.registry.register_key(actor, body.public_key, body.name))


@router.delete("/keys/{key_id}", status_code=204)
async def revoke_key(key_id: str, actor: ActorOf, platform: PlatformOf) -> Response:
    """Take no more bundles that a key has signed."""
    await platform.registry.revoke_key(actor, key_id)
    return Response(status_code=204)


@router.get("/matches")
async def matches(
    actor: ActorOf,
    platform: PlatformOf,
    category: Category | None = None,
    source: Annotated[str, Query(max_length=20)] = "",
    target: Annotated[str, Query(max_length=20)] = "",
    version: Annotated[str, Query(max_length=32)] = "",
) -> list[Candidate]:
    """Find the published models that can do something, the healthiest and least loaded first."""
    found = await platform.registry.candidates(category=category or "", source=source, target=target, version=version)
    states = platform.registry.states()
    age = time.time() - states.at
    return [
        Candidate(
            path=f"{one.provider}/{one.name}",
            version=one.version,
            category=one.manifest.category,
            languages=list(one.manifest.languages),
            language_pairs=list(one.manifest.language_pairs),
            health=health_of(states.models.get(one.key), age),
        )
        for one in found
    ]


@router.get("")
async def models(actor: ActorOf, platform: PlatformOf) -> list[ModelView]:
    """List the organisation's models with their versions."""
    states = platform.registry.states()
    return [ModelView.of(model, states) for model in await platform.registry.models(actor)]


@router.post(
    "",
    status_code=201,
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
)
async def upload(request: Request, actor: ActorOf, platform: PlatformOf) -> ModelVersionView:
    """Send a signed bundle, the body as it is, as a new version of a model."""
    if _uploads.locked():
        raise Overloaded("Other bundles are being taken; wait for the seconds in Retry-After.", retry_after=5)
    async with _uploads:
        await platform.registry.check_may_upload(actor)
        bundle = platform.registry.new_upload()
        try:
            size = 0
            with bundle.open("xb") as file:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > MOST_BUNDLE_BYTES:
                        raise BodyTooLarge(limit_bytes=MOST_BUNDLE_BYTES)
                    file.write(chunk)
            if not size:
                raise InvalidRequest("Send the bundle as the request's body.")
            one = await platform.registry.upload(actor, bundle)
        finally:
            bundle.unlink(missing_ok=True)
    return ModelVersionView.of(one, platform.registry.states())


@router.get("/{model_id}")
async def model(model_id: UUID, actor: ActorOf, platform: PlatformOf) -> ModelView:
    """Show one of the organisation's models, and how its versions are doing."""
    return ModelView.of(await platform.registry.model(actor, model_id), platform.registry.states())


@router.post("/{model_id}/versions/{version}/publish")
async def publish(
    model_id: UUID, version: str, actor: ActorOf, platform: PlatformOf, default: bool = True
) -> PublishedView:
    """Run a version, make its acceptance call, and put it on the shelf. It answers when that is done.

    It becomes the listing's default version, unless that isn't wanted: for a rollout it is put beside that one.
    """
    done = await platform.registry.publish(actor, model_id, version, default=default)
    return PublishedView(
        version=ModelVersionView.of(done.version, platform.registry.states()),
        listing=done.listed.path,
        steps=[Step.model_validate(step) for step in done.listed.steps],
    )


@router.post("/{model_id}/versions/{version}/retire")
async def retire(model_id: UUID, version: str, actor: ActorOf, platform: PlatformOf) -> ModelVersionView:
    """Run a version no more."""
    return ModelVersionView.of(await platform.registry.retire(actor, model_id, version), platform.registry.states())
