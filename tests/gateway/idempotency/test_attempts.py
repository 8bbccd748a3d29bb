"""What idempotency keys remember: one claim a key, whoever asks; nothing lost, nothing guessed."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest

from haat.gateway.idempotency.attempts import PURGE_ROWS, Attempts, Kept, State
from haat.kernel.errors import IdempotencyUnavailable
from usage.faults import largest_file

SECRET = bytes(32)
SCOPE, PRINT = b"s" * 16, b"f" * 16
FIRST, SECOND, THIRD = b"1" * 16, b"2" * 16, b"3" * 16
NOW = int(time.time())
ANSWER = Kept(200, b"OK", (b"Content-Type: text/plain\r\n",), "नमस्ते".encode(), {"characters": "6"}, "characters=6")


def attempts(tmp_path: Path, slot: str = "gateway-0", **options: int) -> Attempts:
    return Attempts(tmp_path / "keys.db", slot, SECRET, **options)  # type: ignore[arg-type]  # a bool is an int


def test_the_first_has_the_key_and_the_next_is_told_what_became_of_it(tmp_path: Path) -> None:
    keys = attempts(tmp_path)
    assert keys.claim(SCOPE, PRINT, FIRST, NOW, NOW + 60) is None
    assert keys.claim(SCOPE, PRINT, SECOND, NOW, NOW + 60) == (PRINT, FIRST, State.RUNNING, None)
    keys.finish(SCOPE, FIRST, ANSWER, sold=True)
    assert keys.claim(SCOPE, PRINT, SECOND, NOW, NOW + 60) == (PRINT, FIRST, State.ANSWERED, ANSWER)
    assert keys.claim(b"another" + b" " * 9, PRINT, SECOND, NOW, NOW + 60) is None
    keys.close()


def test_a_released_key_is_free_and_a_late_word_of_its_call_changes_nothing(tmp_path: Path) -> None:
    keys = attempts(tmp_path)
    keys.claim(SCOPE, PRINT, FIRST, NOW, NOW + 60)
    keys.release(SCOPE, FIRST)
    assert keys.claim(SCOPE, PRINT, SECOND, NOW, NOW + 60) is None
    keys.finish(SCOPE, FIRST, ANSWER, sold=True)
    keys.release(SCOPE, FIRST)
    assert keys.claim(SCOPE, PRINT, THIRD, NOW, NOW + 60) == (PRINT, SECOND, State.RUNNING, None)
    keys.close()


def test_an_answer_is_sold_once_and_again_only_when_the_sale_is_taken_back(tmp_path: Path) -> None:
    keys = attempts(tmp_path)
    keys.claim(SCOPE, PRINT, FIRST, NOW, NOW + 60)
    keys.finish(SCOPE, FIRST, ANSWER, sold=True)
    assert not keys.sell(SCOPE)
    keys.take_back(SCOPE)
    assert keys.sell(SCOPE) and not keys.sell(SCOPE)
    keys.close()


def test_a_call_beyond_its_deadline_is_in_doubt_and_only_one_may_take_it_over(tmp_path: Path) -> None:
    keys = attempts(tmp_path)
    keys.claim(SCOPE, PRINT, FIRST, NOW, NOW + 60)
    doubtful = keys.claim(SCOPE, PRINT, SECOND, NOW + 61, NOW + 120)
    assert doubtful is not None and doubtful.state is State.UNKNOWN
    assert keys.take_over(SCOPE, FIRST, SECOND, NOW + 61, NOW + 120)
    assert not keys.take_over(SCOPE, FIRST, THIRD, NOW + 61, NOW + 120)
    running = keys.claim(SCOPE, PRINT, THIRD, NOW + 61, NOW + 120)
    assert running is not None and (running.call, running.state) == (SECOND, State.RUNNING)
    keys.close()


def test_what_a_dead_worker_left_is_in_doubt_as_soon_as_its_place_is_taken(tmp_path: Path) -> None:
    dead, other = attempts(tmp_path), attempts(tmp_path, "gateway-1")
    dead.claim(SCOPE, PRINT, FIRST, NOW, NOW + 60)
    other.claim(b"o" * 16, PRINT, SECOND, NOW, NOW + 60)
    seen = other.claim(SCOPE, PRINT, SECOND, NOW, NOW + 60)
    assert seen is not None and seen.state is State.RUNNING
    successor = attempts(tmp_path)
    successor.recover()
    seen = other.claim(SCOPE, PRINT, SECOND, NOW, NOW + 60)
    assert seen is not None and seen.state is State.UNKNOWN
    living = successor.claim(b"o" * 16, PRINT, THIRD, NOW, NOW + 60)
    assert living is not None and living.state is State.RUNNING, "the other worker is alive"
    for keys in (dead, other, successor):
        keys.close()


def test_there_is_no_file_before_the_first_key(tmp_path: Path) -> None:
    keys = attempts(tmp_path)
    keys.recover()
    keys.close()
    assert list(tmp_path.iterdir()) == []


def test_answers_are_unreadable_on_disk_and_under_another_key(tmp_path: Path) -> None:
    keys = attempts(tmp_path)
    keys.claim(SCOPE, PRINT, FIRST, NOW, NOW + 60)
    keys.finish(SCOPE, FIRST, ANSWER, sold=True)
    for path in tmp_path.iterdir():
        assert ANSWER.body not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    stranger = Attempts(tmp_path / "keys.db", "gateway-1", bytes(31) + b"x")
    with pytest.raises(IdempotencyUnavailable, match="can't be read"):
        stranger.claim(SCOPE, PRINT, SECOND, NOW, NOW + 60)
    keys.close()
    stranger.close()


def test_a_key_is_remembered_for_its_time_and_then_free(tmp_path: Path) -> None:
    keys = attempts(tmp_path, keep_seconds=100)
    keys.claim(SCOPE, PRINT, FIRST, NOW, NOW + 60)
    keys.finish(SCOPE, FIRST, ANSWER, sold=True)
    known = keys.claim(SCOPE, PRINT, SECOND, NOW + 99, NOW + 160)
    assert known is not None and known.answer == ANSWER
    assert keys.claim(SCOPE, b"other print", SECOND, NOW + 100, NOW + 160) is None
    keys.close()


def test_old_keys_are_purged_in_the_background_and_young_ones_stay(tmp_path: Path) -> None:
    keys, present = attempts(tmp_path), int(time.time())
    for number in range(3 * PURGE_ROWS):
        keys.claim(b"old%d" % number, PRINT, FIRST, present - 90_000, present - 89_000)
    keys.claim(SCOPE, PRINT, FIRST, present, present + 60)

    def rows() -> int:
        with sqlite3.connect(tmp_path / "keys.db") as connection:
            [count] = connection.execute("SELECT count(*) FROM attempts").fetchone()
        connection.close()
        return int(count)

    ends = time.monotonic() + 15
    while rows() > 1:
        assert time.monotonic() < ends
        time.sleep(0.05)
    keys.close()


def test_a_full_disk_refuses_and_passes(tmp_path: Path) -> None:
    keys = attempts(tmp_path)
    keys.claim(b"before", PRINT, FIRST, NOW, NOW + 60)
    size = max(path.stat().st_size for path in tmp_path.iterdir())
    with largest_file(size), pytest.raises(IdempotencyUnavailable):
        for number in range(1000):
            keys.claim(b"%d" % number, PRINT, FIRST, NOW, NOW + 60)
    ends = time.monotonic() + 5
    while True:
        try:
            assert keys.claim(SCOPE, PRINT, FIRST, NOW, NOW + 60) is None
            break
        except IdempotencyUnavailable:
            assert time.monotonic() < ends
            time.sleep(0.05)
    known = keys.claim(b"before", PRINT, SECOND, NOW, NOW + 60)
    assert known is not None and known.call == FIRST
    keys.close()


@pytest.mark.parametrize("damage", [b"this is no database" * 400, None])
def test_a_file_that_cant_be_used_refuses_and_is_not_replaced(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "keys.db"
    if damage is None:
        with sqlite3.connect(path) as newer:
            newer.execute("PRAGMA user_version = 2")
        newer.close()
    else:
        path.write_bytes(damage)
    before = path.read_bytes()
    keys = attempts(tmp_path)
    keys.recover()
    with pytest.raises(IdempotencyUnavailable):
        keys.claim(SCOPE, PRINT, FIRST, NOW, NOW + 60)
    keys.close()
    assert damage is None or path.read_bytes() == before


def test_columns_that_a_newer_gateway_has_added_bother_nobody(tmp_path: Path) -> None:
    keys = attempts(tmp_path)
    keys.claim(SCOPE, PRINT, FIRST, NOW, NOW + 60)
    with sqlite3.connect(tmp_path / "keys.db") as newer:
        newer.execute("ALTER TABLE attempts ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue'")
    newer.close()
    keys.finish(SCOPE, FIRST, ANSWER, sold=True)
    assert keys.claim(b"another", PRINT, FIRST, NOW, NOW + 60) is None
    keys.close()


def test_of_two_workers_that_claim_at_once_one_has_the_key(tmp_path: Path) -> None:
    won: list[int] = []

    def claim(slot: str) -> None:
        keys = attempts(tmp_path, slot)
        for number in range(300):
            while True:
                try:
                    if keys.claim(b"key %d" % number, PRINT, os.urandom(16), NOW, NOW + 60) is None:
                        won.append(number)
                    break
                except IdempotencyUnavailable:
                    continue  # busy for longer than a call should wait: refused, and asked again
        keys.close()

    threads = [threading.Thread(target=claim, args=(slot,)) for slot in ("gateway-0", "gateway-1")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(300))
