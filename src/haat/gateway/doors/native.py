"""Haat's own door to several services in a row: ``/v1/pipelines``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from haat.gateway.doors.bodies import read_body, wrong_field
from haat.gateway.doors.flow import MOST_ITEMS, Flow
from haat.gateway.doors.operation import Operation
from haat.gateway.doors.pipeline import MOST_STAGES, Make, Pipeline, Stage, claimed
from haat.gateway.doors.visit import Visit
from haat.kernel.errors import HaatError, ValidationFailed

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway

_encode = msgspec.json.Encoder(decimal_format="number").encode


class NativeOperation(Operation):
    """Refusals are problems (RFC 9457), as at every address of Haat's own."""

    def problem(self, error: HaatError, request_id: str) -> tuple[bytes, bytes]:
        return b"application/problem+json", _encode(error.problem(request_id))

    def error_event(self, error: HaatError, request_id: str) -> bytes:
        return b"event: error\ndata: %b\n\n" % _encode(error.problem(request_id))


class _Stage(msgspec.Struct, forbid_unknown_fields=True):
    service: str
    config: dict[str, Any] = {}
    name: str = ""


class _PipelineBody(msgspec.Struct, forbid_unknown_fields=True):
    stages: list[_Stage]
    input: list[dict[str, Any]]
    timeout_ms: int = 60_000
    stream: bool | None = None
    split: Literal["none", "sentences"] = "none"


class Pipelines(NativeOperation):
    """``POST /v1/pipelines``: several services in a row, each with what the one before it answered."""

    name = "haat pipelines"
    _decoder: ClassVar[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_PipelineBody)

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        asked: _PipelineBody = read_body(self._decoder, call)
        streams = call.accepts_stream if asked.stream is None else asked.stream
        _check(asked, streams)
        stages = []
        for number, stage in enumerate(asked.stages):
            route = gateway.names.find(gateway, call, stage.service)
            if not route.version.takes_tasks:
                message = f"{route.service.path} does not speak the task schema: it can't be a stage"
                raise wrong_field(f"stages[{number}].service", message)
            stages.append(Stage(stage.name or route.service.slug, route, stage.config))
        timeout_us = asked.timeout_ms * 1000
        if not streams:
            run(gateway, call, visit, stages, asked.input, timeout_us, _whole)
            return False
        key = claimed(gateway, call, visit, stages, timeout_us, streams=True)
        if not call.answered:
            divides = asked.split == "sentences"
            Flow(gateway, call, visit, stages, asked.input, timeout_us, divides, key).pump()
        return False


def _check(asked: _PipelineBody, streams: bool) -> None:
    errors = []
    if not 1 <= len(asked.stages) <= MOST_STAGES:
        errors.append({"field": "stages", "message": f"must be a list of 1 to {MOST_STAGES} stages"})
    if not asked.input:
        errors.append({"field": "input", "message": "must be a list with at least one item"})
    if streams and len(asked.input) > MOST_ITEMS:
        errors.append({"field": "input", "message": f"must have at most {MOST_ITEMS} items in a stream"})
    if asked.split != "none" and not streams:
        errors.append({"field": "split", "message": "is for streams: send `stream` as true"})
    if errors:
        raise ValidationFailed(errors=errors)
    check_timeout(asked.timeout_ms)


def check_timeout(milliseconds: int) -> None:
    """Raise ValidationFailed for a time that no request may take."""
    if not 100 <= milliseconds <= 600_000:
        raise wrong_field("timeout_ms", "must be a whole number from 100 to 600000")


def _whole(stages: list[Stage]) -> bytes:
    return _encode({"output": stages[-1].output, "stages": [stage.report() for stage in stages]})


def run(
    gateway: Gateway,
    call: Call,
    visit: Visit,
    stages: list[Stage],
    items: list[dict[str, Any]],
    timeout_us: int,
    make: Make,
) -> None:
    """Run a pipeline for a call at a door and answer it with what ``make`` makes of its stages."""
    key = claimed(gateway, call, visit, stages, timeout_us)
    if not call.answered:
        Pipeline(gateway, call, visit, stages, timeout_us, key, make).begin(items)


OPERATIONS = {(b"POST", b"/v1/pipelines"): Pipelines()}
