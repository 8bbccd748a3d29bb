"""What it costs to admit a call when several processes share its limits, by the mechanism that guards them.

    python bench/limits_across_workers.py [--seconds 1] [--processes 4]

Each mechanism guards the same update, reading and writing five cells of a shared mapping as an admission
does. Alone: CPU nanoseconds of one process, taking and letting go and the update. Together: all processes
at once on the same cells, CPU nanoseconds an update over all of them, updates a second, how many were
lost, and what becomes of the others when a holder is killed. Everything else on the machine disturbs
it; medians of three rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import mmap
import os
import signal
import statistics
import struct
import sys
import tempfile
import time
from _multiprocessing import SemLock, sem_unlink  # type: ignore[import-not-found]  # what multiprocessing's locks are made of
from collections.abc import Callable
from functools import partial
from pathlib import Path

from haat.gateway.clock import GatewayClock
from haat.gateway.limits.lock import RobustMutex
from haat.gateway.limits.registry import MICRO, Limits, PlanLimits
from haat.gateway.limits.shared import Attachment

CELLS = 1024
MUTEX = 4096
Guard = tuple[Callable[[], object], Callable[[], object]]


def memory(path: Path) -> tuple[int, mmap.mmap]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, 8 * CELLS)
    return descriptor, mmap.mmap(descriptor, 8 * CELLS)


def none(path: Path, first: bool) -> Guard:
    return (lambda: None), (lambda: None)


def flock(path: Path, first: bool) -> Guard:
    descriptor, _ = memory(path)
    return partial(fcntl.flock, descriptor, fcntl.LOCK_EX), partial(fcntl.flock, descriptor, fcntl.LOCK_UN)


def record_lock(path: Path, first: bool) -> Guard:
    descriptor, _ = memory(path)
    take = partial(fcntl.lockf, descriptor, fcntl.LOCK_EX, 64, 0)
    return take, partial(fcntl.lockf, descriptor, fcntl.LOCK_UN, 64, 0)


def open_file_lock(path: Path, first: bool) -> Guard:
    descriptor, _ = memory(path)
    take, let = (struct.pack("hhqqi4x", kind, 0, 0, 64, 0) for kind in (fcntl.F_WRLCK, fcntl.F_UNLCK))
    return partial(fcntl.fcntl, descriptor, 38, take), partial(fcntl.fcntl, descriptor, 37, let)  # F_OFD_SETLKW, …SETLK


def semaphore(path: Path, first: bool) -> Guard:
    name = f"/haat-bench-{path.parent.name}"
    kind, value, most = 1, 1, 1
    known = SemLock._rebuild
    made = SemLock(kind, value, most, name, False) if first else known(0, kind, most, name)
    return made.acquire, made.release


def robust_mutex(path: Path, first: bool) -> Guard:
    _, shared = memory(path)
    mutex = RobustMutex(shared, MUTEX)
    if first:
        mutex.make()

    def take() -> None:
        if code := mutex.take():
            mutex.mend(code)

    return take, mutex.let


MECHANISMS: dict[str, Callable[[Path, bool], Guard]] = {
    "no lock": none,
    "flock": flock,
    "fcntl record lock": record_lock,
    "open file description lock": open_file_lock,
    "POSIX semaphore": semaphore,
    "robust mutex": robust_mutex,
}


def hammer(guard: Guard, cells: memoryview[int], until: Callable[[int], bool]) -> int:
    take, let = guard
    done = 0
    while until(done):
        for _ in range(200):
            take()
            count = cells[0]
            cells[1] += 1
            cells[2] = count
            cells[3] += 1
            cells[16 + (count & 127)] = count
            cells[0] = count + 1
            let()
        done += 200
    return done


def alone(name: str) -> float:
    with tempfile.TemporaryDirectory(prefix="haat-limits-") as folder:
        path = Path(folder) / "cells"
        guard = MECHANISMS[name](path, True)
        cells = memoryview(memory(path)[1]).cast("q")
        rounds = []
        for _ in range(3):
            began = time.process_time_ns()
            hammer(guard, cells, lambda done: done < 60_000)
            rounds.append((time.process_time_ns() - began) / 60_000)
        _clear(path)
        return statistics.median(rounds)


def _clear(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        sem_unlink(f"/haat-bench-{path.parent.name}")


def together(name: str, processes: int, seconds: float) -> tuple[float, float, int]:
    """Return CPU nanoseconds an update, updates a second, and how many updates were lost."""
    with tempfile.TemporaryDirectory(prefix="haat-limits-") as folder:
        path = Path(folder) / "cells"
        MECHANISMS[name](path, True)
        cells = memoryview(memory(path)[1]).cast("q")
        children = [_child(name, path, seconds) for _ in range(processes)]
        found = [_told(child) for child in children]
        _clear(path)
        done, spent = sum(one for one, _ in found), sum(one for _, one in found)
        return spent / done, done / seconds, done - cells[0]


def _child(name: str, path: Path, seconds: float) -> tuple[int, int]:
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    os.close(read)
    guard, cells = MECHANISMS[name](path, False), memoryview(memory(path)[1]).cast("q")
    time.sleep(0.2)
    ends, began = time.monotonic() + seconds, time.process_time_ns()
    done = hammer(guard, cells, lambda _: time.monotonic() < ends)
    os.write(write, struct.pack("qq", done, time.process_time_ns() - began))
    os._exit(0)


def _told(child: tuple[int, int]) -> tuple[int, int]:
    pid, read = child
    told = struct.unpack("qq", os.read(read, 16))
    os.close(read)
    os.waitpid(pid, 0)
    return told[0], told[1]


def survives(name: str) -> str:
    """Tell what becomes of a lock whose holder is killed."""
    with tempfile.TemporaryDirectory(prefix="haat-limits-") as folder:
        path = Path(folder) / "cells"
        made = MECHANISMS[name](path, True)
        holder = os.fork()
        if not holder:
            held, _ = MECHANISMS[name](path, False)
            held()
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(holder, 0)
        waiter = os.fork()
        if not waiter:
            signal.alarm(1)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            MECHANISMS[name](path, False)[0]()
            os._exit(0)
        _, status = os.waitpid(waiter, 0)
        del made
        _clear(path)
        return "goes on" if status == 0 else "stuck for ever"


def whole(workers: int) -> tuple[float, float]:
    """Return CPU microseconds of admission, headers and settlement of one call: as built, without other load."""
    plan = PlanLimits(3_000_000, 100_000_000, 1_000_000_000, 10_000_000_000, 4096)
    with tempfile.TemporaryDirectory(prefix="haat-limits-") as folder:
        attachment, clock = Attachment(Path(folder), 0, workers), GatewayClock()
        attachment.begin()
        counts, _, _ = attachment.open(clock.wall, clock.now_us())
        attachment.ready(counts)
        allowance = Limits(counts).of("application", "service", plan, "Asia/Kolkata", clock.now_us())
        rounds = []
        for _ in range(5):
            began = time.process_time_ns()
            for _ in range(40_000):
                now = clock.now_us()
                allowance.admit(now)
                allowance.headers(now)
                allowance.settle(allowance.period, MICRO, MICRO)
            rounds.append((time.process_time_ns() - began) / 40_000_000)
        attachment.close()
        return statistics.median(rounds), min(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--processes", type=int, default=4)
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print(f"| guarded by | alone, ns | {options.processes} together, CPU ns | updates/s | lost | holder killed |")
    print("|---|---|---|---|---|---|")
    for name in MECHANISMS:
        cpu, rate, lost = together(name, options.processes, options.seconds)
        fate = survives(name) if name != "no lock" else "–"
        print(f"| {name} | {alone(name):,.0f} | {cpu:,.0f} | {rate:,.0f} | {lost:,} | {fate} |")
    print("\nAdmission, headers and settlement of one call with three windows, a quota and concurrency:")
    for workers in (1, 2):
        median, least = whole(workers)
        print(f"{workers} worker(s): {median:.2f} µs (least {least:.2f})")


if __name__ == "__main__":
    main()
