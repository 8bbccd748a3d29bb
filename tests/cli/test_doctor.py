"""`haat doctor`: what is there, what is missing, and the command that fixes it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from haat.cli import doctor
from haat.cli.main import haat
from haat.infra.migrate import migrate
from haat.plugins.manager import hosted_services
from haat.settings import Settings


def run(data_dir: Path, environment: Mapping[str, str] | None = None) -> Result:
    ports = {"HAAT_PORT": "0", "HAAT_GATEWAY_PORT": "0", "HAAT_MODELS_PORT": "0"}
    return CliRunner().invoke(haat, ["doctor", "--data-dir", str(data_dir)], env={**ports, **(environment or {})})


def test_a_machine_with_everything_is_well(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    assert "Everything essential is there." in result.output


def test_looking_makes_nothing(tmp_path: Path) -> None:
    run(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_every_engine_is_looked_at(tmp_path: Path) -> None:
    output = run(tmp_path).output
    for path in hosted_services():
        assert path in output


def test_a_missing_engine_is_named_with_its_cure_and_is_not_essential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    result = run(tmp_path)
    assert "make engines" in result.output
    assert result.exit_code == 0


def test_a_taken_port_is_essential(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = run(tmp_path, {"HAAT_GATEWAY_PORT": port})
    assert result.exit_code == 1
    assert f"{port} is taken by another program" in result.output
    assert "--gateway-port" in result.output


def test_a_database_that_can_not_be_reached_is_essential(tmp_path: Path) -> None:
    result = run(tmp_path, {"HAAT_DATABASE_URL": "host=/nowhere user=x dbname=y"})
    assert result.exit_code == 1
    assert "start that server, or correct HAAT_DATABASE_URL" in result.output


def test_a_data_directory_that_is_a_file_is_essential(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(tmp_path / "file" / "below")
    assert result.exit_code == 1
    assert "choose another with --data-dir" in result.output


def test_an_old_schema_is_told_with_the_command_that_mends_it(cluster: Any, tmp_path: Path) -> None:
    cluster.create("test_doctor", "template0")
    try:
        dsn = cluster.dsn("owner", "test_doctor")
        migrate(dsn, "0001")
        result = run(tmp_path, {"HAAT_DATABASE_URL": dsn})
        assert result.exit_code == 1
        assert "haat migrate" in result.output
        migrate(dsn)
        assert run(tmp_path, {"HAAT_DATABASE_URL": dsn}).exit_code == 0
    finally:
        cluster.drop("test_doctor")


def test_too_little_disk_is_essential_and_a_little_less_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_with(free: int) -> dict[str, doctor.Finding]:
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
        settings = Settings(data_dir=tmp_path, port=0, gateway_port=0, models_port=0)
        return {finding.name: finding for finding in doctor.examine(settings)}

    full, scarce = disk_with(2**20)["Free disk"], disk_with(2**30)["Free disk"]
    assert (full.ok, full.essential) == (False, True)
    assert (scarce.ok, scarce.essential) == (False, False)
