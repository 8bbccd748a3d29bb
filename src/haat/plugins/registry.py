"""Finds plugins, switches them on and off, and says in which order their hooks run.

Three sources: those that come with the house (off until somebody switches them on), those of installed
distributions (on unless switched off) and files in a folder (off until switched on: a file that was
dropped somewhere must not run by itself). What can't be loaded is left out with its reason, and never
keeps a market shut, unless it is a guard that fails closed.
"""

from __future__ import annotations

import importlib.util
import logging
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, invalidate_caches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import msgspec
import pluggy
from pydantic import BaseModel, ValidationError

from haat.plugins import spec
from haat.plugins.api import PROJECT, Plugin
from haat.plugins.order import Place, arrange, without_needs
from haat.plugins.running import Hook, Running, hooks_of
from haat.plugins.switches import Switches

log = logging.getLogger(__name__)

Source = Literal["built in", "package", "folder"]
Sections = Mapping[str, Mapping[str, Any]]
"""``[plugins.<name>]`` of the settings, by name."""

BUILT_IN = {
    "masking": "haat.plugins.builtin.masking",
    "profanity": "haat.plugins.builtin.profanity",
}
PASSES: dict[str, tuple[str, ...]] = {
    "authenticate": ("haat_authenticate",),
    "request": ("haat_on_request", "haat_on_response", "haat_on_stream"),
    "upstream": ("haat_select_upstream",),
    "usage": ("haat_on_usage",),
}
"""Where a call passes the plugins, in its order. One place holds for a request and its answer, which
comes back through the same plugins the other way round."""

_CONTRADICTS = "what it wants to come before and after contradicts itself"


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin that is there, loaded or not. ``where`` is its module or file."""

    name: str
    source: Source
    where: str
    load: Callable[[], object]
    stamp: tuple[Any, ...] = ()


class Row(msgspec.Struct, frozen=True):
    """What a list of plugins says about one."""

    name: str
    source: str
    where: str
    state: str
    """``running``, ``off``, ``left out`` (it can't run) or ``refusing`` (it can't run and is a guard)."""
    summary: str = ""
    reason: str = ""
    fails: str = ""
    order: int = 0
    requires: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()


@dataclass(slots=True)
class Loaded:
    """The plugins that run, each hook's in order, and what became of the others."""

    running: dict[str, Running] = field(default_factory=dict)
    hooks: dict[str, dict[str, Hook]] = field(default_factory=dict)
    """By plugin and by hook."""
    order: dict[str, list[str]] = field(default_factory=dict)
    """By pass: names of stages and plugins in order."""
    missing_guards: tuple[str, ...] = ()
    """Guards that should run and can't: no call passes until they can, or are switched off."""
    rows: list[Row] = field(default_factory=list)


class Unfit(Exception):
    """The plugin can't run; the message says why."""

    def __init__(self, reason: str, *, guards: bool = False) -> None:
        super().__init__(reason)
        self.guards = guards


def discover(folder: Path, group: str = PROJECT) -> list[Found]:
    """Return every plugin that is there, by source and name; of one name the first stays."""
    invalidate_caches()
    found = [
        Found(name, "built in", module, lambda module=module: _of_module(import_module(module)))  # type: ignore[misc]
        for name, module in sorted(BUILT_IN.items())
    ]
    found += [
        Found(entry.name, "package", entry.value, lambda entry=entry: _of_entry(entry))  # type: ignore[misc]
        for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)
    ]
    for path in sorted(folder.glob("*.py")) if folder.is_dir() else []:
        if path.stem.startswith("_"):
            continue
        facts = path.stat()
        stamp = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
        found.append(Found(path.stem, "folder", str(path), lambda path=path: _of_file(path), stamp))  # type: ignore[misc]
    return found


def is_on(found: Found, switches: Switches) -> bool:
    switch = switches.plugins.get(found.name)
    return switch.on if switch is not None else found.source == "package"


def open_plugin(found: Found, section: Mapping[str, Any], *, make: bool = True) -> tuple[object, BaseModel | None]:
    """Load a plugin and check its configuration; with ``make`` also make it. Raise Unfit."""
    try:
        loaded = found.load()
    except Unfit:
        raise
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, MemoryError)):
            raise
        log.warning("plugin %s (%s) can't be loaded", found.name, found.where, exc_info=error)
        raise Unfit(f"it can't be loaded: {_sentence(error)}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Plugin)):
        if section:
            raise Unfit("it takes no configuration, but the settings have a section for it")
        return loaded, None
    guards = loaded.fails == "closed"
    try:
        configuration = loaded.Configuration.model_validate(dict(section))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the section"
        raise Unfit(f"its configuration does not fit: {place}: {first['msg']}", guards=guards) from error
    if not make:
        return loaded, configuration
    try:
        return loaded(configuration), configuration
    except Exception as error:
        log.warning("plugin %s can't begin", found.name, exc_info=error)
        raise Unfit(f"it can't begin: {_sentence(error)}", guards=guards) from error


def load(
    folder: Path,
    switches: Switches,
    sections: Sections,
    stages: Mapping[str, Sequence[Place]],
    *,
    before: Loaded | None = None,
    group: str = PROJECT,
) -> Loaded:
    """Return the plugins as they should run now.

    Those of ``before`` whose code and configuration are as they were run on as they are. A plugin
    that has become unfit goes on running as it was; what is left out otherwise is a guard's post.
    """
    loading = _Loading(switches, sections, before.running if before is not None else {})
    loading.reserve({place.name for passed in stages.values() for place in passed})
    for found in discover(folder, group):
        loading.take(found)
    loading.arrange(stages)
    return loading.end()


class _Loading:
    """One time of going through all plugins."""

    def __init__(self, switches: Switches, sections: Sections, earlier: Mapping[str, Running]) -> None:
        self._switches, self._sections, self._earlier = switches, sections, earlier
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(spec)
        self._found: dict[str, Found] = {}
        self._rows: dict[str, Row] = {}
        self._missing: list[str] = []
        self._result = Loaded()
        self._reserved: set[str] = set()

    def reserve(self, names: set[str]) -> None:
        """Keep these names for the house's own stages."""
        self._reserved = names

    def take(self, found: Found) -> None:
        """Begin with a plugin, run on with it, or say why not."""
        name = found.name
        if name in self._reserved:
            self._leave_out(found, "a built-in stage has its name", False)
            return
        if name in self._found:
            log.error("plugin %s of %s is left out: another one has its name", name, found.where)
            return
        self._found[name] = found
        if not is_on(found, self._switches):
            self._rows[name] = _row(found, None, (), "off")
            return
        section = self._sections.get(name, {})
        key = (found.source, found.where, found.stamp, msgspec.json.encode(dict(section), enc_hook=str, order="sorted"))
        old, reason = self._earlier.get(name), ""
        try:
            unchanged = old is not None and old.key == key
            owner = old if old is not None and unchanged else Running(name, open_plugin(found, section)[0], key)
            hooks = hooks_of(self._manager, owner)
        except (Unfit, ValueError) as error:
            if old is None:
                declared = self._switches.plugins.get(name)
                guards = isinstance(error, Unfit) and error.guards
                self._leave_out(found, str(error), guards or (declared is not None and declared.closed))
                return
            log.error("plugin %s runs on as it was: %s", name, error)
            owner, reason = old, f"it runs as it was before: {error}"
            hooks = hooks_of(self._manager, owner)
        self._result.running[name], self._result.hooks[name] = owner, hooks
        self._rows[name] = _row(found, owner, tuple(hooks), "running", reason)

    def arrange(self, stages: Mapping[str, Sequence[Place]]) -> None:
        """Find the order, and take out what requires or wishes for what can't be."""
        running, hooks = self._result.running, self._result.hooks
        lacking = without_needs({name: _declared(owner).requires for name, owner in running.items()})
        unmet = {name: f"it requires {needed}, which does not run" for name, needed in lacking.items()}
        _, caught = arrange([], [_place(name, owner) for name, owner in running.items() if name not in unmet])
        unmet |= dict.fromkeys(caught, _CONTRADICTS)
        order: dict[str, list[str]] = {}
        for here, names in PASSES.items():
            passing = [
                _place(name, owner, next(hooks[name][hook] for hook in names if hook in hooks[name]))
                for name, owner in running.items()
                if name not in unmet and not hooks[name].keys().isdisjoint(names)
            ]
            order[here], caught = arrange(stages.get(here, ()), passing)
            unmet |= dict.fromkeys(caught, _CONTRADICTS)
        for name, reason in unmet.items():
            owner = running.pop(name)
            del hooks[name]
            if self._earlier.get(name) is not owner:
                owner.close()
            self._leave_out(self._found[name], reason, owner.fails == "closed")
        self._result.order = {here: [name for name in names if name not in unmet] for here, names in order.items()}

    def end(self) -> Loaded:
        """Return what runs. A guard that is switched on and isn't there any more is missed."""
        for name, switch in self._switches.plugins.items():
            if switch.on and switch.closed and name not in self._found:
                self._missing.append(name)
                self._rows[name] = missing(name)
        self._result.missing_guards = tuple(self._missing)
        self._result.rows = list(self._rows.values())
        return self._result

    def _leave_out(self, found: Found, reason: str, guards: bool) -> None:
        log.error("plugin %s is left out: %s", found.name, reason)
        if guards:
            self._missing.append(found.name)
        self._rows[found.name] = _row(found, None, (), "refusing" if guards else "left out", reason)


def missing(name: str) -> Row:
    """Return what there is to say of a guard that is switched on and isn't there: all calls are refused for it."""
    return Row(name, "", "", "refusing", reason="it is switched on and guards, but is not there")


def close_left(before: Loaded, after: Loaded) -> None:
    """Close what ran before and doesn't any more."""
    kept = {id(owner) for owner in after.running.values()}
    for owner in before.running.values():
        if id(owner) not in kept:
            owner.close()


# --- what a name leads to -----------------------------------------------------------------------


def _of_module(module: ModuleType) -> object:
    """Return the one plugin class that a module defines, or the module itself when its functions are the hooks."""
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Plugin) and value.__module__ == module.__name__
    ]
    if len(classes) > 1:
        raise Unfit(f"{module.__name__} has {len(classes)} plugin classes: name one of them in the entry point")
    return classes[0] if classes else module


def _of_entry(entry: EntryPoint) -> object:
    loaded = entry.load()
    return _of_module(loaded) if isinstance(loaded, ModuleType) else loaded


def _of_file(path: Path) -> object:
    if path.stat().st_mode & stat.S_IWOTH:
        raise Unfit(f"{path} can be written by anybody: take that right away (chmod o-w)")
    name = f"haat_plugin_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    present = sys.modules.get(name)
    sys.modules[name] = module  # where annotations are looked up
    try:
        specification.loader.exec_module(module)
    except BaseException:
        if present is not None:
            sys.modules[name] = present
        else:
            del sys.modules[name]
        raise
    return _of_module(module)


def _declared(owner: Running) -> Plugin | type[Plugin]:
    return owner.plugin if isinstance(owner.plugin, Plugin) else Plugin


def _place(name: str, owner: Running, hook: Hook | None = None) -> Place:
    declared = _declared(owner)
    return Place(
        name,
        declared.order,
        hook.tier if hook is not None else 1,
        tuple(declared.before),
        (*declared.after, *declared.requires),
    )


def _row(found: Found, owner: Running | None, hooks: tuple[str, ...], state: str, reason: str = "") -> Row:
    if owner is None:
        return Row(found.name, found.source, found.where, state, reason=reason)
    declared = _declared(owner)
    return Row(
        found.name,
        found.source,
        found.where,
        state,
        declared.summary,
        reason,
        owner.fails,
        declared.order,
        tuple(declared.requires),
        hooks,
    )


def _sentence(error: BaseException) -> str:
    text = str(error).strip().replace("\n", " ")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
