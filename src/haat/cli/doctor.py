"""`haat doctor`: looks at everything the platform needs and names the command for what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from rich.console import Console

from haat.cli.reasons import first_line
from haat.cli.run_folder import running_status, stale_processes
from haat.infra.dsn import dsn_for
from haat.infra.embedded import EmbeddedPostgres
from haat.infra.embedded_host import EmbeddedPostgresError, programs, server_account
from haat.infra.keyring import Keyring, keyring_of
from haat.infra.revision import current_revision, newest_revision
from haat.invoices.paper.fonts import faces_in
from haat.kernel.errors import FontMissing
from haat.plugins.manager import hosted
from haat.providers.vani import sound
from haat.settings import Settings

PYTHONS = ((3, 11), (3, 13))
_LEAST_FREE, _WISHED_FREE = 200 * 2**20, 2 * 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``fix`` is the command or the sentence that mends it."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    essential: bool = True


def doctor(settings: Settings) -> int:
    """Print what was found; return 1 when something essential is missing."""
    console = Console(highlight=False, soft_wrap=True)
    failed = False
    for finding in examine(settings):
        mark = "[green]✓[/green]" if finding.ok else "[red]✗[/red]" if finding.essential else "[yellow]·[/yellow]"
        console.print(f"{mark} {finding.name:<28}", end=" ")
        console.print(finding.detail, markup=False)
        if not finding.ok and finding.fix:
            console.print(f"  {'':<28} → {finding.fix}", markup=False)
        failed |= finding.essential and not finding.ok
    console.print("\nSomething essential is missing." if failed else "\nEverything essential is there.")
    return int(failed)


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield what is found, the plainest first."""
    yield _python()
    yield _environment()
    yield _packages()
    writable = _data_dir(settings.data_dir)
    yield writable
    if writable.ok:
        yield _disk(settings.data_dir)
    yield from _ports(settings)
    if writable.ok:
        yield from _database(settings)
    yield from _engines(settings)


def _python() -> Finding:
    least, most = (".".join(map(str, version)) for version in PYTHONS)
    return Finding(
        "Python",
        PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1],
        ".".join(map(str, sys.version_info[:3])),
        f"Haat runs on Python {least} to {most}: `make clean setup PYTHON=python{most}`",
    )


def _environment() -> Finding:
    own = sys.prefix != sys.base_prefix
    return Finding(
        "Virtual environment", own, sys.prefix if own else "the system's Python", "`make setup`", essential=False
    )


def _packages() -> Finding:
    missing = []
    for requirement in importlib.metadata.requires("haat") or ():
        if re.search(r";.*\bextra\b", requirement):
            continue  # PyTorch and the like: who wants them installs them
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return Finding("Packages", not missing, ", ".join(missing) + " missing" if missing else "all there", "`make setup`")


def _data_dir(folder: Path) -> Finding:
    """Look for the nearest folder that exists, without making anything."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    ok = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    return Finding(
        "Data directory",
        ok,
        f"{folder}{'' if folder.exists() else ', made at the first start'}"
        if ok
        else f"{existing} can't be written to",
        "choose another with --data-dir or HAAT_DATA_DIR",
    )


def _disk(folder: Path) -> Finding:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    return Finding(
        "Free disk",
        free >= _WISHED_FREE,
        f"{free / 2**30:.1f} GiB",
        f"2 GiB should be free where {existing} lies: make room, or choose another --data-dir",
        essential=free < _LEAST_FREE,
    )


def _ports(settings: Settings) -> Iterator[Finding]:
    if status := running_status(settings.data_dir):
        detail = f"runs as process {status.pid}: portal {status.portal}, gateway {status.gateway}"
        yield Finding("Platform", True, detail)
        return
    if stale := stale_processes(settings.data_dir):  # they hold the ports, and make way by themselves
        detail = f"a killed `haat serve` left {len(stale)} running"
        yield Finding("Platform", False, detail, "`haat serve` ends what was left and starts anew", essential=False)
        return
    for name, port, option in (
        ("Port of control and portal", settings.port, "--port"),
        ("Port of the gateway", settings.gateway_port, "--gateway-port"),
        ("Port of the models process", settings.models_port, "HAAT_MODELS_PORT"),
    ):
        free = port == 0 or _is_free(settings.host, port)
        yield Finding(
            name,
            free,
            f"{port or 'any'} is {'free' if free else 'taken by another program'}",
            f"stop that program (`ss -ltnp 'sport = :{port}'` names it), or choose another with {option}",
        )


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _database(settings: Settings) -> Iterator[Finding]:
    if settings.database_url is None:
        if not (settings.data_dir / "secrets" / "master.key").exists() and settings.master_key is None:
            yield _programs(settings)
            return
        server = EmbeddedPostgres(settings.data_dir, keyring_of(settings), settings.postgres_account)
        if server.server_pid() is None:
            yield _programs(settings)
            return
    yield from _reachable(settings, keyring_of(settings))


def _programs(settings: Settings) -> Finding:
    try:
        folder = programs(server_account(settings.postgres_account))
    except EmbeddedPostgresError as error:
        return Finding("PostgreSQL", False, "can't be run here", str(error))
    return Finding("PostgreSQL", True, f"is not running; `haat serve` starts it from {folder}")


def _reachable(settings: Settings, keyring: Keyring) -> Iterator[Finding]:
    owner = psycopg.conninfo.make_conninfo(dsn_for(settings, keyring, "owner"), connect_timeout=3)
    try:
        with psycopg.connect(owner) as connection:
            version = connection.info.server_version
    except psycopg.OperationalError as error:
        yield Finding("PostgreSQL", False, first_line(error), "start that server, or correct HAAT_DATABASE_URL")
        return
    yield Finding(
        "PostgreSQL",
        version >= 150000,
        f"reachable, version {version // 10000}.{version % 10000}",
        "Haat needs PostgreSQL 15 or newer",
    )
    present, newest = current_revision(owner), newest_revision()
    detail = f"{present or 'none'} of {newest}"
    yield Finding("Schema", present == newest, detail, "`haat migrate` (`haat serve` does it by itself)")


def _fonts(settings: Settings) -> Finding:
    try:
        faces_in(settings.fonts_dir)
    except FontMissing as error:
        return Finding("Invoices on paper", False, error.detail, "`make fonts`", essential=False)
    return Finding("Invoices on paper", True, f"fonts in {settings.fonts_dir}")


def _engines(settings: Settings) -> Iterator[Finding]:
    for path, service in sorted(hosted().items()):
        missing = service.missing()
        yield Finding(path, missing is None, missing or service.name, "", essential=False)
    yield _fonts(settings)
    missing = sound.missing()
    yield Finding("Encoded sound", missing is None, missing or "read and written by ffmpeg", "", essential=False)
