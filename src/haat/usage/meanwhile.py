"""Work that is done while the database is busy: in small pieces, on the one thread that also serves its connection.

A piece of work is a call that returns whether it did anything. It should take a millisecond or two: so long the
database works on what lies in its socket.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from psycopg import AsyncCursor, OperationalError
from psycopg.copy import AsyncLibpqWriter

_PAUSE_SECONDS = 0.001
_AT_ONCE = 1 << 20
"""Bytes given to libpq at once, so that its buffer stays small."""


class Writer(AsyncLibpqWriter):
    """Writes a COPY, and works when the socket is full.

    The socket is filled up after each piece of work. Waiting for it in the event loop takes several of the loop's
    turns, and with a piece of work in each of them the database would run dry.
    """

    def __init__(self, cursor: AsyncCursor[Any], work: Callable[[], bool]) -> None:
        super().__init__(cursor)
        self._work = work

    async def write(self, data: Any) -> None:
        connection = self.connection.pgconn
        for at in range(0, len(data), _AT_ONCE):
            if not connection.put_copy_data(data[at : at + _AT_ONCE]):  # although its buffer is empty
                raise OperationalError("there is no memory for what is to be copied")
            while connection.flush():
                if not self._work():
                    await asyncio.sleep(_PAUSE_SECONDS)


@contextlib.asynccontextmanager
async def beside(work: Callable[[], bool]) -> AsyncIterator[None]:
    """Work whenever the block awaits something."""
    working = asyncio.create_task(_go_on(work))
    try:
        yield
    finally:
        working.cancel()
        await asyncio.wait((working,))
    if not working.cancelled():
        working.result()


async def _go_on(work: Callable[[], bool]) -> None:
    while True:
        if not work():
            await asyncio.sleep(_PAUSE_SECONDS)
        await asyncio.sleep(0)
