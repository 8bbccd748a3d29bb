"""`haat events …`: read the event log, verify its chain, hand a handler the past."""

from __future__ import annotations

import asyncio
import sys

import click

from haat.app import Platform
from haat.cli.console import as_json_text, json_option, on_platform, print_table
from haat.cli.main import with_settings
from haat.infra import events as log
from haat.infra.handlers import deliver_past
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.events import DomainEvent, Position
from haat.settings import Settings

_FOLLOW_SECONDS = 0.5


@click.group()
def events() -> None:
    """Read the event log, verify its chain, hand a handler the past."""


@events.command()
@click.option(
    "--limit", "-n", default=20, show_default=True, type=click.IntRange(0, 10_000), help="How many to begin with."
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@json_option
@with_settings()
def tail(settings: Settings, limit: int, follow: bool, as_json: bool) -> None:
    """Print the newest events, the oldest of them first; with --json one object a line."""

    def show(batch: list[DomainEvent]) -> None:
        if as_json:
            for event in batch:
                click.echo(as_json_text(event))
        else:
            print_table(
                ("At", "Position", "Stream", "Version", "Type", "Actor", "Data"),
                (
                    (event.at, event.position, event.stream, event.version, event.type, event.actor, event.data)
                    for event in batch
                ),
                nothing="Nothing has happened yet.",
            )

    async def read(platform: Platform) -> None:
        async with platform.db.transaction(PLATFORM_SCOPE) as connection:
            batch = await log.newest(connection, limit)
            position = batch[-1].position if batch else await log.present_position(connection)
        if batch or not follow:
            show(batch)
        while follow:
            await asyncio.sleep(_FOLLOW_SECONDS)
            async with platform.db.transaction(PLATFORM_SCOPE) as connection:
                batch = await log.read_after(connection, position)
            if batch:
                position = batch[-1].position
                show(batch)

    try:
        on_platform(settings, read)
    except KeyboardInterrupt:
        sys.exit(0)


@events.command()
@click.argument("stream", required=False)
@json_option
@with_settings()
def verify(settings: Settings, stream: str | None, as_json: bool) -> None:
    """Recompute the hash chain of STREAM, or of every stream; exit with 1 where it is broken."""

    async def check(platform: Platform) -> tuple[int, dict[str, int]]:
        broken: dict[str, int] = {}
        async with platform.db.transaction(PLATFORM_SCOPE) as connection:
            names = [stream] if stream is not None else [name async for name in log.streams(connection)]
            for name in names:
                version = await log.verify_chain(connection, name)
                if version is not None:
                    broken[name] = version
        return len(names), broken

    checked, broken = on_platform(settings, check)
    if as_json:
        click.echo(as_json_text({"streams": checked, "broken": broken}))
    elif broken:
        for name, version in broken.items():
            click.echo(f"{name} was changed afterwards: version {version} does not fit what came before it.")
    else:
        click.echo(f"Every hash fits, in {checked} stream{'' if checked == 1 else 's'}.")
    sys.exit(1 if broken else 0)


@events.command()
@click.argument("handler")
@click.option("--after", default="0:0", show_default=True, metavar="POSITION", help="Begin after this position.")
@json_option
@with_settings()
def deliver(settings: Settings, handler: str, after: str, as_json: bool) -> None:
    """Hand HANDLER the events of the past that it has not had; one added later begins at the present."""
    try:
        position = Position.parse(after)
    except ValueError as error:
        raise click.BadParameter("a position looks like 731:12", param_hint="--after") from error

    async def hand_over(platform: Platform) -> int:
        known = {one.name: one for one in platform.handlers}
        if handler not in known:
            raise click.BadParameter(f"it is one of {', '.join(sorted(known))}", param_hint="HANDLER")
        async with platform.db.transaction(PLATFORM_SCOPE) as connection:
            return await deliver_past(connection, platform.jobs, known[handler], position)

    count = on_platform(settings, hand_over)
    click.echo(as_json_text({"jobs": count}) if as_json else f"Deferred {count} job{'' if count == 1 else 's'}.")
