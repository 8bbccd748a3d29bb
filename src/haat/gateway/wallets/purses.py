"""All purses of a gateway process, and the calls that wait for a moment until one of them is filled.

A call whose purse lacks is not refused at once: the keeper may only not have asked yet. It waits on its connection, as
one waits for a place at the provider, and is refused when the control plane says that there is no more, or can't be
asked.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from haat.gateway import admission, relay
from haat.gateway.limits.counts import Counts
from haat.gateway.wallets.cover import Lacking, refused, unavailable
from haat.gateway.wallets.purse import BEAT, DENIAL_US, PREFIX, Purse, key_of, steady
from haat.kernel.errors import HaatError, Overloaded
from haat.usage.event import Outcome

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway

log = logging.getLogger(__name__)

PATIENCE_US: Final = 2_000_000
"""How long a call waits for its purse."""
SILENCE_US: Final = 3_000_000
"""Nobody has asked the control plane for so long: it can't be asked."""
MOST_WAITING: Final = 1_000


class _Waiting(NamedTuple):
    call: Call
    since: int


class Purses:
    """Made by the gateway; it looks at the calls that wait with each of its ticks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._purses: dict[str, Purse] = {}
        self._counts: Counts | None = None
        self._seen = 0
        self._waiting: list[_Waiting] = []

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._waiting)

    @property
    def number(self) -> int:
        """How many purses calls have asked for."""
        return len(self._purses)

    @property
    def answered_lately(self) -> bool:
        """Whether the control plane could be asked for more lately, or nobody has tried yet."""
        beat = self._gateway.limits.counts.signals[BEAT]
        return not beat or steady() - beat < SILENCE_US

    def of(self, fund: str, org: str) -> Purse:
        """Return the purse of a fund; raise Overloaded when the disk has no room for it."""
        self._follow()
        key = key_of(fund, org)
        purse = self._purses.get(key)
        if purse is None:
            try:
                purse = self._open(key)
            except OSError as error:
                raise Overloaded(f"The gateway can't count any further caller's money: {error.strerror}.") from error
        return purse

    def all(self) -> list[Purse]:
        """Return all purses, of calls that came to other processes of this machine, too."""
        self._follow()
        counts = self._gateway.limits.counts
        counts.acquire()
        counts.look()
        counts.release()
        if counts.number != self._seen:
            keys = counts.keys()
            for key in keys[self._seen :]:  # none ever goes, so the new ones are at the end
                if key.startswith(PREFIX) and key not in self._purses:
                    self._open(key)
            self._seen = len(keys)
        return list(self._purses.values())

    def _open(self, key: str) -> Purse:
        counts = self._gateway.limits.counts
        counts.acquire()
        try:
            counts.look()
            purse = self._purses[key] = Purse(counts, key)
        finally:
            counts.release()
        return purse

    def _follow(self) -> None:
        """Forget the purses of counts that were given up for others as the gateway started."""
        if self._counts is not self._gateway.limits.counts:
            self._counts = self._gateway.limits.counts
            self._purses.clear()
            self._seen = 0

    # --- calls that wait -----------------------------------------------------------------------

    def park(self, call: Call, lack: Lacking) -> None:
        """Let a call wait, or refuse it."""
        now = steady()
        error = self._verdict(lack, now, now - DENIAL_US, now)
        if error is not None or len(self._waiting) >= MOST_WAITING:
            relay.refuse(call, error or unavailable(), Outcome.REFUSED)
            return
        call.dispatched = True  # what comes of its body is kept, as if it waited for its provider
        self._waiting.append(_Waiting(call, now))

    def look(self) -> None:
        """Go on with the calls that are covered now, and refuse those that won't be."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            call = one.call
            if call.answered:
                continue
            call.dispatched = False
            try:
                admission.resume(self._gateway, call)
            except Lacking as lack:
                error = self._verdict(lack, steady(), one.since, one.since)
                if error is None:
                    call.dispatched = True
                    self._waiting.append(one)
                else:
                    relay.refuse(call, error, Outcome.REFUSED)
            except HaatError as error:
                relay.refuse(call, error, Outcome.REFUSED)
            except Exception:  # the others must not wait for ever over one call
                log.exception("a call that waited for its purse met an error that should not happen")
                relay.refuse(call, HaatError(), Outcome.REFUSED)

    def _verdict(self, lack: Lacking, now: int, since: int, came: int) -> HaatError | None:
        """Return what to refuse a call with, None as long as it may hope."""
        denied, left = lack.purse.denial()
        if denied > since and left < lack.amount:
            return refused(lack.purse, lack.amount, left)
        if now - came > PATIENCE_US or not self.answered_lately:
            return unavailable()
        return None
