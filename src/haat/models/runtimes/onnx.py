"""The runtime ``onnx``: ONNX Runtime on the CPU.

``entry`` is the file; settings are those of `haat.models.runtimes.tensors`, and ``threads``.
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


class OnnxRuntime(Runtime):
    """A file that other frameworks export. A batch is one run."""

    name = "onnx"

    def check(self, manifest: Manifest, folder: Path) -> list[str]:
        found = check_settings({k: v for k, v in manifest.settings.items() if k != "threads"}, manifest.kind, folder)
        threads = manifest.settings.get("threads", 1)
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 64:
            found.append("settings.threads: must be from 1 to 64")
        if not manifest.entry.endswith(".onnx") or not (folder / manifest.entry).is_file():
            found.append(f"entry: there is no {manifest.entry} in the folder; it must be a file that ends with .onnx")
        return found

    def missing(self, manifest: Manifest) -> str | None:
        if importlib.util.find_spec("onnxruntime") is not None or manifest.requirements:
            return None
        return "ONNX Runtime is not installed: run `pip install 'haat[onnx]'`."

    def open(self, manifest: Manifest, folder: Path) -> Runner:
        return OnnxRunner(manifest, folder)


class OnnxRunner(Runner):
    """A session with one thread, unless the settings give it more ``threads``: workers are how models scale here."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        settings = dict(manifest.settings)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(settings.pop("threads", 1))
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        mapped = read_settings(settings)
        self._tensors = Tensors(mapped, folder)
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(folder / manifest.entry), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise EngineFailed(f"{manifest.entry} is no model that ONNX Runtime can load.") from error
        self._inputs = {one.name: one.type for one in self._session.get_inputs()}
        outputs = [one.name for one in self._session.get_outputs()]
        self._output = mapped.output or outputs[0]
        wanted = {name for name in (mapped.input, mapped.mask, mapped.lengths) if name}
        if wanted != set(self._inputs) or self._output not in outputs:
            raise EngineFailed(
                f"The model takes {', '.join(self._inputs)} and gives {', '.join(outputs)}; the settings name "
                f"{', '.join(sorted(wanted))} and {self._output}."
            )

    def predict(self, inputs: Sequence[Input]) -> Sequence[Output]:
        given = self._tensors.tensors(inputs)
        for name, kind in self._inputs.items():
            given[name] = given[name].astype({"tensor(int32)": "int32", "tensor(float)": "float32"}.get(kind, "int64"))
        [tensor] = self._session.run([self._output], given)
        return self._tensors.outputs(tensor, len(inputs))
