"""A server that speaks the Open Inference Protocol, strictly: it reads requests by the protocol alone, and by itself.

Nothing of the gateway's own reading or writing of tensors is used here, so that a mistake there can't hide.
"""

from __future__ import annotations

import asyncio
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from gateway.rig import Request

Values = dict[str, list[Any]]
"""Tensors' elements by name: texts as bytes, numbers as they are."""
Compute = Callable[[Values, dict[str, Any]], dict[str, tuple[list[int], list[Any]]]]
Headers = dict[str, str]


class Wrong(Exception):
    """The request is not one of this model."""


@dataclass
class Model:
    """One model: its metadata, and what it computes of tensors and parameters."""

    name: str
    inputs: dict[str, tuple[str, list[int]]]
    outputs: dict[str, tuple[str, list[int]]]
    compute: Compute
    version: str = "3"
    seen: list[Values] = field(default_factory=list)
    shapes: list[dict[str, list[int]]] = field(default_factory=list)

    def metadata(self) -> dict[str, Any]:
        def listed(tensors: dict[str, tuple[str, list[int]]]) -> list[dict[str, Any]]:
            return [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in tensors.items()]

        return {
            "name": self.name,
            "versions": [self.version],
            "platform": "python",
            "inputs": listed(self.inputs),
            "outputs": listed(self.outputs),
        }

    def serve(self, method: str, target: str, headers: Headers, body: bytes) -> tuple[int, Headers, bytes]:
        """Answer one request."""
        here = (f"/v2/models/{self.name}", f"/v2/models/{self.name}/versions/{self.version}")
        if method == "GET" and target == "/v2/health/ready":
            return 200, {}, b""
        if method == "POST" and target == "/v2/repository/index":
            return 200, {}, json.dumps([{"name": self.name, "version": self.version, "state": "READY"}]).encode()
        if method == "GET" and target in here:
            return 200, {}, json.dumps(self.metadata()).encode()
        if method != "POST" or target not in [f"{place}/infer" for place in here]:
            return 404, {}, json.dumps({"error": f"unknown address {target}"}).encode()
        try:
            return self._infer(headers, body)
        except Wrong as error:
            return 400, {}, json.dumps({"error": str(error)}).encode()

    def _infer(self, headers: Headers, body: bytes) -> tuple[int, Headers, bytes]:
        size = headers.get("inference-header-content-length")
        if size is None and headers.get("content-type") != "application/json":
            raise Wrong("JSON must say that it is")
        head, rest = (body, b"") if size is None else (body[: int(size)], body[int(size) :])
        request = json.loads(head)
        if extra := request.keys() - {"id", "inputs", "outputs", "parameters"}:
            raise Wrong(f"unknown members {extra}")
        values: Values = {}
        shapes = {}
        for entry in request["inputs"]:
            values[entry["name"]], rest = self._read(entry, rest)
            shapes[entry["name"]] = entry["shape"]
        if rest or values.keys() != self.inputs.keys():
            raise Wrong(f"{len(rest)} bytes too many, or inputs {sorted(values)}")
        self.seen.append(values)
        self.shapes.append(shapes)
        found = self.compute(values, request.get("parameters", {}))
        entries, data = [], b""
        for output in request["outputs"]:
            shape, elements = found[output["name"]]
            entry, raw = self._write(output, shape, elements)
            entries.append(entry)
            data += raw
        answer = json.dumps({"model_name": self.name, "model_version": self.version, "outputs": entries}).encode()
        if not data:
            return 200, {"Content-Type": "application/json"}, answer
        said = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(answer))}
        return 200, said, answer + data

    def _read(self, entry: dict[str, Any], rest: bytes) -> tuple[list[Any], bytes]:
        name = entry["name"]
        if name not in self.inputs:
            raise Wrong(f"unexpected inference input '{name}' for model '{self.name}'")
        kind, wanted = self.inputs[name]
        shape = entry["shape"]
        fits = len(shape) == len(wanted) and all(one in (-1, size) for size, one in zip(shape, wanted, strict=True))
        if entry["datatype"] != kind or not fits:
            raise Wrong(f"'{name}' is {entry['datatype']}{shape}, the model takes {kind}{wanted}")
        size = entry.get("parameters", {}).get("binary_data_size")
        if size is None:
            values = entry["data"]
            values = [value.encode() for value in values] if kind == "BYTES" else values
        else:
            raw, rest = rest[:size], rest[size:]
            values = []
            if kind == "BYTES":
                while raw:
                    length = int.from_bytes(raw[:4], "little")
                    values.append(raw[4 : 4 + length])
                    raw = raw[4 + length :]
            else:
                values = list(struct.unpack(f"<{len(raw) // 4}f", raw))
        if len(values) != math.prod(shape):
            raise Wrong(f"'{name}' has {len(values)} elements for {shape}")
        return values, rest

    def _write(self, asked: dict[str, Any], shape: list[int], values: list[Any]) -> tuple[dict[str, Any], bytes]:
        name = asked["name"]
        kind = self.outputs[name][0]
        entry: dict[str, Any] = {"name": name, "datatype": kind, "shape": shape}
        if not asked.get("parameters", {}).get("binary_data"):
            return entry | {"data": [one.decode() if kind == "BYTES" else one for one in values]}, b""
        if kind == "BYTES":
            raw = b"".join(len(one).to_bytes(4, "little") + one for one in values)
        else:
            raw = struct.pack(f"<{len(values)}f", *values)
        return entry | {"parameters": {"binary_data_size": len(raw)}}, raw

    # --- as a provider of the rig, and as a server by itself ---------------------------------------

    async def behave(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        target = request.target.removeprefix("/base")
        status, headers, body = self.serve(request.method, target, dict(request.headers), request.body)
        headers = {"Content-Length": str(len(body)), **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body)
        await writer.drain()
        return True


class ModelServer:
    """A model on a loopback port, in a thread."""

    def __init__(self, model: Model) -> None:
        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, said, answer = model.serve(self.command, self.path, headers, body)
                self.send_response(status)
                for name, value in {**said, "Content-Length": str(len(answer))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = _serve

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever)

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def translator() -> Model:
    """A model with the tensors that translation containers have: it puts the languages before the text."""

    def compute(values: Values, parameters: dict[str, Any]) -> dict[str, tuple[list[int], list[Any]]]:
        rows = zip(values["INPUT_LANGUAGE_ID"], values["OUTPUT_LANGUAGE_ID"], values["INPUT_TEXT"], strict=True)
        said = [source + b">" + target + b":" + text for source, target, text in rows]
        return {"OUTPUT_TEXT": ([len(said), 1], said)}

    names = ("INPUT_TEXT", "INPUT_LANGUAGE_ID", "OUTPUT_LANGUAGE_ID")
    return Model("nmt", {name: ("BYTES", [-1, 1]) for name in names}, {"OUTPUT_TEXT": ("BYTES", [-1, 1])}, compute)
