"""PostgreSQL: one pool a process, and the one place that opens transactions and sets tenancy.

Row-level security below every tenant table reads two settings that live as long as the transaction:
``haat.org`` (an organisation) and ``haat.scope``. With neither set a query on a tenant table returns
nothing, so a forgotten filter leaks nothing. The application connects as ``haat_app``, which is
neither owner nor superuser, so it can't step around the policies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

Connection = AsyncConnection[DictRow]
"""A connection inside a transaction; rows come as dictionaries."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose rows a transaction may see: one organisation's, everybody's, or only public ones."""

    org: UUID | None = None
    platform: bool = False

    @property
    def begin(self) -> str:
        """The statements that begin a transaction, together: each sent by itself costs a third of a short one."""
        org = str(self.org) if isinstance(self.org, UUID) else ""
        whose = f"SET LOCAL haat.org = '{org}'; SET LOCAL haat.scope = '{'platform' if self.platform else ''}'"
        return f"BEGIN; {whose}"


PUBLIC = Scope()
PLATFORM_SCOPE = Scope(platform=True)


def tenant(org: UUID | None) -> Scope:
    """Return the scope of one organisation."""
    if org is None:
        raise ValueError("a tenant scope needs an organisation")
    return Scope(org=org)


class Database:
    """A pool of connections. ``transaction`` is the only way to get one."""

    def __init__(self, dsn: str, *, max_size: int = 10, min_size: int = 1, application_name: str = "haat") -> None:
        self.dsn = dsn
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            dsn,
            connection_class=AsyncConnection[DictRow],
            min_size=min(min_size, max_size),
            max_size=max_size,
            open=False,
            timeout=10,
            kwargs={"row_factory": dict_row, "application_name": application_name, "autocommit": True},
        )

    async def open(self) -> None:
        await self._pool.open(wait=True, timeout=30)

    async def close(self) -> None:
        await self._pool.close()

    async def __aenter__(self) -> Database:
        await self.open()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close()

    @asynccontextmanager
    async def transaction(self, scope: Scope) -> AsyncIterator[Connection]:
        """Yield a connection in a transaction that commits when the block ends, or rolls back."""
        async with self._pool.connection() as connection:  # which commits in the end, or rolls back
            await connection.execute(scope.begin, prepare=False)
            yield connection
