"""A quick look at what a call costs: the gateway bare and with its full policy, and nginx if installed.

    python bench/gateway_quick.py [--seconds 2] [--rounds 3] [--profile FILE]

Everything runs on this machine and shares its cores, so requests a second say little; CPU microseconds a
request (user and system time of the server's process tree) are steadier. Rounds are interleaved, the
median is reported with least and most. "Full" has authentication, subscription, three windows, a quota,
concurrency, rate limit headers and the journal; "bare" only finds the service and forwards.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import uvloop

from haat.gateway import server
from haat.gateway.call import Call
from haat.gateway.gateway import Gateway
from haat.gateway.limits import PlanLimits
from haat.gateway.snapshot import Credential, Directory, Service, Snapshot, Subscription, Version
from haat.gateway.stages import check_body, find_service
from haat.identity.model import make_key
from haat.infra.keyring import Keyring
from haat.settings import Settings
from haat.usage.event import Outcome
from haat.usage.journal import JournalWriter

CONNECTIONS = 64
BODY = json.dumps(
    {"input": [{"text": "भारत एक विशाल देश है"}], "config": {"source": "hi-Deva", "target": "ur-Arab"}}
).encode()
BODY += b" " * max(0, 185 - len(BODY))
ANSWER = json.dumps({"output": [{"text": "x" * 240}], "usage": {"characters": 20}}).encode()
PATH = "/v1/services/acme/echo/invoke"


# --- the servers -------------------------------------------------------------------------------


class Upstream(asyncio.Protocol):
    """Answers each request head and body at once; trusts that a request comes in one piece."""

    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(ANSWER),
        ANSWER,
    )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.response)  # type: ignore[attr-defined]


async def serve_upstream() -> None:
    listening = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=1024)
    say({"port": listening.sockets[0].getsockname()[1]})
    await until_told()


async def serve_gateway(kind: str, upstream: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="haat-bench-"))
    keyring, key = Keyring(os.urandom(32)), make_key()
    limits = PlanLimits(3_000_000, 100_000_000, 1_000_000_000, 10_000_000_000, 4096)
    version = Version("1", f"http://127.0.0.1:{upstream}", 30_000, 1 << 20, "", "http")
    market = Snapshot(
        credentials=[Credential("c", "o", "a", keyring.hash_key(key), 0, 0)],
        subscriptions=[Subscription("s", "o", "a", "e", "sandbox", limits, "Asia/Kolkata")],
        services=[
            Service(
                "e", "acme", "p", "echo", "published", "", "requests", "IN", ("127.0.0.0/8",), "", b"", (version,), "1"
            )
        ],
    )
    journal = JournalWriter(folder / "journal", "gateway-0", 32 << 20, 200)
    gateway = Gateway(Settings(data_dir=folder), keyring, journal, Directory(market))
    if kind == "bare":
        server.STAGES = (find_service, check_body)  # type: ignore[attr-defined]

        def forget(call: Call, outcome: Outcome, status: int, error_code: str = "") -> None:
            call.recorded = True

        gateway.meter.record = forget  # type: ignore[method-assign]
    say({"port": await gateway.listen("127.0.0.1", 0), "key": key})
    await until_told()
    await gateway.stop(1)
    shutil.rmtree(folder)


def say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


async def until_told() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


# --- the load ----------------------------------------------------------------------------------


class Caller(asyncio.Protocol):
    """Sends the next request when the answer to the last is whole."""

    done = 0
    bad = 0

    def __init__(self, request: bytes) -> None:
        self.request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.buffer.endswith(ANSWER):
            Caller.done += 1
            Caller.bad += not self.buffer.startswith(b"HTTP/1.1 200")
            self.buffer = b""
            self.transport.write(self.request)  # type: ignore[attr-defined]


async def load(port: int, key: str, seconds: float) -> tuple[int, int]:
    """Return how many calls were answered, and how many of them wrongly."""
    request = (
        f"POST {PATH} HTTP/1.1\r\nHost: gateway\r\nUser-Agent: bench\r\nAccept: */*\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY
    Caller.done = Caller.bad = 0
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Caller(request), "127.0.0.1", port) for _ in range(CONNECTIONS)]
    await asyncio.sleep(seconds)
    result = Caller.done, Caller.bad
    for transport, _ in made:
        transport.abort()
    return result


# --- the measurement ---------------------------------------------------------------------------


@contextmanager
def child(*arguments: str) -> Iterator[tuple[psutil.Process, dict[str, object]]]:
    process = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield psutil.Process(process.pid), json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def nginx(upstream: int, port: int = 18_080) -> Iterator[tuple[psutil.Process, dict[str, object]]]:
    """nginx with one worker, forwarding over kept connections: what nothing in Python will beat."""
    folder = Path(tempfile.mkdtemp(prefix="haat-bench-nginx-"))
    config = folder / "nginx.conf"
    config.write_text(
        f"worker_processes 1; pid {folder}/pid; error_log /dev/null; daemon off;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"upstream up {{ server 127.0.0.1:{upstream}; keepalive 128; }}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=1024; keepalive_requests 10000000;\n"
        'location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; } } }\n'
    )
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    try:
        yield psutil.Process(process.pid), {"port": port, "key": "none"}
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def cpu_seconds(process: psutil.Process) -> float:
    return sum(p.cpu_times().user + p.cpu_times().system for p in [process, *process.children(recursive=True)])


def measure(target: tuple[psutil.Process, dict[str, object]], seconds: float) -> tuple[float, float, int]:
    """Return requests a second, CPU microseconds a request, wrong answers."""
    process, told = target
    before = cpu_seconds(process)
    done, bad = uvloop.run(load(int(str(told["port"])), str(told["key"]), seconds))
    spent = cpu_seconds(process) - before
    return done / seconds, spent / max(1, done) * 1e6, bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", type=Path, help="write a cProfile of the full gateway here instead of measuring")
    parser.add_argument("--serve", choices=["upstream", "bare", "full", "profiled"], help=argparse.SUPPRESS)
    parser.add_argument("--upstream", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve == "upstream":
        uvloop.run(serve_upstream())
    elif options.serve == "profiled":
        profile = cProfile.Profile()
        profile.runcall(uvloop.run, serve_gateway("full", options.upstream))
        profile.dump_stats(options.profile)
    elif options.serve:
        uvloop.run(serve_gateway(options.serve, options.upstream))
    elif options.profile:
        with child("--serve", "upstream") as (_, told):
            up = str(told["port"])
            with child("--serve", "profiled", "--upstream", up, "--profile", str(options.profile)) as target:
                print(measure(target, options.seconds))
    else:
        compare(options.seconds, options.rounds)


def compare(seconds: float, rounds: int) -> None:
    with child("--serve", "upstream") as (_, told):
        upstream = str(told["port"])
        with (
            child("--serve", "bare", "--upstream", upstream) as bare,
            child("--serve", "full", "--upstream", upstream) as full,
        ):
            targets = {"haat-bare": bare, "haat-full": full}
            if shutil.which("nginx"):
                with nginx(int(upstream)) as proxy:
                    report({"nginx": proxy, **targets}, seconds, rounds)
            else:
                print("nginx is not installed: no ratio to it")
                report(targets, seconds, rounds)


def report(targets: dict[str, tuple[psutil.Process, dict[str, object]]], seconds: float, rounds: int) -> None:
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in targets}
    for target in targets.values():
        measure(target, 0.5)  # warm
    for _ in range(rounds):
        for name, target in targets.items():
            found[name].append(measure(target, seconds))
    base = statistics.median(cost for _, cost, _ in found["nginx"]) if "nginx" in found else None
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {CONNECTIONS} connections, "
        f"{len(BODY)} B → {len(ANSWER)} B"
    )
    print(f"{'':12}{'requests/s':>12}{'CPU µs/request':>26}{'× nginx':>9}{'wrong':>7}")
    for name, results in found.items():
        rates, costs = [r for r, _, _ in results], [c for _, c, _ in results]
        cost = statistics.median(costs)
        ratio = f"{cost / base:.2f}" if base else "–"
        span = f"{cost:.1f} ({min(costs):.1f}–{max(costs):.1f})"
        print(f"{name:12}{statistics.median(rates):>12,.0f}{span:>26}{ratio:>9}{sum(b for _, _, b in results):>7}")


if __name__ == "__main__":
    main()
