"""The market on disk: whole, with changes after it, torn, damaged, foreign, and written anew while it changes."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market import snapshot_file
from haat.gateway.market.policy import ApplicationPolicy, DataPolicy
from haat.gateway.market.snapshot import (
    Application,
    Credential,
    Directory,
    Part,
    Position,
    Service,
    Snapshot,
    Subscription,
    Version,
)
from haat.gateway.market.snapshot_file import SnapshotFile, UnusableSnapshot
from haat.infra.keyring import Keyring

SERVICE = Service(
    "service", "acme", "provider", "echo", "published", "", "requests", "IN", ("10.0.0.0/8",), "X-Key", b"sealed",
    (Version("1", "https://acme.example/x", 5000, 1 << 20, "12.5", "task"),), "1",
)  # fmt: skip


def credential(number: int, revoked_at: int = 0) -> Credential:
    return Credential(
        f"key-{number}", "org", f"app-{number % 7}", number.to_bytes(32, "big"), 17, revoked_at, True, " a/b "
    )


def subscription(number: int, plan: str = "basic") -> Subscription:
    limits = PlanLimits(per_minute=60, quota_per_month=10_000, burst=5)
    return Subscription(
        f"sub-{number}",
        "org",
        f"app-{number}",
        "service",
        plan,
        limits,
        "Asia/Kolkata",
        12,
        True,
        "0.5",
        True,
        ("one",),
    )


def market(keys: int = 2_500, subscriptions: int = 1_200) -> Snapshot:
    return Snapshot(
        Position(7, 9, "event"),
        [credential(number) for number in range(keys)],
        [subscription(number) for number in range(subscriptions)],
        [SERVICE],
        [Application("app-1", ApplicationPolicy(data=DataPolicy(regions=("IN",))))],
        "shape",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway" / "snapshot.bin"


def opened(path: Path, keyring: Keyring) -> tuple[Directory, SnapshotFile]:
    directory, file = Directory(), SnapshotFile(path, keyring)
    file.load(directory)
    return directory, file


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_what_was_written_is_read(path: Path, keyring: Keyring) -> None:
    snapshot_file.write(path, market(), keyring)
    assert snapshot_file.load(path, keyring) == market()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "entry", [credential(1, revoked_at=5), subscription(1)], ids=lambda entry: type(entry).__name__
)
def test_the_test_says_something_of_every_member(entry: Credential | Subscription) -> None:
    """So that a member that is added and not kept is noticed."""
    defaults = type(entry).__struct_defaults__
    optional = type(entry).__struct_fields__[-len(defaults) :] if defaults else ()
    assert [name for name, default in zip(optional, defaults, strict=True) if getattr(entry, name) == default] == []


def test_equal_texts_and_limits_of_many_entries_are_one_object(path: Path, keyring: Keyring) -> None:
    snapshot_file.write(path, market(), keyring)
    read = snapshot_file.load(path, keyring)
    assert len({id(entry.application) for entry in read.credentials}) == 7
    assert len({id(entry.limits) for entry in read.subscriptions}) == 1


def test_changes_are_appended_and_read_by_the_next_one(path: Path, keyring: Keyring) -> None:
    snapshot_file.write(path, market(), keyring)
    _, file = opened(path, keyring)
    file.append(Part(credentials=[credential(3, revoked_at=99)]))
    file.append(Part(gone=[("credential", "key-4"), ("application", "app-1")], position=Position(8, 1, "later")))
    file.append(Part(subscriptions=[subscription(5, "free")]))
    file.close()
    directory, again = opened(path, keyring)
    assert directory.credentials[credential(3).key_hash].revoked_at == 99
    assert credential(4).key_hash not in directory.credentials
    assert directory.applications == {}
    assert directory.subscriptions["app-5", "service"].plan == "free"
    assert directory.position == Position(8, 1, "later")
    again.append(Part(gone=[("service", "service")]))
    again.close()
    assert snapshot_file.load(path, keyring).services == []


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(1, 400), changes=st.integers(1, 4))
def test_a_torn_end_loses_the_changes_it_cuts_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, cut: int, changes: int
) -> None:
    keyring, path = Keyring(bytes(32)), tmp_path_factory.mktemp("torn") / "snapshot.bin"
    snapshot_file.write(path, market(3, 1), keyring)
    sizes = [path.stat().st_size]
    _, file = opened(path, keyring)
    for number in range(changes):
        file.append(Part(credentials=[credential(100 + number)]))
        sizes.append(path.stat().st_size)
    file.close()
    whole = path.read_bytes()
    kept = max(sizes[0], len(whole) - cut)
    path.write_bytes(whole[:kept])
    directory, successor = opened(path, keyring)
    assert len(directory.credentials) == 3 + sum(size <= kept for size in sizes[1:])
    successor.append(Part(credentials=[credential(200)]))
    successor.close()
    assert credential(200) in snapshot_file.load(path, keyring).credentials


@settings(max_examples=100, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_no_flipped_bit_is_believed(tmp_path_factory: pytest.TempPathFactory, at: float, flip: int) -> None:
    keyring, path = Keyring(bytes(32)), tmp_path_factory.mktemp("flipped") / "snapshot.bin"
    snapshot_file.write(path, market(3, 1), keyring)
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= flip
    path.write_bytes(content)
    with pytest.raises(UnusableSnapshot):
        snapshot_file.load(path, keyring)


def test_changes_of_another_file_are_not_believed(path: Path, keyring: Keyring) -> None:
    """A change is good only after the very frames it was written after."""
    snapshot_file.write(path, market(3, 1), keyring)
    size = path.stat().st_size
    _, file = opened(path, keyring)
    file.append(Part(credentials=[credential(3, revoked_at=99)]))
    file.append(Part(credentials=[credential(8)]))
    file.close()
    content = path.read_bytes()
    first = (len(content) - size) // 2
    path.write_bytes(content[:size] + content[size + first :])  # the revocation is cut out
    assert len(snapshot_file.load(path, keyring).credentials) == 3


async def test_it_is_written_anew_while_the_market_changes(path: Path, keyring: Keyring) -> None:
    snapshot_file.write(path, market(), keyring)
    directory, file = opened(path, keyring)
    before = inode(path)
    rewriting = asyncio.create_task(file.rewrite(directory))
    changes = 0
    while not rewriting.done():
        part = Part(credentials=[credential(10_000 + changes)], position=Position(9, changes, "change"))
        directory.apply(part)
        file.append(part)
        changes += 1
        await asyncio.sleep(0.001)
    await rewriting
    file.append(Part(credentials=[credential(1, revoked_at=5)]))
    file.close()
    assert changes > 1 and inode(path) != before
    read, _ = opened(path, keyring)
    assert len(read.credentials) == 2_500 + changes
    assert read.position == Position(9, changes - 1, "change")
    assert read.credentials[credential(1).key_hash].revoked_at == 5
    assert [left.name for left in path.parent.iterdir()] == ["snapshot.bin"]


async def test_it_is_written_anew_once_its_changes_outgrow_it(
    path: Path, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_file, "LEAST_APPENDED", 1000)
    directory, file = Directory(market(3, 1)), SnapshotFile(path, keyring)
    assert file.outgrown, "there is none yet"
    await file.rewrite(directory)
    assert not file.outgrown
    while not file.outgrown:
        file.append(Part(credentials=[credential(1)]))
    await file.rewrite(directory)
    assert not file.outgrown
    file.close()


async def test_a_disk_that_refuses_leaves_the_old_file_and_is_asked_again(path: Path, keyring: Keyring) -> None:
    snapshot_file.write(path, market(3, 1), keyring)
    directory, file = opened(path, keyring)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.mkdir()  # stands in the way
    with pytest.raises(OSError, match="directory"):
        await file.rewrite(directory)
    fresh.rmdir()
    file.append(Part(credentials=[credential(50)]))
    await file.rewrite(directory)
    file.close()
    assert len(snapshot_file.load(path, keyring).credentials) == 3


def test_a_damaged_or_foreign_file_is_refused(path: Path, keyring: Keyring) -> None:
    snapshot_file.write(path, Snapshot(), keyring)
    with pytest.raises(UnusableSnapshot, match="another master key"):
        snapshot_file.load(path, Keyring(bytes(32)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnusableSnapshot, match="damaged"):
        snapshot_file.load(path, keyring)
    path.write_bytes(b"something else")
    with pytest.raises(UnusableSnapshot, match="not a snapshot"):
        snapshot_file.load(path, keyring)
    path.write_bytes(b"")
    with pytest.raises(UnusableSnapshot, match="empty"):
        snapshot_file.load(path, keyring)
