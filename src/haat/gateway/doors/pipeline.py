"""Pipelines: what one service answers is what the next one is asked.

Each stage is a call of its own: admitted, limited, metered and charged by itself. What was done before a
failure is billed, what was not isn't. The whole has one deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.call import Call
from haat.gateway.doors import inner
from haat.gateway.doors.answers import read_task_answer, refusal_in
from haat.gateway.http.answers import Whole
from haat.gateway.metering import unit_header
from haat.kernel.errors import HaatError, ProviderFailed, ProviderTimeout

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.routes import Route

MOST_STAGES = 8
SECOND = 1_000_000

_encode = msgspec.json.Encoder(decimal_format="number").encode
_TEXTS = ("text", "command", "summary")
"""Members of an output that hold the text a next stage goes on with, the first that is there."""


class Stage:
    """One step: whose service, with which options, and in the end what came of it.

    ``silence`` is what it makes of an empty text without being asked; None leaves it to the service to refuse that.
    """

    __slots__ = ("call", "config", "items", "name", "output", "route", "silence", "usage")

    def __init__(
        self, name: str, route: Route, config: dict[str, Any], silence: Mapping[str, Any] | None = None
    ) -> None:
        self.name, self.route, self.config, self.silence = name, route, config, silence
        self.call: Call | None = None
        """None too when there was nothing to ask."""
        self.items: list[dict[str, Any]] = []
        """What it was given."""
        self.output: list[dict[str, Any]] = []
        self.usage: dict[str, Any] = {}

    @property
    def target(self) -> bytes:
        """The native address of its calls."""
        return self.route.target + b"/invoke"

    def asked(self) -> list[dict[str, Any]]:
        """Return those of its items that its service is asked for."""
        return self.items if self.silence is None else [item for item in self.items if not _is_silent(item)]

    def answered(self, outputs: list[dict[str, Any]]) -> None:
        """Take the outputs of what was asked, one for one; raise ProviderFailed when they are not as many."""
        if self.silence is None:
            self.output = outputs
            return
        if len(outputs) != len(self.asked()):
            raise ProviderFailed("The provider did not answer each input.")
        left = iter(outputs)
        self.output = [dict(self.silence) if _is_silent(item) else next(left) for item in self.items]

    def report(self) -> dict[str, Any]:
        """Return what was done: the stage's own request id leads to its usage event and its charge."""
        call = self.call
        if call is None:
            return {"name": self.name, "service": self.route.service.path, "request_id": "", "units": {}}
        said = {"name": self.name, "service": self.route.service.path, "request_id": call.id, "units": call.units}
        charge = unit_header(call, self.route).partition(b"X-Haat-Charge: ")[2].strip()
        return {**said, "charge": charge.decode("ascii")} if charge else said


def _is_silent(item: dict[str, Any]) -> bool:
    text = item.get("text")
    return isinstance(text, str) and not text.strip()


class StageFailed(HaatError):
    """A stage was refused or failed. It has that error's code and status, and says which stage it was."""

    def __init__(self, error: HaatError, stage: Stage, number: int, done: list[Stage]) -> None:
        request_id = stage.call.id if stage.call is not None else ""
        super().__init__(
            f"Stage {number + 1} ({stage.name}): {error.detail}",
            **error.extensions,
            stage={
                "number": number + 1,
                "name": stage.name,
                "service": stage.route.service.path,
                "request_id": request_id,
            },
            done=[one.report() for one in done],
        )
        self.code, self.status, self.title = error.code, error.status, error.title  # type: ignore[misc]  # as that error


class Pipeline:
    """One run of some stages for one caller. As an answer step of the outer call it learns when its caller leaves."""

    def __init__(
        self,
        gateway: Gateway,
        outer: Call,
        stages: list[Stage],
        timeout_us: int,
        done: Callable[[Pipeline, HaatError | None], None],
    ) -> None:
        self.stages = stages
        self._gateway, self._outer, self._done = gateway, outer, done
        self._until = outer.started + timeout_us
        self._at = 0
        outer.recorded = True  # what is recorded are the stages
        outer.on_answer = [*outer.on_answer, self]

    def begin(self, items: list[dict[str, Any]]) -> None:
        """Start with the first stage. ``done`` is called from the event loop when all have ended or one has failed."""
        self._ask(items)

    def _ask(self, items: list[dict[str, Any]]) -> None:
        stage = self.stages[self._at]
        stage.items = items
        asked = stage.asked()
        if not asked:
            self._go_on([])
            return
        body = _encode({"input": asked, "config": stage.config})
        stage.call = inner.begin(self._gateway, self._outer, stage.target, body, self._until, self._stage_ended)

    def _go_on(self, outputs: list[dict[str, Any]]) -> None:
        """Take what the present stage has answered, and begin the next one; raise what speaks against that."""
        stage = self.stages[self._at]
        stage.answered(outputs)
        self._at += 1
        if self._at == len(self.stages):
            self._done(self, None)
            return
        if self._gateway.clock.now_us() >= self._until:
            raise ProviderTimeout("The time for the whole pipeline was over before this stage began.")
        self._ask([next_input(output, self.stages[self._at]) for output in stage.output])

    def _stage_ended(self, call: Call, answer: Whole | None, error: HaatError | None) -> None:
        if self._outer.answered:
            return  # its caller has left
        stage = self.stages[self._at]
        if answer is not None and answer.status >= 400:
            error = refusal_in(answer)
        if error is None:
            assert answer is not None
            try:
                outputs, stage.usage = read_task_answer(answer)
                self._go_on(outputs)
                return
            except HaatError as trouble:
                error = trouble
        at = min(self._at, len(self.stages) - 1)
        self._done(self, StageFailed(error, self.stages[at], at, self.stages[:at]))

    # --- as an answer step of the outer call --------------------------------------------------------

    def answered(self, call: Call, answer: Whole) -> None:
        """The whole has its answer."""

    def missed(self, call: Call) -> None:
        """The caller has left, or the whole was refused: nobody waits for the stage that runs."""
        running = self.stages[self._at].call if self._at < len(self.stages) else None
        if running is not None and not running.answered:
            inner.give_up(running)


def next_input(output: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Return what a stage is asked, given what the one before it answered; raise ProviderFailed when nothing fits."""
    audio = output.get("audio")
    if isinstance(audio, dict):
        return {"audio": {name: audio[name] for name in ("content", "format") if name in audio}}
    for name in _TEXTS:
        text = output.get(name)
        if isinstance(text, str):
            return {"text": text}
    raise ProviderFailed(f"What came before it holds neither text nor audio that {stage.name} could go on with.")
