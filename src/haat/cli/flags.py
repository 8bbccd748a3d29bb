"""`haat flags …`: what is on for whom, and the switch."""

from __future__ import annotations

import json
from typing import Any, TextIO

import click

from haat.app import Platform
from haat.cli.console import as_json_text, json_option, on_platform, print_table
from haat.cli.main import with_settings
from haat.flags.draft import FlagDraft, written
from haat.flags.model import Flag
from haat.kernel.errors import NotFound
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings


@click.group()
def flags() -> None:
    """List feature flags, make them, turn them."""


@flags.command("list")
@json_option
@with_settings()
def list_flags(settings: Settings, as_json: bool) -> None:
    """List all flags."""

    async def find(platform: Platform) -> list[Flag]:
        return await platform.flags.directory(PLATFORM)

    found = on_platform(settings, find)
    if as_json:
        click.echo(as_json_text([_plain(flag) for flag in found]))
        return
    print_table(
        ("Flag", "State", "Default", "Rules", "Overrides", "Changed", "By"),
        (
            (
                flag.key,
                "in use" if flag.enabled else "switched off",
                flag.default,
                len(flag.rules),
                len(flag.overrides),
                flag.changed_at,
                flag.changed_by,
            )
            for flag in found
        ),
        nothing="There are no flags.",
    )


@flags.command("set")
@click.argument("key")
@click.option("--file", type=click.File(encoding="utf-8"), help="JSON of the whole flag; - reads the standard input.")
@click.option("--percent", type=click.FloatRange(0, 100), help="To how many of everybody it is given.")
@click.option("--variant", help="What they get; default the first that isn't the flag's `off`.")
@click.option("--enabled/--disabled", default=None, help="Put it in use, or switch it off for everybody.")
@json_option
@with_settings()
def set_flag(
    settings: Settings,
    key: str,
    file: TextIO | None,
    percent: float | None,
    variant: str | None,
    enabled: bool | None,
    as_json: bool,
) -> None:
    """Make a flag, or change it; a new one is off for everybody unless --file says otherwise."""
    if variant is not None and percent is None:
        raise click.UsageError("--variant goes with --percent.")
    draft: FlagDraft | None = None
    if file is not None:
        try:
            draft = FlagDraft.parse(json.load(file))
        except ValueError as error:
            raise click.UsageError(f"--file holds no JSON: {error}") from error

    async def change(platform: Platform) -> Flag:
        known = platform.flags
        try:
            flag = await known.get(PLATFORM, key)
            if draft is not None:
                flag = await known.put(PLATFORM, key, draft)
        except NotFound:
            flag = await known.put(PLATFORM, key, draft or FlagDraft(), version=0)
        if percent is not None:
            flag = await known.set_percent(PLATFORM, key, percent, variant)
        if enabled is not None:
            flag = await known.switch(PLATFORM, key, enabled)
        return flag

    flag = on_platform(settings, change)
    if as_json:
        click.echo(as_json_text(_plain(flag)))
    else:
        click.echo(f"{key} is at version {flag.version} and {'in use' if flag.enabled else 'switched off'}.")


def _plain(flag: Flag) -> dict[str, Any]:
    return {"key": flag.key, "version": flag.version, "overrides": flag.overrides, **written(flag).plain()}
