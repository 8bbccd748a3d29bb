"""Tasks in a row, as ULCA's clients ask for them: one is made a native call, several a pipeline of calls."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from haat.gateway.doors.bodies import wrong_field
from haat.gateway.doors.pipeline import MOST_STAGES, Pipeline, Stage, claimed
from haat.gateway.doors.ulca.languages import tags_of
from haat.gateway.doors.ulca.protocol import encode
from haat.gateway.doors.ulca.services import check_subscribed, find
from haat.gateway.doors.ulca.settled import Settled
from haat.gateway.doors.ulca.shapes import Config, Task
from haat.gateway.doors.ulca.tasks import PIPELINE_TASKS, TASKS, Step
from haat.gateway.doors.visit import Visit
from haat.kernel.errors import HaatError, ProviderFailed, ValidationFailed

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway

Items = list[dict[str, Any]]
Shape = Callable[[Items], dict[str, Any]]
"""Makes the answer's body of the tasks' parts of it."""


class Asked:
    """What is remembered of a request for one task."""

    __slots__ = ("given", "shape", "step")

    def __init__(self, step: Step, given: Items, shape: Shape) -> None:
        self.step, self.given, self.shape = step, given, shape

    def body(self, outputs: Items) -> bytes:
        return encode(self.shape([part_of(self.step, self.given, outputs)]))


def read_steps(gateway: Gateway, call: Call, tasks: list[Task]) -> list[Step]:
    """Return the tasks of a pipeline, each with who does it; raise what speaks against one before any has begun."""
    if not 1 <= len(tasks) <= MOST_STAGES:
        raise wrong_field("pipelineTasks", f"must be a list of 1 to {MOST_STAGES} tasks")
    steps = []
    for index, asked in enumerate(tasks):
        place = f"pipelineTasks[{index}]"
        if asked.task_type not in PIPELINE_TASKS:
            raise wrong_field(f"{place}.taskType", f"must be one of {', '.join(PIPELINE_TASKS)}")
        steps.append(Step(TASKS[asked.task_type], asked.config or Config(), f"{place}.config"))
    check_chain(steps)
    settle(gateway, call, steps, [step.config.service_id or "" for step in steps])
    return steps


def check_chain(steps: list[Step]) -> None:
    """Raise ValidationFailed for tasks of which one gives what the next can't take."""
    for index, (one, other) in enumerate(pairwise(steps)):
        if one.task.gives != other.task.takes:
            message = (
                f"{other.task.name} takes {other.task.takes}, and {one.task.name} before it gives {one.task.gives}"
            )
            raise wrong_field(f"pipelineTasks[{index + 1}].taskType", message)
        if one.task.name == "transliteration" and one.config.is_sentence is False:
            raise wrong_field(f"{one.place}.isSentence", "must be true where another task follows")


def settle(gateway: Gateway, call: Call, steps: list[Step], service_ids: list[str]) -> None:
    """Find languages and services of all steps."""
    begun: set[str] = set()
    at_hand = ""
    for step, service_id in zip(steps, service_ids, strict=True):
        step.source, step.target = tags_of(step.config)
        declared = step.source
        if at_hand and (not declared or (step.task.name == "tts" and declared in begun)):
            # The language of the text that comes, not the one that the chain began with: some clients name that.
            step.source = at_hand
        _check_languages(step)
        try:
            find(gateway, call, step, service_id)
        except HaatError:
            if declared in ("", step.source):
                raise
            step.source = declared
            find(gateway, call, step, service_id)
        if len(steps) > 1:
            check_subscribed(gateway, call, step)
        begun.add(step.source)
        at_hand = step.target or step.source


def _check_languages(step: Step) -> None:
    wanted = {"none": (), "one": ("source",), "pair": ("source", "target")}[step.task.languages]
    missing = [f"{step.place}.language.{name}Language" for name in wanted if not getattr(step, name)]
    if missing:
        raise ValidationFailed(
            errors=[{"field": field, "message": "must be a language, such as hi"} for field in missing]
        )


def become(call: Call, visit: Visit, settled: Settled, given: Items, shape: Shape) -> None:
    """Make the call the native one of its only task."""
    visit.asked = Asked(settled.step, given, shape)
    visit.languages = settled.languages
    visit.become(call, settled.step.route, b"/invoke", settled.body(given))


def begin(gateway: Gateway, call: Call, visit: Visit, steps: list[Step], given: Items, shape: Shape) -> None:
    """Have several tasks done, and answer with what ``shape`` makes of them."""
    options = [step.options() for step in steps]
    stages = [
        Stage(step.task.name, step.route, config, step.task.silence if index else None)
        for index, (step, config) in enumerate(zip(steps, options, strict=True))
    ]

    def make(stages: list[Stage]) -> bytes:
        pairs = zip(steps, stages, strict=True)
        return encode(shape([part_of(step, stage.items, stage.output) for step, stage in pairs]))

    timeout_us = sum(step.route.timeout_us for step in steps)
    key = claimed(gateway, call, visit, stages, timeout_us)
    if not call.answered:
        Pipeline(gateway, call, visit, stages, timeout_us, key, make).begin(given)


def part_of(step: Step, given: Items, outputs: Items) -> dict[str, Any]:
    """Return one task's part of the answer; raise ProviderFailed when the outputs are not those of the task."""
    if len(outputs) != len(given):
        raise ProviderFailed("The provider did not answer each input; the call is not billed.")
    return step.task.answer(step, [item.get("text", "") for item in given], outputs)
