"""`haat rollout …`: what moves calls between versions, by the operator on the same machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from uuid import UUID

import click
from pydantic import ValidationError

from haat.app import Platform
from haat.cli.console import as_json_text, json_option, on_platform, print_table
from haat.cli.main import with_settings
from haat.kernel.permissions import PLATFORM
from haat.rollouts.model import Rollout, RolloutDraft
from haat.settings import Settings


@click.group()
def rollout() -> None:
    """Move a service's calls from one version to the next, and back."""


async def _service(platform: Platform, path: str) -> UUID:
    provider, _, slug = path.partition("/")
    return (await platform.discovery.listing(PLATFORM, provider, slug)).id


@rollout.command("list")
@click.argument("service")
@json_option
@with_settings()
def list_rollouts(settings: Settings, service: str, as_json: bool) -> None:
    """List the rollouts of SERVICE (provider/service), the newest first."""

    async def find(platform: Platform) -> list[Rollout]:
        return await platform.rollouts.of_service(PLATFORM, await _service(platform, service))

    found = on_platform(settings, find)
    if as_json:
        click.echo(as_json_text(found))
        return
    print_table(
        ("Rollout", "From", "To", "Status", "Percent", "Started", "Ended", "Why"),
        (
            (one.id, one.control, one.candidate, one.status, one.percent, one.started_at, one.ended_at, one.reason)
            for one in found
        ),
        nothing="The service has had no rollout.",
    )


@rollout.command("start")
@click.argument("service")
@click.argument("candidate")
@click.option("--percent", default="0", show_default=True, help="The candidate's share of the users.")
@click.option("--steps", default="", help="Shares and minutes, such as 1:10,25:10,100:10; goes on by itself.")
@click.option("--promote", is_flag=True, help="Make the candidate the default version after the last step.")
@json_option
@with_settings()
def start(
    settings: Settings, service: str, candidate: str, percent: str, steps: str, promote: bool, as_json: bool
) -> None:
    """Begin to move SERVICE (provider/service) from its default version to CANDIDATE."""
    parts = [step.partition(":") for step in steps.split(",") if step]
    try:
        draft = RolloutDraft.model_validate(
            {
                "candidate": candidate,
                "percent": percent,
                "steps": [{"percent": share, "minutes": minutes} for share, _, minutes in parts],
                "promote": promote,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "rollout"
        raise click.ClickException(f"{where}: {first['msg']}") from error

    async def begin(platform: Platform) -> Rollout:
        return await platform.rollouts.start(PLATFORM, await _service(platform, service), draft)

    _say(on_platform(settings, begin), as_json)


@rollout.command("show")
@click.argument("rollout_id", type=click.UUID)
@json_option
@with_settings()
def show(settings: Settings, rollout_id: UUID, as_json: bool) -> None:
    """Show what the versions of a rollout have done."""
    report = on_platform(settings, lambda platform: platform.rollouts.report(PLATFORM, rollout_id))
    if as_json:
        click.echo(as_json_text(report))
        return
    _say(report.rollout, False)
    print_table(
        ("Variant", "Calls", "Failed", "p50 ms", "p95 ms", "Same answer"),
        (
            (
                one.variant,
                one.calls,
                one.errors,
                None if one.p50_ms is None else round(one.p50_ms, 1),
                None if one.p95_ms is None else round(one.p95_ms, 1),
                f"{one.agreed} of {one.compared}" if one.compared else None,
            )
            for one in report.variants
        ),
        nothing="Nobody has called yet.",
    )


@rollout.command("percent")
@click.argument("rollout_id", type=click.UUID)
@click.argument("percent")
@json_option
@with_settings()
def set_percent(settings: Settings, rollout_id: UUID, percent: str, as_json: bool) -> None:
    """Give the candidate another share; its steps are not gone on with."""
    try:
        share = RolloutDraft.model_validate({"candidate": "any", "percent": percent}).percent
    except ValidationError as error:
        raise click.ClickException("Give a percent from 0 to 100, with at most two decimals.") from error
    _change(settings, lambda platform: platform.rollouts.set_percent(PLATFORM, rollout_id, Decimal(share)), as_json)


@rollout.command("pause")
@click.argument("rollout_id", type=click.UUID)
@json_option
@with_settings()
def pause(settings: Settings, rollout_id: UUID, as_json: bool) -> None:
    """Keep the share as it is; a candidate that is worse goes back all the same."""
    _change(settings, lambda platform: platform.rollouts.pause(PLATFORM, rollout_id), as_json)


@rollout.command("resume")
@click.argument("rollout_id", type=click.UUID)
@json_option
@with_settings()
def resume(settings: Settings, rollout_id: UUID, as_json: bool) -> None:
    """Go on with the steps; the present one begins anew."""
    _change(settings, lambda platform: platform.rollouts.resume(PLATFORM, rollout_id), as_json)


@rollout.command("promote")
@click.argument("rollout_id", type=click.UUID)
@json_option
@with_settings()
def promote(settings: Settings, rollout_id: UUID, as_json: bool) -> None:
    """Make the candidate the default version."""
    _change(settings, lambda platform: platform.rollouts.promote(PLATFORM, rollout_id), as_json)


@rollout.command("back")
@click.argument("rollout_id", type=click.UUID)
@click.option("--reason", default="", help="Why; the provider is told by mail.")
@json_option
@with_settings()
def roll_back(settings: Settings, rollout_id: UUID, reason: str, as_json: bool) -> None:
    """Give the control all calls again."""
    _change(settings, lambda platform: platform.rollouts.roll_back(PLATFORM, rollout_id, reason), as_json)


def _change(settings: Settings, change: Callable[[Platform], Awaitable[Rollout]], as_json: bool) -> None:
    _say(on_platform(settings, change), as_json)


def _say(found: Rollout, as_json: bool) -> None:
    if as_json:
        click.echo(as_json_text(found))
        return
    why = f": {found.reason}" if found.reason else ""
    click.echo(f"{found.id}: version {found.control} to {found.candidate}, {found.percent} %, {found.status}{why}")
