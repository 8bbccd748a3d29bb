"""Starts servers for a measurement, waits until they answer, and ends them whatever happens."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

LOOPBACK = "127.0.0.1"


class NotStarted(Exception):
    """A server ended or gave no answer in time; the sentence has the last lines of its log."""


def say(text: str) -> None:
    """Tell the person who waits what happens now."""
    print(text, file=sys.stderr, flush=True)


def end_in_order() -> None:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that no server stays behind."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def forget_settings() -> None:
    """Let nobody's HAAT_ variables have a say in what is measured; whether it is compiled may be chosen."""
    for name in [name for name in os.environ if name.startswith("HAAT_") and name != "HAAT_COMPILED"]:
        del os.environ[name]


def free_port() -> int:
    """Return a loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def process_tree(pid: int) -> list[psutil.Process]:
    """Return a process and all that descend from it; empty when it has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[int]:
    """Run a command in a session of its own and yield its pid; then end it and its children.

    The session keeps Ctrl-C from reaching it before us: it is ended in order, after the load. Without
    an ``environment`` it gets ours.
    """
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        try:
            yield process.pid
        finally:
            end(process)


def end(process: subprocess.Popen[bytes], patience: float = 15) -> None:
    """Ask a process to end; kill what is left of its tree."""
    tree = process_tree(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    for left in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    process.wait()


@dataclass(frozen=True, slots=True)
class Request:
    """One call for `ask`."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` by their names in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes


def ask(port: int, request: Request, timeout: float = 10) -> Answer:
    """Make one call; raise OSError or HTTPException when there is no answer."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout)
    try:
        connection.request(request.method, request.path, request.body, dict(request.headers))
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())
    finally:
        connection.close()


def await_answer(
    pid: int, port: int, request: Request, log: Path, *, patience: float = 60, pause: float = 0.05
) -> Answer:
    """Call until the answer is 200 and return it; raise NotStarted."""
    deadline, problem = time.monotonic() + patience, "nothing listens"
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            raise NotStarted(f"it ended by itself\n{tail(log)}")
        try:
            answer = ask(port, request)
            if answer.status == 200:
                return answer
            problem = f"it answers {answer.status} {answer.body[:300]!r}"
        except (OSError, http.client.HTTPException) as error:
            problem = repr(error)
        time.sleep(pause)
    raise NotStarted(f"no good answer within {patience:.0f} s: {problem}\n{tail(log)}")


def tail(log: Path, lines: int = 8) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
