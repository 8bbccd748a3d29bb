"""Virtual environments of models: what their manifests require, installed once for each set of requirements.

An environment sees its own distributions first and then the platform's. Only wheels are installed: building a
source distribution runs whatever stands in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from haat.kernel.errors import EngineMissing

SECONDS = 600.0
_DONE = ".haat-complete"

log = logging.getLogger(__name__)


def environment_python(requirements: Sequence[str], root: Path, seconds: float = SECONDS) -> str:
    """Return the interpreter of the environment with these requirements, making it first if it isn't there.

    Empty without requirements: the platform's own will do. It blocks, for minutes perhaps; of several that want the
    same one, one makes it. Raise EngineMissing when something can't be installed.
    """
    if not requirements:
        return ""
    said = json.dumps([sorted(requirements), sys.version, sys.prefix])
    folder = root / hashlib.sha256(said.encode()).hexdigest()[:32]
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (root / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _DONE).exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one who was killed
            try:
                _make(folder, sorted(requirements), seconds)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    return str(folder / "bin" / "python")


def _make(folder: Path, requirements: Sequence[str], seconds: float) -> None:
    _run([sys.executable, "-m", "venv", str(folder)], seconds, "A virtual environment can't be made")
    python = str(folder / "bin" / "python")
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--only-binary", ":all:"]
    _run(
        [python, "-m", "pip", "install", *options, "--", *requirements], seconds, "The requirements can't be installed"
    )
    [site] = folder.glob("lib/python*/site-packages")
    (site / "haat-platform.pth").write_text("".join(f"{place}\n" for place in _platform_places()))
    (folder / _DONE).touch()


def _platform_places() -> list[str]:
    """Return where the platform's distributions are, without the standard library and without what runs at a start."""
    standard = {str(Path(os.__file__).parent), str(Path(os.__file__).parent / "lib-dynload")}
    return [place for place in sys.path if place and Path(place).is_dir() and place not in standard]


def _run(command: Sequence[str], seconds: float, what: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HAAT_", "PYTHON"))}
    try:
        done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise EngineMissing(f"{what} within {seconds:g} s.") from error
    if done.returncode:
        log.error("%s: %s", what, done.stderr[-4000:])
        errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise EngineMissing(f"{what}: {errors[-1][:300]}" if errors else f"{what}.")
