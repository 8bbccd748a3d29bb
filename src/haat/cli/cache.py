"""`haat cache warm`: ask for what callers will ask, before they do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import httpx
import msgspec
from rich.console import Console
from rich.progress import Progress

from haat.cli.console import as_json_text, json_option
from haat.settings import load_settings

LONGEST_WAIT = 60.0
"""Seconds of `Retry-After` that are waited out; after a longer one the line has failed."""
_TRIES = 5
_SHOWN = 10


@dataclass
class Warming:
    """What came of a file: answered lines, those of them that the cache keeps, and the others with a reason."""

    answered: int = 0
    kept: int = 0
    failed: int = 0
    reasons: list[str] = field(default_factory=list)

    def fail(self, line: int, reason: str) -> None:
        self.failed += 1
        if len(self.reasons) < _SHOWN:
            self.reasons.append(f"line {line}: {reason}")


@click.group()
def cache() -> None:
    """Fill the gateway's cache before callers need it."""


@cache.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", envvar="HAAT_KEY", required=True, help="API key that the calls are metered to (HAAT_KEY).")
@click.option("--service", required=True, metavar="PROVIDER/SERVICE[@VERSION]", help="Service to ask.")
@click.option("--path", default="/invoke", show_default=True, help="Path below the service.")
@click.option("--gateway", "gateway_url", default=None, help="Address of the gateway, if it isn't this machine's.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=2, show_default=True, help="Calls at the same time.")
@json_option
def warm(
    file: Path, key: str, service: str, path: str, gateway_url: str | None, concurrency: int, as_json: bool
) -> None:
    """Ask for every line of FILE, each a request's JSON body, and have the answers kept.

    The calls are metered and billed like any other. What is in the cache already is asked for again. A
    gateway of several processes keeps an answer in the one that was asked.
    """
    url = f"{gateway_url or load_settings().gateway_address}/v1/services/{service}/{path.lstrip('/')}"
    lines = sum(1 for _ in _bodies(file))
    with Progress(console=Console(stderr=True), disable=as_json) as progress:
        task = progress.add_task(service, total=lines)
        done = asyncio.run(warm_up(url, key, file, concurrency, lambda: progress.advance(task)))
    if as_json:
        click.echo(as_json_text(done))
    else:
        click.echo(f"{done.answered} answered, {done.kept} of them kept; {done.failed} failed.")
        for reason in done.reasons:
            click.echo(f"  {reason}", err=True)
    if done.failed:
        sys.exit(1)


async def warm_up(
    url: str,
    key: str,
    file: Path,
    concurrency: int,
    advance: Callable[[], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Warming:
    """Ask for each line of a file, ``concurrency`` at a time; call ``advance`` after each."""
    done, bodies = Warming(), _bodies(file)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Cache-Control": "no-cache"}
    async with httpx.AsyncClient(headers=headers, timeout=610) as client:

        async def work() -> None:
            for number, body in bodies:
                await _ask(client, url, number, body, done, sleep)
                advance()

        await asyncio.gather(*[work() for _ in range(concurrency)])
    return done


async def _ask(
    client: httpx.AsyncClient,
    url: str,
    number: int,
    body: bytes,
    done: Warming,
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        done.fail(number, "it is not JSON")
        return
    for _ in range(_TRIES):
        try:
            response = await client.post(url, content=body)
        except httpx.HTTPError as error:
            done.fail(number, f"the gateway can't be asked: {error}")
            return
        wait = response.headers.get("retry-after", "")
        if response.status_code not in (429, 503) or not wait.isdecimal() or int(wait) > LONGEST_WAIT:
            break
        await sleep(int(wait))
    if response.status_code == 200:
        done.answered += 1
        done.kept += response.headers.get("x-cache") == "BYPASS" and "age" in response.headers
        return
    done.fail(number, _reason(response))


def _reason(response: httpx.Response) -> str:
    try:
        return f"{response.status_code} {response.json()['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} {response.reason_phrase}"


def _bodies(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that hold something, with their numbers."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, line.strip()
