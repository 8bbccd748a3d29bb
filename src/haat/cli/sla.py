"""`haat sla …`: service levels, by the operator on the same machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import click
from pydantic import ValidationError

from haat.app import Platform
from haat.cli.console import as_json_text, json_option, on_platform, print_table
from haat.cli.main import with_settings
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.sla.maintenance import Window, local_moment
from haat.sla.model import Objective, ObjectiveDraft
from haat.sla.views import Report

T = TypeVar("T")


@click.group()
def sla() -> None:
    """Service levels: objectives, maintenance, probes, and what a broken month pays."""


def _on_service(settings: Settings, path: str, use: Callable[[Platform, UUID], Awaitable[T]]) -> T:
    async def found(platform: Platform) -> T:
        provider, _, slug = path.partition("/")
        return await use(platform, (await platform.discovery.listing(PLATFORM, provider, slug)).id)

    return on_platform(settings, found)


@sla.command("status")
@click.argument("service")
@json_option
@with_settings()
def status(settings: Settings, service: str, as_json: bool) -> None:
    """Show what SERVICE (provider/service) promises, what was measured, and what goes on."""
    report = _on_service(settings, service, lambda platform, found: platform.sla.report(PLATFORM, found))
    if as_json:
        click.echo(as_json_text(report))
        return
    _print_report(report)


def _print_report(report: Report) -> None:
    objective, window, budget = report.objective, report.window, report.budget
    if objective is None:
        click.echo("It promises nothing yet.")
    else:
        latencies = "".join(f", {name} {limit} ms" for name, limit in objective.latencies.items())
        click.echo(f"Objective {objective.version}: {objective.availability} % available{latencies}")
    days = (window.end - window.start).days
    if window.availability is None:
        click.echo(f"Last {days} days: too few calls and probes to say ({window.counts.calls}, {window.counts.probes})")
    else:
        click.echo(f"Last {days} days: {window.availability} % by {window.source}")
    if budget is not None:
        click.echo(f"Error budget: {budget.spent} % used, {budget.used} of {budget.allowed}")
    print_table(
        ("What", "Since", "Until"),
        ((one.kind, one.since, one.until) for one in report.incidents),
        nothing="No incidents.",
    )
    print_table(
        ("Maintenance", "From", "To", "Note"),
        ((one.id, one.starts_at, one.ends_at, one.note) for one in report.windows),
        nothing="No maintenance.",
    )


@sla.command("promise")
@click.argument("service")
@click.option(
    "--availability", required=True, metavar="PERCENT", help="Share of calls that are answered, such as 99.5."
)
@click.option("--p50", "p50_ms", type=int, metavar="MS", help="Half of the answers begin within this.")
@click.option("--p95", "p95_ms", type=int, metavar="MS", help="95 % of the answers begin within this.")
@click.option("--p99", "p99_ms", type=int, metavar="MS", help="99 % of the answers begin within this.")
@click.option("--window", "window_days", default=30, show_default=True, type=int, help="Days of the error budget.")
@click.option(
    "--tiers", default="", metavar="BELOW:CREDIT,…", help="What a month below a percentage credits: 99.5:10,95:25."
)
@click.option("--latency-credit", default="0", metavar="PERCENT", help="What a month with a missed latency credits.")
@click.option("--probe", default="health", show_default=True, type=click.Choice(["health", "sample", "none"]))
@click.option("--from", "effective_from", metavar="TIME", help="When it begins; the next month by default.")
@json_option
@with_settings()
def promise(settings: Settings, service: str, tiers: str, as_json: bool, **given: Any) -> None:
    """Set what SERVICE (provider/service) promises from the next month on; its first promise begins at once."""
    parts = [tier.partition(":") for tier in tiers.split(",") if tier]
    try:
        draft = ObjectiveDraft.model_validate(
            {**given, "tiers": [{"below": below, "credit": credit} for below, _, credit in parts]}
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "objective"
        raise click.ClickException(f"{where}: {first['msg']}") from error

    async def make(platform: Platform, found: UUID) -> Objective:
        return await platform.sla.promise(PLATFORM, found, draft)

    made = _on_service(settings, service, make)
    if as_json:
        click.echo(as_json_text(made))
    else:
        click.echo(f"Objective {made.version} of {service} holds from {made.effective_from:%Y-%m-%d %H:%M} UTC on.")


@sla.command("maintain")
@click.argument("service")
@click.option("--from", "start", required=True, metavar="TIME", help="As 2026-12-05T02:30, in the platform's zone.")
@click.option("--to", "end", required=True, metavar="TIME", help="As 2026-12-05T04:00.")
@click.option("--note", default="", help="What subscribers are told about it.")
@json_option
@with_settings()
def maintain(settings: Settings, service: str, start: str, end: str, note: str, as_json: bool) -> None:
    """Announce maintenance of SERVICE (provider/service): subscribers are told, and calls refused meanwhile."""
    first, last = (_moment(text, settings.zone) for text in (start, end))

    async def announce(platform: Platform, found: UUID) -> Window:
        return await platform.sla.announce(PLATFORM, found, first, last, note)

    _say(_on_service(settings, service, announce), as_json)


def _moment(text: str, zone: str) -> datetime:
    try:
        return local_moment(text, zone)
    except ValueError as error:
        raise click.BadParameter(f"{text}: {error}") from error


@sla.command("cancel")
@click.argument("window", type=click.UUID)
@json_option
@with_settings()
def cancel(settings: Settings, window: UUID, as_json: bool) -> None:
    """Take back a window of maintenance, or end one that has begun."""
    _say(on_platform(settings, lambda platform: platform.sla.cancel(PLATFORM, window)), as_json)


def _say(window: Window, as_json: bool) -> None:
    if as_json:
        click.echo(as_json_text(window))
        return
    state = "cancelled" if window.cancelled_at else "announced"
    click.echo(f"{window.id}: {window.starts_at:%Y-%m-%d %H:%M} to {window.ends_at:%Y-%m-%d %H:%M} UTC, {state}")


@sla.command("probe")
@click.argument("service")
@json_option
@with_settings()
def probe(settings: Settings, service: str, as_json: bool) -> None:
    """Look at SERVICE (provider/service) now, and keep what was seen."""

    async def look(platform: Platform, found: UUID) -> Any:
        try:
            return await platform.sla_prober.probe_now(found)
        except LookupError as error:
            raise click.ClickException(str(error)) from error

    seen = _on_service(settings, service, look)
    if as_json:
        click.echo(as_json_text(dict(seen)))
    else:
        click.echo(f"{'well' if seen['good'] else 'not well'}, {seen['ms']} ms: {seen['detail']}")


@sla.command("months")
@click.option("--every", is_flag=True, help="Also months that were kept or not measured.")
@click.option("--limit", "-n", default=20, show_default=True, type=click.IntRange(1, 100))
@json_option
@with_settings()
def months(settings: Settings, every: bool, limit: int, as_json: bool) -> None:
    """List the months in which a promise was broken, the newest first."""
    page = on_platform(settings, lambda platform: platform.sla.breaches(PLATFORM, every_month=every, limit=limit))
    if as_json:
        click.echo(as_json_text(page.items))
        return
    print_table(
        ("Month", "Service", "Period", "Verdict", "Available %", "Missed", "Credit %"),
        (
            (one.id, one.service_id, one.period, one.verdict, one.availability, ", ".join(one.missed), one.credit)
            for one in page.items
        ),
        nothing="No promise was broken.",
    )


@sla.command("close")
@click.argument("period")
@json_option
@with_settings()
def close(settings: Settings, period: str, as_json: bool) -> None:
    """Judge the month PERIOD (2026-11) and credit what it owes; once more does nothing more."""
    closed = on_platform(settings, lambda platform: platform.sla_closing.close(PLATFORM, period))
    if as_json:
        click.echo(as_json_text(closed))
        return
    broken = sum(1 for row in closed.judged if row["verdict"] == "breached")
    click.echo(f"{period}: {len(closed.judged)} judged, {closed.known} known, {broken} broken")
    print_table(
        ("Service", "Customer", "Invoice", "Credited", "Provider bears"),
        (
            (one.service_id, one.org_id, one.invoice_id, f"{one.taxable:,.2f}", f"{one.debited:,.2f}")
            for one in closed.paid
        ),
        nothing="Nothing to credit.",
    )
    for what, reason in closed.failed:
        click.echo(f"{what} was left undone: {reason}", err=True)
