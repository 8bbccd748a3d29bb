"""`haat plugins …`: see what is there, in which order it runs and how it does; switch it on and off."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
import msgspec

from haat.cli.console import as_json_text, json_option, print_table
from haat.cli.main import with_settings
from haat.gateway.steps import STAGES, STEPS
from haat.plugins import report, switches
from haat.plugins.api import Plugin
from haat.plugins.order import Place, arrange
from haat.plugins.registry import PASSES, Found, Unfit, discover, is_on, open_plugin
from haat.plugins.report import Report
from haat.plugins.switches import Switch
from haat.settings import Settings

_PATIENCE = 3.0
_SUMMARIES = {
    "api-key": "Find the credential behind the call's API key",
    "least-load": "Choose the endpoint with the fewest calls",
    "journal": "Record the usage event before the answer's last byte",
    **{step.name: step.summary for step in STEPS},
}


@click.group()
def plugins() -> None:
    """See the gateway's plugins, switch them on and off."""


@plugins.command(name="list")
@json_option
@with_settings()
def list_plugins(settings: Settings, as_json: bool) -> None:
    """Show every plugin and built-in stage in the order in which calls meet them, and what is switched off."""
    reports = list(report.read_all(report.reports_folder(settings.data_dir)))
    rows = _running(reports) if reports else _would_run(settings)
    if as_json:
        click.echo(as_json_text({"gateways": [one.worker for one in reports], "plugins": rows}))
        return
    print_table(
        ("Pass", "Name", "Order", "State", "Calls", "Summary"),
        (
            (
                row["pass"],
                row["name"],
                row["order"],
                row["state"],
                _done(row),
                row["reason"] or row["summary"],
            )
            for row in rows
        ),
        nothing="There is no plugin.",
    )
    if not reports:
        click.echo("No gateway runs here: this is what would run.")


@plugins.command()
@click.argument("name")
@with_settings()
def enable(settings: Settings, name: str) -> None:
    """Switch the plugin NAME on, in every gateway of this platform, without a restart."""
    found = _found(settings, name)
    try:
        loaded, _ = open_plugin(found, settings.plugins.get(name, {}), make=False)
    except Unfit as error:
        raise click.ClickException(f"{name} can't run: {error}.") from error
    declared = loaded if isinstance(loaded, type) and issubclass(loaded, Plugin) else Plugin
    present = switches.read(switches.switches_path(settings.data_dir))
    there = {one.name: one for one in discover(settings.data_dir / "plugins")}
    for needed in declared.requires:
        if needed not in there or not is_on(there[needed], present):
            raise click.ClickException(f"{name} requires {needed}: enable that first.")
    _switch(settings, name, Switch(True, declared.fails == "closed"))


@plugins.command()
@click.argument("name")
@with_settings()
def disable(settings: Settings, name: str) -> None:
    """Switch the plugin NAME off. A guard that is gone from the disk can be switched off as well."""
    if name not in switches.read(switches.switches_path(settings.data_dir)).plugins:
        _found(settings, name)
    _switch(settings, name, Switch(False))


@plugins.command()
@with_settings()
def reload(settings: Settings) -> None:
    """Have the gateways look again: changed configuration, changed files, newly installed packages."""
    _switch(settings, None, None)


def _found(settings: Settings, name: str) -> Found:
    there = {found.name: found for found in reversed(discover(settings.data_dir / "plugins"))}
    if name not in there:
        raise click.ClickException(f"There is no plugin {name}; there are {', '.join(sorted(there))}.")
    return there[name]


def _switch(settings: Settings, name: str | None, switch: Switch | None) -> None:
    """Write the switch, and wait until every gateway that runs here has taken it over."""
    folder = report.reports_folder(settings.data_dir)
    revision = switches.write(switches.switches_path(settings.data_dir), name, switch)
    deadline = time.monotonic() + _PATIENCE
    while any(one.revision < revision for one in report.read_all(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    reports = list(report.read_all(folder))
    if not reports:
        click.echo("No gateway runs here: it counts from the next start.")
        return
    late = [one.worker for one in reports if one.revision < revision]
    if late:
        raise click.ClickException(
            f"{', '.join(late)} has not taken it over within {_PATIENCE:g} seconds: see its log."
        )
    states = {row.name: row for one in reports for row in one.rows if name in (None, row.name)}
    for row in states.values():
        if name is not None or row.state != "off":
            click.echo(f"{row.name}: {row.state}" + (f" ({row.reason})" if row.reason else ""))
    if any(row.state in ("left out", "refusing") for row in states.values()):
        sys.exit(1)


def _running(reports: list[Report]) -> list[dict[str, Any]]:
    """Return a row a pass and name; counts are those of all workers together."""
    first = reports[0]
    plugins_by_name = {row.name: msgspec.structs.asdict(row) for row in first.rows}
    counts = {
        name: {
            key: sum(getattr(one.counts[name], key) for one in reports if name in one.counts)
            for key in ("calls", "failures", "slow")
        }
        for name in first.counts
    }
    return _rows(first.order, plugins_by_name, counts)


def _would_run(settings: Settings) -> list[dict[str, Any]]:
    """Return the same without asking a gateway: what is there and switched on, without beginning it."""
    present = switches.read(switches.switches_path(settings.data_dir))
    known: dict[str, dict[str, Any]] = {}
    passing: dict[str, list[Place]] = {here: [] for here in PASSES}
    for found in discover(settings.data_dir / "plugins"):
        if found.name in known:
            continue
        row = {"source": found.source, "state": "on" if is_on(found, present) else "off", "reason": "", "summary": ""}
        known[found.name] = {**row, "fails": "", "order": 0}
        if row["state"] == "off":
            continue
        try:
            loaded, _ = open_plugin(found, settings.plugins.get(found.name, {}), make=False)
        except Unfit as error:
            known[found.name] |= {"state": "left out", "reason": str(error)}
            continue
        declared = loaded if isinstance(loaded, type) and issubclass(loaded, Plugin) else Plugin
        known[found.name] |= {"summary": declared.summary, "fails": declared.fails, "order": declared.order}
        place = Place(found.name, declared.order, 1, declared.before, (*declared.after, *declared.requires))
        for here, names in PASSES.items():
            if any(hasattr(loaded, hook) for hook in names):
                passing[here].append(place)
    order = {here: arrange(STAGES.get(here, ()), passing[here])[0] for here in PASSES}
    return _rows(order, known, {})


def _rows(
    order: dict[str, list[str]], known: dict[str, dict[str, Any]], counts: dict[str, dict[str, int]]
) -> list[dict[str, Any]]:
    places = {place.name: place.order for stages in STAGES.values() for place in stages}
    none = {"calls": "", "failures": "", "slow": ""}
    rows: list[dict[str, Any]] = []
    for here, names in order.items():
        for name in names:
            if name in known:
                rows.append({"pass": here, "name": name, **_told(known[name]), **(counts.get(name) or none)})
            else:
                stage = {"source": "stage", "state": "running", "order": places.get(name, 0), "fails": "", "reason": ""}
                rows.append({"pass": here, "name": name, **stage, "summary": _SUMMARIES.get(name, ""), **none})
    placed = {row["name"] for row in rows}
    rows += [
        {"pass": "", "name": name, **_told(row), **none} for name, row in sorted(known.items()) if name not in placed
    ]
    return rows


def _done(row: dict[str, Any]) -> str:
    """Return how a plugin does in a few words: ``1204, 3 failed, 1 slow``."""
    words = [str(row["calls"])]
    words += [f"{row[key]} {word}" for key, word in (("failures", "failed"), ("slow", "slow")) if row[key]]
    return ", ".join(words)


def _told(row: dict[str, Any]) -> dict[str, Any]:
    told = {key: row[key] for key in ("source", "state", "order", "fails", "reason", "summary")}
    return told if row["fails"] else {**told, "order": ""}  # of what isn't loaded nobody knows the order
