"""The whole control process on a fresh database, spoken to over HTTP without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI

from frontage import app_on
from haat.app import Platform, build_platform
from haat.identity import store
from haat.infra.keyring import Keyring
from haat.infra.mail import Attachment
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.kernel.permissions import Actor, Role
from haat.settings import Settings
from market import Market


@dataclass
class PostBox:
    """Mail that is kept instead of sent."""

    sent: list[dict[str, Any]] = field(default_factory=list)

    async def send(
        self,
        to: str,
        subject: str,
        text: str,
        html: str | None = None,
        message_id: str | None = None,
        attachments: Sequence[Attachment] = (),
    ) -> None:
        mail = {"to": to, "subject": subject, "text": text, "html": html, "message_id": message_id}
        self.sent.append({**mail, "attachments": attachments})


@dataclass
class Control:
    """The application, a client to it, and people with sessions."""

    app: FastAPI
    platform: Platform
    market: Market
    client: httpx.AsyncClient

    async def token(self, actor: Actor) -> str:
        """Return a session token of somebody for the organisation they act for."""
        assert actor.org_id is not None
        return (await self.platform.identity.switch(actor, actor.org_id)).token

    async def ask(
        self, method: str, path: str, body: Any = None, *, actor: Actor | None = None, **changes: Any
    ) -> httpx.Response:
        """Send a request to the API, as somebody or as nobody."""
        headers = dict(changes.pop("headers", {}))
        if actor is not None:
            headers["Authorization"] = f"Bearer {await self.token(actor)}"
        if body is not None:
            changes["json"] = body
        return await self.client.request(method, f"/api/v1{path}", headers=headers, **changes)

    async def cast(self) -> dict[Role, Actor]:
        """Return one person of each role; the partner's developer works for the partner."""
        admin = await self.market.provider("bhasha")
        developer = await self.market.consumer()
        assert admin.org_id and developer.user_id
        async with self.platform.db.transaction(PLATFORM_SCOPE) as connection:
            await store.add_membership(
                connection, developer.user_id, admin.org_id, Role.PARTNER_DEVELOPER, self.platform.clock.now()
            )
        return {
            Role.PLATFORM_ADMIN: await self.market.operator(),
            Role.PARTNER_ADMIN: admin,
            Role.PARTNER_DEVELOPER: Actor(developer.user_id, admin.org_id, Role.PARTNER_DEVELOPER, developer.name),
            Role.API_CONSUMER: await self.market.consumer(),
        }


@pytest.fixture
async def control(database: Any, clock: SetClock, keyring: Keyring, tmp_path: Path) -> AsyncIterator[Control]:
    settings = Settings(data_dir=tmp_path, allowed_networks=["127.0.0.0/8"])
    platform = build_platform(settings, database.app, database.service, keyring, clock, PostBox())
    platform.identity._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    market = Market(
        database.app,
        clock,
        keyring,
        platform.identity,
        platform.partners,
        platform.catalog,
        platform.discovery,
        platform.subscriptions,
    )
    app = app_on(platform)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://haat.example.in") as client:
        yield Control(app, platform, market, client)
