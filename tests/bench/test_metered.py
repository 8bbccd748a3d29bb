"""Answers held against the journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from bench.metered import Follower
from bench.mix import Seen
from bench.soak import Books, growth_percent
from haat.kernel.ids import new_id
from haat.usage.event import Outcome, UsageEvent, encode
from haat.usage.journal import JournalWriter, Kind


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[JournalWriter]:
    journal = JournalWriter(tmp_path, "gateway-0", 4096, 0)
    yield journal
    journal.close()


def record(writer: JournalWriter, *, confirm: bool = True, outcome: Outcome = Outcome.COMPLETED) -> UUID:
    identifier = new_id()
    writer.append(Kind.USAGE, encode(UsageEvent(id=str(identifier), at=0, outcome=outcome)))
    if confirm:
        writer.confirm([identifier.bytes])
    return identifier


def text(identifier: UUID) -> bytes:
    return str(identifier).encode()


def test_a_call_answered_and_confirmed_once_is_metered(writer: JournalWriter, tmp_path: Path) -> None:
    answered = text(record(writer))
    assert Follower(tmp_path).read().missing([answered]) == 0


def test_a_call_without_a_record_or_without_its_confirmation_is_missing(writer: JournalWriter, tmp_path: Path) -> None:
    answered = [text(record(writer, confirm=False)), text(new_id())]
    assert Follower(tmp_path).read().missing(answered) == 2


def test_a_call_that_was_recorded_as_refused_is_not_metered_as_answered(writer: JournalWriter, tmp_path: Path) -> None:
    answered = text(record(writer, outcome=Outcome.REFUSED))
    assert Follower(tmp_path).read().missing([answered]) == 1


def test_the_follower_goes_on_where_it_was_and_deletes_what_it_has_read(writer: JournalWriter, tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    first = [record(writer) for _ in range(30)]
    assert set(follower.read().outcomes) == set(first)
    last = record(writer)
    assert set(follower.read().outcomes) == {last}
    follower.delete_read()
    assert len(list(tmp_path.rglob("*.log"))) == 1


def test_the_books_match_answers_and_records_in_either_order(writer: JournalWriter, tmp_path: Path) -> None:
    books, follower = Books(), Follower(tmp_path)
    early = record(writer)
    books.add(Seen(), follower)
    late = new_id()
    books.add(Seen(ids={early: "completed", late: "completed"}), follower)
    assert set(books.answered) == {late}
    writer.append(Kind.USAGE, encode(UsageEvent(id=str(late), at=0, outcome=Outcome.REFUSED)))
    writer.confirm([late.bytes])
    books.add(Seen(), follower)
    assert not books.answered
    assert dict(books.wrong) == {"completed in the answer, refused in the journal": 1}


def test_memory_is_judged_after_the_warm_up_by_two_windows() -> None:
    memory = [(float(second), 50.0 if second < 10 else 100.0 if second < 80 else 104.0) for second in range(100)]
    assert growth_percent(memory, 100) == pytest.approx(4.0)
    with pytest.raises(ValueError, match="too short"):
        growth_percent(memory[:50], 100)
