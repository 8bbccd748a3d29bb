"""The compiled form of the hot path passes the same tests as its source."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from haat.kernel import compiled

pytestmark = pytest.mark.verify
ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests" / "gateway"
ROOMS = {
    "gateway": sorted(TESTS.glob("test_*.py")),
    **{room.name: [room] for room in sorted(TESTS.iterdir()) if any(room.rglob("test_*.py"))},
    "usage": [TESTS.parent / "usage"],
}
EVERY_CORE = ["--numprocesses", "logical", "--maxprocesses", "8", "--max-worker-restart", "0", "--dist", "worksteal"]
ENVIRONMENT = {**os.environ, "HAAT_COMPILED": "1"}


def test_the_compiled_form_is_what_runs() -> None:
    assert compiled.folder().is_dir(), "run 'make compile' first: 'make verify' does"
    looked = subprocess.run(
        [sys.executable, "-c", "import haat.gateway.http.connection as s; print(s.__file__)"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not looked.stdout.strip().endswith(".py")


@pytest.mark.parametrize("tests", ROOMS.values(), ids=ROOMS)
def test_the_tests_pass_on_the_compiled_form(tests: list[Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *EVERY_CORE, *tests],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stdout[-4000:]
