"""docs/content.md says what the code does, and its commands do what they say."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from haat.app import MAILS
from haat.bootstrap import ensure_help_pages
from haat.cli import content as commands
from haat.cli.main import haat
from haat.content.memory import LEAST_ALIKE
from haat.content.model import KINDS
from haat.content.translator import APPLICATION
from haat.language import parse_tag
from haat.portal.pages_help import ADDRESSES
from office import Control

from .conftest import HINDI, URDU, Shouter

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "content.md").read_text(encoding="utf-8")


def test_every_kind_mail_and_event_is_described() -> None:
    for kind in KINDS:
        assert f"| `{kind}` |" in PAGE
        assert kind == "mail" or f"`{ADDRESSES[kind]}/{{key}}`" in PAGE
    for mail in MAILS:
        assert f"`{mail.name}`" in PAGE
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src/haat/content").glob("*.py"))
    recorded = set(re.findall(r'"(content\.(?!edit|report)[a-z_]+)"', sources))
    assert recorded and recorded == set(re.findall(r"`(content\.(?!edit)[a-z_]+)`", PAGE))
    assert f"({LEAST_ALIKE} or more" in PAGE and f"application **{APPLICATION}**" in PAGE


async def test_the_commands_do_what_they_say(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, platform = asyncio.get_running_loop(), control.platform
    platform.content._translator = Shouter(frozenset({(HINDI, URDU)}))

    def on_platform(_: Any, use: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(use(platform), loop).result(30)

    monkeypatch.setattr(commands, "on_platform", on_platform)  # the platform that is open already

    async def run(line: str, status: int = 0) -> str:
        done = await asyncio.to_thread(CliRunner().invoke, haat, shlex.split(line)[1:])
        assert done.exit_code == status, done.output
        return str(done.output)

    assert "no page" in await run("haat content list")
    assert "Published first-call in Hindi." in await run("haat content seed")
    assert await run("haat content seed --json") == "[]\n"
    [block] = [block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "haat content" in block]
    for line in block.splitlines():
        await run(line)
    rows = json.loads(await run("haat content list --json"))
    drafts = [(row["key"], row["language"]) for row in rows if row["state"] == "draft"]
    assert drafts == [("first-call", "ur-Arab")]
    assert "Nobody translates" in await run("haat content translate first-call ta", 1)
    assert "not one of" in await run("haat content translate first-call xx", 1)
    assert (await platform.library.published("first-call", parse_tag("ur"))).tag != URDU  # a draft is no answer


async def test_what_the_page_asks_the_api_is_answered(control: Control) -> None:
    await ensure_help_pages(control.platform)
    addresses = re.findall(r"curl 'http://127\.0\.0\.1:8000(/api/v1/[^']+)'", PAGE)
    assert len(addresses) == 2
    for address in addresses:
        answer = await control.client.get(address)
        assert answer.status_code == 200 and "कुंजी" in answer.text
