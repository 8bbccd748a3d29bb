"""The journal on a disk that fills up: it warns, spares a reserve, refuses, and goes on by itself."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from haat.usage.disk import DiskState, Gauge, Reserve, Space, space_of
from haat.usage.journal import JournalError, JournalReader, JournalWriter, Kind, NoSpace
from usage.faults import die, largest_file, put_back, read_all, records, replace_file

MIB = 1 << 20
RESERVE = 512 * 1024


def at(percent: float, size: int = 1000 * MIB) -> Space:
    used = int(size * percent / 100)
    return Space(used, size - used)


class Dial:
    """A file system that says what a test wants."""

    def __init__(self, percent: float) -> None:
        self.percent = percent

    def __call__(self, folder: Path) -> Space:
        assert folder.is_dir()
        return at(self.percent)


def open_journal(directory: Path, ask: Callable[[Path], Space] = space_of) -> JournalWriter:
    return JournalWriter(directory, "gateway-0", MIB, 60_000, reserve_bytes=RESERVE, ask=ask)


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_the_room_left_is_what_df_says(tmp_path: Path) -> None:
    space, said = space_of(tmp_path), os.statvfs(tmp_path)
    assert space.available == said.f_bavail * said.f_frsize
    assert 0 < space.used < said.f_blocks * said.f_frsize


def test_each_crossing_is_logged_once_and_a_disk_on_the_edge_does_not_flutter(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gauge = Gauge("gateway-0", 0, Dial(10))
    seen = []
    for percent in (10, 69.9, 70, 69.9, 70.5, 84.9, 85, 84.5, 85, 83, 99, 75, 68, 20):
        gauge.judge(at(percent), full=False)
        seen.append(gauge.disk.state.value)
    assert seen == [
        *("healthy", "healthy", "warning", "warning", "warning", "warning", "critical", "critical"),
        *("critical", "warning", "critical", "warning", "healthy", "healthy"),
    ]
    assert len(caplog.records) == 6
    assert "70 % full (warning)" in caplog.text and "85 % full (critical)" in caplog.text


def test_the_disk_is_looked_at_in_the_background_even_when_every_record_waits_for_it(tmp_path: Path) -> None:
    dial = Dial(10)
    writer = JournalWriter(tmp_path, "gateway-0", MIB, 0, reserve_bytes=RESERVE, ask=dial)
    assert (writer.disk.state, writer.disk.used, writer.full) == (DiskState.HEALTHY, 0.1, False)
    dial.percent = 86
    until(lambda: writer.disk.state is DiskState.CRITICAL)
    assert not writer.full, "a warning is only a warning"
    writer.close()


def test_a_write_without_space_uses_up_the_reserve_and_the_journal_is_full_until_it_is_whole_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = open_journal(tmp_path)
    reserve = tmp_path / "gateway-0" / "reserve"
    assert not writer.full and reserve.stat().st_blocks * 512 >= RESERVE
    writer.append(Kind.USAGE, b"before")
    kept = replace_file(writer, "/dev/full")
    with pytest.raises(NoSpace):
        writer.append(Kind.USAGE, b"nothing helps")
    assert writer.full and reserve.stat().st_size == 0
    put_back(writer, kept)
    writer.append(Kind.USAGE, b"in flight")
    until(lambda: not writer.full)
    assert reserve.stat().st_blocks * 512 >= RESERVE
    writer.close()
    assert records(read_all(tmp_path)) == [(1, b"before"), (1, b"in flight")]
    assert reserve.exists(), "a successor on a full disk needs it"


def test_the_reserve_is_given_back_in_steps(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "reserve", RESERVE)
    reserve.adopt()
    assert not reserve.whole and reserve.fill() and reserve.whole
    assert reserve.give_back() and not reserve.whole
    assert (tmp_path / "reserve").stat().st_size == RESERVE // 2
    assert reserve.give_back() and not reserve.give_back()
    reserve.close()


def test_a_reserve_with_holes_holds_nothing(tmp_path: Path) -> None:
    with (tmp_path / "reserve").open("wb") as file:
        file.truncate(RESERVE)
    reserve = Reserve(tmp_path / "reserve", RESERVE)
    reserve.adopt()
    assert not reserve.whole and reserve.fill()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= RESERVE
    reserve.close()


def test_the_reserve_is_made_again_only_when_as_much_again_stays_free(tmp_path: Path) -> None:
    space = Space(1000 * MIB, 2 * RESERVE - 1)
    writer = open_journal(tmp_path, ask=lambda _: space)
    assert writer.full and writer.disk.state is DiskState.FULL
    writer.append(Kind.USAGE, b"what is in flight is still recorded")
    space = Space(1000 * MIB, 2 * RESERVE)
    until(lambda: not writer.full)
    writer.close()


def test_the_journal_keeps_to_its_own_bound(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "gateway-0", 4096, 60_000, reserve_bytes=0, max_bytes=10_000)
    assert writer.disk.used < 0.05 and not writer.full
    for _ in range(8):
        writer.append(Kind.USAGE, b"x" * 1000)
    until(lambda: writer.disk.state is DiskState.WARNING)
    for _ in range(2):
        writer.append(Kind.USAGE, b"x" * 1000)
    until(lambda: writer.full)
    reader = JournalReader(tmp_path, "gateway-0")
    for path in reader.shipped(writer.position):
        path.unlink()
    until(lambda: not writer.full)
    writer.close()


def test_a_disk_that_is_full_at_the_start_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = open_journal(tmp_path)
    before.append(Kind.USAGE, b"before")
    before.close()
    with largest_file(0):
        writer = open_journal(tmp_path)
        with pytest.raises(NoSpace):
            writer.append(Kind.USAGE, b"refused")
    assert writer.full and writer.disk.state is DiskState.FULL
    until(lambda: not writer.full)
    writer.append(Kind.USAGE, b"after")
    writer.close()
    with pytest.raises(JournalError, match="closed"):
        writer.append(Kind.USAGE, b"too late")
    assert records(read_all(tmp_path)) == [(1, b"before"), (1, b"after")]


def test_a_worker_that_was_killed_on_a_full_disk_is_recovered_when_there_is_space(tmp_path: Path) -> None:
    writer = open_journal(tmp_path)
    writer.append(Kind.USAGE, b"before")
    die(writer)
    with largest_file(0):
        successor = open_journal(tmp_path)
    assert successor.full and records(read_all(tmp_path)) == [(1, b"before")]
    until(lambda: not successor.full)
    successor.append(Kind.USAGE, b"after")
    successor.close()
    assert records(read_all(tmp_path)) == [(1, b"before"), (1, b"after")]
