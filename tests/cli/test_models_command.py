"""`haat models init`, `check` and `run` as a developer uses them, without a platform."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from haat.cli.main import haat

TASK = {"input": [{"text": "नमस्ते दुनिया"}]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(haat, ["models", "init", "words"]).exit_code == 0
    return tmp_path / "words"


class Running:
    """`haat models run` on a free port, and what it has said."""

    def __init__(self, folder: Path) -> None:
        self._log = (folder.parent / "run.log").open("wb")
        (folder.parent / "tmp").mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "haat.cli.main", "models", "run", str(folder), "--port", "0"],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder.parent / "tmp")},
        )
        self.log = folder.parent / "run.log"
        self.url = self.until(lambda: re.search(r"http://127\.0\.0\.1:\d+", self.log.read_text()))[0]

    def until(self, found: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 30
        while not (one := found()):
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        return one

    def says(self, words: str) -> None:
        self.until(lambda: words in self.log.read_text())

    def ask(self, path: str = "/local/words/invoke", **headers: str) -> httpx.Response:
        return httpx.post(self.url + path, json=TASK, headers=headers, trust_env=False, timeout=30)

    def words(self) -> int:
        count: int = self.ask().json()["output"][0]["words"]
        return count

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    one = Running(folder)
    yield one
    one.close()


def test_a_model_is_served_as_on_a_platform_and_leaves_nothing_behind(running: Running, folder: Path) -> None:
    answer = running.ask()
    assert answer.json()["output"][0]["words"] == 2
    assert (answer.headers["X-Haat-Usage"], answer.headers["X-Haat-Batch"]) == ("characters=13", "1")
    assert running.ask("/local/words@1.0.0/invoke").status_code == 200
    assert "event: done" in running.ask(Accept="text/event-stream").text
    other = running.ask("/local/other/invoke")
    assert (other.status_code, other.json()["code"]) == (404, "SERVICE_NOT_FOUND")
    assert "models_calls_total" in httpx.get(f"{running.url}/metrics", trust_env=False).text
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0
    assert list((folder.parent / "tmp").iterdir()) == []


def test_a_change_is_served_and_a_broken_one_is_told_and_leaves_the_model_as_it_was(
    running: Running, folder: Path
) -> None:
    model, file = folder / "model.py", folder / "haat-model.yaml"
    good = model.read_text()
    model.write_text(good + "\n1 / 0\n")
    running.says("ZeroDivisionError: division by zero")
    running.says("it fails with ZeroDivisionError.\nThe model that was open before goes on.")
    assert running.words() == 2
    model.write_text(good.replace('"words": len(words)', '"words": -len(words)'))
    running.until(lambda: running.words() == -2)
    file.write_text(file.read_text() + "nonsense: 1\n")
    running.says("`nonsense` is not a field here")
    assert running.words() == -2


def test_a_failing_call_is_told_where_the_model_runs(running: Running, folder: Path) -> None:
    (folder / "model.py").write_text(
        "class Model:\n    def predict(self, inputs):\n        if len(inputs[0].text) > 3: raise KeyError('which')\n"
        "        return ['x']\n"
    )
    file = folder / "haat-model.yaml"
    file.write_text(file.read_text().replace("नमस्ते दुनिया", "a"))
    running.until(lambda: running.ask().status_code == 502)
    assert running.ask().json()["detail"] == "The model failed with KeyError; the call is not billed."
    running.says("KeyError: 'which'")


def test_check_says_what_a_call_counts_and_what_is_wrong(folder: Path) -> None:
    done = CliRunner().invoke(haat, ["models", "check", "words", "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["usage"]) == (0, {"characters": "13"})
    assert found["outputs"] == [{"words": 2, "telling": ["नमस्ते", "दुनिया"]}]
    (folder / "model.py").write_text(
        "class Model:\n    def predict(self, inputs):\n        return [{'x': float('nan')}]\n"
    )
    done = CliRunner().invoke(haat, ["models", "check", "words"])
    assert (done.exit_code, "output.x is nan" in done.output) == (1, True)
    done = CliRunner().invoke(haat, ["models", "check", "words", "--json"])
    assert json.loads(done.stdout.splitlines()[-1])["code"] == "ENGINE_FAILED"


def test_what_can_not_be_served_at_all_is_told_in_a_sentence(folder: Path, running: Running) -> None:
    port = running.url.rpartition(":")[2]
    done = CliRunner().invoke(haat, ["models", "run", "words", "--port", port])
    assert (done.exit_code, f"Port {port} can't be had (Address already in use)" in done.output) == (1, True)
    (folder / "model.py").write_text("import nothing_like_it\n")
    done = CliRunner().invoke(haat, ["models", "run", "words", "--port", "0"])
    assert (done.exit_code, "it fails with ModuleNotFoundError" in done.output) == (1, True)
