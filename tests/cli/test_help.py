"""`haat --help`: quick, complete, and errors that are sentences."""

from __future__ import annotations

import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from haat.cli.main import GROUPS, PROCESSES, haat

COMMANDS = {"serve", "demo", "sandbox", "operator", "migrate", "doctor", "mock", *PROCESSES, *GROUPS}
HEAVY = ("psycopg", "pydantic", "sqlalchemy", "alembic", "fastapi", "rich", "haat.settings", "haat.app")


def test_help_lists_every_command() -> None:
    listed = set(re.findall(r"^  ([a-z][a-z-]+)  ", CliRunner().invoke(haat, ["--help"]).output, re.MULTILINE))
    assert listed == COMMANDS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(haat, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_help_imports_nothing_heavy() -> None:
    program = "import sys, haat.cli.main; print([name for name in sys.argv[1:] if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_is_there_in_a_blink() -> None:
    def processor_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "haat.cli.main", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(processor_seconds() for _ in range(5)) < 0.25


def test_version_is_the_packages() -> None:
    assert re.fullmatch(r"haat, version \d+\.\d+\.\d+\n", CliRunner().invoke(haat, ["--version"]).output)


@pytest.mark.parametrize(
    ("arguments", "variables", "sentence"),
    [
        (["doctor"], {"HAAT_GST_RATE": "2"}, "A setting is wrong (gst_rate"),
        (["doctor"], {"HAAT_CONFIG": "/nowhere.toml"}, "HAAT_CONFIG names /nowhere.toml"),
        (["doctor"], {"HAAT_CONFIG": __file__}, "The settings file is not TOML"),
        (["serve"], {"HAAT_MASTER_KEY": "no key"}, "The master key in HAAT_MASTER_KEY is not base64"),
        (["serve"], {"HAAT_MASTER_KEY": "c2hvcnQ="}, "The master key has 5 bytes instead of 32"),
        (["migrate"], {"HAAT_DATABASE_URL": "host=/nowhere"}, "The database can't be reached"),
        (["migrate", "--check"], {"HAAT_DATABASE_URL": "host=/nowhere"}, "The database can't be reached"),
        (["serve"], {"HAAT_DATABASE_URL": "host=/nowhere"}, "The database can't be reached"),
        (["worker"], {"HAAT_DATABASE_URL": "host=/nowhere"}, "The database can't be reached"),
        (["sandbox"], {}, "start it with `haat serve`"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    arguments: list[str], variables: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    environment = {"HAAT_PORT": "0", "HAAT_GATEWAY_PORT": "0", "HAAT_MODELS_PORT": "0", **variables}
    result = CliRunner().invoke(haat, [*arguments, "--data-dir", str(tmp_path)], env=environment)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.output


def test_a_file_in_the_place_of_the_data_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(haat, ["serve"], env={"HAAT_DATA_DIR": str(tmp_path / "file")})
    assert result.exit_code == 1
    assert "choose another --data-dir" in result.stderr


def test_a_port_that_is_taken_is_named_with_the_option_that_changes_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(haat, ["serve", "--data-dir", str(tmp_path), "--port", port, "--gateway-port", "0"])
    assert result.exit_code == 1
    assert f"Port {port} on 127.0.0.1 can't be used" in result.stderr
    assert "--port" in result.stderr
