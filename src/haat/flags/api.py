"""Control API of flags, for the operator."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from haat.control.context import ActorOf, Body, PlatformOf
from haat.flags.draft import FlagDraft, written
from haat.flags.model import Flag

router = APIRouter(tags=["flags"], prefix="/flags")

Key = Annotated[str, Path(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,78}[a-z0-9])?$")]


class FlagView(BaseModel):
    """A flag as it stands."""

    key: str
    version: int
    changed_at: datetime | None
    changed_by: str
    flag: FlagDraft
    overrides: dict[str, str]


class ChangeView(BaseModel):
    version: int
    type: str
    at: datetime
    actor: str
    data: dict[str, Any]


class Switched(Body):
    enabled: bool


class Percentage(Body):
    percent: Annotated[float, Field(ge=0, le=100)]
    variant: Annotated[str | None, Field(max_length=40)] = None


class Override(Body):
    variant: Annotated[str, Field(max_length=40)]


@router.get("")
async def directory(actor: ActorOf, platform: PlatformOf) -> list[FlagView]:
    """List all flags (operator)."""
    return [_view(flag) for flag in await platform.flags.directory(actor)]


@router.get("/{key}")
async def get(key: Key, actor: ActorOf, platform: PlatformOf) -> FlagView:
    """Show one flag (operator)."""
    return _view(await platform.flags.get(actor, key))


@router.put("/{key}")
async def put(
    key: Key,
    body: FlagDraft,
    actor: ActorOf,
    platform: PlatformOf,
    version: Annotated[int | None, Query(ge=0, lt=2**31, description="Only if the flag is at this version.")] = None,
) -> FlagView:
    """Make a flag or replace it; overrides stay (operator)."""
    return _view(await platform.flags.put(actor, key, body, version=version))


@router.delete("/{key}", status_code=204, response_class=Response)
async def remove(key: Key, actor: ActorOf, platform: PlatformOf) -> None:
    """Forget a flag (operator)."""
    await platform.flags.remove(actor, key)


@router.put("/{key}/enabled")
async def switch(key: Key, body: Switched, actor: ActorOf, platform: PlatformOf) -> FlagView:
    """Switch a flag on, or off for everybody (operator)."""
    return _view(await platform.flags.switch(actor, key, body.enabled))


@router.put("/{key}/percent")
async def percent(key: Key, body: Percentage, actor: ActorOf, platform: PlatformOf) -> FlagView:
    """Set to how many of everybody a variant is served (operator)."""
    return _view(await platform.flags.set_percent(actor, key, body.percent, body.variant))


@router.put("/{key}/overrides/{org_id}")
async def override(key: Key, org_id: UUID, body: Override, actor: ActorOf, platform: PlatformOf) -> FlagView:
    """Serve one organisation a variant whatever the rules say (operator)."""
    return _view(await platform.flags.override(actor, key, org_id, body.variant))


@router.delete("/{key}/overrides/{org_id}")
async def no_override(key: Key, org_id: UUID, actor: ActorOf, platform: PlatformOf) -> FlagView:
    """Take an override back (operator)."""
    return _view(await platform.flags.override(actor, key, org_id, None))


@router.get("/{key}/history")
async def history(key: Key, actor: ActorOf, platform: PlatformOf) -> list[ChangeView]:
    """List a flag's changes, the newest first (operator)."""
    changes = await platform.flags.history(actor, key)
    return [ChangeView(version=one.version, type=one.type, at=one.at, actor=one.actor, data=dict(one.data))
            for one in changes]  # fmt: skip


def _view(flag: Flag) -> FlagView:
    return FlagView(
        key=flag.key,
        version=flag.version,
        changed_at=flag.changed_at,
        changed_by=flag.changed_by,
        flag=written(flag),
        overrides=dict(flag.overrides),
    )
