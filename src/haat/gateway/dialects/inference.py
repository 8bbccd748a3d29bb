"""Models behind the Open Inference Protocol: asked in their own tensors, answering in the task schema.

The last step before the provider, so that the cache, plugins and a version's changes see tasks only. What a call
used is counted here from the task, unless the endpoint reports it. A model that is asked over gRPC is asked in the
same words: `haat.bridge` passes them on.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING

from haat.gateway.dialects import parts
from haat.gateway.dialects.tasks import JSON, STALE, give, give_refusal, refuse_streams, task_in
from haat.gateway.http.answers import Whole
from haat.gateway.http.headers import coding_of, value_of, without
from haat.gateway.market.routes import refusing
from haat.infra.inference.asking import Asked, ask, error_in, read_answer
from haat.infra.inference.mapping import TensorMap
from haat.infra.inference.tensors import SIZE_HEADER, Unfit
from haat.infra.inference.upstream import DEADLINE, UPSTREAM
from haat.kernel.errors import InvalidRequest, ProviderFailed
from haat.plugins.text import Unreadable, unfold

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.routes import Route, Step

_SIZE, _UPSTREAM, _DEADLINE = (name.lower().encode("ascii") for name in (SIZE_HEADER, UPSTREAM, DEADLINE))
_BINARY = b"Content-Type: application/octet-stream\r\n"


def inference_step(gateway: Gateway, route: Route) -> Step | None:
    """Return what turns a route's tasks into infer requests, or None for a version that is asked otherwise."""
    if route.executing.dialect != "inference":
        return None
    tensors = route.executing.policy.tensors
    if tensors is None:
        return refusing(InvalidRequest(f"Version {route.executing.version} does not say in which tensors it is asked."))
    known: TensorMap = tensors
    over_grpc = any(endpoint.pool.bridge for endpoint in route.in_turn())

    def step(gateway: Gateway, call: Call) -> bool:
        asked = ask(known, task_in(call))
        call.body = [asked.body]
        call.lines = without(call.lines, (*STALE, _SIZE, _UPSTREAM, _DEADLINE, b"accept-encoding"))
        if over_grpc:
            call.lines.append(_until(gateway, call, known.decoupled))
        if known.decoupled:
            parts.begin(call, known, asked)
        if asked.json_size < 0:
            call.lines.append(JSON)
        else:
            call.lines += [_BINARY, f"{SIZE_HEADER}: {asked.json_size}\r\n".encode("ascii")]
        call.on_answer = [*call.on_answer, _Answered(known, asked)]
        return True

    return step


def _until(gateway: Gateway, call: Call, streams: bool) -> bytes:
    """Return the header line that says until when an answer is waited for; a stream may last as long as any."""
    ends = call.started + gateway.stream_max_us if streams else call.deadline
    left = max(0, ends - gateway.clock.now_us())
    return f"{DEADLINE}: {monotonic_ns() // 1000 + left}\r\n".encode("ascii")


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
        if self._tensors.decoupled:
            raise ProviderFailed("The model's answer is no stream; the call is not billed.")
        try:
            outputs = read_answer(self._tensors, unfold(answer.body, coding), size, self._asked.items)
        except (Unfit, Unreadable) as error:
            raise ProviderFailed(f"The model's answer can't be used; the call is not billed. {error}.") from error
        give(call, answer, outputs, self._asked.units)

    def missed(self, call: Call) -> None:
        if not self._tensors.decoupled:
            refuse_streams(call)
        elif call.headed and not call.answered:
            parts.begun(call, self._asked.units)
