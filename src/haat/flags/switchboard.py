"""How the platform's own code asks for its switches: through OpenFeature's API, whoever gives the flags."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.provider import FeatureProvider
from openfeature.provider.no_op_provider import NoOpProvider

from haat.flags.following import FollowedFlags
from haat.flags.provider import OwnFlags
from haat.flags.remote import RemoteFlags
from haat.flags.service import Flags
from haat.infra.postgres import Database
from haat.kernel.errors import SwitchedOff
from haat.kernel.permissions import Actor
from haat.language.messages import N_
from haat.settings import Settings


@dataclass(frozen=True, slots=True)
class Switch:
    """A flag that the platform itself asks for, and what holds while nobody has made it."""

    key: str
    usual: bool
    description: str


PORTAL_TRIAL = Switch(
    "portal-trial", True, N_("The form on a service's page that makes a real call with the reader's key.")
)
SIGN_UP = Switch("sign-up", True, N_("Whether new organisations may sign up, on the portal and by the API."))
PROVIDER_REGISTRATION = Switch("provider-registration", True, N_("Whether companies may ask to become providers."))
SWITCHES = (PORTAL_TRIAL, PROVIDER_REGISTRATION, SIGN_UP)
_domains = count(1)


class Switchboard:
    """Asks whether switches are on. ``remote`` is the service that gives the flags in place of our own, if any."""

    def __init__(self, db: Database, flags: Flags, settings: Settings) -> None:
        self.followed = FollowedFlags(db, flags)
        self.remote: RemoteFlags | None = None
        provider: FeatureProvider
        if settings.flags_url:
            token = settings.flags_token.get_secret_value() if settings.flags_token else ""
            provider = self.remote = RemoteFlags(
                settings.flags_url, token=token, keep_seconds=settings.flags_keep_seconds
            )
        else:
            provider = OwnFlags(self.followed)
        self._domain = f"haat-{next(_domains)}"  # OpenFeature's register is one for the whole process
        api.set_provider_and_wait(provider, self._domain)
        self.client = api.get_client(self._domain)

    async def is_on(self, switch: Switch, actor: Actor | None = None, **more: str) -> bool:
        """Tell whether a switch is on for somebody; what is usual when nobody can say."""
        return await self.client.get_boolean_value_async(switch.key, switch.usual, context_of(actor, more))

    async def require(self, switch: Switch, actor: Actor | None = None) -> None:
        """Raise SwitchedOff unless a switch is on."""
        if not await self.is_on(switch, actor):
            raise SwitchedOff(switch=switch.key)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the flags at hand while the block runs, so that asking costs nothing."""
        following = asyncio.create_task(self.followed.follow()) if self.remote is None else None
        try:
            yield
        finally:
            while following is not None and not following.done():
                following.cancel()  # one that comes while a connection is being made may get lost on its way
                await asyncio.wait([following], timeout=0.2)
            if self.remote is not None:
                await self.remote.close()
            api.set_provider_and_wait(NoOpProvider(), self._domain)


def context_of(actor: Actor | None, more: Mapping[str, Any] | None = None) -> EvaluationContext:
    """Return what rules may ask of somebody who is signed in: never a name or an address."""
    attributes: dict[str, Any] = dict(more or {})
    if actor is None:
        return EvaluationContext(None, attributes)
    attributes["role"] = actor.role.value
    if actor.org_id is not None:
        attributes["organisation"] = str(actor.org_id)
    if actor.user_id is not None:
        attributes["user"] = str(actor.user_id)
    return EvaluationContext(attributes.get("user") or attributes.get("organisation"), attributes)
