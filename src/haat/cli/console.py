"""What commands that look into a platform share: opening it, and printing tables for people or JSON for programs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from haat.app import Platform, open_platform
from haat.infra.keyring import keyring_of
from haat.infra.prepare import database_server
from haat.kernel.money import exact
from haat.settings import Settings

T = TypeVar("T")


def _time(_: click.Context, __: click.Parameter, given: str | None) -> datetime | None:
    if given is None:
        return None
    try:
        at = datetime.fromisoformat(given)
        return at.astimezone() if at.tzinfo is None else at
    except (ValueError, OverflowError):
        raise click.BadParameter("give a time such as 2026-11-30T18:30:00+05:30") from None


def time_option(*names: str, help: str, required: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return an option, ``--at`` by default: a moment in ISO 8601, of this machine's zone if it names none."""
    return click.option(*(names or ("--at",)), callback=_time, metavar="TIME", required=required, help=help)


def _rupees(_: click.Context, __: click.Parameter, given: str) -> Decimal:
    try:
        return exact(given)
    except ValueError:
        raise click.BadParameter(f"{given} is no amount: give rupees such as 500 or 1180.50") from None


amount_argument = click.argument("amount", callback=_rupees)
limit_option = click.option(
    "--limit", "-n", default=20, show_default=True, type=click.IntRange(1, 100), help="How many at most."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def on_platform(settings: Settings, use: Callable[[Platform], Awaitable[T]]) -> T:
    """Run ``use`` on the open platform; an embedded database that nobody runs is run for that long."""

    async def opened() -> T:
        async with open_platform(settings, name="haat-cli") as platform:
            return await use(platform)

    with database_server(settings, keyring_of(settings)):
        return asyncio.run(opened())


def as_json_text(value: Any) -> str:
    """Return dataclasses, mappings and lists of them as JSON; times in ISO 8601, other objects as text."""
    return json.dumps(_plain(value), ensure_ascii=False, default=str)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, nothing: str) -> None:
    """Print rows under their columns, or the sentence ``nothing`` when there are none."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(cell)) for cell in row))  # Text: brackets in data are not markup
    if table.row_count:
        Console().print(table)
    else:
        click.echo(nothing)


def last_line(text: str) -> str:
    """Return the last line of an error, which says most."""
    return (text.strip().splitlines() or [""])[-1]


def _shown(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return cell.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(cell, Mapping):
        return json.dumps(cell, ensure_ascii=False, default=str)
    return str(cell)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
