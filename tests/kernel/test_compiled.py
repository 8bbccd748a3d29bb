"""Where the compiled form of the hot path is looked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from haat.kernel import compiled


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = tmp_path / "haat"
    for module in compiled.MODULES:
        path = (source / module).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("pass\n")
    monkeypatch.setattr(compiled, "SOURCE", source)
    monkeypatch.setattr(compiled, "HOME", tmp_path / "home")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("HAAT_COMPILED", raising=False)
    return source


def test_a_compiled_form_of_these_very_sources_is_found_first(elsewhere: Path) -> None:
    compiled.folder().mkdir(parents=True)
    path = ["source"]
    compiled.use("gateway", path)
    assert path == [str(compiled.folder() / "haat" / "gateway"), "source"]
    assert compiled.is_used()


def test_a_source_that_changed_since_is_interpreted(elsewhere: Path) -> None:
    compiled.folder().mkdir(parents=True)
    (elsewhere / "gateway" / "call.py").write_text("changed = True\n")
    path = ["source"]
    compiled.use("gateway", path)
    assert path == ["source"] and not compiled.is_used()


def test_a_variable_does_without_the_compiled_form(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled.folder().mkdir(parents=True)
    monkeypatch.setenv("HAAT_COMPILED", "0")
    path = ["source"]
    compiled.use("gateway", path)
    assert path == ["source"]
