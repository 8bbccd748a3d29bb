"""The runtime ``python``: a class or a function, of the model's folder or of an installed package.

``entry`` is ``module:name``. A class is made without arguments and given ``settings`` and ``folder`` as attributes; its
``load()`` is called once if it has one. ``predict(inputs)``, or the function, returns one output an input: an
object, or a text that stands for ``{"text": …}``. ``stream(input)`` yields the parts of one.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from haat.kernel.errors import EngineFailed
from haat.models.hosted import Output
from haat.models.manifest import Manifest
from haat.models.runtimes.port import Input, Runner, Runtime

_ENTRY = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


class PythonRuntime(Runtime):
    """Python code, in the interpreter that the worker has."""

    name = "python"

    def check(self, manifest: Manifest, folder: Path) -> list[str]:
        match = _ENTRY.fullmatch(manifest.entry)
        if match is None:
            return ["entry: must be module:Class or module:function"]
        top, _, rest = match[1].partition(".")
        if _is_in(folder, match[1]):
            return []
        if (folder / top).is_dir() or (folder / f"{top}.py").is_file():
            return [f"entry: {top} has no module {rest}"] if rest else []
        if manifest.requirements:
            return []  # it may come with one of them
        try:
            found = importlib.util.find_spec(top) is not None
        except (ImportError, ValueError):
            found = False
        return [] if found else [f"entry: there is no module {top} in the folder, and none is installed"]

    def open(self, manifest: Manifest, folder: Path) -> Runner:
        module, _, name = manifest.entry.partition(":")
        return PythonRunner(module, name, manifest, folder)


def _is_in(folder: Path, module: str) -> bool:
    path = folder.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


class PythonRunner(Runner):
    """The model's own object."""

    def __init__(self, module: str, name: str, manifest: Manifest, folder: Path) -> None:
        self._folder = str(folder.resolve())
        _forget(_folders)
        _folders.add(self._folder)
        sys.path.insert(0, self._folder)
        importlib.invalidate_caches()
        try:
            found = getattr(importlib.import_module(module), name, None)
            if found is None:
                raise EngineFailed(f"The module {module} has no {name}; correct `entry` in the model's file.")
            if inspect.isclass(found):
                model: Any = found()
                model.settings, model.folder = manifest.settings, folder
                if callable(load := getattr(model, "load", None)):
                    load()
                found = model
        except BaseException:
            self.close()
            raise
        predict = getattr(found, "predict", found)
        if not callable(predict):
            self.close()
            raise EngineFailed(f"{name} has no method `predict`; a model is a class that has one, or a function.")
        self._predict: Callable[[Sequence[Input]], Any] = predict
        self._stream: Callable[[Input], Any] | None = getattr(found, "stream", None)
        self._close: Callable[[], None] | None = getattr(found, "close", None)

    def predict(self, inputs: Sequence[Input]) -> Sequence[Output]:
        given = self._predict(inputs)
        if isinstance(given, str | bytes | dict):
            raise EngineFailed("The model gave one output instead of a list with one for each input.")
        return [_output(one) for one in given]

    def stream(self, given: Input) -> Iterator[Output]:
        if self._stream is None:
            yield from super().stream(given)
        else:
            for part in self._stream(given):
                yield _output(part)

    def close(self) -> None:
        """Close the model and forget its modules."""
        if close := getattr(self, "_close", None):
            close()
        if self._folder in sys.path:
            sys.path.remove(self._folder)
        _forget({self._folder})


_folders: set[str] = set()
"""Where models of this process came from: two of them may call their modules alike, and so may two versions of one."""


def _forget(folders: set[str]) -> None:
    places = tuple(f"{folder}/" for folder in folders)
    for name, module in list(sys.modules.items()):
        if places and (getattr(module, "__file__", None) or "").startswith(places):
            del sys.modules[name]


def _output(given: Any) -> Any:
    return {"text": given} if isinstance(given, str) else given
