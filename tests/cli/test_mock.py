"""`haat mock` as a person or a CI job runs it: one line says where it is, Ctrl-C ends it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from haat.cli.main import haat


@pytest.fixture
def running() -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "haat.cli.main", "mock", "--port", "0", "--service", "shop/speak=text_to_speech"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        told = ""
        for line in process.stdout:  # a warning may stand first, such as that the disk is nearly full
            told += line
            if found := re.search(r"Haat mock gateway at (http://127\.0\.0\.1:\d+) ", line):
                break
        else:
            raise AssertionError(told)
        yield process, found[1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def post(url: str, body: object, key: str, simulate: str = "") -> tuple[int, Any]:
    headers = {"X-API-Key": key, **({"X-Haat-Simulate": simulate} if simulate else {})}
    answer = httpx.post(url, json=body, headers=headers, trust_env=False)
    return answer.status_code, answer.json()


def test_it_answers_any_key_and_ends_when_told(running: tuple[subprocess.Popen[str], str]) -> None:
    process, address = running
    asked = {"input": [{"text": "hello"}]}
    for key in ("haat_test_abc", "whatever"):
        status, answered = post(f"{address}/v1/services/vani/translate-hi-ur/invoke", asked, key)
        assert status == 200 and "[test " in json.dumps(answered), answered
    status, answered = post(f"{address}/v1/services/shop/speak/invoke", asked, "x")
    assert status == 200 and "audio" in json.dumps(answered)
    assert post(f"{address}/v1/embeddings", {"model": "text-embedding-3-small", "input": "a"}, "x")[0] == 200
    status, answered = post(f"{address}/v1/services/vani/translate-hi-ur/invoke", asked, "x", "quota")
    assert (status, answered["code"]) == (429, "QUOTA_EXHAUSTED")
    assert post(f"{address}/v1/services/no/such/invoke", asked, "x")[1]["code"] == "SERVICE_NOT_FOUND"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert process.stdout is not None and process.stdout.read().endswith("The mock has ended.\n")


def test_a_taken_port_and_a_service_that_is_none_are_told_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(haat, ["mock", "--port", str(port)])
    assert done.exit_code == 1 and f"Port {port} of 127.0.0.1 can't be had" in done.output
    for wrong in ("nonsense", "a/b=poetry", "a/b/c=ocr"):
        done = CliRunner().invoke(haat, ["mock", "--service", wrong])
        assert done.exit_code == 2 and wrong in done.output
