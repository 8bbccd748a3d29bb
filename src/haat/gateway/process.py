"""The gateway's process: what is recovered, in which order, before the first call is taken."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import time
from pathlib import Path

import uvloop

from haat.gateway.gateway import Gateway
from haat.gateway.http.tls import certificate_of
from haat.gateway.market.feed import Feed
from haat.gateway.market.snapshot import Directory
from haat.gateway.market.snapshot_file import SnapshotFile, UnusableSnapshot
from haat.gateway.plugins.watch import PluginWatch
from haat.gateway.wallets.keeper import Keeper
from haat.gateway.workers.membership import Membership
from haat.gateway.workers.neighbours import Neighbours, inherited
from haat.gateway.workers.place import ALONE, Place, Ready, ReadyFiles, given_place
from haat.infra.dsn import dsn_for
from haat.infra.keyring import Keyring, keyring_of
from haat.kernel import compiled
from haat.settings import Settings, load_settings
from haat.usage.journal import JournalInUse, JournalWriter

log = logging.getLogger(__name__)

ANNOUNCE_SECONDS = 0.5
PATIENCE_FOR_POSTGRES = 3.0
"""Seconds that a start waits for an answer of PostgreSQL when there is a snapshot on disk to start from."""


async def run(settings: Settings, stop: asyncio.Event, place: Place | None = None) -> None:
    """Serve on ``settings.host:settings.gateway_port`` until ``stop`` is set, then end in order.

    ``place`` is this worker's place among several, default the one that the parent process gave.
    ``data_dir/gateway/ready.json`` exists while all workers take calls: ``{"port", "pid"}``.
    """
    if not isinstance(asyncio.get_running_loop(), uvloop.Loop):
        log.warning("the gateway runs on asyncio's own loop: correct, but slower than on uvloop")
    place = place or given_place(os.environ) or ALONE
    keyring = keyring_of(settings)
    certificate = certificate_of(settings)
    home = settings.data_dir / "gateway"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    ready = ReadyFiles(home, place)
    journal = await _open_journal(settings, place.worker, stop)
    if journal is None:
        return
    ready.withdraw()
    directory, file = _directory(home / "snapshot.bin", keyring)
    gateway = Gateway(settings, keyring, journal, directory, place)
    gateway.neighbours = neighbours = Neighbours(place, ready, gateway.accept)
    gateway.certificate = certificate
    dsn = dsn_for(settings, keyring, "service")
    feed = Feed(
        dsn,
        directory,
        file if place.slot == 0 else None,
        gateway.set_feed_connected,
        gateway.endpoints.notices,
        gateway.meter.worker,
    )
    membership = Membership(settings, place, gateway, journal)
    following = asyncio.create_task(feed.run())
    renewing: asyncio.Task[None] | None = None
    if certificate is not None:
        renewing = asyncio.create_task(certificate.watch())
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, certificate.reload)
    keeper = Keeper(dsn, gateway, home)
    keeping: asyncio.Task[None] | None = None
    filling: asyncio.Task[None] | None = None
    watching: asyncio.Task[None] | None = None
    switching: asyncio.Task[None] | None = None
    announcing: asyncio.Task[None] | None = None
    plugins = PluginWatch(gateway, settings.data_dir, lambda: load_settings().plugins)
    try:
        if directory.loaded:
            await _first(feed.tried, stop, PATIENCE_FOR_POSTGRES)
        else:
            await _first(feed.synced, stop, None)
        if stop.is_set():
            return
        gc.collect()
        gc.freeze()  # a million entries that stay need not be looked through again and again
        if not await membership.join(dsn, feed.synced.is_set(), stop):
            return
        keeping = asyncio.create_task(membership.keep())
        filling = asyncio.create_task(keeper.run())
        plugins.begin()
        if place.listeners:
            port = await gateway.listen_on(inherited(place.listeners[place.slot]))
        else:
            port = await gateway.listen(settings.host, settings.gateway_port)
        watching = asyncio.create_task(neighbours.watch())
        switching = asyncio.create_task(plugins.run())
        announcing = asyncio.create_task(_announce(ready, Ready(port, os.getpid())))
        form = "compiled" if compiled.is_used() else "interpreted; `make compile` halves what a call costs"
        log.info("%s listens on %s:%d, %s", place.worker, settings.host, port, form)
        await stop.wait()
        log.info("%s finishes %d calls in flight", place.worker, len(gateway.calls))
    finally:
        for task in (announcing, watching, switching, keeping, renewing):
            if task is not None:
                await _end(task)
        ready.withdraw()
        await gateway.stop(settings.shutdown_seconds)
        if filling is not None:
            await _end(filling)
            await keeper.leave()
        await plugins.end()
        await membership.leave()
        await _end(following)


async def _announce(ready: ReadyFiles, worker: Ready) -> None:
    """Say that calls are taken; a disk too full for that must not keep them from being taken."""
    complained = False
    while True:
        try:
            ready.announce(worker)
            return
        except OSError as error:
            if not complained:
                log.error("nobody can be told that calls are taken: %s", error)
                complained = True
        await asyncio.sleep(ANNOUNCE_SECONDS)


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _open_journal(settings: Settings, worker: str, stop: asyncio.Event) -> JournalWriter | None:
    """Open this slot's journal; a predecessor that still finishes its calls is waited for."""
    ends = time.monotonic() + settings.shutdown_seconds + 5
    while not stop.is_set():
        try:
            return JournalWriter(
                settings.data_dir / "journal",
                worker,
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


def _directory(path: Path, keyring: Keyring) -> tuple[Directory, SnapshotFile]:
    """Return the market as a predecessor kept it, empty when there is nothing to go on from."""
    directory, file = Directory(), SnapshotFile(path, keyring)
    began = time.perf_counter()
    try:
        file.load(directory)
    except FileNotFoundError:
        return Directory(), file
    except UnusableSnapshot as error:
        log.warning("%s: starting without it", error)
        return Directory(), file
    log.info("%d credentials read from disk in %.2f s", len(directory.credentials), time.perf_counter() - began)
    return directory, file


async def _first(synced: asyncio.Event, stop: asyncio.Event, patience: float | None) -> None:
    """Wait for either event, or as long as there is patience."""
    waits = {asyncio.create_task(synced.wait()), asyncio.create_task(stop.wait())}
    await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
