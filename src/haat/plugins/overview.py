"""What plugins there are, in which order calls meet them and how they do; and the switching of them, by hand.

It reads what the gateways' workers on this machine say of themselves, and where none runs works out what would run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from haat.kernel.errors import NotFound, ValidationFailed
from haat.language.messages import _
from haat.plugins import report, switches
from haat.plugins.api import Plugin
from haat.plugins.order import Place, arrange
from haat.plugins.registry import PASSES, Found, Row, Sections, Unfit, discover, is_on, missing, open_plugin
from haat.plugins.report import Report
from haat.plugins.switches import Switch

PATIENCE_SECONDS = 3.0
"""So long is waited for the gateways to take a switch over; a second is usual."""

Stages = Mapping[str, Sequence[Place]]
"""The built-in stages of each pass of a call, in order."""
Kind = Literal["plugin", "stage"]


@dataclass(frozen=True, slots=True)
class Stop:
    """A plugin or built-in stage at one pass of a call; ``passes`` is empty for a plugin that takes part in none.

    ``calls``, ``failures`` and ``slow`` are those of all workers since their start, None where nothing runs.
    """

    passes: str
    name: str
    kind: Kind
    source: str
    state: str
    order: int | None
    fails: str
    reason: str
    summary: str
    calls: int | None = None
    failures: int | None = None
    slow: int | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """``workers`` are those that run on this machine; without any ``stops`` is what would run."""

    workers: Sequence[str]
    stops: Sequence[Stop]

    @property
    def plugins(self) -> list[Stop]:
        """Each plugin once, by name."""
        return sorted({one.name: one for one in self.stops if one.kind == "plugin"}.values(), key=lambda one: one.name)


def overview(data_dir: Path, sections: Sections, stages: Stages) -> Overview:
    """Return every plugin and built-in stage in the order in which calls meet them, and what is switched off.

    Raise `switches.UnreadableSwitches`.
    """
    reports = list(report.read_all(report.reports_folder(data_dir)))
    if reports:
        return Overview([one.worker for one in reports], _running(reports, stages))
    return Overview([], _would_run(data_dir, sections, stages))


def _running(reports: Sequence[Report], stages: Stages) -> list[Stop]:
    first = reports[0]
    counts = {
        name: tuple(
            sum(getattr(one.counts[name], key) for one in reports if name in one.counts)
            for key in ("calls", "failures", "slow")
        )
        for name in first.counts
    }
    return _stops(first.order, {row.name: row for row in first.rows}, counts, stages)


def _would_run(data_dir: Path, sections: Sections, stages: Stages) -> list[Stop]:
    """Return the same without asking a gateway: what is there and switched on, without beginning it."""
    present = switches.read(switches.switches_path(data_dir))
    known: dict[str, Row] = {}
    passing: dict[str, list[Place]] = {here: [] for here in PASSES}
    for found in discover(data_dir / "plugins"):
        if found.name in known:
            continue
        if not is_on(found, present):
            known[found.name] = Row(found.name, found.source, found.where, "off")
            continue
        try:
            loaded, _made = open_plugin(found, sections.get(found.name, {}), make=False)
        except Unfit as error:
            known[found.name] = Row(found.name, found.source, found.where, "left out", reason=str(error))
            continue
        declared = _declared(loaded)
        known[found.name] = Row(
            found.name, found.source, found.where, "on", declared.summary, fails=declared.fails, order=declared.order
        )
        place = Place(found.name, declared.order, 1, declared.before, (*declared.after, *declared.requires))
        for here, names in PASSES.items():
            if any(hasattr(loaded, hook) for hook in names):
                passing[here].append(place)
    for name, switch in present.plugins.items():
        if switch.on and switch.closed and name not in known:
            known[name] = missing(name)
    order = {here: arrange(stages.get(here, ()), passing[here])[0] for here in PASSES}
    return _stops(order, known, {}, stages)


def _stops(
    order: Mapping[str, Sequence[str]], known: Mapping[str, Row], counts: Mapping[str, Sequence[int]], stages: Stages
) -> list[Stop]:
    numbers = {place.name: place.order for places in stages.values() for place in places}
    found = []
    for here, names in order.items():
        for name in names:
            if name in known:
                found.append(_of_plugin(here, known[name], counts))
            else:
                found.append(Stop(here, name, "stage", "stage", "running", numbers.get(name), "", "", ""))
    placed = {stop.name for stop in found}
    return found + [_of_plugin("", row, counts) for name, row in sorted(known.items()) if name not in placed]


def _of_plugin(here: str, row: Row, counts: Mapping[str, Sequence[int]]) -> Stop:
    order = row.order if row.fails else None  # of what isn't loaded nobody knows the order
    told = (row.name, "plugin", row.source, row.state, order, row.fails, row.reason, row.summary)
    return Stop(here, *told, *counts.get(row.name, ()))  # type: ignore[arg-type]  # the kind is one


def _declared(loaded: object) -> type[Plugin]:
    return loaded if isinstance(loaded, type) and issubclass(loaded, Plugin) else Plugin


# --- switching ------------------------------------------------------------------------------------


def switch_on(data_dir: Path, sections: Sections, name: str) -> int:
    """Switch a plugin on; return the revision that gateways confirm.

    Raise NotFound for one that isn't there, ValidationFailed for one that can't run or whose needs are off.
    """
    found = _find(data_dir, name)
    try:
        loaded, _made = open_plugin(found, sections.get(name, {}), make=False)
    except Unfit as error:
        raise ValidationFailed(_("%(name)s can't run: %(reason)s.", name=name, reason=str(error))) from error
    declared = _declared(loaded)
    present = switches.read(switches.switches_path(data_dir))
    there = {one.name: one for one in discover(data_dir / "plugins")}
    for needed in declared.requires:
        if needed not in there or not is_on(there[needed], present):
            raise ValidationFailed(_("%(name)s requires %(needed)s: switch that on first.", name=name, needed=needed))
    return switches.write(switches.switches_path(data_dir), name, Switch(True, declared.fails == "closed"))


def switch_off(data_dir: Path, name: str) -> int:
    """Switch a plugin off, one that is gone from the disk as well; raise NotFound for one that never was there."""
    path = switches.switches_path(data_dir)
    if name not in switches.read(path).plugins:
        _find(data_dir, name)
    return switches.write(path, name, Switch(False))


def reload(data_dir: Path) -> int:
    """Have the gateways look again: changed configuration, changed files, newly installed packages."""
    return switches.write(switches.switches_path(data_dir))


async def taken_over(data_dir: Path, revision: int) -> tuple[list[Report], list[str]]:
    """Return what the workers on this machine say once they have taken a switch over, and those that are late."""
    folder = report.reports_folder(data_dir)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        reports = list(report.read_all(folder))
        late = [one.worker for one in reports if one.revision < revision]
        if not late or time.monotonic() >= deadline:
            return reports, late
        await asyncio.sleep(0.05)


def _find(data_dir: Path, name: str) -> Found:
    there = {found.name: found for found in reversed(discover(data_dir / "plugins"))}
    if name not in there:
        names = ", ".join(sorted(there))
        raise NotFound(_("There is no plugin %(name)s; there are %(names)s.", name=name[:100], names=names))
    return there[name]
