"""Which models are to run: a folder that the registry writes and the models process follows.

``data_dir/models`` has ``bundles/DIGEST.haatmodel`` as they were sent, ``files/DIGEST/`` unpacked, ``environments/``,
and ``deployed/PROVIDER.NAME@VERSION.json``, one a model, each written whole. What the engine says of its models is in
``states.json``. So models go on being served, and are served again after a start, without the database.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from haat.kernel.errors import HaatError
from haat.models.engines.port import Model, State, Status
from haat.models.manifest import Manifest
from haat.models.manifest_file import FILE
from haat.models.runtimes.environments import environment_python
from haat.settings import Settings

LOOK_SECONDS = 0.5
STATES_SECONDS = 1.0

log = logging.getLogger(__name__)


class _Deployed(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    digest: str
    manifest: Manifest


class Runs(Protocol):
    """What a follower needs of an engine; `haat.models.engines.port.Engine` is one."""

    async def deploy(self, model: Model) -> None: ...

    async def remove(self, key: str) -> None: ...

    def state(self, key: str) -> State: ...


def models_folder(data_dir: Path) -> Path:
    """Return where a platform keeps its models."""
    return data_dir / "models"


def files_of(data_dir: Path, digest: str) -> Path:
    """Return the folder of an unpacked bundle."""
    return models_folder(data_dir) / "files" / digest


def bundle_of(data_dir: Path, digest: str) -> Path:
    """Return where a bundle is kept."""
    return models_folder(data_dir) / "bundles" / f"{digest}.haatmodel"


def _file_of(data_dir: Path, key: str) -> Path:
    return models_folder(data_dir) / "deployed" / f"{key.replace('/', '.', 1)}.json"


def deploy(data_dir: Path, key: str, digest: str, manifest: Manifest) -> None:
    """Have a model run from now on; ``key`` is ``provider/name@version``. Doing it again changes nothing."""
    _write_whole(_file_of(data_dir, key), msgspec.json.encode(_Deployed(key, digest, manifest)))


def withdraw(data_dir: Path, key: str) -> None:
    """Have a model run no more. Does nothing for one that doesn't."""
    _file_of(data_dir, key).unlink(missing_ok=True)


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, fresh = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(fresh).replace(path)


def deployed_models(settings: Settings) -> list[Model]:
    """Return the models that are to run; what can't be read is logged. Their environments are not made yet."""
    found = []
    for path in sorted((models_folder(settings.data_dir) / "deployed").glob("*.json")):
        if path.name.startswith("."):
            continue  # it is being written
        try:
            one = msgspec.json.decode(path.read_bytes(), type=_Deployed)
        except FileNotFoundError:
            continue  # it was withdrawn just now
        except (OSError, msgspec.DecodeError):
            log.exception("%s can't be read and is left out", path.name)
            continue
        folder = files_of(settings.data_dir, one.digest)
        if (folder / FILE).is_file():
            found.append(Model(one.key, one.manifest, folder))
        else:
            log.error("the files of %s are gone: publish it again", one.key)
    return found


class Follower:
    """Keeps an engine in step with the folder. What can't be deployed is logged, told in its state, and tried again.

    A model's environment is made first, which may take minutes; the others don't wait for it.
    """

    def __init__(self, settings: Settings, engine: Runs) -> None:
        self._settings, self._engine = settings, engine
        self._known: dict[str, Model] = {}
        self._failed: dict[str, tuple[Model, str, float]] = {}
        self._preparing: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._seen: tuple[tuple[str, int, int], ...] = ()

    async def start(self) -> None:
        """Deploy what is there now, but for what must first be installed, and follow changes from then on."""
        await self.look()
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._tell())]

    async def stop(self) -> None:
        """Follow no longer; the engine keeps what it has."""
        running = [*self._tasks, *self._preparing.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def look(self) -> None:
        """Bring the engine in step with the folder once."""
        wanted = {model.key: model for model in deployed_models(self._settings)}
        for key in [key for key in self._known if key not in wanted]:
            del self._known[key]
            await self._engine.remove(key)
        for key in [key for key in self._failed if key not in wanted]:
            del self._failed[key]
        for key, model in wanted.items():
            model_now, _, again = self._failed.get(key, (None, "", 0.0))
            if self._known.get(key) == model or key in self._preparing:
                continue
            if model_now == model and time.monotonic() < again:
                continue
            if model.manifest.requirements:
                self._preparing[key] = asyncio.create_task(self._prepare(model))
            else:
                await self._deploy(model, "")

    async def _prepare(self, model: Model) -> None:
        root = models_folder(self._settings.data_dir) / "environments"
        try:
            python = await asyncio.to_thread(environment_python, model.manifest.requirements, root)
            await self._deploy(model, python)
        except HaatError as error:
            self._note_failure(model, error.detail)
        except OSError as error:
            self._note_failure(model, f"Its environment can't be made ({error.strerror}).")
        finally:
            del self._preparing[model.key]

    async def _deploy(self, model: Model, python: str) -> None:
        try:
            await self._engine.deploy(Model(model.key, model.manifest, model.folder, python))
        except Exception as error:
            log.exception("%s can't be deployed", model.key)
            self._note_failure(model, error.detail if isinstance(error, HaatError) else type(error).__name__)
            return
        self._known[model.key] = model
        self._failed.pop(model.key, None)

    def _note_failure(self, model: Model, sentence: str) -> None:
        self._failed[model.key] = (model, sentence, time.monotonic() + 30)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if self._has_changed() or self._failed:
                    await self.look()
            except Exception:
                log.exception("models can't be brought in step; trying again")
                self._seen = ()

    def _has_changed(self) -> bool:
        folder = models_folder(self._settings.data_dir) / "deployed"
        try:
            now = tuple(
                sorted(
                    (entry.name, entry.inode(), entry.stat().st_mtime_ns)
                    for entry in os.scandir(folder)
                    if not entry.name.startswith(".")
                )
            )
        except FileNotFoundError:
            now = ()
        changed, self._seen = now != self._seen, now
        return changed

    async def _tell(self) -> None:
        while True:
            write_states(self._settings.data_dir, self.states())
            await asyncio.sleep(STATES_SECONDS)

    def states(self) -> dict[str, State]:
        """Return how each model is doing, those included that could not be deployed or are being prepared."""
        found = {key: State(Status.ERROR, error=sentence) for key, (_, sentence, _) in self._failed.items()}
        found |= {key: State(Status.LOADING) for key in self._preparing}
        for key in self._known:
            try:
                found[key] = self._engine.state(key)
            except KeyError:
                continue  # it is being replaced
        return found


class States(msgspec.Struct, frozen=True):
    """What the models process said last; ``at`` is the clock's time in seconds since the epoch."""

    at: float = 0.0
    models: dict[str, State] = {}


def write_states(data_dir: Path, states: Mapping[str, State]) -> None:
    """Tell the control process how the models are doing."""
    path = models_folder(data_dir) / "states.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(States(time.time(), dict(states))))
    fresh.replace(path)


def read_states(data_dir: Path) -> States:
    """Return what was told last; nothing at all where no models process has run."""
    try:
        return msgspec.json.decode((models_folder(data_dir) / "states.json").read_bytes(), type=States)
    except (OSError, msgspec.DecodeError):
        return States()
