"""Engines: who runs models. The settings choose one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from haat.settings import Settings

if TYPE_CHECKING:
    from haat.models.engines.local import LocalEngine

_ON_LOOPBACK = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
"""What Ray reads when it is imported: its cluster of one machine listens to that machine only, as on those two."""


def engine_named(settings: Settings) -> LocalEngine:
    """Return the engine that `models_engine` names, not yet started; raise EngineMissing where Ray isn't installed."""
    # Each is imported when it is chosen: Ray is an extra, and takes seconds.
    if settings.models_engine == "ray":
        if not settings.ray_address:
            os.environ.setdefault(*_ON_LOOPBACK)
        from haat.models.engines.ray import RayEngine

        return RayEngine(settings.ray_address or "")
    from haat.models.deployments import models_folder
    from haat.models.engines.local import LocalEngine

    return LocalEngine(
        settings.models_memory_mb * 1024 * 1024, models_folder(settings.data_dir) / "work", settings.allowed_networks
    )
