"""`haat demo`: the platform with a sale on it, from registration to settlement, and a model that it hosts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from rich.console import Console

from haat.bootstrap import OPERATOR_EMAIL, local_sign_in
from haat.cli.hosting_result import HostingResult
from haat.cli.people import Cast, TourFailed
from haat.cli.receipts import Receipts
from haat.cli.sale import Result
from haat.cli.setu import serving
from haat.cli.tour import Tour
from haat.infra.keyring import keyring_of
from haat.models.hosted import Hosted
from haat.plugins.manager import hosted
from haat.settings import Settings

_START_SECONDS = 90.0
PROVIDER_EMAIL = "setu@haat.localhost"
DEVELOPER_EMAIL = "asha@haat.localhost"


async def demo(settings: Settings, *, once: bool) -> int:
    """Start the platform, run the tour, and stay until Ctrl-C unless ``once``; return the exit status."""
    console = Console(stderr=once)  # with --once the last line of standard output is the JSON object
    console.print("\n[bold]Haat[/bold] हाट · ہاٹ — from registration to settlement\n")
    settings = _with_free_ports(settings, console)
    present, missing = _engines()
    for service in missing:
        console.print(f"[yellow]·[/yellow] {service.path} stays off the shelf: {service.missing()}", highlight=False)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _platform(settings) as serve:
        try:
            return await _show(settings, console, serve, stop, len(present), once=once)
        except TourFailed as failure:
            console.print(f"[red]✗[/red] {failure}", highlight=False)
            console.print(f"The logs are in {settings.data_dir / 'logs'}.", highlight=False)
            return 1


async def _show(
    settings: Settings,
    console: Console,
    serve: subprocess.Popen[bytes],
    stop: asyncio.Event,
    services: int,
    *,
    once: bool,
) -> int:
    with console.status("Starting the platform …"):
        began = time.perf_counter()
        await _ready(settings, serve, stop, services)
    console.print(f"[green]✓[/green] The platform is up, {services} services on the shelf ({_seconds(began)})")
    keyring = keyring_of(settings)
    cast = Cast(*(local_sign_in(keyring, email) for email in (OPERATOR_EMAIL, PROVIDER_EMAIL, DEVELOPER_EMAIL)))
    credential = f"Bearer {keyring.derive('tour-provider').hex()}"
    async with serving(credential) as setu_url:
        tour = Tour(settings, cast, console, setu_url, credential)
        touring = asyncio.create_task(tour.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({touring, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not touring.done():
            touring.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await touring
            return 130
        stopping.cancel()
        result, hosting, receipts = touring.result()
        _print_addresses(console, settings, cast)
        if once:
            print(
                json.dumps({**result.as_json(), **hosting.as_json(), **receipts.as_json()}, ensure_ascii=False),
                flush=True,
            )
            return _verdict(result, hosting, receipts, console)
        console.print("The platform goes on running; Ctrl-C stops it.\n")
        await stop.wait()
    return 0


def _verdict(result: Result, hosting: HostingResult, receipts: Receipts, console: Console) -> int:
    """Return 0 when every call and every item is metered once, the money adds up, and the bad version went back."""
    wrong = hosting.wrong() + receipts.wrong()
    if result.calls != result.usage_events:
        wrong.append(f"{result.calls} calls but {result.usage_events} usage events")
    if result.net != result.settlement + result.platform:
        wrong.append(f"{result.net} invoiced but {result.settlement} + {result.platform} shared out")
    for sentence in wrong:
        console.print(f"[red]✗[/red] {sentence}", highlight=False)
    return 1 if wrong else 0


def _engines() -> tuple[list[Hosted], list[Hosted]]:
    services = list(hosted().values())
    missing = [service for service in services if service.missing() is not None]
    return [service for service in services if service not in missing], missing


def _with_free_ports(settings: Settings, console: Console) -> Settings:
    """Return settings whose ports are free, saying which were moved."""
    taken: set[int] = set()
    changes = {}
    for name in ("port", "gateway_port", "models_port"):
        wanted: int = getattr(settings, name)
        port = wanted or _any_free(settings.host)
        while port in taken or not _free(settings.host, port):
            port += 1
        taken.add(port)
        if port != wanted:
            changes[name] = port
        if wanted not in (0, port):
            console.print(f"[yellow]·[/yellow] Port {wanted} is in use; {port} is taken instead.", highlight=False)
    return settings.model_copy(update=changes)


def _any_free(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _platform(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Run `haat serve` for the length of a block and stop it as an operator would."""
    environment = {
        **os.environ,
        "HAAT_DATA_DIR": str(settings.data_dir),
        "HAAT_PORT": str(settings.port),
        "HAAT_GATEWAY_PORT": str(settings.gateway_port),
        "HAAT_MODELS_PORT": str(settings.models_port),
    }
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with (settings.data_dir / "demo.log").open("wb") as log:
        serve = subprocess.Popen(
            [sys.executable, "-m", "haat.cli.main", "serve"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours to pass on, after the tour has let go
        )
        try:
            yield serve
        finally:
            serve.terminate()
            try:
                serve.wait(settings.shutdown_seconds + 30)
            except subprocess.TimeoutExpired:
                serve.kill()
                serve.wait()


async def _ready(settings: Settings, serve: subprocess.Popen[bytes], stop: asyncio.Event, services: int) -> None:
    """Wait until control and gateway answer and the shelves are filled."""
    deadline = time.monotonic() + _START_SECONDS
    async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
        while True:
            if serve.poll() is not None:
                raise TourFailed(f"The platform ended at its start: {_last_line(settings.data_dir / 'demo.log')}")
            with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
                page = (await client.get(f"{settings.portal_address}/api/v1/listings", params={"limit": 100})).json()
                gateway = await client.get(f"{settings.gateway_address}/health")
                if len(page["items"]) >= services and gateway.status_code == 200:
                    return
            if stop.is_set() or time.monotonic() > deadline:
                raise TourFailed("The platform did not get ready.")
            await asyncio.sleep(0.1)


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _print_addresses(console: Console, settings: Settings, cast: Cast) -> None:
    portal = settings.portal_address
    console.print("[bold]Where to go on[/bold]")
    for who, address, sign_in in (
        ("operator", f"{portal}/operator", cast.operator),
        ("provider", f"{portal}/partner", cast.provider),
        ("developer", f"{portal}/account/usage", cast.developer),
    ):
        console.print(f"{who:<10} {address}", highlight=False, soft_wrap=True)
        console.print(f"{'':<10} {sign_in.email} · {sign_in.password}", highlight=False, soft_wrap=True)
    console.print(f"{'visitor':<10} {portal}", highlight=False, soft_wrap=True)
    console.print(f"{'gateway':<10} {settings.gateway_address}", highlight=False, soft_wrap=True)
    console.print(f"{'mails':<10} {settings.data_dir / 'mail'}\n", highlight=False, soft_wrap=True)


def _seconds(began: float) -> str:
    return f"{time.perf_counter() - began:.1f} s"
