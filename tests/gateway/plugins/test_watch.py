"""Plugins are switched on and off while calls go on; commands see what runs."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.rig import Client, Market, Provider
from gateway.test_process import keep_snapshot
from gateway.workers.test_workers import family, until
from haat.cli.main import haat
from haat.gateway.limits.plan import PlanLimits
from haat.gateway.plugins.watch import PluginWatch
from haat.infra.keyring import Keyring
from haat.plugins import report, switches
from haat.plugins.switches import Switch

SECTIONS = {"masking": {"services": ["*"]}}
MARK = """
from haat.plugins.api import *
class Mark(Plugin):
    summary = "Marks answers."
    @hookimpl
    def haat_on_response(self, call, answer):
        answer.headers.set("X-Mark", "{word}")
    def close(self):
        with open({closed!r}, "a") as file:
            file.write("{word} ")
"""


@asynccontextmanager
async def watching(market: Market, home: Path) -> AsyncIterator[PluginWatch]:
    watch = PluginWatch(market.gateway, home, lambda: SECTIONS)
    watch.begin()
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await watch.end()


def running(market: Market) -> set[str]:
    return set(market.gateway.hooks.loaded.running)


async def test_a_switch_is_taken_over_within_a_second_and_reported(market: Market, tmp_path: Path) -> None:
    path, reports = switches.switches_path(tmp_path), report.reports_folder(tmp_path)
    async with watching(market, tmp_path):
        assert running(market) == set()
        revision = switches.write(path, "masking", Switch(True, True))
        async with asyncio.timeout(1):
            await market.until(lambda: "masking" in running(market))
        await market.call("POST", body=b"a@b.in")
        assert market.provider.requests[0].body == b"[EMAIL]"
        [told] = report.read_all(reports)
        assert (told.worker, told.revision) == ("gateway-0", revision)
        switches.write(path, "masking", Switch(False))
        async with asyncio.timeout(1):
            await market.until(lambda: not running(market))
        await market.call("POST", body=b"a@b.in")
        assert market.provider.requests[1].body == b"a@b.in"
    assert list(report.read_all(reports)) == []


async def test_a_changed_file_is_taken_over_by_a_reload_and_the_old_one_closed(market: Market, tmp_path: Path) -> None:
    file, closed = tmp_path / "plugins" / "mark.py", tmp_path / "closed"
    file.parent.mkdir()
    file.write_text(MARK.format(word="one", closed=str(closed)))
    path = switches.switches_path(tmp_path)
    switches.write(path, "mark", Switch(True))
    async with watching(market, tmp_path):
        assert (await market.call("POST")).header("x-mark") == "one"
        file.write_text(MARK.format(word="second", closed=str(closed)))
        switches.write(path)
        await market.until(closed.exists)
        assert closed.read_text() == "one "
        assert (await market.call("POST")).header("x-mark") == "second"
    assert closed.read_text() == "one second "


async def test_switches_that_can_not_be_read_change_nothing(
    market: Market, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = switches.switches_path(tmp_path)
    switches.write(path, "masking", Switch(True))
    async with watching(market, tmp_path):
        path.write_text("{")
        await market.until(lambda: "can't be read" in caplog.text)
        assert running(market) == {"masking"}


# --- commands -------------------------------------------------------------------------------------


@contextmanager
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    config = tmp_path / "haat.toml"
    config.write_text('[plugins.masking]\nservices = ["acme/*"]\n')
    monkeypatch.setenv("HAAT_CONFIG", str(config))
    yield ["--data-dir", str(tmp_path)]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(haat, ["plugins", *arguments])
    return result.exit_code, result.output


def test_without_a_gateway_the_list_says_what_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with data_dir(tmp_path, monkeypatch) as here:
        assert run("enable", "masking", *here) == (0, "No gateway runs here: it counts from the next start.\n")
        code, output = run("list", "--json", *here)
        told = {row["name"]: row for row in json.loads(output)["plugins"]}
        assert code == 0
        assert (told["masking"]["pass"], told["masking"]["state"], told["masking"]["fails"]) == (
            "request",
            "on",
            "closed",
        )
        assert told["profanity"]["state"] == "off"
        assert told["api-key"]["source"] == "stage"
        code, output = run("list", *here)
        assert code == 0 and "least-load" in output
        assert run("disable", "masking", *here)[0] == 0
        assert not switches.read(switches.switches_path(tmp_path)).plugins["masking"].on


def test_what_can_not_run_is_not_switched_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with data_dir(tmp_path, monkeypatch) as here:
        (tmp_path / "haat.toml").write_text('[plugins.masking]\nservises = ["acme/*"]\n')
        code, output = run("enable", "masking", *here)
        assert code == 1 and "servises" in output
        code, output = run("enable", "nothing", *here)
        assert code == 1 and "There is no plugin nothing" in output
        (tmp_path / "plugins").mkdir()
        (tmp_path / "plugins" / "needy.py").write_text(
            "from haat.plugins.api import *\nclass N(Plugin):\n    requires = ('profanity',)\n"
        )
        code, output = run("enable", "needy", *here)
        assert code == 1 and "switch that on first" in output
        assert switches.read(switches.switches_path(tmp_path)).plugins == {}


async def test_commands_wait_until_the_gateway_has_taken_it_over(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with data_dir(tmp_path, monkeypatch) as here:
        async with watching(market, tmp_path):
            assert await asyncio.to_thread(run, "enable", "masking", *here) == (0, "masking: running\n")
            await market.call("POST", body=b"a@b.in")
            assert market.provider.requests[0].body == b"[EMAIL]"
            assert await asyncio.to_thread(run, "reload", *here) == (0, "masking: running\n")
            _, output = await asyncio.to_thread(run, "list", "--json", *here)
            told = json.loads(output)
            assert told["gateways"] == ["gateway-0"]
            assert next(row for row in told["plugins"] if row["name"] == "masking")["state"] == "running"
            assert await asyncio.to_thread(run, "disable", "masking", *here) == (0, "masking: off\n")
            assert running(market) == set()


async def test_every_worker_takes_a_switch_over_without_a_restart_and_a_new_worker_begins_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: Provider
) -> None:
    key = keep_snapshot(tmp_path, Keyring.load(tmp_path), provider.port, PlanLimits())
    head = f"POST /v1/services/acme/echo/x HTTP/1.1\r\nHost: g\r\nX-API-Key: {key}\r\nContent-Length: 6\r\n\r\n"
    request = head.encode() + b"a@b.in"

    async def received(port: int) -> set[bytes]:
        """Call until both workers must have had some, and return what the provider was sent."""
        provider.requests.clear()
        for _ in range(24):
            client = await Client.connect(port)
            await client.send(request)
            answer = await client.receive("POST")
            assert answer is not None and answer.status == 200
            client.close()
        return {one.body for one in provider.requests}

    with data_dir(tmp_path, monkeypatch) as here:
        async with family(tmp_path) as running:
            port = running.present(0).port
            assert await received(port) == {b"a@b.in"}
            pids = [running.present(slot).pid for slot in (0, 1)]
            assert await asyncio.to_thread(run, "enable", "masking", *here) == (0, "masking: running\n")
            assert await received(port) == {b"[EMAIL]"}
            assert [running.present(slot).pid for slot in (0, 1)] == pids
            os.kill(pids[0], signal.SIGKILL)
            await until(lambda: running.is_back(0, but=pids[0]))
            assert await received(port) == {b"[EMAIL]"}
            assert await asyncio.to_thread(run, "disable", "masking", *here) == (0, "masking: off\n")
            assert await received(port) == {b"a@b.in"}
