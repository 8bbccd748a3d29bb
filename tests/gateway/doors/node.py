"""Programs for Node.js that use clients nobody here wrote: installed from npm into ``build``, once, and run."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BUILD = Path(__file__).parents[3] / "build"
PATIENCE = 60.0


def folder_with(program: str, *packages: str) -> Path:
    """Return a folder with these packages (``name@version``) and a program in it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.fail("This test runs clients for JavaScript: install Node.js 20 or later, with npm.")
    names = [package.rpartition("@")[0] for package in packages]
    folder = BUILD / f"node-{re.sub('[^a-z]+', '-', '-'.join(names)).strip('-')}"
    if not all((folder / "node_modules" / name / "package.json").exists() for name in names):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
        command = ["npm", "install", *packages, "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.fail(f"npm could not install {', '.join(packages)}: {done.stderr.strip()[-500:]}")
    (folder / "program.mjs").write_text(program)
    return folder


async def run(folder: Path, *arguments: str) -> Any:
    """Run the program and return what it prints, which is JSON."""
    process = await asyncio.create_subprocess_exec(
        "node", "program.mjs", *arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(output)
