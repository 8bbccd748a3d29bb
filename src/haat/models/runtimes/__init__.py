"""Who runs models: each runtime makes a runner of a model's files. Plugins may bring more (`haat_runtimes`)."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from haat.kernel.errors import EngineMissing
from haat.models.runtimes.port import Runtime

BUILT_IN = {
    "python": "haat.models.runtimes.python:PythonRuntime",
    "onnx": "haat.models.runtimes.onnx:OnnxRuntime",
    "torch": "haat.models.runtimes.torch:TorchRuntime",
    "command": "haat.models.runtimes.command:CommandRuntime",
    "http": "haat.models.runtimes.http:HttpRuntime",
}


@cache
def names() -> dict[str, Runtime | str]:
    """Return what each name stands for: a plugin's runtime, or where the platform's own is. Ours can't be replaced."""
    from haat.plugins.manager import brought_runtimes

    return {**brought_runtimes(), **BUILT_IN}


def runtime_named(name: str) -> Runtime:
    """Return the runtime of that name; raise EngineMissing. Only the one that is asked for is imported."""
    found = BUILT_IN.get(name) or names().get(name)
    if found is None:
        raise EngineMissing(f"No runtime is called {name[:100]}; there are {', '.join(sorted(names()))}.")
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = getattr(import_module(module), attribute)()
        assert isinstance(found, Runtime)
    return found
