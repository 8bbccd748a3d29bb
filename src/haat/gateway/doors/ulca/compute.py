"""``POST /services/inference/pipeline``: one task, or several in a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.doors.operation import read_body
from haat.gateway.doors.ulca.chain import Items, begin, read_steps
from haat.gateway.doors.ulca.content import items_of
from haat.gateway.doors.ulca.protocol import ChainOperation
from haat.gateway.doors.ulca.shapes import Inputs, Task
from haat.gateway.doors.visit import Visit

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway


class _Body(msgspec.Struct, rename="camel"):
    pipeline_tasks: list[Task]
    input_data: Inputs


class Compute(ChainOperation):
    """The compute call. Its ``controlConfig`` asks for nothing that would be done here: nobody is tracked."""

    name = "ulca pipeline"
    _decoder = msgspec.json.Decoder(_Body)

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        asked: _Body = read_body(self._decoder, call)
        steps = read_steps(gateway, call, asked.pipeline_tasks)
        first = steps[0]
        given = items_of(asked.input_data, first.task.takes, first.config, "inputData.", first.place)
        return begin(gateway, call, visit, steps, given, _envelope)


def _envelope(parts: Items) -> dict[str, Any]:
    return {"pipelineResponse": parts}
