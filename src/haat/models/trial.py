"""One try of a model in a folder: an engine opens it in a confined worker, and it answers its sample."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import msgspec
from msgspec import structs

from haat.models import costs
from haat.models.engines.local import LocalEngine
from haat.models.engines.port import Model, Ticket
from haat.models.hosted import Output, Units
from haat.models.manifest_file import read_manifest
from haat.models.runtimes.environments import environment_python
from haat.models.task import parse_inputs

PROVIDER = "local"
"""Whose models are that have no provider yet."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What a model has answered to its sample, what that would be charged for, and how long it was at it."""

    outputs: list[Output]
    units: Units
    load_seconds: float
    run_seconds: float


def model_in(folder: Path) -> Model:
    """Return the model in a folder, with what it requires installed, which may take minutes.

    Raise ValidationFailed for its file, EngineMissing for what can't be installed.
    """
    manifest = read_manifest(folder)
    python = environment_python(manifest.requirements, Path(click.get_app_dir("haat")) / "environments")
    return Model(f"{PROVIDER}/{manifest.name}@{manifest.version}", manifest, folder.resolve(), python)


async def try_sample(model: Model, networks: Iterable[str] = ()) -> Tried:
    """Open a model and have it answer its sample once; raise whatever is wrong with either."""
    manifest = model.manifest
    engine = LocalEngine(networks=networks)
    await engine.start()
    try:
        # Without its sample it is opened only: a model that fails on it is to say so once.
        await engine.deploy(replace(model, manifest=structs.replace(manifest, sample={})))
        began = asyncio.get_running_loop().time()
        await engine.load(model.key)
        loaded = asyncio.get_running_loop().time() - began
        inputs, ticket = parse_inputs(manifest, msgspec.json.encode(manifest.sample)), Ticket()
        outputs = await engine.run(model.key, inputs, ticket)
        return Tried(outputs, costs.used(manifest, inputs, outputs, ticket.ran), loaded, ticket.ran)
    finally:
        await engine.stop()


def answer_sample(folder: Path) -> list[Output]:
    """Return what the model in a folder answers to its sample; raise whatever is wrong with it."""
    return asyncio.run(try_sample(model_in(folder))).outputs
