"""The gateway's process: what is recovered, in which order, before the first call is taken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from pathlib import Path

import msgspec
import psycopg
import uvloop

from haat.gateway import recovery
from haat.gateway import snapshot as snapshots
from haat.gateway.feed import Feed
from haat.gateway.gateway import Gateway
from haat.gateway.snapshot import Directory
from haat.infra.dsn import dsn_for
from haat.infra.keyring import Keyring, keyring_of
from haat.settings import Settings
from haat.usage.journal import JournalInUse, JournalWriter

log = logging.getLogger(__name__)

WORKER = "gateway-0"
"""A slot's name, not a process's: the successor in the slot inherits its journal."""
PATIENCE_FOR_POSTGRES = 3.0
"""Seconds that a start waits for an answer of PostgreSQL when there is a snapshot on disk to start from."""
KEEP_LIMITS_SECONDS = 5.0


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve on ``settings.host:settings.gateway_port`` until ``stop`` is set, then end in order.

    ``data_dir/gateway/ready.json`` exists while calls are taken: ``{"port", "pid"}``.
    """
    if not isinstance(asyncio.get_running_loop(), uvloop.Loop):
        log.warning("the gateway runs on asyncio's own loop: correct, but slower than on uvloop")
    keyring = keyring_of(settings)
    home = settings.data_dir / "gateway"
    ready = home / "ready.json"
    journal = await _open_journal(settings, stop)
    if journal is None:
        return
    ready.unlink(missing_ok=True)  # a killed predecessor's
    directory = _directory(home / "snapshot.bin", keyring)
    gateway = Gateway(settings, keyring, journal, directory)
    dsn = dsn_for(settings, keyring, "service")
    feed = Feed(dsn, directory, keyring, home / "snapshot.bin", gateway.set_feed_connected)
    following = asyncio.create_task(feed.run())
    keeping = asyncio.create_task(_keep_limits_while_they_change(home / "limits.bin", gateway, journal))
    recovered = False
    try:
        if directory.loaded:
            await _first(feed.tried, stop, PATIENCE_FOR_POSTGRES)
        else:
            await _first(feed.synced, stop, None)
        if stop.is_set():
            return
        await _recover_limits(settings, dsn, home, gateway, feed)
        recovered = True
        port = await gateway.listen(settings.host, settings.gateway_port)
        snapshots.save(ready, msgspec.json.encode({"port": port, "pid": os.getpid()}))
        log.info("gateway %s listens on %s:%d", WORKER, settings.host, port)
        await stop.wait()
        log.info("gateway %s finishes %d calls in flight", WORKER, len(gateway.calls))
    finally:
        ready.unlink(missing_ok=True)
        await gateway.stop(settings.shutdown_seconds)
        if recovered:
            _keep_limits(home / "limits.bin", gateway, journal)
        for task in (following, keeping):
            task.cancel()
        await asyncio.gather(following, keeping, return_exceptions=True)


async def _open_journal(settings: Settings, stop: asyncio.Event) -> JournalWriter | None:
    """Open this slot's journal; a predecessor that still finishes its calls is waited for."""
    ends = time.monotonic() + settings.shutdown_seconds + 5
    while not stop.is_set():
        try:
            return JournalWriter(
                settings.data_dir / "journal",
                WORKER,
                settings.journal_segment_bytes,
                settings.journal_sync_ms,
                max_bytes=settings.journal_max_bytes,
            )
        except JournalInUse:
            if time.monotonic() > ends:
                raise
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.1)
    return None


def _directory(path: Path, keyring: Keyring) -> Directory:
    try:
        return Directory(snapshots.load(path, keyring))
    except FileNotFoundError:
        return Directory()
    except snapshots.UnusableSnapshot as error:
        log.warning("%s: starting without it", error)
        return Directory()


async def _first(synced: asyncio.Event, stop: asyncio.Event, patience: float | None) -> None:
    """Wait for either event, or as long as there is patience."""
    waits = {asyncio.create_task(synced.wait()), asyncio.create_task(stop.wait())}
    await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


async def _recover_limits(settings: Settings, dsn: str, home: Path, gateway: Gateway, feed: Feed) -> None:
    journal_dir, now = settings.data_dir / "journal", gateway.clock.now_us()
    if feed.synced.is_set():
        try:
            await recovery.from_store(dsn, journal_dir, gateway.directory, gateway.limits, now, settings.zone)
            return
        except (psycopg.Error, OSError) as error:
            log.warning("the usage store can't be asked: %s", str(error).strip())
    recovery.from_disk(home / "limits.bin", journal_dir, gateway.directory, gateway.limits, now, settings.zone)


def _keep_limits(path: Path, gateway: Gateway, journal: JournalWriter) -> None:
    try:
        recovery.keep(path, gateway.limits, WORKER, journal.position, gateway.clock.now_us())
    except OSError as error:
        log.error("the counters can't be kept on disk: %s", error)


async def _keep_limits_while_they_change(path: Path, gateway: Gateway, journal: JournalWriter) -> None:
    kept = 0
    while True:
        await asyncio.sleep(KEEP_LIMITS_SECONDS)
        if gateway.meter.recorded != kept:
            kept = gateway.meter.recorded
            _keep_limits(path, gateway, journal)
