"""``POST /services/inference/pipeline``: one task, or several in a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.doors.bodies import read_body
from haat.gateway.doors.ulca.chain import Items, become, begin, read_steps
from haat.gateway.doors.ulca.content import items_of
from haat.gateway.doors.ulca.later import take_for_later
from haat.gateway.doors.ulca.protocol import ChainOperation
from haat.gateway.doors.ulca.settled import Settled
from haat.gateway.doors.ulca.shapes import Inputs, Task
from haat.gateway.doors.visit import Visit

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway


class _Body(msgspec.Struct, rename="camel"):
    pipeline_tasks: list[Task]
    input_data: Inputs


class _Brief(msgspec.Struct, rename="camel"):
    """The same with its tasks as they were written."""

    pipeline_tasks: msgspec.Raw
    input_data: Inputs


_decoder = msgspec.json.Decoder(_Body)
_brief = msgspec.json.Decoder(_Brief)


class Compute(ChainOperation):
    """The compute call. Its ``controlConfig`` asks for nothing that would be done here: nobody is tracked."""

    name = "ulca pipeline"

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        if take_for_later(gateway, call, visit):
            return False
        brief: _Brief = read_body(_brief, call)
        words = bytes(brief.pipeline_tasks)
        settled = gateway.settled_tasks.find(gateway, call, words)
        if settled is None:
            asked: _Body = read_body(_decoder, call)
            steps = read_steps(gateway, call, asked.pipeline_tasks)
            if len(steps) > 1:
                given = items_of(asked.input_data, steps[0].task.takes, steps[0].config, "inputData.", steps[0].place)
                begin(gateway, call, visit, steps, given, _envelope)
                return False
            settled = Settled(steps[0])
            gateway.settled_tasks.keep(gateway, call, words, settled)
        step = settled.step
        given = items_of(brief.input_data, step.task.takes, step.config, "inputData.", step.place)
        become(call, visit, settled, given, _envelope)
        return True


def _envelope(parts: Items) -> dict[str, Any]:
    return {"pipelineResponse": parts}
