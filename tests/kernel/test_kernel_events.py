"""The hash chain: any change of any member shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.events import GENESIS, Position, chain_hash

EVENT: dict[str, Any] = {
    "id": UUID("01900000-0000-7000-8000-000000000001"),
    "stream": "partner/1",
    "version": 1,
    "type": "partner.approved",
    "data": {"slug": "anuvad", "नाम": "हाट"},
    "actor": "user/1",
    "org": UUID("01900000-0000-7000-8000-000000000002"),
    "at": datetime(2026, 11, 21, 6, 30, tzinfo=UTC),
}


@pytest.mark.parametrize(
    ("member", "other"),
    [
        ("id", uuid4()),
        ("stream", "partner/2"),
        ("version", 2),
        ("type", "partner.rejected"),
        ("data", {"slug": "anuvad", "नाम": "हाट "}),
        ("data", {}),
        ("actor", "platform"),
        ("org", None),
        ("at", EVENT["at"] + timedelta(microseconds=1)),
    ],
)
def test_every_member_counts_in_the_hash(member: str, other: object) -> None:
    assert chain_hash(GENESIS, **EVENT) != chain_hash(GENESIS, **{**EVENT, member: other})


def test_the_event_before_counts_in_the_hash() -> None:
    assert chain_hash(GENESIS, **EVENT) != chain_hash(bytes([1]) + bytes(31), **EVENT)


def test_the_hash_does_not_depend_on_key_order_or_zone() -> None:
    kolkata = timezone(timedelta(hours=5, minutes=30))
    same = {**EVENT, "data": dict(reversed(EVENT["data"].items())), "at": EVENT["at"].astimezone(kolkata)}
    assert chain_hash(GENESIS, **EVENT) == chain_hash(GENESIS, **same)


@given(st.text(), st.text())
def test_no_two_contents_share_a_hash(one: str, other: str) -> None:
    hashes = {chain_hash(GENESIS, **{**EVENT, "data": {"reason": text}}) for text in (one, other)}
    assert len(hashes) == len({one, other})


@given(st.integers(0, 2**63), st.integers(0, 2**63))
def test_a_position_survives_as_text_and_sorts_by_transaction_first(xid: int, seq: int) -> None:
    position = Position(xid, seq)
    assert Position.parse(str(position)) == position
