"""How many workers a model should have: a pure policy, and the loop that applies it to an engine.

The documented numbers, more than 150 waiting → two more, fewer than 50 → one less, are those of a batch of 32. For
other batches they scale with it, so that they always lie below the queue's bound of ten batches: a model that is
refused for want of places has long been given workers. ``docs/autoscaling.md`` has the whole of it in words.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from haat.kernel.errors import HaatError
from haat.models.engines.port import Engine, Model, State, Status
from haat.models.manifest import Manifest

REFERENCE_BATCH = 32
MANY_WAITING, FEW_WAITING = 150, 50
"""Inputs in the queue of a model whose batches hold 32."""
PERIOD = 1.0  # seconds

Reason = Literal["", "bounds", "queue", "latency", "utilisation", "calm"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is wanted of a model's workers. Times are seconds, shares go from 0 to 1."""

    least: int = 2
    most: int = 20
    batch: int = REFERENCE_BATCH
    """Inputs that one worker takes at once."""
    latency: float = 0.0
    """A 95th percentile above it, while something waits, asks for one worker more; 0 for no such wish."""
    busy: float = 0.85
    """Workers at work for a larger share than this are short of one, if the queue isn't short either."""
    spare: float = 0.7
    """One worker is too many if the others, doing its work too, are at work for at most this share."""
    up: int = 2
    down: int = 1
    hold: float = 2.0
    """How long there must be too much to do before there are more workers."""
    pause: float = 3.0
    """Time between two changes upwards: what has been added must first show in the queue."""
    arrival: float = 60.0
    """How long workers that are still loading are waited for before yet more are asked for."""
    calm: float = 30.0
    """How long there must have been little to do, and no change, before a worker goes."""

    @classmethod
    def of(cls, manifest: Manifest) -> Policy:
        """Return the policy of a model's file: its bounds and batch, and a quarter of its timeout as latency."""
        workers, batching = manifest.workers, manifest.batching
        return cls(
            least=workers.least,
            most=workers.most,
            batch=batching.max_items,
            latency=manifest.timeout_seconds / 4,
        )

    def many_waiting(self, workers: int) -> float:
        """Return the queue above which there are too few workers: 4.69 batches, or half of one for each of them.

        What arrives while many workers are at work on a batch each is no backlog: the next batches take it.
        """
        return self.batch * max(MANY_WAITING / REFERENCE_BATCH, workers / 2)

    def few_waiting(self, workers: int) -> float:
        """Return the queue below which there may be too many, a third of `many_waiting`."""
        return self.many_waiting(workers) * FEW_WAITING / MANY_WAITING


class Load(Protocol):
    """What the policy looks at of an engine's `State`."""

    @property
    def workers(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def latency_p95(self) -> float: ...
    @property
    def utilisation(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Wish:
    """How many workers there should be, why that changed last, and what the next decision has to remember.

    ``changed`` is when it changed, ``pressed`` and ``calm`` since when there is too much and little to do: the
    clock's seconds, None for not now.
    """

    workers: int
    reason: Reason = ""
    changed: float = float("-inf")
    pressed: float | None = None
    calm: float | None = None


def decide(policy: Policy, load: Load, now: float, last: Wish) -> Wish:
    """Return how many workers there should be from ``now`` on, given the wish of the last time.

    The wish is always within the policy's bounds. It grows by ``up`` or 1 after ``hold`` seconds of too much to do,
    at most every ``pause`` seconds, and shrinks by ``down`` after ``calm`` seconds of little, as often.
    """
    within = min(max(last.workers, policy.least), policy.most)
    if within != last.workers:
        return Wish(within, "bounds", now)
    more, reason = _shortage(policy, load)
    if more:
        pressed = now if last.pressed is None else last.pressed
        wish = replace(last, pressed=pressed, calm=None)
        loading = load.workers < last.workers and now - last.changed < policy.arrival
        ready = now - pressed >= policy.hold and now - last.changed >= policy.pause and not loading
        if ready and last.workers < policy.most:
            return replace(wish, workers=min(last.workers + more, policy.most), reason=reason, changed=now)
        return wish
    if not _has_spare(policy, load, last.workers):
        return replace(last, pressed=None, calm=None)
    calm = now if last.calm is None else last.calm
    wish = replace(last, pressed=None, calm=calm)
    if last.workers > policy.least and now - max(calm, last.changed) >= policy.calm:
        return replace(wish, workers=max(last.workers - policy.down, policy.least), reason="calm", changed=now)
    return wish


def _shortage(policy: Policy, load: Load) -> tuple[int, Reason]:
    """Return how many workers are missing, and what shows it."""
    if load.queued > policy.many_waiting(load.workers):
        return policy.up, "queue"
    if load.queued and policy.latency and load.latency_p95 > policy.latency:
        return 1, "latency"
    if load.queued >= policy.few_waiting(load.workers) and load.utilisation > policy.busy:
        return 1, "utilisation"
    return 0, ""


def _has_spare(policy: Policy, load: Load, workers: int) -> bool:
    """Tell whether fewer workers would do: with a short queue, the work of all fits well into those left."""
    left = workers - policy.down
    if left < 1 or load.queued >= policy.few_waiting(load.workers):
        return False
    at_work = load.utilisation * min(load.workers, workers)
    return at_work <= policy.spare * left and load.in_flight <= policy.spare * left * policy.batch


class Autoscaler:
    """Applies the policy to all models of an engine that are loaded, once a second from `start` to `stop`.

    ``policy_of`` chooses a model's policy. What the engine refuses is logged, and tried again the next second.
    """

    def __init__(
        self,
        engine: Engine,
        policy_of: Callable[[Model], Policy] = lambda model: Policy.of(model.manifest),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._policy_of, self._clock = engine, policy_of, clock
        self._wishes: dict[str, Wish] = {}
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look at the engine."""
        self._loop = asyncio.create_task(self._run(), name="autoscaler")

    async def stop(self) -> None:
        """Leave the engine as it is from now on."""
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop
            self._loop = None

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("the autoscaler could not look at the engine")
            await asyncio.sleep(PERIOD)

    async def look(self) -> None:
        """Decide for each model once, and have the engine do it."""
        models = {model.key: model for model in self._engine.models()}
        self._wishes = {key: wish for key, wish in self._wishes.items() if key in models}
        for key, model in models.items():
            state = self._state(key)
            if state is None or state.status not in (Status.READY, Status.BUSY):
                self._wishes.pop(key, None)
                continue
            await self._apply(model, state)

    async def _apply(self, model: Model, state: State) -> None:
        last = self._wishes.get(model.key) or Wish(state.workers)
        wish = decide(self._policy_of(model), state, self._clock(), last)
        if wish.workers != last.workers:
            log.info("%s: %d workers, not %d (%s)", model.key, wish.workers, last.workers, wish.reason)
            try:
                await self._engine.scale(model.key, wish.workers)
            except (HaatError, KeyError) as error:
                log.warning("%s can't have %d workers: %s", model.key, wish.workers, error)
                return
        self._wishes[model.key] = wish

    def _state(self, key: str) -> State | None:
        try:
            return self._engine.state(key)
        except KeyError:  # removed since it was listed
            return None

    def metrics(self) -> str:
        """Return Prometheus text: the workers that each loaded model should have and has, and what waits for them."""
        samples: dict[str, list[tuple[str, int]]] = {name: [] for name, _ in _METRICS}
        for key, wish in sorted(self._wishes.items()):
            if (state := self._state(key)) is not None:
                samples["haat_model_workers_wanted"].append((key, wish.workers))
                samples["haat_model_workers_running"].append((key, state.workers))
                samples["haat_model_inputs_waiting"].append((key, state.queued))
        lines = []
        for name, meaning in _METRICS:
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]
            lines += [f'{name}{{model="{_escaped(key)}"}} {value}' for key, value in samples[name]]
        return "\n".join(lines) + "\n"


_METRICS = (
    ("haat_model_workers_wanted", "Workers that the autoscaling policy wants for a loaded model."),
    ("haat_model_workers_running", "Workers that run it now."),
    ("haat_model_inputs_waiting", "Inputs in its queue."),
)


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
