"""Calls that the gateway makes for a caller's one request: a stage of a pipeline is a call like any other.

It is admitted, limited, recorded and charged by itself, under an id of its own; only that its answer goes to the
gateway and not to a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from haat.gateway import admission, relay
from haat.gateway.call import NO_ID_LINE, Call
from haat.gateway.extras import extras_of
from haat.gateway.http.answers import Whole
from haat.gateway.http.client import Client
from haat.gateway.idempotency.once import Once
from haat.gateway.limits.reservations import DECLARATION
from haat.gateway.simulator.step import HEADER
from haat.kernel.errors import HaatError, ProviderFailed

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway

JSON = b"Content-Type: application/json\r\n"
CARRIED = frozenset({HEADER, DECLARATION, b"cache-control"})
"""Headers of the caller's that are each stage's too: a failure to simulate, the most of a unit, no kept answers."""
Done = Callable[[Call, Whole | None, HaatError | None], None]
"""Is told how an inner call ended: with an answer, good or not, or with what refused it."""


class InnerClient(Client):
    """The client's end of an inner call: takes the answer in, and confirms its record at once.

    What a stage has done is done, whatever becomes of those behind it.
    """

    def __init__(self, gateway: Gateway, done: Done) -> None:
        super().__init__(gateway)
        self.left = False
        """Nobody waits for the answer any more: it is kept for who asks again, and sold to him."""
        self._done_with = done
        self._answer: Whole | None = None
        self._error: HaatError | None = None

    @property
    def write_paused(self) -> bool:
        return False

    @property
    def takes_parts(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        """The bytes are those of a message for somebody else: `answered` and `missed` say what is in it."""

    def drained(self) -> bool:
        return True

    def drains(self, call: Call) -> bool:
        return True

    def peer(self) -> str:
        return ""

    def hold_reading(self) -> None:
        pass

    def release_reading(self) -> None:
        pass

    def abort(self) -> None:
        """The answer broke off: `relay.fail` has recorded why."""
        self._over()

    def take_back(self, call: Call, error: HaatError) -> None:
        self._error = error

    def finished(self, call: Call) -> None:
        gateway = self.gateway
        gateway.calls.discard(call)
        gateway.meter.write_turn()
        if self.left:
            gateway.meter.client_left(call)
        else:
            gateway.meter.confirm(call)  # unless its record was taken back
        self._over()

    def _over(self) -> None:
        call, self.active = self.active, None
        if call is None:
            return
        self.gateway.calls.discard(call)
        if self._error is None and self._answer is None:
            self._error = ProviderFailed("The provider broke off its answer; the call is not billed.")
        # Not from within the end of this call: the next one begins with a stack of its own.
        asyncio.get_running_loop().call_soon(
            self._done_with, call, None if self._error is not None else self._answer, self._error
        )

    # --- as the outermost answer step of its call ---------------------------------------------------

    def answered(self, call: Call, answer: Whole) -> None:
        self._answer = answer

    def missed(self, call: Call) -> None:
        self._error = call.fault


def begin(gateway: Gateway, outer: Call, target: bytes, body: bytes, until: int, done: Done, key: bytes = b"") -> Call:
    """Begin an inner call of the task schema, in the name of the outer one's caller.

    ``until`` is when the whole must be over, in the gateway clock's microseconds. ``done`` is called from the event
    loop, never before this returns. ``key`` is an Idempotency-Key of its own. Return the call, so that it can be
    given up with `give_up`.
    """
    client = InnerClient(gateway, done)
    call = Call(client)
    client.active = call
    call.method, call.target, call.hosts = b"POST", target, 1
    call.bearer, call.api_key = outer.bearer, outer.api_key
    call.lines = [JSON, *[line for line in outer.lines if line.partition(b":")[0].lower() in CARRIED]]
    call.body = [body]
    call.body_size = call.content_length = len(body)
    call.body_complete = True
    call.on_answer = [client]
    call.labelled, call.user, call.tags = True, outer.user, outer.tags
    call.caller_request_id = outer.caller_request_id
    if key:
        call.once = Once(key)
    extras = extras_of(call)
    if outer.extras is not None and outer.extras.trace:
        extras.trace, extras.trace_state, extras.has_parent = outer.extras.trace, outer.extras.trace_state, True
    elif outer.id_line != NO_ID_LINE:
        extras.trace, extras.has_parent = outer.id.replace("-", "").encode("ascii"), True
    admission.begin(gateway, call)
    if 0 < until < call.deadline:
        call.deadline = until
    return call


def give_up(call: Call) -> None:
    """End an inner call nobody waits for any more: its provider is left, and what it did is not billed.

    One with a key is carried to its end, as every call with a key is whose caller leaves.
    """
    client = call.client
    if call.once is not None and call.once.goes_on(call):
        assert isinstance(client, InnerClient)
        client.left = True
        return
    client.active = None
    if not call.answered:
        client.gateway.calls.discard(call)
        relay.client_left(call)
