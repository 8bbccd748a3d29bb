"""A buyer, a provider and the operator on a running platform, through the control API alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from psycopg.rows import dict_row
from running import RunningPlatform

from haat.bootstrap import OPERATOR_EMAIL, local_sign_in, models_credential
from haat.cli.sandbox import gateway_reaches
from haat.infra import events
from haat.infra.keyring import Keyring

PATIENCE_SECONDS = 15


class Handler(BaseHTTPRequestHandler):
    """A provider that says nothing on the console."""

    def answer(self, status: int, body: bytes, usage: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if usage:
            self.send_header("X-Haat-Usage", usage)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def serving(handler: type[Handler]) -> Iterator[str]:
    """Run a provider for the length of a block; yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Api:
    """The control API, as somebody who is signed in."""

    def __init__(self, address: str, email: str, password: str) -> None:
        self.client = httpx.Client(base_url=f"{address}/api/v1", timeout=40, trust_env=False)
        token = self.ask("POST", "/sessions", email=email, password=password)["token"]
        self.client.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, **members: Any) -> Any:
        response = self.client.request(method, path, json=members or None)
        assert response.is_success, response.text
        return response.json() if response.content else None

    def story(self, request_id: str) -> Any:
        """Return what became of a call, once it is in the usage store."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            response = self.client.get(f"/usage/calls/{request_id}")
            if response.status_code == 200:
                return response.json()
            assert time.monotonic() < deadline, f"{request_id} has not reached the usage store: {response.text}"
            time.sleep(0.05)


@dataclass
class Market:
    """The running platform with a buyer's, a provider's and the operator's way in."""

    platform: RunningPlatform
    buyer: Api
    provider: Api
    slug: str

    def id_of(self, path: str) -> str:
        found: str = self.buyer.ask("GET", f"/listings/{path}")["listing"]["id"]
        return found

    def offer(self, endpoint: str, sample: dict[str, Any], **version: Any) -> str:
        """List, have accepted and publish a service of the provider's; return its path."""
        slug = f"s-{uuid4().hex[:8]}"
        made = self.provider.ask(
            "POST",
            "/services",
            slug=slug,
            name=f"Trial {slug}",
            summary="Fails when it is told to",
            category="nlp",
            unit="requests",
            max_requests_per_second=100_000,
            version={"endpoint": endpoint, "sample": sample, **version},
            price={"unit_price": "0.01"},
            credential_header="Authorization",
            credential=models_credential(Keyring.load(self.platform.data_dir)),
        )
        service = f"/services/{made['service_id']}"
        self.provider.ask("POST", f"{service}/versions/{made['version_id']}/accept")
        self.provider.ask("POST", f"{service}/publish")
        return f"{self.slug}/{slug}"

    def customer(self, path: str, plan: str = "basic") -> str:
        """Make an application that subscribes to a service; return its key once the gateway knows it."""
        application = self.buyer.ask("POST", "/applications", name=f"Trial {uuid4().hex[:8]}")["id"]
        self.buyer.ask("POST", "/subscriptions", application_id=application, service_id=self.id_of(path), plan=plan)
        key: str = self.buyer.ask("POST", f"/applications/{application}/keys", name="trial")["key"]
        self.settle()
        return key

    def settle(self) -> None:
        """Wait until the gateway knows what has been changed so far."""
        asyncio.run(self._settle())

    async def _settle(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self.platform.owner_dsn(), autocommit=True, row_factory=dict_row
        ) as connection:
            newest = await events.newest_position(connection)
        await gateway_reaches(self.platform.gateway_url, newest)


@contextmanager
def open_market(platform: RunningPlatform) -> Iterator[Market]:
    """Make the three accounts; the provider is approved and may point at this machine."""
    address = platform.control_url
    slug = f"trial-{uuid4().hex[:6]}"
    people = {}
    for kind in ("consumer", "provider"):
        person = {"email": f"{kind}@{slug}.example", "password": "a street with many stalls"}
        httpx.post(
            f"{address}/api/v1/accounts",
            json={**person, "name": "Asha", "organisation": f"{slug} {kind}", "kind": kind},
            trust_env=False,
        ).raise_for_status()
        people[kind] = Api(address, **person)
    sign_in = local_sign_in(Keyring.load(platform.data_dir), OPERATOR_EMAIL)
    operator = Api(address, sign_in.email, sign_in.password)
    partner = people["provider"].ask(
        "POST",
        "/partner",
        slug=slug,
        company_name="Trial Text Works",
        email=f"desk@{slug}.example",
        contact_person="Asha Rao",
        business_type="proprietorship",
    )
    operator.ask("POST", f"/partners/{partner['org_id']}/approve")
    operator.ask("PUT", f"/partners/{partner['org_id']}/networks", networks=["127.0.0.0/8"])
    yield Market(platform, people["consumer"], people["provider"], slug)
    for api in (*people.values(), operator):
        api.client.close()
