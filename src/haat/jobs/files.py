"""Files that callers send for their batches, and fetch with the answers."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from haat.infra.postgres import Connection, Database, tenant
from haat.jobs import file_store
from haat.jobs.file_store import PART_BYTES
from haat.jobs.model import KEEP, MAX_BYTES, MAX_STORED_BYTES, Caller, File
from haat.kernel.clock import Clock
from haat.kernel.errors import BodyTooLarge, InvalidRequest, NotFound
from haat.kernel.ids import new_id
from haat.kernel.text import is_storable

PURPOSES = ("batch", "user_data")


class Files:
    """The use cases. A file belongs to the application whose key sent it."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db, self._clock = db, clock

    async def add(self, caller: Caller, filename: str, purpose: str, content: AsyncIterable[bytes]) -> File:
        """Keep a file; raise InvalidRequest, or BodyTooLarge beyond 100 MiB, or 2 GiB of an organisation."""
        if purpose not in PURPOSES:
            raise InvalidRequest(f"purpose: is one of {', '.join(PURPOSES)}", field="purpose")
        if not filename or len(filename) > 255 or not is_storable(filename):
            raise InvalidRequest("file: has a name of 1 to 255 characters", field="file")
        async with self._db.transaction(tenant(caller.org_id)) as connection:
            file = _new(caller.org_id, caller.application_id, filename, purpose, self._clock.now())
            await file_store.add(connection, file)
            size = await write(connection, file, content, MAX_BYTES)
            if not size:
                raise InvalidRequest("file: is empty", field="file")
            if await file_store.stored_bytes(connection, caller.org_id) > MAX_STORED_BYTES:
                raise BodyTooLarge("Your files have no more room: delete some.", limit_bytes=MAX_STORED_BYTES)
        return replace(file, bytes=size)

    async def get(self, caller: Caller, identifier: UUID) -> File:
        """Return a file; raise NotFound for another application's."""
        async with self._db.transaction(tenant(caller.org_id)) as connection:
            found = await file_store.get(connection, caller.application_id, identifier, self._clock.now())
        if found is None:
            raise NotFound("There is no such file: it never was, it is another's, or its time is over.")
        return found

    async def find(
        self, caller: Caller, purpose: str | None, after: UUID | None, limit: int
    ) -> tuple[list[File], bool]:
        """Return files, newest first, and whether there are more."""
        async with self._db.transaction(tenant(caller.org_id)) as connection:
            found = await file_store.find(connection, caller.application_id, purpose, after, self._clock.now(), limit)
        return list(found[:limit]), len(found) > limit

    async def delete(self, caller: Caller, identifier: UUID) -> None:
        """Delete a file; raise NotFound for another application's."""
        async with self._db.transaction(tenant(caller.org_id)) as connection:
            if not await file_store.delete(connection, caller.application_id, identifier):
                raise NotFound("There is no such file: it never was, it is another's, or its time is over.")

    async def content(self, file: File) -> AsyncIterator[bytes]:
        """Yield a file's content."""
        number = 0
        while True:
            async with self._db.transaction(tenant(file.org_id)) as connection:
                part = await file_store.part(connection, file.id, number)
            if part is None:
                return
            yield part
            number += 1


async def make(
    connection: Connection, org: UUID, application: UUID, filename: str, content: AsyncIterable[bytes], at: datetime
) -> UUID | None:
    """Keep a file that was made for an application; None when there is nothing in it."""
    file = _new(org, application, filename, "batch_output", at)
    await file_store.add(connection, file)
    if await write(connection, file, content, None):
        return file.id
    await file_store.delete(connection, application, file.id)
    return None


async def write(connection: Connection, file: File, content: AsyncIterable[bytes], most: int | None) -> int:
    """Keep a file's content in parts and return its size; raise BodyTooLarge beyond ``most`` bytes."""
    size = number = 0
    part = bytearray()

    async def put(data: bytes) -> None:
        await file_store.add_part(connection, file.id, file.org_id, number, data)

    async for data in content:
        part += data
        size += len(data)
        if most is not None and size > most:
            raise BodyTooLarge(limit_bytes=most)
        while len(part) >= PART_BYTES:
            await put(bytes(part[:PART_BYTES]))
            del part[:PART_BYTES]
            number += 1
    if part:
        await put(bytes(part))
    await file_store.set_size(connection, file.id, size)
    return size


def _new(org: UUID, application: UUID, filename: str, purpose: str, at: datetime) -> File:
    return File(new_id(), org, application, filename, purpose, 0, at, at + KEEP)
