"""A request handed on to the control process: introduced, whole, and answered as that answers.

The gateway holds no facts of the past. What needs them (jobs, files, feedback) goes this way, off the path of calls;
while the control process does not answer, only this is refused.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from haat.gateway import relay
from haat.gateway.call import BUFFERED_BODY
from haat.gateway.doors.spool import PIECE, Spool
from haat.gateway.http import answers, cors
from haat.gateway.http.headers import without
from haat.infra.introduction import HEADERS, Introduced, Introductions
from haat.infra.rendezvous import FRONT, Rendezvous
from haat.kernel.errors import Overloaded
from haat.usage.event import Outcome

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.doors.visit import Visit
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.connection import ClientConnection

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 300.0
"""How long an answer is waited for from the request's first byte on: a file of 100 MiB is stored meanwhile."""
MOST_HANDED_ON = 1000
_MOST_HEAD = 64 * 1024
_NOT_PASSED_ON = (
    b"connection", b"host", b"authorization", b"x-api-key", b"cookie", b"content-length", b"transfer-encoding",
    b"expect", b"keep-alive", b"upgrade", *(name.encode() for name in HEADERS),
)  # fmt: skip
_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_SLASHES = re.compile(rb"/{2,}")
_ELSEWHERE = b"/openai/v1/"


class Office:
    """What a gateway needs to hand requests on; made once."""

    def __init__(self, gateway: Gateway) -> None:
        self.rendezvous = Rendezvous(gateway.settings.data_dir, FRONT)
        self.introductions = Introductions(gateway.keyring)
        self.handed_on = 0


def spool_body(gateway: Gateway, call: Call, visit: Visit) -> None:
    """Move what has come of a large body to a file."""
    if call.body_size <= BUFFERED_BODY and visit.asked is None:
        return
    if visit.asked is None:
        visit.asked = Spool(gateway.settings.data_dir)
    for data in call.body:
        visit.asked.write(data)
    call.body = []


def hand_on(
    gateway: Gateway, call: Call, visit: Visit, path: bytes = b"", *, answer_seconds: float = ANSWER_SECONDS
) -> None:
    """Hand a request on whose body is here whole; ``path`` stands for its own. Raise Overloaded when too many are."""
    if gateway.office.handed_on >= MOST_HANDED_ON:
        raise Overloaded("Too many ask for this at the moment: try again shortly.", reset_seconds=5)
    handing = Handing(gateway, call, visit, path, answer_seconds)
    work = asyncio.get_running_loop().create_task(handing.carry())
    handing.task = work
    gateway.tunnel_work.add(work)
    work.add_done_callback(gateway.tunnel_work.discard)


class Handing:
    """One request on its way. Its answer is the last one on the client's connection."""

    def __init__(self, gateway: Gateway, call: Call, visit: Visit, path: bytes, answer_seconds: float) -> None:
        self._gateway, self._call, self._visit, self._path = gateway, call, visit, path
        self._answer_seconds = answer_seconds
        self.task: asyncio.Task[None] | None = None
        self.room = asyncio.Event()
        self.room.set()

    async def carry(self) -> None:
        """Send the request, and the answer back; refuse it when nobody is there to take it."""
        office = self._gateway.office
        office.handed_on += 1
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_unix_connection(office.rendezvous.path, limit=_MOST_HEAD)
        except (OSError, TimeoutError) as error:
            office.handed_on -= 1
            self._give_up(error)
            return
        try:
            await self._exchange(reader, writer)
        finally:
            office.handed_on -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = self._call
        try:
            async with asyncio.timeout(self._answer_seconds):
                await self._send(writer)
                head = await reader.readuntil(b"\r\n\r\n")
        except (EOFError, asyncio.LimitOverrunError, OSError, TimeoutError) as error:
            self._give_up(error)
            return
        if call.answered:
            return  # the client has left meanwhile
        call.answered = True
        client = cast("ClientConnection", call.client)
        near = client.hand_over(cast(Any, _Near(self, client, call)))
        self._gateway.passages.add(cast(Any, self))
        try:
            near.write(head[:-2] + self._lines() + b"\r\n")
            while data := await reader.read(PIECE):
                await self.room.wait()
                near.write(data)
        except ConnectionError:
            near.abort()  # an answer that breaks off must not look like a whole one
        finally:
            self._gateway.passages.discard(cast(Any, self))
            near.close()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self._head())
        try:
            for piece in self._body():
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass  # it may have answered before it had the whole body

    def _give_up(self, error: Exception) -> None:
        log.error("the control process does not answer: %r", error)
        if not self._call.answered:
            refusal = Overloaded("The control plane does not answer right now: try again shortly.", reset_seconds=2)
            relay.refuse(self._call, refusal, Outcome.REFUSED)

    def _head(self) -> bytes:
        call, credential = self._call, self._call.credential
        assert credential is not None
        method, target = call.method.decode("ascii"), self._target()
        who = Introduced(credential.org, credential.application, credential.id, credential.test, call.id)
        introduction = self._gateway.office.introductions.make(who, method, target.decode("ascii", "replace"))
        spool: Spool | None = self._visit.asked
        size = spool.size if spool is not None else sum(map(len, call.body))
        return b"".join(
            (
                b"%b %b HTTP/1.1\r\nHost: control\r\nConnection: close\r\n" % (call.method, target),
                *(f"{name}: {value}\r\n".encode() for name, value in introduction),
                *without(call.lines, _NOT_PASSED_ON),
                b"Content-Length: %d\r\n\r\n" % size,
            )
        )

    def _target(self) -> bytes:
        """Return the address in its one plain form."""
        path, question, query = _ABSOLUTE.sub(b"", self._call.target, count=1).partition(b"?")
        plain = self._path or _SLASHES.sub(b"/", path)
        if plain.startswith(_ELSEWHERE):
            plain = plain.removeprefix(b"/openai")
        return (plain.rstrip(b"/") or b"/") + question + query

    def _body(self) -> Iterator[bytes]:
        spool: Spool | None = self._visit.asked
        if spool is None:
            yield from self._call.body
            return
        for start in range(0, spool.size, PIECE):
            yield spool.read(start, min(start + PIECE, spool.size))

    def _lines(self) -> bytes:
        """Return what every answer of the gateway says."""
        gateway, call = self._gateway, self._call
        mine = call.id_line + gateway.security_lines + cors.lines(gateway, call) + self._visit.id_line(call)
        return mine + answers.date_line(gateway.clock.lately)

    def end(self) -> None:
        """Break it off: the client has left, or the gateway is being stopped."""
        if self.task is not None:
            self.task.cancel()


class _Near(asyncio.Protocol):
    """The client's side while the answer goes out; what still comes from there is not read."""

    def __init__(self, handing: Handing, client: ClientConnection, call: Call) -> None:
        self._handing, self._client, self._call = handing, client, call

    def data_received(self, data: bytes) -> None:
        return None

    def pause_writing(self) -> None:
        self._handing.room.clear()

    def resume_writing(self) -> None:
        self._handing.room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._handing.end()
        self._client.active = None
        self._client.connection_lost(exc)
