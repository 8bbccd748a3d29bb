"""A batch that runs in a worker: what it answers goes to the calls whose inputs are in it.

A batch that fails as a whole is cut in two until the input is found that spoils it: only that input's call fails.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from haat.kernel.errors import EngineFailed, EngineTimeout, HaatError
from haat.models import traces, wire
from haat.models.engines.local.batcher import Entry
from haat.models.engines.local.calls import StreamCall, again

if TYPE_CHECKING:
    from haat.models.engines.local.process import Message, WorkerProcess
    from haat.models.region import Region

STOP_SECONDS = 2.0
"""How long a model may take to end a stream that nobody reads any more; its worker is killed then."""


class Trial:
    """What became of a batch and of the parts it was cut into. After too many failures without one success the model
    is broken, and not an input: what is left of the batch fails as well."""

    __slots__ = ("failures", "size", "succeeded")

    def __init__(self, size: int) -> None:
        self.size = size
        self.failures = 0
        self.succeeded = False

    @property
    def hopeless(self) -> bool:
        """Tell whether there's no use in going on."""
        return not self.succeeded and self.failures >= 2 * (1 + math.ceil(math.log2(self.size)))


class Piece:
    """Entries that are to run together, and the trial they are a part of."""

    __slots__ = ("entries", "trial")

    def __init__(self, entries: list[Entry], trial: Trial | None = None) -> None:
        self.entries = entries
        self.trial = trial or Trial(len(entries))

    def alive(self) -> list[Entry]:
        """Return the entries whose calls still want an answer."""
        return [entry for entry in self.entries if not entry.call.ended]


class Batch:
    """One piece at work. ``on_end`` is told of its end, with what must be run again."""

    def __init__(
        self,
        key: str,
        piece: Piece,
        worker: WorkerProcess,
        seconds: float,
        on_end: Callable[[Batch, list[Piece]], None],
    ) -> None:
        self.piece = piece
        self.entries = piece.entries
        self.worker = worker
        self.seconds = 0.0
        self.failed = False
        self.hung = False
        self.began = time.monotonic()
        self._key = key
        self._limit = seconds
        self._on_end = on_end
        self._timer: asyncio.TimerHandle | None = None
        self.waits_behind = False
        """It is in the socket of a worker that is at work."""
        self._traces = [(entry.call.ticket.trace, entry.call.ticket.request_id) for entry in self.entries]
        self._parent = traces.batch_parent([trace for trace, _ in self._traces if trace])

    def begin(self) -> None:
        """Send it to the worker. One that can't be sent has failed."""
        stream = self._stream()
        request = self._request("run" if stream is None else "stream", self.worker.region)
        if request is None:
            return
        if stream is not None:
            stream.hold, stream.go_on, stream.stop = self.worker.pause, self.worker.resume, self._stop
        self.worker.begin(request, self._take if stream is None else self._take_part, streams=stream is not None)
        self._begins()

    def follow(self) -> None:
        """Send it to a worker that is at work: it begins when that has ended."""
        request = self._request("run", None)  # what the batch before it has in the region is still needed
        if request is not None:
            self.waits_behind = True
            self.worker.follow(request, self._take, self._begins)

    def _request(self, what: str, region: Region | None) -> bytes | None:
        """Return what is sent to the worker; None, after the batch has ended, for what can't be."""
        try:
            inputs = wire.inputs_of([entry.given for entry in self.entries], region)
            return wire.frame([what, self._key, self._parent, inputs])
        except (TypeError, ValueError, OverflowError):
            self._end(self._halves(EngineFailed("The input can't be given to the model; the call is not billed.")))
            return None

    def _begins(self) -> None:
        self.waits_behind = False
        self.began = time.monotonic()
        for entry in self.entries:
            ticket = entry.call.ticket
            ticket.queued = max(ticket.queued, self.began - entry.since)
            ticket.batch = max(ticket.batch, len(self.entries))
        self._wait(self._limit)

    def _stream(self) -> StreamCall | None:
        call = self.entries[0].call
        return call if isinstance(call, StreamCall) else None

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._hangs)

    def _hangs(self) -> None:
        stream = self._stream()
        if stream is not None and stream.is_held:
            stream.end(EngineTimeout("What the model says has not been read for too long; it is ended."))
            self._stop()
            return
        self.hung = True
        self.worker.kill()  # which answers us

    def _stop(self) -> None:
        """End the stream: nobody reads it any more."""
        self.worker.resume()
        self.worker.stop_stream()
        self._wait(STOP_SECONDS)

    def _take(self, message: Message | None) -> bool:
        if message is not None and message[0] == "outputs" and self._is_well_formed(message):
            _, outputs, wrong, self.seconds = message
            self.piece.trial.succeeded = True
            for index, entry in enumerate(self.entries):
                if index in wrong:
                    entry.call.end(wire.read_error(wrong[index]))
                else:
                    entry.call.ticket.ran += self.seconds
                    entry.call.answer(entry.index, outputs[index])
            self._end([])
        elif self.hung:
            for entry in self.entries:
                entry.call.end(EngineTimeout())
            self._end([])
        elif self.waits_behind:  # its worker was lost before its turn: that is no fault of its inputs
            self._on_end(self, [self.piece])
        elif message is None or message[0] == "error":
            self._end(self._halves(_error_of(message)))
        else:
            raise ValueError("this answers another question")
        return True

    def _take_part(self, message: Message | None) -> bool:
        call = self._stream()
        assert call is not None
        if message is not None and message[0] == "part" and isinstance(message[1], dict):
            if not call.ended:
                self._wait(self._limit)
                call.part(message[1])
            return False
        if message is not None and message[0] == "end":
            call.ticket.ran = self.seconds = float(message[1])
            call.end(None)
        elif message is not None and message[0] != "error":
            raise ValueError("this answers another question")
        else:
            self.failed = True
            call.end(EngineTimeout() if self.hung else _error_of(message))
        call.hold = call.go_on = call.stop = None  # the worker is others' now, however slowly the rest is read
        self.worker.resume()
        self._end([])
        return True

    def _is_well_formed(self, message: Message) -> bool:
        return len(message) == 4 and isinstance(message[1], list) and len(message[1]) == len(self.entries)

    def _halves(self, error: HaatError) -> list[Piece]:
        """Return what to run again, after a failure of all of it together."""
        self.failed = True
        trial = self.piece.trial
        trial.failures += 1
        entries = self.piece.alive()
        if len(self.entries) == 1 or trial.hopeless:
            for entry in entries:
                entry.call.end(again(error))
            return []
        middle = (len(entries) + 1) // 2
        return [Piece(half, trial) for half in (entries[:middle], entries[middle:]) if half]

    def _end(self, rest: list[Piece]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.seconds = self.seconds or time.monotonic() - self.began
        if self._parent:
            waits: Sequence[float] = [self.began - entry.since for entry in self.entries]
            calls = [(*both, wait) for both, wait in zip(self._traces, waits, strict=True)]
            traces.log_batch(self._parent, self._key, calls, len(self.entries), self.seconds)
        self._on_end(self, rest)


def _error_of(message: Message | None) -> HaatError:
    if message is None:
        return EngineFailed("The model's process ended at this input; the call is not billed.")
    if message[0] == "error":
        return wire.read_error(message[1])
    return EngineFailed("The model's worker gave no usable answer; the call is not billed.")
