"""`haat provider inspect`: from a model server's own metadata to the draft of a listing."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import httpx

from haat.catalog.acceptance import Report, check
from haat.catalog.drafts import SampleCall, ServiceDraft
from haat.catalog.inspection import Proposal, Unclear, propose
from haat.cli.own_bridge import own_bridge
from haat.cli.trials import print_report, read_credential
from haat.infra import bridge_client
from haat.infra.inference.upstream import is_asked_over_grpc, read_address
from haat.infra.net import IPNetwork, parse_networks
from haat.kernel.errors import ValidationFailed
from haat.settings import load_settings

_PATIENCE = 10.0
_NO_SLUG = re.compile(r"[^a-z0-9]+")


@click.command()
@click.argument("url")
@click.option("--model", default="", help="The model's name; needed when the server has several.")
@click.option("--sample", default=None, help="JSON of a task to try it with, or @FILE; one is made up otherwise.")
@click.option("--sample-rate", default=16_000, show_default=True, help="Of sounds that are waveforms, in Hz.")
@click.option("--credential", default=None, metavar="'HEADER: VALUE'", help="What it asks its callers for.")
@click.option("--warm-up", default=5.0, show_default=True, help="Seconds it may take to be ready.")
@click.option(
    "--allow-network", "networks", multiple=True, metavar="CIDR", help="A network that isn't public but yours."
)
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write the draft there.")
def inspect(
    url: str,
    model: str,
    sample: str | None,
    sample_rate: int,
    credential: str | None,
    warm_up: float,
    networks: tuple[str, ...],
    save: Path | None,
) -> None:
    """Read what the model at URL takes, propose its listing, and try it.

    The server must speak the Open Inference Protocol (Triton, KServe, MLServer and others), over HTTP or, at
    grpc://HOST:PORT[/MODEL[/versions/VERSION]], over gRPC. The draft is JSON, which is YAML as well: look at what it
    says of the tensors, and put in languages and a price.
    """
    settings = load_settings()
    header = read_credential(credential)
    server = Server(url.rstrip("/"), header, parse_networks([*settings.allowed_networks, *networks]))
    with own_bridge(server.url) as bridge:
        server.bridge = bridge
        try:
            proposal = propose(asyncio.run(server.metadata(model)), sample_rate)
        except Unclear as error:
            raise click.ClickException(f"No task can be told from the model's metadata: {error}.") from error
        if sample is not None:
            proposal.sample = _sample(sample)
        listing = draft(server.url, proposal, header)
        try:
            ServiceDraft.parse(listing)
        except ValidationFailed as error:
            wrong = "; ".join(f"{one['field']}: {one['message']}" for one in error.extensions["errors"])
            raise click.ClickException(f"The draft is not one that can be listed: {wrong}.") from error
        report = asyncio.run(
            check(
                server.url,
                dialect="inference",
                sample=SampleCall.parse(listing["version"]["sample"]),
                warm_up_seconds=warm_up,
                credential=header,
                allowed=server.allowed,
                https_only=settings.environment == "production",
                tensors=proposal.tensors,
                data_dir=bridge,
            )
        )
    _tell(proposal, report)
    text = json.dumps(listing, ensure_ascii=False, indent=2) + "\n"
    if save is None:
        click.echo(text, nl=False)
    else:
        save.write_text(text, encoding="utf-8")
        click.echo(f"The draft is in {save}.")
    sys.exit(0 if report.ok else 1)


def draft(url: str, proposal: Proposal, credential: tuple[str, str] | None) -> dict[str, Any]:
    """Return the draft of a listing; the credential's value is left for its provider to fill in."""
    tensors = proposal.tensors
    written = {
        name: getattr(tensors, name)
        for name, default in zip(tensors.__struct_fields__, tensors.__struct_defaults__, strict=True)
        if name == "model" or getattr(tensors, name) != _plain(default)
    }
    slug = _NO_SLUG.sub("-", tensors.model.lower()).strip("-")[:40].strip("-") or "model"
    listing: dict[str, Any] = {
        "slug": slug,
        "name": tensors.model[:80],
        "category": proposal.category,
        "unit": proposal.unit,
        "version": {
            "version": "1",
            "endpoint": url,
            "dialect": "inference",
            "health_path": "/v2/health/ready",
            "sample": {"method": "POST", "path": "/invoke", "body": proposal.sample},
            "policy": {"tensors": written},
        },
        "price": {"unit_price": "0"},
    }
    if credential is not None:
        listing["credential_header"] = credential[0]
    return listing


def _plain(default: Any) -> Any:
    """Return a default itself, where msgspec has a factory for it."""
    factory = getattr(default, "factory", None)
    return factory() if factory is not None else default


def _sample(given: str) -> dict[str, Any]:
    try:
        text = Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given
        task = json.loads(text)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"it is not JSON: {error}", param_hint="--sample") from error
    if not isinstance(task, dict):
        raise click.BadParameter("it is a task: an object with `input` and `config`", param_hint="--sample")
    return task


class Server:
    """The server that is asked what its models are like: itself, or by a bridge over gRPC."""

    def __init__(self, url: str, credential: tuple[str, str] | None, allowed: tuple[IPNetwork, ...]) -> None:
        self.url, self.credential, self.allowed = url, credential, allowed
        self.model = self.version = ""
        """Those that the address names."""
        self.bridge: Path | None = None
        if is_asked_over_grpc(url):
            try:
                self.url, self.model, self.version = read_address(url)
            except ValueError as error:
                raise click.BadParameter(str(error), param_hint="URL") from error

    async def metadata(self, model: str) -> dict[str, Any]:
        """Return a model's metadata; raise ClickException when the server doesn't say."""
        async with self._client() as client:
            name = model or self.model or await self._only_model(client)
            version = f"/versions/{quote(self.version, safe='')}" if self.version else ""
            found = await self._ask(client, "GET", f"/v2/models/{quote(name, safe='')}{version}")
        if not isinstance(found, dict):
            raise click.ClickException(f"What {self.url} says of {name} is no metadata.")
        return {"name": name, **found, "version": self.version}

    def _client(self) -> httpx.AsyncClient:
        if self.bridge is not None:
            client = bridge_client.client(self.bridge)
            client.headers.update(bridge_client.headers_for(self.url, self.allowed, self.credential))
        else:
            client = httpx.AsyncClient(follow_redirects=False, trust_env=False)
            client.headers.update([self.credential] if self.credential else [])
        client.timeout = httpx.Timeout(_PATIENCE)
        return client

    async def _only_model(self, client: httpx.AsyncClient) -> str:
        index = await self._ask(client, "POST", "/v2/repository/index")
        entries = index if isinstance(index, list) else []
        names = sorted({str(entry["name"]) for entry in entries if isinstance(entry, dict) and "name" in entry})
        if len(names) != 1:
            raise click.ClickException(f"Name one with --model: the server has {', '.join(names) or 'not said which'}.")
        return names[0]

    async def _ask(self, client: httpx.AsyncClient, method: str, path: str) -> Any:
        address = f"{self.url}{path}"
        asked = address if self.bridge is None else f"http://{bridge_client.HOST}{path}"
        try:
            response = await client.request(method, asked, json={} if method == "POST" else None)
            if response.status_code != 200:
                raise click.ClickException(f"{address} answered {response.status_code}: {response.text[:200]}")
            return response.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise click.ClickException(f"{address}: {error or type(error).__name__}") from error


def _tell(proposal: Proposal, report: Report) -> None:
    tensors = proposal.tensors
    click.echo(f"{tensors.model}: {proposal.category}, counted in {proposal.unit}")
    for word, names in (("takes", tensors.inputs), ("gives", tensors.outputs)):
        for field, name in names.items():
            click.echo(f"  {word} {field:<10} {name} {tensors.datatype(name)}")
    for note in proposal.notes:
        click.echo(f"  look: {note}")
    print_report(report)
