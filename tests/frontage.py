"""The control process's application, made once a run: FastAPI takes a second for it, longer than most tests do."""

from __future__ import annotations

from functools import cache
from typing import cast

from fastapi import FastAPI

from haat.app import Platform
from haat.control.api import build_app
from haat.portal.pages import Portal


def app_on(platform: Platform) -> FastAPI:
    """Return the application on a test's own platform, which remembers nothing of another's. A test has one."""
    app = _app()
    app.dependency_overrides.clear()
    app.state.platform = platform
    app.state.portal = Portal(app.state.portal.environment)
    return app


@cache
def _app() -> FastAPI:
    return build_app(cast(Platform, None))
