"""Pipelines: what one service answers is what the next one is asked.

Each stage is a call of its own: admitted, limited, metered and charged by itself. What was done before a
failure is billed, what was not isn't. The whole has one deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway import relay
from haat.gateway.call import Call
from haat.gateway.doors import inner
from haat.gateway.doors.answers import read_task_answer, refusal_in
from haat.gateway.doors.events import NO_STORE
from haat.gateway.doors.tally import Tally, charge_of
from haat.gateway.doors.visit import JSON_LINE, Visit
from haat.gateway.http.answers import Whole
from haat.gateway.idempotency.chains import ChainKey, Chosen
from haat.gateway.idempotency.once import REPLAYED
from haat.gateway.market.scopes import require
from haat.kernel.errors import HaatError, ProviderFailed, ProviderTimeout
from haat.usage.event import Outcome

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.routes import Route

MOST_STAGES = 8

_encode = msgspec.json.Encoder(decimal_format="number").encode
_TEXTS = ("text", "command", "summary")
"""Members of an output that hold the text a next stage goes on with, the first that is there."""


class Stage:
    """One step: whose service, with which options, and in the end what came of it.

    ``silence`` is what it makes of an empty text without being asked; None leaves it to the service to refuse that.
    """

    __slots__ = ("call", "config", "items", "name", "output", "reason", "route", "silence", "usage")

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
        self.reason: dict[str, Any] | None = None
        """By what its service was chosen, where there was a choice."""

    @property
    def target(self) -> bytes:
        """The native address of its calls."""
        return self.route.target + b"/invoke"

    @property
    def plan(self) -> Chosen:
        """What a later request with the same key goes on with."""
        service = f"{self.route.service.path}@{self.route.version.version}"
        return Chosen(service, self.config, self.reason)

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
        call, said = self.call, {"name": self.name, "service": self.route.service.path}
        if call is None:
            return {**said, "request_id": "", "units": {}}
        charge = charge_of(call, self.route)
        told = {**said, "request_id": call.id, "units": call.units, **({"charge": charge} if charge else {})}
        return told if self.reason is None else {**told, "chosen": self.reason}


def _is_silent(item: dict[str, Any]) -> bool:
    text = item.get("text")
    return isinstance(text, str) and not text.strip()


class StageFailed(HaatError):
    """A stage was refused or failed. It has that error's code and status, and says which stage it was."""

    def __init__(
        self, error: HaatError, stage: Stage, number: int, call: Call | None, done: list[dict[str, Any]], **more: Any
    ) -> None:
        where = f"Stage {number + 1} ({stage.name})"
        if "item" in more:
            where += f", item {more['item'] + 1}"
        super().__init__(
            f"{where}: {error.detail}",
            **error.extensions,
            stage={
                "number": number + 1,
                "name": stage.name,
                "service": stage.route.service.path,
                "request_id": call.id if call is not None else "",
            },
            **more,
            done=done,
        )
        self.code, self.status, self.title = error.code, error.status, error.title  # type: ignore[misc]  # as that error
        self.lasts = call is not None and self.status >= 500 and self.status != 503 and not _repeatable(stage)
        """A provider may have executed it: under the same key it is not asked again."""


def _repeatable(stage: Stage) -> bool:
    return stage.route.service.policy.repeatable


Make = Callable[[list[Stage]], bytes]
"""Makes the answer's body of the stages that have ended; may raise HaatError."""


class Pipeline:
    """One run of some stages for one caller. As an answer step of the outer call it learns when its caller leaves."""

    def __init__(
        self,
        gateway: Gateway,
        outer: Call,
        visit: Visit,
        stages: list[Stage],
        timeout_us: int,
        key: ChainKey | None,
        make: Make,
    ) -> None:
        self._stages = stages
        self._gateway, self._outer, self._visit, self._key, self._make = gateway, outer, visit, key, make
        self._until = outer.started + timeout_us
        self._at = 0
        outer.recorded = True  # what is recorded are the stages
        outer.on_answer = [*outer.on_answer, self]

    def begin(self, items: list[dict[str, Any]]) -> None:
        """Start with the first stage. The outer call is answered when all have ended or one has failed."""
        self._ask(items)

    def _ask(self, items: list[dict[str, Any]]) -> None:
        stage = self._stages[self._at]
        stage.items = items
        asked = stage.asked()
        if not asked:
            self._go_on([])
            return
        body = _encode({"input": asked, "config": stage.config})
        key = self._key.of(self._at) if self._key is not None else b""
        stage.call = inner.begin(self._gateway, self._outer, stage.target, body, self._until, self._stage_ended, key)

    def _go_on(self, outputs: list[dict[str, Any]]) -> None:
        """Take what the present stage has answered, and begin the next one; raise what speaks against that."""
        stage = self._stages[self._at]
        stage.answered(outputs)
        self._at += 1
        if self._at == len(self._stages):
            self._end()
            return
        if self._gateway.clock.now_us() >= self._until:
            raise ProviderTimeout("The time for the whole pipeline was over before this stage began.")
        self._ask([next_input(output, self._stages[self._at]) for output in stage.output])

    def _stage_ended(self, call: Call, answer: Whole | None, error: HaatError | None) -> None:
        if self._outer.answered:
            return  # its caller has left
        stage = self._stages[self._at]
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
        at = min(self._at, len(self._stages) - 1)
        stage = self._stages[at]
        self._refuse(StageFailed(error, stage, at, stage.call, [one.report() for one in self._stages[:at]]), at > 0)

    def _end(self) -> None:
        """Answer with what the stages came to, in the head what that is and costs."""
        call = self._outer
        try:
            body = self._make(self._stages)
        except HaatError as error:
            self._stop(error)
            return
        tally = Tally()
        calls = [stage.call for stage in self._stages if stage.call is not None]
        for stage in self._stages:
            if stage.call is not None:
                tally.add(stage.call, stage.route)
        lines = tally.lines()
        if calls and all(one.cache == "replay" for one in calls):
            lines += REPLAYED
        if self._key is not None:
            self._key.keep(200, (JSON_LINE, NO_STORE, *tally.served_lines()), body)
        self._visit.answer(call, body, lines=lines)

    def _refuse(self, error: StageFailed, begun: bool) -> None:
        key = self._key
        if key is not None:
            if error.lasts:
                content_type, body = self._visit.operation.problem(error, self._outer.id)
                key.keep(error.status, (b"Content-Type: %b\r\n" % content_type, NO_STORE), body)
            elif begun:
                key.stop()
            else:
                key.free()
        self._stop(error)

    def _stop(self, error: HaatError) -> None:
        relay.refuse(self._outer, error, Outcome.REFUSED)

    # --- as an answer step of the outer call --------------------------------------------------------

    def answered(self, call: Call, answer: Whole) -> None:
        """The whole has its answer."""

    def missed(self, call: Call) -> None:
        """The caller has left, or the whole was refused: nobody waits for the stage that runs."""
        running = self._stages[self._at].call if self._at < len(self._stages) else None
        if running is not None and not running.answered:
            inner.give_up(running)
        if self._key is not None:
            self._key.stop()


def claimed(
    gateway: Gateway, call: Call, visit: Visit, stages: list[Stage], timeout_us: int, *, streams: bool = False
) -> ChainKey | None:
    """Claim the caller's Idempotency-Key for these stages; None when it sent none, or was answered from what is kept.

    ``call.answered`` tells the two apart. The stages become those that an earlier request with the key had. Raise
    OutOfScope for a stage that the caller's key doesn't open, before anything is done or given from what is kept.
    """
    assert call.credential is not None
    for stage in stages:
        require(call.credential, stage.route.service)
    if call.once is None:
        return None
    key = ChainKey(gateway, call, visit, timeout_us, streams)
    if not key.begin(gateway, call):
        return None
    try:
        for number, chosen in enumerate(key.plan):
            route = gateway.routes.find(chosen.service.encode("ascii"))
            if number == len(stages):
                stages.append(Stage(route.service.slug, route, chosen.config))
            stage = stages[number]
            stage.route, stage.config, stage.reason = route, chosen.config, chosen.reason
        if key.plan:
            del stages[len(key.plan) :]
        key.note([stage.plan for stage in stages])
    except HaatError:
        key.free()
        raise
    return key


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
