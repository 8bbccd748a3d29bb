"""Servers of models: ours, and those that others wrote, each in an environment of its own below ``build/bench``.

All run the same two models (`bench/peer_apps/served.py`), in batches of at most 32 that wait at most 5 ms, where that
can be told them, with one worker a model or with four.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import Target
from bench.peers import ENVIRONMENTS, Environment, NotInstalled
from bench.processes import LOOPBACK, await_answer, free_port, running, say
from bench.servers import JSON, ROOT, request_of

APPS = ROOT / "bench" / "peer_apps"
TOKEN = "bench"  # noqa: S105  # it guards nothing
TEXT = "the service was wonderful and very kind to everyone in the room today"
SERVED = {"ten": "TenModel", "text": "TextModel"}
"""The two models, and what ours are called in `haat_model`: ten milliseconds a batch, and one of text in ONNX."""
ONE_BATCH_MS, BATCH = 10.0, 32
"""What a batch of the first takes, and how many inputs are in one at most."""
RUNTIME = ("onnxruntime==1.32.0", "numpy==2.4.6")
PATIENCE = 90.0
_PID = re.compile(rb'"pid": ?(\d+)')
TRAINER = Environment("text-model", (*RUNTIME, "onnx==1.23.2", "vaderSentiment==3.3.2"))


@dataclass(frozen=True, slots=True)
class Server(Environment):
    """One to be measured. ``command`` is given its environment, a port and the file of the text model."""

    does: str
    command: Callable[[Path, int, Path], list[str]]
    body: Callable[[str], object]
    """Makes the body of a call from a text."""
    path: str = "/{model}"
    headers: dict[str, str] = field(default_factory=dict)
    folder: Path = APPS
    workers: int = 1

    @property
    def home(self) -> Path:
        return ENVIRONMENTS / self.name.removesuffix(f"-{self.workers}-workers")

    @property
    def models(self) -> tuple[str, ...]:
        """Those that it is measured with: inference takes the cores that more workers would share."""
        return tuple(SERVED) if self.workers == 1 else ("ten",)

    @contextlib.contextmanager
    def start(self, work: Path, model: Path) -> Iterator[dict[str, Target]]:
        """Run it; yield where each model is called, once both answer."""
        port, log = free_port(), work / f"{self.name}.log"
        environment = {**os.environ, "PORT": str(port), "TEXT_MODEL": str(model), **_QUIET}
        environment["WORKERS"] = str(self.workers)
        environment["PATH"] = f"{self.home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        command = self.command(self.home, port, model)
        with running(command, log, environment=environment, folder=self.folder) as pid:
            body = json.dumps(self.body(TEXT)).encode()
            targets = {
                name: Target(
                    f"{self.name} {name}", port, pid, self.path.format(model=name), body, {**JSON, **self.headers}
                )
                for name in SERVED
            }
            for target in targets.values():
                answer = await_answer(pid, port, request_of(target), log, patience=PATIENCE, pause=0.25)
                worker_of(answer.body)
            yield targets


_QUIET = {"DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "True", "RAY_USAGE_STATS_ENABLED": "0"}


def worker_of(answer: bytes) -> int:
    """Return the process that has run the model, which each answer names."""
    found = _PID.search(answer)
    if found is None:
        raise NotInstalled(f"its answer names no process: {answer[:200]!r}")
    return int(found[1])


def text_model() -> Path:
    """Return the ONNX file, trained and written if it isn't there yet."""
    TRAINER.install()
    script = ROOT / "bench" / "text_model.py"
    path = ENVIRONMENTS / "text-model" / "text.onnx"
    sources = (script, APPS / "served.py")
    if not path.is_file() or path.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        say("training the text model")
        python = str(TRAINER.home / "bin" / "python")
        done = subprocess.run([python, str(script), str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotInstalled(f"the text model: {done.stderr.strip()[-300:]}")
        say(f"  it tells {float(done.stdout):.0%} right of the words it has not seen")
    return path


def model_alone(calls: int = 300) -> float:
    """Return the median milliseconds that a batch of the first model takes in a process that serves nobody."""
    script = str(APPS / "alone.py")
    done = subprocess.run([sys.executable, script, str(calls)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def runtime_packages() -> Path:
    """Return the folder with ONNX Runtime and NumPy, for our workers."""
    return next((TRAINER.home / "lib").glob("python3*/site-packages"))


def _named(name: str, workers: int) -> str:
    return name if workers == 1 else f"{name}-{workers}-workers"


def ours(workers: int) -> Server:
    """Return our own, with so many workers a model."""
    return Server(
        _named("haat", workers),
        (),
        "checks its token and the task schema, numbers and meters each call; the models' server and the local engine",
        lambda _, port, model: [
            *(sys.executable, "-m", "bench.haat_models"),
            *(str(port), str(workers), str(model), str(runtime_packages())),
        ],
        lambda text: {"input": [{"text": text}]},
        "/bench/{model}/invoke",
        {"Authorization": f"Bearer {TOKEN}"},
        ROOT,
        workers,
    )


def litserve(workers: int) -> Server:
    return Server(
        _named("litserve", workers),
        ("litserve==0.2.19", *RUNTIME),
        "parses JSON, answers JSON; its fast queue, and an API server for each worker, as it is by itself",
        lambda home, port, model: [str(home / "bin" / "python"), "litserve_app.py"],
        lambda text: {"text": text},
        workers=workers,
    )


def bentoml() -> Server:
    return Server(
        "bentoml",
        ("bentoml==1.4.40", *RUNTIME),
        "checks the body against the method's types; adaptive batching, whose wait can't be set",
        lambda home, port, model: [
            *(str(home / "bin" / "python"), "-m", "bentoml", "serve", "bentoml_app:Models"),
            *("--host", LOOPBACK, "--port", str(port)),
        ],
        lambda text: {"texts": [text]},
    )


def ray_serve(workers: int) -> Server:
    return Server(
        _named("ray-serve", workers),
        ("ray[serve]==2.60.0", *RUNTIME),
        "its proxy, a replica for each worker with `serve.batch`, the model in a thread",
        lambda home, port, model: [str(home / "bin" / "python"), "ray_app.py"],
        lambda text: {"text": text},
        workers=workers,
    )


PEERS = (litserve(1), bentoml(), ray_serve(1), litserve(4), ray_serve(4))
