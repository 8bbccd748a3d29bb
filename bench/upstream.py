"""An upstream that takes its time: `python -m bench.upstream` answers on loopback until it is ended.

`…/stream` gives an event stream, one event every few milliseconds, each in a write of its own;
`…/slow` a JSON answer after a while, `…/late` one that few wait for, `…/headers` the names of the headers that
came; everything else a JSON answer at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from typing import cast

import httptools
import uvloop

from bench.processes import LOOPBACK

EVENTS = 20
EVENT_SECONDS = 0.005
SLOW_SECONDS, LATE_SECONDS = 0.05, 2.0
ANSWER = b'{"output":[{"text":"' + b"x" * 240 + b'"}],"usage":{"characters":20}}'
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
WHOLE = JSON % (len(ANSWER), ANSWER)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def events() -> list[bytes]:
    """Return the events of one stream as chunks; the first brings the response's head, the last its end."""
    texts = [b'data: {"choices":[{"index":0,"delta":{"content":"word %02d "}}]}\n\n' % n for n in range(EVENTS - 1)]
    texts.append(b"data: [DONE]\n\n")
    chunks = [b"%x\r\n%b\r\n" % (len(text), text) for text in texts]
    return [STREAM_HEAD + chunks[0], *chunks[1:-1], chunks[-1] + LAST_CHUNK]


_EVENTS = events()


class Upstream(asyncio.Protocol):
    """One connection from a proxy."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)
        self.target = b""
        self.names: list[str] = []
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.names.append(name.decode("latin-1").lower())

    def on_message_complete(self) -> None:
        target, self.target, names, self.names = self.target, b"", self.names, []
        if target.endswith(b"/stream"):
            self.send_event(0)
        elif target.endswith(b"/slow"):
            self.loop.call_later(SLOW_SECONDS, self.write, WHOLE)
        elif target.endswith(b"/late"):
            self.loop.call_later(LATE_SECONDS, self.write, WHOLE)
        elif target.endswith(b"/headers"):
            body = json.dumps(names).encode()
            self.write(JSON % (len(body), body))
        else:
            self.write(WHOLE)

    def send_event(self, number: int) -> None:
        self.write(_EVENTS[number])
        if number + 1 < EVENTS:
            self.loop.call_later(EVENT_SECONDS, self.send_event, number + 1)

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)


async def serve(port: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await loop.create_server(Upstream, LOOPBACK, port, backlog=4096)
    await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
