"""A plugin with engines that misbehave in every way an engine can, installed as a distribution."""

from __future__ import annotations

from pathlib import Path

import pytest

CODE = """
import os
import signal
import time
from decimal import Decimal

from haat.kernel.errors import UnsupportedLanguage
from haat.models.hosted import Company, HostedService
from haat.plugins.spec import hookimpl
from haat.providers.programs import run_program

COMPANY = Company("unruly", "Unruly", "x@unruly.example", "X", "company")


def echo(items, config):
    print("engines print what they like")
    os.write(1, b"even past Python")
    return [{"text": item.text, "pid": os.getpid()} for item in items], {"characters": Decimal("1.50")}


def act(items, config):
    what = items[0].text
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "exit":
        os._exit(0)
    if what == "hang":
        time.sleep(86394)
    if what == "raise":
        raise RuntimeError("a secret of the engine")
    if what == "refuse":
        raise UnsupportedLanguage("Not this one.", supported=["hi-Deva"])
    return echo(items, config)


def program(items, config):
    return [{"text": run_program(["sh", "-c", item.text], b"", seconds=60).decode()} for item in items], {}


def missing():
    return "unruly-engine is not installed: run `make engines` as root."


def service(slug, invoke, runtime, **more):
    return HostedService(
        company=COMPANY, slug=slug, name=slug, summary="", description="", category="nlp", unit="characters",
        kind="text", sample={"input": [{"text": "hello"}]}, unit_price=Decimal(0), runtime=runtime, license_note="",
        invoke=invoke, timeout_seconds=1.0, **more,
    )


@hookimpl
def haat_services():
    return [
        service("worker", act, "process"),
        service("inline", act, "inline"),
        service("program", program, "command"),
        service("absent", program, "command", missing=missing),
    ]
"""


@pytest.fixture
def unruly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the plugin for this process and for the worker processes it starts."""
    (tmp_path / "unruly_haat.py").write_text(CODE)
    info = tmp_path / "unruly_haat-1.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unruly_haat\nVersion: 1.0.0\n")
    (info / "entry_points.txt").write_text("[haat]\nunruly = unruly_haat\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
