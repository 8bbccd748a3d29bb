"""The demo, as a stranger runs it, twice on one data directory: a sale, a model, its rollouts, and a long job."""

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
    "model",
    "rollout",
    "rollback",
    "job",
    "hosting_billed_calls",
    "hosting_invoice_total",
    "papers",
    "invoice_lines",
    "invoice_calls",
    "statement_lines",
    "statement_calls",
    "request_id",
}
ITEMS = 10_000


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
        timeout=480,
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


def check_hosting(result: dict[str, Any], first: int) -> None:
    """Look at the half about models; ``first`` is the number of the first version that this run has published."""
    assert result["model"]["version"] == f"{first}.0.0"
    assert 1 < result["model"]["largest_batch"] <= 64
    rollout, rollback, job = result["rollout"], result["rollback"], result["job"]
    assert (rollout["promoted"], rollout["failed"]) == (f"{first + 1}.0.0", 0)
    taken = {percent: candidate / calls for percent, (calls, candidate) in rollout["shares"].items()}
    assert list(taken) == ["5", "25", "50", "100"] and list(taken.values()) == sorted(taken.values())
    assert taken["100"] == 1 and 0.3 < taken["50"] < 0.7
    assert rollback["version"] == f"{first + 2}.0.0" and rollback["failed_after"] == 0
    assert rollback["calls"] >= 20 and 5 <= rollback["failures"] <= rollback["calls"]
    assert rollback["reason"].startswith("The candidate failed")
    assert job["killed"] == ["worker", "model"]
    assert (job["items"], job["succeeded"], job["usage_events"], job["twice"]) == (ITEMS, ITEMS, ITEMS, 0)
    assert job["metered_characters"] == job["characters"] > 0
    assert result["hosting_billed_calls"] > ITEMS and Decimal(result["hosting_invoice_total"]) > 0


def check_receipts(result: dict[str, Any], folder: Path) -> None:
    """Look at the papers: of the month's two invoices, and of the provider's two statements."""
    assert [Path(paper).suffix for paper in result["papers"]] == [".pdf", ".pdf", ".csv", ".csv"]
    assert all((folder / paper).stat().st_size > 1000 for paper in result["papers"])
    assert (folder / result["papers"][0]).read_bytes().startswith(b"%PDF-")
    assert result["invoice_lines"] > 10 and result["statement_lines"] >= 2
    assert result["invoice_calls"] == result["ok"] + result["hosting_billed_calls"]
    assert ITEMS < result["statement_calls"] < result["invoice_calls"]
    assert result["request_id"]


def test_a_sale_adds_up_to_the_paisa_and_so_does_the_next_one(data_dir: Path) -> None:
    for first in (1, 4):
        result = run_demo(data_dir)
        check(result)
        check_hosting(result, first)
        check_receipts(result, data_dir / "demo")


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
