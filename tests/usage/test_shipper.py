"""From journals to the store, exactly once: torn tails, restarts, lost databases, damaged segments, kill -9."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from bazaar import Bazaar, Subscription
from haat.infra.postgres import Connection, Database, Scope
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.usage.disk import Space
from haat.usage.event import Checkpoint, Outcome, UsageEvent, encode
from haat.usage.journal import JournalWriter, Kind, SealReason, encode_frame, segment_path, segments
from haat.usage.model import Pseudonyms
from haat.usage.service import Usage
from haat.usage.shipper import Shipper, run


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


async def a_subscription(bazaar: Bazaar) -> Subscription:
    return await bazaar.subscribe(await bazaar.organisation(), await bazaar.service())


async def stored(bazaar: Bazaar) -> dict[str, str]:
    return {row["id"]: row["outcome"] for row in await bazaar.rows("SELECT id::text, outcome FROM usage")}


async def ship_all(shipper: Shipper) -> None:
    while await shipper.ship_once():
        pass


class Worker:
    """A gateway worker that dies without a word. Keeps what the store must know in the end."""

    def __init__(self, directory: Path, name: str, bazaar: Bazaar, subscription: Subscription) -> None:
        self.directory, self.name, self.bazaar, self.subscription = directory, name, bazaar, subscription
        self.chance = bazaar.chance
        self.segment = 1
        self.open: dict[str, UsageEvent] = {}
        self.written: dict[str, UsageEvent] = {}
        self.expected: dict[str, str] = {}
        self.units: dict[str, str] = {}
        (directory / name).mkdir(parents=True)
        self.append(b"")

    def append(self, data: bytes) -> None:
        with segment_path(self.directory, self.name, self.segment).open("ab") as file:
            file.write(data)

    def frame(self, kind: int, payload: bytes) -> None:
        self.append(encode_frame(kind, payload))

    def step(self) -> None:
        """Do one thing a worker does."""
        action = self.chance.choice(["call", "call", "call", "confirm", "confirm", "open", "point", "close", "rotate"])
        if action == "call":
            event = self.bazaar.event(self.subscription, outcome=self.chance.choice(list(Outcome)[:4]))
            self.frame(Kind.USAGE, encode(event))
            self.written[event.id] = event
        elif action == "confirm" and self.written:
            chosen = self.chance.sample(sorted(self.written), self.chance.randint(1, len(self.written)))
            self.frame(Kind.CONFIRM, b"".join(UUID(identifier).bytes for identifier in chosen))
            for identifier in chosen:
                self.expected[identifier] = self.written.pop(identifier).outcome.value
        elif action == "open":
            event = self.bazaar.event(self.subscription, "0", outcome=Outcome.INTERRUPTED)
            self.frame(Kind.OPEN, encode(event))
            self.open[event.id] = event
        elif action == "point" and self.open:
            identifier = self.chance.choice(sorted(self.open))
            self.units[identifier] = str(self.chance.randint(1, 999))
            self.frame(Kind.CHECKPOINT, encode(Checkpoint(identifier, {"characters": self.units[identifier]}, 5)))
        elif action == "close" and self.open:
            event = self.open.pop(self.chance.choice(sorted(self.open)))
            event.outcome = Outcome.CLIENT_LEFT
            self.frame(Kind.USAGE, encode(event))
            self.written[event.id] = event
        elif action == "rotate":
            self.frame(Kind.SEAL, bytes([SealReason.ROTATED]))
            self.segment += 1
            self.append(b"")

    def die(self) -> None:
        """Stop in the middle of a frame; a successor recovers the journal and ends in order."""
        torn = encode_frame(Kind.USAGE, encode(self.bazaar.event(self.subscription)))
        self.append(torn[: self.chance.randint(0, len(torn) - 1)])
        JournalWriter(self.directory, self.name, 1 << 20, 0).close()
        self.segment += 2
        self.append(b"")
        self.expected.update(dict.fromkeys(self.written, "unconfirmed"))
        self.expected.update(dict.fromkeys(self.open, "interrupted"))
        self.written.clear()
        self.open.clear()


class Unreliable:
    """A database that fails before or after a commit, as a network does."""

    def __init__(self, db: Database, chance: random.Random) -> None:
        self._db, self._chance = db, chance

    @asynccontextmanager
    async def transaction(self, scope: Scope) -> AsyncIterator[Connection]:
        fate = self._chance.random()
        async with self._db.transaction(scope) as connection:
            yield connection
            if fate < 0.15:
                raise psycopg.OperationalError("lost before the commit")
        if fate > 0.85:
            raise psycopg.OperationalError("lost after the commit")


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_dies_each_call_is_stored_once_with_its_outcome(
    bazaar: Bazaar, clock: SetClock, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed % 2:  # what is read after a failure may be stored already, and goes by the short way all the same
        monkeypatch.setattr("haat.usage.shipper.CAREFUL_BATCH", 2)
    bazaar.chance = random.Random(seed)
    subscription = await a_subscription(bazaar)
    workers = [Worker(tmp_path, f"g{number}", bazaar, subscription) for number in range(2)]
    db: Any = Unreliable(bazaar.service_db, bazaar.chance)
    shipper = Shipper(db, tmp_path, clock, batch=7)
    for _ in range(250):
        for worker in workers:
            worker.step() if bazaar.chance.random() > 0.03 else worker.die()
        if bazaar.chance.random() < 0.3:
            try:
                await shipper.ship_once()
            except psycopg.OperationalError:
                continue
        if bazaar.chance.random() < 0.1:
            shipper = Shipper(db, tmp_path, clock, batch=7)
    for worker in workers:
        worker.die()
    await ship_all(Shipper(bazaar.service_db, tmp_path, clock))
    expected = {identifier: outcome for worker in workers for identifier, outcome in worker.expected.items()}
    assert await stored(bazaar) == expected
    totals = await bazaar.rows("SELECT outcome, sum(calls)::int AS calls FROM usage_hourly GROUP BY outcome")
    assert {row["outcome"]: row["calls"] for row in totals} == {
        outcome: list(expected.values()).count(outcome) for outcome in set(expected.values())
    }
    checkpoints = await bazaar.rows("SELECT id::text, characters FROM usage WHERE outcome = 'interrupted'")
    units = {identifier: value for worker in workers for identifier, value in worker.units.items()}
    assert {row["id"]: row["characters"] for row in checkpoints} == {
        row["id"]: int(units.get(row["id"], "0")) for row in checkpoints
    }
    again = Shipper(bazaar.service_db, tmp_path, clock)
    assert await again.ship_once() == 0


async def test_replaying_all_journals_from_the_start_changes_nothing(
    bazaar: Bazaar, clock: SetClock, tmp_path: Path
) -> None:
    worker = Worker(tmp_path, "g0", bazaar, await a_subscription(bazaar))
    for _ in range(200):
        worker.step()
    worker.die()
    await ship_all(Shipper(bazaar.service_db, tmp_path, clock))
    before = await bazaar.rows("SELECT * FROM usage_hourly ORDER BY hour, outcome")
    await bazaar.run("DELETE FROM ship_positions")
    await ship_all(Shipper(bazaar.service_db, tmp_path, clock, batch=50))
    assert await bazaar.rows("SELECT * FROM usage_hourly ORDER BY hour, outcome") == before
    assert await stored(bazaar) == worker.expected


async def test_what_a_shipper_reads_on_goes_the_short_way_and_what_is_known_the_long_one(
    bazaar: Bazaar, clock: SetClock, tmp_path: Path
) -> None:
    subscription = await a_subscription(bazaar)
    writer = JournalWriter(tmp_path, "g0", 1 << 20, 0)
    written: list[str] = []

    def call(number: int) -> None:
        for _ in range(number):
            event = bazaar.event(subscription)
            writer.append(Kind.USAGE, encode(event))
            writer.confirm([UUID(event.id).bytes])
            written.append(event.id)

    shipper = Shipper(bazaar.service_db, tmp_path, clock, careful_for=30)
    await shipper.keep_house()
    call(40)
    await ship_all(shipper)
    call(30)
    await ship_all(shipper)  # by the short way
    known = bazaar.event(subscription)
    await bazaar.take([known])
    writer.append(Kind.USAGE, encode(known))
    writer.confirm([UUID(known.id).bytes])
    call(20)
    await ship_all(shipper)
    assert sorted(await stored(bazaar)) == sorted([*written, known.id])
    (rolled,) = await bazaar.rows("SELECT sum(calls)::int AS calls FROM usage_hourly")
    assert rolled["calls"] == 91
    writer.close()


async def test_what_was_read_ahead_is_read_again_when_its_batch_number_is_taken(
    bazaar: Bazaar, clock: SetClock, tmp_path: Path
) -> None:
    subscription = await a_subscription(bazaar)
    writer = JournalWriter(tmp_path, "g0", 1 << 20, 0)
    events = [bazaar.event(subscription) for _ in range(2000)]
    for event in events:
        writer.append(Kind.USAGE, encode(event))
        writer.confirm([UUID(event.id).bytes])
    writer.close()
    shipper = Shipper(bazaar.service_db, tmp_path, clock, batch=500, careful_for=0)
    await shipper.keep_house()
    assert await shipper.ship_once() > 0
    corrected = bazaar.event(subscription)
    assert (await bazaar.take([corrected])).batch == 2
    await ship_all(shipper)
    assert sorted(await stored(bazaar)) == sorted(event.id for event in [*events, corrected])
    batches = await bazaar.rows(
        "SELECT batch, count(*) = max(usage_batches.rows) AS whole FROM usage JOIN usage_batches USING (batch) "
        "GROUP BY batch ORDER BY batch"
    )
    assert [row["batch"] for row in batches] == list(range(1, len(batches) + 1)) and len(batches) > 2
    assert all(row["whole"] for row in batches)
    (rolled,) = await bazaar.rows("SELECT sum(calls)::int AS calls FROM usage_hourly")
    assert rolled["calls"] == len(events) + 1


@pytest.mark.parametrize("seed", range(4))
async def test_two_shippers_on_the_same_journals_store_each_call_once(
    bazaar: Bazaar, clock: SetClock, tmp_path: Path, seed: int
) -> None:
    """Nobody wants that, and it happens: an old process that was thought dead ships on beside the new one."""
    bazaar.chance = random.Random(seed)
    subscription = await a_subscription(bazaar)
    workers = [Worker(tmp_path, f"g{number}", bazaar, subscription) for number in range(2)]
    shippers = [Shipper(bazaar.service_db, tmp_path, clock, batch=40, careful_for=0) for _ in range(2)]
    for _ in range(12):
        for _ in range(20):
            for worker in workers:
                worker.step() if bazaar.chance.random() > 0.02 else worker.die()
        await asyncio.gather(*(shipper.ship_once() for shipper in shippers))
    for worker in workers:
        worker.die()
    await asyncio.gather(*map(ship_all, shippers))
    expected = {identifier: outcome for worker in workers for identifier, outcome in worker.expected.items()}
    assert await stored(bazaar) == expected
    (rolled,) = await bazaar.rows("SELECT sum(calls)::int AS calls FROM usage_hourly")
    assert rolled["calls"] == len(expected)


async def test_a_record_waits_for_its_confirmation(bazaar: Bazaar, clock: SetClock, tmp_path: Path) -> None:
    event = bazaar.event(await a_subscription(bazaar))
    writer = JournalWriter(tmp_path, "g0", 1 << 20, 0)
    writer.append(Kind.USAGE, encode(event))
    shipper = Shipper(bazaar.service_db, tmp_path, clock)
    await ship_all(shipper)
    assert await stored(bazaar) == {}
    writer.confirm([UUID(event.id).bytes])
    await ship_all(shipper)
    assert await stored(bazaar) == {event.id: "completed"}
    writer.close()


@pytest.mark.parametrize("how", [{}, {"batch": 3, "careful_for": 0}], ids=["the long way", "read ahead"])
async def test_a_damaged_segment_stops_its_worker_loudly_and_nobody_else(
    bazaar: Bazaar,
    clock: SetClock,
    tmp_path: Path,
    database: Any,
    caplog: pytest.LogCaptureFixture,
    how: dict[str, int],
) -> None:
    subscription = await a_subscription(bazaar)
    events = {name: [bazaar.event(subscription) for _ in range(20)] for name in ("bad", "good")}
    for name, own in events.items():
        writer = JournalWriter(tmp_path, name, 1 << 20, 0)
        for event in own:
            writer.append(Kind.USAGE, encode(event))
            writer.confirm([UUID(event.id).bytes])
        writer.close()
    path = segment_path(tmp_path, "bad", 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    shipper = Shipper(bazaar.service_db, tmp_path, clock, **how)
    await shipper.keep_house()
    await ship_all(shipper)
    known = await stored(bazaar)
    assert {event.id for event in events["good"]} <= known.keys()
    assert 5 < len(known.keys() & {event.id for event in events["bad"]}) < 20  # what lay before the damage
    assert "stands still" in caplog.text
    usage = Usage(database.app, clock, Pseudonyms(bytes(32)))
    problems = {row["worker"]: row["problem"] for row in await usage.shipping(PLATFORM)}
    assert "damaged" in problems["bad"] and problems["good"] == ""
    await usage.skip_segment(PLATFORM, "bad", 1)
    later = bazaar.event(subscription)
    writer = JournalWriter(tmp_path, "bad", 1 << 20, 0)
    writer.append(Kind.USAGE, encode(later))
    writer.confirm([UUID(later.id).bytes])
    writer.close()
    await ship_all(Shipper(bazaar.service_db, tmp_path, clock))
    assert later.id in await stored(bazaar)


async def test_a_record_that_is_no_event_is_set_aside(bazaar: Bazaar, clock: SetClock, tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "g0", 1 << 20, 0)
    writer.append(Kind.USAGE, b'{"id": 5}')
    writer.append(Kind.USAGE, b"{")
    writer.append(9, b"a kind from the future")
    subscription = await a_subscription(bazaar)
    begun = encode(bazaar.event(subscription))  # its id can be read, the rest of it can't
    writer.append(Kind.USAGE, begun.replace(b'"org":"', b'"org":"\xa4'))
    event = bazaar.event(subscription)
    writer.append(Kind.USAGE, encode(event))
    writer.confirm([UUID(event.id).bytes])
    writer.close()
    shipper = Shipper(bazaar.service_db, tmp_path, clock)
    await ship_all(shipper)
    assert await stored(bazaar) == {event.id: "completed"}
    assert len(await bazaar.rows("SELECT id FROM usage_quarantine")) == 3


async def test_shipped_segments_are_deleted_after_the_keep_time_and_never_the_newest(
    bazaar: Bazaar, clock: SetClock, tmp_path: Path
) -> None:
    subscription = await a_subscription(bazaar)
    writer = JournalWriter(tmp_path, "g0", 4096, 0)
    for _ in range(40):
        event = bazaar.event(subscription)
        writer.append(Kind.USAGE, encode(event))
        writer.confirm([UUID(event.id).bytes])
    waiting = bazaar.event(subscription)
    writer.append(Kind.USAGE, encode(waiting))
    held = segments(tmp_path, "g0")[-1]
    for _ in range(10):
        event = bazaar.event(subscription)
        writer.append(Kind.USAGE, encode(event))
        writer.confirm([UUID(event.id).bytes])
    shipper = Shipper(bazaar.service_db, tmp_path, clock, keep=timedelta(hours=1), ask=lambda _: Space(94, 6))
    await ship_all(shipper)
    assert shipper.sweep() == 0
    for number in segments(tmp_path, "g0"):
        os.utime(segment_path(tmp_path, "g0", number), (1, 1))
    assert shipper.sweep() > 0
    assert segments(tmp_path, "g0")[0] == held  # an unconfirmed record still lies there
    writer.close()
    await ship_all(Shipper(bazaar.service_db, tmp_path, clock))
    assert len(await stored(bazaar)) == 51


async def test_a_crowded_disk_keeps_nothing_that_has_been_shipped(
    bazaar: Bazaar, clock: SetClock, tmp_path: Path
) -> None:
    subscription = await a_subscription(bazaar)
    writer = JournalWriter(tmp_path, "g0", 4096, 0)
    for _ in range(20):
        event = bazaar.event(subscription)
        writer.append(Kind.USAGE, encode(event))
        writer.confirm([UUID(event.id).bytes])
    shipper = Shipper(bazaar.service_db, tmp_path, clock, ask=lambda _: Space(95, 5))
    await ship_all(shipper)
    assert shipper.sweep() > 0
    assert len(segments(tmp_path, "g0")) == 1
    writer.close()


async def test_partitions_lie_ready_and_old_batches_are_forgotten_but_not_the_newest(
    bazaar: Bazaar, clock: SetClock, tmp_path: Path
) -> None:
    subscription = await a_subscription(bazaar)
    first, second = [await bazaar.take([bazaar.event(subscription)]) for _ in range(2)]
    clock.advance(days=36)  # 27 December
    await Shipper(bazaar.service_db, tmp_path, clock).keep_house()
    made = await bazaar.rows("SELECT relname FROM pg_class WHERE relname ~ '^usage_202[67]_[0-9]+$' ORDER BY relname")
    assert [row["relname"] for row in made] == ["usage_2026_11", "usage_2026_12", "usage_2027_01"]
    assert [row["batch"] for row in await bazaar.rows("SELECT batch FROM usage_batches")] == [second.batch]
    third = await bazaar.take([bazaar.event(subscription)])
    assert (first.batch, second.batch, third.batch) == (1, 2, 3)


# --- the real process ----------------------------------------------------------------------------


@pytest.fixture
def process_settings(cluster: Any, database: Any, tmp_path: Path) -> Settings:
    """Settings of a shipper of its own: this test's database and journals, the run's keys."""
    master = base64.b64encode((cluster.settings.data_dir / "secrets" / "master.key").read_bytes()).decode()
    return Settings(
        data_dir=tmp_path, database_url=database.owner_dsn, master_key=master, ship_interval_ms=10, _env_file=None
    )


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def test_a_shipper_killed_again_and_again_stores_each_call_once(
    bazaar: Bazaar, process_settings: Settings, database: Any
) -> None:
    bazaar.clock.advance(seconds=time.time() - bazaar.clock.now().timestamp())
    subscription = await a_subscription(bazaar)
    journal = process_settings.data_dir / "journal"
    writer = JournalWriter(journal, "g0", 200_000, 50)
    environment = {
        **os.environ,
        "HAAT_DATA_DIR": str(process_settings.data_dir),
        "HAAT_DATABASE_URL": database.owner_dsn,
        "HAAT_MASTER_KEY": process_settings.master_key.get_secret_value() if process_settings.master_key else "",
        "HAAT_SHIP_INTERVAL_MS": "10",
    }
    code = (
        "import asyncio; from haat.settings import load_settings; from haat.usage.shipper import run;"
        "asyncio.run(run(load_settings(), asyncio.Event()))"
    )

    async def count() -> int:
        return int((await bazaar.rows("SELECT count(*) AS n FROM usage"))[0]["n"])

    written, killed = 0, 0
    chance = random.Random(11)
    for _ in range(4):
        process = await asyncio.to_thread(subprocess.Popen, [sys.executable, "-c", code], env=environment)
        begin = await count()
        target = chance.randint(300, 1500)
        deadline = time.monotonic() + 30
        while (stored := await count()) - begin < target and time.monotonic() < deadline:
            if written - stored > 2_000:  # it has only just begun, and has enough to do
                await asyncio.sleep(0.01)
                continue
            for _ in range(200):
                event = bazaar.event(subscription, "3")
                writer.append(Kind.USAGE, encode(event))
                writer.confirm([UUID(event.id).bytes])
            written += 200
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        killed += 1
        assert time.monotonic() < deadline
    writer.close()
    stop = asyncio.Event()
    shipping = asyncio.create_task(run(process_settings, stop))
    await until(lambda: _is(count, written))
    stop.set()
    await shipping
    rolled = (await bazaar.rows("SELECT sum(calls)::int AS calls, sum(characters) AS units FROM usage_hourly"))[0]
    assert killed == 4
    assert rolled == {"calls": written, "units": 3 * written}


async def test_while_the_database_is_away_the_journal_keeps_everything(
    bazaar: Bazaar, process_settings: Settings, cluster: Any, database_name: str
) -> None:
    bazaar.clock.advance(seconds=time.time() - bazaar.clock.now().timestamp())
    subscription = await a_subscription(bazaar)
    writer = JournalWriter(process_settings.data_dir / "journal", "g0", 1 << 20, 0)
    stop = asyncio.Event()
    shipping = asyncio.create_task(run(process_settings, stop))

    def call() -> None:
        event = bazaar.event(subscription)
        writer.append(Kind.USAGE, encode(event))
        writer.confirm([UUID(event.id).bytes])

    async def count() -> int:
        with psycopg.connect(cluster.dsn("owner", database_name)) as connection:
            return int(connection.execute("SELECT count(*) FROM usage").fetchone()[0])  # type: ignore[index]

    call()
    await until(lambda: _is(count, 1))
    with psycopg.connect(cluster.dsn("owner", "postgres"), autocommit=True) as outside:
        outside.execute(f"ALTER DATABASE {database_name} ALLOW_CONNECTIONS false")
        outside.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database_name,))
        for _ in range(20):
            call()
        await asyncio.to_thread(time.sleep, 0.3)
        assert not shipping.done()
        outside.execute(f"ALTER DATABASE {database_name} ALLOW_CONNECTIONS true")
    await until(lambda: _is(count, 21), 60)
    stop.set()
    await shipping
    writer.close()


async def _is(count: Callable[[], Awaitable[int]], number: int) -> bool:
    return await count() == number
