"""The port behind which models run, and what an engine tells of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from haat.models.hosted import Output
from haat.models.manifest import Manifest
from haat.models.runtimes.port import Input

PRIORITIES = range(1, 11)
USUAL_PRIORITY = 5


@dataclass(frozen=True, slots=True)
class Model:
    """One version of a model, ready to be run: ``key`` is ``provider/name@version``, ``folder`` has its files.

    ``python`` is the interpreter of its own virtual environment; empty for the platform's.
    """

    key: str
    manifest: Manifest
    folder: Path
    python: str = ""

    @property
    def provider(self) -> str:
        """Slug of the provider whose it is."""
        return self.key.partition("/")[0]


class Status(StrEnum):
    """``unloaded`` → ``loading`` → ``ready`` ⇄ ``busy`` → ``unloading`` → ``unloaded``.

    ``error`` if it can't be loaded.
    """

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    UNLOADING = "unloading"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class State:
    """How a model is doing. Times are seconds; ``utilisation`` is the share of lately that its workers were at work."""

    status: Status
    workers: int = 0
    queued: int = 0
    in_flight: int = 0
    memory_bytes: int = 0
    latency_p95: float = 0.0
    utilisation: float = 0.0
    error: str = ""


@dataclass(slots=True)
class Ticket:
    """What a caller wants of one call beside its inputs, and what it learns of it.

    ``priority`` goes from 1 to 10, 10 first. ``deadline`` is on `time.monotonic`'s clock, 0 for the manifest's.
    ``trace`` is the W3C traceparent of the caller's span, empty for none. ``on_place`` is told the place in the
    queue whenever it changes. Afterwards ``queued``, ``ran`` and ``loaded`` are seconds, ``batch`` the size of
    the largest batch that one of its inputs was in.
    """

    request_id: str = ""
    priority: int = USUAL_PRIORITY
    deadline: float = 0.0
    trace: str = ""
    on_place: Callable[[int], None] | None = None
    queued: float = 0.0
    ran: float = 0.0
    loaded: float = 0.0
    batch: int = 0
    notes: dict[str, str] = field(default_factory=dict)
    """What else there is to say of the answer, such as ``degraded``."""


class Engine(ABC):
    """Runs models. All of it is asynchronous and none of it blocks; a cancelled call gives up its inputs.

    Errors are `HaatError`s: Overloaded (503, with ``retry_after``) before the queue is hopeless, EngineTimeout (504)
    past the deadline, EngineFailed for what a model did wrong, EngineMissing for what isn't installed.
    """

    @abstractmethod
    async def start(self) -> None:
        """Get ready to run models."""

    @abstractmethod
    async def stop(self) -> None:
        """End everything; calls still running fail."""

    @abstractmethod
    async def deploy(self, model: Model) -> None:
        """Make a model known; it is loaded at its first call, or now where its manifest says ``preload``.

        A model of the same key takes the place of the one before, which first ends what it is doing.
        """

    @abstractmethod
    async def remove(self, key: str) -> None:
        """Forget a model once it has ended what it is doing. Does nothing for one that isn't known."""

    @abstractmethod
    async def load(self, key: str) -> None:
        """Load a model now; returns when it can be called."""

    @abstractmethod
    async def unload(self, key: str) -> None:
        """Give its memory back; the next call loads it again."""

    @abstractmethod
    async def run(self, key: str, inputs: Sequence[Input], ticket: Ticket) -> list[Output]:
        """Return one output an input, in their order. Inputs of one call may be in several batches."""

    @abstractmethod
    def stream(self, key: str, given: Input, ticket: Ticket) -> AsyncIterator[Output]:
        """Yield the parts of one input's output. Closing the iterator ends the work."""

    @abstractmethod
    async def scale(self, key: str, workers: int) -> None:
        """Have so many workers run a model from now on, within its manifest's bounds."""

    @abstractmethod
    def state(self, key: str) -> State:
        """Tell how a model is doing; raise KeyError for one that isn't known."""

    @abstractmethod
    def models(self) -> list[Model]:
        """Return the models that are known."""
