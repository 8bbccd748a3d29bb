"""`haat usage …`: take calls out as files, make the rollups anew."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import click

from haat.app import Platform
from haat.cli.console import on_platform, time_option
from haat.cli.main import with_settings
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.usage.export import Format
from haat.usage.model import CallFilter


@click.group()
def usage() -> None:
    """Take calls out as files, and make the rollups that dashboards read anew."""


@usage.command()
@click.option("--org", type=click.UUID, help="Only calls that this organisation made.")
@click.option("--provider-org", type=click.UUID, help="Only calls that this organisation executed.")
@time_option("--from", "start", help="Only calls from this moment on.")
@time_option("--to", "end", help="Only calls before this moment.")
@click.option("--mode", type=click.Choice(["live", "test", "shadow"]), help="Only live calls, test calls or copies.")
@click.option("--format", "form", type=click.Choice([form.value for form in Format]), default="csv", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write; standard output else.")
@with_settings()
def export(
    settings: Settings,
    org: UUID | None,
    provider_org: UUID | None,
    start: datetime | None,
    end: datetime | None,
    mode: str | None,
    form: str,
    out: Path | None,
) -> None:
    """Write calls, oldest first: millions as well as ten, in the same memory."""
    chosen = CallFilter(org=org, provider_org=provider_org, start=start, end=end, mode=mode)

    async def write(platform: Platform, file: BinaryIO) -> None:
        async for piece in platform.usage.export(PLATFORM, chosen, Format(form)):
            file.write(piece)

    if out is None:
        on_platform(settings, lambda platform: write(platform, sys.stdout.buffer))
        return
    with out.open("wb") as file:
        on_platform(settings, lambda platform: write(platform, file))


@usage.command()
@with_settings()
def rebuild(settings: Settings) -> None:
    """Make all rollups anew from the calls. Nothing is shipped meanwhile; the journals keep what comes."""
    calls = on_platform(settings, lambda platform: platform.analytics.rebuild(PLATFORM))
    click.echo(f"Made the rollups of {calls:,} calls anew.")
