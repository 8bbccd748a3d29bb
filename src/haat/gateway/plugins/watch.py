"""Keeps a gateway's plugins as the switches say: at the start, and within a second of each change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from haat.gateway.steps import STAGES
from haat.plugins import report, switches
from haat.plugins.registry import Loaded, Sections, close_left, load
from haat.plugins.switches import Switches, UnreadableSwitches

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.4
REPORT_LOOKS = 5
"""Each so many looks the counts in the report are renewed, if they have changed."""


class PluginWatch:
    """One a gateway. ``sections`` reads the plugins' configuration anew each time it is called."""

    def __init__(self, gateway: Gateway, data_dir: Path, sections: Callable[[], Sections]) -> None:
        self._gateway, self._sections = gateway, sections
        self._folder = data_dir / "plugins"
        self._path = switches.switches_path(data_dir)
        self._reports = report.reports_folder(data_dir)
        self._stamp = (0, 0, 0)
        self._switches = Switches()
        self._configured: Sections = {}
        self._calls_reported = -1
        self._leaving: list[tuple[Loaded, Loaded, set[Call]]] = []

    def begin(self) -> None:
        """Load what is switched on, before the first call is taken."""
        self._stamp = switches.stamp(self._path)
        self._read()
        self._take(load(self._folder, self._switches, self._configuration(), STAGES))

    async def run(self) -> None:
        """Follow the switches until cancelled."""
        looks = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            looks += 1
            try:
                await self._look(report_too=looks % REPORT_LOOKS == 0)
            except Exception:  # whatever a plugin's file does, the next change must be seen
                log.exception("the plugins can't be renewed")

    async def end(self) -> None:
        """Close all plugins; no call is in flight any more."""
        for before, after, _ in self._leaving:
            close_left(before, after)
        close_left(self._gateway.hooks.loaded, Loaded())
        report.withdraw(self._reports, self._gateway.meter.worker)

    async def _look(self, report_too: bool) -> None:
        stamp = switches.stamp(self._path)
        if stamp != self._stamp and self._read():
            self._stamp = stamp
            before = self._gateway.hooks.loaded
            # Importing may take long: not on the loop that carries the calls.
            loaded = await asyncio.to_thread(
                load, self._folder, self._switches, self._configuration(), STAGES, before=before
            )
            self._leaving.append((before, loaded, set(self._gateway.calls)))
            self._take(loaded)
        self._let_go()
        if report_too:
            self._report()

    def _read(self) -> bool:
        try:
            self._switches = switches.read(self._path)
        except UnreadableSwitches as error:
            log.error("%s: the plugins stay as they are", error)
            return False
        return True

    def _configuration(self) -> Sections:
        try:
            self._configured = self._sections()
        except Exception as error:
            log.error("the plugins' configuration can't be read and stays as it was: %s", error)
        return self._configured

    def _take(self, loaded: Loaded) -> None:
        self._gateway.hooks.take(loaded)
        log.info("plugins at revision %d: %s", self._switches.revision, ", ".join(loaded.running) or "none")
        self._calls_reported = -1
        self._report()

    def _let_go(self) -> None:
        """Close plugins that were taken out once the calls that began with them have ended."""
        for entry in list(self._leaving):
            before, after, calls = entry
            if calls.isdisjoint(self._gateway.calls):
                self._leaving.remove(entry)
                close_left(before, after)

    def _report(self) -> None:
        loaded = self._gateway.hooks.loaded
        calls = sum(owner.calls for owner in loaded.running.values())
        if calls == self._calls_reported:
            return
        self._calls_reported = calls
        try:
            report.write(self._reports, report.report_of(loaded, self._gateway.meter.worker, self._switches.revision))
        except OSError as error:
            log.warning("the report on plugins can't be written: %s", error)
