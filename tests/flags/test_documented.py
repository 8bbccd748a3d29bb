"""The examples of docs/flags.md and docs/feedback.md, run as they stand."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bazaar import Bazaar
from feedback.test_feedback_api import Caller
from haat.cli import flags as commands
from haat.cli.main import haat
from haat.flags.draft import FlagDraft
from haat.flags.switchboard import SWITCHES
from haat.kernel.permissions import PLATFORM
from office import Control

from .test_ofrep import served

__all__ = ["served"]

DOCS = Path(__file__).parents[2] / "docs"


def example(page: str, kind: str) -> str:
    [found] = re.findall(rf"^```{kind}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


async def run(program: str, **environment: str) -> str:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONIOENCODING": "utf-8", **environment},
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, errors = await child.communicate()
    assert child.returncode == 0, errors.decode()
    return out.decode().strip()


async def key_of(control: Control) -> tuple[Any, Any, str]:
    actor = await control.market.consumer()
    application = await control.platform.identity.create_application(actor, "Storefront")
    return actor, application, (await control.platform.identity.create_key(actor, application.id)).key


async def test_a_program_of_somebody_else_asks_for_the_flag_that_is_shown(control: Control, served: str) -> None:
    draft = FlagDraft.parse(json.loads(example("flags.md", "json flag")))
    await control.platform.flags.put(PLATFORM, "search", draft)
    _, _, key = await key_of(control)
    program = example("flags.md", "python ofrep")
    assert await run(program, HAAT_KEY=key, HAAT_PORTAL=served) == "by meaning"


async def test_the_commands_do_what_they_say(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()

    def on_platform(_: Any, use: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(use(control.platform), loop).result(30)

    monkeypatch.setattr(commands, "on_platform", on_platform)  # the platform that is open already
    for line in example("flags.md", "bash flags").splitlines():
        done = await asyncio.to_thread(CliRunner().invoke, haat, shlex.split(line)[1:])
        assert done.exit_code == 0, done.output
    [flag] = json.loads(done.output)
    assert (flag["key"], flag["rules"][0]["percent"], flag["enabled"]) == ("new-search", 25, False)
    wrong = await asyncio.to_thread(CliRunner().invoke, haat, ["flags", "set", "UPPER"])
    assert wrong.exit_code == 1 and "Error" in wrong.output
    missing = await asyncio.to_thread(CliRunner().invoke, haat, ["flags", "set", "a", "--variant", "on"])
    assert missing.exit_code == 2


async def test_feedback_is_given_as_shown(control: Control, served: str) -> None:
    actor, application, _ = await key_of(control)
    bazaar = Bazaar(control.platform.service_db, control.market.clock)
    subscription = await bazaar.subscribe(actor.org_id, await bazaar.service())
    made = [bazaar.event(subscription, at=bazaar.clock.now() - timedelta(hours=1)) for _ in range(2)]
    for event in made:
        event.application = str(application.id)
    await bazaar.take(made)

    def filled(text: str) -> str:
        return text.replace("REQUEST_ID", made[0].id).replace("OTHER_ID", made[1].id)

    body, answer = (json.loads(filled(example("feedback.md", f"json {kind}"))) for kind in ("body", "answer"))
    given = await Caller(control, actor, application.id).give(body)
    assert given.json() == answer


def test_every_switch_of_the_platform_is_written_down() -> None:
    text = (DOCS / "flags.md").read_text(encoding="utf-8")
    for switch in SWITCHES:
        assert f"| `{switch.key}` | {'on' if switch.usual else 'off'} |" in text
