"""`haat invoice …`: an issued invoice as a file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import click

from haat.app import Platform
from haat.cli.console import on_platform
from haat.cli.main import with_settings
from haat.invoices.papers import File
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings

_out = click.option(
    "--out",
    "-o",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Where it goes; - is the standard output. Default: a file named by the serial, here.",
)


@click.group()
def invoice() -> None:
    """Print an invoice: as PDF in any of our languages, CSV, JSON."""


@invoice.command()
@click.argument("identifier", metavar="ID", type=click.UUID)
@click.option("--language", "-l", help="Language of the labels, such as hi; default the organisation's.")
@_out
@with_settings()
def pdf(settings: Settings, identifier: UUID, language: str | None, out: Path | None) -> None:
    """Write an invoice as an A4 page, PDF/A-3 with its document inside."""
    _write(settings, lambda platform: platform.papers.pdf(PLATFORM, identifier, language), out)


@invoice.command()
@click.argument("identifier", metavar="ID", type=click.UUID)
@click.option("--bom", is_flag=True, help="Mark it as UTF-8 for Excel.")
@_out
@with_settings()
def csv(settings: Settings, identifier: UUID, bom: bool, out: Path | None) -> None:
    """Write an invoice's lines for a spreadsheet."""
    _write(settings, lambda platform: platform.papers.csv(PLATFORM, identifier, mark=bom), out)


@invoice.command()
@click.argument("identifier", metavar="ID", type=click.UUID)
@_out
@with_settings()
def json(settings: Settings, identifier: UUID, out: Path | None) -> None:
    """Write an invoice's document byte for byte as it was issued."""
    _write(settings, lambda platform: platform.papers.json(PLATFORM, identifier), out)


def _write(settings: Settings, make: Callable[[Platform], Awaitable[File]], out: Path | None) -> None:
    file = on_platform(settings, make)
    if out is not None and str(out) == "-":
        click.echo(file.content, nl=False)
        return
    target = out or Path(file.name)
    target.write_bytes(file.content)
    click.echo(f"{target}: {len(file.content):,} bytes")
