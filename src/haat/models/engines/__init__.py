"""Engines: who runs models. The settings choose one."""

from __future__ import annotations

from haat.models.engines.port import Engine
from haat.settings import Settings


def engine_named(settings: Settings) -> Engine:
    """Return the engine that `models_engine` names, not yet started; raise EngineMissing where Ray isn't installed."""
    # Each is imported when it is chosen: Ray is an extra, and takes seconds.
    if settings.models_engine == "ray":
        from haat.models.engines.ray import RayEngine

        return RayEngine(settings.ray_address or "")
    from haat.models.engines.local import LocalEngine

    return LocalEngine(settings.models_memory_mb * 1024 * 1024)
