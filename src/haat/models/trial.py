"""One try of a model in a folder: its file is read, it is opened, and its sample is answered.

``python -m haat.models.trial FOLDER WORK`` does so confined as a worker is on a platform, and writes one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from haat.kernel.errors import EngineMissing, HaatError
from haat.models.engines.port import Model
from haat.models.hosted import Output
from haat.models.manifest import Manifest
from haat.models.manifest_file import read_manifest
from haat.models.runtimes import runtime_named
from haat.models.runtimes.confinement import confine
from haat.models.serving import Serving

PROVIDER = "local"

log = logging.getLogger(__name__)


def answer_sample(folder: Path) -> list[Output]:
    """Return what the model in a folder answers to its sample; raise whatever is wrong with it."""
    return asyncio.run(_answer(read_manifest(folder), folder))


async def _answer(manifest: Manifest, folder: Path) -> list[Output]:
    serving = Serving()
    model = Model(f"{PROVIDER}/{manifest.name}@{manifest.version}", manifest, folder)
    await serving.deploy(model)
    try:
        outputs, _ = await serving.call(model.key, json.dumps({"config": {}, **manifest.sample}).encode())
    finally:
        await serving.stop()
    return outputs


def _confined(folder: Path, work: Path) -> dict[str, Any]:
    try:
        manifest = read_manifest(folder)
        runtime = runtime_named(manifest.runtime)
        if sentence := runtime.missing(manifest):
            raise EngineMissing(sentence)
        weak = confine(manifest, folder, work)
        return {"outputs": asyncio.run(_answer(manifest, folder)), "weak": weak}
    except HaatError as error:
        return {"code": error.code, "detail": error.detail, "extensions": error.extensions}
    except Exception as error:  # whatever a model raises when it is opened
        log.exception("the model can't be opened")
        return {"code": "ENGINE_FAILED", "detail": f"The model can't be opened: {type(error).__name__}: {error}"}


def main() -> None:
    """Try the model and write what came of it."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # models may print
        json.dump(_confined(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()), out)
    os._exit(0)  # whatever the model left running


if __name__ == "__main__":
    main()
