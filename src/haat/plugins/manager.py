"""Finds plugins and collects what they bring.

The built-in providers are registered through the same hook as anybody else's. A plugin that can't
be imported or whose hook fails is logged and left out: one bad package never keeps a market shut.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import pluggy

from haat.invoices.ports import PaymentProvider, Registrar
from haat.models.hosted import Hosted, HostedChat, HostedService
from haat.models.runtimes.port import Runtime
from haat.plugins import spec

BUILT_IN = ("haat.providers.akshara", "haat.providers.vani")

log = logging.getLogger(__name__)


def load_plugins(built_in: Iterable[str] = BUILT_IN, group: str = spec.PROJECT) -> pluggy.PluginManager:
    """Return a plugin manager with the built-in plugins and those of installed distributions."""
    plugins = pluggy.PluginManager(spec.PROJECT)
    plugins.add_hookspecs(spec)
    for name in built_in:
        plugins.register(import_module(name), name)
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        try:
            plugins.register(entry.load(), entry.name)
        except Exception:
            log.exception("plugin %s (%s) can't be loaded and is left out", entry.name, entry.value)
    return plugins


def hosted(plugins: pluggy.PluginManager | None = None) -> dict[str, Hosted]:
    """Return all that the platform runs by ``provider/service``, built-in ones first; the first of a name stays."""
    plugins = plugins or load_plugins()
    found: dict[str, Hosted] = {}
    for implementation in plugins.hook.haat_services.get_hookimpls():
        for service in _services_of(implementation.plugin_name, implementation.function):
            if service.path in found:
                log.error("plugin %s brings %s a second time; left out", implementation.plugin_name, service.path)
            else:
                found[service.path] = service
    return found


def hosted_services(plugins: pluggy.PluginManager | None = None) -> dict[str, HostedService]:
    """Return those of `hosted` that are called by the task schema."""
    return {path: service for path, service in hosted(plugins).items() if isinstance(service, HostedService)}


def hosted_chats(plugins: pluggy.PluginManager | None = None) -> dict[str, HostedChat]:
    """Return those of `hosted` that are language models to chat with."""
    return {path: service for path, service in hosted(plugins).items() if isinstance(service, HostedChat)}


def brought_runtimes(plugins: pluggy.PluginManager | None = None) -> dict[str, Runtime]:
    """Return the runtimes that plugins bring, by name; the first of a name stays."""
    plugins = plugins or load_plugins()
    found: dict[str, Runtime] = {}
    for implementation in plugins.hook.haat_runtimes.get_hookimpls():
        try:
            runtimes: list[Any] = list(implementation.function())  # type: ignore[call-overload]  # it is anybody's
            for runtime in runtimes:
                if not isinstance(runtime, Runtime):
                    raise TypeError(f"haat_runtimes gave a {type(runtime).__name__}, not a Runtime")
        except Exception:
            log.exception("plugin %s failed to name its runtimes and is left out", implementation.plugin_name)
            continue
        for runtime in runtimes:
            found.setdefault(runtime.name, runtime)
    return found


def brought_payment_providers(plugins: pluggy.PluginManager | None = None) -> dict[str, PaymentProvider]:
    """Return the payment providers that plugins bring, by name; the first of a name stays."""
    found: dict[str, PaymentProvider] = {}
    for one in _brought(plugins or load_plugins(), "haat_payment_providers", PaymentProvider):
        found.setdefault(one.name, one)
    return found


def brought_registrar(plugins: pluggy.PluginManager | None = None) -> Registrar | None:
    """Return the registrar of e-invoices that a plugin brings; of several the first, and that is said."""
    found: list[Registrar] = _brought(plugins or load_plugins(), "haat_registrars", Registrar)
    for other in found[1:]:
        log.error("the registrar %s is left out: %s is here already", other.name, found[0].name)
    return found[0] if found else None


def _brought(plugins: pluggy.PluginManager, hook: str, kind: Any) -> list[Any]:
    """Return what plugins give for a hook; one that fails, or gives something else, is left out."""
    found: list[Any] = []
    for implementation in getattr(plugins.hook, hook).get_hookimpls():
        try:
            given = list(implementation.function())
            for one in given:
                if not isinstance(one, kind):
                    raise TypeError(f"{hook} gave a {type(one).__name__}, not a {kind.__name__}")
        except Exception:
            log.exception("plugin %s failed at %s and is left out", implementation.plugin_name, hook)
            continue
        found += given
    return found


def _services_of(plugin: str, function: Any) -> list[Hosted]:
    # Each implementation is called by itself: pluggy would let one failure lose everybody's services.
    try:
        services = list(function())
        for service in services:
            if not isinstance(service, HostedService | HostedChat):
                raise TypeError(f"haat_services gave a {type(service).__name__}, not a HostedService or HostedChat")
    except Exception:
        log.exception("plugin %s failed to name its services and is left out", plugin)
        return []
    return services
