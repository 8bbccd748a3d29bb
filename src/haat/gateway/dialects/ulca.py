"""Services of Dhruva's kind: asked in ULCA's words, answering in the task schema.

The last step before the provider, so that the cache, plugins and a version's changes see tasks only. What a call
used is counted here from the task, unless the endpoint reports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haat.gateway.dialects.tasks import JSON, STALE, give, give_refusal, refuse_streams, refusing, task_in
from haat.gateway.http.answers import Whole
from haat.gateway.http.headers import coding_of, without
from haat.infra.ulca import NAMES, Asked, Task, Unfit, ask, read_answer, sentence_in, task_at
from haat.kernel.errors import InvalidRequest, ProviderFailed
from haat.plugins.text import Unreadable, unfold

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.routes import Route, Step


def ulca_step(gateway: Gateway, route: Route) -> Step | None:
    """Return what turns a route's tasks into ULCA's, or None for a version that is asked otherwise."""
    if route.executing.dialect != "ulca":
        return None
    task = task_at(route.executing.endpoint)
    if task is None:
        return refusing(InvalidRequest(f"The service's address ends with no task of ULCA's: {', '.join(NAMES)}."))
    known, unit = task, route.service.unit

    def step(gateway: Gateway, call: Call) -> bool:
        asked = ask(known, task_in(call), unit)
        call.body = [asked.body]
        call.lines = [*without(call.lines, (*STALE, b"accept-encoding")), JSON]
        call.on_answer = [*call.on_answer, _Answered(known, asked)]
        return True

    return step


class _Answered:
    """Makes a service's answer the task's: `haat.gateway.http.answers.AnswerStep`."""

    __slots__ = ("_asked", "_task")

    def __init__(self, task: Task, asked: Asked) -> None:
        self._task, self._asked = task, asked

    def answered(self, call: Call, answer: Whole) -> None:
        coding = coding_of(answer.lines)
        answer.lines = without(answer.lines, STALE)
        try:
            body = unfold(answer.body, coding)
            if answer.status >= 400:
                give_refusal(call, answer, sentence_in(body))
                return
            outputs = read_answer(self._task, body, self._asked.items)
        except (Unfit, Unreadable) as error:
            raise ProviderFailed(f"The service's answer can't be used: {error}. The call is not billed.") from error
        give(call, answer, outputs, self._asked.units)

    def missed(self, call: Call) -> None:
        refuse_streams(call)
