"""Probes: every open service is looked at regularly, in the way its objective says.

Egress goes to checked addresses only (`haat.infra.net`): a name is resolved once and what was looked at is dialled.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx

from haat.catalog import acceptance, tensors
from haat.catalog.drafts import SampleCall, VersionPolicyDraft
from haat.infra.inference.upstream import SCHEMES
from haat.infra.keyring import Keyring
from haat.infra.net import IPNetwork, check_url, hosted_networks, parse_networks, resolve
from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.kernel.clock import Clock
from haat.kernel.errors import AddressForbidden
from haat.kernel.ids import new_id
from haat.kernel.reshaping import Reshaping
from haat.settings import Settings
from haat.sla import counts
from haat.sla.access import Leveled

log = logging.getLogger(__name__)

AT_ONCE = 32
SECONDS = 5.0
"""How long one look may take; a sample call has twice that."""
LEAST_HOSTS = 3
"""When so many hosts are asked and none is reached, our own network is gone: the round counts for nothing."""
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at one endpoint saw. ``reached``: somebody was there, well or not; ``host`` is empty for our own."""

    good: bool
    reached: bool
    detail: str
    ms: int
    host: str


class Prober(Leveled):
    """Probes what is due."""

    def __init__(self, db: Database, clock: Clock, settings: Settings, *, keyring: Keyring) -> None:
        super().__init__(db, clock, settings)
        self._keyring = keyring
        self._allowed = parse_networks(self._settings.allowed_networks)
        self._https_only = self._settings.environment == "production"
        self._tls = ssl.create_default_context()

    async def probe_due(self) -> int:
        """Probe every service whose time has come, and keep what was seen; return how many that were."""
        minutes = self._settings.sla_probe_minutes
        if minutes == 0:
            return 0
        now = self._clock.now()
        before = now - timedelta(minutes=minutes) + timedelta(seconds=30)  # ticks come a little early or late
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            targets = await counts.targets(connection, now, before)
        places = asyncio.Semaphore(AT_ONCE)

        async def look(target: counts.Row) -> tuple[counts.Row, list[Seen]]:
            async with places:
                return target, await self._look_at(target)

        found = await asyncio.gather(*(look(target) for target in targets))
        outside = [one for _, seen in found for one in seen if one.host]
        hosts = {one.host for one in outside}
        offline = len(hosts) >= LEAST_HOSTS and not any(one.reached for one in outside)
        if offline:
            log.warning("none of %d probed hosts was reached: our own network is gone, nothing is counted", len(hosts))
        rows = [
            self._row(target, seen, counted=not (offline and all(one.host for one in seen))) for target, seen in found
        ]
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await counts.add_probes(connection, rows)
        return len(rows)

    def _row(self, target: counts.Row, seen: Sequence[Seen], *, counted: bool) -> Mapping[str, Any]:
        """Return what is kept of a service: it is well while one of its endpoints is."""
        best = next((one for one in seen if one.good), seen[0])
        return {
            "id": new_id(),
            "service_id": target["id"],
            "at": self._clock.now(),
            "kind": target["probe"],
            "good": best.good,
            "counted": counted or best.good,
            "ms": best.ms,
            "detail": best.detail.replace("\0", " ")[:_LONGEST],
        }

    async def _look_at(self, target: counts.Row) -> list[Seen]:
        """Look at a service's endpoints, one after the other until one is well."""
        seen: list[Seen] = []
        for endpoint in (target["endpoint"], *target["policy"].get("endpoints", ())):
            seen.append(await self._look(target, endpoint))
            if seen[-1].good:
                break
        return seen

    async def _look(self, target: counts.Row, endpoint: str) -> Seen:
        began, reached = time.perf_counter(), False
        opened = hosted_networks(endpoint, self._settings.models_address, target["provider_slug"])
        host = "" if opened else urlsplit(endpoint).hostname or ""
        allowed = (*self._allowed, *parse_networks((*target["allowed_networks"], *opened)))
        try:
            if target["probe"] == "sample":
                good, detail = await self._sample(target, endpoint, allowed)
                reached = good or " answered " in detail
            else:
                good, reached, detail = await self._health(target, endpoint, allowed)
        except (AddressForbidden, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            good, detail = False, str(error) or type(error).__name__
        return Seen(good, reached, detail, int((time.perf_counter() - began) * 1000), host)

    async def _health(
        self, target: counts.Row, endpoint: str, allowed: tuple[IPNetwork, ...]
    ) -> tuple[bool, bool, str]:
        """Ask the health path for 200, or make a connection where there is none: (well, reached, what was seen)."""
        scheme, host, port = check_url(endpoint, https_only=self._https_only and not allowed, grpc=True)
        async with asyncio.timeout(SECONDS):
            address = await resolve(host, port, allowed)
            if not target["health_path"] or scheme in SCHEMES:
                tls = self._tls if scheme in ("https", "grpcs") else None
                _, writer = await asyncio.open_connection(
                    str(address), port, ssl=tls, server_hostname=host if tls else None
                )
                writer.close()
                return True, True, "it takes connections"
            url = httpx.URL(endpoint + target["health_path"])
            headers = {
                "Host": url.netloc.decode(),
                "Accept": "*/*",
                "User-Agent": "Haat-Probe/1",
                **self._credential(target),
            }
            async with httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=SECONDS) as client:
                request = client.build_request(
                    "GET",
                    url.copy_with(host=str(address), port=port),
                    headers=headers,
                    extensions={"sni_hostname": host},
                )
                answer = await client.send(request, stream=True)  # its body is nobody's business
                await answer.aclose()
        return answer.status_code == 200, True, f"{target['health_path']} answered {answer.status_code}"

    async def _sample(self, target: counts.Row, endpoint: str, allowed: tuple[IPNetwork, ...]) -> tuple[bool, str]:
        """Make the version's sample call once, as its acceptance did."""
        policy = VersionPolicyDraft.model_validate(
            {key: value for key, value in target["policy"].items() if key in VersionPolicyDraft.model_fields}
        )
        credential = self._credential(target)
        report = await acceptance.check(
            endpoint,
            dialect=target["dialect"],
            sample=SampleCall.model_validate(target["sample"]),
            health_path=target["health_path"],
            warm_up_seconds=2 * SECONDS,
            credential=next(iter(credential.items()), None),
            allowed=allowed,
            https_only=self._https_only,
            request=Reshaping([change.model_dump() for change in policy.request]),
            answer=Reshaping([change.model_dump() for change in policy.answer]),
            tensors=tensors.stored(target["policy"]),
            data_dir=self._settings.data_dir,
            once=True,
        )
        return report.ok, report.steps[-1].detail

    def _credential(self, target: counts.Row) -> dict[str, str]:
        if target["ciphertext"] is None:
            return {}
        return {target["header"]: self._keyring.decrypt(bytes(target["ciphertext"]), str(target["id"]))}

    async def probe_now(self, service_id: UUID) -> counts.Row:
        """Probe one service at once, and keep what was seen; raise LookupError for one that can't be called."""
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            due = await counts.targets(connection, now, now + timedelta(days=1))
        target = next((one for one in due if one["id"] == service_id), None)
        if target is None:
            raise LookupError("It has no version that serves calls, or isn't open.")
        row = self._row(target, await self._look_at(target), counted=True)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await counts.add_probes(connection, [row])
        return row
