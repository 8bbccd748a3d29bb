"""The servers of the benchmark: nginx as upstream and as bare proxy, and the gateway."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench import market
from bench.bodies import CHAT_ANSWER, TASK, TASK_ANSWER
from bench.doors import SERVICES as BEHIND_DOORS
from bench.load import Target
from bench.market import Market
from bench.processes import LOOPBACK, NotStarted, Request, ask, await_answer, free_port, running
from haat.gateway.market.snapshot import Service
from haat.identity.model import make_key
from haat.infra.keyring import Keyring

ROOT = Path(__file__).parent.parent
JSON = {"Content-Type": "application/json", "Accept": "*/*", "User-Agent": "haat-bench"}
_NGINX = """worker_processes 1; daemon off; pid {folder}/pid; error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off; default_type application/json;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
{body}
}}
"""
_NGINX_UPSTREAM = """    server {{
        listen 127.0.0.1:{port} backlog=4096; keepalive_requests 1000000000;
        location / {{ return 200 '{task}'; }}
        location /task {{ add_header X-Haat-Usage "characters=20"; return 200 '{task}'; }}
        location /v1/chat/completions {{ return 200 '{chat}'; }}
{doors}
    }}"""
_NGINX_CASE = """        location /{slug} {{ add_header X-Haat-Usage "{usage}"; return 200 '{answer}'; }}"""
_NGINX_PROXY = """    upstream plain {{ server 127.0.0.1:{plain}; keepalive 128; keepalive_requests 1000000000; }}
    upstream stream {{ server 127.0.0.1:{stream}; keepalive 128; keepalive_requests 1000000000; }}
    proxy_http_version 1.1; proxy_set_header Connection "";
    server {{
        listen 127.0.0.1:{port} backlog=4096; keepalive_requests 1000000000;
        location / {{ proxy_pass http://plain; }}
        location /stream {{ proxy_pass http://stream; proxy_buffering off; }}
    }}"""


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Ports: nginx that answers JSON at once, and the one that streams."""

    plain: int
    stream: int


@contextlib.contextmanager
def nginx(body: str, folder: Path) -> Iterator[int]:
    """Run nginx with one worker and yield its pid."""
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, body=body))
    with running(["nginx", "-p", folder, "-c", config, "-e", "stderr"], folder / "log") as pid:
        yield pid


@contextlib.contextmanager
def upstreams(work: Path) -> Iterator[Upstreams]:
    """Run both upstreams of all the rows."""
    ports = Upstreams(free_port(), free_port())
    doors = "\n".join(
        _NGINX_CASE.format(slug=case.slug, usage=case.usage, answer=case.answer.decode()) for case in BEHIND_DOORS
    )
    body = _NGINX_UPSTREAM.format(port=ports.plain, task=TASK_ANSWER.decode(), chat=CHAT_ANSWER.decode(), doors=doors)
    stream_log = work / "stream.log"
    with (
        nginx(body, work / "upstream") as plain,
        running([sys.executable, "-m", "bench.upstream", str(ports.stream)], stream_log, folder=ROOT) as stream,
    ):
        await_answer(plain, ports.plain, Request("/", TASK, JSON), work / "upstream" / "log")
        await_answer(stream, ports.stream, Request("/stream", TASK, JSON), stream_log)
        yield ports


@contextlib.contextmanager
def nginx_proxy(work: Path, up: Upstreams) -> Iterator[Target]:
    """Run nginx as the bare proxy: what nothing in Python will beat."""
    port = free_port()
    body = _NGINX_PROXY.format(port=port, plain=up.plain, stream=up.stream)
    with nginx(body, work / "proxy") as pid:
        target = Target("nginx", port, pid, "/invoke", TASK, JSON)
        check_answer(target, work / "proxy" / "log", TASK_ANSWER)
        yield target


def at(target: Target, name: str, path: str) -> Target:
    """Return another path of the same server as a target."""
    return replace(target, name=name, path=path)


def check_answer(target: Target, log: Path, expected: bytes, patience: float = 60) -> None:
    """Wait until a target answers; raise NotStarted when the answer isn't the upstream's."""
    answer = await_answer(target.pid, target.port, request_of(target), log, patience=patience)
    if answer.body != expected:
        raise NotStarted(f"{target.name} answers something else: {answer.body[:300]!r}")


def request_of(target: Target) -> Request:
    return Request(target.path, target.body, target.headers)


# --- the gateway -------------------------------------------------------------------------------

SERVICES = f"/v1/services/{market.PROVIDER}"
PLAIN_PATH, TASK_PATH, STREAM_PATH = f"{SERVICES}/plain/invoke", f"{SERVICES}/task/invoke", f"{SERVICES}/stream/stream"


def authorised(key: str) -> dict[str, str]:
    return {**JSON, "Authorization": f"Bearer {key}"}


def services(up: Upstreams) -> list[Service]:
    """Return the services: one forwarded as it is, one of our task form that reports its units, one that streams."""
    plain, stream = f"http://{LOOPBACK}:{up.plain}", f"http://{LOOPBACK}:{up.stream}"
    return [
        market.service("plain", plain),
        market.service("task", f"{plain}/task", dialect="task", unit="characters"),
        market.service("stream", stream),
        *(
            market.service(
                case.slug, f"{plain}/{case.slug}", dialect=case.dialect, unit=case.unit, category=case.category
            )
            for case in BEHIND_DOORS
        ),
    ]


def prepare(data_dir: Path, up: Upstreams, *, applications: int = 1) -> Market:
    """Lay down a data directory with a small market, and a key for each application."""
    keyring = Keyring.load(data_dir)
    made = market.make_market(keyring, services(up), applications=applications, usable=applications)
    market.keep(made, keyring, data_dir)
    return made


@contextlib.contextmanager
def gateway(
    name: str,
    data_dir: Path,
    key: str,
    *,
    path: str = PLAIN_PATH,
    answer: bytes = TASK_ANSWER,
    workers: int = 1,
    patience: float = 60,
    bare: bool = False,
    profile: Path | None = None,
) -> Iterator[Target]:
    """Run the gateway as it is run in earnest, but without a database: it serves from its snapshot.

    It is ready when it answers ``answer`` at ``path``. ``bare`` runs the frame without any policy instead;
    to ``profile`` goes what cProfile sees of a single worker.
    """
    port, log = free_port(), data_dir / "log"
    command = [sys.executable, *(("-m", "cProfile", "-o", str(profile)) if profile else ()), "-m"]
    if bare:
        command += ["bench.bare", str(data_dir), str(port)]
    else:
        command += ["haat.cli.main", "gateway", "--data-dir", str(data_dir), "--gateway-port", str(port)]
        command += ["--workers", str(workers)]
    environment = {
        **os.environ,
        "HAAT_SUPERVISED": "1",  # whoever sets it sees to the database: here it is to have none
        "HAAT_SHUTDOWN_SECONDS": "5",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    with running(command, log, environment=environment, folder=data_dir) as pid:
        target = Target(name, port, pid, path, TASK, authorised(key))
        check_answer(target, log, answer, patience)
        yield target


def what_it_does(target: Target) -> dict[str, bool]:
    """Look at single calls: is there in earnest what the row is said to have?"""
    answer = ask(target.port, request_of(at(target, target.name, f"{SERVICES}/stream/headers")))
    stranger = ask(target.port, Request(target.path, target.body, authorised(make_key())))
    sent = json.loads(answer.body)
    return {
        "a stranger's key is refused": stranger.status == 401,
        "limits in the answer": any(name.startswith("ratelimit") for name in answer.headers),
        "request id in the answer": "x-request-id" in answer.headers,
        "units in the answer": "x-haat-units" in answer.headers,
        "trace context at the provider": "traceparent" in sent,
        "the key kept from the provider": "authorization" not in sent,
    }
