"""The runtime ``http``: a model on another machine, asked in one of the gateway's dialects.

``entry`` is its address. Settings: ``dialect`` (``task``, ``openai`` or ``inference``), ``model``, ``headers`` and
``path``; for ``openai`` ``prompt`` (what the system says, and ``{source}``, ``{target}``, ``{language}`` in it) and
``max_tokens``; for ``inference`` ``tensors`` as in a listing. The address must be public, or lie in a network that
the operator has opened.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import httpx
import msgspec

from haat.infra.inference.asking import ask, read_answer
from haat.infra.inference.mapping import TensorMap
from haat.infra.inference.tensors import SIZE_HEADER, Unfit
from haat.infra.net import check_url, parse_networks, resolve
from haat.kernel.errors import AddressForbidden, EngineFailed, EngineTimeout, Overloaded
from haat.models.hosted import Output
from haat.models.manifest import Manifest
from haat.models.runtimes.port import Input, Runner, Runtime

NETWORKS = "MODEL_ALLOWED_NETWORKS"
"""Variable of the worker: networks (CIDR, with commas) that are not public and may be reached all the same."""
MOST_ANSWER = 10 * 1024 * 1024
_PATHS = {"task": "/invoke", "openai": "/chat/completions"}
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_OURS = {"host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding"}


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a remote model."""

    dialect: Literal["task", "openai", "inference"] = "task"
    path: str = ""
    model: str = ""
    headers: dict[str, str] = {}
    prompt: str = ""
    max_tokens: int = 1000
    tensors: TensorMap | None = None


class HttpRuntime(Runtime):
    """A model that somebody else runs."""

    name = "http"

    def check(self, manifest: Manifest, folder: Path) -> list[str]:
        found = []
        try:
            asked = msgspec.convert(manifest.settings, Asked)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `$")
            field = path.rstrip("`")
            return [f"settings{field}: {message[:1].lower()}{message[1:]}"]
        try:
            check_url(manifest.entry, https_only=False)
        except AddressForbidden as error:
            found.append(f"entry: is an address that can't be used: {error.detail}")
        if not manifest.network:
            found.append("network: must be true, the model is on another machine")
        if asked.dialect == "openai" and not asked.model:
            found.append("settings.model: must be what the other machine calls the model")
        if (asked.dialect == "inference") != (asked.tensors is not None):
            found.append("settings.tensors: goes with the dialect inference, and it with them")
        if asked.tensors is not None and asked.tensors.decoupled:
            found.append("settings.tensors: a model that answers in several parts is asked over gRPC, not here")
        if asked.dialect == "openai" and manifest.kind != "text":
            found.append("kind: must be text")
        if asked.path and not re.fullmatch(r"/[!-~]*", asked.path):
            found.append("settings.path: must begin with a slash")
        for name, value in asked.headers.items():
            if not _HEADER.fullmatch(name) or name.lower() in _OURS or not re.fullmatch(r"[ -~]{0,4096}", value):
                found.append(f"settings.headers.{name[:64]}: is not a header that can be sent")
        return found

    def open(self, manifest: Manifest, folder: Path) -> Runner:
        return HttpRunner(manifest)


class HttpRunner(Runner):
    """Each call looks the name up, and dials only an address that was checked."""

    def __init__(self, manifest: Manifest) -> None:
        self._asked = msgspec.convert(manifest.settings, Asked)
        self._scheme, self._host, self._port = check_url(manifest.entry, https_only=False)
        self._entry, self._seconds, self._kind = manifest.entry.rstrip("/"), manifest.timeout_seconds, manifest.kind
        self._allowed = parse_networks(filter(None, os.environ.get(NETWORKS, "").split(",")))

    def predict(self, inputs: Sequence[Input]) -> Sequence[Output]:
        if self._asked.dialect == "openai":
            return [self._chat(one) for one in inputs]
        outputs: list[Output] = [{} for _ in inputs]
        groups: dict[str, list[int]] = {}
        for index, one in enumerate(inputs):  # a call has one config, a batch has many
            groups.setdefault(json.dumps(one.config, sort_keys=True), []).append(index)
        for members in groups.values():
            task = {
                "input": [self._item(inputs[index]) for index in members],
                "config": dict(inputs[members[0]].config),
            }
            answers = self._infer(task) if self._asked.dialect == "inference" else self._task(task)
            if not isinstance(answers, list) or len(answers) != len(members):
                raise EngineFailed("The remote model gave another number of outputs than inputs.")
            for index, answer in zip(members, answers, strict=True):
                outputs[index] = answer
        return outputs

    def _item(self, one: Input) -> dict[str, Any]:
        if self._kind == "text":
            return {"text": one.text}
        if self._kind == "text_pair":
            return {"text": one.text, "other": one.other}
        return {self._kind: {"content": _base64(one.content), "format": one.format}}

    def _task(self, task: dict[str, Any]) -> Any:
        return _member(self._json(_encoded(task), {}), "output")

    def _infer(self, task: dict[str, Any]) -> Any:
        tensors = self._asked.tensors
        assert tensors is not None
        asked = ask(tensors, _encoded(task))
        headers = {"Content-Type": "application/json"}
        if asked.json_size >= 0:
            headers = {"Content-Type": "application/octet-stream", SIZE_HEADER: str(asked.json_size)}
        body, got = self._post(asked.body, headers, tensors.path)
        size = got.get(SIZE_HEADER)
        try:
            return read_answer(tensors, body, size.encode("latin-1") if size is not None else None, asked.items)
        except Unfit as error:
            raise EngineFailed(f"The remote model's answer can't be used: {error}.") from error

    def _chat(self, one: Input) -> Output:
        prompt = self._asked.prompt
        for name in ("source", "target", "language"):
            prompt = prompt.replace(f"{{{name}}}", str(one.config.get(name, "")))
        system = [{"role": "system", "content": prompt}] if prompt else []
        body = {
            "model": self._asked.model,
            "messages": [*system, {"role": "user", "content": one.text}],
            "max_tokens": self._asked.max_tokens,
        }
        answer = self._json(_encoded(body), {})
        try:
            text = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError) as error:
            raise EngineFailed("The remote model's answer has no message.") from error
        if not isinstance(text, str):
            raise EngineFailed("The remote model's answer has no text.")
        return {"text": text}

    def _json(self, body: bytes, headers: dict[str, str]) -> Any:
        content, _ = self._post(
            body, {"Content-Type": "application/json", **headers}, self._asked.path or _PATHS[self._asked.dialect]
        )
        try:
            return json.loads(content, parse_float=_finite, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise EngineFailed("The remote model's answer is not JSON.") from error

    def _post(self, body: bytes, headers: dict[str, str], path: str) -> tuple[bytes, httpx.Headers]:
        """Return the body and headers of a 200; raise what came instead. The whole exchange has one deadline."""
        return asyncio.run(self._exchange(body, headers, self._asked.path or path))

    async def _exchange(self, body: bytes, headers: dict[str, str], path: str) -> tuple[bytes, httpx.Headers]:
        try:
            async with asyncio.timeout(self._seconds):
                ip = await resolve(self._host, self._port, self._allowed)
                url = httpx.URL(self._entry + path)
                sent = {**self._asked.headers, **headers, "Host": url.netloc.decode(), "Accept": "*/*"}
                async with (
                    httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=self._seconds) as client,
                    client.stream(
                        "POST",
                        url.copy_with(host=str(ip), port=self._port),
                        headers=sent,
                        content=body,
                        extensions={"sni_hostname": self._host},
                    ) as response,
                ):
                    received = bytearray()
                    async for chunk in response.aiter_bytes():
                        received += chunk
                        if len(received) > MOST_ANSWER:
                            raise EngineFailed("The remote model's answer is larger than 10 MiB.")
                    _check_status(response)
                    return bytes(received), response.headers
        except (TimeoutError, httpx.TimeoutException) as error:
            raise EngineTimeout from error
        except httpx.HTTPError as error:
            raise EngineFailed(f"The remote model can't be reached ({type(error).__name__}).") from error


def _check_status(response: httpx.Response) -> None:
    if response.status_code in (429, 503):
        after = response.headers.get("retry-after", "")
        raise Overloaded(retry_after=min(int(after), 3600) if after.isdecimal() and len(after) < 6 else 2)
    if response.status_code != 200:
        raise EngineFailed(f"The remote model answered {response.status_code}; the call is not billed.")


def _member(answer: Any, name: str) -> Any:
    if not isinstance(answer, dict) or name not in answer:
        raise EngineFailed(f"The remote model's answer should be an object with `{name}`.")
    return answer[name]


def _encoded(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("infinite")
    return value


def _refuse_constant(text: str) -> Any:
    raise ValueError(text)
