"""Crashes at chosen steps: of a statement, of a transaction's end, of a write to the journal.

A step is named by who takes it, such as ``invoices.store.next_serials``. What happens there is for who watches: an
exception is raised in this process, or this process kills itself, in the middle of what it does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import psycopg

import haat
from haat.infra.postgres import Connection, Database, Scope
from haat.usage import journal

HOME = str(Path(haat.__file__).parent)


class PowerCut(BaseException):
    """What is raised at a step; no code of Haat handles it."""


@dataclass(slots=True)
class Step:
    """``name`` says where in Haat it is, ``path`` the whole way to it."""

    name: str
    path: str


def _way() -> Iterator[tuple[CodeType, int]]:
    """Yield the functions of Haat that wait for what is done now, the innermost first, and the line of each."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith(HOME):
            yield frame.f_code, frame.f_lineno
        frame = frame.f_back


@cache
def _name(code: CodeType) -> str:
    module = Path(code.co_filename).relative_to(HOME).with_suffix("")
    return ".".join((*module.parts, code.co_name))


def _step(end: str) -> Step:
    """Return the step that is taken: it is named by the innermost function of a domain that has a name of its own."""
    way = list(_way())
    names = [_name(code) for code, _ in way]
    domain = [
        name for name in names if not name.startswith(("infra.", "cli.")) and "._" not in name and "<" not in name
    ]
    name = next(iter([*domain, *names]), "elsewhere")
    return Step(f"{name}{end}", ">".join(f"{code.co_name}:{line}" for code, line in way) + end)


@dataclass
class Watch:
    """Counts steps while it watches; ``strike`` is asked at each, with its number from 1, and may not come back."""

    strike: Callable[[int, Step], None]
    taken: int = 0

    def take(self, end: str = "") -> None:
        self.taken += 1
        self.strike(self.taken, _step(end))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch everything that this process does to a database or a journal."""
        cursor = psycopg.AsyncCursor
        real = {name: getattr(cursor, name) for name in ("execute", "executemany", "copy")}
        real_transaction, real_write = Database.transaction, journal._os_write

        def stepping(name: str) -> Callable[..., Any]:
            def method(*arguments: Any, **keywords: Any) -> Any:
                self.take()
                return real[name](*arguments, **keywords)

            return method

        @asynccontextmanager
        async def transaction(db: Database, scope: Scope) -> AsyncIterator[Connection]:
            async with real_transaction(db, scope) as connection:
                yield connection
                self.take(", before the commit")
            self.take(", after the commit")

        def write(descriptor: int, data: bytes) -> int:
            half = len(data) // 2
            written = os.write(descriptor, data[:half])
            self.take(", in the middle of a write")
            return written + os.write(descriptor, data[half:])

        try:
            for name in real:
                setattr(cursor, name, stepping(name))
            Database.transaction = transaction  # type: ignore[method-assign,assignment]
            journal._os_write = write
            yield
        finally:
            for name, method in real.items():
                setattr(cursor, name, method)
            Database.transaction = real_transaction  # type: ignore[method-assign]
            journal._os_write = real_write
