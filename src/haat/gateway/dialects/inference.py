"""Models behind the Open Inference Protocol: asked in their own tensors, answering in the task schema.

The last step before the provider, so that the cache, plugins and a version's changes see tasks only. What a call
used is counted here from the task, unless the endpoint reports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haat.gateway.dialects.tasks import JSON, STALE, give, give_refusal, refuse_streams, refusing, task_in
from haat.gateway.http.answers import Whole
from haat.gateway.http.headers import coding_of, value_of, without
from haat.infra.inference.asking import Asked, ask, error_in, read_answer
from haat.infra.inference.mapping import TensorMap
from haat.infra.inference.tensors import SIZE_HEADER, Unfit
from haat.kernel.errors import InvalidRequest, ProviderFailed
from haat.plugins.text import Unreadable, unfold

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.routes import Route, Step

_SIZE = SIZE_HEADER.lower().encode("ascii")
_BINARY = b"Content-Type: application/octet-stream\r\n"


def inference_step(gateway: Gateway, route: Route) -> Step | None:
    """Return what turns a route's tasks into infer requests, or None for a version that is asked otherwise."""
    if route.executing.dialect != "inference":
        return None
    tensors = route.executing.policy.tensors
    if tensors is None:
        return refusing(InvalidRequest(f"Version {route.executing.version} does not say in which tensors it is asked."))
    known: TensorMap = tensors

    def step(gateway: Gateway, call: Call) -> bool:
        asked = ask(known, task_in(call))
        call.body = [asked.body]
        call.lines = without(call.lines, (*STALE, _SIZE, b"accept-encoding"))
        if asked.json_size < 0:
            call.lines.append(JSON)
        else:
            call.lines += [_BINARY, f"{SIZE_HEADER}: {asked.json_size}\r\n".encode("ascii")]
        call.on_answer = [*call.on_answer, _Answered(known, asked)]
        return True

    return step


class _Answered:
    """Makes a model's answer the task's: `haat.gateway.http.answers.AnswerStep`."""

    __slots__ = ("_asked", "_tensors")

    def __init__(self, tensors: TensorMap, asked: Asked) -> None:
        self._tensors, self._asked = tensors, asked

    def answered(self, call: Call, answer: Whole) -> None:
        size = value_of(answer.lines, _SIZE) or None
        coding = coding_of(answer.lines)
        answer.lines = without(answer.lines, (*STALE, _SIZE))
        if answer.status >= 400:
            give_refusal(call, answer, error_in(answer.body))
            return
        try:
            outputs = read_answer(self._tensors, unfold(answer.body, coding), size, self._asked.items)
        except (Unfit, Unreadable) as error:
            raise ProviderFailed(f"The model's answer can't be used; the call is not billed. {error}.") from error
        give(call, answer, outputs, self._asked.units)

    def missed(self, call: Call) -> None:
        refuse_streams(call)
