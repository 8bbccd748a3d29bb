"""The built-in services in processes of their own, as `haat serve` runs them, but without control plane or PostgreSQL.

A gateway that starts from a snapshot on disk, the models process with the real engines, and the process that
speaks Socket.IO; one application is subscribed to everything, and every unit has its listing's price.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec

from gateway.bills import Billed, bill
from gateway.rig import APP, ORG, PROVIDER_ORG
from gateway.test_process import PROGRAM
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market import snapshot_file
from haat.gateway.market.policy import ServicePolicy, VersionPolicy
from haat.gateway.market.snapshot import Credential, Price, Service, Snapshot, Subscription, Version
from haat.identity.model import make_key
from haat.infra.keyring import Keyring
from haat.models.hosted import Hosted, HostedService
from haat.plugins.manager import hosted
from haat.usage import event as usage
from haat.usage import journal
from haat.usage.journal import START, JournalReader, Kind

PATIENCE = 60.0
LOOPBACK = ("127.0.0.0/8",)


@dataclass
class House:
    """Where it is, the key that opens it, and the journal that its gateway writes."""

    folder: Path
    port: int
    key: str
    services: dict[str, Service]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, path: str, body: Any) -> httpx.Response:
        return httpx.post(self.address + path, json=body, headers={"Authorization": self.key}, timeout=PATIENCE)

    def settled(self, since: set[str], count: int = 1) -> list[usage.UsageEvent]:
        """Return the events that are not among these ids, once there are so many and all are confirmed."""

        def there() -> bool:
            events, confirmed = self._read()
            fresh = events.keys() - since
            return len(fresh) >= count and fresh <= confirmed

        wait_until(there)
        return [event for identifier, event in self._read()[0].items() if identifier not in since]

    def billed(self, since: set[str], count: int = 1) -> list[Billed]:
        """Return what these events come to, in the order of their calls."""
        events = sorted(self.settled(since, count), key=lambda event: event.id)
        return [bill(event, self.services.get(event.service)) for event in events]

    def seen(self) -> set[str]:
        """Return the ids of all events so far."""
        return set(self._read()[0])

    def _read(self) -> tuple[dict[str, usage.UsageEvent], set[str]]:
        reader, position = JournalReader(self.folder / "journal", "gateway-0"), START
        events: dict[str, usage.UsageEvent] = {}
        confirmed: set[str] = set()
        while batch := reader.read(position):
            for frame in batch:
                if frame.kind == Kind.USAGE:
                    event = usage.decode(frame.payload)
                    events[event.id] = event
                elif frame.kind == Kind.CONFIRM:
                    confirmed |= {str(uuid.UUID(bytes=one)) for one in journal.confirmed_ids(frame.payload)}
            position = batch[-1].end
        return events, confirmed


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def open_house(folder: Path, models_port: int, *more: Service) -> Iterator[House]:
    """Run it on a folder; ``more`` services of others stand on its shelves too."""
    keyring, key = Keyring.load(folder), make_key()
    token = f"Bearer {keyring.derive('models-token').hex()}"
    services = [*(_listed(one, models_port, keyring, token) for one in hosted().values()), *more]
    market = Snapshot(
        credentials=[Credential("c1", ORG, APP, keyring.hash_key(key), 0, 0)],
        subscriptions=[
            Subscription(f"s-{one.id}", ORG, APP, one.id, "basic", PlanLimits(), "Asia/Kolkata") for one in services
        ],
        services=services,
    )
    snapshot_file.write(folder / "gateway" / "snapshot.bin", market, keyring)
    environment = {
        **os.environ,
        "HAAT_DATA_DIR": str(folder),
        "HAAT_GATEWAY_PORT": "0",
        "HAAT_MODELS_PORT": str(models_port),
        "HAAT_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    }
    ready = folder / "gateway" / "ready.json"
    with contextlib.ExitStack() as running:
        running.enter_context(_process([sys.executable, "-m", "haat.cli.main", "models"], environment))
        running.enter_context(_process([sys.executable, "-c", PROGRAM], environment))
        wait_until(ready.exists)
        port = int(msgspec.json.decode(ready.read_bytes())["port"])
        speech = {**environment, "HAAT_GATEWAY_PORT": str(port)}
        running.enter_context(_process([sys.executable, "-m", "haat.cli.main", "speech"], speech))
        wait_until((folder / "gateway" / "speech.sock").exists)
        wait_until(lambda: _answers(f"http://127.0.0.1:{models_port}/health"))
        yield House(folder, port, key, {one.id: one for one in services})


def _listed(one: Hosted, port: int, keyring: Keyring, token: str) -> Service:
    identifier = str(uuid.uuid5(uuid.NAMESPACE_URL, one.path))
    version = Version(
        one.version,
        f"http://127.0.0.1:{port}/{one.path}",
        int(one.timeout_seconds * 1000) + 2000,
        min(one.max_body_bytes, 10 << 20),
        "",
        one.dialect,
        VersionPolicy(audio_formats=one.audio_formats if isinstance(one, HostedService) else ()),
        languages=one.languages,
        language_pairs=one.language_pairs,
    )
    return Service(
        identifier,
        one.provider,
        PROVIDER_ORG,
        one.slug,
        "published",
        "",
        one.unit,
        "IN",
        LOOPBACK,
        "Authorization",
        keyring.encrypt(token, identifier),
        (version,),
        one.version,
        ServicePolicy(capability=one.capability, aliases=one.aliases),
        one.category,
        prices=(Price("", one.unit, f"{one.unit_price:f}", "0", 0),),
    )


@contextlib.contextmanager
def _process(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    child = subprocess.Popen(command, env=environment)
    try:
        yield
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
