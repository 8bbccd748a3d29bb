"""What the commands that try a service share: the credential they are given, the report they print."""

from __future__ import annotations

import click
from rich.console import Console

from haat.catalog.acceptance import Report


def read_credential(given: str | None) -> tuple[str, str] | None:
    """Return name and value of a header, None when none was given."""
    if given is None:
        return None
    name, colon, value = given.partition(":")
    if not colon or not name.strip() or not value.strip():
        raise click.BadParameter("write it as a header, such as 'Authorization: Bearer …'", param_hint="--credential")
    return name.strip(), value.strip()


def print_report(report: Report) -> None:
    """Print each step, and what would come of it."""
    console = Console(highlight=False, soft_wrap=True)
    for step in report.steps:
        mark = "[green]✓[/green]" if step.ok else "[red]✗[/red]"
        console.print(f"{mark} {step.name:<12}", end=" ")
        console.print(f"{step.detail} ({step.ms:.0f} ms)", markup=False)
    console.print("It would be accepted." if report.ok else "It would not be accepted: mend this and try again.")
