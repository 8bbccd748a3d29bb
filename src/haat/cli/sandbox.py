"""`haat sandbox`: a key that opens every built-in service of the platform on this machine."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import click
import httpx
from rich.console import Console

from haat.app import Platform, open_platform
from haat.bootstrap import builtin_listings, local_sign_in
from haat.catalog.model import Listing
from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SystemClock
from haat.kernel.errors import AlreadyExists
from haat.kernel.events import Position
from haat.kernel.permissions import Actor, Role
from haat.settings import Settings

SANDBOX_EMAIL = "sandbox@haat.localhost"
PLAN = "sandbox"
_WAIT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A new application with its key, subscribed to every built-in service."""

    key: str
    gateway_url: str
    control_url: str
    services: list[dict[str, Any]]

    def as_json(self) -> str:
        return json.dumps(
            {
                "key": self.key,
                "gateway_url": self.gateway_url,
                "control_url": self.control_url,
                "services": self.services,
            },
            ensure_ascii=False,
        )


async def make_sandbox(settings: Settings) -> Sandbox:
    """Make an application and a key on the ``sandbox`` plan: limits so high that only a fault meets them."""
    async with open_platform(settings, name="haat-sandbox") as platform:
        listings = await _listings(platform)
        actor = await _organisation(platform)
        name = f"Sandbox {SystemClock().now():%Y-%m-%d %H:%M:%S.%f}"
        application = await platform.identity.create_application(actor, name)
        for listing in listings:
            await platform.subscriptions.subscribe(actor, application.id, listing.id, PLAN)
        issued = await platform.identity.create_key(actor, application.id, name="sandbox")
        services = [await _describe(platform, listing) for listing in listings]
        async with platform.db.transaction(PLATFORM_SCOPE) as connection:
            newest = await events.newest_position(connection)
    await gateway_reaches(settings.gateway_address, newest)
    return Sandbox(issued.key, settings.gateway_address, settings.portal_address, services)


async def _listings(platform: Platform) -> list[Listing]:
    """Return the built-in listings; on a platform that has just begun, wait until they are there."""
    deadline = asyncio.get_running_loop().time() + _WAIT_SECONDS
    while True:
        listings = await builtin_listings(platform)
        if listings or asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.2)
    if not listings:
        raise click.ClickException(
            "No built-in service is on the shelf. Is `haat serve` running on this data directory?"
        )
    return listings


async def _organisation(platform: Platform) -> Actor:
    sign_in = local_sign_in(platform.keyring, SANDBOX_EMAIL)
    try:
        actor = await platform.identity.create_organisation(
            email=sign_in.email,
            password=sign_in.password,
            name="Sandbox",
            organisation="Sandbox",
            kind="consumer",
            state_code=platform.settings.operator_state,
        )
        org_id: UUID | None = actor.org_id
    except AlreadyExists:
        session = await platform.identity.sign_in(sign_in.email, sign_in.password)
        await platform.identity.sign_out(session.token)
        org_id = session.org_id
    # The command acts as the platform for this organisation: only the operator gives unlisted plans.
    return Actor(user_id=None, org_id=org_id, role=Role.PLATFORM_ADMIN, name="haat sandbox")


async def _describe(platform: Platform, listing: Listing) -> dict[str, Any]:
    versions = await platform.discovery.versions(None, listing.id)
    sample = versions[0].sample
    return {
        "service": listing.path,
        "name": listing.name,
        "method": sample["method"],
        "url": f"{platform.settings.gateway_address}/v1/services/{listing.path}{sample['path']}",
        "sample": sample["body"],
        "unit": listing.unit,
        "languages": list(listing.languages),
        "language_pairs": list(listing.language_pairs),
    }


async def gateway_reaches(address: str, position: Position, seconds: float = _WAIT_SECONDS) -> None:
    """Return when the gateway has read the events up to ``position``; raise ClickException when it doesn't."""
    deadline = asyncio.get_running_loop().time() + seconds
    async with httpx.AsyncClient(base_url=address, timeout=2, trust_env=False) as client:
        while True:
            try:
                health = (await client.get("/health")).json()
                if Position.parse(health["position"]) >= position:
                    return
            except (httpx.HTTPError, ValueError, KeyError):
                pass
            if asyncio.get_running_loop().time() > deadline:
                raise click.ClickException(f"The gateway at {address} does not answer. Is `haat serve` running?")
            await asyncio.sleep(0.02)


def print_sandbox(sandbox: Sandbox) -> None:
    """Tell a person what the sandbox is and how to make the first call."""
    console = Console()
    console.print(f"[bold]Key[/bold]      {sandbox.key}", highlight=False)
    console.print(f"[bold]Gateway[/bold]  {sandbox.gateway_url}", highlight=False)
    console.print(f"[bold]Portal[/bold]   {sandbox.control_url}", highlight=False)
    console.print("\nServices:")
    for service in sandbox.services:
        console.print(f"  {service['service']}  ({service['name']})", highlight=False)
    first = sandbox.services[0]
    body = json.dumps(first["sample"], ensure_ascii=False)
    console.print("\nA first call:\n")
    console.print(
        f"curl -X {first['method']} {first['url']} \\\n  -H 'Authorization: Bearer {sandbox.key}' \\\n"
        f"  -H 'Content-Type: application/json' \\\n  -d '{body}'",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
