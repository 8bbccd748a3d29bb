"""Snapshots that other versions of the gateway have left, and will leave, are started from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from haat.gateway.market import snapshot_file
from haat.gateway.market.snapshot import Credential, Directory, Position, Service, Snapshot, Subscription, Version
from haat.gateway.market.snapshot_file import SnapshotFile, UnusableSnapshot
from haat.infra.keyring import Keyring

GOLDEN = Path(__file__).parent / "golden"
KEYRING = Keyring(bytes(range(32)))


def identifier(number: int) -> str:
    return f"0193b0f0-0000-7000-8000-{number:012x}"


def grown(value: object) -> object:
    """Return a structure as a newer version might write it: every entry says more than we know."""
    if isinstance(value, dict):
        return {**{key: grown(member) for key, member in value.items()}, "colour": "blue"}
    return [grown(member) for member in value] if isinstance(value, list) else value


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_snapshots_of_released_versions_are_read_to_the_last_member(version: int) -> None:
    kept = snapshot_file.load(GOLDEN / f"snapshot-{version}.bin", KEYRING)
    assert (kept.position.xid, kept.position.seq) == (77, 1234)
    [credential], [subscription], [service] = kept.credentials, kept.subscriptions, kept.services
    assert credential == Credential(
        identifier(0xC),
        identifier(0xA),
        identifier(0xB),
        bytes(32),
        0,
        1_732_180_000_000_000,
        only=" acme/echo " if version == 3 else "",
    )
    assert (subscription.plan, subscription.zone, subscription.application) == (
        "basic",
        "Asia/Kolkata",
        identifier(0xB),
    )
    limits = subscription.limits
    assert (limits.per_minute, limits.per_hour, limits.per_day, limits.quota_per_month, limits.max_concurrent) == (
        *(60, 1000, 5000),
        *(10_000, 8),
    )
    assert (service.path, service.unit, service.networks, service.credential) == (
        *("acme/echo", "characters", ("10.0.0.0/8",)),
        b"\1\2\3",
    )
    assert service.versions == (Version("1", "https://acme.example/base", 5000, 1 << 20, "1000", "task"),)
    assert [card.unit_price for card in service.prices] == (["0.002000000000"] if version > 1 else [])


@pytest.mark.parametrize("version", [1, 2, 3])
def test_what_is_read_from_an_older_file_is_written_anew_before_anything_is_added(version: int, tmp_path: Path) -> None:
    path = tmp_path / "snapshot.bin"
    path.write_bytes((GOLDEN / f"snapshot-{version}.bin").read_bytes())
    file, directory = SnapshotFile(path, KEYRING), Directory()
    file.load(directory)
    assert directory.loaded and file.outgrown is (version < 3)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_foreign_or_damaged_file_is_not_believed(version: int, tmp_path: Path) -> None:
    content = bytearray((GOLDEN / f"snapshot-{version}.bin").read_bytes())
    with pytest.raises(UnusableSnapshot, match="another master key"):
        snapshot_file.load(GOLDEN / f"snapshot-{version}.bin", Keyring(bytes(32)))
    content[-100] ^= 1
    (tmp_path / "damaged").write_bytes(content)
    with pytest.raises(UnusableSnapshot):
        snapshot_file.load(tmp_path / "damaged", KEYRING)


def test_what_a_newer_gateway_adds_to_entries_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.bin"
    path.write_bytes(b"".join(_newer(snapshot_file.load(GOLDEN / "snapshot-2.bin", KEYRING))))
    kept = snapshot_file.load(path, KEYRING)
    assert kept == snapshot_file.load(GOLDEN / "snapshot-2.bin", KEYRING)


def _newer(snapshot: Snapshot) -> Iterator[bytes]:
    """Yield the file with more members in every entry, and more entries in the frames."""
    encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
    whole = snapshot_file.encode(snapshot, KEYRING)
    yield snapshot_file.MAGIC
    offset, key, mac = len(snapshot_file.MAGIC), KEYRING.derive("gateway-snapshot"), b""
    while offset < len(whole):
        length = int.from_bytes(whole[offset : offset + 4], "little")
        payload = decode(whole[offset + 20 : offset + 20 + length])
        frame, mac = snapshot_file._frame(encode([*grown(payload), "another"]), key, mac)  # type: ignore[misc]  # a list
        yield frame
        offset += 20 + length


def test_entries_say_at_least_what_the_oldest_reader_needs() -> None:
    """A newer entry has defaults for everything that version 1 did not have: else that file could not be read."""
    needed = {
        Position: set[str](),
        Credential: {"id", "org", "application", "key_hash", "expires_at", "revoked_at"},
        Subscription: {"id", "org", "application", "service", "plan", "limits", "zone"},
        Version: {"version", "endpoint", "timeout_ms", "max_body_bytes", "max_units", "dialect"},
        Service: {
            *("id", "provider", "provider_org", "slug", "status", "reason", "unit", "region", "networks"),
            *("credential_header", "credential", "versions", "default_version"),
        },
    }
    for entry, names in needed.items():
        assert {field.encode_name for field in msgspec.structs.fields(entry) if field.required} == names
