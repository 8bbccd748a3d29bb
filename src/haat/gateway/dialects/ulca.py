"""Services of Dhruva's kind: asked in ULCA's words, answering in the task schema.

The last step before the provider, so that the cache, plugins and a version's changes see tasks only. What a call
used is counted here from the task, unless the endpoint reports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from haat.gateway.extras import extras_of
from haat.gateway.http.answers import Whole
from haat.gateway.http.headers import without
from haat.gateway.metering import read_usage
from haat.infra.ulca import NAMES, Asked, Task, Unfit, ask, read_answer, sentence_in, task_at
from haat.kernel.errors import HaatError, InvalidRequest, MethodNotAllowed, NotFound, ProviderFailed, problem_type
from haat.plugins.text import Unreadable, unfold

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.routes import Route, Step

_encode = msgspec.json.Encoder(decimal_format="number").encode
_STALE = (b"content-type", b"content-encoding", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"etag")
_JSON = b"Content-Type: application/json\r\n"
_INVOKE = b"/invoke"


def ulca_step(gateway: Gateway, route: Route) -> Step | None:
    """Return what turns a route's tasks into ULCA's, or None for a version that is asked otherwise."""
    if route.executing.dialect != "ulca":
        return None
    task = task_at(route.executing.endpoint)
    if task is None:
        return _refusing(InvalidRequest(f"The service's address ends with no task of ULCA's: {', '.join(NAMES)}."))
    known, unit = task, route.service.unit

    def step(gateway: Gateway, call: Call) -> bool:
        assert call.grant is not None
        if call.grant.tail.partition(b"?")[0] != _INVOKE:
            raise NotFound("This service is called at /invoke, in the task schema.")
        if call.method != b"POST":
            raise MethodNotAllowed
        asked = ask(known, _plain(b"".join(call.body), call.lines), unit)
        call.body = [asked.body]
        call.lines = [*without(call.lines, (*_STALE, b"accept-encoding")), _JSON]
        call.on_answer = [*call.on_answer, _Answered(known, asked)]
        return True

    return step


def _refusing(error: HaatError) -> Step:
    def step(gateway: Gateway, call: Call) -> bool:
        raise error

    return step


def _plain(body: bytes, lines: list[bytes]) -> bytes:
    try:
        return unfold(body, _coding(lines))
    except Unreadable as error:
        raise InvalidRequest(f"The body can't be read: {error}.") from error


def _coding(lines: list[bytes]) -> str:
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-encoding":
            return value.strip().lower().decode("latin-1")
    return ""


class _Answered:
    """Makes a service's answer the task's: `haat.gateway.http.answers.AnswerStep`."""

    __slots__ = ("_asked", "_task")

    def __init__(self, task: Task, asked: Asked) -> None:
        self._task, self._asked = task, asked

    def answered(self, call: Call, answer: Whole) -> None:
        coding = _coding(answer.lines)
        answer.lines = without(answer.lines, _STALE)
        try:
            body = unfold(answer.body, coding)
            if answer.status >= 400:
                answer.lines.append(b"Content-Type: application/problem+json\r\n")
                answer.body = _refusal(answer.status, sentence_in(body), call.id)
                return
            outputs = read_answer(self._task, body, self._asked.items)
        except (Unfit, Unreadable) as error:
            raise ProviderFailed(f"The service's answer can't be used: {error}. The call is not billed.") from error
        units = {unit: quantity.normalize() for unit, quantity in self._asked.units.items()}
        if not call.raw_usage and call.route is not None:
            read_usage(call, call.route, "; ".join(f"{unit}={n:f}" for unit, n in units.items()).encode("ascii"))
            extras_of(call).counted = True
        answer.lines.append(_JSON)
        usage = {unit: int(count) if count == int(count) else count for unit, count in units.items()}
        answer.body = _encode({"output": outputs, "usage": usage})

    def missed(self, call: Call) -> None:
        """Nothing was promised to anybody."""


def _refusal(status: int, sentence: str, request_id: str) -> bytes:
    """Return a service's refusal as a problem (RFC 9457)."""
    code = "PROVIDER_REFUSED" if status < 500 else "PROVIDER_FAILED"
    return _encode(
        {
            "type": problem_type(code),
            "title": "The provider refused the call" if status < 500 else "The provider gave no usable answer",
            "status": status,
            "detail": sentence or "The provider gave no reason.",
            "code": code,
            "request_id": request_id,
        }
    )
