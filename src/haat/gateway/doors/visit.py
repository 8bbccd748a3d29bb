"""A call's way through a front door: in and out in a protocol's own shape, native between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haat.gateway.call import Call
from haat.gateway.doors.answers import refusal_in
from haat.gateway.doors.operation import Operation
from haat.gateway.http import answers, cors
from haat.gateway.http.answers import Whole
from haat.gateway.http.headers import without
from haat.kernel.errors import ProviderFailed

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
_CHECKS = (b"content-md5", b"digest", b"content-digest")
JSON = b"application/json"
_JSON_LINE = b"Content-Type: application/json\r\n"
_REMEMBERED = 256
_bare: dict[tuple[bytes, ...], list[bytes]] = {}
"""What `_without_body` found lately: most requests and answers have the same few lines."""


class Visit:
    """One call at a door. As an answer step it stands before all others, so that it has the last word.

    ``passes`` is true once the call turned out to go to a provider who speaks the door's protocol: then its
    answer goes on as it comes. ``asked`` is what the operation wants to remember of the request.
    """

    __slots__ = ("asked", "bytes_out", "operation", "passes", "spool", "target")

    def __init__(self, operation: Operation, target: bytes) -> None:
        self.operation, self.target = operation, target
        self.asked: Any = None
        self.passes = False
        self.spool: Spool | None = None
        """Where the body is, when it is too large for memory."""
        self.bytes_out = -1
        """Size of the native answer: what is recorded, whichever shape it leaves in. -1 while there is none."""

    # --- in ---------------------------------------------------------------------------------------

    def become(self, call: Call, route: Route, tail: bytes, body: bytes, content_type: bytes = JSON) -> None:
        """Make the call a native one of this route, in the task schema or whatever its version speaks."""
        call.target = route.target + tail
        call.lines = [*_without_body(call.lines), _line(content_type)]
        call.body = [body] if body else []
        call.body_size = call.content_length = len(body)
        call.chunked = False
        call.method = b"POST"
        call.on_answer = [self, *call.on_answer]

    def pass_on(self, call: Call, route: Route, tail: bytes, body: bytes | None = None) -> None:
        """Make the call a native one of a provider who speaks this protocol: its answer goes on as it comes."""
        call.target = route.target + tail
        self.passes = True
        if body is not None:
            call.lines = without(call.lines, _CHECKS)
            call.body = [body]
            call.body_size = call.content_length = len(body)
            call.chunked = False

    def answer(self, call: Call, body: bytes, status: int = 200, content_type: bytes = JSON) -> None:
        """Answer at the door: nobody's service was called, and nothing is metered."""
        call.answered = True
        if call.client.gateway.draining:
            call.keep_alive = False
        headers = b"Cache-Control: no-store\r\n" + cors.lines(call.client.gateway, call)
        call.client.write(answers.plain(call, status, content_type, body, headers))
        call.client.finished(call)

    # --- out --------------------------------------------------------------------------------------

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
        extras = call.extras
        assert extras is not None
        extras.rewriter = self.operation.stream(call, self, extras.rewriter)


def reply(answer: Whole, body: bytes, content_type: bytes = JSON) -> None:
    """Replace the body of an answer."""
    answer.body = body
    answer.lines = [*_without_body(answer.lines), _line(content_type)]


def _line(content_type: bytes) -> bytes:
    return _JSON_LINE if content_type is JSON else b"Content-Type: %b\r\n" % content_type


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
