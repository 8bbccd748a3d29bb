"""`haat provider …`: what a provider may want to try before listing a service."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, cast

import click
from pydantic import ValidationError

from haat.catalog.acceptance import check
from haat.catalog.drafts import SampleCall, field_errors
from haat.catalog.model import DIALECTS, TASK_DIALECTS, Dialect
from haat.catalog.tensors import TensorMapDraft
from haat.cli.inspection import inspect
from haat.cli.own_bridge import own_bridge
from haat.cli.trials import print_report, read_credential
from haat.infra.inference.mapping import TensorMap
from haat.infra.net import parse_networks
from haat.settings import load_settings

_PATHS: dict[str, str] = {"openai": "/chat/completions", "anthropic": "/messages"}
_PATHS |= dict.fromkeys(TASK_DIALECTS, "/invoke")


@click.group()
def provider() -> None:
    """Try a service before listing it."""


provider.add_command(inspect)


@provider.command()
@click.argument("url")
@click.option("--dialect", type=click.Choice(DIALECTS), default="task", show_default=True, help="What it speaks.")
@click.option("--method", default="POST", show_default=True, help="Method of the sample call.")
@click.option("--path", default=None, help="Path of the sample call below URL; the usual one of its dialect.")
@click.option("--tensors", default=None, help="For the dialect inference: its tensors as in a listing, JSON or @FILE.")
@click.option("--body", default=None, help="JSON body of the sample call, or @FILE.")
@click.option("--expect", default=200, show_default=True, help="Status that the sample call is answered with.")
@click.option("--health-path", default="", help="Path that answers 200 when the service is up.")
@click.option("--warm-up", default=5.0, show_default=True, help="Seconds it may take to be ready.")
@click.option("--unit", default="", help="The unit it is to be sold by, which its answer may have to report.")
@click.option("--credential", default=None, metavar="'HEADER: VALUE'", help="What it asks its callers for.")
@click.option(
    "--allow-network", "networks", multiple=True, metavar="CIDR", help="A network that isn't public but yours."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def test(
    url: str,
    dialect: str,
    method: str,
    path: str | None,
    tensors: str | None,
    body: str | None,
    expect: int,
    health_path: str,
    warm_up: float,
    unit: str,
    credential: str | None,
    networks: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make the acceptance call to the service at URL and say what happened."""
    settings = load_settings()
    sample = SampleCall.parse(
        {
            "method": method.upper(),
            "path": path or _PATHS.get(dialect, "/"),
            "body": _body(body, dialect),
            "expect_status": expect,
        }
    )
    asked_in = _tensors(tensors, dialect)
    with own_bridge(url) as bridge:
        report = asyncio.run(
            check(
                url,
                dialect=cast(Dialect, dialect),
                sample=sample,
                health_path=health_path,
                warm_up_seconds=warm_up,
                credential=read_credential(credential),
                allowed=parse_networks([*settings.allowed_networks, *networks]),
                https_only=settings.environment == "production",
                tensors=asked_in,
                data_dir=bridge,
                unit=unit,
            )
        )
    if as_json:
        steps = [{"name": s.name, "ok": s.ok, "detail": s.detail, "ms": round(s.ms, 1)} for s in report.steps]
        click.echo(json.dumps({"ok": report.ok, "steps": steps}, ensure_ascii=False))
    else:
        print_report(report)
    sys.exit(0 if report.ok else 1)


def _body(given: str | None, dialect: str) -> Any:
    if given is None:
        return {"input": [{"text": "नमस्ते"}], "config": {}} if dialect in TASK_DIALECTS else None
    return _json(given, "--body")


def _tensors(given: str | None, dialect: str) -> TensorMap | None:
    if (given is not None) != (dialect == "inference"):
        raise click.BadParameter("they go with --dialect inference, and it with them", param_hint="--tensors")
    if given is None:
        return None
    try:
        return TensorMapDraft.model_validate(_json(given, "--tensors")).tensor_map()
    except ValidationError as error:
        wrong = "; ".join(f"{one['field']}: {one['message']}" for one in field_errors(error))
        raise click.BadParameter(wrong, param_hint="--tensors") from error


def _json(given: str, option: str) -> Any:
    try:
        text = Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given
        return json.loads(text)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"it is not JSON: {error}", param_hint=option) from error
