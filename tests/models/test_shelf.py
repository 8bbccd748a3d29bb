"""The built-in services go on the shelf by the way of everybody else: registered, tried, published."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from haat import bootstrap
from haat.app import Platform, build_platform
from haat.bootstrap import builtin_listings, ensure_builtin_services, ensure_operator
from haat.infra.keyring import keyring_of
from haat.infra.mail import mail_for
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SystemClock
from haat.models.process import run
from haat.plugins.manager import hosted
from haat.providers.vani import sound
from haat.settings import Settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
async def platform(database: Any, tmp_path: Path) -> AsyncIterator[Platform]:
    """A platform of its own with the models process beside it."""
    settings = Settings(data_dir=tmp_path, models_port=free_port(), shutdown_seconds=5)
    keyring = keyring_of(settings)
    platform = build_platform(settings, database.app, database.service, keyring, SystemClock(), mail_for(settings))
    platform.identity._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # speed, not safety
    stop = asyncio.Event()
    serving = asyncio.create_task(run(settings, stop))
    yield platform
    stop.set()
    await asyncio.wait_for(serving, 30)


async def test_everything_that_is_installed_is_listed_as_it_says_of_itself(platform: Platform) -> None:
    await ensure_operator(platform)
    left_out = await ensure_builtin_services(platform)
    everything = hosted()
    assert left_out == {path: sentence for path, one in everything.items() if (sentence := one.missing())}
    listings = {listing.path: listing for listing in await builtin_listings(platform)}
    assert listings.keys() == everything.keys() - left_out.keys()
    for path, listing in listings.items():
        service = everything[path]
        [version] = await platform.discovery.versions(None, listing.id)
        assert (listing.category, listing.unit, listing.unit_price) == (
            service.category,
            service.unit,
            service.unit_price,
        )
        assert listing.policy.get("capability", "") == service.capability
        assert (version.dialect, version.sample["path"]) == (service.dialect, service.sample_path)
        assert version.endpoint == f"{platform.settings.models_address}/{path}"
    assert listings["akshara/chat"].category == "llm"
    assert await ensure_builtin_services(platform) == left_out  # again: nothing new


async def test_a_listing_from_before_gets_the_name_for_what_it_does(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"akshara/moderate": hosted()["akshara/moderate"]}
    monkeypatch.setattr(bootstrap, "hosted", lambda: one)  # the others take their time
    await ensure_operator(platform)
    await ensure_builtin_services(platform)
    before = next(one for one in await builtin_listings(platform) if one.path == "akshara/moderate")
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute("UPDATE services SET policy = '{}' WHERE id = %s", (before.id,))
    await ensure_builtin_services(platform)
    after = next(one for one in await builtin_listings(platform) if one.path == "akshara/moderate")
    assert after.policy == {"capability": "moderation"}


async def test_a_listing_says_in_which_formats_this_machine_can_speak(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def said() -> Any:
        await ensure_builtin_services(platform)
        listing = next(one for one in await builtin_listings(platform) if one.path == "vani/text-to-speech")
        [version] = await platform.discovery.versions(None, listing.id)
        return version.policy["audio_formats"]

    await ensure_operator(platform)
    assert await said() == ["wav", "mp3", "opus", "aac", "flac", "pcm"]
    monkeypatch.setattr(sound, "PROGRAM", "an-encoder-that-is-not-here")
    assert await said() == ["wav"]
    monkeypatch.undo()
    assert (await said())[1:3] == ["mp3", "opus"]
