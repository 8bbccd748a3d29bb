"""The whole way: a bad version is rolled out, a gateway leaves it, the log learns it, the control plane ends it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID

from gateway.rig import Market as Rig
from gateway.rig import Provider, Request, answer
from haat.catalog.drafts import VersionDraft
from haat.gateway.gateway import Gateway
from haat.gateway.market.feed import Feed
from haat.gateway.market.snapshot import Directory
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.events import DomainEvent
from haat.rollouts.jobs import HANDLERS
from haat.rollouts.model import RolloutDraft
from haat.settings import Settings
from haat.usage import intake
from haat.usage.event import encode
from haat.usage.intake import Record
from haat.usage.journal import JournalWriter
from market import draft
from office import Control, PostBox, control

__all__ = ["control"]


async def behave(request: Request, reader: Any, writer: Any) -> bool:
    """Answer as version 1 does; version 2 fails every call but those of its acceptance."""
    bad = request.target.startswith("/two") and b"live" in request.body
    writer.write(answer(500, b"{}") if bad else answer(200, json.dumps({"from": request.target}).encode()))
    await writer.drain()
    return True


async def handle(control: Control, stream: str, kind: str) -> DomainEvent:
    """Wait for an event of a stream, and run what is done after it, twice: handlers may run again."""
    async with asyncio.timeout(10):
        while True:
            async with control.platform.db.transaction(PLATFORM_SCOPE) as connection:
                found = [one for one in await events.read_stream(connection, stream) if one.type == kind]
            if found:
                break
            await asyncio.sleep(0.02)
    for handler in HANDLERS:
        if kind in handler.types:
            await handler.run(control.platform, found[-1])
            await handler.run(control.platform, found[-1])
    return found[-1]


async def test_a_bad_version_goes_back_by_itself(
    control: Control, database: Any, keyring: Keyring, tmp_path: Path
) -> None:
    platform, server = control.platform, await Provider().start()
    server.behaviour = behave
    provider, consumer = await control.market.provider("bhasha"), await control.market.consumer()

    def version(name: str, path: str) -> dict[str, Any]:
        endpoint = f"http://127.0.0.1:{server.port}{path}"
        return {"version": name, "endpoint": endpoint, "dialect": "http", "sample": {"path": "/invoke", "body": {}}}

    made = await platform.catalog.register(provider, draft(version=version("1", "/one")))
    await platform.catalog.versions.accept(provider, made.service_id, made.version_id)
    second = await platform.catalog.versions.add(
        provider, made.service_id, VersionDraft.model_validate(version("2", "/two"))
    )
    await platform.catalog.versions.accept(provider, made.service_id, second, default=False)
    listing = await platform.catalog.publish(provider, made.service_id)
    application = await platform.identity.create_application(consumer, "shop")
    key = await platform.identity.create_key(consumer, application.id, name="live")
    await platform.subscriptions.subscribe(consumer, application.id, listing.id, "professional")

    settings = Settings(data_dir=tmp_path / "gateway", allowed_networks=["127.0.0.0/8"])
    journal = JournalWriter(tmp_path / "journal", "gateway-0", 1 << 22, sync_ms=1000, reserve_bytes=1 << 16)
    gateway = Gateway(settings, keyring, journal, Directory())
    feed = Feed(database.service.dsn, gateway.directory, None, gateway.set_feed_connected, gateway.endpoints.notices)
    following = asyncio.create_task(feed.run())
    await feed.synced.wait()
    rig = Rig(gateway, server, tmp_path / "journal", key.key, await gateway.listen("127.0.0.1", 0), keyring)
    path = f"/v1/services/{listing.path}/invoke"
    try:
        rollout = await platform.rollouts.start(
            provider,
            listing.id,
            RolloutDraft.model_validate({"candidate": "2", "percent": 50, "rule": {"min_calls": 20}}),
        )
        await rig.until(lambda: gateway.directory.services[listing.path].division is not None)
        seen: list[tuple[str | None, int]] = []
        for user in range(90):
            response = await rig.call("POST", path, b'{"live": 1}', f"X-Haat-User: user-{user}")
            seen.append((response.header("x-haat-variant"), response.status))
        failed = [variant for variant, status in seen if status == 500]
        assert len(failed) == 20 and set(failed) == {"candidate"}  # and not one more
        assert {status for variant, status in seen if variant == "control"} == {200}
        told = await handle(control, f"rollout/{rollout.id}", "rollout.tripped")
        assert told.data["version"] == "2"
        ended = (await platform.rollouts.report(provider, rollout.id)).rollout
        assert (ended.status, ended.reason) == ("rolled_back", told.data["reason"])
        await handle(control, f"service/{listing.id}", "rollout.rolled_back")
        assert isinstance(platform.mail, PostBox)
        mail = platform.mail.sent[-1]
        assert mail["subject"] == "Your rollout was rolled back" and "The candidate failed 100.0% of 20" in mail["text"]
        await rig.until(lambda: gateway.directory.services[listing.path].division is None)
        after = await rig.call("POST", path, b'{"live": 1}')
        assert (after.status, after.header("x-haat-variant"), after.header("api-version")) == (200, None, "1")
        records = [
            Record(event, "gateway-0", 1, place, encode(event)) for place, event in enumerate(rig.events(), start=1)
        ]
        async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
            taken = await intake.take(connection, records, platform.clock.now(), any_time=True)
        assert taken is not None and taken.quarantined == 0
        async with platform.db.transaction(PLATFORM_SCOPE) as connection:
            rows = await connection.execute(
                "SELECT arm, count(*) AS calls FROM usage WHERE rollout = %s GROUP BY arm", (UUID(str(rollout.id)),)
            )
            assert {row["arm"]: row["calls"] async for row in rows} == {"candidate": 20, "control": 70}
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await gateway.stop(1.0)
        await server.stop()
