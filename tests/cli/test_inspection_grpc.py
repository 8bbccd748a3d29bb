"""`haat provider inspect grpc://…`: as for a server that speaks HTTP, with a bridge of the command's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.dialects.grpc_rig import Models, model_server
from haat.catalog.drafts import ServiceDraft
from haat.cli.main import haat


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    with model_server(tmp_path_factory.mktemp("models")) as server:
        yield server


def run(tmp_path: Path, *arguments: str, network: str = "127.0.0.0/8") -> Result:
    command = ["provider", *arguments, "--allow-network", network, "--warm-up", "2"]
    return CliRunner().invoke(haat, command, env={"HAAT_DATA_DIR": str(tmp_path)})


@pytest.mark.parametrize("place", ["/nmt/versions/3", "/nmt", "--model"])
def test_it_reads_tries_and_saves(tmp_path: Path, models: Models, place: str) -> None:
    file = tmp_path / "draft.yaml"
    named = [models.url, "--model", "nmt"] if place == "--model" else [models.url + place]
    models.forget()
    result = run(tmp_path, "inspect", *named, "--save", str(file), "--credential", "X-Key: secret")
    assert result.exit_code == 0, result.output
    assert "nmt: translation, counted in characters" in result.output and "It would be accepted." in result.output
    written = file.read_text(encoding="utf-8")
    listing = json.loads(written)
    assert "secret" not in written
    draft = ServiceDraft.parse(listing)
    assert (draft.version.dialect, draft.version.endpoint) == ("inference", models.url)
    tensors = listing["version"]["policy"]["tensors"]
    assert (tensors["model"], tensors.get("version")) == ("nmt", "3" if "versions" in place else None)
    [asked] = models.noted()
    assert asked["metadata"]["x-key"] == "secret"
    command = ["test", models.url, "--dialect", "inference", "--tensors", json.dumps(tensors)]
    again = run(tmp_path, *command, "--body", json.dumps(listing["version"]["sample"]["body"]))
    assert again.exit_code == 0, again.output


def test_a_model_that_answers_in_parts_is_told_by_its_config(tmp_path: Path, models: Models) -> None:
    result = run(tmp_path, "inspect", f"{models.url}/narrator")
    assert result.exit_code == 0, result.output
    assert "several parts" in result.output
    listing = json.loads(result.stdout[result.stdout.index("\n{\n") :])
    assert listing["version"]["policy"]["tensors"]["decoupled"] is True
    ServiceDraft.parse(listing)


def test_what_can_not_be_read_is_one_sentence(tmp_path: Path, models: Models) -> None:
    several = run(tmp_path, "inspect", models.url)
    missing = run(tmp_path, "inspect", f"{models.url}/none")
    closed = run(tmp_path, "inspect", f"{models.url}/nmt", network="10.0.0.0/8")
    wrong = run(tmp_path, "inspect", f"{models.url}/nmt/infer")
    for result, says in (
        (several, "Name one with --model"),
        (missing, "answered 404"),
        (closed, "may not be called"),
        (wrong, "grpc://host:port/model"),
    ):
        assert result.exit_code in (1, 2) and says in result.output, result.output
        assert "Traceback" not in result.output
