"""Meters calls of providers who speak OpenAI's or Anthropic's protocol by the usage that they report themselves.

It is the last step before the provider, behind the cache, so that an answer is kept with what it has used. A stream of
chat completions only says so when it is asked: the question is added where the caller didn't put it, and then the
chunk with the answer is kept from the caller. What nobody reports is estimated (`haat.gateway.dialects.usage`), and
recorded as counted here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.cache.answers import capped
from haat.gateway.dialects.asking import GENERATED, NOTHING, Asked, path_of, read, with_usage
from haat.gateway.dialects.usage import estimate, report_of, spell, text_bytes
from haat.gateway.extras import extras_of
from haat.gateway.http.headers import without
from haat.gateway.http.streams import Watcher
from haat.gateway.limits.reservations import GENERATING, extend
from haat.gateway.units import read_usage
from haat.kernel.errors import problem_type

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.answers import Whole
    from haat.gateway.market.routes import Route, Step
    from haat.plugins.api import Event


class _Brief(msgspec.Struct):
    """Of a whole answer what says how much was used: vectors may be long, and are not looked at."""

    usage: Any = None
    duration: Any = None


class _Told(msgspec.Struct):
    """Of an event what says how much was used so far, or that it has failed (``type`` of a problem)."""

    usage: Any = None
    type: Any = None


_decode_told = msgspec.json.Decoder(_Told).decode
_decode = msgspec.json.Decoder().decode
_decode_brief = msgspec.json.Decoder(_Brief).decode
_CHAT = (b"/chat/completions", b"/completions")
_REPORTED = (*GENERATED, b"/embeddings")
_AUDIO = (b"/audio/transcriptions", b"/audio/translations")
_SPEECH = b"/audio/speech"
_FREE = (b"/messages/count_tokens", b"/moderations")
"""Addresses that use no tokens."""
_PROBLEM = problem_type("")
_STALE = (b"content-md5", b"digest", b"content-digest", b"repr-digest")
_STRIDE = 256
"""A running estimate is renewed after so many further bytes of text."""


def usage_step(gateway: Gateway, route: Route) -> Step | None:
    """Return the step of a route whose provider reports in its answers what calls have used."""
    if route.executing.dialect in GENERATING:
        return meter
    hosted = route.executing.endpoint.startswith(f"{gateway.settings.models_address}/")
    return meter_events if hosted and route.executing.dialect == "task" else None


def meter(gateway: Gateway, call: Call) -> bool:
    """Prepare a call to be metered by its answer."""
    grant = call.grant
    assert grant is not None
    if call.method != b"POST":
        return True
    path = path_of(grant.tail)
    if path in _FREE:
        call.units = {"requests": "1", "tokens": "0"}
    elif path == _SPEECH:
        _count_characters(call)
    elif path in _REPORTED or path in _AUDIO:
        asked = NOTHING if path in _AUDIO else read(b"".join(call.body))
        extend(call)
        hides = path in _CHAT and asked.streams and not asked.reports_usage and _ask_for_usage(call, asked)
        extras_of(call)
        call.lines = without(call.lines, (b"accept-encoding",))  # what is to be looked into comes as it is
        call.on_answer = [*call.on_answer, Reported(call, grant.route, hides, path in _REPORTED)]
    return True


def meter_events(gateway: Gateway, call: Call) -> bool:
    """Prepare a call of a hosted model to be metered by its events, should its answer be some (`haat.models.door`)."""
    if call.method == b"POST" and call.accepts_stream:
        grant = call.grant
        assert grant is not None
        extras_of(call)
        call.lines = without(call.lines, (b"accept-encoding",))
        call.on_answer = [*call.on_answer, ReportedInEvents(call, grant.route)]
    return True


def _count_characters(call: Call) -> None:
    """Count the text to be spoken: who answers with sound has no place for a report but a header."""
    text = read(b"".join(call.body)).input
    if isinstance(text, str):
        call.units = capped(call, {"requests": "1", "characters": str(len(text))})


def _ask_for_usage(call: Call, asked: Asked) -> bool:
    call.body = [with_usage(b"".join(call.body), asked)]
    call.lines = without(call.lines, _STALE)
    return True


class ReportedInEvents(Watcher):
    """Reads what a hosted model has used from its events: the last ``usage`` counts, and a failure costs nothing."""

    __slots__ = ("_call", "_route")

    def __init__(self, call: Call, route: Route) -> None:
        self._call, self._route = call, route

    def answered(self, call: Call, answer: Whole) -> None:
        """A whole answer has said it in its head."""

    def missed(self, call: Call) -> None:
        """A stream is looked at as it passes."""

    def look(self, event: Event) -> bool:
        """See one event: one that has a usage, a problem, or neither."""
        try:
            said = _decode_told(event.data)
        except (msgspec.MsgspecError, RecursionError):
            return True
        usage = said.usage
        if isinstance(said.type, str) and said.type.startswith(_PROBLEM):
            usage = {"requests": 0, self._route.service.unit: 0}
        if isinstance(usage, dict):
            counts = "; ".join(f"{name}={count}" for name, count in usage.items() if type(count) in (int, float))
            read_usage(self._call, self._route, counts.encode("ascii", "replace"))
        return True


class Reported(Watcher):
    """Reads a provider's report from the answer of one call, be it whole or a stream.

    ``hides``: the caller did not ask for the chunk that holds it. ``estimates``: where there is no report,
    tokens are estimated; of a recording nobody can say how many it is.
    """

    __slots__ = ("_asked_bytes", "_call", "_counted", "_estimates", "_final", "_hides", "_route", "_usage", "_written")

    def __init__(self, call: Call, route: Route, hides: bool, estimates: bool) -> None:
        self._call, self._route, self._hides, self._estimates = call, route, hides, estimates
        self._asked_bytes = call.body_size
        self._usage: dict[str, Any] = {}
        self._final = False
        """The report is about the whole answer, not only about its beginning."""
        self._written = self._counted = 0

    def answered(self, call: Call, answer: Whole) -> None:
        """Take the report out of a whole answer."""
        if answer.status >= 400 or call.raw_usage:
            return
        try:
            brief = _decode_brief(answer.body)
            if not self._take({"usage": brief.usage, "duration": brief.duration}):
                self._written = text_bytes(_decode(answer.body))
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            pass  # no object, or no JSON at all: it reports nothing
        self._count()

    def missed(self, call: Call) -> None:
        """Estimate an answer that is too large to be looked into; a stream is looked at as it passes."""
        streams = call.extras is not None and call.extras.rewriter is not None
        if call.headed and not call.answered and not streams:
            self._guess()

    def look(self, event: Event) -> bool:
        """See one event of a stream; keep from the caller what only we have asked for."""
        try:
            document = _decode(event.data)
        except (msgspec.MsgspecError, RecursionError):
            return True  # `[DONE]`, or nothing of ours
        if self._take(document) and self._hides and document.get("choices") == []:
            return False
        self._written += text_bytes(document)
        if (
            self._written - self._counted >= _STRIDE and not self._call.raw_usage
        ):  # so that a checkpoint knows it, should this process die
            self._counted = self._written
            self._guess()
        return True

    def over(self, whole: bool) -> None:
        """Settle what the stream has used, before it is recorded."""
        if not self._call.raw_usage:
            self._count()

    def _take(self, document: Any) -> bool:
        """Take over a usage block, whose counts are those up to here; tell whether there was one."""
        if not isinstance(document, dict):
            return False
        usage = document.get("usage")
        if not isinstance(usage, dict):
            inside = document.get("response") or document.get("message")
            usage = inside.get("usage") if isinstance(inside, dict) else None
        if usage is None and not self._estimates:
            usage = {"seconds": document.get("duration")}  # of a recording
        if not isinstance(usage, dict) or not report_of(usage):
            return False
        self._usage.update({name: value for name, value in usage.items() if value is not None})
        self._final = document.get("type") != "message_start"
        return True

    def _count(self) -> None:
        if self._final:
            read_usage(self._call, self._route, spell(report_of(self._usage)).encode("ascii"))
        else:
            self._guess()

    def _guess(self) -> None:
        if self._estimates:
            begun = report_of(self._usage).get("input_tokens")
            units = estimate(self._asked_bytes, self._written, None if begun is None else int(begun))
            self._call.units = capped(self._call, {"requests": "1", **units})
