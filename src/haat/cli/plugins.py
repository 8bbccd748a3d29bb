"""`haat plugins …`: see what is there, in which order it runs and how it does; switch it on and off."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from haat.cli.console import as_json_text, json_option, print_table
from haat.cli.main import with_settings
from haat.gateway.steps import STAGES, SUMMARIES
from haat.kernel.errors import HaatError
from haat.plugins import overview
from haat.plugins.overview import Stop
from haat.settings import Settings


@click.group()
def plugins() -> None:
    """See the gateway's plugins, switch them on and off."""


@plugins.command(name="list")
@json_option
@with_settings()
def list_plugins(settings: Settings, as_json: bool) -> None:
    """Show every plugin and built-in stage in the order in which calls meet them, and what is switched off."""
    seen = overview.overview(settings.data_dir, settings.plugins, STAGES)
    if as_json:
        click.echo(as_json_text({"gateways": seen.workers, "plugins": [_written(one) for one in seen.stops]}))
        return
    print_table(
        ("Pass", "Name", "Order", "State", "Calls", "Summary"),
        (
            (
                one.passes,
                one.name,
                "" if one.order is None else one.order,
                one.state,
                _done(one),
                one.reason or _summary(one),
            )
            for one in seen.stops
        ),
        nothing="There is no plugin.",
    )
    if not seen.workers:
        click.echo("No gateway runs here: this is what would run.")


@plugins.command()
@click.argument("name")
@with_settings()
def enable(settings: Settings, name: str) -> None:
    """Switch the plugin NAME on, in every gateway of this platform, without a restart."""
    _tell(settings, name, _refusals_told(overview.switch_on, settings.data_dir, settings.plugins, name))


@plugins.command()
@click.argument("name")
@with_settings()
def disable(settings: Settings, name: str) -> None:
    """Switch the plugin NAME off. A guard that is gone from the disk can be switched off as well."""
    _tell(settings, name, _refusals_told(overview.switch_off, settings.data_dir, name))


@plugins.command()
@with_settings()
def reload(settings: Settings) -> None:
    """Have the gateways look again: changed configuration, changed files, newly installed packages."""
    _tell(settings, None, overview.reload(settings.data_dir))


def _refusals_told(switch: Callable[..., int], *arguments: Any) -> int:
    try:
        return switch(*arguments)
    except HaatError as error:
        raise click.ClickException(error.detail) from error


def _tell(settings: Settings, name: str | None, revision: int) -> None:
    """Wait until every gateway that runs here has taken a switch over, and say what became of it."""
    reports, late = asyncio.run(overview.taken_over(settings.data_dir, revision))
    if late:
        seconds = f"{overview.PATIENCE_SECONDS:g}"
        raise click.ClickException(f"{', '.join(late)} has not taken it over within {seconds} seconds: see its log.")
    if not reports:
        click.echo("No gateway runs here: it counts from the next start.")
        return
    states = {row.name: row for one in reports for row in one.rows if name in (None, row.name)}
    for row in states.values():
        if name is not None or row.state != "off":
            click.echo(f"{row.name}: {row.state}" + (f" ({row.reason})" if row.reason else ""))
    if any(row.state in ("left out", "refusing") for row in states.values()):
        sys.exit(1)


def _written(one: Stop) -> dict[str, Any]:
    row = {"pass": one.passes, **asdict(one), "summary": _summary(one)}
    del row["passes"], row["kind"]
    return {key: "" if value is None else value for key, value in row.items()}


def _summary(one: Stop) -> str:
    return SUMMARIES.get(one.name, "") if one.kind == "stage" else one.summary


def _done(one: Stop) -> str:
    """Return how a plugin does in a few words: ``1204, 3 failed, 1 slow``."""
    words = [] if one.calls is None else [str(one.calls)]
    words += [f"{count} {word}" for count, word in ((one.failures, "failed"), (one.slow, "slow")) if count]
    return ", ".join(words)
