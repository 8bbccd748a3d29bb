"""What is written in one turn of the event loop leaves together at its end."""

from __future__ import annotations

import asyncio
from typing import cast

from haat.gateway.http.outbox import MOST_KEPT, Outbox, OutboxTransport


class Wire:
    """As much of a transport as an outbox uses, which remembers what it was told in which order."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log, self.closing = name, log, False

    def write(self, data: bytes) -> None:
        self.log.append(f"{self.name}:{data.decode()[:8]}")

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.log.append(f"{self.name}:close")

    def abort(self) -> None:
        self.log.append(f"{self.name}:abort")


def pair() -> tuple[OutboxTransport, OutboxTransport, list[str]]:
    outbox, log = Outbox(), list[str]()
    one, other = (OutboxTransport(outbox, cast(asyncio.Transport, Wire(name, log))) for name in ("one", "other"))
    return one, other, log


async def test_writes_wait_for_the_end_of_the_turn_and_leave_in_order() -> None:
    one, other, log = pair()
    one.write(b"a")
    other.write(b"b")
    one.write(b"c")
    assert log == [] and one.get_write_buffer_size() == 2
    await asyncio.sleep(0)
    assert log == ["one:ac", "other:b"] and one.get_write_buffer_size() == 0


async def test_what_is_much_leaves_at_once_so_that_the_transport_can_ask_for_a_pause() -> None:
    one, _, log = pair()
    one.write(b"head")
    one.write(b"x" * MOST_KEPT)
    assert log == ["one:headxxxx"]


async def test_closing_sends_what_was_kept_and_aborting_drops_it() -> None:
    one, other, log = pair()
    one.write(b"a")
    one.close()
    other.write(b"b")
    other.abort()
    await asyncio.sleep(0)
    assert log == ["one:a", "one:close", "other:abort"]


async def test_what_a_closed_transport_never_took_is_still_known_as_unsent() -> None:
    one, other, log = pair()
    one.write(b"a")
    other.write(b"b")
    cast(Wire, one.raw).closing = True
    await asyncio.sleep(0)
    assert log == ["other:b"] and one.unsent == b"a"


async def test_what_must_come_before_is_done_before_anything_leaves_at_whatever_occasion() -> None:
    outbox, log = Outbox(), list[str]()
    outbox.before = lambda: log.append("before")
    one, other = (OutboxTransport(outbox, cast(asyncio.Transport, Wire(name, log))) for name in ("one", "other"))
    one.write(b"a")
    other.write(b"b")
    await asyncio.sleep(0)
    assert log == ["before", "one:a", "other:b"]
    one.write(b"x" * (MOST_KEPT + 1))
    one.flush()
    assert log[3:5] == ["before", "one:xxxxxxxx"]
    other.write(b"c")
    other.close()
    assert log[-3:] == ["before", "other:c", "other:close"]


async def test_a_transport_that_is_broken_off_before_the_turn_leaves_writes_nothing() -> None:
    outbox, log = Outbox(), list[str]()
    one = OutboxTransport(outbox, cast(asyncio.Transport, Wire("one", log)))
    outbox.before = one.abort
    one.write(b"a")
    await asyncio.sleep(0)
    assert log == ["one:abort"]
