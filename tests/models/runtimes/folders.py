"""Folders with models in them, for tests."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import haat.cli.models
from haat.models.manifest import Manifest
from haat.models.manifest_file import read_manifest

TEMPLATES = haat.cli.models.TEMPLATES


def folder_with(place: Path, files: dict[str, str]) -> Path:
    """Return a folder with these files."""
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return place


def from_template(place: Path, runtime: str, name: str = "words") -> Path:
    """Return a folder as `haat models init` writes it."""
    folder = place / name
    shutil.copytree(TEMPLATES / runtime, folder)
    path = folder / "haat-model.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("NAME", name), encoding="utf-8")
    return folder


def python_model(place: Path, code: str, **fields: Any) -> tuple[Manifest, Path]:
    """Return a manifest and the folder of a Python model with this code, whose entry is ``model:predict``."""
    folder = folder_with(place, {"model.py": code})
    given = {"sample": {"input": [{"text": "a"}]}, **fields}
    return Manifest(name="words", runtime="python", entry=given.pop("entry", "model:predict"), **given), folder


__all__ = ["TEMPLATES", "folder_with", "from_template", "python_model", "read_manifest"]
