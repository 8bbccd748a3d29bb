"""A call's way through a front door: in and out in a protocol's own shape, native between."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from haat.gateway.call import Call
from haat.gateway.doors.answers import refusal_in
from haat.gateway.doors.operation import Operation
from haat.gateway.extras import extras_of
from haat.gateway.http import answers, cors
from haat.gateway.http.answers import Whole
from haat.gateway.http.headers import coding_of, without
from haat.kernel.errors import BodyTooLarge, InvalidRequest, ProviderFailed
from haat.plugins.text import Unreadable, unfold

if TYPE_CHECKING:
    from haat.gateway.doors.spool import Spool
    from haat.gateway.market.routes import Route

_ABOUT_THE_BODY = frozenset(
    {
        b"content-type",
        b"content-encoding",
        b"accept-encoding",
        b"content-md5",
        b"digest",
        b"content-digest",
        b"etag",
        b"inference-header-content-length",
    }
)
_OF_THE_CODING = (b"content-encoding", b"content-md5", b"digest", b"content-digest")
_SLASHES = re.compile(rb"/{2,}")
JSON = b"application/json"
JSON_LINE = b"Content-Type: application/json\r\n"
_REMEMBERED = 256
_bare: dict[tuple[bytes, ...], list[bytes]] = {}
"""What `_without_body` found lately: most requests and answers have the same few lines."""


class Visit:
    """One call at a door. As an answer step it stands before all others, so that it has the last word.

    ``passes`` is true once the call turned out to go to a provider who speaks the door's protocol: then its
    answer goes on as it comes. ``asked`` is what the operation wants to remember of the request.
    """

    __slots__ = ("asked", "bytes_out", "go_on", "languages", "operation", "passes", "spool", "target")

    def __init__(self, operation: Operation, target: bytes) -> None:
        self.operation, self.target = operation, target
        self.asked: Any = None
        self.passes = False
        self.languages: str | None = None
        """Those that the native request names, as a usage event says them, where the door knows; else it is read."""
        self.spool: Spool | None = None
        """Where the body is, when it is too large for memory."""
        self.bytes_out = -1
        """Size of the native answer: what is recorded, whichever shape it leaves in. -1 while there is none."""
        self.go_on: Callable[[], None] | None = None
        """Makes more of an answer that the door itself gives bit by bit, once there is room for it."""

    def resume(self) -> None:
        """The caller takes bytes again."""
        if self.go_on is not None:
            self.go_on()

    # --- in ---------------------------------------------------------------------------------------

    def unfold(self, call: Call) -> None:
        """Undo the coding that a whole body came in; raise InvalidRequest, or BodyTooLarge for what is in it."""
        coding = coding_of(call.lines)
        if not coding:
            return
        try:
            body = unfold(b"".join(call.body), coding)
        except Unreadable as error:
            raise InvalidRequest(f"body: {error}.", field="body") from error
        if len(body) > call.body_limit > 0:
            raise BodyTooLarge(limit_bytes=call.body_limit)
        call.lines = without(call.lines, _OF_THE_CODING)
        self._put(call, body)

    def _put(self, call: Call, body: bytes) -> None:
        call.body = [body] if body else []
        call.body_size = call.content_length = len(body)
        call.chunked = False

    def become(self, call: Call, route: Route, tail: bytes, body: bytes, content_type: bytes = JSON) -> None:
        """Make the call a native one of this route, in the task schema or whatever its version speaks."""
        call.target = route.target + tail
        call.lines = [*_without_body(call.lines), _line(content_type)]
        self._put(call, body)
        call.method = b"POST"
        call.on_answer = [self, *call.on_answer]

    def pass_on(self, call: Call, route: Route, tail: bytes, body: bytes | None = None) -> None:
        """Make the call a native one of a provider who speaks this protocol: its answer goes on as it comes."""
        _, question, query = call.target.partition(b"?")
        call.target = route.target + tail + question + query
        self.passes = True
        if body is not None:
            call.lines = without(call.lines, _OF_THE_CODING)
            self._put(call, body)

    def answer(
        self,
        call: Call,
        body: bytes,
        status: int = 200,
        content_type: bytes = JSON,
        lines: bytes = b"",
    ) -> None:
        """Answer at the door: the call itself is not metered. ``lines`` are further ones of the head."""
        call.answered = True
        if call.client.gateway.draining:
            call.keep_alive = False
        mine = cors.lines(call.client.gateway, call) + self.id_line(call)
        headers = b"Cache-Control: no-store\r\n" + lines + mine
        call.client.write(answers.plain(call, status, content_type, body, headers))
        call.client.finished(call)

    # --- out --------------------------------------------------------------------------------------

    def id_line(self, call: Call) -> bytes:
        """Return the header line with the request's id where the protocol's clients look for it, if elsewhere."""
        name = self.operation.id_header
        return b"%b: %b\r\n" % (name, call.id.encode("ascii")) if name else b""

    def answered(self, call: Call, answer: Whole) -> None:
        """Give the answer, or the provider's own refusal, the protocol's shape."""
        self.bytes_out = len(answer.body)
        if answer.status < 400:
            self.operation.leave(call, self, answer)
            return
        content_type, answer.body = self.operation.problem(refusal_in(answer), call.id)
        answer.lines = [*_without_body(answer.lines), _line(content_type)]

    def missed(self, call: Call) -> None:
        """The call ended otherwise: `answers.problem` asks this visit for the shape."""

    def streams(self, call: Call, is_events: bool) -> None:
        """Let a stream pass in the protocol's shape; raise ProviderFailed for an answer that can't be looked at."""
        if not is_events:
            raise ProviderFailed("The provider's answer is too large to be given this protocol's shape.")
        extras = extras_of(call)
        extras.rewriter = self.operation.stream(call, self, extras.rewriter)


def path_behind(target: bytes, prefix: bytes) -> bytes:
    """Return what follows a prefix in a request target's path, as it was sent but for slashes at its end."""
    path = target.partition(b"?")[0]
    at = path.find(prefix)
    if at < 0:  # with doubled slashes
        path = _SLASHES.sub(b"/", path)
        at = path.find(prefix)
    return path[at + len(prefix) :].strip(b"/") if at >= 0 else b""


def reply(answer: Whole, body: bytes, content_type: bytes = JSON) -> None:
    """Replace the body of an answer."""
    answer.body = body
    answer.lines = [*_without_body(answer.lines), _line(content_type)]


def _line(content_type: bytes) -> bytes:
    return JSON_LINE if content_type is JSON else b"Content-Type: %b\r\n" % content_type


def _without_body(lines: list[bytes]) -> list[bytes]:
    """Return header lines but those about the body; what is returned is not to be changed."""
    key = tuple(lines)
    found = _bare.get(key)
    if found is None:
        found = without(lines, _ABOUT_THE_BODY)
        if len(_bare) >= _REMEMBERED:
            _bare.clear()
        _bare[key] = found
    return found
