"""A pipeline whose items flow: a stage works on one item while the stage behind it works on the item before.

Every item is a call of its own at every stage, and what comes of it leaves at once, as an event. Each stage has one
call at a time and at most one item's work waits before it, so an item that can't go on holds back those behind it. A
caller who does not read holds all of them back: then no call begins.
"""

from __future__ import annotations

import asyncio
from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway import relay
from haat.gateway.call import Call
from haat.gateway.clock import SECOND
from haat.gateway.doors import inner
from haat.gateway.doors.answers import read_task_answer, refusal_in
from haat.gateway.doors.events import EVENTS, NO_STORE, EventAnswer
from haat.gateway.doors.pipeline import Stage, StageFailed, next_input
from haat.gateway.doors.tally import Tally, charge_of
from haat.gateway.doors.visit import Visit
from haat.gateway.http.answers import Whole
from haat.gateway.idempotency.chains import ChainKey
from haat.kernel.errors import HaatError, ProviderFailed, ProviderTimeout
from haat.kernel.money import exact, total
from haat.language import sentences
from haat.usage.event import Outcome

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway

MOST_ITEMS = 1000
"""Items of one request, and sentences of one text."""
GRACE_US = SECOND
"""So long after its time a pipeline is ended that nobody reads."""
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Piece:
    """What goes through the stages: an item, or a sentence of one. ``part`` counts those of a text that was divided."""

    __slots__ = ("content", "item", "part", "parts")

    def __init__(self, content: dict[str, Any], item: int, part: int = 0, parts: int = 0) -> None:
        self.content, self.item, self.part, self.parts = content, item, part, parts

    def place(self) -> dict[str, int]:
        """Return where in the input it belongs; members count from 0."""
        return {"item": self.item, "part": self.part, "parts": self.parts} if self.parts else {"item": self.item}


class _Failure:
    """What ends a flow. ``call`` is None when it never began."""

    __slots__ = ("call", "error", "number", "piece")

    def __init__(self, number: int, error: HaatError, piece: Piece, call: Call | None) -> None:
        self.number, self.error, self.piece, self.call = number, error, piece, call


class Line:
    """A stage, what waits before it, what it works on, and what it has done."""

    __slots__ = ("call", "charge", "ids", "piece", "stage", "units", "waiting")

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.waiting: deque[Piece] = deque()
        self.piece: Piece | None = None
        self.call: Call | None = None
        self.ids: list[str] = []
        self.units: dict[str, Decimal] = {}
        self.charge = Tally()

    def done(self, call: Call) -> None:
        """Add a call that ended well."""
        self.ids.append(call.id)
        for unit, quantity in call.units.items():
            self.units[unit] = total((self.units.get(unit, Decimal(0)), exact(quantity)))
        self.charge.add(call, self.stage.route)

    def report(self) -> dict[str, Any]:
        """Return what was done, as `Stage.report` does of one call."""
        amount = self.charge.charge_text() if self.ids else ""
        return {
            "name": self.stage.name,
            "service": self.stage.route.service.path,
            "request_ids": self.ids,
            "units": {unit: format(quantity, "f") for unit, quantity in self.units.items()},
            **({"charge": amount} if amount else {}),
        }


class Flow:
    """One run. As an answer step of the outer call it learns when its caller leaves."""

    def __init__(
        self,
        gateway: Gateway,
        outer: Call,
        visit: Visit,
        stages: list[Stage],
        items: list[dict[str, Any]],
        timeout_us: int,
        divides: bool,
        key: ChainKey | None,
    ) -> None:
        self._gateway, self._outer, self._key, self._divides = gateway, outer, key, divides
        self._lines = [Line(stage) for stage in stages]
        self._items = deque(Piece(item, number) for number, item in enumerate(items))
        self._until = outer.started + timeout_us
        self._events = EventAnswer(outer, visit)
        self._tally = Tally()
        self._copy: list[bytes] = []
        self._copied = 0
        self._over = False
        self._failure: _Failure | None = None
        self._pumping = False
        outer.recorded = True  # what is recorded are the calls
        outer.body = []
        outer.on_answer = [*outer.on_answer, self]
        visit.go_on = self.pump
        left = max(0, self._until + GRACE_US - gateway.clock.now_us()) / SECOND
        self._timer = asyncio.get_running_loop().call_later(left, self._out_of_time)

    def pump(self) -> None:
        """Begin every call that can begin now, those nearest to the end first."""
        if self._pumping:
            return
        self._pumping = True
        begun = True
        while begun:
            begun = False
            for number in range(len(self._lines) - 1, -1, -1):
                if self._can_begin(number):
                    self._begin(number)
                    begun = True
        self._pumping = False

    def _can_begin(self, number: int) -> bool:
        if self._over or self._failure is not None or self._outer.client.write_paused:
            return False
        line = self._lines[number]
        if line.piece is not None or not (line.waiting or (number == 0 and self._items)):
            return False
        if number + 1 < len(self._lines) and self._lines[number + 1].waiting:
            return False
        service = line.stage.route.service.id  # one call at a time of each service: plans may allow no more
        return all(other.piece is None or other.stage.route.service.id != service for other in self._lines)

    def _begin(self, number: int) -> None:
        line = self._lines[number]
        if not line.waiting:
            self._enter(number, self._items.popleft())
        line.piece = piece = line.waiting.popleft()
        line.call = None
        if self._gateway.clock.now_us() >= self._until:
            self._fail(number, ProviderTimeout("The time for the whole pipeline was over before this began."))
            return
        body = _encode({"input": [piece.content], "config": line.stage.config})
        key = self._key.of(number, piece.item, piece.part) if self._key is not None else b""
        line.call = inner.begin(self._gateway, self._outer, line.stage.target, body, self._until, self._ended, key)

    def _enter(self, number: int, piece: Piece) -> None:
        """Put a piece before a stage, in sentences if it is a text that the caller wants divided."""
        waiting, text = self._lines[number].waiting, piece.content.get("text")
        if self._divides and not piece.parts and isinstance(text, str):
            found = sentences(text)
            if 1 < len(found) <= MOST_ITEMS:
                for part, sentence in enumerate(found):
                    waiting.append(Piece({**piece.content, "text": sentence}, piece.item, part, len(found)))
                return
        waiting.append(piece)

    def _ended(self, call: Call, answer: Whole | None, error: HaatError | None) -> None:
        if self._over:
            return
        number = next(at for at, line in enumerate(self._lines) if line.call is call)
        line = self._lines[number]
        if answer is not None and answer.status >= 400:
            error = refusal_in(answer)
        outputs: list[dict[str, Any]] = []
        if error is None:
            assert answer is not None
            try:
                outputs, _ = read_task_answer(answer)
            except HaatError as trouble:
                error = trouble
            if error is None and len(outputs) != 1:
                error = ProviderFailed("The provider did not answer the one input with one output.")
        if error is not None:
            self._fail(number, error)
            return
        self._go_on(number, line, call, outputs[0])

    def _go_on(self, number: int, line: Line, call: Call, output: dict[str, Any]) -> None:
        """Send what a stage has made of a piece, and give it to the stage behind."""
        piece, line.piece, line.call = line.piece, None, None
        assert piece is not None
        line.done(call)
        self._tally.add(call, line.stage.route)
        charge = charge_of(call, line.stage.route)
        said = {
            "stage": number + 1,
            "name": line.stage.name,
            **piece.place(),
            "output": output,
            "request_id": call.id,
            "units": call.units,
            **({"charge": charge} if charge else {}),
        }
        self._send(b"event: output\ndata: %b\n\n" % _encode(said))
        if self._failure is not None:
            return
        if number + 1 < len(self._lines):
            behind = self._lines[number + 1]
            piece = Piece({}, piece.item, piece.part, piece.parts)
            try:
                piece.content = next_input(output, behind.stage)
            except HaatError as error:
                self._fail(number + 1, error, piece)
                return
            self._enter(number + 1, piece)
        elif not self._items and not any(one.waiting or one.piece is not None for one in self._lines):
            self._end()
            return
        self.pump()

    def _send(self, event: bytes) -> None:
        self._events.send(event)
        if self._key is not None:
            self._copied += len(event)
            if self._key.room_for(self._copied):
                self._copy.append(event)
            else:
                self._copy.clear()

    def _end(self) -> None:
        said: dict[str, Any] = {"stages": [line.report() for line in self._lines], **self._tally.summary()}
        self._send(b"event: done\ndata: %b\n\n" % _encode(said))
        self._send(b"data: [DONE]\n\n")
        self._close()
        if self._key is not None:
            if self._key.room_for(self._copied):
                self._key.keep(200, (EVENTS, NO_STORE, *self._tally.served_lines()), b"".join(self._copy))
            else:
                self._key.stop()
        self._events.end()

    def _fail(self, number: int, error: HaatError, piece: Piece | None = None) -> None:
        """Begin nothing more, and end the whole as soon as what has just been answered elsewhere has been sent."""
        line = self._lines[number]
        call = line.call if piece is None else None
        piece = piece or line.piece
        assert piece is not None
        if piece is line.piece:
            line.piece, line.call = None, None
        if self._failure is None:
            self._failure = _Failure(number, error, piece, call)
            asyncio.get_running_loop().call_soon(self._end_failed)

    def _end_failed(self) -> None:
        """Say in a last event, or in a refusal if there was none, which stage and item failed; give up what runs."""
        failure = self._failure
        if self._over or failure is None:
            return
        if any(line.call is not None and line.call.answered for line in self._lines):
            asyncio.get_running_loop().call_soon(self._end_failed)  # it has been paid for: it is sent first
            return
        done = [line.report() for line in self._lines if line.ids]
        running = any(line.call is not None for line in self._lines)
        stage = self._lines[failure.number].stage
        failed = StageFailed(failure.error, stage, failure.number, failure.call, done, **failure.piece.place())
        self._close()
        if self._key is not None:
            if done or running or failed.lasts:
                self._key.stop()
            else:
                self._key.free()
        if self._events.begun:
            self._events.fail(failed)
        else:
            relay.refuse(self._outer, failed, Outcome.REFUSED)

    def _out_of_time(self) -> None:
        """End what nothing else has ended: no call runs that could tell, because the caller doesn't read."""
        if not self._over:
            client = self._outer.client
            relay.client_left(self._outer)
            client.abort()

    def _close(self) -> None:
        """Begin nothing more, and give up what runs."""
        if self._over:
            return
        self._over = True
        self._timer.cancel()
        self._items.clear()
        for line in self._lines:
            line.waiting.clear()
            if line.call is not None and not line.call.answered:
                inner.give_up(line.call)

    # --- as an answer step of the outer call --------------------------------------------------------

    def answered(self, call: Call, answer: Whole) -> None:
        """It is answered in events."""

    def missed(self, call: Call) -> None:
        """The caller has left, or the whole was refused before its first event."""
        self._close()
        if self._key is not None:
            self._key.stop()
