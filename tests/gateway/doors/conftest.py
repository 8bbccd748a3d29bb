"""What several tests of this folder stand on; its one house of real engines takes seconds to start."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.doors.house import House, open_house
from gateway.rig import PATIENCE, PROVIDER_ORG, Market
from haat.gateway.market.policy import ServicePolicy
from haat.gateway.market.snapshot import Price, Service, Version
from haat.settings import Settings
from haat.speech import process

GLOSSARY = {"all": "सब", "my": "मेरी", "mother": "माँ"}
"""Nobody here translates English: a small provider of somebody else's does, for the chain from speech to speech."""


class _Translator(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = [" ".join(GLOSSARY.get(word, word) for word in one["text"].split()) for one in asked["input"]]
        body = json.dumps({"output": [{"text": text} for text in texts]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Haat-Usage", f"characters={sum(len(one['text']) for one in asked['input'])}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
async def client(market: Market) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own, before the market."""
    address = f"http://127.0.0.1:{market.port}/v1"
    async with openai.AsyncOpenAI(base_url=address, api_key=market.key, max_retries=0) as made:
        yield made


@pytest.fixture
async def speech(market: Market, tmp_path: Path) -> AsyncIterator[Market]:
    """The market with the process that speaks Socket.IO beside it."""
    stop = asyncio.Event()
    running = asyncio.create_task(process.run(Settings(data_dir=tmp_path, gateway_port=market.port), stop))
    await market.until(lambda: (tmp_path / "gateway" / "speech.sock").exists())
    yield market
    stop.set()
    await asyncio.wait_for(running, PATIENCE)


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    server = HTTPServer(("127.0.0.1", 0), _Translator)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    version = Version(
        "1", f"http://127.0.0.1:{server.server_port}", 5000, 1 << 20, "", "task", language_pairs=("en-Latn>hi-Deva",)
    )
    translator = Service(
        "other", "acme", PROVIDER_ORG, "translate", "published", "", "characters", "IN", ("127.0.0.0/8",), "", b"",
        (version,), "1", ServicePolicy(), "translation", prices=(Price("", "characters", "0.001", "0", 0),),
    )  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open_house(tmp_path_factory.mktemp("house"), port, translator) as opened:
        yield opened
    server.shutdown()
    server.server_close()
