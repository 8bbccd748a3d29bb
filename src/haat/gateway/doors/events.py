"""A stream of events that a door makes itself. Its head leaves with the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haat.gateway.http import answers, cors

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.doors.visit import Visit
    from haat.kernel.errors import HaatError

EVENTS = b"Content-Type: text/event-stream\r\n"
NO_STORE = b"Cache-Control: no-store\r\n"


class EventAnswer:
    """The answer of one call. Until ``begun`` the call can still be refused as any other."""

    __slots__ = ("_call", "_visit", "begun")

    def __init__(self, call: Call, visit: Visit) -> None:
        self._call, self._visit = call, visit
        self.begun = False

    def send(self, event: bytes) -> None:
        """Write a complete event."""
        call = self._call
        head = b"" if self.begun else self._head()
        call.client.write(head + (b"%x\r\n%b\r\n" % (len(event), event) if call.chunk_answer else event))

    def _head(self) -> bytes:
        call, gateway = self._call, self._call.client.gateway
        self.begun = call.headed = call.head_flushed = call.event_stream = True
        call.status = 200
        if not call.body_complete or gateway.draining:
            call.keep_alive = False
        if call.minor_version == 1:
            call.chunk_answer = True
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            call.keep_alive = False  # HTTP/1.0 knows the end of such a body by the connection's end
            framing = b""
        return b"".join(
            (
                answers.STATUS_LINES[200],
                answers.date_line(gateway.clock.lately),
                EVENTS,
                NO_STORE,
                framing,
                call.id_line,
                gateway.security_lines,
                cors.lines(gateway, call),
                answers.connection_header(call),
                b"\r\n",
            )
        )

    def end(self) -> None:
        """End it in good order."""
        call = self._call
        call.answered = True
        if call.client.gateway.draining:
            call.keep_alive = False
        if call.chunk_answer:
            call.client.write(answers.LAST_CHUNK)
        call.client.finished(call)

    def fail(self, error: HaatError) -> None:
        """End it with the event that says why it can't go on."""
        call = self._call
        call.answered = True
        call.keep_alive = False
        call.client.write(answers.error_event(call, error))
        call.client.finished(call)
