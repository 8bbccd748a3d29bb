"""A plugin that runs, kept apart from everybody else: what it raises and how long it takes stay its own matter."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable
from typing import Any, Final, Literal

import pluggy

from haat.kernel.errors import HaatError, InvalidRequest, PluginFailed
from haat.plugins.api import Plugin, Unreadable

log = logging.getLogger(__name__)

QUIET_SECONDS = 30.0
"""A plugin that fails or dawdles call after call is logged this often, with a count."""

FAILED: Final = object()
"""What a hook gives that failed and may be passed over."""


class Running:
    """One plugin: the object that carries its hooks, what it declared, and how it has done since."""

    def __init__(self, name: str, plugin: object, key: tuple[Any, ...]) -> None:
        self.name, self.plugin, self.key = name, plugin, key
        declared = plugin if isinstance(plugin, Plugin) else Plugin
        self.fails: Literal["open", "closed"] = declared.fails
        self.slow_seconds = declared.slow_ms / 1000
        self.calls = 0
        self.failures = 0
        self.slow = 0
        self.seconds = 0.0
        self._quiet_until = {"failed": 0.0, "slow": 0.0}

    def run(self, hook: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a hook; return its result or `FAILED`. Raise a refusal, or PluginFailed where it fails closed."""
        self.calls += 1
        began = time.perf_counter()
        try:
            return function(*arguments)
        except HaatError:
            raise
        except Unreadable as error:
            if self.fails == "open":
                return FAILED
            if hook == "haat_on_request":  # whoever sent it can mend that
                raise InvalidRequest(
                    f"A guard of this service must read the body and can't: {error}. Send it plain, or with gzip."
                ) from error
            raise PluginFailed(f"A guard of this service can't read the provider's answer: {error}.") from error
        except Exception as error:
            self.failures += 1
            if self._may_speak("failed"):
                log.exception("plugin %s failed in %s (%d times so far)", self.name, hook, self.failures)
            if self.fails == "closed":
                raise PluginFailed from error
            return FAILED
        finally:
            took = time.perf_counter() - began
            self.seconds += took
            if took > self.slow_seconds:
                self.slow += 1
                if self._may_speak("slow"):
                    log.warning(
                        "plugin %s held everybody up for %.1f ms in %s (%d times so far): hooks must not wait",
                        self.name,
                        took * 1000,
                        hook,
                        self.slow,
                    )

    def close(self) -> None:
        if isinstance(self.plugin, Plugin):
            try:
                self.plugin.close()
            except Exception:
                log.exception("plugin %s failed to close", self.name)

    def _may_speak(self, about: str) -> bool:
        now = time.monotonic()
        if now < self._quiet_until[about]:
            return False
        self._quiet_until[about] = now + QUIET_SECONDS
        return True


class Hook:
    """One hook of one running plugin. Called with all of the hook's arguments, whichever the plugin takes."""

    __slots__ = ("function", "name", "owner", "tier")

    def __init__(self, owner: Running, name: str, known: tuple[str, ...], implementation: pluggy.HookImpl) -> None:
        self.owner, self.name = owner, name
        self.tier = 0 if implementation.tryfirst else 2 if implementation.trylast else 1
        function, taken = implementation.function, tuple(implementation.argnames)
        if taken == known:
            self.function: Callable[..., Any] = function
        else:
            picks = [known.index(argument) for argument in taken]
            self.function = lambda *arguments: function(*[arguments[pick] for pick in picks])

    def __call__(self, *arguments: Any) -> Any:
        return self.owner.run(self.name, self.function, *arguments)


def hooks_of(manager: pluggy.PluginManager, owner: Running) -> dict[str, Hook]:
    """Register a plugin and return its hooks by name; raise ValueError for what can't be one of ours."""
    try:
        manager.register(owner.plugin, owner.name)
        callers = manager.get_hookcallers(owner.plugin) or []
        found: dict[str, Hook] = {}
        for caller in callers:
            spec = caller.spec
            if spec is None:
                raise ValueError(f"there is no hook called {caller.name}")
            [implementation] = [one for one in caller.get_hookimpls() if one.plugin is owner.plugin]
            if implementation.wrapper or implementation.hookwrapper:
                raise ValueError(f"{caller.name} is a wrapper; place the plugin with `order` instead")
            if inspect.iscoroutinefunction(implementation.function):
                raise ValueError(f"{caller.name} is a coroutine; hooks are plain functions")
            found[caller.name] = Hook(owner, caller.name, tuple(spec.argnames), implementation)
    except (ValueError, pluggy.PluginValidationError) as error:
        if manager.get_name(owner.plugin) is not None:
            manager.unregister(owner.plugin)
        raise ValueError(str(error).replace("\n", " ")) from error
    return found
