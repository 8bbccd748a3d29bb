"""`haat models …`: a model from nothing to its listing; and alone, the process that serves models."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import msgspec

from haat.cli.console import as_json_text, json_option, print_table
from haat.cli.main import with_settings
from haat.cli.model_api import Api, api_options
from haat.kernel.errors import HaatError, ValidationFailed
from haat.models.bundle import SUFFIX, key_id, load_signing_key, make_bundle
from haat.models.manifest import Manifest
from haat.models.manifest_file import FILE, read_manifest
from haat.settings import Settings, load_settings

TEMPLATES = Path(__file__).parent / "templates"
_SLUG = re.compile(r"[a-z0-9](-?[a-z0-9]){0,39}")
_NEXT = {
    "onnx": "train.py has made model.onnx; change it and run it again with `pip install numpy onnx`.",
    "torch": "Run export.py where PyTorch is installed (`pip install 'haat[torch]'`): it writes model.pt.",
    "http": f"Put your model's address and key into {FILE}.",
}

key_option = click.option(
    "--key",
    "key_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=lambda: Path(click.get_app_dir("haat")) / "model.key",
    help="File of your signing key, made on first use (model.key in haat's folder of settings).",
)
file_argument = click.argument("file", type=click.Path(exists=True, path_type=Path), default=".")


@click.group(invoke_without_command=True)
@with_settings()
@click.pass_context
def models(context: click.Context, settings: Settings) -> None:
    """Make, try and publish models. Alone: run the service execution module, which serves them.

    FILE is a model's folder, or the haat-model.yaml in it.
    """
    if context.invoked_subcommand is None:
        from haat.cli.processes import run_process

        sys.exit(run_process("models", settings))


@models.command()
@click.argument("name", default="my-model")
@click.option(
    "--runtime",
    type=click.Choice(sorted(path.name for path in TEMPLATES.iterdir())),
    default="python",
    show_default=True,
    help="Who runs the model.",
)
def init(name: str, runtime: str) -> None:
    """Write a working model and a test of it to the folder NAME."""
    folder = Path(name)
    if not _SLUG.fullmatch(folder.name):
        raise click.BadParameter("use up to 40 small letters and digits, with single hyphens", param_hint="NAME")
    if folder.exists():
        raise click.ClickException(f"{folder} exists: choose another name.")
    shutil.copytree(TEMPLATES / runtime, folder, ignore=shutil.ignore_patterns("__pycache__"))
    written = folder / FILE
    written.write_text(written.read_text(encoding="utf-8").replace("NAME", folder.name), encoding="utf-8")
    click.echo(f"{folder} has {', '.join(sorted(path.name for path in folder.iterdir()))}.")
    if runtime in _NEXT:
        click.echo(_NEXT[runtime])
    click.echo(f"Try it with `haat models check {folder}`, serve it with `haat models run {folder}`.")


@models.command()
@file_argument
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8095, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--no-reload", is_flag=True, help="Don't open the model again when its files change.")
def run(file: Path, port: int, no_reload: bool) -> None:
    """Serve the model in FILE on this machine as a platform does, and open it again when its files change."""
    from haat.cli import model_run
    from haat.cli.processes import configure_logging

    configure_logging("info")
    folder, networks = folder_of(file), load_settings().allowed_networks
    try:
        sentence_for_people(lambda: model_run.run(folder, port, networks=networks, reload=not no_reload))
    except OSError as error:
        raise click.ClickException(
            f"Port {port} can't be had ({os.strerror(error.errno or 0)}): choose another."
        ) from error


@models.command()
@file_argument
@json_option
def check(file: Path, as_json: bool) -> None:
    """Look at the model in FILE and have it answer its sample, confined as on a platform."""
    from haat.models.trial import model_in, try_sample

    model = sentence_for_people(lambda: model_in(folder_of(file)))
    try:
        tried = asyncio.run(try_sample(model, load_settings().allowed_networks))
    except HaatError as error:
        if not as_json:
            raise click.ClickException(sentence_of(error)) from error
        click.echo(json.dumps({"code": error.code, "detail": error.detail, **error.extensions}, ensure_ascii=False))
        sys.exit(1)
    found = {
        "outputs": tried.outputs,
        "usage": {unit: f"{count:f}" for unit, count in tried.units.items()},
        "load_ms": round(tried.load_seconds * 1000),
        "run_ms": round(tried.run_seconds * 1000),
    }
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    for output in tried.outputs:
        click.echo(msgspec.json.encode(output).decode())
    usage = ", ".join(f"{count:f} {unit}" for unit, count in tried.units.items())
    click.echo(
        f"{model.manifest.name} {model.manifest.version} answers its sample: {usage}, in {found['run_ms']} ms after "
        f"{found['load_ms']} ms for its start."
    )


@models.command()
@file_argument
@key_option
@click.option("--output", type=click.Path(path_type=Path), default=None, help="The bundle; NAME-VERSION.haatmodel.")
def bundle(file: Path, key_file: Path, output: Path | None) -> None:
    """Pack and sign the model in FILE."""
    folder = folder_of(file)
    made, manifest = sentence_for_people(lambda: _bundle(folder, key_file, output))
    click.echo(f"{made} has {manifest.name} {manifest.version}, {made.stat().st_size:,} bytes.")


@models.command()
@key_option
@click.option("--register", is_flag=True, help="Let this key sign your organisation's bundles.")
@click.option("--name", default=None, help="What to call it; this machine's name.")
@click.option("--revoke", metavar="KEY-ID", default=None, help="Take no more bundles that this key has signed.")
@api_options
@json_option
def keys(key_file: Path, register: bool, name: str | None, revoke: str | None, api: Api, as_json: bool) -> None:
    """List the keys that sign your organisation's bundles, register this machine's, or revoke one."""
    if register:
        public = load_signing_key(key_file).public_key()
        api.register_key(public, name or os.uname().nodename or "key")
        click.echo(f"Bundles signed with {key_id(public)} are taken from now on.", err=as_json)
    if revoke:
        api.send("DELETE", f"/models/keys/{revoke}")
        click.echo(f"Bundles signed with {revoke} are taken no more.", err=as_json)
    found = api.send("GET", "/models/keys")
    if as_json:
        click.echo(as_json_text(found))
    else:
        rows = [(one["key_id"], one["name"], one["added_at"][:19], (one["revoked_at"] or "")[:19]) for one in found]
        print_table(("key", "name", "added", "revoked"), rows, nothing="No key is registered yet.")


@models.command()
@file_argument
@click.option("--provider", default=None, metavar="SLUG", help="Refuse unless you act for this provider.")
@click.option("--candidate", is_flag=True, help="Put it beside the default version: a rollout is to give it calls.")
@key_option
@api_options
@json_option
def publish(file: Path, provider: str | None, candidate: bool, key_file: Path, api: Api, as_json: bool) -> None:
    """Bundle the model in FILE, or take a bundle as it is, send it, and put it on the shelf."""
    if provider is not None:
        api.require_provider(provider)
    with tempfile.TemporaryDirectory() as place:
        if file.suffix == SUFFIX:
            packed = file
        else:
            folder = folder_of(file)
            manifest = sentence_for_people(lambda: read_manifest(folder))
            target = Path(place) / f"{manifest.name}-{manifest.version}{SUFFIX}"
            packed, _ = sentence_for_people(lambda: _bundle(folder, key_file, target))
        version = api.upload(packed, quiet=as_json)
    way = f"/models/{version['model_id']}/versions/{version['version']}/publish"
    if not as_json:
        click.echo(f"{version['version']} has arrived; the platform opens it and has it answer its sample …", err=True)
    done = api.send("POST", f"{way}?default={'false' if candidate else 'true'}", seconds=660.0)
    if as_json:
        click.echo(as_json_text(done))
        return
    for step in done["steps"]:
        click.echo(f"{'ok' if step['ok'] else 'no'}  {step['name']}: {step['detail']} ({step['ms']:.0f} ms)")
    click.echo(f"{done['listing']} {done['version']['version']} is on the shelf.")
    if candidate:
        click.echo(
            f"`haat rollout start {done['listing']} {done['version']['version']}` on the platform gives it calls."
        )


@models.command()
@click.argument("model")
@click.argument("version")
@api_options
def retire(model: str, version: str, api: Api) -> None:
    """Run a VERSION of a MODEL, by its name, no more."""
    found = [one for one in api.send("GET", "/models") if one["name"] == model]
    if not found:
        raise click.ClickException(f"You have no model called {model}: `haat models list` names them.")
    api.send("POST", f"/models/{found[0]['id']}/versions/{version}/retire")
    click.echo(f"{model} {version} is retired.")


@models.command(name="list")
@api_options
@json_option
def list_models(api: Api, as_json: bool) -> None:
    """List your organisation's models, their versions, and how they are doing."""
    found = api.send("GET", "/models")
    if as_json:
        click.echo(as_json_text(found))
        return
    rows = [
        (f"{model['provider']}/{model['name']}", one["version"], one["stage"], one["health"], one["error"])
        for model in found
        for one in model["versions"]
    ]
    print_table(("model", "version", "stage", "health", "error"), rows, nothing="There are no models yet.")


# --- within --------------------------------------------------------------------------------------


def folder_of(file: Path) -> Path:
    """Return the folder of a model that is given by its folder or its file."""
    return (file if file.is_dir() else file.parent).resolve()


def sentence_for_people(action: Any) -> Any:
    """Return what an action returns; what it refuses becomes the command's error."""
    try:
        return action()
    except HaatError as error:
        raise click.ClickException(sentence_of(error)) from error


def sentence_of(error: HaatError) -> str:
    """Say what is wrong; each thing that is wrong with a model's file has a line of its own."""
    lines = [_line_of(one) for one in error.extensions.get("errors", [])] if isinstance(error, ValidationFailed) else []
    return "\n".join(lines) or error.detail


def _line_of(error: dict[str, Any]) -> str:
    where = f"{FILE}, line {error['line']}" if "line" in error else FILE
    field = f"`{error['field']}` " if error["field"] else ""
    return f"{where}: {field}{error['message']}"


def _bundle(folder: Path, key_file: Path, output: Path | None) -> tuple[Path, Manifest]:
    manifest = read_manifest(folder)
    target = output or Path(f"{manifest.name}-{manifest.version}{SUFFIX}")
    return target, make_bundle(folder, target, load_signing_key(key_file))
