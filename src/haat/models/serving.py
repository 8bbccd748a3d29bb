"""Models behind HTTP in this very process, each in a thread of its own: for `haat models run` and `check`.

Calls look as they do on a platform, ``POST /PROVIDER/NAME/invoke`` and ``/PROVIDER/NAME@VERSION/invoke``; nothing is
batched, confined or metered.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from haat.kernel.errors import BodyTooLarge, EngineFailed, EngineMissing, EngineTimeout, HaatError, ServiceNotFound
from haat.kernel.ids import new_id
from haat.models.engines.port import Model, State, Status
from haat.models.hosted import Company, HostedService, Item, Output
from haat.models.manifest import Manifest
from haat.models.outputs import problem_of
from haat.models.runtimes import runtime_named
from haat.models.runtimes.port import Input, Runner
from haat.models.task import parse_call

log = logging.getLogger(__name__)


def service_of(manifest: Manifest, provider: str) -> HostedService:
    """Return a model as a hosted service: what its calls look like, for `parse_call`."""

    def nobody(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], dict[str, Decimal]]:
        raise EngineFailed("A model is run by an engine.")

    return HostedService(
        company=Company(provider, provider, "", "", ""),
        slug=manifest.name,
        name=manifest.listing.name or manifest.name,
        summary=manifest.listing.summary,
        description=manifest.listing.description,
        category=manifest.category,
        unit=manifest.listing.unit,
        sample=manifest.sample,
        unit_price=Decimal(manifest.listing.unit_price),
        license_note=manifest.listing.license_note,
        version=manifest.version,
        languages=manifest.languages,
        language_pairs=manifest.language_pairs,
        timeout_seconds=manifest.timeout_seconds,
        kind=manifest.kind,
        invoke=nobody,
        runtime="process",
        takes_language=manifest.takes_language,
        formats=manifest.formats,
        max_inputs=manifest.max_inputs,
        max_characters=manifest.max_characters,
        max_bytes=manifest.max_bytes,
    )


def checked_outputs(outputs: Sequence[Any], count: int) -> list[Output]:
    """Return a model's outputs as JSON can say them; raise EngineFailed for too few, NaN and the like."""
    outputs = list(outputs)
    if len(outputs) != count:
        raise EngineFailed(f"The model gave {len(outputs)} outputs for {count} inputs; the call is not billed.")
    for output in outputs:
        if problem := problem_of(output):
            raise EngineFailed(problem)
    return [_jsonable(output) for output in outputs]


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: _jsonable(member) for name, member in value.items()}
    return [_jsonable(member) for member in value] if isinstance(value, list | tuple) else value


@dataclass(slots=True)
class _Open:
    model: Model
    service: HostedService
    runner: Runner
    thread: ThreadPoolExecutor


class Serving:
    """Models that are open here, by key."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}

    async def deploy(self, model: Model) -> None:
        """Open a model in place of the one of its key before; that one stays when the new one can't be opened."""
        runtime = runtime_named(model.manifest.runtime)
        if sentence := runtime.missing(model.manifest):
            raise EngineMissing(sentence)
        thread = ThreadPoolExecutor(1, thread_name_prefix=model.key)
        try:
            runner = await asyncio.wrap_future(thread.submit(runtime.open, model.manifest, model.folder))
        except BaseException:
            thread.shutdown(wait=False)
            raise
        await self.remove(model.key)
        service = service_of(model.manifest, model.key.partition("/")[0])
        self._open[model.key] = _Open(model, service, runner, thread)

    async def remove(self, key: str) -> None:
        """Close a model once it has ended what it is doing."""
        if (one := self._open.pop(key, None)) is not None:
            await asyncio.wrap_future(one.thread.submit(one.runner.close))
            one.thread.shutdown(wait=False)

    async def stop(self) -> None:
        """Close them all."""
        for key in list(self._open):
            await self.remove(key)

    def models(self) -> list[str]:
        """Return the keys of what is open."""
        return list(self._open)

    def state(self, key: str) -> State:
        """Return how a model is doing; raise KeyError."""
        return State(Status.READY, workers=1) if self._open[key] else State(Status.ERROR)

    def find(self, provider: str, name: str) -> tuple[str, HostedService]:
        """Return the key and the shape of ``name`` or ``name@version``, by default the one opened last."""
        wanted = f"{provider}/{name}"
        for key, one in reversed(self._open.items()):
            if wanted in (key, key.partition("@")[0]):
                return key, one.service
        raise ServiceNotFound("No model of that name runs here; check provider and name.")

    async def call(self, key: str, body: bytes) -> tuple[list[Output], dict[str, Decimal]]:
        """Answer a call in the task schema; return outputs and units. Raise as `parse_call` and as engines do."""
        one = self._open[key]
        items, config = parse_call(one.service, body)
        inputs = [Input(item.text, item.other, item.content, item.format, config) for item in items]
        try:
            async with asyncio.timeout(one.model.manifest.timeout_seconds):
                outputs = await asyncio.wrap_future(one.thread.submit(one.runner.predict, inputs))
        except TimeoutError as error:
            raise EngineTimeout from error
        except HaatError:
            raise
        except Exception as error:
            log.exception("%s failed", key)
            raise EngineFailed(f"The model failed with {type(error).__name__}; the call is not billed.") from error
        return checked_outputs(outputs, len(inputs)), units_of(one.service, inputs)


def units_of(service: HostedService, inputs: Sequence[Input]) -> dict[str, Decimal]:
    """Count what can be counted of inputs without knowing the model: requests, characters and bytes."""
    counts = {
        "requests": 1,
        "characters": sum(len(one.text) + len(one.other) for one in inputs),
        "bytes": sum(len(one.text.encode()) + len(one.other.encode()) + len(one.content) for one in inputs),
        "images": len(inputs),
    }
    unit = service.unit
    return {unit: Decimal(counts[unit])} if unit in counts else {"requests": Decimal(1)}


def build_app(serving: Serving) -> Starlette:
    """Return the HTTP application."""

    async def invoke(request: Request) -> Response:
        key, service = serving.find(request.path_params["provider"], request.path_params["name"])
        outputs, units = await serving.call(key, await _body(request, service.max_body_bytes))
        usage = {unit: int(count) for unit, count in units.items()}
        headers = {"X-Haat-Usage": "; ".join(f"{unit}={count}" for unit, count in usage.items())}
        return JSONResponse({"output": outputs, "usage": usage}, headers=headers)

    async def health(request: Request) -> Response:
        if "name" in request.path_params:
            serving.find(request.path_params["provider"], request.path_params["name"])
        return JSONResponse({"status": "ok"})

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, HaatError)
        body = error.problem(str(new_id()), request.url.path)
        return JSONResponse(body, error.status, media_type="application/problem+json")

    return Starlette(
        routes=[
            Route("/{provider}/{name}/invoke", invoke, methods=["POST"]),
            Route("/{provider}/{name}/health", health, methods=["GET"]),
            Route("/health", health, methods=["GET"]),
        ],
        exception_handlers={HaatError: problem},
    )


async def _body(request: Request, limit: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise BodyTooLarge(limit_bytes=limit)
        parts.append(part)
    return b"".join(parts)
