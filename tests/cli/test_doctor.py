"""`haat doctor`: what is there, what is missing, and the command that fixes it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result

from haat.cli import doctor
from haat.cli.main import haat
from haat.cli.run_folder import ProcessStatus, Status
from haat.infra.migrate import migrate
from haat.plugins.manager import hosted
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
    for path in hosted():
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


def test_a_database_out_of_reach_is_named_with_its_address(tmp_path: Path) -> None:
    result = run(tmp_path, {"HAAT_DATABASE_URL": "postgresql://haat@127.0.0.1:1/haat"})
    assert result.exit_code == 1
    assert "127.0.0.1" in result.output and "Connection refused" in result.output


def test_what_a_killed_platform_left_behind_is_no_other_program(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as left:
        created = psutil.Process(left.pid).create_time()
        status = Status(1, 0, 0, 0, "", "", {"gateway": ProcessStatus(left.pid, created)})
        (tmp_path / "run").mkdir()
        status.write(tmp_path)
        result = run(tmp_path)
        assert left.stdin is not None
        left.stdin.close()
    assert result.exit_code == 0, result.output
    assert "a killed `haat serve` left 1 running" in result.output
    assert "taken by another program" not in result.output


def test_a_file_in_the_place_of_the_data_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(haat, ["doctor"], env={"HAAT_DATA_DIR": str(tmp_path / "file"), "HAAT_PORT": "0"})
    assert result.exit_code == 1
    assert "choose another with --data-dir" in result.output
