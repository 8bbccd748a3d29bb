"""`haat serve`: the whole platform on one machine, as a family of supervised processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from haat.cli.activation import Activation
from haat.cli.gateways import Gateways
from haat.cli.processes import SUPERVISED
from haat.cli.run_folder import (
    ProcessStatus,
    Status,
    read_status,
    remove_status,
    stale_processes,
    take_serve_lock,
)
from haat.cli.supervisor import Supervisor, end_processes
from haat.infra.embedded import EmbeddedPostgres
from haat.infra.keyring import Keyring, keyring_of
from haat.infra.prepare import prepare_database
from haat.settings import Settings

FIRST, THEN = ("gateway", "models"), ("websocket", "speech", "control", "worker", "shipper")
"""Calls need the first two: they get the whole machine until they answer."""

_READY_SECONDS = 60.0
_HEAD_START_SECONDS = 3.0
_WATCH_SECONDS = 1.0
_POSTGRES_SECONDS = 10.0
_STUCK_EVERY, _STUCK_LOOKS = 5, 3
"""PostgreSQL is asked for an answer every so many watches, and replaced after so many without one."""


def serve(settings: Settings, *, logs_to_stderr: bool = False) -> int:
    """Run the platform until SIGTERM or SIGINT; return the exit status."""
    lock = take_serve_lock(settings.data_dir)
    if lock is None:
        raise click.ClickException(_already_running(settings.data_dir))
    try:
        return asyncio.run(_serve(settings, logs_to_stderr))
    finally:
        os.close(lock)


async def _serve(settings: Settings, logs_to_stderr: bool) -> int:
    console = Console(highlight=False, soft_wrap=True)
    stop = asyncio.Event()
    hurry = asyncio.Event()

    def told() -> None:
        if stop.is_set():
            hurry.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told)
    if stale := stale_processes(settings.data_dir):
        console.print(f"Ending {len(stale)} processes that a killed `haat serve` left behind …")
        await end_processes(stale, min(10.0, settings.shutdown_seconds))
    settings, gateways = with_settled_ports(settings)
    postgres: EmbeddedPostgres | None = None
    try:
        postgres = await _start_database(settings, keyring_of(settings), console)
        if not stop.is_set():
            logs = None if logs_to_stderr else _logs(settings)
            await _run_children(settings, gateways, postgres, console, stop, hurry, logs)
    finally:
        gateways.close()
        remove_status(settings.data_dir)
        if postgres is not None:
            await asyncio.to_thread(postgres.stop, _POSTGRES_SECONDS)
    console.print("Stopped.")
    return 0


async def _run_children(
    settings: Settings,
    gateways: Gateways,
    postgres: EmbeddedPostgres | None,
    console: Console,
    stop: asyncio.Event,
    hurry: asyncio.Event,
    logs: Path | None,
) -> None:
    status = Status(
        pid=os.getpid(),
        port=settings.port,
        gateway_port=settings.gateway_port,
        models_port=settings.models_port,
        portal=settings.portal_address,
        gateway=settings.gateway_address,
    )

    def write_status() -> None:
        status.processes = {
            child.name: ProcessStatus(child.process.pid, child.created, child.restarts)
            for child in supervisor.children.values()
            if child.process is not None and child.process.returncode is None
        }
        status.write(settings.data_dir)

    supervisor = Supervisor(logs, _environment(settings), lambda sentence: console.print(sentence), write_status)

    async def start_bridge(environment: dict[str, str], descriptors: tuple[int, ...]) -> None:
        await supervisor.start("bridge", _command("bridge"), environment=environment, descriptors=descriptors)

    bridge = Activation(settings, start_bridge)
    try:
        bridge.watch()
        await gateways.start(supervisor)
        await supervisor.start("models", _command("models"))
        if not stop.is_set():  # not for long: the rest does not depend on them
            await _until_gateway_is_ready(settings, _HEAD_START_SECONDS)
            await _until_answers("127.0.0.1", settings.models_port, _HEAD_START_SECONDS)
        for name in THEN:
            await supervisor.start(name, _command(name))
        await supervisor.start("stock", _command("stock"), once=True)
        watching = asyncio.create_task(_watch(settings, supervisor, postgres, console))
        announcing = asyncio.create_task(_announce(settings, console, logs))
        await stop.wait()
        for task in (watching, announcing):
            task.cancel()
        await asyncio.gather(watching, announcing, return_exceptions=True)
        console.print("Stopping …")
    finally:
        gateways.close()
        # The gateway drains first; the shipper goes last, so that what it journalled is shipped.
        beside = ["websocket", "speech", "bridge", "control", "worker", "models"]
        order = (["stock"], gateways.names, beside, ["shipper"])
        stopping = asyncio.create_task(supervisor.stop(order, settings.shutdown_seconds))
        hurrying = asyncio.create_task(hurry.wait())
        await asyncio.wait({stopping, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            await supervisor.stop(order, 0)
        hurrying.cancel()
        await stopping
        await bridge.close()


async def _start_database(settings: Settings, keyring: Keyring, console: Console) -> EmbeddedPostgres | None:
    """Start the embedded server unless another database is set, and bring the schema up to date."""
    postgres = None
    if settings.database_url is None:
        console.print("Starting PostgreSQL …")
        postgres = EmbeddedPostgres(settings.data_dir, keyring, settings.postgres_account)
        await asyncio.to_thread(postgres.start)
    try:
        await asyncio.to_thread(prepare_database, settings, keyring)
    except BaseException:
        if postgres is not None:
            await asyncio.to_thread(postgres.stop, _POSTGRES_SECONDS)
        raise
    return postgres


async def _watch(
    settings: Settings, supervisor: Supervisor, postgres: EmbeddedPostgres | None, console: Console
) -> None:
    """Look after what isn't a child: PostgreSQL, and the length of the logs."""
    looks = stuck = 0
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        looks += 1
        supervisor.rotate_logs()
        if postgres is not None and looks % _STUCK_EVERY == 0:
            stuck = stuck + 1 if await asyncio.to_thread(postgres.is_stuck) else 0
            if stuck == _STUCK_LOOKS:
                stuck = 0
                console.print("PostgreSQL answers nobody and does not recover; it is replaced")
                try:
                    await asyncio.to_thread(postgres.replace)
                except Exception as error:
                    console.print(f"PostgreSQL could not be replaced: {error}")
        if postgres is not None and postgres.server_pid() is None:
            console.print("PostgreSQL ended; it is started again")
            try:
                await asyncio.to_thread(postgres.start)
            except Exception as error:
                console.print(f"PostgreSQL could not be started: {error}")


async def _announce(settings: Settings, console: Console, logs: Path | None) -> None:
    """Print the addresses as soon as they answer."""
    answers = await _until_answers(settings.host, settings.port, _READY_SECONDS)
    if not answers or not await _until_gateway_is_ready(settings, _READY_SECONDS):
        port = settings.gateway_port if answers else settings.port
        console.print(f"Port {port} does not answer yet: look into {logs or 'the lines above'}")
        return
    console.print(f"Portal   {settings.portal_address}")
    console.print(f"Gateway  {settings.gateway_address}")
    console.print(f"Data     {settings.data_dir}")
    if logs is not None:
        console.print(f"Logs     {logs}")
    console.print("Ready. Ctrl-C stops it; `haat sandbox` makes a key to try it with,")
    console.print("`haat operator` shows the operator's sign-in.")


async def _until_gateway_is_ready(settings: Settings, seconds: float) -> bool:
    """Wait until every worker takes calls: their port is open long before."""
    ready = settings.data_dir / "gateway" / "ready.json"
    deadline = time.monotonic() + seconds
    while not ready.exists():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def _until_answers(host: str, port: int, seconds: float) -> bool:
    """Wait until something accepts connections; return False when nothing did for that long."""
    deadline = time.monotonic() + seconds
    while not await _answers(host, port):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def _answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(_reachable(host), port)
    except OSError:
        return False
    writer.close()
    return True


def _reachable(host: str) -> str:
    """Return an address to connect to for one to listen on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def with_settled_ports(settings: Settings) -> tuple[Settings, Gateways]:
    """Return settings in which port 0 became a free one, and the gateway's sockets; refuse ports somebody else has."""
    changes: dict[str, int] = {}
    gateways: Gateways | None = None
    with contextlib.ExitStack() as stack:
        for name, host, option in (
            ("port", settings.host, "--port"),
            ("gateway_port", settings.host, "--gateway-port"),
            ("models_port", "127.0.0.1", "HAAT_MODELS_PORT"),
        ):
            wanted: int = getattr(settings, name)
            try:
                if name == "gateway_port":
                    gateways = Gateways.open(settings)
                    changes[name] = gateways.port
                else:
                    changes[name] = stack.enter_context(_probe(host, wanted)).getsockname()[1]
            except OSError as error:
                if gateways is not None:
                    gateways.close()
                raise click.ClickException(
                    f"Port {wanted} on {host} can't be used ({error.strerror}): "
                    f"stop the program that has it, or choose another with {option}."
                ) from error
    assert gateways is not None
    return settings.model_copy(update=changes), gateways


def _probe(host: str, port: int) -> socket.socket:
    """Take a port for a moment; raise OSError when somebody else has it."""
    probe = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        if not port:
            probe.listen()  # so that the kernel doesn't give the next probe the same one
    except OSError:
        probe.close()
        raise
    return probe


def _logs(settings: Settings) -> Path:
    folder = settings.data_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _command(name: str) -> list[str]:
    return [sys.executable, "-m", "haat.cli.main", name]


def _environment(settings: Settings) -> dict[str, str]:
    """Return our own environment with what the command line and the free ports changed."""
    return {
        **os.environ,
        SUPERVISED: "1",
        "HAAT_DATA_DIR": str(settings.data_dir),
        "HAAT_PORT": str(settings.port),
        "HAAT_GATEWAY_PORT": str(settings.gateway_port),
        "HAAT_MODELS_PORT": str(settings.models_port),
    }


def _already_running(data_dir: Path) -> str:
    status = read_status(data_dir)
    who = f"as process {status.pid}, portal {status.portal}" if status else "and is just starting"
    stop = f"stop it with `kill {status.pid}`" if status else "wait for it"
    return f"Haat already runs on {data_dir} ({who}): {stop}, or choose another --data-dir."
