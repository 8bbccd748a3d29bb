"""A class or a function of Python: ``module:Class`` or ``module:function``, from the model's folder or installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from haat.models.hosted import Output
from haat.models.manifest import Manifest
from haat.models.runtimes.port import Input, Runner, Runtime


class PythonRunner(Runner):
    """An object with ``predict(inputs)``, and ``stream(input)`` and ``close()`` where it has them."""

    def __init__(self, model: Any) -> None:
        self._predict: Callable[[Sequence[Input]], Sequence[Output]] = getattr(model, "predict", model)
        self._model = model

    def predict(self, inputs: Sequence[Input]) -> Sequence[Output]:
        return self._predict(inputs)

    def stream(self, given: Input) -> Iterator[Output]:
        if hasattr(self._model, "stream"):
            yield from self._model.stream(given)
        else:
            yield from super().stream(given)

    def close(self) -> None:
        if hasattr(self._model, "close"):
            self._model.close()


class PythonRuntime(Runtime):
    """Imports the entry; makes an object of a class, and has it ``load()`` if it can."""

    name = "python"

    def check(self, manifest: Manifest, folder: Path) -> list[str]:
        module, _, name = manifest.entry.partition(":")
        return [] if module and name else ["entry: is written `module:Class`"]

    def open(self, manifest: Manifest, folder: Path) -> Runner:
        module, _, name = manifest.entry.partition(":")
        sys.path.insert(0, str(folder))
        model = getattr(import_module(module), name)
        if isinstance(model, type):
            model = model()
            if hasattr(model, "load"):
                model.load()
        return PythonRunner(model)
