"""A whole platform in processes of its own, for tests that kill, watch or walk through it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from haat.bootstrap import local_sign_in
from haat.infra.dsn import dsn_for
from haat.infra.keyring import Keyring
from haat.settings import Settings

START_SECONDS = 60


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class RunningPlatform:
    """`haat serve` on a data directory of its own, with free ports."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        port, gateway_port, models_port = free_ports(3)
        self.data_dir = data_dir
        self.environment = {
            **os.environ,
            "HAAT_COMPILED": "1",  # as users run it
            "HAAT_DATA_DIR": str(data_dir),
            "HAAT_PORT": str(port),
            "HAAT_GATEWAY_PORT": str(gateway_port),
            "HAAT_MODELS_PORT": str(models_port),
            **{f"HAAT_{name.upper()}": value for name, value in settings.items()},
        }
        self.control_url = f"http://127.0.0.1:{port}"
        self.gateway_url = f"http://127.0.0.1:{gateway_port}"
        self.gateway_port = gateway_port
        self._log = (data_dir / "serve.log").open("ab")
        self._serve: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until the gateway answers and a service is on the shelf."""
        self._serve = subprocess.Popen(
            self.command("serve"), env=self.environment, stdout=self._log, stderr=subprocess.STDOUT, cwd=self.data_dir
        )
        deadline = time.monotonic() + START_SECONDS
        with httpx.Client(timeout=2, trust_env=False) as client:
            while True:
                assert self._serve.poll() is None, f"haat serve ended: {self.log()[-2000:]}"
                with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
                    listings = client.get(f"{self.control_url}/api/v1/listings").json()["items"]
                    if len(listings) >= 5 and client.get(f"{self.gateway_url}/health").status_code == 200:
                        return
                assert time.monotonic() < deadline, f"not ready: {self.log()[-2000:]}"
                time.sleep(0.1)

    def stop(self) -> None:
        if self._serve is not None and self._serve.poll() is None:
            self._serve.terminate()
            self._serve.wait(60)
        self._log.close()

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "haat.cli.main", *words]

    def run(self, *words: str) -> str:
        """Run a `haat` command beside the platform and return what it prints."""
        done = subprocess.run(self.command(*words), env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sandbox(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run("sandbox", "--json"))
        return answer

    def child(self, role: str) -> psutil.Process | None:
        """Return the process of a role, or None while it is between two lives."""
        assert self._serve is not None
        for process in psutil.Process(self._serve.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[-1:] == [role] or role in process.cmdline()[1:5]:
                    return process
        return None

    def processes(self) -> list[psutil.Process]:
        """Return every process of the platform but the supervisor itself."""
        assert self._serve is not None
        try:
            return psutil.Process(self._serve.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def log(self) -> str:
        return (self.data_dir / "serve.log").read_text(errors="replace")

    def owner_dsn(self) -> str:
        settings = Settings(data_dir=self.data_dir)
        return dsn_for(settings, Keyring.load(self.data_dir), "owner")


def account_of(platform: RunningPlatform, email: str) -> tuple[str, str]:
    """Return the sign-in of an account that the platform made by itself."""
    made = local_sign_in(Keyring.load(platform.data_dir), email)
    return made.email, made.password
