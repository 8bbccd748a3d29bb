"""``Idempotency-Key``: a call that is sent again is not executed again, and not sold twice.

A key belongs to an organisation and a service. The first call with it claims it before anything goes to
the provider, and its answer is kept; later ones get that answer. What this rests on:

- The claim is on disk before dispatch. If its worker is killed, nobody knows whether the provider has
  executed the call: it is not sent again, unless the listing says that this does no harm.
- A client that leaves does not stop its call: the answer is kept for when it asks again. Whoever gets
  the answer first is billed for it; it is billed once.
- Refusals of ours, a provider's 4xx and its 503 say that nothing was done: they free the key.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import TYPE_CHECKING

import msgspec

from haat.gateway import relay
from haat.gateway.call import Call
from haat.gateway.clock import SECOND
from haat.gateway.extras import Extras
from haat.gateway.http.answers import Whole
from haat.gateway.http.streams import Rewriter
from haat.gateway.idempotency.attempts import Attempt, Attempts, Kept, State
from haat.kernel.errors import (
    HaatError,
    IdempotencyInProgress,
    IdempotencyMismatch,
    IdempotencyNotKept,
    IdempotencyUnavailable,
    IdempotencyUnknown,
    InvalidRequest,
)

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway
    from haat.gateway.upstreams.reader import AnswerReader

MAX_KEY = 255
GRACE_SECONDS = 60
"""After its deadline and this long a call is certainly not running any more."""
REPLAYED = b"Idempotency-Replayed: true\r\n"
_BARE = re.compile(rb"[!#-~][ -~]*")
_QUOTED = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_ESCAPE = re.compile(rb'\\(["\\])')


def parse_key(value: bytes) -> bytes:
    """Return the key in a header's value, a quoted string or the same without quotes; raise InvalidRequest."""
    quoted = _QUOTED.fullmatch(value)
    key = _ESCAPE.sub(rb"\1", quoted[1]) if quoted else value
    if not quoted and not _BARE.fullmatch(value):
        key = b""
    if not 1 <= len(key) <= MAX_KEY:
        raise InvalidRequest(
            f'The Idempotency-Key must be one string of 1 to {MAX_KEY} printable ASCII characters, such as "8e03978e".'
        )
    return key


def scope_of(org: str, service: str, key: bytes) -> bytes:
    """Return what a key is kept under. It also goes to the provider, to whom all callers look alike."""
    return hashlib.blake2b(f"{org} {service} ".encode() + key, digest_size=16, person=b"idempotency-key").digest()


def fingerprint_of(method: bytes, target: bytes, body: list[bytes]) -> bytes:
    """Return what tells one request from another."""
    digest = hashlib.blake2b(b"%b %b\n" % (method, target), digest_size=16)
    for part in body:
        digest.update(part)
    return digest.digest()


class Once:
    """A call's key, and its claim. As an answer step it runs last: it keeps what the client gets."""

    __slots__ = ("_attempts", "_call", "_repeatable", "_scope", "_sold", "begun", "claimed", "limit", "sent", "value")

    def __init__(self, value: bytes) -> None:
        self.value = value
        self.begun = False
        self.claimed = False
        self.sent = False
        """The provider may have got the request."""
        self._sold = False

    def begin(self, gateway: Gateway, call: Call) -> bool:
        """Claim the key or answer from what it stands for; raise what speaks against both."""
        credential, route = call.credential, call.route
        assert credential is not None and route is not None
        self.begun = True
        if call.extras is not None and call.extras.websocket:
            return True  # a session has no answer that could be given again
        self._attempts: Attempts = gateway.attempts
        self.limit = gateway.settings.idempotency_answer_bytes
        self._repeatable: bool = route.service.policy.repeatable
        whose = f"{credential.org} test" if credential.test else credential.org  # no live call gets a simulated answer
        self._scope = scope_of(whose, route.service.id, parse_key(self.value))
        self._call: bytes = gateway.ids.octets(call.number)
        fingerprint = fingerprint_of(call.method, call.target, call.body)
        now, until = call.started // SECOND, call.deadline // SECOND + GRACE_SECONDS
        attempt = self._attempts.claim(self._scope, fingerprint, self._call, now, until)
        if attempt is not None:
            if attempt.fingerprint != fingerprint:
                raise IdempotencyMismatch
            if attempt.answer is not None:
                self._replay(call, attempt.answer)
                return False
            self._refuse_or_take_over(attempt, now, until)
        self.claimed = True
        outside = 1 if call.visit is not None and not call.visit.passes else 0
        call.on_answer = [*call.on_answer[:outside], self, *call.on_answer[outside:]]
        call.lines.append(b'Idempotency-Key: "%b"\r\n' % self._scope.hex().encode())
        return True

    def _refuse_or_take_over(self, attempt: Attempt, now: int, until: int) -> None:
        if attempt.state == State.NOT_KEPT:
            raise IdempotencyNotKept
        if attempt.state == State.RUNNING:
            raise IdempotencyInProgress(reset_seconds=1)
        if not self._repeatable:
            raise IdempotencyUnknown
        if not self._attempts.take_over(self._scope, attempt.call, self._call, now, until):
            raise IdempotencyInProgress(reset_seconds=1)

    def _replay(self, call: Call, kept: Kept) -> None:
        """Answer with what is kept: metered, and billed only when nobody was billed for it yet."""
        self._attempts.replayed += 1
        call.dispatched = False  # the quota was used by the call that was executed
        if kept.status < 400 and self._attempts.sell(self._scope):
            self._sold = True
            call.units, call.raw_usage = kept.units, kept.raw_usage
        else:
            assert call.route is not None
            call.units = {"requests": "0", call.route.service.unit: "0"}
        answer = Whole(kept.status, kept.reason, [*kept.lines, REPLAYED], kept.body)
        relay.answer_whole(call, answer, cache="replay")

    # --- what becomes of the claimed call -------------------------------------------------------

    def answered(self, call: Call, answer: Whole) -> None:
        """Keep the answer as the client gets it."""
        if 400 <= answer.status < 500 or answer.status == 503:
            self._settle(None)
        elif len(answer.body) > self.limit:
            self._settle(State.NOT_KEPT)
        else:
            # An answer out of the cache may be cheaper: when its caller doesn't get it, the next one has it free.
            self._sold = answer.status < 400 and call.cache not in ("hit", "partial")
            self._keep(_kept(call, answer))

    def missed(self, call: Call) -> None:
        """The call ended, or went on, in a way that leaves no whole answer."""
        error = call.fault
        if not self.sent and not call.headed and (error is not None or call.upstream is None):
            self._settle(None)  # nothing has reached the provider
        elif error is None and call.headed:
            self._settle(State.NOT_KEPT)  # a stream, or too large to be collected
        elif self._repeatable:
            self._settle(None)
        elif error is None or call.client.gateway.draining:
            self._settle(State.UNKNOWN)
        else:
            self._keep(_kept_problem(call, error))

    def copies(self, call: Call, upstream: AnswerReader) -> None:
        """Keep a stream as it passes. What isn't kept to its end stays NOT_KEPT."""
        if self.claimed and call.method != b"HEAD":
            extras = call.extras = call.extras or Extras()
            extras.rewriter = _Copy(self, call, upstream, extras.rewriter)

    def copied(self, call: Call, answer: Whole) -> None:
        """A stream has passed whole."""
        if answer.status < 400 or answer.status >= 500:
            self._sold = answer.status < 400
            self._keep(_kept(call, answer))

    def goes_on(self, call: Call) -> bool:
        """Tell whether the call is carried on although its client has left: for when it asks again."""
        streams = call.headed and call.collected is None
        return self.claimed and not streams and not call.answered and not call.client.gateway.draining

    def unsold(self) -> None:
        """The answer was recorded as billed and never reached its caller whole: the next one is billed."""
        if self._sold:
            self._sold = False
            with contextlib.suppress(IdempotencyUnavailable):  # logged; in doubt for the customer, who gets it free
                self._attempts.take_back(self._scope)

    def _keep(self, kept: Kept) -> None:
        # When that fails, the claim stays as it is: whoever asks again is told that the outcome isn't known.
        with contextlib.suppress(IdempotencyUnavailable):
            self._attempts.finish(self._scope, self._call, kept, sold=kept.status < 400)

    def _settle(self, state: State | None) -> None:
        with contextlib.suppress(IdempotencyUnavailable):
            if state is None:
                self._attempts.release(self._scope, self._call)
            else:
                self._attempts.settle(self._scope, self._call, state)


class _Copy(Rewriter):
    """Stands in a stream's way and changes nothing: after whatever else does."""

    def __init__(self, once: Once, call: Call, upstream: AnswerReader, before: Rewriter | None) -> None:
        super().__init__((), (), before)
        self._once, self._call = once, call
        self._answer = Whole(upstream.status, upstream.reason, upstream.lines, b"")
        self._copied: list[bytes] | None = []
        self._room = once.limit

    def feed(self, data: bytes, ended: bool) -> bytes:
        if self._before is not None:
            data = self._before.feed(data, ended)
        if self._copied is not None:
            self._room -= len(data)
            self._copied.append(data)
            if self._room < 0:
                self._copied = None
            elif ended:
                self._answer.body = b"".join(self._copied)
                self._once.copied(self._call, self._answer)
        return data


def _kept(call: Call, answer: Whole) -> Kept:
    return Kept(answer.status, answer.reason, tuple(answer.lines), answer.body, call.units, call.raw_usage)


def _kept_problem(call: Call, error: HaatError) -> Kept:
    lines = (b"Content-Type: application/problem+json\r\n",)
    return Kept(error.status, b"", lines, msgspec.json.encode(error.problem(call.id)))
