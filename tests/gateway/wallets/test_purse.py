"""Purses: never more drawn than was authorised, by many processes and through the death of any."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haat.gateway.limits import recovery
from haat.gateway.limits.counts import Counts
from haat.gateway.limits.shared import Attachment
from haat.gateway.wallets.purse import KNOCKS, Purse, key_of, steady

KEY = key_of("wallet", "00000000-0000-7000-8000-00000000000a")
HOUR = 3_600_000_000


def purse(limit: int = 0, low: int = 0) -> Purse:
    made = Purse(Counts(), KEY)
    made.fill(limit, steady() + HOUR, low, False, 0)
    return made


@settings(deadline=None)
@given(
    st.integers(0, 2000),
    st.lists(st.tuples(st.sampled_from(["hold", "settle", "fill", "give up"]), st.integers(0, 500)), max_size=60),
)
def test_a_purse_does_what_a_naive_one_does(limit: int, steps: list[tuple[str, int]]) -> None:
    made, drawn, flying = purse(limit), 0, []
    for step, amount in steps:
        if step == "hold":
            fits = drawn + amount <= limit
            assert made.hold(amount) is fits
            if fits:
                drawn += amount
                flying.append(amount)
        elif step == "settle" and flying:
            held = flying.pop(0)
            used = min(held, amount)
            made.settle(held, used)
            drawn -= held - used
        elif step == "fill":
            limit += amount
            made.fill(limit, steady() + HOUR, 0, False, 0)
        elif step == "give up":
            limit = min(limit, drawn + amount)
            assert made.give_up(amount) == limit
        standing = made.standing()
        assert (standing.limit, standing.drawn, standing.used) == (limit, drawn, drawn - sum(flying))
        assert standing.drawn <= standing.limit


def test_a_lease_that_is_over_covers_nothing_and_says_what_is_wanted() -> None:
    made = purse(100)
    made.fill(100, steady() - 1, 0, False, 0)
    assert not made.hold(7)
    assert not made.hold(3)
    assert made.standing().want == 7
    made.fill(100, steady() + HOUR, 0, False, 0)
    assert made.hold(7)
    assert made.standing().want == 0


def test_who_draws_a_purse_low_knocks() -> None:
    counts = Counts()
    made = Purse(counts, KEY)
    made.fill(100, steady() + HOUR, 40, False, 0)
    assert made.hold(60)
    assert counts.signals[KNOCKS] == 0
    assert made.hold(1)
    assert counts.signals[KNOCKS] == 1


def test_a_denial_says_when_and_what_is_left_in_all() -> None:
    made = purse(10)
    made.fill(10, steady() + HOUR, 0, True, 5)
    at, left = made.denial()
    assert steady() - at < HOUR
    assert left == 15


# --- several processes ---------------------------------------------------------------------------

HAMMER = """
    import os, random, sys, time
    from pathlib import Path
    from haat.gateway.clock import GatewayClock
    from haat.gateway.limits import recovery
    from haat.gateway.limits.shared import Attachment
    from haat.gateway.wallets.purse import Purse

    home, slot, workers, key, seconds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], 1.5
    clock = GatewayClock()
    attachment = Attachment(home, slot, workers)
    while not attachment.begin():
        time.sleep(0.001)
    counts, known, dead = attachment.open(clock.wall, clock.now_us())
    for one in dead:
        recovery.take_over(counts, one, home / "journal")
    attachment.ready(counts)
    counts.acquire()
    counts.look()
    purse = Purse(counts, key)
    counts.release()
    out = os.open(home / f"spent-{slot}-{os.getpid()}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    print("ready", flush=True)
    sys.stdin.readline()
    ends, flying = time.monotonic() + seconds, []
    while time.monotonic() < ends:
        amount = random.randrange(1, 9)
        if purse.hold(amount):
            flying.append(amount)
        if flying and random.random() < 0.7:
            held = flying.pop()
            used = random.randrange(held + 1)
            purse.settle(held, used)
            os.write(out, b"s" * used)  # as a call is confirmed, and so billed, after its purse is settled
    for held in flying:
        purse.settle(held, 0)
    attachment.close()
"""


def start(home: Path, slot: int, workers: int) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HAMMER), str(home), str(slot), str(workers), KEY],
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


def close(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        pipe.close()


def spent(home: Path) -> int:
    return sum(len(path.read_bytes()) for path in home.glob("spent-*"))


@pytest.mark.parametrize("killed", [False, True])
def test_processes_together_spend_no_more_than_the_purse_has(tmp_path: Path, killed: bool) -> None:
    attachment = Attachment(tmp_path, 3, 4)
    assert attachment.begin()
    counts, _, _ = attachment.open(0, 0)
    attachment.ready(counts)
    mine = Purse(counts, KEY)
    mine.fill(4000, steady() + HOUR, 0, False, 0)
    children = [start(tmp_path, slot, 4) for slot in range(3)]
    go(*children)
    if killed:
        for number in range(4):  # again and again one dies with calls in flight, and its successor goes on
            slot = number % 3
            children[slot].send_signal(signal.SIGKILL)
            children[slot].wait()
            close(children[slot])
            children[slot] = start(tmp_path, slot, 4)
            go(children[slot])
    for child in children:
        assert child.wait(30) == 0
        close(child)
    standing = mine.standing()
    assert standing.drawn <= standing.limit == 4000
    assert standing.used == standing.drawn  # nobody holds anything any more
    assert spent(tmp_path) <= 4000
    if not killed:
        assert spent(tmp_path) == standing.drawn
    assert standing.drawn > 3900


def test_what_a_killed_process_held_comes_back_with_its_successor(tmp_path: Path) -> None:
    def place() -> tuple[Attachment, Purse]:
        attachment = Attachment(tmp_path, 0, 1)
        assert attachment.begin()
        counts, _, dead = attachment.open(0, 0)
        for slot in dead:
            recovery.take_over(counts, slot, tmp_path / "journal")
        attachment.ready(counts)
        return attachment, Purse(counts, KEY)

    attachment, first = place()
    first.fill(1000, steady() + HOUR, 0, False, 0)
    chance, held = random.Random(3), 0
    for _ in range(10):
        amount = chance.randrange(1, 50)
        assert first.hold(amount)
        if chance.random() < 0.5:
            first.settle(amount, amount // 2)
            held += amount // 2
    attachment.close()
    attachment, second = place()
    assert second.standing()[:3] == (1000, held, held)
    attachment.close()
