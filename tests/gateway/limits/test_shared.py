"""Limits shared by processes: exact while they hammer, while they are killed, whatever the file went through."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from haat.gateway.limits import recovery
from haat.gateway.limits.counts import FLYING, MONTH
from haat.gateway.limits.registry import MICRO, SECOND, Limits, PlanLimits
from haat.gateway.limits.shared import REGION, Attachment, SharedCounts, UnusableCounts
from haat.kernel.errors import Overloaded
from haat.usage import event as usage
from haat.usage.event import Checkpoint, Outcome, UsageEvent
from haat.usage.journal import JournalWriter, Kind

KOLKATA = "Asia/Kolkata"
NOW = 1_795_933_800 * SECOND  # 29 November 2026, noon in Kolkata


class Worker:
    """One process's place, played in this process."""

    def __init__(self, home: Path, slot: int, workers: int, clock: int = 0, now: int = NOW) -> None:
        self.attachment = Attachment(home, slot, workers)
        assert self.attachment.begin()
        self.counts, self.known, self.dead = self.attachment.open(clock, now)
        self.limits = Limits(self.counts)

    def serve(self) -> Worker:
        self.attachment.ready(self.counts)
        return self

    def die(self) -> None:
        """Leave everything as it is, as a killed process does."""
        self.attachment.close()

    def admit(self, plan: PlanLimits, calls: int = 1, now: int = NOW, app: str = "app") -> int:
        allowance = self.limits.of(app, "service", plan, KOLKATA, now)
        return sum(allowance.admit(now) is None for _ in range(calls))

    def settle(self, plan: PlanLimits, used: int = MICRO, app: str = "app") -> None:
        allowance = self.limits.of(app, "service", plan, KOLKATA, NOW)
        allowance.settle(allowance.period, MICRO, used)


# --- real processes ------------------------------------------------------------------------------

HAMMER = """
    import os, random, sys, time
    from pathlib import Path
    from haat.gateway.clock import GatewayClock
    from haat.gateway.limits.registry import MICRO, Limits, PlanLimits
    from haat.gateway.limits import recovery
    from haat.gateway.limits.shared import Attachment

    home, slot, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    plan, seconds = sys.argv[4], float(sys.argv[5])
    clock = GatewayClock()
    attachment = Attachment(home, slot, workers)
    while not attachment.begin():
        time.sleep(0.001)
    counts, known, dead = attachment.open(clock.wall, clock.now_us())
    clock.adopt(counts.clock)
    for one in dead:
        recovery.take_over(counts, one, home / "journal")
    attachment.ready(counts)
    limits, plan = Limits(counts), PlanLimits(**eval(plan))
    allowance = limits.of("app", "service", plan, "Asia/Kolkata", clock.now_us())
    out, open_calls = os.open(home / f"admitted-{slot}-{os.getpid()}", os.O_CREAT | os.O_WRONLY | os.O_APPEND), []
    print("ready", flush=True)
    sys.stdin.readline()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if allowance.admit(clock.now_us()) is None:
            os.write(out, b"a")
            open_calls.append(allowance.period)
        if open_calls and random.random() < 0.6:
            allowance.settle(open_calls.pop(), MICRO, MICRO)
            os.write(out, b"s")
    for period in open_calls:
        allowance.settle(period, MICRO, MICRO)
        os.write(out, b"s")
    attachment.close()
"""


def start(home: Path, slot: int, workers: int, plan: PlanLimits, seconds: float) -> subprocess.Popen[bytes]:
    fields = {name: getattr(plan, name) for name in plan.__struct_fields__}
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HAMMER), str(home), str(slot), str(workers), repr(fields), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def go(*children: subprocess.Popen[bytes]) -> None:
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()


def written(home: Path) -> tuple[int, int]:
    """Return how many admissions and how many ends the processes have reported."""
    found = b"".join(path.read_bytes() for path in home.glob("admitted-*"))
    return found.count(b"a"), found.count(b"s")


def end(child: subprocess.Popen[bytes]) -> int:
    code = child.wait(30)
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        pipe.close()
    return code


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (PlanLimits(per_hour=3000), 3000),
        (PlanLimits(per_hour=20_000, quota_per_month=4000), 4000),
        (PlanLimits(per_minute=50_000, per_day=2500), 2500),
    ],
    ids=["exact window", "quota", "coarse and exact windows"],
)
def test_four_processes_admit_exactly_what_one_would(tmp_path: Path, plan: PlanLimits, expected: int) -> None:
    children = [start(tmp_path, slot, 4, plan, 1.5) for slot in range(4)]
    go(*children)
    assert [end(child) for child in children] == [0] * 4
    assert written(tmp_path) == (expected, expected)
    worker = Worker(tmp_path, 0, 4)
    cells = worker.counts.find("app\nservice")
    assert cells is not None and (cells[FLYING], cells[MONTH]) == (0, expected * MICRO)


def test_concurrency_is_exact_among_processes(tmp_path: Path) -> None:
    plan = PlanLimits(max_concurrent=3)
    children = [start(tmp_path, slot, 3, plan, 0.8) for slot in range(3)]
    go(*children)
    assert [end(child) for child in children] == [0] * 3
    admitted, ended = written(tmp_path)
    assert admitted == ended > 100


def test_processes_killed_at_any_moment_never_let_more_through(tmp_path: Path) -> None:
    plan = PlanLimits(per_day=6000, quota_per_month=5000, max_concurrent=64)
    children = {slot: start(tmp_path, slot, 3, plan, 20.0) for slot in range(3)}
    go(*children.values())
    chance, kills = random.Random(7), 0
    deadline = time.monotonic() + 30
    while kills < 12 and time.monotonic() < deadline:
        time.sleep(chance.uniform(0.005, 0.03))
        slot = chance.randrange(3)
        children[slot].send_signal(signal.SIGKILL)
        end(children[slot])
        kills += 1
        children[slot] = start(tmp_path, slot, 3, plan, 20.0)
        go(children[slot])
    for child in children.values():
        child.send_signal(signal.SIGKILL)
        end(child)
    admitted, ended = written(tmp_path)
    assert ended <= admitted
    worker = Worker(tmp_path, 0, 3)
    assert worker.known and worker.dead == [0, 1, 2]
    for slot in worker.dead:
        recovery.take_over(worker.counts, slot, tmp_path / "journal")
    cells = worker.counts.find("app\nservice")
    assert cells is not None and cells[FLYING] == 0
    # Killed between its settlement and its saying so, or between two stores, a process has counted one call more.
    assert ended * MICRO <= cells[MONTH] <= (ended + kills + 3) * MICRO
    assert admitted <= 6000
    assert cells[MONTH] <= 5000 * MICRO


def test_a_lock_whose_holder_is_killed_goes_to_the_next(tmp_path: Path) -> None:
    first = Worker(tmp_path, 0, 2).serve()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import sys
                from pathlib import Path
                from haat.gateway.limits.shared import Attachment
                attachment = Attachment(Path(sys.argv[1]), 1, 2)
                assert attachment.begin()
                counts, _, _ = attachment.open(0, 0)
                counts.acquire()
                print("held", flush=True)
                sys.stdin.readline()
            """),
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    holder.kill()
    end(holder)
    assert first.admit(PlanLimits(per_minute=2), 3) == 2


# --- one after the other -------------------------------------------------------------------------


def test_the_successor_of_a_killed_process_finds_everything_counted(tmp_path: Path) -> None:
    plan = PlanLimits(per_minute=5, quota_per_month=100, burst=5, quota_per_day=50)
    before = Worker(tmp_path, 0, 1).serve()
    assert not before.known
    assert before.admit(plan, 3) == 3
    before.die()
    after = Worker(tmp_path, 0, 1)
    assert after.known and after.dead == [0]
    assert recovery.take_over(after.counts, 0, tmp_path / "journal") == 3
    allowance = after.limits.of("app", "service", plan, KOLKATA, NOW)
    assert (allowance.in_flight, allowance.used, allowance.reserved) == (0, 0, 0), "unanswered calls use no quota"
    assert after.admit(plan, 9) == 2, "but they were admitted in this minute"


def test_a_reservation_holds_until_recovery_replaces_it_by_the_last_checkpoint(tmp_path: Path) -> None:
    plan = PlanLimits(quota_per_month=1000, quota_unit="characters")
    journal = JournalWriter(tmp_path / "journal", "gateway-1", 1 << 20, 1000)
    killed = Worker(tmp_path, 1, 2)
    killed.counts.begin_life(journal.position.segment)
    killed.serve()
    other = Worker(tmp_path, 0, 2).serve()
    allowance = killed.limits.of("app", "service", plan, KOLKATA, NOW)
    for _ in range(2):
        assert allowance.admit(NOW, 400 * MICRO) is None
    for identifier, units in (("one", {"characters": "120.5"}), ("two", {})):
        opened = UsageEvent(identifier, NOW // 1000, Outcome.INTERRUPTED, application="app", service="service")
        journal.append(Kind.OPEN, usage.encode(opened))
        journal.append(Kind.CHECKPOINT, usage.encode(Checkpoint(identifier, units, 10)))
    journal.close()
    killed.die()

    left = other.limits.of("app", "service", plan, KOLKATA, NOW)
    refusal = left.admit(NOW, 300 * MICRO)
    assert refusal is not None and refusal.remaining == 200, "the reservations outlive their process"
    successor = Worker(tmp_path, 1, 2)
    assert successor.dead == [1]
    assert recovery.take_over(successor.counts, 1, tmp_path / "journal") == 2
    assert left.admit(NOW, 879 * MICRO) is None
    assert left.admit(NOW, MICRO) is not None


def test_what_a_call_reserves_later_is_counted_among_processes(tmp_path: Path) -> None:
    plan = PlanLimits(quota_per_month=100, quota_unit="tokens")
    one, other = (Worker(tmp_path, slot, 2).serve() for slot in range(2))
    first = one.limits.of("app", "service", plan, KOLKATA, NOW)
    second = other.limits.of("app", "service", plan, KOLKATA, NOW)
    assert first.admit(NOW, 10 * MICRO) is None and second.admit(NOW, 10 * MICRO) is None
    assert first.extend(first.period, 50 * MICRO) is None
    refusal = second.extend(second.period, 50 * MICRO)
    assert refusal is not None and refusal.remaining == 30
    assert second.extend(second.period, 30 * MICRO) is None
    first.settle(first.period, 60 * MICRO, 5 * MICRO)
    second.settle(second.period, 40 * MICRO, 0)
    assert (second.used, second.reserved) == (5, 0)


def test_a_process_follows_a_record_that_another_has_moved(tmp_path: Path) -> None:
    first, second = Worker(tmp_path, 0, 2).serve(), Worker(tmp_path, 1, 2).serve()
    small, large = PlanLimits(per_minute=4), PlanLimits(per_minute=4, per_hour=30_000, per_day=9000)
    assert (first.admit(small), second.admit(small)) == (1, 1)
    assert second.admit(large) == 1
    assert first.admit(small, 5) == 1
    assert second.admit(large, 5) == 0
    assert second.limits.of("app", "service", large, KOLKATA, NOW).admitted("hour", NOW) == 4


def test_the_time_is_that_of_the_latest_admission_whoever_made_it(tmp_path: Path) -> None:
    first, second = Worker(tmp_path, 0, 2).serve(), Worker(tmp_path, 1, 2).serve()
    plan = PlanLimits(per_minute=2)
    assert first.admit(plan, 1, NOW + SECOND) == 1
    assert second.admit(plan, 1, NOW) == 1
    assert first.admit(plan, 1, NOW + 60 * SECOND) == 0
    assert first.admit(plan, 3, NOW + 61 * SECOND) == 2


def test_records_fill_many_regions_and_are_found_again(tmp_path: Path) -> None:
    plan = PlanLimits(per_minute=16_000)
    before = Worker(tmp_path, 0, 2).serve()
    for number in range(60):
        assert before.admit(plan, 1, app=f"app-{number}") == 1
    assert (tmp_path / "limits.shm").stat().st_size > 4 * 8 * REGION
    beside = Worker(tmp_path, 1, 2).serve()
    before.die()
    beside.die()
    after = Worker(tmp_path, 0, 2)
    assert after.known and len(after.counts.keys()) == 60
    assert after.admit(PlanLimits(per_minute=2), 5, app="app-37") == 1


def test_more_workers_than_before_find_what_the_fewer_have_counted(tmp_path: Path) -> None:
    plan = PlanLimits(per_minute=3, quota_per_month=10)
    before = Worker(tmp_path, 0, 1).serve()
    assert before.admit(plan, 2) == 2
    before.settle(plan)
    before.die()
    first = Worker(tmp_path, 0, 4)
    assert first.known and first.counts.slots == 4
    for slot in first.dead:
        recovery.take_over(first.counts, slot, tmp_path / "journal")
    first.serve()
    fourth = Worker(tmp_path, 3, 4).serve()
    assert fourth.admit(plan, 5) == 1
    assert fourth.limits.of("app", "service", plan, KOLKATA, NOW).used == 1


def test_a_step_of_the_wall_clock_between_two_starts_moves_no_window(tmp_path: Path) -> None:
    plan = PlanLimits(per_minute=3, burst=3)
    before = Worker(tmp_path, 0, 1, clock=1000).serve()
    assert before.admit(plan, 3) == 3
    before.die()
    hour = 3600 * SECOND
    after = Worker(tmp_path, 0, 1, clock=1000 + 1000 * hour, now=NOW + hour + SECOND)
    assert after.known and after.counts.clock == 1000 + 1000 * hour
    assert after.admit(plan, 3, NOW + hour + SECOND) == 0
    assert after.admit(plan, 5, NOW + hour + 60 * SECOND) == 3


def test_who_counts_alone_lets_nobody_join(tmp_path: Path) -> None:
    Worker(tmp_path, 0, 1).serve()
    second = Attachment(tmp_path, 1, 2)
    assert second.begin()
    with pytest.raises(UnusableCounts, match="shares its limits with nobody"):
        second.open(0, NOW)


def test_a_worker_waits_until_a_predecessor_of_another_kind_has_drained(tmp_path: Path) -> None:
    before = Worker(tmp_path, 0, 1).serve()
    assert before.admit(PlanLimits(per_minute=2)) == 1
    second = Attachment(tmp_path, 1, 2)
    assert second.begin()
    with pytest.raises(UnusableCounts):
        second.open(0, NOW)
    second.step_back()
    before.die()
    assert second.begin()
    counts, known, dead = second.open(0, NOW)
    assert (known, dead, counts.slots) == (True, [0, 1], 2)


def test_a_worker_too_many_is_told_so(tmp_path: Path) -> None:
    Worker(tmp_path, 0, 2).serve()
    with pytest.raises(UnusableCounts, match="expect fewer workers"):
        Worker(tmp_path, 2, 3)
    with pytest.raises(ValueError, match="at most 64"):
        Attachment(tmp_path, 64, 65)


def test_processes_start_one_at_a_time(tmp_path: Path) -> None:
    first = Worker(tmp_path, 0, 2)
    second = Attachment(tmp_path, 1, 2)
    assert not second.begin()
    first.serve()
    assert second.begin()


# --- a file not to be believed -------------------------------------------------------------------


def damage(offset: int, octets: bytes) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(octets)

    return do


def copy(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.with_name("other").write_bytes(b"")  # takes the inode, should it be given anew
    path.write_bytes(content)


@pytest.mark.parametrize(
    "harm",
    [
        damage(0, b"\0"),
        damage(8, b"\xff"),
        damage(8 * 3, b"\0" * 8),
        damage(8 * 7, b"\0"),
        damage(8 * 256, b"\x01"),
        damage(8 * 256 + 8, b"\xff" * 8),
        damage(8 * 256 + 16, b"\x05"),
        lambda path: os.truncate(path, 100),
        lambda path: os.truncate(path, 8 * REGION + 8),
        lambda path: path.write_bytes(b"something else"),
        copy,
    ],
    ids=["magic", "another boot", "slots", "unfinished", "size", "key", "ring", "short", "odd", "foreign", "copy"],
)
def test_a_file_that_is_damaged_or_foreign_is_built_anew(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    plan = PlanLimits(per_minute=2)
    before = Worker(tmp_path, 0, 1).serve()
    assert before.admit(plan, 2) == 2
    before.die()
    harm(tmp_path / "limits.shm")
    after = Worker(tmp_path, 0, 1)
    assert not after.known
    assert after.admit(plan, 2) == 2


def test_a_full_disk_refuses_new_callers_and_disturbs_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(tmp_path, 0, 2).serve()
    plan = PlanLimits(per_minute=16_000)
    assert worker.admit(plan) == 1

    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(Overloaded, match="No space left"):
            for number in range(20):
                worker.admit(plan, 1, app=f"app-{number}")
        assert worker.admit(plan) == 1
    assert worker.admit(plan, 1, app="app-19") == 1
    other = Worker(tmp_path, 1, 2).serve()
    assert other.admit(PlanLimits(per_minute=3), 3) == 1


def test_a_record_half_written_by_a_killed_process_is_not_there(tmp_path: Path) -> None:
    first = Worker(tmp_path, 0, 2).serve()
    assert first.admit(PlanLimits(per_minute=5)) == 1
    half = first.counts._room("half\nservice", 64, 0)
    half[10] = 77
    second = Worker(tmp_path, 1, 2).serve()
    assert second.counts.keys() == ["app\nservice"]
    assert second.admit(PlanLimits(per_minute=2), 3, app="new") == 2
    assert first.admit(PlanLimits(per_minute=2), 3, app="new") == 0
    assert isinstance(first.counts, SharedCounts)
