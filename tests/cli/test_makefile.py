"""The Makefile: it lists its commands, and what it installs is what the code needs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from haat.providers.programs import DEBIAN_PACKAGES

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
LOCK = (ROOT / "requirements.lock").read_text()


def make(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_make_alone_lists_every_command() -> None:
    targets = set(re.findall(r"^\.PHONY: (\S+)", MAKEFILE, re.MULTILINE))
    listed = set(re.findall(r"^  make (\S+)", make().stdout, re.MULTILINE))
    assert listed == targets
    assert {"setup", "demo", "test", "check", "verify", "engines"} <= targets


def test_the_engines_it_installs_are_those_that_the_providers_start() -> None:
    listed = re.search(r"ENGINE_PACKAGES := ((?:.*\\\n)*.*)", MAKEFILE)
    assert listed is not None
    assert set(listed[1].replace("\\", "").split()) == set(DEBIAN_PACKAGES)


def test_a_python_that_is_too_old_or_missing_is_refused_with_a_sentence() -> None:
    done = make("setup", PYTHON="/nowhere/python")
    assert done.returncode != 0
    assert "/nowhere/python is not a Python 3.11, 3.12 or 3.13" in done.stderr
    assert "make setup PYTHON=" in done.stderr


def test_packages_that_are_there_are_not_installed_again() -> None:
    done = subprocess.run(
        ["sh", ROOT / "tools" / "apt.sh", "nothing", "dpkg"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_every_locked_package_has_hashes() -> None:
    entries = re.split(r"\n(?=[A-Za-z0-9])", LOCK)
    assert len(entries) > 50
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("file", ["requirements.lock", "pyproject.toml", "Makefile", "tools/setup.sh", ".ci/run"])
def test_no_package_index_is_named(file: str) -> None:
    text = (ROOT / file).read_text()
    assert re.findall(r"https?://\S+|index-url|find-links|trusted-host", text.replace("--no-emit-index-url", "")) == []
