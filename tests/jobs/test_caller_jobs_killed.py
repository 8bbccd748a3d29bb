"""Workers that are killed in the middle of a job: nothing is executed or billed twice, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haat.infra.job_worker import recover
from haat.settings import Settings
from jobs.caller_rig import bearer, open_town
from jobs.job_rig import until

ITEMS = 2000


@contextlib.contextmanager
def worker(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    assert settings.master_key is not None and settings.database_url is not None
    environment = {
        **os.environ,
        "HAAT_DATA_DIR": str(settings.data_dir),
        "HAAT_MASTER_KEY": settings.master_key.get_secret_value(),
        "HAAT_DATABASE_URL": settings.database_url.get_secret_value(),
        "HAAT_GATEWAY_PORT": str(settings.gateway_port),
    }
    process = subprocess.Popen([sys.executable, Path(__file__).with_name("caller_worker.py")], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.verify
async def test_two_thousand_items_survive_three_killed_workers(cluster: Any, database: Any) -> None:
    async with open_town(cluster, database, work=False) as town:
        await town.service("echo")
        await town.plan("large", per_minute=1_000_000, max_concurrent=1000)
        actor, application, key = await town.consumer()
        await town.subscribe(actor, application, "echo")
        await town.known(key)

        async def slowly() -> None:
            await asyncio.sleep(0.02)

        town.counting.pause = slowly
        answer = await town.client.post(
            "/v1/jobs",
            params={"service": "acme/echo"},
            content=b"".join(b'{"n":%d}\n' % n for n in range(ITEMS)),
            headers={**bearer(key), "Content-Type": "application/jsonl"},
        )
        job = answer.json()["id"]
        for kills in range(1, 4):
            with worker(town.settings):

                async def far(part: int = kills) -> bool:
                    return len(town.counting.seen) > part * ITEMS // 5

                await until(far, 60)
            await recover(town.platform.jobs, 0)  # as the next worker would after half a minute
        with worker(town.settings):
            done = await town.ended(key, job, 120)
        assert done["items"] == {"total": ITEMS, "waiting": 0, "succeeded": ITEMS, "failed": 0, "cancelled": 0}
        assert len(town.counting.seen) == ITEMS and set(town.counting.seen.values()) == {1}

        async def billed() -> bool:
            """A call whose caller was killed is billed when it is answered again, and not before."""
            rows = await town.rows("SELECT sum(requests) AS billed FROM usage WHERE outcome = 'completed'")
            return bool(rows[0]["billed"] == ITEMS)

        await until(billed, 30)
