"""Compile the modules that `haat.kernel.compiled` lists, into the environment. Does nothing when that is done.

Needs a C compiler and Python's headers; without them says so and ends well, because the interpreter
runs the same modules.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from haat.kernel.compiled import HOME, MODULES, SOURCE, folder

_SETUP = """
from setuptools import setup
from mypyc.build import mypycify
setup(
    name="haat_gateway",
    packages=[],
    ext_modules=mypycify({arguments!r}, opt_level="3", debug_level="0", group_name="haat"),
)
"""


def main() -> int:
    wanted = folder()
    if wanted.is_dir():
        return 0
    if shutil.which(os.environ.get("CC", "cc")) is None or not _has_headers():
        print(
            "No C compiler or Python headers: the gateway runs interpreted, at about half its speed.", file=sys.stderr
        )
        print("(Debian: apt-get install gcc python3-dev; then 'make compile'.)", file=sys.stderr)
        return 0
    print("Compiling the gateway's hot path, once for these sources …", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        shutil.copytree(SOURCE, work / "haat", ignore=shutil.ignore_patterns("__pycache__"))
        sources = [f"haat/{module}.py" for module in MODULES]
        arguments = ["--ignore-missing-imports", "--follow-imports=silent", *sources]
        (work / "setup.py").write_text(_SETUP.format(arguments=arguments))
        made = subprocess.run(
            [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", f"--parallel={os.cpu_count() or 1}"],
            cwd=work,
            capture_output=True,
            text=True,
            env={**os.environ, "MYPYPATH": scratch, "HAAT_COMPILED": "0"},
        )
        if made.returncode:
            print(made.stdout + made.stderr, file=sys.stderr)
            print("Compiling failed: the gateway runs interpreted.", file=sys.stderr)
            return 1
        fresh = HOME / f".{wanted.name}.{os.getpid()}"
        for built in work.rglob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}"):
            if "build" in built.relative_to(work).parts[:1]:
                continue
            place = fresh / built.relative_to(work)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(built, place)
    for old in HOME.glob(f"{sys.implementation.cache_tag}-*"):
        shutil.rmtree(old)
    fresh.rename(wanted)
    return 0


def _has_headers() -> bool:
    return (Path(sysconfig.get_path("include")) / "Python.h").is_file()


if __name__ == "__main__":
    sys.exit(main())
