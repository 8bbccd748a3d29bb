"""`haat projections …`: make tables anew from the events they say again, or see how they stood at a time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

import click
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from haat.app import PROJECTIONS
from haat.cli.console import as_json_text, json_option, print_table, time_option
from haat.cli.main import with_settings
from haat.infra.dsn import dsn_for
from haat.infra.keyring import keyring_of
from haat.infra.postgres import Connection
from haat.infra.prepare import database_server
from haat.infra.projections import Projection, past
from haat.infra.projections import rebuild as make_anew
from haat.settings import Settings

Found = TypeVar("Found")


@click.group()
def projections() -> None:
    """Make tables anew from the events they say again, or see how they stood at a time."""


def _named(_: click.Context, __: click.Parameter, given: tuple[str, ...] | str) -> list[Projection]:
    known = {projection.name: projection for projection in PROJECTIONS}
    names = (given,) if isinstance(given, str) else given
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(f"there is no projection {unknown[0]}: it is one of {', '.join(known)}")
    return [known[name] for name in names or known]


@projections.command("list")
@json_option
def list_them(as_json: bool) -> None:
    """List the projections and their tables."""
    if as_json:
        click.echo(as_json_text({projection.name: projection.tables for projection in PROJECTIONS}))
        return
    print_table(("Projection", "Tables"), ((one.name, ", ".join(one.tables)) for one in PROJECTIONS), nothing="")


@projections.command()
@click.argument("chosen", metavar="[NAME]...", nargs=-1, callback=_named)
@click.option("--check", is_flag=True, help="Only compare; ends with status 1 when a table differs.")
@json_option
@with_settings()
def rebuild(settings: Settings, chosen: list[Projection], check: bool, as_json: bool) -> None:
    """Make all projections anew, or those named; a table is changed only where it differs.

    It works beside a running platform, whose changes to these tables wait meanwhile.
    """
    differences = _as_owner(settings, lambda connection: make_anew(connection, chosen, repair=not check))
    if as_json:
        click.echo(as_json_text(differences))
    else:
        print_table(
            ("Table", "Rows", "Missing", "Surplus"),
            ((one.table, one.rows, one.missing, one.surplus) for one in differences),
            nothing="There is no projection.",
        )
    if check and any(one.missing or one.surplus for one in differences):
        sys.exit(1)


@projections.command()
@click.argument("name", callback=_named)
@time_option(required=True, help="The time.")
@with_settings()
def show(settings: Settings, name: list[Projection], at: datetime) -> None:
    """Print a projection's rows as they stood at a time, one JSON object a line; nothing is changed."""

    async def read(connection: Connection) -> None:
        async for table, row in past(connection, name[0], at):
            click.echo(as_json_text({"table": table, "row": row}))

    _as_owner(settings, read)


def _as_owner(settings: Settings, work: Callable[[Connection], Awaitable[Found]]) -> Found:
    """Do something in one transaction of the tables' owner."""

    async def run(dsn: str) -> Found:
        connection: Connection
        async with await AsyncConnection.connect(dsn, row_factory=dict_row) as connection:
            return await work(connection)

    keyring = keyring_of(settings)
    with database_server(settings, keyring):
        return asyncio.run(run(dsn_for(settings, keyring, "owner")))
