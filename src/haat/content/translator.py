"""Translation of drafts: a port, and the market's own gateway behind it, called like by any other customer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import httpx

from haat.identity.service import Identity
from haat.kernel.clock import Clock
from haat.kernel.errors import (
    HaatError,
    NotFound,
    NotSubscribed,
    ProviderFailed,
    ProviderUnavailable,
    UnsupportedLanguage,
)
from haat.kernel.permissions import Actor
from haat.language import Tag
from haat.language.messages import _

APPLICATION = "Content"
"""The operator's application that the texts are translated with: it subscribes to services like any other."""
KEY_LIFE = timedelta(minutes=15)
_SPARE = timedelta(minutes=1)
_SECONDS = 30.0
_MOST_TEXTS = 20
"""Texts in one call: services take few at a time."""
_FEED_SECONDS = 4.0  # how long a new key may take to reach the gateway
_FEED_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Translated:
    """Texts in their order, and the services (``provider/service``) that made them."""

    texts: tuple[str, ...]
    services: tuple[str, ...]


class Translator(Protocol):
    """Translates texts from one language into another."""

    async def translate(self, actor: Actor, texts: Sequence[str], source: Tag, target: Tag) -> Translated:
        """Return one text for each, in order; none of them is empty.

        Raise UnsupportedLanguage when nobody translates the pair, NotSubscribed when somebody does whom the
        operator's application is not subscribed to, ProviderUnavailable when nothing answers, ProviderFailed for
        any other refusal, in its own words.
        """
        ...


class GatewayTranslator:
    """Calls ``POST /v1/translate`` of the platform's own gateway with a key that lives a quarter of an hour."""

    def __init__(
        self, identity: Identity, clock: Clock, address: str, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._identity, self._clock, self._address, self._transport = identity, clock, address, transport
        self._key: tuple[str, datetime] | None = None

    async def translate(self, actor: Actor, texts: Sequence[str], source: Tag, target: Tag) -> Translated:
        made: list[str] = []
        services: dict[str, None] = {}
        headers = {"Authorization": f"Bearer {await self._living_key(actor)}", "X-Haat-Tags": "from=content"}
        async with httpx.AsyncClient(
            base_url=self._address, headers=headers, trust_env=False, timeout=_SECONDS + 5, transport=self._transport
        ) as client:
            for start in range(0, len(texts), _MOST_TEXTS):
                asked = list(texts[start : start + _MOST_TEXTS])
                answer = await self._ask(client, asked, source, target)
                made += answer["translations"]
                services |= dict.fromkeys(stage["service"] for stage in answer["stages"])
        return Translated(tuple(made), tuple(services))

    async def _ask(self, client: httpx.AsyncClient, texts: list[str], source: Tag, target: Tag) -> dict[str, Any]:
        body = {"text": texts, "source": str(source), "target": str(target), "policy": "quality",
                "timeout_ms": int(_SECONDS * 1000)}  # fmt: skip
        deadline = time.monotonic() + _FEED_SECONDS
        while True:
            try:
                response = await client.post("/v1/translate", json=body)
                answer = dict(response.json())
            except (httpx.HTTPError, ValueError, TypeError) as error:
                raise ProviderUnavailable(
                    _("The gateway did not answer: nothing was translated. Try again in a moment.")
                ) from error
            if response.status_code == 200 and len(answer.get("translations", ())) == len(texts):
                return answer
            if answer.get("code") != "INVALID_CREDENTIAL" or time.monotonic() > deadline:
                if response.status_code == 401:
                    self._key = None  # somebody revoked it: the next try makes another
                raise _refusal(answer, source, target)
            await asyncio.sleep(_FEED_PAUSE)  # the change feed is still carrying the key to the gateway

    async def _living_key(self, actor: Actor) -> str:
        now = self._clock.now()
        if self._key is None or self._key[1] <= now + _SPARE:
            actor = await self._for_operator(actor)
            issued = await self._identity.create_key(
                actor, await self._application(actor), name="Drafts", expires_at=now + KEY_LIFE
            )
            self._key = issued.key, now + KEY_LIFE
        return self._key[0]

    async def _for_operator(self, actor: Actor) -> Actor:
        if actor.org_id is not None:
            return actor
        operator = await self._identity.operator()  # the platform itself acts for the operator
        if operator is None:
            raise NotFound(_("There is no operator yet: run `haat operator` first."))
        return replace(actor, org_id=operator.id)

    async def _application(self, actor: Actor) -> UUID:
        for application in await self._identity.applications(actor):
            if application.name == APPLICATION:
                return application.id
        return (await self._identity.create_application(actor, APPLICATION)).id


def _refusal(answer: dict[str, Any], source: Tag, target: Tag) -> HaatError:
    """Return why nothing was translated, with the pair named and what to do about it."""
    pair = f"from {source.name} ({source}) to {target.name} ({target})"
    match answer.get("code"):
        case "UNSUPPORTED_LANGUAGE":
            return UnsupportedLanguage(
                _(
                    "No service on the market translates %(pair)s: translate by hand, or from another language.",
                    pair=pair,
                ),
                supported=answer.get("supported", []),
            )
        case "NOT_SUBSCRIBED":
            return NotSubscribed(
                f"Somebody translates {pair}, and your application {APPLICATION} is not subscribed: "
                f"subscribe it in the catalog and try again. {answer.get('detail', '')}".strip()
            )
        case _:
            return ProviderFailed(
                _(
                    "Nothing was translated %(pair)s: %(reason)s",
                    pair=pair,
                    reason=answer.get("detail") or _("no reason was given."),
                )
            )
