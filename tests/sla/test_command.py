"""`haat sla …`: what it prints, what it does, and what it refuses, on a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from bazaar import Bazaar
from haat.app import Platform, build_platform
from haat.cli.main import haat
from haat.infra.keyring import Keyring
from haat.infra.postgres import Database
from haat.kernel.clock import SetClock
from haat.settings import Settings
from office import PostBox


class Desk:
    """Runs commands on a platform that is opened for each of them."""

    def __init__(self, cluster: Any, database: str, clock: SetClock, keyring: Keyring, folder: Path) -> None:
        self.cluster, self.database, self.clock, self.keyring, self.folder = cluster, database, clock, keyring, folder

    def use(self, _: Any, use: Callable[[Platform], Awaitable[Any]]) -> Any:
        """Stand in for `haat.cli.console.on_platform`."""

        async def opened() -> Any:
            settings = Settings(data_dir=self.folder, allowed_networks=["127.0.0.0/8"])
            async with (
                Database(self.cluster.dsn("app", self.database), max_size=4) as app,
                Database(self.cluster.dsn("service", self.database), max_size=2) as service,
            ):
                return await use(build_platform(settings, app, service, self.keyring, self.clock, PostBox()))

        return asyncio.run(opened())

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(haat, ["sla", *arguments, "--data-dir", str(self.folder)])


@pytest.fixture
def desk(
    cluster: Any,
    database_name: str,
    clock: SetClock,
    keyring: Keyring,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Desk:
    made = Desk(cluster, database_name, clock, keyring, tmp_path)
    monkeypatch.setattr("haat.cli.sla.on_platform", made.use)

    async def furnish(platform: Platform) -> None:
        await Bazaar(platform.service_db, clock).service()

    made.use(None, furnish)
    return made


def test_a_listing_without_a_promise_says_so(desk: Desk) -> None:
    done = desk.run("status", "vani/speak")
    assert done.exit_code == 0, done.output
    assert "It promises nothing yet." in done.output and "No incidents." in done.output
    assert desk.run("status", "vani/nothing").exit_code == 1


def test_a_promise_is_made_and_shown(desk: Desk) -> None:
    done = desk.run("promise", "vani/speak", "--availability", "99.5", "--p95", "800", "--tiers", "99.5:10,95:50")
    assert done.exit_code == 0 and "Objective 1 of vani/speak holds from 2026-11-21 06:30 UTC on." in done.output
    desk.clock.advance(minutes=1)
    assert "Objective 1: 99.500 % available, p95 800 ms" in desk.run("status", "vani/speak").output
    told = json.loads(desk.run("status", "vani/speak", "--json").output)
    assert told["objective"]["p95_ms"] == 800


@pytest.mark.parametrize(
    "options",
    [["--availability", "101"], ["--availability", "99", "--tiers", "98:x"], ["--availability", "99", "--p95", "0"]],
)
def test_what_can_not_be_promised_is_one_sentence(desk: Desk, options: list[str]) -> None:
    done = desk.run("promise", "vani/speak", *options)
    assert done.exit_code == 1 and done.stderr.startswith("Error: ") and "Traceback" not in done.output


def test_maintenance_is_announced_on_the_platforms_wall_clock_and_cancelled(desk: Desk) -> None:
    done = desk.run("maintain", "vani/speak", "--from", "2026-11-25T02:00", "--to", "2026-11-25T03:30")
    assert done.exit_code == 0 and "2026-11-24 20:30 to 2026-11-24 22:00 UTC, announced" in done.output
    window = UUID(done.output.partition(":")[0])
    [told] = json.loads(desk.run("status", "vani/speak", "--json").output)["windows"]
    assert (told["id"], told["starts_at"]) == (str(window), "2026-11-24T20:30:00+00:00")
    assert "cancelled" in desk.run("cancel", str(window)).output
    late = desk.run("maintain", "vani/speak", "--from", "2026-11-21T18:00", "--to", "2026-11-21T19:00")
    assert late.exit_code == 1
    assert desk.run("maintain", "vani/speak", "--from", "tonight", "--to", "tomorrow").exit_code == 2


def test_a_month_is_closed_and_listed(desk: Desk) -> None:
    desk.run("promise", "vani/speak", "--availability", "99.5")
    assert desk.run("close", "2026-11").exit_code == 1, "it still runs"
    desk.clock.advance(days=10)
    assert "2026-11: 1 judged, 0 known, 0 broken" in desk.run("close", "2026-11").output
    assert "2026-11: 0 judged, 1 known, 0 broken" in desk.run("close", "2026-11").output
    assert "No promise was broken." in desk.run("months").output
    assert "unmeasured" in desk.run("months", "--every").output


def test_a_service_that_can_not_be_called_is_not_probed(desk: Desk) -> None:
    done = desk.run("probe", "vani/speak")
    assert done.exit_code == 1 and "no version that serves calls" in done.stderr
