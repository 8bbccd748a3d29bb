"""The Ray engine, of the extra ``haat[ray]``: models on a Ray cluster, one Serve application for each version.

Queue and batches are the local engine's, here in this process. Only where a worker would be a child of ours it is a
replica of the version's application, asked through Serve's handle. The replica has the model in a child of its own, as
the local engine has: a model that hangs or crashes costs that child, and not the replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from haat.kernel.errors import EngineFailed, EngineMissing, HaatError
from haat.models import wire
from haat.models.engines.local.batches import STOP_SECONDS
from haat.models.engines.local.crew import Crew
from haat.models.engines.local.engine import LOAD_SECONDS, LocalEngine
from haat.models.engines.local.pool import Pool
from haat.models.engines.local.process import Message, OnLost, WorkerProcess
from haat.models.engines.port import Model
from haat.models.manifest import Manifest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when it is imported: nothing is told to others

try:
    import ray
    from ray import serve
    from ray.serve._private.common import DeploymentID
except ImportError as error:
    raise EngineMissing("Ray is not installed; install it with `pip install 'haat[ray]'`.") from error

DEPLOYMENT = "model"
LOCAL_CPUS = 2
"""What a cluster on this machine believes to have. Workers there ask for none: they are processes as any other."""
OBJECT_STORE_BYTES = 256 * 1024 * 1024
HEALTH_SECONDS = 1.0
LOOK_SECONDS = 0.1
_QUIET = {"log_level": "ERROR", "enable_access_log": False}
_COMMON: dict[str, Any] = {"namespace": "haat", "log_to_driver": False, "logging_level": logging.ERROR}
_CONTROLLER, _SERVE_NAMESPACE = "SERVE_CONTROLLER_ACTOR", "serve"
_numbers = itertools.count()
_encode = msgspec.msgpack.Encoder(decimal_format="number").encode

log = logging.getLogger(__name__)


# --- on the cluster -------------------------------------------------------------------------------


class Replica:
    """One worker of a model, in the cluster. It does one thing at a time, as it is asked in `haat.models.wire`."""

    def __init__(self) -> None:
        self._open: list[Any] = []
        self._model: Model | None = None
        self._turn = asyncio.Lock()
        self._child: WorkerProcess | None = None

    async def reconfigure(self, model: dict[str, Any]) -> None:
        """Load the model. Serve calls it before anything is asked; a failure is told to who asks then."""
        self._open = ["open", model["key"], model["manifest"], model["folder"]]
        manifest = msgspec.convert(model["manifest"], Manifest)
        self._model = Model(model["key"], manifest, Path(model["folder"]), model["python"])
        try:
            await self._loaded()
        except HaatError as error:
            log.warning("%s is not loaded: %s", model["key"], error.detail)

    async def answer(self, request: bytes) -> tuple[int, bytes]:
        """Answer a request that has one answer; return the bytes of memory the model takes, and that answer.

        Who gives up waiting has the child killed, whatever it is doing.
        """
        async with self._turn:
            try:
                began = time.monotonic()
                child = await self._loaded()
                if _kind(request) == "open":
                    return child.memory_bytes(), _encode(["ready", time.monotonic() - began])
                answered: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
                child.begin(request, _into(answered))
                try:
                    return 0, _encode(await answered or _died())
                except asyncio.CancelledError:
                    child.kill()
                    raise
            except HaatError as error:
                return 0, _encode(["error", wire.error_fields(error)])

    async def stream(self, request: bytes) -> AsyncIterator[bytes]:
        """Yield the answers to a request that has many. Closing the iterator ends the work."""
        async with self._turn:
            try:
                child = await self._loaded()
            except HaatError as error:
                yield _encode(["error", wire.error_fields(error)])
                return
            parts: asyncio.Queue[Message | None] = asyncio.Queue()
            ended = False

            def take(message: Message | None) -> bool:
                nonlocal ended
                ended = message is None or message[0] in ("end", "error")
                parts.put_nowait(message)
                return ended

            child.begin(request, take)
            try:
                while not (ended and parts.empty()):
                    yield _encode(await parts.get() or _died())
            finally:
                if not ended:
                    child.stop_stream()
                    try:
                        async with asyncio.timeout(STOP_SECONDS):
                            while not ended:
                                await parts.get()
                    except TimeoutError:
                        child.kill()

    async def _loaded(self) -> WorkerProcess:
        """Return the child with the model open in it, a new one if the last is gone."""
        if self._child is None or self._child.lost:
            assert self._model is not None, "Serve configures before it asks"
            child = WorkerProcess(self._model, lambda *_: None)
            try:
                await child.start()
                await child.ask(self._open, LOAD_SECONDS)
            except BaseException:
                child.kill()
                raise
            self._child = child
        return self._child

    def __del__(self) -> None:
        if self._child is not None:
            self._child.kill()


def _kind(request: bytes) -> str:
    """Return what a framed request asks for."""
    kind, *_ = msgspec.msgpack.decode(memoryview(request)[wire.HEADER.size :], type=list[msgspec.Raw])
    return msgspec.msgpack.decode(kind, type=str)


def _died() -> Message:
    error = EngineFailed("The model's process ended at this input; the call is not billed.")
    return ["error", wire.error_fields(error)]


def _into(future: asyncio.Future[Message | None]) -> Callable[[Message | None], bool]:
    def answer(message: Message | None) -> bool:
        if not future.done():
            future.set_result(message)
        return True

    return answer


# --- here -----------------------------------------------------------------------------------------


def local_cluster() -> None:
    """Start a cluster on this machine, which ends with this process."""
    ray.init(
        address="local",  # and not one that runs here already
        num_cpus=LOCAL_CPUS,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        **_COMMON,
    )


class Application:
    """One model version as a Serve application. Its methods wait; they are called in threads."""

    def __init__(self, model: Model, cpus: float) -> None:
        self.model = model
        # A version that is replaced lives on until its calls have ended, so the key alone is no name.
        self.name = f"{model.key.replace('/', '.')}-{os.getpid()}-{next(_numbers)}"
        self.workers = 0
        """How many of ours use it."""
        self.changing = asyncio.Lock()
        self._cpus = cpus
        self._replicas = 0
        self._handle: Any = None

    def resize(self, replicas: int) -> Any:
        """Have so many replicas, none of them for 0; return the handle. Does not wait until new ones are loaded."""
        if replicas == self._replicas:
            return self._handle
        if not replicas:
            serve.delete(self.name)
            self._handle = None
        elif self._handle is None:
            self._handle = self._deployed(replicas)
        else:
            controller = ray.get_actor(_CONTROLLER, namespace=_SERVE_NAMESPACE)
            ray.get(controller.update_deployment_replicas.remote(DeploymentID(DEPLOYMENT, self.name), replicas))
        self._replicas = replicas
        return self._handle

    def await_replicas(self, replicas: int) -> None:
        """Return when so many replicas have loaded the model; raise EngineFailed."""
        deadline = time.monotonic() + LOAD_SECONDS
        while time.monotonic() < deadline and self._replicas >= replicas:
            found = serve.status().applications.get(self.name)
            if found is not None and found.deployments[DEPLOYMENT].replica_states.get("RUNNING", 0) >= replicas:
                return
            time.sleep(LOOK_SECONDS)
        raise EngineFailed("The cluster had no place for the model, or could not start it; `ray status` says more.")

    def _deployed(self, replicas: int) -> Any:
        model, manifest = self.model, self.model.manifest
        options: dict[str, Any] = {"num_cpus": self._cpus, "memory": manifest.memory_mb * 1024 * 1024}
        if manifest.gpu:
            options["num_gpus"] = 1
        given = {
            "key": model.key,
            "manifest": msgspec.to_builtins(manifest),
            "folder": str(model.folder),
            "python": model.python,
        }
        deployment = serve.deployment(Replica).options(
            name=DEPLOYMENT,
            num_replicas=replicas,
            max_ongoing_requests=1,
            user_config=given,
            ray_actor_options=options,
            health_check_period_s=HEALTH_SECONDS,
            graceful_shutdown_wait_loop_s=0.1,
            graceful_shutdown_timeout_s=manifest.timeout_seconds,
            logging_config=_QUIET,
        )
        # It is the engine's `scale`, and nobody else, that says how many replicas there are.
        target = serve.RunTarget(deployment.bind(), name=self.name, route_prefix=None, external_scaler_enabled=True)
        return serve.run_many([target], wait_for_applications_running=False)[0]


class RayWorker(WorkerProcess):
    """A place for one batch at one of an application's replicas; which of them, Serve decides."""

    def __init__(self, application: Application, handle: Any, on_lost: OnLost) -> None:
        super().__init__(application.model, on_lost)
        self.application = application
        self._handle = handle
        self._asking: asyncio.Task[None] | None = None
        self._going_on = asyncio.Event()
        self._going_on.set()
        self._memory = 0
        self._stopped = False

    @property
    def takes_one_more(self) -> bool:
        """Tell that nothing lies behind a request: Serve might give it to another replica."""
        return False

    def begin(self, request: bytes, answer: Callable[[Message | None], bool], *, streams: bool = False) -> None:
        assert not self.busy, "a worker does one thing at a time"
        self._promised = False
        if self.lost:
            asyncio.get_running_loop().call_soon(answer, None)
            return
        self._answer = answer
        self._stopped = False
        asking = self._follow(request) if _kind(request) == "stream" else self._wait(request)
        self._asking = asyncio.create_task(asking, name="ask a replica")

    async def _wait(self, request: bytes) -> None:
        response = self._handle.answer.remote(request)
        try:
            memory, reply = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except Exception as error:  # of many kinds: a replica or its machine died
            self._is_gone(error)
            return
        self._memory = memory or self._memory
        self._take(reply)

    async def _follow(self, request: bytes) -> None:
        replies = self._handle.options(stream=True).stream.remote(request)
        began, answer = time.monotonic(), self._answer
        try:
            async for reply in replies:
                self._take(reply)
                await self._going_on.wait()
                if self._answer is not answer:  # that was the last one, and another may be at work already
                    return
            raise EngineFailed("The replica's answer has no end.")
        except asyncio.CancelledError:
            replies.cancel()
            if not self._stopped:
                raise
            self._take(_encode(["end", time.monotonic() - began]))
        except Exception as error:
            self._is_gone(error)

    def _is_gone(self, error: Exception) -> None:
        log.warning("a replica of %s is gone: %s", self.application.name, type(error).__name__)
        self._lose()

    def stop_stream(self) -> None:
        if self._asking is not None and self.busy:
            self._stopped = True
            self._asking.cancel()

    def pause(self) -> None:
        self._going_on.clear()

    def resume(self) -> None:
        self._going_on.set()

    def kill(self) -> None:
        if self._asking is not None:
            self._asking.cancel()  # the replica kills its child when it hears of that
        self._lose()

    async def end(self) -> None:
        self._on_lost = None
        self.kill()
        if self._asking is not None:
            await asyncio.wait([self._asking])

    def memory_bytes(self) -> int:
        return self._memory


class RayEngine(LocalEngine):
    """Runs models on the cluster at ``address``, or on one of this machine that it starts and ends itself.

    ``cpus`` are what each worker asks the cluster for: 1, or nothing on a cluster of our own. Models together may take
    the memory that the cluster has; a model's folder must be at the same path on each of its machines.
    """

    def __init__(self, address: str = "", cpus: float | None = None) -> None:
        super().__init__()
        self._address = address
        self._cpus = cpus if cpus is not None else (1.0 if address else 0.0)
        self._applications: list[Application] = []
        self._is_ours = False
        """Ray was not connected before we did so: we end it too."""

    async def start(self) -> None:
        await asyncio.to_thread(self._connect)
        await super().start()

    async def stop(self) -> None:
        try:
            await super().stop()
        finally:
            await asyncio.to_thread(self._disconnect)

    def _connect(self) -> None:
        self._is_ours = not ray.is_initialized()
        if self._is_ours and self._address:
            ray.init(address=self._address, **_COMMON)
        elif self._is_ours:
            local_cluster()
        serve.start(proxy_location="Disabled", logging_config=_QUIET)
        self._look_at_memory()

    def _disconnect(self) -> None:
        if not ray.is_initialized():
            return
        for application in self._applications:
            with contextlib.suppress(Exception):  # the cluster may be gone
                application.resize(0)
        self._applications.clear()
        if self._is_ours and not self._address:
            with contextlib.suppress(Exception):
                serve.shutdown()
        if self._is_ours:
            ray.shutdown()

    def _look_at_memory(self) -> None:
        self._limit = int(ray.cluster_resources().get("memory", 0))

    async def _measure(self) -> None:
        await asyncio.to_thread(self._look_at_memory)  # clusters grow and shrink
        await super()._measure()

    async def _home(self, model: Model) -> WorkerProcess:
        """Find a replica for one more worker; models share none."""
        application = next((one for one in self._applications if one.model is model), None)
        if application is None:
            application = Application(model, self._cpus)
            self._applications.append(application)
        async with application.changing:
            application.workers += 1
            try:
                handle = await asyncio.to_thread(application.resize, application.workers)
                await asyncio.to_thread(application.await_replicas, application.workers)
            except BaseException as error:
                application.workers -= 1
                await self._fit(application)
                if not isinstance(error, Exception) or isinstance(error, HaatError):
                    raise
                log.exception("%s can't be deployed", application.name)
                raise EngineFailed(
                    "The model can't be deployed on the cluster; the operator's log says why."
                ) from error
        worker = RayWorker(application, handle, self._lost)
        worker.models[model.key] = model
        return worker

    async def dismiss(self, crew: Crew, worker: WorkerProcess) -> None:
        if not self._stopped:
            await worker.turn()
        await self._leave(crew.model.key, worker)

    async def _leave(self, key: str, worker: WorkerProcess) -> None:
        assert isinstance(worker, RayWorker)
        application = worker.application
        if worker.models.pop(key, None) is not None:
            application.workers -= 1
        await worker.end()
        async with application.changing:
            await self._fit(application)

    async def _fit(self, application: Application) -> None:
        """Give back the replicas that no worker of ours uses."""
        try:
            await asyncio.to_thread(application.resize, application.workers)
        except Exception:
            log.exception("%s can't be made smaller", application.name)
        if not application.workers and application in self._applications:
            self._applications.remove(application)

    def _lost(self, worker: WorkerProcess, keys: list[str]) -> None:
        assert isinstance(worker, RayWorker)
        worker.application.workers -= len(keys)  # its replica stays for who comes in its place
        super()._lost(worker, keys)

    async def _see_off(self, pool: Pool) -> None:
        await super()._see_off(pool)
        for application in [one for one in self._applications if one.model is pool.model]:
            async with application.changing:
                await self._fit(application)
