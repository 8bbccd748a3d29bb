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


def test_the_gateways_tests_pass_on_the_compiled_form() -> None:
    assert compiled.folder().is_dir(), "run 'make compile' first: 'make verify' does"
    environment = {**os.environ, "HAAT_COMPILED": "1"}
    looked = subprocess.run(
        [sys.executable, "-c", "import haat.gateway.http.connection as s; print(s.__file__)"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not looked.stdout.strip().endswith(".py")
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gateway"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert tests.returncode == 0, tests.stdout[-4000:]
