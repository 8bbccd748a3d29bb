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


def test_a_process_keeps_to_the_form_it_began_with(elsewhere: Path) -> None:
    compiled.folder().mkdir(parents=True)
    paths: list[list[str]] = [[], []]
    compiled.use("gateway", paths[0])
    (elsewhere / "gateway" / "call.py").write_text("changed = True\n")
    compiled.use("usage", paths[1])
    assert [len(path) for path in paths] == [1, 1] and compiled.is_used()


def test_what_moves_from_one_module_to_another_counts_as_a_change(elsewhere: Path) -> None:
    first, second = ((elsewhere / module).with_suffix(".py") for module in compiled.MODULES[:2])
    before = compiled.folder()
    first.write_text("pass\npass\n")
    second.write_text("")
    assert compiled.folder() != before


def test_another_name_counts_as_a_change(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = compiled.folder()
    (elsewhere / "gateway" / "renamed.py").write_text("pass\n")
    monkeypatch.setattr(compiled, "MODULES", ("gateway/renamed", *compiled.MODULES[1:]))
    assert compiled.folder() != before


def test_every_package_with_a_compiled_module_looks_for_it() -> None:
    for package in {module.rpartition("/")[0] for module in compiled.MODULES}:
        assert f'compiled.use("{package}", __path__)' in (compiled.SOURCE / package / "__init__.py").read_text()
