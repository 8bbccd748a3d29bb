"""Acceptance of a service: a sample call in its own protocol, made the way the gateway makes it.

A health path that answers 200 is asked first when there is one, but proves little: what counts is
a real answer to the sample within the declared warm-up time.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from haat.catalog.drafts import SampleCall, misaddressed
from haat.catalog.model import TASK_DIALECTS, Dialect
from haat.catalog.tasks import TaskTrial
from haat.catalog.tensors import Trial
from haat.infra import bridge_client
from haat.infra.inference.mapping import TensorMap
from haat.infra.inference.upstream import DEADLINE, SCHEMES, is_asked_over_grpc
from haat.infra.net import IPNetwork, check_url, resolve
from haat.kernel.errors import AcceptanceFailed, AddressForbidden
from haat.kernel.reshaping import Misshapen, Reshaping
from haat.language.messages import N_

HEALTH_SECONDS = 5.0
_RETRY_PAUSE = 0.25
_MAX_ANSWER = 10 * 1024 * 1024
_UNCHANGED = Reshaping()
_USAGE = "X-Haat-Usage"
_QUANTITY = re.compile(r"[0-9]{1,18}(\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried: what, whether it went well, what was seen, in how many milliseconds."""

    name: str
    ok: bool
    detail: str
    ms: float


@dataclass(slots=True)
class Report:
    """What the acceptance call saw, step by step."""

    steps: list[Step] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.steps) and all(step.ok for step in self.steps)

    def require(self) -> None:
        """Raise AcceptanceFailed with the step that failed."""
        for step in self.steps:
            if not step.ok:
                raise AcceptanceFailed(
                    f"{step.name}: {step.detail}",
                    steps=[{"name": s.name, "ok": s.ok, "detail": s.detail, "ms": round(s.ms, 1)} for s in self.steps],
                )


async def check(
    endpoint: str,
    *,
    dialect: Dialect,
    sample: SampleCall,
    health_path: str = "",
    warm_up_seconds: float = 5,
    credential: tuple[str, str] | None = None,
    allowed: tuple[IPNetwork, ...] = (),
    https_only: bool = True,
    request: Reshaping = _UNCHANGED,
    answer: Reshaping = _UNCHANGED,
    tensors: TensorMap | None = None,
    data_dir: Path | None = None,
    once: bool = False,
    unit: str = "",
) -> Report:
    """Try a service at ``endpoint`` and report; never raise for what the service does wrong.

    ``credential`` is the header's name and value that the provider expects; ``request`` and ``answer`` are
    what the gateway changes on the way. With ``tensors`` the sample is a task, which is asked in these. A model that
    is asked over gRPC is asked by the bridge that works on ``data_dir``. With ``once`` a call that fails isn't tried
    again within the warm-up time. A service sold by a ``unit`` that the gateway can't count has to report it.
    """
    report = Report()

    async def step(name: str, action: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        try:
            detail, value = await action()
        except (_Refused, AddressForbidden, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            text = str(error) or type(error).__name__
            report.steps.append(Step(name, False, text, (time.perf_counter() - began) * 1000))
            return None
        report.steps.append(Step(name, True, detail, (time.perf_counter() - began) * 1000))
        return value

    async def address() -> tuple[str, _Target]:
        scheme, host, port = check_url(endpoint, https_only=https_only and not allowed, grpc=True)
        if reason := misaddressed(endpoint, dialect, tensors is not None and tensors.decoupled):
            raise _Refused(reason)
        if scheme in SCHEMES and not bridge_client.runs(data_dir):
            raise _Refused("models over gRPC are asked by `haat bridge`, which does not run here")
        ip = await resolve(host, port, allowed)
        if https_only and scheme in ("http", "grpc") and not any(ip in network for network in allowed):
            raise AddressForbidden("Only https addresses are taken, except in networks that the operator has opened.")
        return f"{host} is {ip}", _Target(endpoint.rstrip("/"), scheme, host, port, str(ip))

    target = await step(N_("address"), address)
    if target is None:
        return report
    headers = dict([credential]) if credential else {}
    if is_asked_over_grpc(endpoint):
        headers = bridge_client.headers_for(endpoint, allowed, credential)
    async with _client(target, data_dir) as client:

        async def health() -> tuple[str, bool]:
            response = await target.request(client, "GET", health_path, headers, None, HEALTH_SECONDS)
            if response.status_code != 200:
                raise _Refused(f"{health_path} answered {response.status_code} instead of 200 within 5 s")
            return f"{health_path} answered 200", True

        async def call() -> tuple[str, httpx.Response]:
            try:
                body = sample.body if isinstance(sample.body, str) else request.document(sample.body)
            except Misshapen as error:
                raise _Refused(f"the sample isn't of the shape that its version's changes expect: {error}") from error
            sent, path = {**request.headers({}), **headers}, sample.path
            trial = _trial(dialect, endpoint, tensors, body)
            if trial is not None:
                path, body = trial.path, trial.body
                sent |= trial.headers
            deadline = time.monotonic() + warm_up_seconds
            answered: _Refused | None = None
            while True:
                left = max(0.05, deadline - time.monotonic())
                try:
                    response = await target.request(client, sample.method, path, sent, body, left)
                    return _judge(response, dialect, sample, answer, trial), response
                except (httpx.HTTPError, OSError, _Refused) as error:
                    if isinstance(error, _Refused):
                        answered = error
                    if once or time.monotonic() + _RETRY_PAUSE >= deadline:
                        told = answered or error  # an answer says more than that the last try ran out of time
                        what = str(told) or type(told).__name__
                        raise _Refused(f"no usable answer within {warm_up_seconds:g} s: {what}") from error
                    await asyncio.sleep(_RETRY_PAUSE)  # it may be loading its model

        if health_path and not await step(N_("health"), health):
            return report
        response = await step(N_("sample call"), call)
    if response is not None and _must_report(dialect, tensors, unit):

        async def metering() -> tuple[str, bool]:
            return _reported(response, unit), True

        await step(N_("metering"), metering)
    return report


def _must_report(dialect: Dialect, tensors: TensorMap | None, unit: str) -> bool:
    """Tell whether only the endpoint knows how much a call has used: other protocols' answers say it themselves."""
    return dialect in ("http", "task") and tensors is None and unit not in ("", "requests", "bytes")


def _reported(response: httpx.Response, unit: str) -> str:
    """Return what the sample's answer reports of a unit; raise _Refused for nothing."""
    said = response.headers.get(_USAGE, "")
    for part in said.split(";"):
        name, _, quantity = part.partition("=")
        if name.strip() == unit and _QUANTITY.fullmatch(quantity.strip()):
            return f"{_USAGE}: {said}"
    seen = f"says {_USAGE}: {said[:100]}" if said else f"has no header {_USAGE}"
    raise _Refused(
        f"the service is sold by {unit}, and its answer {seen}; without one like `{_USAGE}: {unit}=42` every "
        "call would cost nothing"
    )


def _client(target: _Target, data_dir: Path | None) -> httpx.AsyncClient:
    """Return what makes the requests to a service, or to the bridge that asks it over gRPC."""
    if target.scheme in SCHEMES and data_dir is not None:
        return bridge_client.client(data_dir)
    return httpx.AsyncClient(follow_redirects=False, trust_env=False)


_PROTOCOLS = ("openai", "anthropic")
_MEMBERS = {
    "/chat/completions": "choices",
    "/completions": "choices",
    "/embeddings": "data",
    "/models": "data",
    "/moderations": "results",
    "/responses": "output",
    "/audio/transcriptions": "text",
    "/messages": "content",
}
"""What an answer holds at the addresses of the protocols that programs know."""


class _Refused(Exception):
    """The service did something that its buyers could not use."""


@dataclass(frozen=True, slots=True)
class _Target:
    """Where to send requests: the checked address, with the name kept for Host and TLS."""

    endpoint: str
    scheme: str
    host: str
    port: int
    ip: str

    async def request(
        self, client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str], body: Any, seconds: float
    ) -> httpx.Response:
        url = httpx.URL(self.endpoint + path)
        sent = {**headers, "Host": url.netloc.decode(), "Accept": "*/*"}
        if self.scheme in SCHEMES:
            pinned = url.copy_with(scheme="http", host=bridge_client.HOST, port=None)
            sent |= {"Host": bridge_client.HOST, DEADLINE: bridge_client.deadline_in(seconds)}
        else:
            pinned = url.copy_with(host=self.ip, port=self.port)
        content = None
        if body is not None and method != "GET":
            if isinstance(body, bytes):
                content = body
            else:
                content = body.encode() if isinstance(body, str) else json.dumps(body, ensure_ascii=False).encode()
                sent["Content-Type"] = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"
        request = client.build_request(
            method, pinned, headers=sent, content=content, timeout=seconds, extensions={"sni_hostname": self.host}
        )
        async with asyncio.timeout(seconds + 0.5):
            response = await client.send(request, stream=True)
            try:
                received = bytearray()
                async for chunk in response.aiter_bytes():
                    received += chunk
                    if len(received) > _MAX_ANSWER:
                        raise _Refused("the answer is larger than 10 MiB")
                response._content = bytes(received)
            finally:
                await response.aclose()
        return response


def _require_member(response: httpx.Response, path: str, member: str) -> None:
    """Raise _Refused for an answer that isn't an object with this member."""
    try:
        document = response.json()
    except (ValueError, RecursionError) as error:
        raise _Refused(f"the answer of {path} is not JSON") from error
    if not isinstance(document, dict) or member not in document:
        raise _Refused(f"the answer of {path} should be an object with `{member}`")


def _trial(dialect: Dialect, endpoint: str, tensors: TensorMap | None, task: Any) -> Trial | TaskTrial | None:
    """Return how a sample is asked that is a task for an endpoint which speaks something else."""
    try:
        if tensors is not None:
            return Trial(tensors, task)
        return TaskTrial(endpoint, task) if dialect == "ulca" else None
    except ValueError as error:
        raise _Refused(f"the sample can't be asked: {error}") from error


def _judge(
    response: httpx.Response, dialect: Dialect, sample: SampleCall, answer: Reshaping, trial: Trial | TaskTrial | None
) -> str:
    """Return what was seen; raise _Refused for an answer that a caller could not use."""
    if response.status_code != sample.expect_status:
        start = response.content[:200].decode("utf-8", "replace")
        raise _Refused(
            f"{sample.method} {sample.path} answered {response.status_code} instead of {sample.expect_status}: {start}"
        )
    is_task = dialect in TASK_DIALECTS
    if is_task or answer.changes_documents:
        kind = "JSON with an `output` list (see docs/tasks.md)" if is_task else "JSON"
        try:
            document = answer.document(_document(response, trial))
        except Misshapen as error:
            raise _Refused(f"the answer isn't of the shape that its version's changes expect: {error}") from error
        except (ValueError, RecursionError) as error:
            raise _Refused(f"the answer is not {kind}") from error
    member = _MEMBERS.get(sample.path.partition("?")[0].removeprefix("/v1")) if dialect in _PROTOCOLS else None
    if member is not None and "text/event-stream" not in response.headers.get("content-type", ""):
        _require_member(response, sample.path, member)
    if is_task:
        try:
            output = document["output"]
        except (KeyError, TypeError) as error:
            raise _Refused(f"the answer is not {kind}") from error
        wanted = len(sample.body["input"]) if isinstance(sample.body, dict) else 1
        if not isinstance(output, list) or len(output) != wanted:
            raise _Refused(f"`output` should hold one item for each of the {wanted} inputs")
    return f"{sample.method} {sample.path} answered {response.status_code} with {len(response.content)} bytes"


def _document(response: httpx.Response, trial: Trial | TaskTrial | None) -> Any:
    if trial is None:
        return response.json()
    try:
        return trial.read(response.content, response.headers)
    except ValueError as error:
        raise _Refused(str(error)) from error
