"""Connections beyond the cap: told at once that there is no room, so that they try elsewhere or later.

They may ask for the gateway's health all the same, because a probe that fails under load would have a busy
gateway ended and its callers lost. Nothing but their first line is read, and each is closed after one
answer, so it doesn't matter what else they send.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import msgspec

from haat.gateway import health
from haat.gateway.http import answers
from haat.kernel.errors import Overloaded

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway

WAITED_FOR = 256
"""So many at a time are asked what they want; further ones are turned away unheard."""
PATIENCE_SECONDS = 2
_LONGEST_LINE = 1024


class Surplus:
    """One connection too many, an `asyncio.Protocol` by its methods."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._line = b""
        self._answered = False
        self._transport: asyncio.Transport
        self._patience: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        gateway = self._gateway
        self._patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._answer)
        if len(gateway.surplus) >= WAITED_FOR:
            self._answer()
        gateway.surplus.add(self)

    def data_received(self, data: bytes) -> None:
        if not self._answered:
            self._line += data
            if b"\n" in self._line or len(self._line) > _LONGEST_LINE:
                self._answer()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        """There is one small answer, which fits any buffer."""

    def resume_writing(self) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.cancel()
        self._gateway.surplus.discard(self)

    def abort(self) -> None:
        self._transport.abort()

    def _answer(self) -> None:
        self._answered = True
        self._patience.cancel()
        gateway = self._gateway
        gateway.turned_away += 1
        now = gateway.clock.tick()
        identifier = gateway.ids.line(gateway.ids.next(now))
        words = self._line.partition(b"\r\n")[0].split(b" ")
        if len(words) == 3 and words[0] in (b"GET", b"HEAD") and health.is_asked(words[1]):
            status, body = health.report(gateway, words[1])
            kind, headers = b"application/json", b"Cache-Control: no-store\r\n"
        else:
            error = Overloaded("The gateway has as many connections as it takes: try again shortly.")
            status, body = (
                error.status,
                msgspec.json.encode(error.problem(identifier[len(b"X-Request-ID: ") : -2].decode())),
            )
            kind, headers = b"application/problem+json", b"Retry-After: 1\r\n"
        self._transport.write(
            b"%b%bContent-Type: %b\r\nContent-Length: %d\r\n%b%bConnection: close\r\n\r\n%b"
            % (
                answers.status_line(status, b""),
                answers.date_line(now),
                kind,
                len(body),
                identifier,
                headers,
                b"" if words[0] == b"HEAD" else body,
            )
        )
        # Ended on our side only: closed with bytes unread it would be reset, and the answer lost.
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._transport.close)
