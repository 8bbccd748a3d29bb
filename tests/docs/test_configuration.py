"""docs/configuration.md describes every setting as it is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from haat.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "configuration.md").read_text()
SOURCES = {path: path.read_text() for path in (ROOT / "src" / "haat").rglob("*.py") if path.name != "settings.py"}


def row_of(name: str) -> str:
    """Return the line of the table that describes a setting."""
    field = Settings.model_fields[name]
    default = "not set" if field.default is None else f"`{field.default}`"
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | `HAAT_{name.upper()}` | {default} | {meaning} |"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_is_described(name: str) -> None:
    assert row_of(name) in DOCUMENT.splitlines()


def test_nothing_else_is_described() -> None:
    described = re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    assert sorted(described) == sorted(Settings.model_fields)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_does_something(name: str) -> None:
    derived = {"public_url": "portal_address", "gateway_url": "gateway_address"}
    word = re.compile(rf"\b{derived.get(name, name)}\b")
    assert any(word.search(source) for source in SOURCES.values()), f"nothing reads {name}"


def test_a_variable_wins_over_the_file_and_an_option_over_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "haat.toml"
    file.write_text('port = 1001\ngateway_port = 1002\nmodels_port = 1003\nallowed_networks = ["10.0.0.0/8"]\n')
    monkeypatch.setenv("HAAT_CONFIG", str(file))
    monkeypatch.setenv("HAAT_PORT", "2001")
    monkeypatch.setenv("HAAT_GATEWAY_PORT", "2002")
    settings = load_settings(gateway_port=3002)
    assert (settings.port, settings.gateway_port, settings.models_port) == (2001, 3002, 1003)
    assert settings.allowed_networks == ["10.0.0.0/8"]


def test_the_data_directory_is_absolute_whatever_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(data_dir=Path("here")).data_dir == tmp_path / "here"


def test_a_named_file_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAAT_CONFIG", "/nowhere/haat.toml")
    with pytest.raises(FileNotFoundError, match=r"/nowhere/haat\.toml"):
        load_settings()


def test_a_secret_is_not_printed() -> None:
    settings = Settings(smtp_password=SecretStr("hunter2"))
    assert "hunter2" not in repr(settings)
