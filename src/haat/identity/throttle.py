"""How often somebody may try: guards of sign-in and sign-up against scripts (OWASP API6:2023).

The counts live in the memory of the one control process: they are small, they end by themselves,
and a restart that forgets them gives a guesser ten more tries. The guards:

- e-mail: 10 wrong passwords, then one try a minute; a right password clears it.
- address, sign-in: 60 tries, then one every ten seconds.
- address, sign-up: 10 accounts, then one every ten minutes.
- e-mail, forgotten passwords: 3 mails, then one every twenty minutes; address: 10, then one every six minutes.
- e-mail, invitations: 5 mails, then one an hour; organisation: 50, then one every ten minutes.

Only public addresses are counted: any other is this machine or a proxy that many stand behind, and
the proxy has to limit by address itself. Of IPv6 the network counts (64 bits), because whoever has
one address there has them all.
"""

from __future__ import annotations

import ipaddress
import math
from datetime import datetime, timedelta
from uuid import UUID

from haat.kernel.clock import Clock
from haat.kernel.errors import RateLimited
from haat.language.messages import _

_MOST_KEYS = 50_000


class Throttle:
    """Allows ``burst`` tries at once and one more every ``refill``, for each key (GCRA)."""

    def __init__(self, clock: Clock, *, burst: int, refill: timedelta) -> None:
        self._clock = clock
        self._window = burst * refill
        self._refill = refill
        self._clear_at: dict[str, datetime] = {}

    def take(self, key: str) -> None:
        """Count one try; raise RateLimited, with the seconds to wait, for one too many."""
        now = self._clock.now()
        clear_at = max(self._clear_at.pop(key, now), now) + self._refill
        wait = clear_at - self._window - now
        if wait > timedelta(0):
            self._clear_at[key] = clear_at - self._refill
            seconds = math.ceil(wait.total_seconds())
            raise RateLimited(
                _("Too many tries: wait %(seconds)s s and try again.", seconds=seconds), retry_after=seconds
            )
        self._clear_at[key] = clear_at
        if len(self._clear_at) > _MOST_KEYS:
            self._forget_some(now)

    def forget(self, key: str) -> None:
        """Start a key afresh."""
        self._clear_at.pop(key, None)

    def _forget_some(self, now: datetime) -> None:
        """Drop the keys that are clear; if too many are not, those whose last try is longest ago."""
        living = [(key, at) for key, at in self._clear_at.items() if at > now]
        self._clear_at = dict(living[-_MOST_KEYS // 2 :])


class Guards:
    """The throttles of identity."""

    def __init__(self, clock: Clock) -> None:
        self._email = Throttle(clock, burst=10, refill=timedelta(minutes=1))
        self._sign_in = Throttle(clock, burst=60, refill=timedelta(seconds=10))
        self._sign_up = Throttle(clock, burst=10, refill=timedelta(minutes=10))
        self._reset = Throttle(clock, burst=10, refill=timedelta(minutes=6))
        self._reset_mails = Throttle(clock, burst=3, refill=timedelta(minutes=20))
        self._invite = Throttle(clock, burst=50, refill=timedelta(minutes=10))
        self._invite_mails = Throttle(clock, burst=5, refill=timedelta(hours=1))

    def sign_up(self, address: str | None) -> None:
        """Count a new account; raise RateLimited."""
        if network := network_of(address):
            self._sign_up.take(network)

    def sign_in(self, email: str, address: str | None) -> None:
        """Count a try before its password is looked at, so that parallel guesses count too; raise RateLimited."""
        if network := network_of(address):
            self._sign_in.take(network)
        self._email.take(_key(email))

    def signed_in(self, email: str) -> None:
        """Clear an e-mail address after a right password."""
        self._email.forget(_key(email))

    def reset(self, email: str, address: str | None) -> None:
        """Count a mail to somebody who forgot a password, whether the address is known or not; raise RateLimited."""
        if network := network_of(address):
            self._reset.take(network)
        self._reset_mails.take(_key(email))

    def invite(self, email: str, org: UUID) -> None:
        """Count a mail that invites somebody; raise RateLimited."""
        self._invite_mails.take(_key(email))
        self._invite.take(str(org))


def _key(email: str) -> str:
    return email.casefold()[:320]  # no longer address exists


def network_of(address: str | None) -> str | None:
    """Return what a public address is counted as, or None for one that many may stand behind."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    if not found.is_global:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
