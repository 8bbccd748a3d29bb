"""Runtimes: what makes a runner of a model's files."""

from __future__ import annotations

from haat.models.runtimes.port import Runtime
from haat.models.runtimes.python import PythonRuntime

_RUNTIMES: dict[str, Runtime] = {"python": PythonRuntime()}


def runtime_named(name: str) -> Runtime:
    """Return the runtime of that name; raise KeyError for one that isn't known."""
    return _RUNTIMES[name]
