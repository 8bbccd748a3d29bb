"""`haat mock`: the gateway with a made-up market, all of whose calls the simulator answers. No platform, no database.

It is the gateway itself, in one process, on a journal that is thrown away: what passes here passes there.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import click
import uvloop

from haat.gateway.gateway import Gateway
from haat.gateway.limits.plan import PlanLimits
from haat.gateway.market.policy import ServicePolicy, VersionPolicy
from haat.gateway.market.snapshot import Credential, Directory, Service, Snapshot, Subscription, Version
from haat.gateway.simulator.marks import TONES
from haat.infra.keyring import KEY_BYTES, Keyring
from haat.models.hosted import Category
from haat.plugins.api import Arrival
from haat.plugins.manager import hosted_services
from haat.plugins.running import Hook
from haat.settings import Settings
from haat.usage import journal
from haat.usage.journal import JournalWriter

CATEGORIES: tuple[str, ...] = Category.__args__  # type: ignore[attr-defined]  # typing's own tuple of values
SEGMENT_BYTES = 1024 * 1024
SWEEP_SECONDS = 5.0
_NAME = re.compile(r"([a-z0-9][a-z0-9-]{0,62})/([a-z0-9][a-z0-9-]{0,62})(?:=([a-z_]+))?")
_ORG, _APPLICATION, _PROVIDER = (f"00000000-0000-7000-8000-00000000000{digit}" for digit in "abc")
_UNITS = {"embedding": "tokens", "llm": "tokens", "ocr": "images", "speech_to_text": "audio_seconds", "nlp": "requests"}
_CALLER, _HASH = "mock", b"whoever asks"


class Shelf(NamedTuple):
    """A made-up service: how its calls are answered, and by what it is counted."""

    provider: str
    slug: str
    category: str
    unit: str
    dialect: str = "task"
    aliases: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    language_pairs: tuple[str, ...] = ()


MADE_UP = (
    Shelf("mock", "chat", "llm", "tokens", "openai", ("gpt-4o-mini", "gpt-4o")),
    Shelf("mock", "embeddings", "embedding", "tokens", "task", ("text-embedding-3-small", "text-embedding-3-large")),
    Shelf("mock", "messages", "llm", "tokens", "anthropic", ("claude-sonnet-4-5",)),
    Shelf("mock", "http", "custom", "requests", "http"),
)
"""Beside the built-in services: one of each kind that those lack, under names that programs hold already."""


def anyone(arrival: Arrival) -> str | None:
    """Know every caller that has a key, as a plugin for authentication would: all are the one credential's."""
    return _CALLER if arrival.headers.get("authorization") or arrival.headers.get("x-api-key") else None


def shelves(named: Iterable[str]) -> Iterator[Shelf]:
    """Yield the built-in services, the made-up ones, and ``provider/service=category`` as named; raise ValueError."""
    for path, hosted in sorted(hosted_services().items()):
        provider, _, slug = path.partition("/")
        yield Shelf(provider, slug, hosted.category, hosted.unit,
                    languages=hosted.languages, language_pairs=hosted.language_pairs)  # fmt: skip
    yield from MADE_UP
    for name in named:
        match = _NAME.fullmatch(name)
        category = (match[3] or "custom") if match else ""
        if match is None or category not in (*CATEGORIES, "http"):
            raise ValueError(f"{name!r} is not provider/service=CATEGORY with one of {', '.join(CATEGORIES)} or http")
        dialect = "http" if category == "http" else "openai" if category == "llm" else "task"
        kind = "custom" if category == "http" else category
        unit = "requests" if category == "http" else _UNITS.get(category, "characters")
        yield Shelf(match[1], match[2], kind, unit, dialect)


def market(found: Iterable[Shelf]) -> Directory:
    """Return a market in which one application is subscribed to all of these services."""
    services, subscriptions = [], []
    for shelf in found:
        identifier = f"mock:{shelf.provider}/{shelf.slug}"
        speaks = shelf.category == "text_to_speech" and shelf.dialect == "task"
        policy = VersionPolicy(audio_formats=("wav", *TONES) if speaks else ())
        version = Version("1", "http://simulator.invalid:9", 30_000, 10 * 1024 * 1024, "", shelf.dialect, policy,
                          languages=shelf.languages, language_pairs=shelf.language_pairs)  # fmt: skip
        services.append(
            Service(
                identifier,
                shelf.provider,
                _PROVIDER,
                shelf.slug,
                "published",
                "",
                shelf.unit,
                "IN",
                (),
                "",
                b"",
                (version,),
                "1",
                ServicePolicy(aliases=shelf.aliases),
                shelf.category,
            )
        )
        subscriptions.append(
            Subscription(f"{identifier}:sub", _ORG, _APPLICATION, identifier, "mock", PlanLimits(), "Asia/Kolkata")
        )
    caller = Credential(_CALLER, _ORG, _APPLICATION, _HASH, 0, 0, True)
    return Directory(Snapshot(credentials=[caller], subscriptions=subscriptions, services=services))


async def serve(
    host: str,
    port: int,
    found: Iterable[Shelf],
    stop: asyncio.Event,
    say: Callable[[str], None],
) -> None:
    """Answer calls on a port until ``stop`` is set; ``say`` gets the address once they are taken. Raise OSError."""
    with tempfile.TemporaryDirectory(prefix="haat-mock-") as folder:
        home = Path(folder)
        settings = Settings(_env_file=None, data_dir=home, host=host, gateway_port=port, plugins={})
        writer = JournalWriter(home / "journal", "gateway-0", SEGMENT_BYTES, sync_ms=1000, reserve_bytes=0)
        gateway = Gateway(settings, Keyring(bytes(KEY_BYTES)), writer, market(found))
        gateway.authenticators = (cast(Hook, anyone),)  # a hook is what can be called with an arrival
        gateway.feed_connected = True
        sweeping: asyncio.Task[None] | None = None
        try:
            taken = await gateway.listen(host, port)
            sweeping = asyncio.create_task(_sweep(home / "journal"))
            say(f"http://{host}:{taken}")
            await stop.wait()
        finally:
            if sweeping is not None:
                sweeping.cancel()
            await gateway.stop(1.0)


async def _sweep(folder: Path) -> None:
    """Throw away what has been recorded: nobody ships it."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        for number in journal.segments(folder, "gateway-0")[:-1]:
            journal.segment_path(folder, "gateway-0", number).unlink(missing_ok=True)


def run(host: str, port: int, named: tuple[str, ...]) -> int:
    """Run the mock until Ctrl-C or SIGTERM; return the exit status."""
    try:
        found = list(shelves(named))
    except ValueError as error:
        raise click.UsageError(str(error)) from error

    async def until_told() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(host, port, found, stop, lambda address: _greet(address, found))

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(until_told())
    except OSError as error:
        raise click.ClickException(f"Port {port} of {host} can't be had ({error.strerror}): choose another.") from error
    with contextlib.suppress(BrokenPipeError):
        click.echo("The mock has ended.")
    return 0


def _greet(address: str, found: list[Shelf]) -> None:
    click.echo(f"Haat mock gateway at {address} — any key, e.g. haat_test_; nothing is real, nothing costs anything.")
    click.echo(f"{len(found)} services: {', '.join(f'{one.provider}/{one.slug}' for one in found)}")
    click.echo("X-Haat-Simulate: quota | slow | midstream | overload | timeout makes a call fail. Ctrl-C ends it.")
