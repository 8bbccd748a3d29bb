"""What a request to the control process carries: the platform, and who is asking.

The API takes only bearer tokens, never the portal's cookie, so that no other site can make a
visitor's browser act through it. What the gateway hands on (`haat.control.front`) carries an introduction instead.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from haat.app import Platform
from haat.infra.introduction import Introduced, Introductions
from haat.kernel.errors import MalformedJson, Unauthenticated, ValidationFailed
from haat.kernel.permissions import Actor
from haat.kernel.text import is_storable

Model = TypeVar("Model", bound=BaseModel)


class Body(BaseModel):
    """A request's body: fields it does not name are refused, and text that can't be stored."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        if not is_storable(value):
            raise ValueError("holds characters or numbers that can't be stored")
        return value


def get_platform(request: Request) -> Platform:
    """Return the platform that the process opened at start."""
    platform: Platform = request.app.state.platform
    return platform


def bearer_token(request: Request) -> str | None:
    """Return the session token in ``Authorization: Bearer …``, or None."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


async def current_actor(request: Request, platform: Annotated[Platform, Depends(get_platform)]) -> Actor:
    """Return who is asking; raise Unauthenticated."""
    token = bearer_token(request)
    if token is None:
        raise Unauthenticated("Sign in at /api/v1/sessions and send the token as `Authorization: Bearer …`.")
    return await platform.identity.actor_of(token)


async def optional_actor(request: Request, platform: Annotated[Platform, Depends(get_platform)]) -> Actor | None:
    """Return who is asking, or None for a visitor; a token that is over is refused all the same."""
    token = bearer_token(request)
    return await platform.identity.actor_of(token) if token else None


def client_address(request: Request) -> str | None:
    """Return the network address a request came from: a proxy's own when one stands in front."""
    return request.client.host if request.client else None


def introduced(request: Request) -> Introduced:
    """Return whom the gateway introduces; raise Unauthenticated when it introduces nobody, or not for this."""
    introductions: Introductions = request.app.state.introductions
    scope = request.scope
    target = scope["raw_path"].decode("ascii", "replace")
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode("ascii", "replace")
    who = introductions.read(request.headers, request.method, target)
    request.state.request_id = who.request
    return who


async def json_of(request: Request) -> Any:
    """Return the JSON that a request handed on carries, whatever it says of its type; raise MalformedJson."""
    try:
        return msgspec.json.decode(await request.body())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedJson from error


def checked(kind: type[Model], given: Any) -> Model:
    """Return what was given as what it should be; raise ValidationFailed with its fields."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        fields = [{"field": ".".join(map(str, one["loc"])) or "body", "message": one["msg"]} for one in error.errors()]
        raise ValidationFailed(errors=fields) from error


PlatformOf = Annotated[Platform, Depends(get_platform)]
ActorOf = Annotated[Actor, Depends(current_actor)]
ClientOf = Annotated[str | None, Depends(client_address)]
IntroducedOf = Annotated[Introduced, Depends(introduced)]
VisitorOf = Annotated[Actor | None, Depends(optional_actor)]
