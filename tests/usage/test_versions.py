"""Old and new side by side: what other versions of this program have written, and will write, is read.

``golden/journal`` holds journals as released versions left them. They are never made anew: a change that
can't read them breaks every journal that waits on some disk for its shipper.
"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from haat.usage import event as usage
from haat.usage.event import Outcome, UsageEvent
from haat.usage.frames import FORMAT, MUST_UNDERSTAND, format_of
from haat.usage.journal import (
    START,
    CorruptJournal,
    JournalReader,
    JournalWriter,
    Kind,
    TooNew,
    encode_frame,
    segment_path,
    workers,
)
from haat.usage.shipper import Tail
from usage.faults import read_all, records

GOLDEN = Path(__file__).parent / "golden" / "journal"
UNKNOWN_KIND = 77


def identifier(number: int) -> str:
    return f"0193b0f0-0000-7000-8000-{number:012x}"


def shipped(directory: Path, worker: str) -> list[UsageEvent]:
    """Return the events as the shipper would store them."""
    tail = Tail(JournalReader(directory, worker), START, START)
    found = []
    while frames := tail.reader.read(tail.position):
        for record in tail.feed(frames):
            assert record.event is not None, record.unreadable
            found.append(record.event)
    return found


def segment(directory: Path, *frames: bytes) -> Path:
    path = segment_path(directory, "newer", 1)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(frames))
    return path


def newer_event(number: int, **members: object) -> bytes:
    known = {"id": identifier(number), "at": 1_732_180_000_000, "v": 2, "outcome": "completed"}
    return encode_frame(Kind.USAGE, msgspec.json.encode({**known, **members}))


def confirmation(*numbers: int) -> bytes:
    return encode_frame(Kind.CONFIRM, b"".join(UUID(identifier(number)).bytes for number in numbers))


def test_there_is_a_golden_journal_of_each_format() -> None:
    assert workers(GOLDEN) == ["before-headers", "format-1"]


@pytest.mark.parametrize("worker", ["before-headers", "format-1"])
def test_the_journals_of_released_versions_are_shipped_to_the_last_member(worker: str) -> None:
    first, second, left, stream, last = shipped(GOLDEN, worker)
    assert [event.id for event in (first, second, left, stream, last)] == [identifier(n) for n in (1, 2, 4, 3, 5)]
    assert [event.outcome for event in (first, second, left, stream, last)] == [
        Outcome.COMPLETED,
        Outcome.PROVIDER_FAILED,
        Outcome.CLIENT_LEFT,
        Outcome.INTERRUPTED,
        Outcome.UNCONFIRMED,
    ]
    assert (first.units, first.units_source, first.raw_usage) == (
        {"requests": "1", "characters": "120.5"},
        "upstream",
        "characters=120.5",
    )
    assert (first.user, first.tags, first.caller_request_id) == ("मीरा", {"team": "खोज"}, "abc")
    assert (first.language_pair, first.region, first.timings_us.total) == ("hi-Deva>ur-Arab", "IN", 900)
    assert (second.status, second.error_code, second.units) == (502, "PROVIDER_FAILED", {})
    assert (stream.units, stream.bytes_out) == ({"requests": "1"}, 262_144)


def test_a_segment_begins_with_the_format_it_is_written_in_and_no_reader_is_bothered_with_it(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, 60_000, reserve_bytes=0)
    header = encode_frame(Kind.HEADER, b'{"format":1}')
    assert segment_path(tmp_path, "gateway-0", 1).read_bytes() == header
    reader = JournalReader(tmp_path, "gateway-0")
    assert reader.read() == []
    writer.append(Kind.USAGE, b"one")
    [frame] = reader.read()
    assert (frame.kind, frame.payload) == (Kind.USAGE, b"one")
    writer.close()


def test_a_header_that_says_more_than_we_know_is_read_and_one_that_says_nothing_is_damage(tmp_path: Path) -> None:
    assert format_of(b'{"format":1,"by":"a newer one"}') == 1
    with pytest.raises(ValueError, match="header"):
        format_of(b"[]")
    segment(tmp_path, encode_frame(Kind.HEADER, b"x"), encode_frame(Kind.SEAL, b"\1"))
    with pytest.raises(CorruptJournal, match="header"):
        JournalReader(tmp_path, "newer").read()


def test_what_a_newer_gateway_adds_is_passed_over_and_its_records_are_shipped(tmp_path: Path) -> None:
    segment(
        tmp_path,
        encode_frame(Kind.HEADER, b'{"format":1,"by":"haat 9"}'),
        newer_event(1, colour="blue", units={"requests": "1", "joules": "3"}, timings_us={"total": 9, "rendering": 4}),
        encode_frame(UNKNOWN_KIND, b"whatever"),
        newer_event(2, outcome="teleported", status=200, units={"requests": "1"}),
        encode_frame(Kind.OPEN, newer_event(3, outcome="interrupted")[9:]),
        encode_frame(Kind.CHECKPOINT, msgspec.json.encode(
            {"id": identifier(3), "units": {"tokens": "7"}, "bytes_out": 5, "mood": "fine"}
        )),
        confirmation(1, 2),
        encode_frame(Kind.SEAL, b"\1"),
    )  # fmt: skip
    first, second, third = shipped(tmp_path, "newer")
    assert (first.v, first.outcome, first.units) == (2, Outcome.COMPLETED, {"requests": "1", "joules": "3"})
    assert second.outcome is Outcome.UNCONFIRMED, "in doubt, for the customer"
    assert (third.outcome, third.units) == (Outcome.INTERRUPTED, {"tokens": "7"})


def test_an_unknown_kind_is_handed_on_so_that_a_reader_moves_past_any_number_of_them(tmp_path: Path) -> None:
    segment(tmp_path, *[encode_frame(UNKNOWN_KIND, b"x" * 100)] * 50, newer_event(1), confirmation(1))
    reader, position, kinds = JournalReader(tmp_path, "newer"), START, []
    while frames := reader.read(position, max_bytes=300):
        kinds += [frame.kind for frame in frames]
        position = frames[-1].end
    assert kinds == [UNKNOWN_KIND] * 50 + [Kind.USAGE, Kind.CONFIRM]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (encode_frame(MUST_UNDERSTAND, b"a change of meaning"), "kind 128 must be understood"),
        (encode_frame(255, b""), "kind 255 must be understood"),
        (encode_frame(Kind.HEADER, b'{"format":%d}' % (FORMAT + 1)), "has format 2, and this program knows 1"),
    ],
)
def test_what_must_be_understood_stops_the_reader_after_everything_before_it(
    tmp_path: Path, frame: bytes, reason: str
) -> None:
    segment(tmp_path, newer_event(1), confirmation(1), frame, newer_event(2), encode_frame(Kind.SEAL, b"\1"))
    reader = JournalReader(tmp_path, "newer")
    before = reader.read()
    assert [found.kind for found in before] == [Kind.USAGE, Kind.CONFIRM]
    for _ in range(2):
        with pytest.raises(TooNew, match=reason) as stopped:
            reader.read(before[-1].end)
        assert "Upgrade" in str(stopped.value)


def test_an_older_reader_has_nothing_to_fear_from_todays_frames(tmp_path: Path) -> None:
    """Its rule has always been: kinds that it doesn't know are left alone. HEADER lies in that range."""
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, 60_000, reserve_bytes=0)
    writer.append(UNKNOWN_KIND, b"x")
    writer.close()
    assert all(kind < MUST_UNDERSTAND for kind in Kind)
    assert records(read_all(tmp_path)) == [(UNKNOWN_KIND, b"x")]


def test_an_event_of_an_older_gateway_lacks_members_and_is_whole_all_the_same() -> None:
    event = usage.decode(msgspec.json.encode({"id": identifier(1), "at": 1, "outcome": "completed"}))
    assert (event.v, event.units, event.cache, event.timings_us.total) == (0, {}, "", 0)
