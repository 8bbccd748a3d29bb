"""A divided service, and who calls it."""

from __future__ import annotations

import json
from typing import Any

from msgspec import structs

from gateway.rig import Market, Response, answer
from haat.gateway.market.policy import DivisionPolicy, ServicePolicy, Share
from haat.rollouts.rule import Rule

ROLLOUT = "0193b0f0-0000-7000-8000-0000000000ff"


def divide(market: Market, percent: float = 50, *, slug: str = "echo", repeatable: bool = True, **members: Any) -> None:
    """Divide a service: version 1 is the control, version 2 the candidate."""
    policy = DivisionPolicy(
        **{
            "id": ROLLOUT,
            "control": "1",
            "shares": (Share("candidate", "2", int(percent * 100)),),
            "rule": Rule(min_calls=20),
            **members,
        }
    )
    change(market, slug, division=policy, repeatable=repeatable)


def change(market: Market, slug: str = "echo", *, repeatable: bool | None = None, **members: Any) -> None:
    """Change what the directory says of a service."""
    service = market.gateway.directory.services[f"acme/{slug}"]
    if repeatable is not None:
        members["policy"] = structs.replace(service.policy or ServicePolicy(), repeatable=repeatable)
    market.gateway.directory.put_service(service.id, structs.replace(service, **members))


def tell_versions(market: Market, **more: Any) -> None:
    """Let the provider say by which address it was asked; ``two`` may give version 2 an answer of its own."""

    async def behave(request: Any, reader: Any, writer: Any) -> bool:
        version = "2" if request.target.startswith("/two") else "1"
        special = more.get("two" if version == "2" else "one")
        body = json.dumps({"version": version}).encode()
        writer.write(special if special is not None else answer(200, body))
        await writer.drain()
        return True

    market.provider.behaviour = behave


async def ask(market: Market, user: str = "", path: str = "/v1/services/acme/echo/invoke", *headers: str) -> Response:
    lines = [*headers, *([f"X-Haat-User: {user}"] if user else [])]
    return await market.call("POST", path, b"{}", *lines)
