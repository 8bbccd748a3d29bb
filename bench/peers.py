"""Other gateways, each installed into an environment of its own below ``build/bench`` and run on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.bodies import CHAT, CHAT_ANSWER, TASK, TASK_ANSWER
from bench.load import Target
from bench.processes import LOOPBACK, await_answer, free_port, running, say
from bench.servers import JSON, ROOT, check_answer, request_of

ENVIRONMENTS = ROOT / "build" / "bench"
MODEL = "bench"
LITELLM_KEY = "sk-bench"


class NotInstalled(Exception):
    """A peer can't be had here; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Environment:
    """``packages`` are pinned and installed from PyPI, or from npm where ``npm`` is set."""

    name: str
    packages: tuple[str, ...]
    npm: bool = field(default=False, kw_only=True)

    @property
    def home(self) -> Path:
        return ENVIRONMENTS / self.name

    def install(self) -> None:
        """Install the packages unless exactly these are there; raise NotInstalled."""
        mark = self.home / "installed.json"
        wanted = json.dumps([sys.version, *self.packages] if not self.npm else list(self.packages))
        if mark.is_file() and mark.read_text() == wanted:
            return
        say(f"{self.name}: installing {', '.join(self.packages)}")
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        if self.npm:
            _npm_install(self.home, self.packages)
        else:
            _pip_install(self.home, self.packages)
        mark.write_text(wanted)

    def versions(self) -> dict[str, str]:
        """Return the pinned packages' names and versions."""
        if self.npm:
            return {name: version for name, _, version in (text.rpartition("@") for text in self.packages)}
        return {name: version for name, _, version in (text.partition("==") for text in self.packages)}


@dataclass(frozen=True, slots=True)
class Peer(Environment):
    """A gateway that others wrote."""

    does: str
    """What it does for a request besides forwarding it."""
    start: Callable[[Path, Path, int], contextlib.AbstractContextManager[Target]]
    """Given its environment, a working folder and the upstream's port."""
    slow: bool = False
    """So slow that a round has to be longer for a steady figure."""


def _pip_install(home: Path, packages: tuple[str, ...]) -> None:
    """Make an environment and fill it: with uv, which takes seconds, or with pip where uv finds no index."""
    _run([sys.executable, "-m", "venv", str(home)])
    python = str(home / "bin" / "python")
    _run([python, "-m", "pip", "install", "--quiet", "uv"])
    try:
        _run([python, "-m", "uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *packages])
    except NotInstalled:
        _run([python, "-m", "pip", "install", "--quiet", *packages])


def _npm_install(home: Path, packages: tuple[str, ...]) -> None:
    if shutil.which("npm") is None:
        raise NotInstalled("it needs Node.js with npm")
    _run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(home), *packages])


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env={**os.environ, "PIP_RETRIES": "1", "UV_HTTP_RETRIES": "1", "npm_config_fetch_retries": "1"},
        )
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"{command[0]} took more than ten minutes") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise NotInstalled(lines[-1])


# --- how each is started -----------------------------------------------------------------------


@contextlib.contextmanager
def granian(home: Path, work: Path, upstream: int) -> Iterator[Target]:
    port, log = free_port(), work / "granian.log"
    command = [str(home / "bin" / "granian"), "--interface", "asgi", "--host", LOOPBACK, "--port", str(port)]
    command += ["--workers", "1", "--no-ws", "--loop", "uvloop", "fastapi_proxy:app"]
    environment = {**os.environ, "UPSTREAM": f"http://{LOOPBACK}:{upstream}"}
    with running(command, log, environment=environment, folder=ROOT / "bench" / "peer_apps") as pid:
        target = Target("granian-fastapi-httpx", port, pid, "/invoke", TASK, JSON)
        check_answer(target, log, TASK_ANSWER)
        yield target


@contextlib.contextmanager
def litellm(home: Path, work: Path, upstream: int) -> Iterator[Target]:
    port, log, config = free_port(), work / "litellm.log", work / "litellm.json"
    parameters = {"model": f"openai/{MODEL}", "api_base": f"http://{LOOPBACK}:{upstream}/v1", "api_key": "none"}
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
                "general_settings": {"master_key": LITELLM_KEY},
            }
        )
    )
    command = [str(home / "bin" / "litellm"), "--config", str(config), "--host", LOOPBACK, "--port", str(port)]
    command += ["--num_workers", "1", "--telemetry", "False"]
    environment = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the internet for prices before it starts
        "LITELLM_LOG": "ERROR",
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    with running(command, log, environment=environment, folder=work) as pid:
        headers = {**JSON, "Authorization": f"Bearer {LITELLM_KEY}"}
        target = Target("litellm", port, pid, "/v1/chat/completions", CHAT, headers)
        _check_chat(target, log, patience=120)
        yield target


@contextlib.contextmanager
def portkey(home: Path, work: Path, upstream: int) -> Iterator[Target]:
    port, log = free_port(), work / "portkey.log"
    script = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    environment = {**os.environ, "NODE_ENV": "production"}
    command = ["node", str(script), f"--port={port}", "--headless"]
    with running(command, log, environment=environment, folder=work) as pid:
        headers = {
            **JSON,
            "Authorization": "Bearer none",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://{LOOPBACK}:{upstream}/v1",
        }
        target = Target("portkey", port, pid, "/v1/chat/completions", CHAT, headers)
        _check_chat(target, log, patience=60)
        yield target


def _check_chat(target: Target, log: Path, patience: float) -> None:
    """Wait for an answer that has the upstream's words; a gateway for models may write the rest anew."""
    content = await_answer(target.pid, target.port, request_of(target), log, patience=patience).body
    wanted, given = json.loads(CHAT_ANSWER), json.loads(content)
    if given["choices"][0]["message"]["content"] != wanted["choices"][0]["message"]["content"]:
        raise NotInstalled(f"it answers something else than its upstream: {content[:300]!r}")


PEERS = (
    Peer(
        "granian-fastapi-httpx",
        ("granian==2.8.7", "fastapi==0.165.0", "httpx==0.28.1", "uvloop==0.23.0"),
        "only forwards: a catch-all route and one pooled httpx client",
        granian,
        slow=True,
    ),
    Peer(
        "litellm",
        ("litellm[proxy]==1.106.2",),
        "checks its master key, routes by model, parses and writes anew request and answer, computes tokens and spend, "
        "calls its logging hooks; it has no database here",
        litellm,
        slow=True,
    ),
    Peer(
        "portkey",
        ("@portkey-ai/gateway@1.15.2",),
        "routes by headers, parses and transforms request and answer, runs its hooks; it checks no key, limits and "
        "records nothing",
        portkey,
        npm=True,
        slow=True,
    ),
)
