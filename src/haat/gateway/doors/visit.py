"""A call's way through a front door: in and out in a protocol's own shape, native between."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.call import Call
from haat.gateway.http import answers, cors
from haat.gateway.http.answers import Whole
from haat.gateway.http.headers import value_of, without
from haat.kernel.errors import (
    BodyTooLarge,
    HaatError,
    InvalidRequest,
    MalformedJson,
    ProviderFailed,
    ValidationFailed,
)
from haat.plugins.text import Unreadable, unfold

if TYPE_CHECKING:
    from haat.gateway.doors.spool import Spool
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.streams import Rewriter
    from haat.gateway.market.routes import Route

PREFIX = b"/v1/services/"
JSON = b"Content-Type: application/json\r\n"
_ABOUT_THE_BODY = frozenset(
    {b"content-type", b"content-encoding", b"accept-encoding", b"content-md5", b"digest", b"content-digest"}
)
_OF_AN_ANSWER = _ABOUT_THE_BODY | {b"etag"}
_OF_THE_CODING = (b"content-encoding", b"content-md5", b"digest", b"content-digest")
_CODING = b"content-encoding:"
_SLASHES = re.compile(rb"/{2,}")


class Operation(ABC):
    """What a protocol lets its clients ask for at one address. One object serves all calls, and keeps nothing."""

    name: str = ""
    """The protocol and what it calls this, as in ``openai embeddings``."""
    open_to_all: bool = False
    """Asked without a key: nobody's call, and about nobody."""
    body_limit: int = 0
    """Most bytes that its requests have; 0 for as many as any call's."""

    takes_parts: bool = False
    """Whether a task may be answered it in several parts, which `stream` gives the protocol's shape."""

    needs_whole = True
    """Whether `enter` wants the whole body; where not, `look` is shown a large one as it comes."""
    unfolds = True
    """Whether `enter` wants a body as it was before its ``Content-Encoding``."""
    id_header = b""
    """Under which name, beside our own, clients look for the id of their request."""

    def look(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        """Look at what has come of a large body; return True when `enter` may be called without the rest of it.

        What is in ``call.body`` may be taken away. Raise HaatError for what can't be done.
        """
        return False

    @abstractmethod
    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        """Take a request that is here whole, from a caller who is known unless it is open to all.

        Return True when it has been made the native call it stands for, with `Visit.become` or `Visit.pass_on`; False
        when it was answered here, with `Visit.answer`, or will be. Raise HaatError for what can't be done: it is
        answered as `problem` says.
        """

    def leave(self, call: Call, visit: Visit, answer: Whole) -> None:  # noqa: B027  # passed on, it needs no shape
        """Give a native answer that is good the protocol's shape, in place; raise HaatError when it can't have it."""

    def stream(self, call: Call, visit: Visit, before: Rewriter | None) -> Rewriter | None:
        """Return what gives a native stream of events the protocol's shape, behind what already looks at it."""
        return before

    @abstractmethod
    def problem(self, error: HaatError, request_id: str) -> tuple[bytes, bytes]:
        """Return the content type and the body of a refusal."""

    def error_event(self, error: HaatError, request_id: str) -> bytes:
        """Return the event that ends a stream which can't go on, ``data:`` and empty line included."""
        return b"data: %b\n\n" % self.problem(error, request_id)[1]


class Refused(HaatError):
    """What a provider answered instead of a result, on its way into a door's own shape."""

    def __init__(self, status: int, code: str, title: str, detail: str, **extensions: Any) -> None:
        super().__init__(detail, **extensions)
        self.status, self.code, self.title = status, code, title  # type: ignore[misc]  # of this one answer


class Visit:
    """One call at a door. As an answer step it stands before all others, so that it has the last word.

    ``passes`` is true once the call turned out to go to a provider who speaks the door's protocol: then its
    answer goes on as it comes. ``asked`` is what the operation wants to remember of the request.
    """

    __slots__ = ("asked", "bytes_out", "go_on", "operation", "passes", "spool", "target")

    def __init__(self, operation: Operation, target: bytes) -> None:
        self.operation, self.target = operation, target
        self.asked: Any = None
        self.passes = False
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
        coding = next((line for line in call.lines if line[: len(_CODING)].lower() == _CODING), b"")
        if not coding:
            return
        try:
            body = unfold(b"".join(call.body), coding[len(_CODING) :].strip().lower().decode("latin-1"))
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

    def become(
        self, call: Call, route: Route, tail: bytes, body: bytes, content_type: bytes = b"application/json"
    ) -> None:
        """Make the call a native one of this route, in the task schema or whatever its version speaks."""
        call.target = native_target(route, tail)
        call.lines = [*without(call.lines, _ABOUT_THE_BODY), b"Content-Type: %b\r\n" % content_type]
        self._put(call, body)
        call.method = b"POST"
        call.on_answer = [self, *call.on_answer]

    def pass_on(self, call: Call, route: Route, tail: bytes, body: bytes | None = None) -> None:
        """Make the call a native one of a provider who speaks this protocol: its answer goes on as it comes."""
        _, question, query = call.target.partition(b"?")
        call.target = native_target(route, tail) + question + query
        self.passes = True
        if body is not None:
            call.lines = without(call.lines, _OF_THE_CODING)
            self._put(call, body)

    def answer(
        self,
        call: Call,
        body: bytes,
        status: int = 200,
        content_type: bytes = b"application/json",
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
        answer.lines = [*without(answer.lines, _ABOUT_THE_BODY), b"Content-Type: %b\r\n" % content_type]

    def missed(self, call: Call) -> None:
        """The call ended otherwise: `answers.problem` asks this visit for the shape."""

    def streams(self, call: Call, is_events: bool) -> None:
        """Let a stream pass in the protocol's shape; raise ProviderFailed for an answer that can't be looked at."""
        if not is_events:
            raise ProviderFailed("The provider's answer is too large to be given this protocol's shape.")
        extras = call.extras
        assert extras is not None
        extras.rewriter = self.operation.stream(call, self, extras.rewriter)


def path_behind(target: bytes, prefix: bytes) -> bytes:
    """Return what follows a prefix in a request target's path, as it was sent but for slashes at its end."""
    path = target.partition(b"?")[0]
    at = path.find(prefix)
    if at < 0:  # with doubled slashes
        path = _SLASHES.sub(b"/", path)
        at = path.find(prefix)
    return path[at + len(prefix) :].strip(b"/") if at >= 0 else b""


def native_target(route: Route, tail: bytes) -> bytes:
    """Return the native address of a route's calls."""
    service, version = route.service, route.version.version
    name = service.path if version == service.default_version else f"{service.path}@{version}"
    return PREFIX + name.encode("ascii") + tail


class _Problem(msgspec.Struct):
    code: str = ""
    title: str = ""
    detail: str = ""
    errors: list[dict[str, str]] = []


_problem = msgspec.json.Decoder(_Problem)


def refusal_in(answer: Whole) -> HaatError:
    """Read a provider's refusal: a problem of ours (RFC 9457), or whatever it is."""
    try:
        said = _problem.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        said = _Problem()
    detail = said.detail or answer.body[:500].decode("utf-8", "replace").strip() or "The provider gave no reason."
    code = said.code or ("PROVIDER_FAILED" if answer.status >= 500 else "PROVIDER_REFUSED")
    fields = [one for one in said.errors if one.keys() >= {"field", "message"}]
    extensions: dict[str, Any] = {"errors": fields} if fields else {}
    if answer.status in (429, 503) and (pause := retry_after(answer.lines)):
        extensions["reset_seconds"] = pause
    return Refused(answer.status, code, said.title or "The provider refused the call", detail, **extensions)


def retry_after(lines: list[bytes]) -> int:
    """Return the seconds that an answer's ``Retry-After`` asks to wait for; 0 when it says none, or a date."""
    said = value_of(lines, b"retry-after")
    return min(int(said[:9]), 86_400) if said.isdigit() else 0


class _TaskAnswer(msgspec.Struct):
    output: list[dict[str, Any]]
    usage: dict[str, float] = {}


_task_answer = msgspec.json.Decoder(_TaskAnswer)


def read_task_answer(answer: Whole) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return the outputs and the usage in the answer of a task service; raise ProviderFailed for anything else."""
    found = _read(answer.body)
    return found.output, found.usage


def read_outputs(body: bytes) -> list[dict[str, Any]]:
    """Return the outputs in one part of such an answer; raise ProviderFailed for anything else."""
    return _read(body).output


def _read(body: bytes) -> _TaskAnswer:
    try:
        return _task_answer.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProviderFailed("The provider's answer is not of the task schema; the call is not billed.") from error


_MISSING = re.compile(r".*field `([^`]*)`.*")


def wrong_field(field: str, message: str) -> HaatError:
    """Return the refusal of a request for one of its fields."""
    return ValidationFailed(errors=[{"field": field, "message": message}])


def read_body(
    decoder: msgspec.json.Decoder[Any], call: Call, wrong: Callable[[str, str], HaatError] = wrong_field
) -> Any:
    """Return the request's body as a struct; raise MalformedJson, or what ``wrong`` makes of a field and a sentence."""
    try:
        return decoder.decode(b"".join(call.body))
    except msgspec.ValidationError as error:
        sentence, _, place = str(error).partition(" - at `$")
        field = place.rstrip("`").lstrip(".") or _MISSING.sub(r"\1", sentence)
        raise wrong(field, sentence) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedJson from error


def reply(answer: Whole, body: bytes, content_type: bytes = b"application/json") -> None:
    """Replace the body of an answer."""
    answer.body = body
    answer.lines = [*without(answer.lines, _OF_AN_ANSWER), b"Content-Type: %b\r\n" % content_type]
