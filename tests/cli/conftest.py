"""Commands on a test's own database, which somebody else keeps up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from haat.cli import console, projections
from haat.cli.main import haat
from haat.kernel.clock import SetClock

Run = Callable[..., Result]


@pytest.fixture
def run(database: Any, clock: SetClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Return what runs a command there and then, each with a platform of its own as in a terminal."""
    dsns = {"app": database.app.dsn, "service": database.service.dsn, "owner": database.owner_dsn}
    for module in (console, projections):
        monkeypatch.setattr(module, "database_server", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr("haat.app.SystemClock", lambda: clock)
    monkeypatch.setattr("haat.app.dsn_for", lambda _, __, role: dsns[role])
    monkeypatch.setattr(projections, "dsn_for", lambda _, __, role: dsns[role])
    monkeypatch.setenv("COLUMNS", "300")
    return lambda *arguments: CliRunner().invoke(haat, [*map(str, arguments), "--data-dir", str(tmp_path)])
