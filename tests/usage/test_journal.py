"""The journal: framing, recovery after a torn tail, what a reader may believe."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haat.usage import event as usage
from haat.usage import journal
from haat.usage.event import VERSION, Outcome, Timings, UsageEvent
from haat.usage.journal import (
    START,
    CorruptJournal,
    Frame,
    JournalError,
    JournalInUse,
    JournalReader,
    JournalWriter,
    Kind,
    NoSpace,
    Position,
    SealReason,
    segment_path,
)
from usage.faults import die, largest_file, put_back, read_all, records, replace_file

PAYLOADS = st.lists(st.tuples(st.sampled_from([1, 2, 3, 4]), st.binary(max_size=80)), max_size=12)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(directory: Path, records: list[tuple[int, bytes]], segment_bytes: int = 1 << 20, close: bool = True) -> None:
    writer = JournalWriter(directory, "gateway-0", segment_bytes, sync_ms=1000, reserve_bytes=0)
    for kind, payload in records:
        writer.append(kind, payload)
    if close:
        writer.close()
    else:
        die(writer)


def test_a_reader_goes_on_from_where_a_closed_journal_ended(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, sync_ms=1000)
    writer.append(1, b"before")
    writer.close()
    reader = JournalReader(tmp_path, "gateway-0")
    assert reader.read(writer.position) == []
    write(tmp_path, [(1, b"after")])
    assert records(reader.read(writer.position)) == [(1, b"after")]


@given(PAYLOADS, st.integers(10, 400), st.integers(1, 200))
@QUICK
def test_everything_written_is_read_in_order_whatever_the_segment_and_read_sizes(
    tmp_path_factory: pytest.TempPathFactory, written: list[tuple[int, bytes]], segment_bytes: int, max_bytes: int
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    write(directory, written, segment_bytes)
    frames = read_all(directory, max_bytes)
    assert records(frames) == written
    assert frames[-1].payload == bytes([SealReason.CLOSED])


@given(PAYLOADS, st.data())
@QUICK
def test_a_journal_cut_at_any_byte_yields_a_prefix_before_and_after_its_owner_reopens_it(
    tmp_path_factory: pytest.TempPathFactory, written: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    write(directory, written, close=False)
    path = segment_path(directory, "gateway-0", 1)
    os.truncate(path, data.draw(st.integers(0, path.stat().st_size)))
    survived = records(read_all(directory))
    assert survived == written[: len(survived)]

    write(directory, [(1, b"after")])
    frames = read_all(directory)
    assert records(frames) == [*survived, (1, b"after")]
    assert [frame.payload[0] for frame in frames if frame.kind == Kind.SEAL] == [
        SealReason.RECOVERED,
        SealReason.CLOSED,
    ]


@given(PAYLOADS.filter(bool), st.data())
@QUICK
def test_a_changed_byte_in_a_sealed_segment_is_never_believed(
    tmp_path_factory: pytest.TempPathFactory, written: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    write(directory, written)
    write(directory, [])  # a successor: the first segment can't be taken for a live one
    path = segment_path(directory, "gateway-0", 1)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    believed: list[Frame] = []
    with pytest.raises(CorruptJournal, match="damaged at byte"):
        reader, position = JournalReader(directory, "gateway-0"), START
        while batch := reader.read(position, max_bytes=40):
            believed += batch
            position = batch[-1].end
    assert records(believed) == written[: len(records(believed))]


def test_a_bad_tail_of_the_live_segment_is_waited_for(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, sync_ms=1000)
    writer.append(Kind.USAGE, b"one")
    path = segment_path(tmp_path, "gateway-0", 1)
    half = journal.encode_frame(Kind.USAGE, b"two")
    with path.open("ab") as file:
        file.write(half[:-1])
    reader = JournalReader(tmp_path, "gateway-0")
    [first] = reader.read()
    assert reader.read(first.end) == []
    with path.open("ab") as file:
        file.write(half[-1:])
    assert [frame.payload for frame in reader.read(first.end)] == [b"two"]
    writer.close()


def test_damage_in_the_middle_is_kept_beside_the_segment_and_not_thrown_away(tmp_path: Path) -> None:
    write(tmp_path, [(1, b"one"), (1, b"two"), (1, b"three")], close=False)
    path = segment_path(tmp_path, "gateway-0", 1)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"two", b"twO"))
    write(tmp_path, [])
    assert records(read_all(tmp_path)) == [(1, b"one")]
    assert b"three" in path.with_suffix(".damaged").read_bytes()


def test_one_process_at_a_time_writes_a_workers_journal(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, sync_ms=1000)
    with pytest.raises(JournalInUse, match="gateway-0"):
        JournalWriter(tmp_path, "gateway-0", 1 << 20, sync_ms=1000)
    writer.close()
    JournalWriter(tmp_path, "gateway-0", 1 << 20, sync_ms=1000).close()


def test_the_newest_segment_is_never_offered_for_deletion_so_numbers_go_on(tmp_path: Path) -> None:
    write(tmp_path, [(1, b"x" * 50)] * 4, segment_bytes=100)
    reader, frames = JournalReader(tmp_path, "gateway-0"), read_all(tmp_path)
    for path in reader.shipped(frames[-1].end):
        path.unlink()
    assert journal.segments(tmp_path, "gateway-0") == [4]
    write(tmp_path, [(1, b"next")])
    assert next(frame.payload for frame in reader.read(frames[-1].end)) == b"next"


def test_a_missing_segment_is_an_error_and_not_an_end(tmp_path: Path) -> None:
    write(tmp_path, [(1, b"x" * 50)] * 4, segment_bytes=100)
    segment_path(tmp_path, "gateway-0", 2).unlink()
    with pytest.raises(CorruptJournal, match="missing"):
        JournalReader(tmp_path, "gateway-0").read(Position(2, 0))
    with pytest.raises(CorruptJournal, match="missing"):
        JournalReader(tmp_path, "gateway-0").read(Position(57, 0))


def test_confirmations_are_packed_ids(tmp_path: Path) -> None:
    ids = [os.urandom(16) for _ in range(3)]
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, sync_ms=0)
    writer.confirm(ids)
    writer.confirm([])
    writer.close()
    [confirm, _] = read_all(tmp_path)
    assert (confirm.kind, journal.confirmed_ids(confirm.payload)) == (Kind.CONFIRM, ids)


def test_a_disk_that_refuses_is_an_error_for_that_record_and_the_next_may_pass(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, sync_ms=60_000, reserve_bytes=0)
    writer.append(Kind.USAGE, b"before")
    kept = replace_file(writer, "/dev/full")
    with pytest.raises(NoSpace, match="No space"):
        writer.append(Kind.USAGE, b"lost")
    put_back(writer, kept)
    writer.append(Kind.USAGE, b"kept")
    writer.close()
    assert records(read_all(tmp_path)) == [(1, b"before"), (1, b"kept")]


def test_half_a_record_is_taken_back(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, sync_ms=60_000, reserve_bytes=0)
    writer.append(Kind.USAGE, b"before")
    with largest_file(writer.position.offset + 5), pytest.raises(NoSpace, match="5 of"):
        writer.append(Kind.USAGE, b"half of this")
    writer.append(Kind.USAGE, b"whole")
    writer.close()
    assert records(read_all(tmp_path)) == [(1, b"before"), (1, b"whole")]


def test_a_disk_that_refuses_between_two_segments_leaves_a_journal_that_goes_on(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "gateway-0", 100, sync_ms=0, reserve_bytes=0)
    writer.append(Kind.USAGE, b"x" * 60)
    with largest_file(5), pytest.raises(JournalError):
        writer.append(Kind.USAGE, b"y" * 60)
    writer.append(Kind.USAGE, b"z" * 60)
    in_the_way = segment_path(tmp_path, "gateway-0", 3)
    in_the_way.mkdir()
    with pytest.raises(JournalError, match="can't be begun"):
        writer.append(Kind.USAGE, b"y" * 60)
    in_the_way.rmdir()
    writer.append(Kind.USAGE, b"w" * 60)
    writer.close()
    assert [payload[:1] for _, payload in records(read_all(tmp_path))] == [b"x", b"z", b"w"]


def test_after_a_failed_sync_nothing_is_accepted_any_more(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, sync_ms=0, reserve_bytes=0)
    kept = replace_file(writer, "/dev/null")  # takes every write and no sync
    with pytest.raises(JournalError, match="the disk failed"):
        writer.append(Kind.USAGE, b"one")
    put_back(writer, kept)
    with pytest.raises(JournalError):
        writer.append(Kind.USAGE, b"two")
    writer.close()


def test_a_sync_that_fails_in_the_background_stops_the_journal_too(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, sync_ms=10, reserve_bytes=0)
    kept = replace_file(writer, "/dev/null")
    writer.append(Kind.USAGE, b"one")
    ends = time.monotonic() + 5
    with pytest.raises(JournalError, match="can't be written"):
        while time.monotonic() < ends:
            writer.append(Kind.USAGE, b"two")
    put_back(writer, kept)
    writer.close()


def test_the_background_sync_reaches_retired_segments_too(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "gateway-0", 100, sync_ms=1)
    for _ in range(50):
        writer.append(Kind.USAGE, b"x" * 60)
    writer.close()
    assert len(records(read_all(tmp_path))) == 50


def test_workers_and_segments_are_listed(tmp_path: Path) -> None:
    assert journal.workers(tmp_path / "nothing") == []
    write(tmp_path, [])
    (tmp_path / "stray").mkdir()
    assert journal.workers(tmp_path) == ["gateway-0"]
    with pytest.raises(ValueError, match="name a worker"):
        JournalWriter(tmp_path, "../elsewhere", 1 << 20, sync_ms=0)


def test_an_event_survives_the_journal_unchanged() -> None:
    event = UsageEvent(
        id="0193b0f0-0000-7000-8000-000000000001",
        at=1_700_000_000_000,
        outcome=Outcome.COMPLETED,
        v=VERSION,
        tags={"टैग": "मान"},
        units={"characters": "120"},
        timings_us=Timings(admission=3, total=900),
    )
    assert usage.decode(usage.encode(event)) == event


def test_a_newer_writers_event_is_read_and_its_unknown_outcome_is_in_doubt() -> None:
    newer = {"id": "x", "at": 1, "v": 2, "outcome": "teleported", "colour": "blue", "units": {"requests": "1"}}
    event = usage.decode(msgspec.json.encode(newer))
    assert (event.v, event.outcome, event.units) == (2, Outcome.UNCONFIRMED, {"requests": "1"})


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"id":1}', b'{"id":"x"}'])
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(usage.UnreadableEvent):
        usage.decode(payload)
    with pytest.raises(usage.UnreadableEvent):
        usage.decode_checkpoint(payload)


def test_kept_frames_are_written_together_and_before_whatever_is_appended_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, sync_ms=1000)
    sizes: list[int] = []
    monkeypatch.setattr(journal, "_os_write", lambda file, data: (sizes.append(len(data)), os.write(file, data))[1])
    for payload in (b"one", b"two", b"three"):
        writer.keep(1, payload)
    assert sizes == [] and records(JournalReader(tmp_path, "gateway-0").read(START)) == []
    expected = writer.position
    writer.flush()
    writer.flush()
    assert len(sizes) == 1 and writer.position == expected
    writer.keep(1, b"four")
    writer.append(2, b"five")
    assert len(sizes) == 3
    writer.keep(1, b"six")
    writer.close()
    assert records(read_all(tmp_path)) == [
        (1, b"one"), (1, b"two"), (1, b"three"), (1, b"four"), (2, b"five"), (1, b"six"),
    ]  # fmt: skip


def test_kept_frames_that_the_disk_does_not_take_are_gone_and_none_of_them_is_read(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, sync_ms=1000, reserve_bytes=0)
    writer.append(1, b"before")
    position = writer.position
    kept = replace_file(writer, "/dev/full")
    writer.keep(1, b"lost")
    writer.keep(1, b"lost, too")
    with pytest.raises(NoSpace):
        writer.flush()
    assert writer.position == position
    put_back(writer, kept)
    writer.append(1, b"after")
    writer.close()
    assert records(read_all(tmp_path)) == [(1, b"before"), (1, b"after")]
