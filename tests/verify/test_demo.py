"""The demo, as a stranger runs it: a sale from registration to settlement, twice on one data directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from running import RunningPlatform, free_ports

pytestmark = pytest.mark.verify

KEYS = {
    "calls",
    "ok",
    "usage_events",
    "billed_calls",
    "invoice_total",
    "settlement_total",
    "platform_total",
    "seconds",
}


def run_demo(data_dir: Path) -> dict[str, Any]:
    port, gateway_port, models_port = (str(port) for port in free_ports(3))
    environment = {
        **os.environ,
        "HAAT_DATA_DIR": str(data_dir),
        "HAAT_PORT": port,
        "HAAT_GATEWAY_PORT": gateway_port,
        "HAAT_MODELS_PORT": models_port,
    }
    done = subprocess.run(
        [sys.executable, "-m", "haat.cli.main", "demo", "--once"],
        env=environment,
        cwd=data_dir,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def check(result: dict[str, Any]) -> None:
    assert result.keys() == KEYS
    assert result["calls"] >= 500
    assert result["usage_events"] == result["calls"]
    assert result["billed_calls"] == result["ok"]
    invoiced, provider, platform = (
        Decimal(result[name]) for name in ("invoice_total", "settlement_total", "platform_total")
    )
    assert invoiced > 0
    assert invoiced == provider + platform


def test_a_sale_adds_up_to_the_paisa_and_so_does_the_next_one(data_dir: Path) -> None:
    check(run_demo(data_dir))
    check(run_demo(data_dir))


def test_the_readmes_first_call_works(platform_process: RunningPlatform) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    call = readme[readme.index("curl -s ") : readme.index("\n```", readme.index("curl -s "))]
    call = call.replace("http://127.0.0.1:8080", platform_process.gateway_url)
    key = platform_process.sandbox()["key"]
    done = subprocess.run(
        ["bash", "-c", call],
        env={**os.environ, "HAAT_KEY": key},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert json.loads(done.stdout)["output"] == [{"text": "namastē duniyā"}]
