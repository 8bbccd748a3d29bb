"""A provider with a model and no server, from an empty folder to the second version, by the commands of the docs."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from trade import Market

pytestmark = pytest.mark.verify

CALL = {"input": [{"text": "नमस्ते दुनिया"}]}
CHARACTERS = 13


@pytest.fixture
def haat(market: Market, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command of the provider's, in its own home and folder; it fails when ``status`` is not what comes of it."""
    token = str(market.provider.client.headers["Authorization"]).removeprefix("Bearer ")
    home = {"HOME": str(tmp_path), "HAAT_TOKEN": token, "NO_COLOR": "1"}

    def run(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        reached = ("--url", market.platform.control_url) if words[1] in ("keys", "publish", "list", "retire") else ()
        done = subprocess.run(
            market.platform.command(*words, *reached),
            env={**market.platform.environment, **home},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run


def test_a_model_is_published_called_rolled_out_and_retired(
    market: Market, haat: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    path = f"{market.slug}/words"
    haat("models", "init", "words")
    assert "answers its sample: 13 characters" in haat("models", "check", "words").stdout
    assert "haat models keys --register" in haat("models", "publish", "words", status=1).stderr
    haat("models", "keys", "--register")
    done = haat("models", "publish", "words", "--provider", market.slug)
    assert "words-1.0.0.haatmodel" in done.stderr  # its progress
    assert "ok  sample call: POST /invoke answered 200" in done.stdout
    assert f"{path} 1.0.0 is on the shelf" in done.stdout

    key = market.customer(path)

    def call(**headers: str) -> httpx.Response:
        url = f"{market.platform.gateway_url}/v1/services/{path}/invoke"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(url, json=CALL, headers={"X-API-Key": key, **named}, trust_env=False, timeout=30)

    first = call(X_Haat_Priority="10")
    assert (first.status_code, first.json()["output"][0]["words"]) == (200, 2), first.text
    assert first.headers["X-Haat-Units"] == f"characters={CHARACTERS}"
    refused = call(X_Haat_Priority="11")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "X-Haat-Priority")
    streamed = call(Accept="text/event-stream")
    assert [line for line in streamed.text.splitlines() if line.startswith("event")] == ["event: output", "event: done"]
    for answer in (first, streamed):
        story = market.buyer.story(answer.headers["X-Request-ID"])
        assert float(story["quantity"]) == CHARACTERS, story

    model, file = tmp_path / "words" / "model.py", tmp_path / "words" / "haat-model.yaml"
    model.write_text(model.read_text().replace('"words": len(words)', '"words": -len(words)'))
    assert "a version is never replaced" in haat("models", "publish", "words", status=1).stderr
    file.write_text(file.read_text().replace("version: 1.0.0", "version: 1.1.0"))
    assert f"haat rollout start {path} 1.1.0" in haat("models", "publish", "words", "--candidate").stdout
    assert call().headers["API-Version"] == "1.0.0"

    rollout = json.loads(market.platform.run("rollout", "start", path, "1.1.0", "--percent", "100", "--json"))
    market.settle()
    given = call()
    assert (given.headers["API-Version"], given.headers["X-Haat-Variant"]) == ("1.1.0", "candidate")
    assert given.json()["output"][0]["words"] == -2
    assert "sends calls to this version" in haat("models", "retire", "words", "1.0.0", status=1).stderr
    market.platform.run("rollout", "promote", rollout["id"])
    market.settle()
    haat("models", "retire", "words", "1.0.0")
    listed = json.loads(haat("models", "list", "--json").stdout)
    assert {one["version"]: one["stage"] for one in listed[0]["versions"]} == {"1.0.0": "retired", "1.1.0": "published"}
    assert call().headers["API-Version"] == "1.1.0"
    deadline = time.monotonic() + 10
    while (old := call(API_Version="1.0.0")).status_code == 200:
        assert time.monotonic() < deadline, "a retired version still answers"
        time.sleep(0.2)
    assert old.headers["Content-Type"] == "application/problem+json", old.text
    assert call().status_code == 200
