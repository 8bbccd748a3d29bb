"""A file system that is really full: what is in flight still fits, and a kill on it loses nothing.

It is a tmpfs of a few MiB in a mount namespace of its own, which root and most users can make.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from haat.usage.journal import JournalReader, JournalWriter, Kind

MIB = 1 << 20
IN_FLIGHT = 500
RECORD = b"r" * 900


def fill(folder: Path) -> None:
    """Take all the space there is."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def written(folder: Path) -> list[bytes]:
    reader, position, found = JournalReader(folder, "gateway-0"), None, []
    while frames := reader.read(position) if position else reader.read():
        found += [frame.payload for frame in frames if frame.kind == Kind.USAGE]
        position = frames[-1].end
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def on_the_small_disk(folder: Path) -> None:
    """What the child process does: fill up, record what is in flight, be killed, start full, go on."""
    if os.fork() == 0:
        writer = JournalWriter(folder, "gateway-0", 32 * MIB, 200, reserve_bytes=2 * MIB)
        writer.append(Kind.USAGE, b"first")
        fill(folder)
        for _ in range(IN_FLIGHT):
            writer.append(Kind.USAGE, RECORD)
        assert writer.full, "the reserve had to be touched"
        os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.wait()
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert written(folder) == [b"first"] + [RECORD] * IN_FLIGHT

    successor = JournalWriter(folder, "gateway-0", 32 * MIB, 200, reserve_bytes=2 * MIB)
    assert successor.full, "it comes up, and takes no calls"
    (folder / "ballast").unlink()
    wait_for(lambda: not successor.full)
    successor.append(Kind.USAGE, b"last")
    successor.close()
    assert written(folder) == [b"first"] + [RECORD] * IN_FLIGHT + [b"last"]
    print("all of it is there")


@pytest.mark.verify
def test_a_real_full_disk_takes_what_is_in_flight_and_a_kill_on_it_loses_nothing(tmp_path: Path) -> None:
    namespace = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    script = f'mount -t tmpfs -o size=12m tmpfs "{tmp_path}" && exec "{sys.executable}" "{__file__}" "{tmp_path}"'
    done = subprocess.run([*namespace, "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "all of it is there" in done.stdout


if __name__ == "__main__":
    on_the_small_disk(Path(sys.argv[1]))
