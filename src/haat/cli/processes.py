"""One process of the platform, in the foreground: signals, logging, and the database it needs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module

import click
import uvloop

from haat.gateway.workers.place import given_place
from haat.settings import Settings

SUPERVISED = "HAAT_SUPERVISED"
"""Set by `haat serve` for its processes: the database is its business."""
LIFELINE = "HAAT_LIFELINE"
"""A descriptor that becomes readable when the parent is gone: the child ends, too."""

MODULES = {
    "gateway": "haat.gateway.process",
    "control": "haat.control.process",
    "worker": "haat.worker",
    "shipper": "haat.usage.shipper",
    "models": "haat.models.process",
    "websocket": "haat.gateway.websocket.process",
    "speech": "haat.speech.process",
    "bridge": "haat.bridge.process",
}
_WITHOUT_DATABASE = {"models", "websocket", "speech", "bridge"}
_WITHOUT_SCHEMA = {"gateway"}  # it goes on from its last snapshot
_MODELS_SECONDS = 60.0

log = logging.getLogger(__name__)


def run_process(name: str, settings: Settings) -> int:
    """Run a process until SIGTERM or SIGINT; return the exit status."""
    configure_logging(settings.log_level)
    supervised = os.environ.get(SUPERVISED) == "1"
    with contextlib.ExitStack() as stack:
        if not supervised and name not in _WITHOUT_DATABASE:
            _enter_database(stack, settings, with_schema=name not in _WITHOUT_SCHEMA)
        if name == "gateway" and settings.gateway_workers > 1 and given_place(os.environ) is None:
            from haat.cli.gateways import run_workers

            return _run(lambda stop: run_workers(settings, stop, log.warning))
        run: Callable[[Settings, asyncio.Event], Awaitable[None]] = import_module(MODULES[name]).run
        return _run(lambda stop: run(settings, stop))


def run_stock(settings: Settings) -> int:
    """Make the operator, wait for the models process, and list the built-in services."""
    configure_logging(settings.log_level)
    return _run(lambda stop: _stock(settings, stop))


async def _stock(settings: Settings, stop: asyncio.Event) -> None:
    from haat.app import open_platform
    from haat.bootstrap import ensure_builtin_services, ensure_help_pages, ensure_operator

    async with open_platform(settings, name="haat-stock") as platform:
        await ensure_operator(platform)
        await ensure_help_pages(platform)
        await _await_port("127.0.0.1", settings.models_port, stop)
        if stop.is_set():
            return
        for service, reason in (await ensure_builtin_services(platform)).items():
            log.warning("%s is left out: %s", service, reason)


async def _await_port(host: str, port: int, stop: asyncio.Event) -> None:
    deadline = time.monotonic() + _MODELS_SECONDS
    while not stop.is_set():
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def _run(main: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    async def until_told() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if lifeline := os.environ.get(LIFELINE):
            loop.add_reader(int(lifeline), _orphaned, int(lifeline), stop)
        await main(stop)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(until_told())
    except Exception as error:
        from haat.cli.reasons import sentence_of

        sentence = sentence_of(error)
        if sentence is None:
            log.exception("ended by an error that should not happen")
        else:
            log.error("%s", sentence)
        return 1
    return 0


def _orphaned(lifeline: int, stop: asyncio.Event) -> None:
    """The parent is gone, and with it whoever could stop us."""
    asyncio.get_running_loop().remove_reader(lifeline)
    stop.set()


def _enter_database(stack: contextlib.ExitStack, settings: Settings, *, with_schema: bool) -> None:
    """Keep the database running for a process that nobody supervises, and look at its schema."""
    from haat.infra.dsn import dsn_for
    from haat.infra.keyring import keyring_of
    from haat.infra.prepare import database_server
    from haat.infra.revision import current_revision, newest_revision

    keyring = keyring_of(settings)
    stack.enter_context(database_server(settings, keyring))
    if not with_schema:
        return
    revision = current_revision(dsn_for(settings, keyring, "owner"))
    if revision != newest_revision():
        raise click.ClickException(
            f"The database is at revision {revision or 'none'}, this version needs {newest_revision()}: "
            "run `haat migrate`."
        )


def configure_logging(level: str) -> None:
    """Log to standard error, one line a record, with the time in UTC."""
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every request we make
