"""The runtime ``torch``: TorchScript (``.pt``) or an exported program (``.pt2``), where PyTorch is installed.

Settings are those of `haat.models.runtimes.tensors`; tensors are given in the order ``input``, ``mask``, ``lengths``.
Pickled models (``torch.save`` of a module) are not taken: loading one runs whatever stands in it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from haat.kernel.errors import EngineFailed
from haat.models.hosted import Output
from haat.models.manifest import Manifest
from haat.models.runtimes.port import Input, Runner, Runtime
from haat.models.runtimes.tensors import Tensors, check_settings, read_settings

SUFFIXES = (".pt", ".pt2")


class TorchRuntime(Runtime):
    """A model that PyTorch wrote. A batch is one call."""

    name = "torch"

    def check(self, manifest: Manifest, folder: Path) -> list[str]:
        found = check_settings(manifest.settings, manifest.kind, folder)
        if not manifest.entry.endswith(SUFFIXES) or not (folder / manifest.entry).is_file():
            found.append(
                f"entry: there is no {manifest.entry} in the folder; it must be a file that ends with .pt or .pt2"
            )
        return found

    def missing(self, manifest: Manifest) -> str | None:
        if importlib.util.find_spec("torch") is not None or manifest.requirements:
            return None
        return "PyTorch is not installed: run `pip install 'haat[torch]'`."

    def open(self, manifest: Manifest, folder: Path) -> Runner:
        return TorchRunner(manifest, folder)


class TorchRunner(Runner):
    """The module, without gradients and on one thread."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        torch: Any = importlib.import_module("torch")
        torch.set_num_threads(1)
        mapped = read_settings(manifest.settings)
        self._names = [name for name in (mapped.input, mapped.mask, mapped.lengths) if name]
        self._torch, self._tensors, self._output = torch, Tensors(mapped, folder), mapped.output
        path = str(folder / manifest.entry)
        try:
            if path.endswith(".pt2"):
                self._module: Any = torch.export.load(path).module()
            else:
                self._module = torch.jit.load(path, map_location="cpu").eval()
        except Exception as error:
            raise EngineFailed(f"{manifest.entry} is no model that PyTorch can load.") from error

    def predict(self, inputs: Sequence[Input]) -> Sequence[Output]:
        given = self._tensors.tensors(inputs)
        with self._torch.no_grad():
            answer = self._module(*(self._torch.from_numpy(given[name]) for name in self._names))
        if isinstance(answer, dict):
            answer = answer[self._output] if self._output else next(iter(answer.values()))
        elif isinstance(answer, list | tuple):
            answer = answer[0]
        return self._tensors.outputs(answer.detach().cpu().numpy(), len(inputs))
