"""A worker's process, seen from the engine: started, asked one thing at a time, and killed when it must be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import psutil

from haat.kernel.errors import EngineFailed
from haat.models import wire
from haat.models.engines.port import Model
from haat.models.region import Region
from haat.models.runtimes.confinement import environment_of

START_SECONDS = 30.0

log = logging.getLogger(__name__)

Message = list[Any]
OnMessage = Callable[[Message], bool]
"""Is given each message that answers a request; returns whether it was the last."""
OnLost = Callable[["WorkerProcess", list[str]], None]
"""Is told of a worker that is gone, and of the models that were open in it."""


class WorkerProcess(asyncio.Protocol):
    """A child that runs a model, and more of the same kind. ``busy`` from a request until its last answer, or its loss.

    It does one thing at a time. One more may lie in its socket, so that it need not wait for us between two.

    Its private folder is made in ``home``, or where temporary files are; a model that may use the network reaches
    ``networks`` though they aren't public.

    A worker that dies, hangs up or writes rubbish is lost: ``on_lost`` is called once, after the request at work
    has been answered by None.
    """

    def __init__(self, model: Model, on_lost: OnLost, home: Path | None = None, networks: Iterable[str] = ()) -> None:
        self._python = model.python or sys.executable
        self._manifest = model.manifest
        self._home, self._networks = home, tuple(networks)
        self.work: Path | None = None
        """Its private folder, while there is a process."""
        self._on_lost: OnLost | None = on_lost
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._process: Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._answer: Callable[[Message | None], bool] | None = None
        self._behind: tuple[Callable[[Message | None], bool], Callable[[], None]] | None = None
        """Who is answered next, and is told before when its turn has come."""
        self._streams = False
        self._paused = False
        self.region: Region | None = None
        """Where large contents for it are laid."""
        self._turns: deque[asyncio.Future[None]] = deque()
        self._promised = False
        self.models: dict[str, Model] = {}
        """What is open in it, by key."""
        self.users: deque[Callable[[], None]] = deque()
        """Who is called, one after the other, when it has become free."""
        self.lost = False

    @property
    def busy(self) -> bool:
        """Tell whether it is at work."""
        return self._answer is not None

    @property
    def free(self) -> bool:
        """Tell whether it can be given something to do."""
        return self._answer is None and not self.lost and not self._promised

    @property
    def takes_one_more(self) -> bool:
        """Tell whether another request can lie behind the one at work: it is one model's alone and streams nothing."""
        alone = len(self.users) == 1 and not self._turns
        return self.busy and self._behind is None and alone and not self._streams and not self.lost

    async def turn(self) -> None:
        """Wait until it is free; it is then kept for the caller, who must ask something without waiting further."""
        if not self.free and not self.lost:
            turn = asyncio.get_running_loop().create_future()
            self._turns.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._promised = False
                    self._release()
                raise

    @property
    def pid(self) -> int:
        """Its process id, 0 before it has started."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start the process; raise EngineFailed if it does not come up."""
        ours, theirs = socket.socketpair()
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answer = _into(ready)
        try:
            with theirs:
                self.region = Region.new()
                self.work = self._make_work()
                shared = () if self.region is None else (self.region.descriptor,)
                self._process = await asyncio.create_subprocess_exec(
                    self._python,
                    *("-m", "haat.models.worker", str(theirs.fileno()), *map(str, shared)),
                    stdin=DEVNULL,
                    pass_fds=(theirs.fileno(), *shared),
                    env=environment_of(self._manifest, self.work, networks=self._networks),
                    start_new_session=True,
                )
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: self, sock=ours)
            self._watch = asyncio.create_task(self._until_its_end(self._process))
            async with asyncio.timeout(START_SECONDS):
                await ready
        except BaseException as error:
            ours.close()
            ready.cancel()
            self.kill()
            if isinstance(error, (OSError, TimeoutError)):
                raise EngineFailed("A worker for this model can't be started; the operator's log says why.") from error
            raise

    async def ask(self, message: Sequence[Any], seconds: float) -> Message:
        """Ask for something that has one answer; raise what it answered if that is an error.

        A worker that is lost, or later than ``seconds``, is EngineFailed; the late one is killed.
        """
        answered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        request = wire.frame(message)
        await self.turn()
        self.begin(request, _into(answered))
        try:
            async with asyncio.timeout(seconds):
                return await answered
        except TimeoutError:
            self.kill()
            raise EngineFailed(f"The model took more than {seconds:g} seconds to load.") from None
        except asyncio.CancelledError:
            self.kill()  # what it still answers would be taken for the next request's
            raise

    def begin(self, request: bytes, answer: Callable[[Message | None], bool], *, streams: bool = False) -> None:
        """Send a request; ``answer`` is given each message until it returns true, or None when the worker is lost.

        One that ``streams`` has more answers than one.
        """
        assert not self.busy, "a worker does one thing at a time"
        self._promised, self._streams = False, streams
        if self.lost or self._transport is None:
            asyncio.get_running_loop().call_soon(answer, None)
            return
        self._answer = answer
        self._transport.write(request)

    def follow(self, request: bytes, answer: Callable[[Message | None], bool], on_turn: Callable[[], None]) -> None:
        """Send a request with one answer that is begun when the one at work has ended, which ``on_turn`` is told."""
        assert self.takes_one_more and self._transport is not None, "there is room for one"
        self._behind = answer, on_turn
        self._transport.write(request)

    def stop_stream(self) -> None:
        """Ask the worker to end the stream it is at; its last answer still comes."""
        if self._transport is not None and not self.lost:
            self._transport.write(wire.frame(["stop"]))

    def pause(self) -> None:
        """Read no more for now: who reads the parts of an output is slow."""
        if not self._paused and self._transport is not None and not self.lost:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and self._transport is not None and not self.lost:
            self._paused = False
            self._transport.resume_reading()

    def kill(self) -> None:
        """End it and what it has started, now."""
        if self._process is not None and self._process.returncode is None:
            _kill_session(self._process.pid)
        self._lose()

    async def end(self) -> None:
        """Kill it and wait until nothing of it is left."""
        self._on_lost = None
        self.kill()
        if self._watch is not None:
            await self._watch
        elif self._process is not None:
            await self._process.wait()
        if self.work is not None:
            work, self.work = self.work, None
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)

    def memory_bytes(self) -> int:
        """Return how much memory it takes: its proportional share (PSS), or where the kernel won't say, its RSS."""
        try:
            for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
        try:
            return psutil.Process(self.pid).memory_info().rss
        except psutil.Error:
            return 0

    # --- asyncio.Protocol ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        received, size = self._received, wire.HEADER.size
        if not received and wire.is_whole(data):  # as nearly every one comes
            self._take(data[size:])
            return
        received += data
        at = 0
        while len(received) - at >= size:
            (length,) = wire.HEADER.unpack_from(received, at)
            if length > wire.MOST_BYTES:
                log.error("a worker (pid %d) wrote what is no message; it is replaced", self.pid)
                self.kill()
                return
            end = at + size + length
            if len(received) < end:
                break
            payload = bytes(memoryview(received)[at + size : end])
            at = end
            if not self._take(payload):
                return
        del received[:at]

    def connection_lost(self, _: Exception | None) -> None:
        self.kill()  # a worker without its socket is of no use, even if it lives

    # --- inside -------------------------------------------------------------------------------------

    def _make_work(self) -> Path:
        if self._home is not None:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="model-", dir=self._home))

    def _take(self, payload: bytes) -> bool:
        try:
            message = msgspec.msgpack.decode(payload, type=list)
        except msgspec.DecodeError:
            message = None
        if not message or self._answer is None or message[0] not in _KNOWN:
            log.error("a worker (pid %d) said what nobody has asked; it is replaced", self.pid)
            self.kill()
            return False
        answer, self._answer = self._answer, None
        try:
            last = answer(message)
        except Exception:
            log.exception("a worker (pid %d) said what can't be understood; it is replaced", self.pid)
            self._answer = answer  # who is now told that it is lost
            self.kill()
            return False
        if last and self._behind is not None:
            (self._answer, on_turn), self._behind = self._behind, None
            on_turn()
        if not last:
            if not self.lost:
                self._answer = answer
        elif self.busy:
            for pump in tuple(self.users):
                pump()
        else:
            self._release()
        return not self.lost

    def _release(self) -> None:
        """Give it to who waits for a turn, or let its users see whether they have something to do."""
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                self._promised = True
                turn.set_result(None)
                return
        self.users.rotate(-1)
        for pump in tuple(self.users):
            if not self.free:
                break
            pump()

    async def _until_its_end(self, process: Process) -> None:
        await process.wait()
        _kill_session(process.pid)  # what it has started and left behind
        self._lose()

    def _lose(self) -> None:
        if self.lost:
            return
        self.lost = True
        self._received.clear()
        if self.region is not None:
            self.region.close()
            self.region = None
        if self._transport is not None:
            self._transport.abort()
        models, self.models = list(self.models), {}
        answer, self._answer = self._answer, None
        behind, self._behind = self._behind, None
        if answer is not None:
            answer(None)
        if behind is not None:
            behind[0](None)
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)  # what they ask will be answered with the loss
        if self._on_lost is not None:
            self._on_lost(self, models)


def _kill_session(leader: int) -> None:
    """Kill a worker and what it has started: a worker leads a session of its own, and what is in it can't leave it."""
    seen: set[int] = set()
    while fresh := {pid for pid in psutil.pids() if _session_of(pid) == leader} - seen:
        seen |= fresh  # dead ones stay in it until they are reaped
        for pid in fresh:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0  # it has ended, or is none of ours


_KNOWN = frozenset({"ready", "outputs", "part", "end", "error"})


def _into(future: asyncio.Future[Any]) -> Callable[[Message | None], bool]:
    def answer(message: Message | None) -> bool:
        if not future.done():
            if message is None:
                future.set_exception(EngineFailed("The model's worker ended while it was loading the model."))
            elif message[0] == "error":
                future.set_exception(wire.read_error(message[1]))
            else:
                future.set_result(message)
        return True

    return answer
