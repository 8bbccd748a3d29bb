"""``Idempotency-Key`` on a request that several calls answer: pipelines, translations, ULCA's tasks in a row.

Each of its calls has a key of its own, made of the request's, and is protected as every call is (`once`).
So a request that has stopped half-way, refused, broken off or killed with its worker, goes on where it stopped when it
is sent again: what is done is answered again and not sold again. What this keeps beside that is which services were
chosen, because another time the choice may be another one, and the answer once it is whole.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway import relay
from haat.gateway.call import Call
from haat.gateway.clock import SECOND
from haat.gateway.http import cors
from haat.gateway.http.answers import Whole
from haat.gateway.idempotency.attempts import Attempts, Kept, State
from haat.gateway.idempotency.once import GRACE_SECONDS, REPLAYED, fingerprint_of, parse_key, scope_of
from haat.kernel.errors import (
    IdempotencyInProgress,
    IdempotencyMismatch,
    IdempotencyNotKept,
    IdempotencyUnavailable,
)

if TYPE_CHECKING:
    from haat.gateway.doors.visit import Visit
    from haat.gateway.gateway import Gateway

_NOTHING_USED = b"X-Haat-Units: requests=0\r\nX-Haat-Charge: 0 INR\r\n"
_NO_PLAN = Kept(0, b"", (), b"")


class Chosen(msgspec.Struct, frozen=True, array_like=True):
    """What one stage does: a service with its version, its options, and what is said of why it was chosen."""

    service: str
    config: dict[str, Any]
    reason: dict[str, Any] | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Chosen]).decode


class ChainKey:
    """The key of one such request, and its claim."""

    def __init__(self, gateway: Gateway, call: Call, visit: Visit, timeout_us: int, streams: bool) -> None:
        """Raise InvalidRequest for a key that is none."""
        credential = call.credential
        assert credential is not None and call.once is not None
        self._attempts: Attempts = gateway.attempts
        self._limit = gateway.settings.idempotency_answer_bytes
        whose = f"{credential.org} test" if credential.test else credential.org
        operation = visit.operation.name.replace(" ", "-")
        self._scope = scope_of(whose, operation, parse_key(call.once.value))
        self._call: bytes = gateway.ids.octets(call.number)
        target = visit.target + b" stream" if streams else visit.target
        self._fingerprint = fingerprint_of(call.method, target, call.body)
        self._now = call.started // SECOND
        self._until = (call.started + timeout_us) // SECOND + GRACE_SECONDS
        self._open = False
        self.plan: list[Chosen] = []
        """What the request had chosen when it stopped; empty for one that is new."""

    def begin(self, gateway: Gateway, call: Call) -> bool:
        """Claim the key, or answer from what it stands for and return False; raise what speaks against both."""
        attempts = self._attempts
        attempt = attempts.claim(self._scope, self._fingerprint, self._call, self._now, self._until)
        if attempt is not None:
            if attempt.fingerprint != self._fingerprint:
                raise IdempotencyMismatch
            if attempt.state == State.ANSWERED and attempt.answer is not None:
                self._replay(gateway, call, attempt.answer)
                return False
            if attempt.state == State.NOT_KEPT:
                raise IdempotencyNotKept
            if attempt.state == State.RUNNING or not attempts.take_over(
                self._scope, attempt.call, self._call, self._now, self._until
            ):
                raise IdempotencyInProgress(reset_seconds=1)
            if attempt.answer is not None:
                self.plan = _decode(attempt.answer.body)
        self._open = True
        return True

    def note(self, plan: list[Chosen]) -> None:
        """Keep what the stages are before the first of them begins; raise IdempotencyUnavailable."""
        try:
            self._attempts.note(self._scope, self._call, msgspec.structs.replace(_NO_PLAN, body=_encode(plan)))
        except IdempotencyUnavailable:
            self.free()
            raise

    def of(self, stage: int, item: int = 0, part: int = 0) -> bytes:
        """Return the key of one of its calls."""
        return b"%b-%d-%d-%d" % (self._scope.hex().encode("ascii"), stage, item, part)

    def room_for(self, size: int) -> bool:
        """Tell whether an answer of so many bytes would be kept."""
        return size <= self._limit

    # --- how it ended: the first of these counts ----------------------------------------------------

    def keep(self, status: int, lines: tuple[bytes, ...], body: bytes) -> None:
        """Keep an answer, which is given again as it is. A large one is made anew of its calls' answers instead."""
        if not self.room_for(len(body)):
            self.stop()
        elif self._ends():
            with contextlib.suppress(IdempotencyUnavailable):  # it stays as it is: in doubt, and carried on with
                self._attempts.finish(self._scope, self._call, Kept(status, b"", lines, body), sold=True)

    def stop(self) -> None:
        """Let whoever sends the request again go on where it stops now."""
        if self._ends():
            with contextlib.suppress(IdempotencyUnavailable):
                self._attempts.settle(self._scope, self._call, State.UNKNOWN)

    def free(self) -> None:
        """Free the key: nothing was done, by no stage."""
        if self.plan:
            self.stop()  # an earlier request with this key may have done something
        elif self._ends():
            with contextlib.suppress(IdempotencyUnavailable):
                self._attempts.release(self._scope, self._call)

    def _ends(self) -> bool:
        was, self._open = self._open, False
        return was

    def _replay(self, gateway: Gateway, call: Call, kept: Kept) -> None:
        self._attempts.replayed += 1
        call.units = {"requests": "0"}
        used = _NOTHING_USED if kept.status < 400 else b""
        lines = [*kept.lines, REPLAYED, used, cors.lines(gateway, call)]
        relay.answer_whole(call, Whole(kept.status, b"", lines, kept.body), cache="replay")
