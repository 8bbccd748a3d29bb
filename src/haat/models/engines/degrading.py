"""An engine that has a second answer for models that are overloaded: one given before, or a cheaper model's."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

import msgspec

from haat.kernel.errors import EngineTimeout, HaatError, Overloaded
from haat.models.engines.port import Engine, Model, State, Ticket
from haat.models.hosted import Output
from haat.models.runtimes.port import Input

MOST_BYTES = 64 * 1024 * 1024
NOTE = "degraded"
"""In a ticket's notes: ``cached``, or the key of the model that has answered."""


class Answers:
    """Outputs that were given lately, by model and input; the oldest make room for new ones."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()

    def keep(self, key: str, given: Input, output: Output, now: float) -> None:
        """Keep an output."""
        name, written = _name(key, given), msgspec.msgpack.encode(output)
        self._drop(name)
        self._kept[name] = (now, written)
        self._bytes += len(written)
        while self._bytes > self._most:
            self._drop(next(iter(self._kept)))

    def find(self, key: str, given: Input, oldest: float) -> Output | None:
        """Return an output that is not older than ``oldest``."""
        at, written = self._kept.get(_name(key, given), (0.0, b""))
        return msgspec.msgpack.decode(written, type=Output) if written and at >= oldest else None

    def _drop(self, name: bytes) -> None:
        _, written = self._kept.pop(name, (0.0, b""))
        self._bytes -= len(written)


def _name(key: str, given: Input) -> bytes:
    config = sorted(given.config.items())
    digest = hashlib.sha256(msgspec.msgpack.encode((key, given.text, given.other, given.format, config)))
    digest.update(given.content)
    return digest.digest()


class DegradingEngine(Engine):
    """Another engine, with what each manifest says under ``degraded``. Streams are passed through."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._answers = Answers()
        self._models: dict[str, Model] = {}

    async def run(self, key: str, inputs: Sequence[Input], ticket: Ticket) -> list[Output]:
        model = self._models.get(key)
        rule = None if model is None else model.manifest.degraded
        if rule is None or not (rule.instead or rule.cached_seconds):
            return await self._engine.run(key, inputs, ticket)
        try:
            outputs = await self._engine.run(key, inputs, ticket)
        except (Overloaded, EngineTimeout) as error:
            return await self._instead(key, inputs, ticket, error)
        if rule.cached_seconds:
            now = time.monotonic()
            for given, output in zip(inputs, outputs, strict=True):
                self._answers.keep(key, given, output, now)
        return outputs

    async def _instead(self, key: str, inputs: Sequence[Input], ticket: Ticket, error: HaatError) -> list[Output]:
        rule = self._models[key].manifest.degraded
        if rule.cached_seconds:
            oldest = time.monotonic() - rule.cached_seconds
            found = [self._answers.find(key, given, oldest) for given in inputs]
            outputs = [output for output in found if output is not None]
            if len(outputs) == len(inputs):
                ticket.notes[NOTE] = "cached"
                return outputs
        # After a timeout there is no time left for another model; one of another provider is not this one's to give.
        other = self._models.get(rule.instead)
        if other is None or isinstance(error, EngineTimeout) or other.provider != self._models[key].provider:
            raise error
        ticket.notes[NOTE] = rule.instead
        try:
            return await self._engine.run(rule.instead, inputs, ticket)
        except HaatError:
            del ticket.notes[NOTE]
            raise error from None

    def stream(self, key: str, given: Input, ticket: Ticket) -> AsyncIterator[Output]:
        return self._engine.stream(key, given, ticket)

    async def deploy(self, model: Model) -> None:
        self._models[model.key] = model
        await self._engine.deploy(model)

    async def remove(self, key: str) -> None:
        self._models.pop(key, None)
        await self._engine.remove(key)

    async def start(self) -> None:
        await self._engine.start()

    async def stop(self) -> None:
        await self._engine.stop()

    async def load(self, key: str) -> None:
        await self._engine.load(key)

    async def unload(self, key: str) -> None:
        await self._engine.unload(key)

    async def scale(self, key: str, workers: int) -> None:
        await self._engine.scale(key, workers)

    def state(self, key: str) -> State:
        return self._engine.state(key)

    def models(self) -> list[Model]:
        return self._engine.models()
