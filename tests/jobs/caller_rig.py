"""A market in which callers hand in jobs: the gateway, the control process, the worker, and a provider who counts."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from gateway.rig import Provider, Request, answer
from haat import worker
from haat.app import Platform, open_platform
from haat.catalog import store as catalog_store
from haat.control import process as control
from haat.gateway import process as gateway
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.permissions import Actor
from haat.settings import Settings
from haat.usage import shipper
from jobs.job_rig import until
from market import PASSWORD, draft

ENDED = ("completed", "cancelled", "expired", "failed")


class Counting:
    """A provider that answers ``{"echo": n}`` to ``{"n": n}``, counts each n, and does what a test adds."""

    def __init__(self) -> None:
        self.seen: Counter[Any] = Counter()
        self.keys: Counter[str] = Counter()
        self.status: Callable[[Any], int] = lambda n: 200
        self.pause: Callable[[], Awaitable[None]] | None = None

    async def __call__(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        said = json.loads(request.body or b"{}")
        n = said.get("n", said.get("input"))
        if self.pause is not None:
            await self.pause()
        self.seen[str(n)] += 1
        self.keys[next(iter(request.header("idempotency-key")), "")] += 1
        status = self.status(n)
        body = {"echo": n} if status == 200 else {"detail": "no"}
        if "model" in said and status == 200:
            body = {
                "object": "list", "model": said["model"], "usage": {"prompt_tokens": 1, "total_tokens": 1},
                "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
            }  # fmt: skip
        writer.write(answer(status, json.dumps(body).encode()))
        await writer.drain()
        return True


@dataclass
class Town:
    """The market while it runs."""

    settings: Settings
    platform: Platform
    provider: Provider
    counting: Counting
    client: httpx.AsyncClient
    services: dict[str, UUID] = field(default_factory=dict)

    async def consumer(self, email: str = "asha@example.in") -> tuple[Actor, UUID, str]:
        """Return a new organisation's administrator, its application, and a key."""
        actor = await self.platform.identity.create_organisation(
            email=email, password=PASSWORD, name="Asha", organisation=email, kind="consumer"
        )
        application = await self.platform.identity.create_application(actor, "reader")
        issued = await self.platform.identity.create_key(actor, application.id)
        return actor, application.id, issued.key

    async def service(self, slug: str, **changes: Any) -> None:
        """Put a service of the counting provider on the shelf."""
        identity = self.platform.identity
        if not self.services:
            self._desk = await identity.create_organisation(
                email="desk@acme.example", password=PASSWORD, name="Desk", organisation="Acme", kind="provider"
            )
            await self.platform.partners.register(
                self._desk, slug="acme", company_name="Acme", email="desk@acme.example", contact_person="Desk",
                business_type="company",
            )  # fmt: skip
            operator = await identity.create_organisation(
                email="op@haat.example", password=PASSWORD, name="Op", organisation="Haat", kind="operator"
            )
            assert self._desk.org_id is not None
            await self.platform.partners.approve(operator, self._desk.org_id)
        version = {"endpoint": f"http://127.0.0.1:{self.provider.port}", "sample": {"body": {"n": 0}},
                   "languages": ["hi-Deva"], **changes.pop("version", {})}  # fmt: skip
        made = await self.platform.catalog.register(
            self._desk,
            draft(
                slug, category="nlp", unit="requests", version=version, **{"max_requests_per_second": 10_000, **changes}
            ),
        )
        async with self.platform.db.transaction(PLATFORM_SCOPE) as connection:
            await catalog_store.accept_version(connection, made.service_id, made.version_id, datetime.now(UTC))
        await self.platform.catalog.publish(self._desk, made.service_id)
        self.services[slug] = made.service_id

    async def subscribe(self, actor: Actor, application: UUID, slug: str, plan: str = "large") -> None:
        """Subscribe an application, and wait until its key opens the service at the gateway."""
        await self.platform.subscriptions.subscribe(actor, application, self.services[slug], plan)

    async def plan(self, code: str, **limits: Any) -> None:
        names = ", ".join(limits)
        async with self.platform.db.transaction(PLATFORM_SCOPE) as connection:
            await connection.execute(
                f"INSERT INTO plans (id, code, name, listed, rank, {names}) "
                f"VALUES (gen_random_uuid(), %s, %s, true, 90, {', '.join(['%s'] * len(limits))})",
                (code, code, *limits.values()),
            )

    async def known(self, key: str) -> None:
        """Wait until the gateway has heard of a key."""

        async def look() -> bool:
            return (await self.client.get("/v1/models", headers=bearer(key))).status_code == 200

        await until(look)

    async def ended(self, key: str, job: str, seconds: float = 30) -> dict[str, Any]:
        """Return a job once it has ended."""

        async def look() -> dict[str, Any] | None:
            found: dict[str, Any] = (await self.client.get(f"/v1/jobs/{job}", headers=bearer(key))).json()
            return found if found["status"] in ENDED else None

        found: dict[str, Any] = await until(look, seconds)
        return found

    async def rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        async with self.platform.db.transaction(PLATFORM_SCOPE) as connection:
            return await (await connection.execute(statement, values)).fetchall()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@asynccontextmanager
async def open_town(cluster: Any, database: Any, *, work: bool = True, **options: Any) -> AsyncIterator[Town]:
    """Run the processes in the test's own loop; with ``work`` the worker too."""
    data_dir = Path(tempfile.mkdtemp(prefix="haat-town-"))
    port, gateway_port = free_ports(2)
    master = (cluster.settings.data_dir / "secrets" / "master.key").read_bytes()
    settings = Settings(
        data_dir=data_dir,
        master_key=base64.b64encode(master).decode(),
        database_url=database.owner_dsn,
        port=port,
        gateway_port=gateway_port,
        allowed_networks=["127.0.0.0/8"],
        smtp_port=0,
        shutdown_seconds=3,
        log_level="warning",
        provider_share=Decimal("0.7"),
        ship_interval_ms=50,
        **options,
    )
    stop, provider, counting = asyncio.Event(), await Provider().start(), Counting()
    provider.behaviour = counting
    running = [
        asyncio.create_task(process.run(settings, stop))
        for process in (gateway, control, shipper, *([worker] if work else []))
    ]
    try:
        async with (
            open_platform(settings, name="test") as platform,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway_port}", trust_env=False, timeout=30) as client,
        ):

            async def ready() -> bool:
                for task in running:
                    if task.done():
                        task.result()
                return (data_dir / "gateway" / "ready.json").exists() and (data_dir / "gateway" / "front.sock").exists()

            await until(ready)
            yield Town(settings, platform, provider, counting, client)
    finally:
        stop.set()
        await asyncio.gather(*running)
        await provider.stop()
        shutil.rmtree(data_dir, ignore_errors=True)
