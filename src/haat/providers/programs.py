"""Runs the language engines that are programs of their own: no shell, input on stdin, killed when slow.

They are GPL or native code, so they stay outside our process; how many run at once is bounded here,
whoever calls.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar

from haat.kernel.errors import EngineFailed, EngineMissing, EngineTimeout, Overloaded

# The Debian packages of every engine we start; `make engines` installs them.
DEBIAN_PACKAGES = (
    "apertium",
    "apertium-urd-hin",
    "espeak-ng",
    "ffmpeg",
    "tesseract-ocr",
    "tesseract-ocr-ben",
    "tesseract-ocr-eng",
    "tesseract-ocr-hin",
    "tesseract-ocr-tam",
)
INSTALL = "run `make engines` as root"

MOST_AT_ONCE = max(2, os.cpu_count() or 2)
_places = threading.BoundedSemaphore(MOST_AT_ONCE)
_running: set[subprocess.Popen[bytes]] = set()
_running_lock = threading.Lock()
call_deadline: ContextVar[float | None] = ContextVar("call_deadline", default=None)
"""When the call being served must end, on the monotonic clock: it may start several programs in turn."""
_WATCHDOG_GRACE = 5
_MOST_OUTPUT = 64 * 1024 * 1024


def missing_program(name: str, packages: str) -> str | None:
    """Return the sentence that says that a program is not installed and how to install it, or None."""
    if shutil.which(name):
        return None
    return f"{name} is not installed: {INSTALL}, or `apt-get install {packages}`."


def run_program(
    arguments: Sequence[str],
    stdin: bytes,
    *,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    seekable: bool = False,
) -> bytes:
    """Run a program on ``stdin`` and return its standard output.

    ``arguments`` holds our own constants and checked numbers, never what a caller wrote. Waiting for a
    free place counts towards ``seconds``. With ``seekable`` both streams are nameless files instead of
    pipes, for programs that go back in what they read or write. Raises EngineMissing, EngineFailed (it
    crashed or refused), EngineTimeout (it and its children were killed), Overloaded (no place became free).
    """
    deadline = min(time.monotonic() + seconds, call_deadline.get() or float("inf"))
    if not _places.acquire(timeout=max(0.0, deadline - time.monotonic())):
        raise Overloaded("All engines of this kind are busy; wait for the seconds in Retry-After.", retry_after=2)
    try:
        if seekable:
            output = _run_on_files(arguments, stdin, deadline, environment or {})
        else:
            output = _run_on_pipes(arguments, stdin, deadline, environment or {})
    finally:
        _places.release()
    if len(output) > _MOST_OUTPUT:
        raise EngineFailed("The engine's answer is larger than can be returned; try a shorter input.")
    return output


def _run_on_pipes(arguments: Sequence[str], stdin: bytes, deadline: float, environment: Mapping[str, str]) -> bytes:
    with _started(arguments, subprocess.PIPE, subprocess.PIPE, deadline, environment) as process:
        return process.communicate(stdin, timeout=max(0.01, deadline - time.monotonic()))[0]


def _run_on_files(arguments: Sequence[str], stdin: bytes, deadline: float, environment: Mapping[str, str]) -> bytes:
    try:
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as result:
            source.write(stdin)
            source.seek(0)
            with _started(arguments, source.fileno(), result.fileno(), deadline, environment) as process:
                process.wait(timeout=max(0.01, deadline - time.monotonic()))
            result.seek(0)
            return result.read(_MOST_OUTPUT + 1)
    except OSError as error:
        raise EngineFailed("There is no room for temporary files here; the call is not billed.") from error


@contextlib.contextmanager
def _started(
    arguments: Sequence[str], stdin: int, stdout: int, deadline: float, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program for the length of a block that waits for its end; raise what came of it instead of that."""
    name = arguments[0]
    if shutil.which(name) is None:
        raise EngineMissing(f"{name} is not installed here; ask the operator to run `make engines`.")
    try:
        process = subprocess.Popen(
            [*_last_resort(deadline), *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **environment},
            process_group=0,  # apertium is a shell pipeline: its whole group must be killed
        )
    except OSError as error:
        raise EngineFailed(f"{name} could not be started; the call is not billed.") from error
    with _running_lock:
        _running.add(process)
    try:
        yield process
    except subprocess.TimeoutExpired:
        _kill(process)
        process.communicate()
        raise EngineTimeout from None
    finally:
        with _running_lock:
            _running.discard(process)
    if process.returncode != 0:
        raise EngineFailed


def _last_resort(deadline: float) -> list[str]:
    """Return the command that ends a hung program should we be killed and not be there to do it."""
    watchdog = shutil.which("timeout")
    if watchdog is None:
        return []
    seconds = max(1, round(deadline - time.monotonic())) + _WATCHDOG_GRACE
    return [watchdog, "--signal=KILL", str(seconds)]


def stop_programs() -> None:
    """Kill every program that is running; the calls that wait for them fail."""
    with _running_lock:
        for process in _running:
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:  # not reaped yet: the group's id is still its own
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
