"""The examples of docs/client.md and docs/testing.md, run as they stand against the mock."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from pathlib import Path

import httpx
import pytest

DOCS = Path(__file__).parents[2] / "docs"
PROGRAMS = re.findall(
    r"^```python\n(.*?)^```", (DOCS / "client.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
async def test_a_program_runs(mock: str, number: int) -> None:
    environment = {"PATH": os.environ.get("PATH", ""), "HAAT_API_KEY": "haat_test_ci", "HAAT_BASE_URL": mock,
                   "PYTHONIOENCODING": "utf-8"}  # fmt: skip
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", PROGRAMS[number], env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, errors = await child.communicate()
    assert child.returncode == 0, errors.decode()
    assert out.strip() and not errors


def test_there_are_programs() -> None:
    assert len(PROGRAMS) == 6


async def test_the_answer_of_the_mock_is_the_one_written_down(mock: str) -> None:
    text = (DOCS / "testing.md").read_text(encoding="utf-8")
    [(command, answer)] = re.findall(
        r"^```bash example\n(.*?)\n```\n```json answer\n(.*?)\n```", text, re.MULTILINE | re.DOTALL
    )
    words = shlex.split(command)
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    url = next(word for word in words if word.startswith("http")).replace("http://127.0.0.1:8090", mock)
    async with httpx.AsyncClient(trust_env=False) as client:
        got = await client.post(url, headers=headers, content=words[words.index("-d") + 1])
    assert got.json() == json.loads(answer)


def test_every_exported_error_and_every_method_is_written_down() -> None:
    import haat_client
    from haat_client.errors import HaatError

    text = (DOCS / "client.md").read_text(encoding="utf-8")
    kinds = [name for name in haat_client.__all__ if isinstance(getattr(haat_client, name), type)
             and issubclass(getattr(haat_client, name), HaatError) and name != "HaatError"]  # fmt: skip
    assert [name for name in kinds if f"`{name}`" not in text] == []


def test_every_simulated_failure_is_written_down() -> None:
    from haat.gateway.simulator.step import WISHES

    text = (DOCS / "testing.md").read_text(encoding="utf-8")
    table = text.split("## Failures on purpose")[1].split("## The mock")[0]
    assert sorted(re.findall(r"^\| `([a-z]+)` \| ", table, re.MULTILINE)) == sorted(WISHES)
