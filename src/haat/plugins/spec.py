"""The hooks a plugin can implement.

A plugin is a module or object that a distribution names under the entry-point group ``haat``::

    [project.entry-points.haat]
    acme = "acme_haat"

and whose functions carry `hookimpl`. A hook exists only when something in this house uses it.
"""

from __future__ import annotations

import pluggy

from haat.models.hosted import HostedService

PROJECT = "haat"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def haat_services() -> list[HostedService]:  # type: ignore[empty-body]  # a specification has no body
    """Return the services this plugin lets the platform run. Import engines at the first call, not here."""
