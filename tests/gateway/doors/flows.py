"""Services for the tests of pipelines, and what reads the events of one that streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from msgspec import structs

from gateway.rig import Client, Market, Request, answer, reset
from haat.gateway.market.snapshot import Price
from haat.usage.event import Outcome, UsageEvent

Before = Callable[[str, str], Awaitable[bytes | None]]
"""Is told a service's letter and the text it was given before that answers; bytes are answered in its place."""


class Chain:
    """Services that add their letter to a text, are metered by its length, and know whom they were asked for."""

    def __init__(self, market: Market, *letters: str) -> None:
        self.market = market
        self.asked: list[tuple[str, str]] = []
        """A letter and a text, in the order in which they came."""
        self.gates: dict[tuple[str, str], asyncio.Event] = {}
        """Hold back what is asked for."""
        self.instead: dict[tuple[str, str], bytes] = {}
        """Is answered once in place of what would be."""
        self.lost: set[tuple[str, str]] = set()
        """Breaks the connection off, however often it is asked for."""
        self.pad = ""
        for letter in letters:
            market.add_service(letter, dialect="task", category="translation", unit="characters", base=f"/{letter}")
        market.provider.behaviour = self._behave

    async def _behave(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        letter = request.target[1]
        texts = [item["text"] for item in json.loads(request.body)["input"]]
        self.asked.append((letter, texts[0]))
        gate = self.gates.get((letter, texts[0]))
        if gate is not None:
            opened, left = asyncio.ensure_future(gate.wait()), asyncio.ensure_future(reader.read(1))
            await asyncio.wait({opened, left}, return_when=asyncio.FIRST_COMPLETED)
            opened.cancel()
            if left.done():
                return False
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
        if (letter, texts[0]) in self.lost:
            reset(writer)
            return False
        broken = self.instead.pop((letter, texts[0]), None)
        whole = {"output": [{"text": text + letter + self.pad} for text in texts]}
        used = sum(map(len, texts))
        writer.write(broken or answer(200, json.dumps(whole).encode(), f"X-Haat-Usage: characters={used}"))
        await writer.drain()
        return True

    def gate(self, letter: str, text: str) -> asyncio.Event:
        self.gates[letter, text] = event = asyncio.Event()
        return event

    def price(self, letter: str, rupees: str) -> None:
        service = self.market.gateway.directory.services[f"acme/{letter}"]
        cards = (Price("", "characters", rupees, "0", 1),)
        self.market.gateway.directory.put_service(service.id, structs.replace(service, prices=cards))

    def body(self, letters: str, *texts: str, **more: Any) -> bytes:
        stages = [{"service": f"acme/{letter}"} for letter in letters]
        return json.dumps({"stages": stages, "input": [{"text": text} for text in texts], **more}).encode()

    def raw(self, letters: str, *texts: str, headers: tuple[str, ...] = (), **more: Any) -> bytes:
        body = self.body(letters, *texts, **more)
        return self.market.raw("POST", "/v1/pipelines", body, "Content-Type: application/json", *headers)

    def billed(self) -> list[tuple[str, str]]:
        """Return the service and the characters of each event that costs something."""
        found = [event for event in self.market.events() if event.outcome == Outcome.COMPLETED]
        return [(one.service_slug, one.units["characters"]) for one in found if one.units.get("characters", "0") != "0"]

    def outcomes(self) -> list[tuple[str, UsageEvent]]:
        return [(event.service_slug, event) for event in self.market.events()]


class Event(NamedTuple):
    name: str
    data: Any

    @classmethod
    def parse(cls, text: str) -> Event:
        lines = [line.partition(": ") for line in text.splitlines()]
        name = next((value for field, _, value in lines if field == "event"), "message")
        [data] = [value for field, _, value in lines if field == "data"]
        return cls(name, data if data == "[DONE]" else json.loads(data))


def events_in(body: bytes) -> list[Event]:
    return [Event.parse(part) for part in body.decode().split("\n\n") if part]


class Listener:
    """Reads a stream of events while it comes."""

    def __init__(self, client: Client) -> None:
        self._reader = client.reader
        self.head = b""

    async def next(self) -> Event:
        async with asyncio.timeout(5):
            if not self.head:
                self.head = await self._reader.readuntil(b"\r\n\r\n")
                assert self.head.startswith(b"HTTP/1.1 200"), self.head + await self._reader.read(2000)
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            return Event.parse((await self._reader.readexactly(size + 2)).decode())


def place(event: Event) -> tuple[int, int]:
    """Return the stage and the item that an output is of."""
    return event.data["stage"], event.data["item"]
