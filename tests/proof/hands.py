"""Who does the deeds of a season, and dies over them: here by exceptions, or in processes that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import random
import signal
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

import psutil
import psycopg
from psycopg_pool import PoolTimeout

from haat.app import Platform, build_platform
from haat.infra.keyring import Keyring
from haat.infra.mail import Mail
from haat.infra.postgres import Database
from haat.kernel.clock import SetClock
from haat.settings import Settings

from .crashes import PowerCut, Step, Watch
from .deeds import Refused, do

KEYRING = Keyring(bytes(range(32)))
LOST = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout)
"""What a process sees of a database that died."""


class NoMail(Mail):
    """Mail that nobody gets."""

    async def send(
        self, to: str, subject: str, text: str, html: str | None = None, message_id: str | None = None
    ) -> None:
        return


@asynccontextmanager
async def platform_at(at: datetime, folder: Path, app: str, service: str) -> AsyncIterator[Platform]:
    """Yield the platform on a database, as it is at a time."""
    async with Database(app, max_size=4) as db, Database(service, max_size=2, min_size=0) as service_db:
        yield build_platform(Settings(data_dir=folder), db, service_db, KEYRING, SetClock(at), NoMail())


class Hands(Protocol):
    """Does deeds until they are done."""

    crashes: Counter[tuple[str, str]]
    """How often somebody died, by deed and step."""
    works: bool
    """Whether there are processes in which durable jobs can be worked off."""

    async def do(self, name: str, at: datetime, **arguments: Any) -> Any:
        """Do a deed; raise Refused when Haat refuses it."""
        ...

    async def at_once(self, name: str, at: datetime, **arguments: Any) -> None:
        """Let two do the same deed at the same time."""
        ...


@dataclass
class Raising:
    """Does deeds in this process. An exception strikes at each step of a deed, once; then it is done."""

    platform: Platform
    clock: SetClock
    careful: bool = False
    """Nothing strikes."""
    works: bool = False
    crashes: Counter[tuple[str, str]] = field(default_factory=Counter)

    async def do(self, name: str, at: datetime, **arguments: Any) -> Any:
        self.clock.advance(seconds=(at - self.clock.now()).total_seconds())
        if self.careful:
            return await do(self.platform, name, arguments)

        def strike(_: int, step: Step) -> None:
            if name != "meter" and (name, step.name) not in self.crashes:
                self.crashes[name, step.name] += 1
                raise PowerCut(step.name)

        while True:
            try:
                with Watch(strike).watching():
                    return await do(self.platform, name, arguments)
            except PowerCut:
                pass

    async def at_once(self, name: str, at: datetime, **arguments: Any) -> None:
        await asyncio.gather(*(do(self.platform, name, arguments) for _ in range(2)))


@dataclass
class Killing:
    """Does deeds in processes of their own, and kills some of them: at a step, at any moment, or under a database.

    ``deaths`` is how often at most a deed is died over. ``server`` tells PostgreSQL's process, ``come_back`` waits for
    it after it was killed.
    """

    chance: random.Random
    folder: Path
    dsns: tuple[str, str]
    deaths: int
    server: Callable[[], int | None]
    come_back: Callable[[], Awaitable[None]]
    works: bool = True
    crashes: Counter[tuple[str, str]] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    """How many steps a deed has, as far as is known."""
    struck: dict[str, set[str]] = field(default_factory=dict)

    async def do(self, name: str, at: datetime, **arguments: Any) -> Any:
        for _ in range(self.chance.randint(0, self.deaths)):
            done, result = await self._once(name, at, arguments, self._way_to_die(name))
            if done:
                return result
        while True:  # what dies now dies because a database does not come up again
            done, result = await self._once(name, at, arguments, None)
            if done:
                return result
            await asyncio.sleep(0.2)

    async def at_once(self, name: str, at: datetime, **arguments: Any) -> None:
        await asyncio.gather(*(self.do(name, at, **arguments) for _ in range(2)))

    def _way_to_die(self, name: str) -> _Death:
        way = self.chance.random()
        if way < 0.04 and name != "meter":
            return _Death(name, "database", delay=self.chance.uniform(0.01, 0.3))
        if way < 0.2:
            return _Death(name, "moment", delay=self.chance.uniform(0.0, 0.3))
        if way < 0.6:
            return _Death(name, "step", number=self.chance.randint(1, max(10, self.steps[name])))
        return _Death(name, "step", spared=frozenset(self.struck.get(name, ())))

    async def _once(self, name: str, at: datetime, arguments: dict[str, Any], death: _Death | None) -> tuple[bool, Any]:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["haat.app", "haat.usage.shipper"])
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_child, args=(theirs, name, at, arguments, self.folder, self.dsns, death), daemon=True
        )
        process.start()
        theirs.close()
        try:
            if death is not None and death.delay is not None:
                await self._strike(process, ours, death)
            words = await asyncio.to_thread(_hear, ours)
        finally:
            if process.is_alive():
                process.join(1)
                process.kill()
            process.join()
            ours.close()
        if death is not None and death.way == "database":
            await self.come_back()
        return self._understand(name, words, death)

    async def _strike(self, process: BaseProcess, pipe: Pipe, death: _Death) -> None:
        """Kill a process, or one that PostgreSQL has for somebody, a moment after it began its deed."""
        begun = await asyncio.to_thread(pipe.recv)
        assert begun == ("begun",)
        assert death.delay is not None
        await asyncio.sleep(death.delay)
        if death.way == "moment":
            process.kill()
        elif (server := self.server()) is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                backends = [one for one in psutil.Process(server).children() if "haat_" in " ".join(one.cmdline())]
                if backends:
                    self.chance.choice(backends).kill()

    def _understand(self, name: str, words: list[tuple[Any, ...]], death: _Death | None) -> tuple[bool, Any]:
        """Return whether the deed is done, and what it came to, from what its process said before it ended."""
        for word, *said in words:
            if word == "done":
                self.steps[name] = max(self.steps[name], said[1])
                return True, said[0]
            if word == "refused":
                raise Refused(said[0])
            if word == "failed":
                raise AssertionError(f"{name} failed: {said[0]}")
            if word == "lost":
                self.crashes[name, "PostgreSQL was killed"] += 1
                return False, None
            if word == "struck":
                self.crashes[name, said[0]] += 1
                self.struck.setdefault(name, set()).add(said[1])
                return False, None
        assert death is not None, f"the process of {name} ended without a word"
        self.crashes[name, "at any moment"] += 1
        return False, None


@dataclass(frozen=True, slots=True)
class _Death:
    """How a deed is died over. At a step: with a ``number``, or the first one that isn't ``spared``."""

    name: str
    way: str
    number: int | None = None
    spared: frozenset[str] = frozenset()
    delay: float | None = None


def _hear(pipe: Pipe) -> list[tuple[Any, ...]]:
    """Return what a process says until it ends."""
    words = []
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            words.append(pipe.recv())
    return words


def _child(
    pipe: Pipe,
    name: str,
    at: datetime,
    arguments: dict[str, Any],
    folder: Path,
    dsns: tuple[str, str],
    death: _Death | None,
) -> None:
    """Do a deed in this process, and kill it where it is to die."""

    def strike(number: int, step: Step) -> None:
        if death is None or death.way != "step":
            return
        if number == death.number if death.number is not None else step.path not in death.spared:
            pipe.send(("struck", step.name, step.path))
            os.kill(os.getpid(), signal.SIGKILL)

    async def act() -> tuple[Any, ...]:
        watch = Watch(strike)
        try:
            async with platform_at(at, folder, *dsns) as platform:
                pipe.send(("begun",))
                with watch.watching():
                    return "done", await do(platform, name, arguments), watch.taken
        except Refused as refusal:
            return "refused", str(refusal)
        except LOST:
            return ("lost",)
        except BaseException:
            return "failed", traceback.format_exc()

    os.environ["HAAT_COMPILED"] = "0"
    pipe.send(asyncio.run(act()))
    pipe.close()
