"""What a runtime is to the engines: it makes a runner of a model's files, in the process of a worker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from haat.models.hosted import Output
from haat.models.manifest import Manifest


class Input(msgspec.Struct, frozen=True):
    """One input as a model sees it, already checked: ``text`` (and ``other`` of a pair) or ``content`` in ``format``.

    ``config`` is complete: canonical language tags, defaults filled in. A batch holds inputs of several calls, so
    each has its own.
    """

    text: str = ""
    other: str = ""
    content: bytes = b""
    format: str = ""
    config: Mapping[str, Any] = {}


class Runner(ABC):
    """A loaded model. It is only ever called from one thread; what it prints goes to the log."""

    @abstractmethod
    def predict(self, inputs: Sequence[Input]) -> Sequence[Output]:
        """Return one output an input, in their order. Whatever is raised fails the batch; a `HaatError` says more."""

    def stream(self, given: Input) -> Iterator[Output]:
        """Yield the parts of one input's output, for models that say ``streams``; the whole of it in one, if not."""
        yield from self.predict([given])

    def close(self) -> None:  # noqa: B027  # most have nothing to close
        """Let go of what was opened."""


class Runtime(ABC):
    """A kind of runner. ``name`` is what manifests call it."""

    name: str

    @abstractmethod
    def check(self, manifest: Manifest, folder: Path) -> list[str]:
        """Return what is wrong with a manifest for this runtime, each as ``field: sentence``. Loads nothing."""

    def missing(self, manifest: Manifest) -> str | None:
        """Say in a sentence what is not installed here and the command that installs it, or None."""
        return None

    @abstractmethod
    def open(self, manifest: Manifest, folder: Path) -> Runner:
        """Load the model, in the worker, and return what runs it; raise whatever goes wrong."""
