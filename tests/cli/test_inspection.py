"""`haat provider inspect`: from a server's metadata to a draft that can be listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.doors.v2_model import Model, ModelServer, translator
from haat.catalog.drafts import ServiceDraft
from haat.cli.main import haat


def inspect(tmp_path: Path, url: str, *options: str) -> Result:
    arguments = ["provider", "inspect", url, "--allow-network", "127.0.0.0/8", "--warm-up", "0.2", *options]
    return CliRunner().invoke(haat, arguments, env={"HAAT_DATA_DIR": str(tmp_path)})


@pytest.mark.parametrize("options", [[], ["--model", "nmt"]], ids=["the only one", "named"])
def test_it_reads_tries_and_saves(tmp_path: Path, options: list[str]) -> None:
    file = tmp_path / "draft.yaml"
    with ModelServer(translator()) as server:
        result = inspect(tmp_path, server.url, *options, "--save", str(file), "--credential", "X-Key: secret")
    assert result.exit_code == 0, result.output
    assert "nmt: translation, counted in characters" in result.output
    assert "It would be accepted." in result.output and f"The draft is in {file}" in result.output
    written = file.read_text(encoding="utf-8")
    listing = json.loads(written)
    assert "secret" not in written and listing["credential_header"] == "X-Key"
    draft = ServiceDraft.parse(listing)
    assert (draft.slug, draft.version.dialect, draft.version.endpoint) == ("nmt", "inference", server.url)
    assert listing["version"]["policy"]["tensors"] == {
        "model": "nmt",
        "inputs": {"source": "INPUT_LANGUAGE_ID", "target": "OUTPUT_LANGUAGE_ID", "text": "INPUT_TEXT"},
        "outputs": {"text": "OUTPUT_TEXT"},
    }


def test_the_draft_is_tried_by_the_other_command_too(tmp_path: Path) -> None:
    with ModelServer(translator()) as server:
        inspect(tmp_path, server.url, "--save", str(tmp_path / "draft"))
        version = json.loads((tmp_path / "draft").read_text(encoding="utf-8"))["version"]
        common = ["provider", "test", server.url, "--dialect", "inference", "--allow-network", "127.0.0.0/8"]
        tensors = json.dumps(version["policy"]["tensors"])
        body = json.dumps(version["sample"]["body"])
        run = CliRunner().invoke
        good = run(haat, [*common, "--tensors", tensors, "--body", body], env={"HAAT_DATA_DIR": str(tmp_path)})
        bare = run(haat, common, env={"HAAT_DATA_DIR": str(tmp_path)})
        wrong = run(haat, [*common, "--tensors", "{}"], env={"HAAT_DATA_DIR": str(tmp_path)})
    assert good.exit_code == 0, good.output
    assert (bare.exit_code, wrong.exit_code) == (2, 2)
    assert "model: Field required" in wrong.output


def test_a_sample_of_ones_own_is_tried_instead(tmp_path: Path) -> None:
    model = translator()
    task = {"input": [{"text": "hello"}], "config": {"source": "en", "target": "ta"}}
    with ModelServer(model) as server:
        result = inspect(tmp_path, server.url, "--sample", json.dumps(task))
    assert result.exit_code == 0, result.output
    assert model.seen == [{"INPUT_TEXT": [b"hello"], "INPUT_LANGUAGE_ID": [b"en"], "OUTPUT_LANGUAGE_ID": [b"ta"]}]


def test_a_model_that_fails_its_sample_is_said_to(tmp_path: Path) -> None:
    def broken(*_: Any) -> Any:
        return {"OUTPUT_TEXT": ([1, 2], [b"a", b"b"])}

    model = translator()
    model.compute = broken
    with ModelServer(model) as server:
        result = inspect(tmp_path, server.url)
    assert result.exit_code == 1
    assert "2 values an item" in result.output


def test_what_can_not_be_read_is_one_sentence(tmp_path: Path) -> None:
    tokens = Model("bert", {"input_ids": ("INT64", [-1, -1])}, {"logits": ("FP32", [-1, -1])}, lambda *_: {})
    with ModelServer(tokens) as server:
        unclear = inspect(tmp_path, server.url)
        missing = inspect(tmp_path, server.url, "--model", "none")
    gone = inspect(tmp_path, server.url)
    for result, says in ((unclear, "token numbers"), (missing, "answered 404"), (gone, "/v2/repository/index")):
        assert result.exit_code == 1 and says in result.output
        assert "Traceback" not in result.output
